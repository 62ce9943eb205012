"""What one control tick found out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from torch import Tensor

from wm_mpc.control.engine import Engine
from wm_mpc.control.observation import Goal
from wm_mpc.control.thread_usage import Stall, Surroundings
from wm_mpc.planners import Plan


class State(IntEnum):
    """What the controller is doing; the numbers are those of ``wm_mpc/msg/PlannerStatus``."""

    UNCONFIGURED = 0
    IDLE = 1
    RUNNING = 2
    REACHED = 3
    SAFE_STOP = 4
    E_STOP = 5
    FAULT = 6


@dataclass(frozen=True)
class TickResult:
    """Everything one tick found out.

    Attributes:
        state: what the controller is doing now.
        reason: one line; empty while all is well.
        command: float64 ``(action_dim,)`` raw units, or None: come to rest.
        actions: float64 ``(K, action_dim)`` raw units, the whole chunk from now on, or None.
        plan: what the planner returned in this tick, or None.
        encode_s: [s] picture to latent, nan when nothing was encoded.
        plan_s: [s] planner call, nan when it was not called.
        deadline_missed: planning ended after its deadline.
        late_s: [s] by how much; negative: too early, nan when nothing was planned.
        stall: time in which the tick did not run, of what counted towards the deadline.
        around: what went on around the tick.
        image_age_s: [s] age of the observation at the start of the tick, inf without one.
        plan_age_s: [s] since a plan was last improved, inf before the first.
        distance: latent distance to the goal, nan when not computed.
        novelty: distance from what training saw, 1: that of nearly all its held-out data; nan when
            nothing new was seen or the model does not tell.
        latent: what was seen, ``L``, or None when nothing new was.
        lead_s: [s] how far ahead of the picture the plan starts; nan when nothing was planned.
        engine: engine the tick ran with.
        goal: goal it pursued.
    """

    state: State
    reason: str
    command: np.ndarray | None = None
    actions: np.ndarray | None = None
    plan: Plan | None = None
    encode_s: float = math.nan
    plan_s: float = math.nan
    deadline_missed: bool = False
    late_s: float = math.nan
    stall: Stall = Stall()
    around: Surroundings = Surroundings()
    image_age_s: float = math.inf
    plan_age_s: float = math.inf
    distance: float = math.nan
    novelty: float = math.nan
    latent: Tensor | None = None
    lead_s: float = math.nan
    engine: Engine | None = None
    goal: Goal | None = None

    @property
    def ratio_wall(self) -> float:
        """Planning time over that of the CEM reference."""
        return self.plan_s / self.engine.reference.seconds if self.engine else math.nan

    @property
    def ratio_transitions(self) -> float:
        """Model transitions over those of the CEM reference."""
        if self.engine is None or self.plan is None:
            return math.nan
        return self.plan.transitions / self.engine.reference.transitions


__all__ = ["State", "TickResult"]
