"""The plan that is being executed, and where it stands at any later instant."""

from __future__ import annotations

import math

from torch import Tensor

from wm_mpc.control.engine import Engine
from wm_mpc.planners import Plan
from wm_mpc.planners.starts import shift_plan, shift_states

JITTER = 0.15
"""Share of a control step that is rounded away from elapsed times."""


class RunningPlan:
    """Remembers the last plan in model units, when it began and when one was last improved.

    Attributes:
        began_at: instant that the plan's first command was meant for [s], node clock.
        improved_at: instant at which a planner last evaluated a plan [s]; -inf: never.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._actions: Tensor | None = None
        self._states: Tensor | None = None
        self.began_at = -math.inf
        self.improved_at = -math.inf

    def renew(self, plan: Plan, now: float) -> None:
        """Execute ``plan`` from ``now`` on."""
        self._actions, self._states = plan.actions, plan.virtual_states
        self.began_at = now
        if math.isfinite(plan.cost):
            self.improved_at = now

    def age(self, now: float) -> float:
        """Time since a plan was last improved [s]."""
        return now - self.improved_at

    def shifted(
        self, now: float, engine: Engine, goal: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Actions ``(T, A)`` and virtual states ``(T - 1, *L)`` that are left from ``now`` on.

        Args:
            now: [s] node clock.
            engine: engine the plan belongs to.
            goal: latent that follows the last virtual state, ``L``.

        Returns:
            None for what there is not.
        """
        if self._actions is None:
            return None, None
        config = engine.model.config
        elapsed = self._elapsed(now, config.control_period)
        actions = shift_plan(
            self._actions, elapsed, config.control_period, config.frameskip, config.action_dim,
            basis=engine.model.plan_basis,
        )  # fmt: skip
        if self._states is None or goal is None:
            return actions, None
        period = config.control_period * config.frameskip
        return actions, shift_states(self._states, elapsed, period, goal)

    def hand_over(self, old: Engine, new: Engine) -> None:
        """Express the plan in another model's units, or drop it where its shape does not fit."""
        self._states = None
        if self._actions is None:
            return
        if old.plan_shape != new.plan_shape:
            self._actions = None
            return
        # In raw units a plan means the same to both models.
        raw = old.model.denormalize_actions(self._actions)
        self._actions = new.model.normalize_actions(raw.to(new.model.action_mean.device))

    def _elapsed(self, now: float, period: float) -> float:
        """Time since the plan began [s], whole control steps where it is nearly that.

        Interpolating for a few milliseconds of jitter would blur the plan a little in every tick.
        """
        steps = max(0.0, now - self.began_at) / period
        whole = round(steps)
        return period * (whole if abs(steps - whole) < JITTER else steps)


__all__ = ["RunningPlan"]
