"""Behaviour policies without an aim: correlated random actions and random headings."""

from __future__ import annotations

import math

import numpy as np

from sim_bridge.tasks.base import TaskSpec


class RandomWalk:
    """Correlated Gaussian actions (a discrete Ornstein-Uhlenbeck process), clipped to bounds."""

    def __init__(
        self, spec: TaskSpec, rng: np.random.Generator, std: float = 0.3, persistence: float = 0.8
    ) -> None:
        """Create the walk.

        Args:
            spec: the task.
            rng: source of randomness, owned by the caller.
            std: stationary standard deviation per dimension, as a fraction of the upper bound.
            persistence: correlation between successive actions, in [0, 1).
        """
        self._low = np.asarray(spec.action_low)
        self._high = np.asarray(spec.action_high)
        self._rng = rng
        self._std = std * self._high
        self._persistence = persistence
        self._action = self._std * rng.standard_normal(spec.action_dim)

    def act(self, state: np.ndarray) -> np.ndarray:
        """Next action of the walk; ``state`` is not used."""
        rho = self._persistence
        kick = math.sqrt(1 - rho * rho) * self._std * self._rng.standard_normal(len(self._std))
        self._action = rho * self._action + kick
        return np.clip(self._action, self._low, self._high).astype(np.float32)


class PiecewiseUniform:
    """Actions drawn uniformly from the whole box and held for a while, as planners try them.

    A planner searches the whole action box; a model that never saw its corners is wrong there, and
    the planner finds out first.
    """

    def __init__(self, spec: TaskSpec, rng: np.random.Generator, hold: float = 6.0) -> None:
        """Create the policy.

        Args:
            spec: the task.
            rng: source of randomness, owned by the caller.
            hold: mean number of control steps an action is held, at least 1.
        """
        self._low = np.asarray(spec.action_low)
        self._high = np.asarray(spec.action_high)
        self._rng = rng
        self._change = 1.0 / hold
        self._action = rng.uniform(self._low, self._high)

    def act(self, state: np.ndarray) -> np.ndarray:
        """Next action; ``state`` is not used."""
        if self._rng.random() < self._change:
            self._action = self._rng.uniform(self._low, self._high)
        return self._action.astype(np.float32)


class HeadingWalk:
    """A heading that turns at random and a random stride: DINO-WM's policy for Wall.

    Turns are von Mises with concentration 5 per step; strides are normal (1, 0.4), cut to
    [0.2, 1.8].
    """

    def __init__(self, spec: TaskSpec, rng: np.random.Generator) -> None:
        """Create the walk for one trajectory; ``rng`` is owned by the caller."""
        self._rng = rng
        self._heading = float(rng.uniform(-math.pi, math.pi))

    def act(self, state: np.ndarray) -> np.ndarray:
        """Next action; ``state`` is not used."""
        self._heading += float(self._rng.vonmises(0.0, 5.0))
        return stride(self._rng) * heading_vector(self._heading)


def stride(rng: np.random.Generator) -> float:
    """A step length from the normal distribution (1, 0.4) cut to [0.2, 1.8]."""
    while True:
        length = float(rng.normal(1.0, 0.4))
        if 0.2 <= length <= 1.8:
            return length


def heading_vector(angle: float) -> np.ndarray:
    """Unit vector float32 ``(2,)`` at ``angle`` [rad]."""
    return np.array([math.cos(angle), math.sin(angle)], np.float32)
