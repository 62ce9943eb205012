"""Simulated tasks as gymnasium environments; importing registers their ids, no simulator."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium as gym

from sim_bridge.tasks.base import TaskEnv, TaskSpec
from sim_bridge.tasks.specs import SPECS

_ENTRY_POINTS = {
    "pusht": "sim_bridge.tasks.pusht:PushTEnv",
    "wall": "sim_bridge.tasks.wall:WallEnv",
    "point_maze": "sim_bridge.tasks.point_maze:PointMazeEnv",
}


def register_tasks() -> None:
    """Register every task's gymnasium id; the simulators themselves are imported by ``make``."""
    for name, entry_point in _ENTRY_POINTS.items():
        spec = SPECS[name]
        if spec.env_id not in gym.registry:
            gym.register(spec.env_id, entry_point, max_episode_steps=spec.episode_steps)


def task_spec(name: str) -> TaskSpec:
    """Constants of task ``name``.

    Raises:
        ValueError: unknown name.
    """
    if name not in SPECS:
        raise ValueError(f"task: {name!r} is unknown; one of {', '.join(SPECS)}")
    return SPECS[name]


def make_task(name: str, **kwargs: Any) -> TaskEnv:
    """Build the bare environment of task ``name``, without gymnasium's wrappers.

    Raises:
        ValueError: unknown name.
    """
    task_spec(name)
    module, _, cls = _ENTRY_POINTS[name].partition(":")
    return getattr(importlib.import_module(module), cls)(**kwargs)


register_tasks()

__all__ = ["SPECS", "TaskEnv", "TaskSpec", "make_task", "register_tasks", "task_spec"]
