"""What stands between a controller and a robot: it answers when the controller does not.

The gate passes requests on within limits, and brings the robot to rest by itself when no usable
request comes, when the emergency stop is pressed, and when time cannot be trusted. It knows
nothing of pictures, plans and models, needs numpy alone, and has no thread: whoever owns it calls
``request`` for what comes and ``poll`` no later than ``due`` says.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from wm_mpc.control.safety import CommandFilter, CommandLimits, Motion, SafeCommand
from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.fields import Checked

CLOCK_STOPPED_S = 5.0
"""[s] of wall time without a request: rest, whatever another clock says."""
BEGIN_S = 2.0
"""[s] for which a gate that started says rest: whoever listens may not be connected at first."""
TELL_S = 1.0
"""[s] for which a request that was refused is told."""

_RELEASED = "e_stop: released; waiting for the controller to rest once before it drives again"


@dataclass(frozen=True)
class GateConfig(Checked):
    """When the gate answers by itself.

    Attributes:
        control_rate_hz: [Hz] control steps per second, as the controller's.
        max_request_age_s: [s] without a usable request: ramp to rest; 0: two control periods.
        e_stop_timeout_s: [s] without a message on e_stop: emergency stop, for buttons that repeat
            false while they are not pressed; 0: off.
    """

    control_rate_hz: Annotated[float, Ge(0.1), Le(1000.0)] = 10.0
    max_request_age_s: Annotated[float, Ge(0.0), Le(60.0)] = 0.0
    e_stop_timeout_s: Annotated[float, Ge(0.0), Le(3600.0)] = 0.0

    @property
    def period_s(self) -> float:
        """Control period [s]."""
        return 1.0 / self.control_rate_hz

    @property
    def patience_s(self) -> float:
        """Time without a usable request after which the robot is brought to rest [s]."""
        return self.max_request_age_s or 2.0 * self.period_s


class GateState(IntEnum):
    """As in wm_mpc/msg/GateStatus."""

    WAITING = 0
    PASSING = 1
    RAMPING = 2
    RESTING = 3
    E_STOP = 4


_STATES = {
    Motion.FOLLOW: GateState.PASSING,
    Motion.RAMP: GateState.RAMPING,
    Motion.REST: GateState.RESTING,
    Motion.E_STOP: GateState.E_STOP,
}


@dataclass
class GateCounts:
    """What went through since the start; see wm_mpc/msg/GateStatus."""

    passed: int = 0
    limited: int = 0
    refused: int = 0
    stops: int = 0


class EmergencyStop:
    """Who presses it, and whether it is let go.

    Several buttons may share the topic: it is pressed while any of them says so. The last word of
    a button that is gone counts until another one says false after that.

    Args:
        timeout_s: see ``GateConfig.e_stop_timeout_s``.
        clock: monotonic clock.
        held: who pressed it, and when they said so, as ``held`` told when an earlier gate ended.
    """

    def __init__(
        self, timeout_s: float, clock: Clock, held: Mapping[Hashable, int] | None = None
    ) -> None:
        self.timeout_s = timeout_s
        self.clock = clock
        self.held: dict[Hashable, int] = dict(held or {})
        self._before = set(self.held)
        self._newest: dict[Hashable, int] = dict(self.held)
        self._heard = clock()

    def hear(self, engaged: bool, sender: Hashable, sent: int, present: set | None = None) -> None:
        """Take one message.

        Args:
            engaged: its word.
            sender: who sent it.
            sent: when, in any unit that only grows at that sender. One message may come twice,
                over several subscriptions, in any order.
            present: senders that exist; None: unknown, then a false lets go of all that were
                pressed before it was sent.
        """
        self._heard = self.clock()
        if sent < self._newest.get(sender, 0):
            return
        self._newest[sender] = sent
        if engaged:
            self.held[sender] = sent
            self._before.discard(sender)
            return
        for other, when in list(self.held.items()):
            gone = present is None or other not in present
            if other == sender or (gone and when < sent):
                del self.held[other]

    @property
    def pressed(self) -> bool:
        """Whether some button says so: what a restart must remember."""
        return bool(self.held)

    @property
    def reason(self) -> str:
        """Why the robot must stand; empty: it need not."""
        if self._before & set(self.held):
            return "e_stop: pressed before the gate was started; send false"
        if self.held:
            return "e_stop: pressed"
        if self.timeout_s and self.clock() - self._heard > self.timeout_s:
            return f"e_stop: silent; heard at least every {self.timeout_s:g} s expected"
        return ""

    @property
    def due(self) -> float:
        """Instant at which silence becomes too long; inf: never."""
        return self._heard + self.timeout_s if self.timeout_s else math.inf


class CommandGate:
    """See the module. Not thread safe.

    Args:
        limits: what may leave.
        config: when to answer without being asked.
        dim: action width; 0: that of the first request.
        clock: clock of requests and ramps: monotonic, or a simulated one.
        wall: monotonic clock.
        held: who held the emergency stop when an earlier gate ended, and since when.

    Raises:
        ValueError: limits that do not fit each other or ``dim``.
    """

    def __init__(
        self,
        limits: CommandLimits,
        config: GateConfig,
        dim: int = 0,
        clock: Clock = monotonic,
        wall: Clock = monotonic,
        held: Mapping[Hashable, int] | None = None,
    ) -> None:
        self.limits, self.config, self.clock, self.wall = limits, config, clock, wall
        self.stop = EmergencyStop(config.e_stop_timeout_s, wall, held)
        self.counts = GateCounts()
        self.state = GateState.WAITING
        self.reason = ""
        self.command: SafeCommand | None = None
        self._filter: CommandFilter | None = None
        self._wish: np.ndarray | None = None
        self._sender: Hashable = None
        # Until something is asked for, silence is in order.
        self._asked_for_rest = True
        self._came = self._came_wall = -math.inf
        self._stepped = self._stepped_wall = -math.inf
        self._latched = False
        self._begin_until = -math.inf
        self._note, self._note_until = "", -math.inf
        if dim:
            self._open(dim)

    def _open(self, dim: int) -> None:
        high = (math.inf,) * dim
        low = tuple(-value for value in high)
        self._filter = CommandFilter(self.limits, low, high, self.config.period_s, self.clock)

    # ---- inputs --------------------------------------------------------------------------------

    def begin(self) -> SafeCommand | None:
        """Say rest before anything else: nobody knows what a gate before this one said last.

        Returns:
            What must leave; None where the width is unknown, or the robot rests by holding.
        """
        if self.limits.hold_at_rest and not self.stop.reason:
            return None
        self._begin_until = self.wall() + BEGIN_S
        return self._step(None, self.stop.reason)

    def request(self, values: np.ndarray, sender: Hashable) -> SafeCommand | None:
        """Take a request that is fresh.

        Args:
            values: ``(dim,)`` raw units.
            sender: who sent it; while one speaks, all others are refused.

        Returns:
            What must leave now; None: nothing.
        """
        silent = self._overdue()
        if sender != self._sender and not silent:
            return self.refuse("command_request: a second publisher is refused")
        trouble = self._unusable(values)
        if trouble:
            return self.spoilt(trouble)
        assert self._filter is not None
        if self._filter.needs_position or (self.limits.hold_at_rest and self._quiet):
            # The controller's first absolute command is where it saw the robot standing.
            self._filter.begin(values)
        asked_for_rest = self._asks_for_rest(values)
        self._wish, self._sender = values, sender
        self._came, self._came_wall = self.clock(), self.wall()
        if self._latched and not self.stop.reason:
            if not (asked_for_rest or silent):
                return self.refuse(_RELEASED)
            self._release()
        self._asked_for_rest = asked_for_rest
        answer = self._step(None if self._stops(asked_for_rest) else values, "")
        if answer is not None and answer.motion is not Motion.E_STOP:
            self.counts.passed += 1
            self.counts.limited += answer.motion is Motion.FOLLOW and answer.limited
        return answer

    def spoilt(self, reason: str) -> SafeCommand | None:
        """Take a request that cannot be read: the robot is brought to rest at once."""
        self.refuse(reason)
        return self._step(None, reason)

    def refuse(self, reason: str) -> None:
        """Note a request that must not be used; it does not count as one."""
        self.counts.refused += 1
        self.note(reason)

    def note(self, reason: str) -> None:
        """Have something told for a while that changes no command."""
        self._note, self._note_until = reason, self.wall() + TELL_S

    def e_stop(
        self, engaged: bool, sender: Hashable, sent: int, present: set | None = None
    ) -> SafeCommand | None:
        """Hear the emergency stop; see ``EmergencyStop.hear``. Returns what must leave now."""
        self.stop.hear(engaged, sender, sent, present)
        if self.stop.reason and self.state is not GateState.E_STOP:
            return self._step(None, self.stop.reason)
        return None

    # ---- time ----------------------------------------------------------------------------------

    @property
    def request_age_s(self) -> float:
        """Time since the last usable request [s]; inf: none yet."""
        return self.clock() - self._came

    @property
    def _quiet(self) -> bool:
        """The robot stands because it was asked to, and nobody asks for anything: no command."""
        return self.state is GateState.WAITING

    def due(self) -> float:
        """Instant by ``clock`` at which ``poll`` must be called again."""
        if self._quiet or self._filter is None:
            return self.stop.due
        fresh = not (self._overdue() or self._latched)
        if fresh and (self.state is GateState.PASSING or self._asked_for_rest):
            return min(self._came + self.config.patience_s, self.stop.due)
        return min(self._stepped + self.config.period_s, self.stop.due)

    def poll(self) -> SafeCommand | None:
        """Do what is due; returns what must leave now."""
        why = self.stop.reason
        if why and self.state is not GateState.E_STOP:
            return self._step(None, why)
        overdue = self._overdue()
        if self._latched and not why and overdue:
            # Nothing was asked for since it was let go: whatever comes next is newer than that.
            self._asked_for_rest = True
            self._release()
            return self._step(None, "")
        if self._quiet or self._filter is None:
            return None
        if self.state is GateState.PASSING:
            return self._step(None, self._why_overdue()) if overdue else None
        if self._asked_for_rest and not self._latched:
            if not overdue:
                return None
            if self._filter.at_rest and self.wall() > self._begin_until:
                self.state, self.reason = GateState.WAITING, ""
                return None
        waited = self.clock() - self._stepped
        if 0 <= waited < 0.999 * self.config.period_s and self.wall() - self._stepped_wall < 1.0:
            return None
        if self._latched:
            return self._step(None, why or _RELEASED)
        silent = overdue and not self._asked_for_rest
        return self._step(None, self._why_overdue() if silent else self.reason)

    def halt(self) -> SafeCommand | None:
        """One step towards rest, for the end of the process; None when rest was said."""
        if self._filter is None or self.state is GateState.WAITING:
            return None
        if self.command is not None and self.command.motion in (Motion.REST, Motion.E_STOP):
            return None
        return self._step(None, "gate: stopping")

    # ---- one step ------------------------------------------------------------------------------

    def _step(self, wish: np.ndarray | None, reason: str) -> SafeCommand | None:
        """Filter a wish, or None, and note what became of it."""
        before, why = self.state, self.stop.reason
        self._latched = self._latched or bool(why)
        if self._filter is None:
            self.state = GateState.E_STOP if self._latched else GateState.WAITING
            self.reason = why or reason
            return None
        if self._latched:
            self._filter.e_stop(True)
        if wish is None and self._clock_stopped():
            answer = self._filter.stand(reason)
        else:
            answer = self._filter.follow(wish, reason)
        self._stepped, self._stepped_wall = self.clock(), self.wall()
        self.state = _STATES[answer.motion]
        self.reason = why or (reason if self._latched else answer.reason)
        if before is GateState.PASSING and self.state is not GateState.PASSING and self.reason:
            self.counts.stops += 1
        self.command = answer
        return answer

    def _release(self) -> None:
        """End an emergency stop that was let go."""
        self._latched = False
        if self._filter is not None:
            self._filter.e_stop(False)
            self._filter.reset()

    def told(self) -> str:
        """Reason for people: why the command is not the one asked for, or what was refused."""
        if self.reason or self.wall() > self._note_until:
            return self.reason
        return self._note

    def _unusable(self, values: np.ndarray) -> str:
        if self._filter is None:
            try:
                self.limits.require_for_hardware()
                self._open(len(values))
            except ValueError as error:
                return str(error)
        assert self._filter is not None
        if values.shape != self._filter.rest.shape:
            width = len(self._filter.rest)
            return f"command_request: {len(values)} values; {width} expected"
        if not np.isfinite(values).all():
            return f"command_request: {values.tolist()} is not finite"
        return ""

    def _asks_for_rest(self, values: np.ndarray) -> bool:
        assert self._filter is not None
        if not self.limits.hold_at_rest:
            return bool(np.array_equal(values, self._filter.rest))
        return self._wish is not None and bool(np.array_equal(values, self._wish))

    def _stops(self, asked_for_rest: bool) -> bool:
        """Whether the request is a stop: that outranks the limits, here as in the controller."""
        return asked_for_rest and not self.limits.hold_at_rest

    def _overdue(self) -> bool:
        """No usable request for too long; a clock that went back tells nothing, so it is."""
        return not 0 <= self.request_age_s < self.config.patience_s or self._clock_stopped()

    def _clock_stopped(self) -> bool:
        patience = max(CLOCK_STOPPED_S, self.config.patience_s)
        return self.clock is not self.wall and self.wall() - self._came_wall > patience

    def _why_overdue(self) -> str:
        if self.wall() <= self._note_until:
            return self._note
        if self._clock_stopped():
            return f"clock: stands still; no command_request for {CLOCK_STOPPED_S:g} s wall time"
        limit = self.config.patience_s
        return f"command_request: none for {limit:g} s; the robot is brought to rest"


__all__ = ["CommandGate", "EmergencyStop", "GateConfig", "GateCounts", "GateState"]
