"""The CEM reference measured again beside a running loop, a few iterations at a time.

What was measured while the machine was busy is too long, and every budget with it: the best of
many small measurements is what the machine can do.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.pauses import PIECE_S, Pause, no_pause
from wm_mpc.core.usage import Meter, thread_usage
from wm_mpc.models.protocol import Dynamics
from wm_mpc.planners.base import PlanRequest
from wm_mpc.planners.budget import REFERENCE_HORIZON, CemReference, given
from wm_mpc.planners.objective import GoalObjective
from wm_mpc.planners.registry import make_planner, planner_config


class ReferenceMeter:
    """Measures the reference of one model again.

    Args:
        model: dynamics.
        objective: goal cost; its horizon is replaced by the reference's.
        reference: measured before with a model of this shape.
        clock: monotonic clock.
        compile: as for the planners compared with it.
        meter: what the calling thread was given.
        pause: called before each piece of work.

    Attributes:
        iterations: of one measurement: as many as take ``PIECE_S``, at least one.
    """

    def __init__(
        self,
        model: Dynamics,
        objective: GoalObjective,
        reference: CemReference,
        clock: Clock = monotonic,
        compile: bool = True,
        meter: Meter = thread_usage,
        pause: Pause = no_pause,
    ) -> None:
        one_s = reference.seconds / reference.iterations
        self.iterations = max(1, min(reference.iterations, int(PIECE_S / one_s)))
        self._clock, self._meter = clock, meter
        objective = objective.with_horizon(REFERENCE_HORIZON)
        zero = torch.zeros(model.latent_shape, device=objective.time_weights.device)
        self._request = PlanRequest(zero, torch.ones_like(zero))
        config = planner_config("cem", iterations=self.iterations)
        pause()
        self._planner = make_planner("cem", model, objective, config, clock, compile)
        self._planner.prepare()
        pause()
        self._planner.plan(self._request)

    def better(self, reference: CemReference) -> CemReference:
        """The reference as measured now, where that is less than before; else the one before.

        A few iterations scaled up take rather longer than the whole: what surrounds them counts
        more often. So the result is never too short.
        """
        seconds = given(
            lambda: self._planner.plan(self._request),
            self._clock, self._meter, self._request.latent.device.type,
        )  # fmt: skip
        seconds *= reference.iterations / self.iterations
        if seconds >= reference.seconds:
            return reference
        return replace(
            reference, seconds=seconds, measured_iterations=self.iterations,
            repeats=reference.repeats + 1,
        )  # fmt: skip


__all__ = ["ReferenceMeter"]
