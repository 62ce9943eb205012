"""The loop that drives the robot, in an evaluation: the same engine, controller and filter.

The simulator waits for every command, so the node clock, which stamps and ages are told by, moves
one control period per control step. Deadlines and durations are real: those of the device clock.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wm_mpc.control.controller import Controller, ControllerConfig
from wm_mpc.control.engine import Engine, EngineConfig
from wm_mpc.control.safety import CommandFilter, SafetyLimits
from wm_mpc.control.tick import State, TickResult
from wm_mpc.core.clock import Clock, device_clock
from wm_mpc.core.errors import UserError
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.settings import EvalSettings, parse_options
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.budget import Budget, CemReference
from wm_mpc.planners.registry import planner_config

UNTIMED = CemReference(math.inf, 45_000, 0, 0, 30, "", 0)
"""Stands for a CEM reference where nothing is measured against it."""


class ControllerPolicy:
    """Observation in, filtered command out, by ``control.Controller``.

    Args:
        engine: model, planner and budget.
        limits: watchdogs and bounds.
        see_every: control steps from one picture that is handed over to the next; 0: only the
            first, so that one plan is executed to its end.
        goal_posture: whether the robot's proprioception at the goal is told beside its picture.
        clock: monotonic clock of deadlines and timings, the planner's.
        delay_ms: see ``ControllerConfig``.
    """

    def __init__(
        self,
        engine: Engine,
        limits: SafetyLimits,
        see_every: int,
        goal_posture: bool,
        clock: Clock,
        delay_ms: float = 0.0,
    ) -> None:
        self.engine, self.limits, self.clock = engine, limits, clock
        self.see_every, self.goal_posture = see_every, goal_posture
        self.period = engine.model.config.control_period
        config = ControllerConfig(delay_ms=delay_ms)
        self.controller = Controller(engine, config, limits, clock)
        self.now = 0.0

    def reset(self, goal: dict[str, Any], seed: int, replay: np.ndarray | None) -> None:
        """Pursue another goal; what the controller learned of the machine stays."""
        config = self.engine.model.config
        self.filter = CommandFilter(
            self.limits, config.action_low, config.action_high, self.period, lambda: self.now
        )
        self.controller.restart(seed % 2**31)
        self.controller.set_goal(goal["image"], goal["proprio"] if self.goal_posture else None)

    def act(self, observation: dict[str, Any], episode: Episode) -> np.ndarray:
        """Command of this control step.

        Raises:
            RuntimeError: model or planner failed; a robot would come to rest, a figure would lie.
        """
        started = self.clock()
        self.now = episode.steps * self.period
        if episode.steps % self.see_every == 0 if self.see_every else episode.steps == 0:
            self.controller.observe(observation["image"], observation["proprio"], self.now)
        result = self.controller.tick(self.now)
        safe = self.filter.step(
            result.command, result.image_age_s, result.plan_age_s, result.reason
        )
        self._note(episode, result, self.clock() - started)
        self.controller.sent(result, safe.values, self.now, self.now)
        return safe.values.astype(np.float32)

    def _note(self, episode: Episode, result: TickResult, tick_s: float) -> None:
        episode.plan = result.actions
        if result.reason.startswith("tick: "):
            raise RuntimeError(f"episode {episode.seed}, step {episode.steps}: {result.reason}")
        if result.state is not State.RUNNING:
            episode.stopped.append(result.reason)
        if result.plan is None:
            return
        episode.tick_ms.append(tick_s * 1e3)
        episode.plan_ms.append(result.plan_s * 1e3)
        episode.transitions.append(result.plan.transitions)
        episode.iterations.append(result.plan.iterations)
        episode.over_budget += result.plan_s > self.engine.budget.seconds
        episode.late += result.deadline_missed or tick_s > self.period


def make_loop(
    spec: EvalSettings, model: WorldModel, reference: CemReference | None, task: Any
) -> tuple[ControllerPolicy, int]:
    """Controller and control-step budget of one row.

    In closed loop a tick ends with its budget and, as on a robot, a margin before the control
    period. Without a budget, out of real time, and for an open-loop plan, which is made before the
    motion, the robot waits.

    Args:
        spec: settings, of a planner.
        model: world model.
        reference: CEM reference; None: measured where a budget needs it.
        task: the environment's constants (``TaskSpec``).

    Raises:
        UserError: settings that do not fit the model.
    """
    config = model.config
    horizon, steps = spec.horizon or 5, spec.steps or task.episode_steps
    if spec.mode == "open_loop":
        horizon = spec.horizon or -(-(spec.goal_offset or task.goal_offset) // config.frameskip)
        steps = spec.steps or horizon * config.frameskip
    if reference is None and not spec.budget_fraction:
        reference = UNTIMED
    clock = device_clock(model.action_mean.device)
    try:
        options = planner_config(spec.planner, **parse_options(spec.planner, spec.options))
    except ValueError as error:
        raise UserError(f"options: {error}") from error
    try:
        settings = EngineConfig(
            planner=spec.planner,
            horizon=horizon,
            control_rate_hz=1 / config.control_period,
            budget_fraction=spec.budget_fraction or 1.0,
            margin_s=min(EngineConfig.margin_s, config.control_period / 2),
            compile=spec.compile,
            proposals="" if spec.proposals is None else str(spec.proposals),
            subgoals="" if spec.subgoals is None else str(spec.subgoals),
            lookahead=spec.lookahead,
        )
        engine = Engine.build(model, settings, spec.objective, options, reference, clock)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not spec.budget_fraction:
        engine.budget = Budget(1.0, math.inf)
    elif spec.mode == "open_loop" or not spec.real_time:
        engine.budget = Budget(spec.budget_fraction, engine.reference.seconds)
    see_every = spec.replan_every if spec.mode == "mpc" else 0
    limits = make_limits(see_every, horizon * config.frameskip, config.control_period)
    posture = spec.goal == "posture"
    return ControllerPolicy(engine, limits, see_every, posture, clock, spec.delay_ms), steps


def make_limits(see_every: int, plan_steps: int, period: float) -> SafetyLimits:
    """Watchdogs of an evaluation.

    The node's, but where pictures come more seldom: then they may be so old, and a plan may miss
    one of them. An open-loop plan (``see_every`` 0) is played to its end, then the robot rests.
    """
    if not see_every:
        last = (plan_steps - 0.5) * period
        return SafetyLimits(ramp_s=0.0, max_image_age_s=last, max_plan_age_s=last)
    image_age, plan_age = (see_every - 0.5) * period, (2 * see_every - 0.5) * period
    usual = SafetyLimits().for_period(period)
    return SafetyLimits(
        max_image_age_s=max(usual.max_image_age_s, image_age),
        max_plan_age_s=max(usual.max_plan_age_s, plan_age),
    )


__all__ = ["ControllerPolicy", "make_limits", "make_loop"]
