"""Constants of the tasks that come with the package, importable without any simulator."""

from __future__ import annotations

from sim_bridge.tasks.base import TaskSpec
from sim_bridge.tasks.simulations import simulations

SPECS: dict[str, TaskSpec] = {name: found.spec for name, found in simulations().items()}
