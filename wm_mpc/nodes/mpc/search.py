"""What the search behind a plan looked like, told after the command, where time is left."""

from __future__ import annotations

import array
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from wm_mpc.control.tick import TickResult
from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.msg import Plan as PlanMessage

MOST = 64
"""Candidates that a message carries at most: the cheapest."""
FADING = 0.8
"""Factor on the time that telling is expected to take, for every time it was left out."""


def describe(message: PlanMessage, result: TickResult) -> None:
    """Fill in costs over the iterations, candidates, and the latents that the plan leads through.

    Args:
        message: plan of ``result``.
        result: tick whose plan has a trace.
    """
    plan, engine = result.plan, result.engine
    with torch.no_grad():
        actions, costs = plan.trace.candidates(MOST)
        message.cost_history = _flat(plan.trace.cost_history())
        message.candidates = len(costs)
        message.candidate_costs = _flat(costs)
        message.candidate_actions = _flat(engine.model.denormalize_actions(actions))
        if plan.latents is not None and result.latent is not None:
            message.imagined = _flat(torch.cat([result.latent[None], plan.latents]))


def _flat(values: Tensor) -> array.array:
    """Numbers as a message takes them without a loop."""
    numbers = values.detach().to("cpu", torch.float32).contiguous().numpy()
    return array.array("f", np.ascontiguousarray(numbers).tobytes())


class SearchTeller:
    """Publishes each plan once: with its search where there is time for it, else without.

    ``take`` and ``tell`` belong to the control thread.

    Args:
        publish: sends a plan.
        clock: monotonic clock.
    """

    def __init__(
        self, publish: Callable[[PlanMessage], object], clock: Clock = monotonic
    ) -> None:
        self._publish = publish
        self._clock = clock
        self._waiting: tuple[PlanMessage, TickResult] | None = None
        self._takes_s = 0.0

    def take(self, message: PlanMessage, result: TickResult) -> None:
        """Keep a plan that has a trace until ``tell``; publish any other at once."""
        if result.plan is None or result.plan.trace is None:
            self._publish(message)
            return
        self._waiting = (message, result)

    def tell(self, until: float) -> None:
        """Publish what waits.

        Args:
            until: instant at which it should be done [s], monotonic clock.
        """
        if self._waiting is None:
            return
        (message, result), self._waiting = self._waiting, None
        began = self._clock()
        if began + self._takes_s <= until:
            describe(message, result)
        self._publish(message)
        # What takes too long is tried again now and then: the machine may be less busy by then.
        took = self._clock() - began
        self._takes_s = max(took, FADING * self._takes_s)


__all__ = ["MOST", "SearchTeller", "describe"]
