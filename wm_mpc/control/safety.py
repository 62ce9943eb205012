"""The last thing before a command leaves: limits, watchdogs, ramp-down, emergency stop.

Whatever the planner says, a command that passes here is finite, inside its bounds, changes no
faster than allowed, and stems from a fresh image and a fresh plan. Everything else ends in a ramp
down to rest, then explicit rest commands: a silent controller may leave a robot moving, so silence
is never the answer. Needs numpy alone: the command gate uses it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.fields import Checked, IsFinite, PositiveFloat
from wm_mpc.core.live import Live

HOUR = 3600.0
SHORTEST_S = 1e-6
"""Time that a step takes at least [s]; also one whose clock stood still or went back."""


@dataclass(frozen=True)
class CommandLimits(Checked):
    """What may leave for the robot, in units of the command; one entry per dimension or for all.

    Stopping outranks ``rate_limit`` and ``acceleration_limit``: a ramp takes ``ramp_s``.

    Attributes:
        action_low, action_high: bounds of a command; empty: the model's own (in simulation only).
        rate_limit: largest change of a command per second; empty: none.
        acceleration_limit: largest change of that rate per second; empty: none.
        rest: command at which the robot stands still; empty: zeros.
        hold_at_rest: true for absolute commands (joint positions, in the order of the
            proprioception): to rest is to repeat the last one; rest is ignored.
        ramp_s: [s] time in which a running command is brought down to rest.
        hardware: true on a real robot: refuse to activate unless action_low, action_high and
            rate_limit are set.
        dry_run: true: compute and report commands, publish none.
    """

    action_low: Annotated[tuple[Annotated[float, IsFinite], ...], Live("higher")] = ()
    action_high: Annotated[tuple[Annotated[float, IsFinite], ...], Live("lower")] = ()
    rate_limit: Annotated[tuple[PositiveFloat, ...], Live("lower")] = ()
    acceleration_limit: Annotated[tuple[PositiveFloat, ...], Live("lower")] = ()
    rest: tuple[Annotated[float, IsFinite], ...] = ()
    hold_at_rest: bool = False
    ramp_s: Annotated[float, Ge(0.0), Le(10.0)] = 0.2
    hardware: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name in ("action_low", "action_high", "rate_limit", "acceleration_limit", "rest"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        super().__post_init__()

    def require_for_hardware(self) -> None:
        """Refuse to drive a real robot without limits.

        Raises:
            ValueError: ``hardware`` is set and a limit that it needs is not.
        """
        if not self.hardware:
            return
        for name in ("action_low", "action_high", "rate_limit"):
            if not getattr(self, name):
                raise ValueError(f"{name}: not set; a real robot (hardware: true) needs it")


@dataclass(frozen=True)
class SafetyLimits(CommandLimits):
    """What may leave, and how old what it stems from may be.

    Attributes:
        max_image_age_s: [s] an older image stops the robot; node clock. 0: two control periods.
        max_plan_age_s: [s] a plan that was last improved longer ago stops the robot; node clock.
            0: 1.75 control periods, so that it stops when two plans in a row failed.
    """

    max_image_age_s: Annotated[float, Ge(0.0), Le(HOUR), Live("lower", True)] = 0.0
    max_plan_age_s: Annotated[float, Ge(0.0), Le(HOUR), Live("lower", True)] = 0.0

    def for_period(self, period: float) -> SafetyLimits:
        """Limits with every age set.

        Args:
            period: control period [s].

        >>> SafetyLimits(max_plan_age_s=0.5).for_period(0.1).max_image_age_s
        0.2
        """
        return replace(
            self,
            max_image_age_s=self.max_image_age_s or 2.0 * period,
            max_plan_age_s=self.max_plan_age_s or 1.75 * period,
        )

    def stale(self, image_age: float, plan_age: float) -> str:
        """Watchdog: say in one line what is too old, or nothing.

        Args:
            image_age: [s]; ``inf`` when there is none yet. An image stamped in the future is
                refused too: its true age is unknown.
            plan_age: [s]; ``inf`` when there is none yet.
        """
        if image_age == math.inf:
            return "image: none received"
        if not -self.max_image_age_s <= image_age <= self.max_image_age_s:
            return f"image: {image_age:.3f} s old; at most {self.max_image_age_s:g} s allowed"
        if not plan_age <= self.max_plan_age_s:
            return f"plan: {plan_age:.3f} s old; at most {self.max_plan_age_s:g} s allowed"
        return ""


class Motion(Enum):
    """What a filtered command does."""

    FOLLOW = "follow"  # as asked, within limits
    RAMP = "ramp"  # on its way to rest
    REST = "rest"  # at rest, explicitly
    E_STOP = "e_stop"  # at rest, latched


@dataclass(frozen=True)
class SafeCommand:
    """A command that may leave.

    Attributes:
        values: float64 ``(action_dim,)``, finite and within bounds.
        motion: what it does.
        limited: whether a limit changed what was asked for.
        reason: one line; why the command is not the one asked for, empty when it is.
        publish: false in a dry run, and while an absolute command has nothing to start from.
    """

    values: np.ndarray
    motion: Motion
    limited: bool
    reason: str
    publish: bool


class CommandFilter:
    """Stateful filter between planner and robot. Not thread safe: one thread steps it.

    Args:
        limits: what may leave; ``SafetyLimits`` where ``step`` is used.
        low: lower bounds used where ``limits`` has none (the model's own).
        high: upper bounds used where ``limits`` has none.
        period: nominal time between two steps [s]; a late step earns no jump larger than twice it.
        clock: monotonic clock.

    Raises:
        ValueError: sizes disagree, low is not below high, or rest lies outside.
    """

    def __init__(
        self,
        limits: CommandLimits,
        low: tuple[float, ...],
        high: tuple[float, ...],
        period: float,
        clock: Clock = monotonic,
    ) -> None:
        dim = len(low)
        self._bounds = low, high
        self._next: CommandFilter | None = None
        self.limits = limits.for_period(period) if isinstance(limits, SafetyLimits) else limits
        self.low = _expand("action_low", limits.action_low or low, dim)
        self.high = _expand("action_high", limits.action_high or high, dim)
        self.rate = _expand("rate_limit", limits.rate_limit or (math.inf,), dim)
        acceleration = limits.acceleration_limit or (math.inf,)
        self.acceleration = _expand("acceleration_limit", acceleration, dim)
        self.rest = _expand("rest", limits.rest or (0.0,), dim)
        if not np.all(self.low < self.high):
            upper = self.high.tolist()
            raise ValueError(f"action_low: {self.low.tolist()}; below {upper} expected")
        if not limits.hold_at_rest and np.any((self.rest < self.low) | (self.rest > self.high)):
            bounds = f"{self.low.tolist()} to {self.high.tolist()}"
            raise ValueError(f"rest: {self.rest.tolist()}; {bounds} expected")
        self.period = period
        self.clock = clock
        self.e_stopped = False
        self.needs_position = limits.hold_at_rest
        self._e_stop_held = False
        self._last = self.rest.copy()
        self._slope = np.zeros(dim)
        self._stepped: float | None = None
        self._ramp_from: np.ndarray | None = None
        self._ramp_left = 0.0

    # ---- emergency stop ----------------------------------------------------------------------

    def e_stop(self, engaged: bool) -> None:
        """Hear the e-stop: true latches at once; false only allows a later ``reset``."""
        self._e_stop_held = engaged
        self.e_stopped = self.e_stopped or engaged

    def reset(self) -> bool:
        """Release a latched e-stop if it was let go before; returns whether the filter is free."""
        if not self._e_stop_held:
            self.e_stopped = False
        return not self.e_stopped

    def begin(self, position: np.ndarray) -> None:
        """Tell where the robot stands; absolute commands start there, and none leaves before.

        Args:
            position: ``(action_dim,)``, finite, units of the command.
        """
        self._stand(np.clip(np.asarray(position, np.float64), self.low, self.high))
        self.needs_position = False

    # ---- commands ----------------------------------------------------------------------------

    def step(
        self, command: np.ndarray | None, image_age: float, plan_age: float, reason: str = ""
    ) -> SafeCommand:
        """Filter one command.

        Args:
            command: ``(action_dim,)`` raw units, or None to come to rest.
            image_age: [s] by the node clock.
            plan_age: [s] by the node clock.
            reason: why ``command`` is None, passed through.

        Returns:
            A command that may leave, whatever went in.
        """
        if command is not None:
            reason = self.limits.stale(image_age, plan_age)
        return self.follow(None if reason else command, reason)

    def follow(self, command: np.ndarray | None, reason: str = "") -> SafeCommand:
        """Filter one command whose age somebody else judges.

        Args:
            command: ``(action_dim,)`` raw units, or None to come to rest.
            reason: why ``command`` is None, passed through.

        Returns:
            A command that may leave, whatever went in.
        """
        self._take_over()
        now = self.clock()
        elapsed = self.period if self._stepped is None else max(now - self._stepped, SHORTEST_S)
        dt = min(elapsed, 2 * self.period)
        self._stepped = now
        if self.e_stopped:
            self._ramp_from = None
            self._stand(self._target_at_rest())
            return self._answer(Motion.E_STOP, True, "e_stop: latched; send false, then a goal")
        if command is not None:
            reason = self._refuse(command)
        if command is None or reason:
            return self._to_rest(elapsed, dt, reason)
        self._ramp_from = None
        wanted = np.asarray(command, dtype=np.float64)
        allowed = self._limit(np.clip(wanted, self.low, self.high), dt)
        self._slope = (allowed - self._last) / elapsed
        self._last = allowed
        limited = bool((np.abs(allowed - wanted) > 1e-12).any())
        return self._answer(Motion.FOLLOW, limited, "")

    def stand(self, reason: str) -> SafeCommand:
        """Go to rest at once, without a ramp: for when time itself cannot be trusted."""
        self._take_over()
        self._stepped, self._ramp_from = self.clock(), None
        self._stand(self._target_at_rest())
        return self._answer(Motion.E_STOP if self.e_stopped else Motion.REST, True, reason)

    def adopt(self, limits: CommandLimits) -> None:
        """Use other limits from the next step on, all at once; any thread.

        A command that stands outside of new bounds comes back within the rate limits.

        Raises:
            ValueError: sizes disagree, low is not below high, or rest lies outside.
        """
        self._next = CommandFilter(limits, *self._bounds, self.period, self.clock)

    def _take_over(self) -> None:
        other, self._next = self._next, None
        if other is not None:
            for name in ("limits", "low", "high", "rate", "acceleration", "rest"):
                setattr(self, name, getattr(other, name))

    @property
    def at_rest(self) -> bool:
        """Whether the last command was the rest command."""
        return self.limits.hold_at_rest or bool(np.array_equal(self._last, self.rest))

    def _refuse(self, command: np.ndarray) -> str:
        if np.shape(command) != self.low.shape:
            return f"command: shape {np.shape(command)}; {self.low.shape} expected"
        if not np.isfinite(command).all():
            return f"command: {np.asarray(command).tolist()} is not finite"
        if self.needs_position:
            return "command: absolute, but the robot's position is not known yet"
        return ""

    def _limit(self, target: np.ndarray, dt: float) -> np.ndarray:
        """Approach ``target`` within rate and acceleration, always able to stop before a bound.

        Who moves at ``v`` and brakes with ``a`` comes ``v^2 / 2a`` further. A step of ``dt`` at
        ``v`` therefore needs ``v dt + v^2 / 2a`` of the distance ``d`` that is left, so that
        ``v <= 2d / (dt + sqrt(dt^2 + 2d / a))``. Who keeps that can go on keeping it whatever the
        lengths of the next steps are: late and early steps break no limit.
        """
        last = self._last
        # Bounds may have become narrower: what stands outside comes back like any other motion.
        low, high = np.minimum(self.low, last), np.maximum(self.high, last)
        slope = np.clip((target - last) / dt, -self.rate, self.rate)
        finite = np.isfinite(self.acceleration)
        if finite.any():
            a = np.where(finite, self.acceleration, 1.0)

            def fastest(distance: np.ndarray) -> np.ndarray:
                distance = np.clip(distance, 0.0, 1e300)
                return 2 * distance / (dt + np.sqrt(dt * dt + 2 * distance / a))

            toward = np.sign(slope) * np.minimum(np.abs(slope), fastest(np.abs(target - last)))
            toward = np.clip(toward, self._slope - a * dt, self._slope + a * dt)
            toward = np.clip(toward, -fastest(last - low), fastest(high - last))
            slope = np.where(finite, np.clip(toward, -self.rate, self.rate), slope)
        # the target itself, not last + (target - last), where nothing limits
        reached = np.abs(target - last - slope * dt) <= 1e-12
        return np.where(reached, target, np.clip(last + slope * dt, low, high))

    def _to_rest(self, elapsed: float, dt: float, reason: str) -> SafeCommand:
        """Go down in a straight line in ``ramp_s``: stopping outranks the other limits.

        The first step counts a whole period however early it comes: a command holds for a period,
        and a watchdog that bites between two ticks must not cost another one.
        """
        rest = self._target_at_rest()
        if self._ramp_from is None:
            self._ramp_from, self._ramp_left = self._last.copy(), 1.0
            elapsed = max(dt, self.period)
        ramp_s = self.limits.ramp_s
        self._ramp_left -= elapsed / ramp_s if ramp_s else 1.0
        start = self._ramp_from
        if self._ramp_left <= 1e-9 or np.array_equal(start, rest):
            self._stand(rest)
            return self._answer(Motion.REST, True, reason)
        self._stand(rest + self._ramp_left * (start - rest))
        return self._answer(Motion.RAMP, True, reason)

    def _target_at_rest(self) -> np.ndarray:
        return self._last.copy() if self.limits.hold_at_rest else self.rest.copy()

    def _stand(self, values: np.ndarray) -> None:
        """Say ``values`` on the way to rest. What is followed next is followed from standstill.

        The slope of a ramp is no motion that has to be braked: within the acceleration limit the
        command would run through rest to the other side.
        """
        self._slope = np.zeros_like(values)
        self._last = values

    def _answer(self, motion: Motion, limited: bool, reason: str) -> SafeCommand:
        publish = not (self.limits.dry_run or self.needs_position)
        return SafeCommand(self._last.copy(), motion, limited, reason, publish)


def _expand(name: str, values: tuple[float, ...], dim: int) -> np.ndarray:
    if len(values) not in (1, dim):
        raise ValueError(f"{name}: {len(values)} values; 1 or {dim} expected")
    return np.broadcast_to(np.asarray(values, dtype=np.float64), (dim,)).copy()
