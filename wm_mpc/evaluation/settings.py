"""What a measured row is: task, planner, goals, and the conditions they share."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import (
    Checked,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    one_of,
)
from wm_mpc.planners.objective import ObjectiveConfig
from wm_mpc.planners.registry import PLANNERS, planner_entry
from wm_mpc.tasks.environments import check_environment

BASELINES = ("none", "random", "replay")


@dataclass(frozen=True, kw_only=True)
class Conditions(Checked):
    """What all rows of a table share.

    Attributes:
        goals: number of episodes, each with its own start and goal.
        seed: starts, goals and all of the planner's draws derive from it.
        mode: mpc (closed loop) or open_loop (one plan, executed to its end).
        goal: what is told of a goal: posture (its picture and the robot's proprioception there)
            or picture (that alone).
        replan_every: control steps from one picture, and so from one plan, to the next in closed
            loop.
        objective: goal cost.
        options: fields of the planner's configuration, name=value.
        added_delay_ms: [ms] by which every command takes effect later than it was given, whole
            control periods.
        delay_ms: [ms] from picture to effect that the controller predicts over; -1: measured while
            it drives; 0: none.
        compile: use compiled code where that is faster.
        device: cpu, cuda or cuda:N, where a model is loaded to and planned with; one that is
            handed over loaded stays where it is.
    """

    goals: PositiveInt = 50
    seed: NonNegativeInt = 0
    mode: Literal["mpc", "open_loop"] = "mpc"
    goal: Literal["posture", "picture"] = "posture"
    replan_every: PositiveInt = 1
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    options: tuple[str, ...] = ()
    added_delay_ms: NonNegativeFloat = 0.0
    delay_ms: Annotated[float, Ge(-1.0)] = 0.0
    compile: bool = True
    device: str = "cpu"


@dataclass(frozen=True)
class EvalSettings(Conditions):
    """One measured row: what is evaluated and how.

    Attributes:
        task: name of a task, ``module:TASK``, or any gymnasium id whose environment keeps the
            tasks' contract.
        planner: key of ``PLANNERS``, ``module:PLANNER``, or a baseline: none, random, replay.
        steps: control-step budget; 0: the task's own (closed loop), the plan's length (open loop).
        goal_offset: control steps between start and goal; 0: the task's own.
        horizon: model steps of a plan; 0: 5 in closed loop, the goal's distance in open loop.
        budget_fraction: planning time per tick as a share of the CEM reference's; 0: no deadline.
        real_time: a tick also ends with the control period less a margin, as on a robot; false:
            with its budget alone, however long that is.
        proposals: file of a learned proposer, whose guess is one more start of every search.
        subgoals: file of a graph of recorded latents, through which far goals are approached.
        lookahead: model steps from the robot to its subgoal, along the way.
    """

    task: str
    planner: str
    steps: NonNegativeInt = field(default=0, kw_only=True)
    goal_offset: NonNegativeInt = field(default=0, kw_only=True)
    horizon: NonNegativeInt = field(default=0, kw_only=True)
    budget_fraction: NonNegativeFloat = field(default=0.0, kw_only=True)
    real_time: bool = field(default=True, kw_only=True)
    proposals: Path | None = field(default=None, kw_only=True)
    subgoals: Path | None = field(default=None, kw_only=True)
    lookahead: PositiveFloat = field(default=2.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_environment(self.task)
        if ":" in self.planner:
            planner_entry(self.planner)
        else:
            one_of(self, "planner", [*PLANNERS, *BASELINES])

    @property
    def plans(self) -> bool:
        """True unless the planner is a baseline that needs no model."""
        return self.planner not in BASELINES


def parse_options(planner: str, options: tuple[str, ...]) -> dict[str, Any]:
    """Turn ``name=value`` into fields of a planner's configuration.

    >>> parse_options("adam", ("starts=4", "learning_rate=0.1"))
    {'starts': 4, 'learning_rate': 0.1}

    Raises:
        UserError: no ``=``, an unknown field, or a value of another type.
    """
    default = planner_entry(planner).config
    defaults = {f.name: getattr(default, f.name) for f in fields(default)}
    parsed: dict[str, Any] = {}
    for option in options:
        name, found, text = option.partition("=")
        if not found or name not in defaults:
            known = ", ".join(defaults)
            raise UserError(f"{option!r}; name=value with one of {known} expected")
        kind = type(defaults[name])
        try:
            parsed[name] = text.lower() in ("1", "true", "yes") if kind is bool else kind(text)
        except ValueError as error:
            raise UserError(f"{name}: {text!r} is no {kind.__name__}") from error
    return parsed
