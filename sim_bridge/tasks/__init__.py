"""Simulated tasks as gymnasium environments; importing registers their ids, no simulator.

A task is one file in ``simulations`` (constants and policies) and one with its environment.
"""

from __future__ import annotations

from typing import Any

from sim_bridge.tasks.base import TaskEnv, TaskSpec
from sim_bridge.tasks.simulation import Simulation
from sim_bridge.tasks.simulations import simulations
from sim_bridge.tasks.specs import SPECS


def register_tasks() -> None:
    """Register every task's gymnasium id; the simulators themselves are imported by ``make``."""
    for simulation in simulations().values():
        simulation.register()


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
    return simulations()[name].make(**kwargs)


register_tasks()

__all__ = [
    "SPECS",
    "Simulation",
    "TaskEnv",
    "TaskSpec",
    "make_task",
    "register_tasks",
    "task_spec",
]
