"""What every simulated task offers: a gymnasium environment with exact snapshots and a goal picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np


@dataclass(frozen=True)
class TaskSpec:
    """Constants of a task. Actions, proprioception and state are in the task's raw units.

    Attributes:
        name: short name used on the command line, e.g. ``pusht``.
        env_id: gymnasium id; ``gymnasium.make("sim_bridge:" + env_id)`` imports and registers it.
        control_period: seconds between two actions.
        frameskip: control steps per world-model step in the published set-ups.
        action_low, action_high: bounds per action dimension.
        proprio_names: joint names published for the position half; proprio is ``[positions, velocities]`` or positions only.
        proprio_dim, state_dim: widths.
        goal_offset: how many control steps ahead goals lie (published protocol).
        episode_steps: environment-step budget of an evaluation episode.
        error_unit: unit of ``errors()["error"]``, e.g. ``px`` or ``m``.
    """

    name: str
    env_id: str
    control_period: float
    frameskip: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    proprio_names: tuple[str, ...]
    proprio_dim: int
    state_dim: int
    goal_offset: int
    episode_steps: int
    error_unit: str

    @property
    def action_dim(self) -> int:
        """Number of raw action dimensions."""
        return len(self.action_low)


class TaskEnv(gym.Env):
    """Base of the task environments.

    Observations are ``{"image": uint8 (H, W, 3) RGB, "proprio": float32 (P,), "state": float64 (S,)}``.
    ``reset(seed=..., options=...)`` draws a start and a goal; options: ``goal_offset`` (control steps ahead,
    default ``spec_task.goal_offset``), ``start`` and ``goal`` (state vectors that replace the drawn ones).
    ``step`` returns ``terminated`` on success, and ``errors(...)`` plus ``success`` in ``info``. The reward is
    ``-errors()["error"]``. The same seed and actions give bit-equal states.
    """

    spec_task: TaskSpec
    goal_state: np.ndarray

    def snapshot(self) -> np.ndarray:
        """Return the whole simulator state, float64 ``(state_dim,)``."""
        raise NotImplementedError

    def restore(self, snapshot: np.ndarray) -> None:
        """Put the simulator into ``snapshot`` exactly: the same actions then give bit-equal states.

        Raises:
            ValueError: wrong shape or a non-finite entry; the simulator is left as it was.
        """
        raise NotImplementedError

    def proprio(self, state: np.ndarray) -> np.ndarray:
        """Proprioception a robot would report in ``state``, float32 ``(proprio_dim,)``."""
        raise NotImplementedError

    def render_state(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """Picture of ``state``, uint8 ``(size, size, 3)`` RGB, without touching the simulation."""
        raise NotImplementedError

    def errors(self, state: np.ndarray, goal: np.ndarray) -> dict[str, float]:
        """Distances between two states; ``error`` is the headline one, in ``spec_task.error_unit``."""
        raise NotImplementedError

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        """The published success criterion of the task."""
        raise NotImplementedError

    def observe(self, state: np.ndarray | None = None) -> dict[str, Any]:
        """Observation of ``state`` (default: the current one)."""
        state = self.snapshot() if state is None else state
        return {"image": self.render_state(state), "proprio": self.proprio(state), "state": state}
