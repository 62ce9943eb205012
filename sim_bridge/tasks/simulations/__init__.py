"""The simulated tasks that come with the package, one file each, importable without simulators."""

from __future__ import annotations

import importlib
import pkgutil

from sim_bridge.tasks.simulation import Simulation


def simulations() -> dict[str, Simulation]:
    """Every task's ``SIMULATION``, by the task's name."""
    found = (
        importlib.import_module(f"{__name__}.{module.name}").SIMULATION
        for module in pkgutil.iter_modules(__path__)
    )
    return {simulation.spec.name: simulation for simulation in found}
