"""Receding-horizon control through a latent world model.

One tick, top down: take the newest observation, encode it, shift the previous plan by the time
that really passed, improve it until the deadline, return its first command. Whatever goes wrong
on the way, the tick returns and says why: as long as the previous plan is fresh it is played on,
after that there is no command and the robot comes to rest.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from wm_mpc.control.delay import LookAhead
from wm_mpc.control.engine import Engine
from wm_mpc.control.frozen import FrozenWatch
from wm_mpc.control.observation import MIN_SIDE, Goal, InputCheck, Observation
from wm_mpc.control.running_plan import RunningPlan
from wm_mpc.control.safety import SafetyLimits
from wm_mpc.control.thread_usage import Meter, Stall, Usage, thread_usage
from wm_mpc.control.tick import State, TickResult
from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.errors import one_line
from wm_mpc.core.fields import Checked, Seed
from wm_mpc.core.live import Live
from wm_mpc.planners import Plan, PlanRequest
from wm_mpc.planners.subgoals import WaysToGoal

log = logging.getLogger(__name__)

NARROWER = Live("lower", zero_is_none=True)

MOMENT_S = 0.001
"""[s] A planner is never given less than this."""
LASTING = 0.15
"""Share of the budget that is kept in reserve lastingly."""


@dataclass(frozen=True)
class ControllerConfig(Checked):
    """How the loop runs.

    Attributes:
        tolerance: latent distance at which the goal counts as reached; 0: never.
        image_shape: [px] height and width of camera and goal pictures; empty: any size.
        max_frozen_s: [s] so long the same picture may come again while the robot is to move, five
            times as long where its joints stand still too: then it stops. 0: without end.
        novelty_limit: an observation this much further from what training saw than nearly all of
            its held-out data stops the robot; 0: none does.
        delay_ms: [ms] from what a picture shows to the effect of the command it leads to; the plan
            starts at the state predicted for then. -1: measured while it drives; 0: not predicted.
        seed: seed of every random draw.
    """

    tolerance: Annotated[float, Ge(0.0), Le(1e6), Live()] = 0.0
    image_shape: tuple[Annotated[int, Ge(MIN_SIDE), Le(16384)], ...] = ()
    max_frozen_s: Annotated[float, Ge(0.0), Le(3600.0), NARROWER] = 1.0
    novelty_limit: Annotated[float, Ge(0.0), Le(1e6), NARROWER] = 3.2
    delay_ms: Annotated[float, Ge(-1.0), Le(2000.0)] = 0.0
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.image_shape) not in (0, 2):
            raise ValueError(f"image_shape: {self.image_shape}; height and width expected")
        if -1 < self.delay_ms < 0:
            raise ValueError(f"delay_ms: {self.delay_ms:g} ms; at least 0, or -1, expected")


class Controller:
    """The loop without a robot, a clock of its own, or threads.

    ``tick`` belongs to one thread. ``observe``, ``reject``, ``set_goal``, ``clear_goal`` and
    ``swap_model`` may be called from another one: each hands over one reference.

    Args:
        engine: model and planner.
        config: how the loop runs.
        limits: how old inputs may be.
        clock: monotonic clock for deadlines and durations; stamps and ages are the node clock's.
        meter: what the calling thread was given.

    Attributes:
        trace_search: keep how every search went, see ``wm_mpc.planners.trace``.
    """

    def __init__(
        self,
        engine: Engine,
        config: ControllerConfig,
        limits: SafetyLimits,
        clock: Clock = monotonic,
        meter: Meter = thread_usage,
    ) -> None:
        self.engine = engine
        self.config = config
        self.limits = limits.for_period(engine.config.period_s)
        self.clock = clock
        self.meter = meter
        self.ticks = 0
        self.trace_search = False
        self._check = InputCheck(config.image_shape, engine.model.config.proprio_dim)
        self._next_engine: Engine | None = None
        self._next_settings: tuple[ControllerConfig, SafetyLimits, bool] | None = None
        self._reserve, self._was_late = 0.0, False
        self._observation: Observation | None = None
        self._faults: dict[str, str] = {}
        self._distrusted = False
        self._goal: Goal | None = None
        self._planned_goal: Goal | None = None
        self._running = RunningPlan()
        self._frozen = _frozen_watch(engine, config, limits)
        self.delay = LookAhead(engine, config.delay_ms)
        self._forget()

    # ---- inputs ------------------------------------------------------------------------------

    def observe(self, image: np.ndarray, proprio: np.ndarray | None, stamp: float) -> None:
        """Hand over the newest observation; it replaces the one before.

        Args:
            image: uint8 ``(H, W, 3)`` RGB.
            proprio: ``(P,)`` raw units; None where the model uses none.
            stamp: [s] node clock.

        Raises:
            ValueError: what is wrong with it; the controller keeps what it had.
        """
        self._observation = self._check.observation(image, proprio, stamp)
        self._clear_faults("image", "proprio")
        self._distrusted = False

    def reject(self, source: str, reason: str) -> None:
        """Note that an input could not be used; told in every tick until a good one comes.

        Args:
            source: ``image``, ``proprio`` or ``goal_image``; a newer reason replaces an older one.
            reason: one line.
        """
        self._faults = {**self._faults, source: reason}

    def distrust(self, source: str, reason: str) -> bool:
        """Note an input that says nonsense: the robot rests from the next tick until a good one.

        Args:
            source: see ``reject``.
            reason: one line.

        Returns:
            Whether the inputs were trusted before.
        """
        self.reject(source, reason)
        before, self._distrusted = self._distrusted, True
        return not before

    def _clear_faults(self, *sources: str) -> None:
        self._faults = {key: why for key, why in self._faults.items() if key not in sources}

    def check_goal(
        self, image: np.ndarray, proprio: np.ndarray | None = None, tolerance: float = 0.0
    ) -> Goal:
        """Make a goal that ``pursue`` takes.

        Args:
            image: uint8 ``(H, W, 3)`` RGB.
            proprio: ``(P,)`` raw units; None: the picture alone decides.
            tolerance: latent distance at which it is reached; 0: the configured one.

        Raises:
            ValueError: what is wrong with it.
        """
        return self._check.goal(image, proprio, tolerance)

    def pursue(self, goal: Goal) -> None:
        """Pursue a goal from ``check_goal``, from the next tick on and with a fresh plan."""
        self._goal = goal
        self._clear_faults("goal_image")

    def set_goal(
        self, image: np.ndarray, proprio: np.ndarray | None = None, tolerance: float = 0.0
    ) -> Goal:
        """Check a goal and pursue it; see ``check_goal`` for arguments and errors."""
        goal = self.check_goal(image, proprio, tolerance)
        self.pursue(goal)
        return goal

    def clear_goal(self) -> None:
        """Forget the goal: the controller becomes idle."""
        self._goal = None

    @property
    def goal(self) -> Goal | None:
        """Current goal."""
        return self._goal

    def swap_model(self, engine: Engine) -> None:
        """Use another engine, which is complete, from the next tick on.

        Raises:
            ValueError: its model was trained for another robot; the present one stays.
        """
        mine, other = self.engine.model.config, engine.model.config
        for name in ("action_dim", "proprio_dim", "control_period"):
            if getattr(mine, name) != getattr(other, name):
                raise ValueError(
                    f"{name}: {getattr(other, name)}; {getattr(mine, name)} expected, as running"
                )
        self._next_engine = engine

    @property
    def newest_engine(self) -> Engine:
        """Engine of the next tick."""
        return self._next_engine or self.engine

    def change(self, config: ControllerConfig, limits: SafetyLimits, trace_search: bool) -> None:
        """Use other settings from the next tick on, all at once; any thread.

        Args:
            config: with the seed and the picture size as before.
            limits: how old inputs may be.
            trace_search: see ``trace_search``.
        """
        limits = limits.for_period(self.engine.config.period_s)
        self._next_settings = config, limits, trace_search

    def restart(self, seed: int) -> None:
        """Begin anew, without goal and observation; what was learned of the machine stays.

        Args:
            seed: seed of every random draw from now on.
        """
        self.config = replace(self.config, seed=seed)
        self.ticks = 0
        self._observation, self._goal, self._planned_goal = None, None, None
        self._faults, self._distrusted = {}, False
        self._forget()
        self._frozen.clear()

    def sent(
        self, result: TickResult, command: np.ndarray, began: float, when: float
    ) -> None:
        """Tell what left for the robot after a tick: for its delay, and to judge its camera.

        Args:
            result: of that tick.
            command: ``(action_dim,)`` raw units, after every limit.
            began: [s] node clock at the begin of the tick.
            when: [s] node clock when the command left.
        """
        self._frozen.commanded(command)
        self.delay.sent(command, when)
        if result.latent is not None and result.engine is not None:
            self.delay.see(result.engine, result.latent, began - result.image_age_s)

    # ---- the tick ----------------------------------------------------------------------------

    def tick(self, now: float) -> TickResult:
        """Run one control tick.

        Args:
            now: [s] node clock.

        Returns:
            What to do and why; never raises for what a model, a planner or an input did.
        """
        started, begun = self.clock(), self.meter()
        self._adopt()
        self.ticks += 1
        goal, observation = self._goal, self._observation
        if goal is not self._planned_goal:
            self._forget()
            self._planned_goal = goal
        image_age = math.inf if observation is None else now - observation.stamp
        blank = TickResult(
            State.IDLE, "", image_age_s=image_age, engine=self.engine, goal=goal
        )
        if goal is None:
            self._frozen.commanded(None)
            return replace(blank, reason=self._explain("goal: none set"))
        stale = self.limits.stale(image_age, 0.0)
        if stale or observation is None or self._distrusted:
            self._frozen.commanded(None)
            return replace(blank, state=State.SAFE_STOP, reason=self._explain(stale))
        try:
            result = self._think(blank, goal, observation, now, started, begun)
        except Exception as error:  # whatever a model or planner raises, the robot comes to rest
            log.exception("tick failed")
            result = self._play_on(blank, now, f"tick: {one_line(error)}")
        return self._judge(result, goal, now)

    def _think(
        self,
        blank: TickResult,
        goal: Goal,
        observation: Observation,
        now: float,
        started: float,
        begun: Usage,
    ) -> TickResult:
        """Encode, plan, and fetch the answer from the device at once."""
        if observation is self._seen:
            # Nothing new was seen: thinking again would only repeat the last tick.
            return self._play_on(blank, now, "")
        engine = self.engine
        frozen = self._frozen.see(observation.image, observation.proprio, observation.stamp)
        latent, novelty = self._encode(goal, observation)
        encoded, used = self.clock(), self.meter()
        target = self._target(latent)
        warm, states = self._running.shifted(now, engine, target)
        deadline, latest = engine.budget.deadline(encoded), started + self._latest()
        since, usage = encoded, used
        if latest <= deadline:
            # The period binds, not the budget: what encoding took counts too.
            deadline, since, usage = latest, started, begun
        # After a tick too short to evaluate anything the whole period is granted: a late plan is
        # counted as late, no plan at all would leave the robot standing for good.
        asked = started + self._latest() if self._starved else deadline - self._reserve
        start, lead = self.delay.ahead(engine, latent, observation.stamp, now)
        proposals = engine.propose(start, target)
        # However long everything before took, a planner is given time for its first iteration.
        asked = max(asked, self.clock() + MOMENT_S)
        request = PlanRequest(
            latent=start,
            goal=target,
            warm_start=warm,
            proposals=proposals,
            warm_states=states,
            deadline=asked,
            seed=self.config.seed + self.ticks,
            trace=self.trace_search,
        )
        plan = engine.planner.plan(request)
        planned = self.clock()
        stall = Stall.between(usage, self.meter(), planned - since)
        if not self._starved and plan.iterations > 1:
            # A single iteration is made however little time there is: no reserve can help that.
            self._keep_reserve(planned - asked)
        distance = engine.distance(latent, self._goal_latent)
        raw = engine.model.denormalize_actions(plan.actions)
        numbers = torch.cat([raw.flatten(), distance[None], novelty]).cpu().double().numpy()
        actions, novel = numbers[:-2].reshape(raw.shape), float(numbers[-1])
        timed = replace(
            blank,
            plan=plan,
            encode_s=encoded - started,
            plan_s=planned - encoded,
            deadline_missed=planned > deadline,
            late_s=planned - deadline,
            stall=stall,
            distance=float(numbers[-2]),
            novelty=novel,
            latent=latent,
            lead_s=lead,
        )
        doubt = frozen or self._too_novel(novel) or _not_finite(plan, numbers[:-1])
        if doubt:
            return replace(timed, state=State.SAFE_STOP, reason=doubt)
        self._starved = plan.iterations == 0
        why = ""
        if not math.isfinite(plan.cost):
            why = f"planner: nothing evaluated ({plan.stopped})"
            if warm is None:
                return self._play_on(timed, now, why)
        self._seen = observation
        self._running.renew(plan, now)
        age = self._running.age(now)
        return replace(timed, reason=why, command=actions[0], actions=actions, plan_age_s=age)

    def _keep_reserve(self, late: float) -> None:
        """Learn how much later than asked planning ends: a last evaluation follows the search.

        Up in steps of 5 % of the budget and down in steps of 0.0125 %, so that it settles where
        one tick in 400 is later, and a single hiccup of the machine costs little. Going up no
        further than to the lateness seen would save a little time, and put one tick in ten a
        hair's breadth behind its deadline. One that is later than any reserve is a stall, and
        teaches nothing unless it comes again in the next tick.
        """
        budget = self.engine.budget.seconds
        often, self._was_late = self._was_late, late > budget / 2
        if self._was_late and not often:
            return  # no reserve helps against a process that stood still
        most = LASTING * budget
        down = self._reserve - 0.000125 * budget
        if self._reserve > most:
            # What a busy machine taught is forgotten within a second of its being idle.
            down = max(most, 0.8 * self._reserve)
        up = self._reserve + 0.05 * budget
        self._reserve = min(up if late > self._reserve else max(late, down, 0.0), budget / 2)

    def _latest(self) -> float:
        """Time from the start of a tick to the last instant at which planning may end [s]."""
        return self.engine.budget.period_s - self.engine.budget.margin_s

    def _too_novel(self, novelty: float) -> str:
        """Why an observation is not to be trusted, or nothing."""
        limit = self.config.novelty_limit
        if not limit or math.isnan(novelty) and self.engine.novelty is None or novelty <= limit:
            return ""
        return f"novelty: {novelty:.3g}; at most {limit:g} allowed: unlike anything trained on"

    def _encode(self, goal: Goal, observation: Observation) -> tuple[Tensor, Tensor]:
        """Latent ``L`` and novelty ``(1,)`` of the observation; a new goal is encoded with it."""
        engine = self.engine
        if self._goal_latent is not None:
            latents, novelty = engine.look(observation.image[None], observation.proprio[None])
            return latents[0], novelty
        posture, known = goal.proprio, True
        if posture is None and engine.reads_posture:
            posture = engine.read_posture(goal.image)
        elif posture is None:
            # An unknown goal posture is filled with the present one and then given no weight.
            posture, known = observation.proprio, False
        if goal.image.shape == observation.image.shape:
            images = np.stack([observation.image, goal.image])
            latents, novelty = engine.look(images, np.stack([observation.proprio, posture]))
            latent, self._goal_latent = latents[0], latents[1]
        else:
            latents, novelty = engine.look(observation.image[None], observation.proprio[None])
            latent = latents[0]
            self._goal_latent = engine.encode(goal.image[None], posture[None])[0]
        engine.objective.use_proprio(known)
        self._posture_known = known
        return latent, novelty[:1]

    def _target(self, latent: Tensor) -> Tensor:
        """What is planned for: the goal's latent, or that of a subgoal on the way to it."""
        graph, goal = self.engine.subgoals, self._goal_latent
        if graph is None:
            return goal
        if self._ways is None or self._ways.graph is not graph or self._ways.goal is not goal:
            self._ways = graph.ways_to(goal, self._posture_known)
        return self._ways.next_goal(latent, self.engine.config.lookahead)[0]

    def _play_on(self, blank: TickResult, now: float, reason: str) -> TickResult:
        """Command of the previous plan at ``now``; none when there is no plan."""
        warm, _ = self._running.shifted(now, self.engine, None)
        if warm is None:
            return replace(blank, state=State.SAFE_STOP, reason=reason or "plan: none yet")
        raw = self.engine.model.denormalize_actions(warm).cpu().double().numpy()
        age = self._running.age(now)
        return replace(blank, reason=reason, command=raw[0], actions=raw, plan_age_s=age)

    def _judge(self, result: TickResult, goal: Goal, now: float) -> TickResult:
        """Decide the state: reached, stale, or running."""
        if math.isfinite(result.distance):
            # Leaving takes more than arriving, so that noise does not toggle the state.
            tolerance = goal.tolerance or self.config.tolerance
            bound = tolerance * (1.2 if self._reached else 1.0)
            self._reached = tolerance > 0 and result.distance <= bound
        if self._reached and result.command is not None:
            return replace(result, state=State.REACHED, command=None, reason=self._explain(""))
        stale = self.limits.stale(result.image_age_s, result.plan_age_s)
        if result.command is None or stale:
            reason = self._explain(result.reason or stale)
            return replace(result, state=State.SAFE_STOP, command=None, reason=reason)
        return replace(result, state=State.RUNNING, reason=self._explain(result.reason))

    # ---- bookkeeping -------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Take over new settings, and a prepared engine with the plan where it still fits."""
        settings, self._next_settings = self._next_settings, None
        if settings is not None:
            self.config, self.limits, self.trace_search = settings
            self._frozen.limit_s = self.config.max_frozen_s
        engine, self._next_engine = self._next_engine, None
        if engine is None:
            return
        self._running.hand_over(self.engine, engine)
        before, self.engine = self.engine, engine
        if not before.same_shape(engine.model):
            self._reserve = 0.0
        self.delay.changed(engine, engine.sees_like(before))
        if engine.sees_like(before):
            # Encoding the goal anew would cost the next tick for nothing.
            engine.objective.use_proprio(before.objective.uses_proprio)
            return
        # Latents of models that see differently have nothing in common.
        self._goal_latent, self._seen = None, None

    def _forget(self) -> None:
        """Drop everything that belongs to the previous goal."""
        self._goal_latent: Tensor | None = None
        self._posture_known = True
        self._ways: WaysToGoal | None = None
        self._seen: Observation | None = None
        self._running.clear()
        self._frozen.another_goal()
        self._reached = False
        self._starved = False

    def _explain(self, reason: str) -> str:
        """Reason with what is known about bad inputs."""
        return "; ".join(part for part in (reason, *self._faults.values()) if part)


def _not_finite(plan: Plan, numbers: np.ndarray) -> str:
    """Why a plan is nonsense, or nothing."""
    if not np.isfinite(numbers).all():
        return "planner: a plan that is not finite"
    return "planner: no plan has a finite cost" if plan.stopped == "non_finite" else ""


def _frozen_watch(
    engine: Engine, config: ControllerConfig, limits: SafetyLimits
) -> FrozenWatch:
    """Watch for the robot of an engine."""
    model = engine.model
    span = np.subtract(model.config.action_high, model.config.action_low)
    rest = None if limits.hold_at_rest else np.array(limits.rest or (0.0,))
    spread = getattr(model, "proprio_std", torch.ones(model.config.proprio_dim)).cpu().numpy()
    return FrozenWatch(config.max_frozen_s, span, rest, spread)


__all__ = ["Controller", "ControllerConfig"]
