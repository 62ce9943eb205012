"""The control thread: wait for an image, think, filter, command. Of ROS it knows only messages.

One thread runs all of it, so that nothing it calls needs a lock; the mailbox is its only door.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from wm_mpc.control.controller import Controller
from wm_mpc.control.engine import Engine
from wm_mpc.control.guard import UpdateGuard
from wm_mpc.control.pacing import ImagePacer
from wm_mpc.control.safety import CommandFilter, Motion, SafeCommand
from wm_mpc.control.thread_usage import Meter, Surroundings, thread_usage
from wm_mpc.control.tick import State, TickResult
from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.errors import one_line
from wm_mpc.core.pauses import Gaps
from wm_mpc.data.decoding import MessageError, compressed_to_rgb, image_to_rgb
from wm_mpc.nodes.mpc.mailbox import Mailbox

POLL_S = 0.02

Publish = Callable[[TickResult, SafeCommand, bool, float], None]
"""Called once per tick with the result, the filtered command, whether that command is to be sent,
and the instant the tick began (monotonic clock)."""


class ControlLoop:
    """Runs ticks in a thread of its own from ``start`` to ``stop``.

    Args:
        controller: what thinks.
        command_filter: what has the last word.
        mailbox: newest observation.
        publish: told the outcome of every tick, in this thread.
        node_clock: seconds of the node clock, for stamps and ages.
        max_offset_s: [s] proprioception further away from its image is refused.
        paced_by_node_clock: true where the node clock is simulated: it may run at another speed
            than the wall clock, so waiting is done in small pieces.
        on_error: told what is wrong with an input, one line.
        clock: monotonic clock.
        pause: sleeps for a number of seconds of that clock.
        guard: watches new models and takes bad ones back; None: nobody does.
        gaps: told the end of every tick; None: nobody works beside this loop.
        meter: what the calling thread was given.
    """

    def __init__(
        self,
        controller: Controller,
        command_filter: CommandFilter,
        mailbox: Mailbox,
        publish: Publish,
        node_clock: Clock,
        max_offset_s: float,
        paced_by_node_clock: bool,
        on_error: Callable[[str, str], None],
        clock: Clock = monotonic,
        pause: Callable[[float], object] = time.sleep,
        guard: UpdateGuard | None = None,
        gaps: Gaps | None = None,
        meter: Meter = thread_usage,
    ) -> None:
        self.controller = controller
        self.filter = command_filter
        self.mailbox = mailbox
        self.publish = publish
        self.node_clock = node_clock
        self.max_offset_s = max_offset_s
        self.on_error = on_error
        self.guard = guard
        self.gaps = Gaps() if gaps is None else gaps
        self.meter = meter
        self.clock = clock
        self.pause = pause
        self.pacer = ImagePacer(command_filter.period)
        self.pace_clock = node_clock if paced_by_node_clock else clock
        self.poll_s = POLL_S if paced_by_node_clock else math.inf
        self._engine: Engine | None = None
        self._since_swap = -1
        self._queued_s: float | None = None
        self._guard_s = 0.0
        # At rest and told so, or never moved: then silence is allowed while there is no goal.
        self._quiet = True
        self._ever_sent = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to tick."""
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Come to rest, then end the thread."""
        self._stopping.set()
        self.mailbox.urge()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        urged = True
        while not self._stopping.is_set():
            wait = self.pacer.wait(self.pace_clock(), self.mailbox.complete)
            if wait > 0 and not urged:
                urged = self.mailbox.wait(min(wait, self.poll_s))
                continue
            urged = False
            try:
                self.step()
            except Exception as error:  # a tick that fails must not be the last one
                self.on_error("loop", f"tick: {one_line(error)}")
        self._come_to_rest()

    def step(self) -> None:
        """One tick."""
        started = self.clock()
        building, woke_late_s = self.gaps.working, self._woke_late()
        self._look()
        now = self.node_clock()
        result = self.controller.tick(now)
        result = self._surround(result, building, woke_late_s)
        safe = self.filter.step(
            result.command, result.image_age_s, result.plan_age_s, result.reason
        )
        result = _explain(result, safe)
        send = self._to_send(result.state, safe)
        self.publish(result, safe, send, started)
        if self.guard is not None:
            published = self.clock()
            self._watch(result, safe.values if send else None, now)
            self._guard_s = self.clock() - published
        self._queued_s = self.meter().queued_s
        self.gaps.tick_ended()

    def _woke_late(self) -> float:
        """Time since the last tick in which this thread was ready but had no core [s]."""
        return 0.0 if self._queued_s is None else self.meter().queued_s - self._queued_s

    def _surround(self, result: TickResult, building: bool, woke_late_s: float) -> TickResult:
        """Result with what went on around it."""
        if result.engine is not self._engine:
            self._since_swap = -1 if self._engine is None else 0
            self._engine = result.engine
        elif self._since_swap >= 0:
            self._since_swap += 1
        building = building or self.gaps.working
        around = Surroundings(building, self._since_swap, woke_late_s, self._guard_s)
        return replace(result, around=around)

    def _watch(self, result: TickResult, command: np.ndarray | None, now: float) -> None:
        """Judge the running model by what happened; after the command, when there is time."""
        verdict = self.guard.observe(result, command, now)
        if verdict is not None:
            self.controller.swap_model(verdict.engine)
            self.on_error("model", verdict.reason)

    def _look(self) -> None:
        """Take the newest image, decode it and hand it to the controller."""
        taken = self.mailbox.take()
        if taken is None:
            return
        stamp, message, proprio, offset = taken
        try:
            self._check_offset(proprio, offset)
            self.controller.observe(decode(message), proprio, stamp)
            self._begin_where_the_robot_is(proprio)
        except ValueError as error:
            self.controller.reject("image", str(error))
            self.on_error("image", str(error))

    def _begin_where_the_robot_is(self, proprio: np.ndarray | None) -> None:
        dim = len(self.filter.rest)
        if self.filter.needs_position and proprio is not None and len(proprio) >= dim:
            self.filter.begin(proprio[:dim])

    def _check_offset(self, proprio: np.ndarray | None, offset: float) -> None:
        if not self.mailbox.needs_proprio:
            return
        if proprio is None:
            raise MessageError("proprio: none received")
        if offset > self.max_offset_s:
            raise MessageError(
                f"proprio: {offset:.3f} s away from the image; at most {self.max_offset_s:g} s "
                "allowed"
            )

    def _to_send(self, state: State, safe: SafeCommand) -> bool:
        """Whether this command leaves: always, except rest again and again without a goal."""
        moving = safe.motion in (Motion.FOLLOW, Motion.RAMP)
        send = safe.publish and (moving or state is not State.IDLE or not self._quiet)
        self._quiet = not moving
        self._ever_sent = self._ever_sent or send
        return send

    def _come_to_rest(self) -> None:
        """Ramp down and say rest, unless nothing was ever said."""
        if not self._ever_sent:
            return
        reason = "stopping"
        result = TickResult(State.SAFE_STOP, reason, engine=self.controller.engine)
        while True:
            safe = self.filter.step(None, math.inf, math.inf, reason)
            self.publish(result, safe, safe.publish, self.clock())
            if safe.motion is not Motion.RAMP:
                return
            self.pause(self.filter.period)


def decode(message: Any) -> np.ndarray:
    """Picture of an Image or a CompressedImage, uint8 ``(H, W, 3)`` RGB.

    Raises:
        MessageError: what is wrong with it.
    """
    return image_to_rgb(message) if hasattr(message, "encoding") else compressed_to_rgb(message)


def _explain(result: TickResult, safe: SafeCommand) -> TickResult:
    """Result as it became: the filter's word counts where it stopped what was asked for."""
    if safe.motion is Motion.E_STOP:
        return replace(result, state=State.E_STOP, reason=safe.reason, command=None)
    if result.command is not None and safe.reason:
        return replace(result, state=State.SAFE_STOP, reason=safe.reason, command=None)
    return result


__all__ = ["ControlLoop", "decode"]
