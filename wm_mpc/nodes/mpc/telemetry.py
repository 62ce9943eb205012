"""What a control loop tells about itself: PlannerStatus every tick, diagnostics once a second."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from wm_mpc.control.tick import State, TickResult
from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.stats import percentile
from wm_mpc.msg import Plan as PlanMessage
from wm_mpc.msg import PlannerStatus

WINDOW = 600
DEADLINES = ": deadlines"
"""How the name of the entry on ``/diagnostics`` ends that tells deadline misses."""
_NAN = math.nan
_LEVELS = {
    State.UNCONFIGURED: DiagnosticStatus.WARN,
    State.IDLE: DiagnosticStatus.OK,
    State.RUNNING: DiagnosticStatus.OK,
    State.REACHED: DiagnosticStatus.OK,
    State.SAFE_STOP: DiagnosticStatus.ERROR,
    State.E_STOP: DiagnosticStatus.ERROR,
    State.FAULT: DiagnosticStatus.ERROR,
}


class Telemetry:
    """Counts ticks and misses, and keeps the last tick times; old ones are forgotten.

    Args:
        dry_run: told in every status.
    """

    def __init__(self, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.ticks = 0
        self.misses = 0
        self._window: deque[float] = deque(maxlen=WINDOW)

    def status(self, result: TickResult, tick_s: float, stamp: Time) -> PlannerStatus:
        """Count one tick and describe it.

        Args:
            result: what the tick gave.
            tick_s: [s] image taken from the mailbox until the command was published.
            stamp: node clock.
        """
        self.ticks += 1
        planned = not math.isnan(result.plan_s)
        if planned:
            # A tick that had nothing to plan would make the others look faster.
            self._window.append(tick_s * 1e3)
        self.misses += result.deadline_missed
        message = blank_status(result.state, result.reason, self.dry_run, stamp)
        engine, plan = result.engine, result.plan
        if engine is not None:
            message.planner = engine.planner.name
            message.model_hash = engine.model.hash
            message.generation = engine.generation
            message.budget_ms = engine.budget.seconds * 1e3
            message.cem_reference_ms = engine.reference.seconds * 1e3
            message.transitions_reference = engine.reference.transitions
        if plan is not None:
            message.iterations, message.transitions = plan.iterations, plan.transitions
            message.goal_cost = plan.cost
        message.tick_ms = tick_s * 1e3
        message.encode_ms, message.plan_ms = result.encode_s * 1e3, result.plan_s * 1e3
        message.cem_ratio_wall = result.ratio_wall
        message.cem_ratio_transitions = result.ratio_transitions
        message.image_age_ms = result.image_age_s * 1e3
        message.latent_distance = result.distance
        message.novelty, message.delay_ms = result.novelty, result.lead_s * 1e3
        message.deadline_missed = result.deadline_missed
        message.deadline_misses, message.ticks = self.misses, self.ticks
        ordered = sorted(self._window)
        for q in (50, 95, 99):
            setattr(message, f"tick_p{q}_ms", percentile(ordered, q))
        message.tick_max_ms = ordered[-1] if ordered else _NAN
        return message


def blank_status(state: State, reason: str, dry_run: bool, stamp: Time) -> PlannerStatus:
    """A status in which nothing was measured."""
    message = PlannerStatus(state=int(state), reason=reason, dry_run=dry_run)
    message.header.stamp = stamp
    for name in (
        "tick_ms", "encode_ms", "plan_ms", "budget_ms", "cem_reference_ms", "cem_ratio_wall",
        "cem_ratio_transitions", "image_age_ms", "latent_distance", "goal_cost", "tick_p50_ms",
        "tick_p95_ms", "tick_p99_ms", "tick_max_ms", "novelty", "delay_ms",
    ):  # fmt: skip
        setattr(message, name, _NAN)
    return message


def plan_message(result: TickResult, stamp: Time) -> PlanMessage | None:
    """The chunk of actions the controller believes in, or None when there is none."""
    if result.actions is None or result.engine is None:
        return None
    engine, plan, actions = result.engine, result.plan, result.actions
    message = PlanMessage(
        planner=engine.planner.name,
        model_hash=engine.model.hash,
        generation=engine.generation,
        dt=engine.model.config.control_period,
        horizon=actions.shape[0],
        action_dim=actions.shape[1],
        actions=actions.ravel().tolist(),
        cost=_NAN if plan is None else plan.cost,
        warm_cost=_NAN if plan is None else plan.warm_cost,
    )
    message.header.stamp = stamp
    return message


def diagnostics(name: str, status: PlannerStatus, watchdog: str) -> DiagnosticArray:
    """Summarise the last status for ``/diagnostics``.

    Args:
        name: node name.
        status: the last tick's.
        watchdog: what the command filter does: ``follow``, ``ramp``, ``rest`` or ``e_stop``.
    """
    state = State(status.state)
    level = _LEVELS[state]
    if level == DiagnosticStatus.OK and status.reason and state is State.RUNNING:
        level = DiagnosticStatus.WARN
    reason = status.reason
    if level == DiagnosticStatus.OK and status.novelty > 1.0:
        level = DiagnosticStatus.WARN
        reason = reason or f"novelty: {status.novelty:.3g}; above 1 is unlike the training data"
    entry = DiagnosticStatus(level=level, name=f"{name}: controller", hardware_id=status.planner)
    entry.message = f"{state.name}: {reason}" if reason else state.name
    values = {
        "watchdog": watchdog, "dry_run": str(status.dry_run).lower(),
        "model_hash": status.model_hash, "generation": str(status.generation),
        "ticks": str(status.ticks), "deadline_misses": str(status.deadline_misses),
    }  # fmt: skip
    for field in (
        "tick_p50_ms", "tick_p95_ms", "tick_p99_ms", "tick_max_ms", "image_age_ms",
        "cem_ratio_wall", "cem_ratio_transitions", "latent_distance", "novelty", "delay_ms",
    ):  # fmt: skip
        values[field] = f"{getattr(status, field):.3f}"
    entry.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    array = DiagnosticArray(status=[entry])
    array.header.stamp = status.header.stamp
    return array


def deadlines(name: str, values: Mapping[str, str]) -> DiagnosticStatus:
    """Entry of ``/diagnostics`` that tells deadline misses; see ``MissLog``."""
    entry = DiagnosticStatus(level=DiagnosticStatus.OK, name=f"{name}{DEADLINES}")
    entry.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return entry


class Complaints:
    """Logs what is wrong once per change, and again every few seconds while it lasts.

    Args:
        log: takes one line.
        clock: monotonic clock.
        repeat_s: [s] after which what stays the same is said again.
    """

    def __init__(
        self, log: Callable[[str], object], clock: Clock = monotonic, repeat_s: float = 5.0
    ) -> None:
        self._log = log
        self._clock = clock
        self._repeat_s = repeat_s
        self._told: dict[str, tuple[str, float]] = {}

    def __call__(self, source: str, reason: str) -> None:
        """Say what is wrong with ``source``."""
        now = self._clock()
        words, when = self._told.get(source, ("", -math.inf))
        # Numbers change all the time; what is said is the same.
        gist = "".join(letter for letter in reason if not letter.isdigit())
        if gist != words or now - when >= self._repeat_s:
            self._told[source] = (gist, now)
            self._log(reason)


__all__ = [
    "DEADLINES",
    "Complaints",
    "Telemetry",
    "blank_status",
    "deadlines",
    "diagnostics",
    "plan_message",
]
