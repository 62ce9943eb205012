"""Planners by name: one explicit table, ``module:PLANNER`` of others, one factory."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from typing import Any

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.errors import UserError
from wm_mpc.models.protocol import Dynamics
from wm_mpc.planners.anytime import AnytimePlanner
from wm_mpc.planners.base import Planner
from wm_mpc.planners.cem import CemConfig, CemPlanner
from wm_mpc.planners.gradient import GradientConfig, GradientPlanner
from wm_mpc.planners.grasp import GraspConfig, GraspPlanner
from wm_mpc.planners.hybrid import HybridConfig, HybridPlanner
from wm_mpc.planners.ilqr import IlqrConfig, IlqrPlanner
from wm_mpc.planners.latco import LatcoConfig, LatcoPlanner
from wm_mpc.planners.mppi import MppiConfig, MppiPlanner
from wm_mpc.planners.objective import GoalObjective


@dataclass(frozen=True)
class PlannerEntry:
    """A planner class and its default configuration, which is of the planner's own type."""

    planner: type[AnytimePlanner]
    config: Any


PLANNERS: dict[str, PlannerEntry] = {
    "cem": PlannerEntry(CemPlanner, CemConfig()),
    "mppi": PlannerEntry(MppiPlanner, MppiConfig()),
    "gd": PlannerEntry(GradientPlanner, GradientConfig("sgd", learning_rate=1.0, iterations=60)),
    "adam": PlannerEntry(GradientPlanner, GradientConfig()),
    "ilqr": PlannerEntry(IlqrPlanner, IlqrConfig()),
    "grasp": PlannerEntry(GraspPlanner, GraspConfig()),
    "latco": PlannerEntry(LatcoPlanner, LatcoConfig()),
    "hybrid": PlannerEntry(HybridPlanner, HybridConfig()),
}


def planner_config(name: str, **overrides: Any) -> Any:
    """Return the default configuration of a planner with some fields replaced.

    Raises:
        ValueError: unknown planner, unknown field, or a value out of its bounds.
    """
    default = planner_entry(name).config
    known = {f.name for f in dataclasses.fields(default)}
    for field in overrides:
        if field not in known:
            names = ", ".join(sorted(known))
            raise ValueError(f"{field}: unknown option of planner {name}; one of {names} expected")
    return dataclasses.replace(default, **overrides)


def make_planner(
    name: str,
    model: Dynamics,
    objective: GoalObjective,
    config: Any = None,
    clock: Clock = monotonic,
    compile: bool = True,
) -> Planner:
    """Build a planner.

    Args:
        name: key of ``PLANNERS``, or ``module:ATTRIBUTE`` of a ``PlannerEntry``.
        model: dynamics; its ``action_bounds()`` bound the plans.
        objective: goal cost; its horizon is the plan's.
        config: an instance of the planner's configuration class; None takes the default.
        clock: monotonic clock for deadlines.
        compile: use compiled code where that is faster; call ``warm_up()`` before the first tick.

    Raises:
        ValueError: unknown name or a configuration of another planner.
    """
    entry = planner_entry(name)
    config = entry.config if config is None else config
    if not isinstance(config, type(entry.config)):
        given, wanted = type(config).__name__, type(entry.config).__name__
        raise ValueError(f"config: {given}; {wanted} expected for planner {name}")
    return entry.planner(name, model, objective, config, clock, compile)


def planner_entry(name: str) -> PlannerEntry:
    """Look up a planner.

    Args:
        name: key of ``PLANNERS``, or ``module:ATTRIBUTE`` of a ``PlannerEntry`` anywhere on the
            Python path.

    Raises:
        UserError: nothing of that name, or what is there is no ``PlannerEntry``.
    """
    if name in PLANNERS:
        return PLANNERS[name]
    if ":" not in name:
        known = ", ".join(PLANNERS)
        raise UserError(f"planner: {name!r} unknown; one of {known}, or module:PLANNER expected")
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UserError(f"planner: {name!r}: there is no module {error.name}") from None
    if not isinstance(found, PlannerEntry):
        raise UserError(f"planner: {name!r} is a {type(found).__name__}; a PlannerEntry expected")
    return found
