"""The simulated side of a task, declared once: constants, environment and behaviour policies."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from sim_bridge.tasks.base import TaskEnv, TaskSpec


class Policy(Protocol):
    """Chooses actions from true simulator states; one instance drives one trajectory."""

    def act(self, state: np.ndarray) -> np.ndarray:
        """Action float32 ``(action_dim,)`` within bounds for ``state`` ``(state_dim,)``."""
        ...


Factory = Callable[[TaskSpec, np.random.Generator], Policy]


@dataclass(frozen=True)
class Simulation:
    """A simulated task.

    Attributes:
        spec: its constants.
        environment: the ``TaskEnv``, or ``module:CLASS`` of it, so that knowing the task needs
            no simulator.
        policies: behaviour policies that explore it, by name; the first is the default.
    """

    spec: TaskSpec
    environment: str | type[TaskEnv]
    policies: Mapping[str, Factory]

    def make(self, **settings: Any) -> TaskEnv:
        """Build the bare environment, without gymnasium's wrappers."""
        if not isinstance(self.environment, str):
            return self.environment(**settings)
        module, _, name = self.environment.partition(":")
        return getattr(importlib.import_module(module), name)(**settings)

    def policy(self, name: str | None, rng: np.random.Generator) -> Policy:
        """Build policy ``name`` (None: the default) for one trajectory.

        Raises:
            ValueError: the task has no such policy.
        """
        name = next(iter(self.policies)) if name is None else name
        if name not in self.policies:
            known = ", ".join(self.policies)
            raise ValueError(f"policy: {name!r} is unknown for {self.spec.name}; one of {known}")
        return self.policies[name](self.spec, rng)

    def register(self) -> str:
        """Make the environment known to gymnasium; its id. The simulator is not imported."""
        spec = self.spec
        if spec.env_id not in gym.registry:
            gym.register(spec.env_id, self.environment, max_episode_steps=spec.episode_steps)
        return spec.env_id


def mixed(*factories: Factory) -> Factory:
    """A policy that is one of several, each as likely."""

    def choose(spec: TaskSpec, rng: np.random.Generator) -> Policy:
        return factories[int(rng.integers(len(factories)))](spec, rng)

    return choose
