"""A task: everything the commands must know of a simulated robot with goals, declared once."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol

from wm_mpc.core.errors import UserError
from wm_mpc.tasks.presets import TaskPreset
from wm_mpc.tasks.quantities import Quantity


class Simulator(Protocol):
    """What a task's simulation offers; ``sim_bridge.tasks.simulation.Simulation`` is one.

    Attributes:
        spec: constants of the task (``sim_bridge.tasks.base.TaskSpec``).
    """

    spec: Any

    def make(self, **settings: Any) -> Any:
        """The bare environment (``sim_bridge.tasks.base.TaskEnv``), without wrappers."""
        ...

    def policy(self, name: str | None, rng: Any) -> Any:
        """Behaviour policy ``name`` (None: the default) for one trajectory."""
        ...

    def register(self) -> str:
        """Make the environment known to gymnasium; its id."""
        ...


@dataclass(frozen=True)
class Task:
    """A task by name.

    Attributes:
        name: what commands, parameters, stores and models call it.
        title: what people call it.
        simulation: a ``Simulator``, or ``module:ATTRIBUTE`` of one, which is imported when it is
            first needed: training from a store needs no simulator.
        preset: what training must know beyond the data; None: the task cannot be trained by
            name, only as a robot.
        quantities: true distances that validation compares latents with.
    """

    name: str
    title: str
    simulation: Simulator | str
    preset: TaskPreset | None = None
    quantities: tuple[Quantity, ...] = ()

    def simulator(self) -> Simulator:
        """The simulation, imported where it is told by name."""
        if isinstance(self.simulation, str):
            return load(self.simulation)
        return self.simulation


def load(reference: str) -> Any:
    """The object that ``module:ATTRIBUTE`` names.

    Raises:
        UserError: there is no such module or attribute; what a module itself fails to import is
            raised as it is.
    """
    name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise UserError(f"task: {reference!r}: there is no module {error.name}") from None
    if not hasattr(module, attribute):
        raise UserError(f"task: {reference!r}: {name} has no {attribute or 'attribute named'}")
    return getattr(module, attribute)
