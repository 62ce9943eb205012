"""Behaviour policies of the tasks that come with the package."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim_bridge.tasks.base import TaskEnv, TaskSpec
from sim_bridge.tasks.simulation import Factory, Policy
from sim_bridge.tasks.simulations import simulations

POLICIES: dict[str, Mapping[str, Factory]] = {
    name: found.policies for name, found in simulations().items()
}
"""Policies per task; the first is the default."""


def make_policy(task: TaskEnv | TaskSpec, name: str | None, rng: np.random.Generator) -> Policy:
    """Build policy ``name`` (None: the task's default) for one trajectory.

    Raises:
        ValueError: the task has no such policy.
    """
    spec = task.spec_task if isinstance(task, TaskEnv) else task
    return simulations()[spec.name].policy(name, rng)
