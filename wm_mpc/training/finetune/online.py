"""Online World Modeling: learn from what the planner's own plans really do.

Plans leave the data that a model was trained on, and there it errs. So, as in dataset aggregation
(Ross et al. 2011) and arXiv 2512.09929: plan from expert starts to expert goals with the model as
it is, execute the plans in the true simulator from an exact snapshot of the start, and train on
what happened beside the expert data.

The released code of that paper joins the executed frames to the expert frames that precede the
start and cuts windows across the joint, which are no true motion; here windows begin at or after
the start, see ``corrected``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeInt, PositiveInt, Share, one_of
from wm_mpc.planners.objective import ObjectiveConfig
from wm_mpc.planners.registry import PLANNERS


@dataclass(frozen=True)
class OnlineConfig(Checked):
    """Plans to execute and how they are mixed with expert data.

    Attributes:
        rollouts: plans made and executed per round.
        every: optimiser steps between two rounds; the first comes before the first step.
        planner: registry name of the planner.
        options: fields of the planner's configuration, name=value.
        ratio: parts expert and parts corrected in every batch.
        limit: model steps of corrected data kept, the oldest go first; 0: all.
        far: share of the plans that pursue a random expert frame instead of a later frame of
            their own window, in [0, 1]: goals that the horizon does not reach, which closed loop
            control meets all the time.
        chain: plans executed one after another towards the same goal, each from where the last one
            ended: the states that closed-loop control gets itself into. ``rollouts`` counts plans.
        corrected: stores of trajectories from earlier runs, offline or live, to start with.
        objective: goal cost of the plans; best the one that the robot will plan with.
    """

    rollouts: PositiveInt = 60
    every: PositiveInt = 250
    planner: str = "adam"
    options: tuple[str, ...] = ()
    ratio: tuple[NonNegativeInt, NonNegativeInt] = (7, 3)
    limit: NonNegativeInt = 0
    far: Share = 0.0
    chain: PositiveInt = 1
    corrected: tuple[Path, ...] = ()
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "planner", PLANNERS)
        if sum(self.ratio) < 1:
            raise UserError(f"ratio: {self.ratio}; two numbers >= 0, not both 0, expected")


__all__ = ["OnlineConfig"]
