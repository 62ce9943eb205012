"""Behaviour policies that explore a task: ``make_policy(spec, name, rng).act(state)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from sim_bridge.tasks.base import TaskEnv, TaskSpec
from sim_bridge.tasks.contact_policy import PushTContact
from sim_bridge.tasks.walks import HeadingWalk, PiecewiseUniform, RandomWalk
from sim_bridge.tasks.waypoint_policies import MazeWaypoint, WallWaypoint


class Policy(Protocol):
    """Chooses actions from true simulator states; one instance drives one trajectory."""

    def act(self, state: np.ndarray) -> np.ndarray:
        """Action float32 ``(action_dim,)`` within bounds for ``state`` ``(state_dim,)``."""
        ...


Factory = Callable[[TaskSpec, np.random.Generator], Policy]


def _mixed(spec: TaskSpec, rng: np.random.Generator) -> Policy:
    """A third each: waypoints, the task's random walk, and the whole action box."""
    return make_policy(spec, ("waypoint", "random", "box")[int(rng.integers(3))], rng)


def _maze_walk(spec: TaskSpec, rng: np.random.Generator) -> Policy:
    return RandomWalk(spec, rng, std=0.5, persistence=0.9)


POLICIES: dict[str, dict[str, Factory]] = {
    "pusht": {"contact": PushTContact, "random": RandomWalk, "box": PiecewiseUniform},
    "wall": {
        "mixed": _mixed,
        "waypoint": WallWaypoint,
        "random": HeadingWalk,
        "box": PiecewiseUniform,
    },
    "point_maze": {
        "mixed": _mixed,
        "waypoint": MazeWaypoint,
        "random": _maze_walk,
        "box": PiecewiseUniform,
    },
}
"""Policies per task; the first is the default."""


def make_policy(task: TaskEnv | TaskSpec, name: str | None, rng: np.random.Generator) -> Policy:
    """Build policy ``name`` (None: the task's default) for one trajectory.

    Raises:
        ValueError: the task has no such policy.
    """
    spec = task.spec_task if isinstance(task, TaskEnv) else task
    known = POLICIES[spec.name]
    name = next(iter(known)) if name is None else name
    if name not in known:
        raise ValueError(f"policy: {name!r} is unknown for {spec.name}; one of {', '.join(known)}")
    return known[name](spec, rng)
