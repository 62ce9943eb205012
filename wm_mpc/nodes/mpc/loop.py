"""The control thread: wait for an image, think, filter, command. Of ROS it knows only messages.

One thread thinks, so that nothing it calls needs a lock; the mailbox is its only door. What leaves
goes through one lock: a watcher beside that thread says rest in its place when it gives no sign of
life, and whoever hears the e-stop says rest at once.
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
from wm_mpc.control.heartbeat import Heartbeat
from wm_mpc.control.pacing import ImagePacer
from wm_mpc.control.safety import CommandFilter, Motion, SafeCommand
from wm_mpc.control.stamps import ClockWatch, StampWatch
from wm_mpc.control.thread_usage import Meter, Surroundings, thread_usage
from wm_mpc.control.tick import State, TickResult
from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.errors import MessageError, NotFiniteError, one_line
from wm_mpc.core.pauses import Gaps
from wm_mpc.core.scheduling import PausedCollector, prefer, use_fifo
from wm_mpc.data.decoding import compressed_to_rgb, image_to_rgb
from wm_mpc.nodes.mpc.mailbox import Mailbox
from wm_mpc.nodes.mpc.watch import Watcher

POLL_S = 0.02
PATIENCE = 2.0
"""Control periods without a sign of life after which the control thread counts as hung."""
LOOKS = 8
"""How often per control period the watcher looks."""
MOMENT_S = 0.001
"""[s] So long after an image became too old the next tick is due."""
DOOR_S = 0.1
"""[s] The watcher waits at most so long for a command that is just leaving."""
REST_TICKS = 3
"""At rest after an emergency stop was let go, so that the gate hears it after its release."""
RESTING_FIRST = f"e_stop: released; at rest for {REST_TICKS} ticks first"

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
        stamps: knows why images may be older than they are; None: nobody does.
        afterwards: does what can wait for the command, until an instant of ``clock``.
        collector: what the garbage collector waits for; None: it comes when it likes.
        fifo_priority: real-time priority of the thread, 1 to 99; 0: a normal thread.
        nice: niceness of the thread, where it may choose.
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
        stamps: StampWatch | None = None,
        afterwards: Callable[[float], object] = lambda until: None,
        collector: PausedCollector | None = None,
        fifo_priority: int = 0,
        nice: int = 0,
    ) -> None:
        self.collector, self.fifo_priority, self.nice = collector, fifo_priority, nice
        self.controller = controller
        self.filter = command_filter
        self.mailbox = mailbox
        self.publish = publish
        self.node_clock = node_clock
        self.max_offset_s = max_offset_s
        self.on_error = on_error
        self.guard = guard
        self.afterwards = afterwards
        self.gaps = Gaps() if gaps is None else gaps
        self.meter = meter
        self.clock = clock
        self.pause = pause
        self.pacer = ImagePacer(command_filter.period)
        self.pace_clock = node_clock if paced_by_node_clock else clock
        self.stamps = StampWatch() if stamps is None else stamps
        self.heartbeat = Heartbeat(PATIENCE * command_filter.period, clock)
        self._clock_watch = ClockWatch() if paced_by_node_clock else None
        self._door = threading.Lock()
        self._abandoned = self._rested = False
        self._stood_in_at = -math.inf
        self._following_until = math.inf
        self.poll_s = POLL_S if paced_by_node_clock else math.inf
        self._engine: Engine | None = None
        self._since_swap = -1
        self._started = -math.inf
        self._queued_s: float | None = None
        self._guard_s = 0.0
        # At rest and told so, or never moved: then silence is allowed while there is no goal.
        self._quiet = True
        self._ever_sent = False
        # The gate may hear of the release later than this node, and waits for rest after it.
        self.rest_first = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to tick, and to be watched."""
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)
        every_s = max(0.005, self.filter.period / LOOKS)
        self._watcher = Watcher(self.look_after, every_s, self.on_error)
        self._thread.start()
        self._watcher.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Come to rest, then end the thread; one that hangs is left behind, mute, after rest."""
        self._stopping.set()
        self.mailbox.urge()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._watcher.stop()
        with self._door:
            self._abandoned = True
        if not self._rested:
            self._come_to_rest()

    @property
    def hangs(self) -> bool:
        """Whether the thread is still there although it was asked to end."""
        return self._abandoned and self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self.nice:
                prefer(self.nice)
            use_fifo(self.fifo_priority)
            if self.collector is not None:
                self.collector.begin()
            self._tick_until_stopped()
            if not self._abandoned:
                self._come_to_rest()
        except BaseException as error:  # SystemExit too: a thread that ends must not do so quietly
            self.heartbeat.end(one_line(error) or type(error).__name__)
            self.on_error("loop", f"planner: dead: {self.heartbeat.died}")
        finally:
            if self.collector is not None:
                self.collector.end()

    def _tick_until_stopped(self) -> None:
        urged = True
        while not self._stopping.is_set():
            self.heartbeat.beat("waiting")
            wait = self.pacer.wait(self.pace_clock(), self.mailbox.complete)
            wait = min(wait, self._following_until - self.node_clock())
            if wait > 0 and not urged:
                if self.collector is not None and self.collector.pause(wait):
                    continue  # it took time
                urged = self.mailbox.wait(min(wait, self.poll_s))
                continue
            urged = False
            try:
                self.step()
            except Exception as error:  # a tick that fails must not be the last one
                self.on_error("loop", f"tick: {one_line(error)}")

    def step(self) -> None:
        """One tick."""
        started = self.clock()
        building, woke_late_s = self.gaps.working, self._woke_late()
        self.heartbeat.beat("reading the image")
        self._look()
        now = self.node_clock()
        self.heartbeat.beat("planning")
        result = self.controller.tick(now)
        self.heartbeat.beat("sending")
        result = self._surround(result, building, woke_late_s)
        sent = self._send(result, now, started)
        if self.guard is not None:
            published = self.clock()
            self._watch(result, sent, now)
            self._guard_s = self.clock() - published
        self.afterwards(self._next_due(started))
        self._queued_s = self.meter().queued_s
        self.gaps.tick_ended()

    def _next_due(self, started: float) -> float:
        """When the tick after the one that began at ``started`` may begin, by ``clock``.

        A simulated clock may be faster than this one: the last two ticks tell.
        """
        apart, self._started = started - self._started, started
        return started + (1 - self.pacer.early) * min(self.filter.period, apart)

    def _send(self, result: TickResult, began: float, started: float) -> np.ndarray | None:
        """Filter and publish; returns what left.

        Ages are those of this moment: whatever held the tick up made them older.
        """
        with self._door:
            if self._abandoned:
                return None
            spent = max(0.0, self.node_clock() - began)
            if self.rest_first:
                self.rest_first -= 1
                result = replace(result, command=None, reason=RESTING_FIRST)
            safe = self.filter.step(
                result.command,
                result.image_age_s + spent,
                result.plan_age_s + spent,
                result.reason,
            )
            result = self._hint(_explain(result, safe))
            send = self._to_send(result.state, safe)
            self.publish(result, safe, send, started)
        if send:
            self.controller.sent(result, safe.values, began, self.node_clock())
        following = safe.motion is Motion.FOLLOW and math.isfinite(result.image_age_s)
        oldest = self.filter.limits.max_image_age_s
        expires = began - result.image_age_s + oldest + MOMENT_S
        self._following_until = expires if following else math.inf
        return safe.values if send else None

    def _hint(self, result: TickResult) -> TickResult:
        """Result that says why images seem to be so old."""
        if result.state is not State.SAFE_STOP or not result.reason.startswith("image:"):
            return result
        hint = self.stamps.hint()
        return replace(result, reason=f"{result.reason}; {hint}") if hint else result

    def look_after(self) -> None:
        """Say rest where the control thread does not, once per period; for the watcher."""
        trouble = self.heartbeat.trouble()
        if not trouble and self._clock_watch is not None:
            trouble = self._clock_watch.trouble(self.node_clock(), self.clock())
        now = self.clock()
        if not trouble or now - self._stood_in_at < self.filter.period:
            return
        self._stood_in_at = now
        state = State.FAULT if self.heartbeat.died else State.SAFE_STOP
        self._stand_in(state, trouble)
        self.on_error("planner", trouble)

    def halt(self) -> None:
        """Say at once what the e-stop demands, whatever the control thread does; any thread."""
        self._stand_in(State.E_STOP, "e_stop: engaged")
        self.mailbox.urge()

    def _stand_in(self, state: State, reason: str) -> None:
        """One step of the filter towards rest, in the place of the control thread."""
        if not self._door.acquire(timeout=DOOR_S):
            return
        try:
            if self._abandoned:
                return
            goal = self.controller.goal
            result = TickResult(state, reason, engine=self.controller.engine, goal=goal)
            safe = self.filter.step(None, math.inf, math.inf, reason)
            result = _explain(result, safe)
            self.publish(result, safe, self._to_send(state, safe), self.clock())
            self._following_until = math.inf
        finally:
            self._door.release()

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
            nonsense = isinstance(error, NotFiniteError)
            note = self.controller.distrust if nonsense else self.controller.reject
            note("image", str(error))
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
        self._rested = True
        if not self._ever_sent:
            return
        reason = "stopping"
        result = TickResult(State.SAFE_STOP, reason, engine=self.controller.engine)
        while True:
            with self._door:
                safe = self.filter.step(None, math.inf, math.inf, reason)
                self.publish(result, safe, safe.publish, self.clock())
            if safe.motion is not Motion.RAMP:
                return
            self.heartbeat.beat("coming to rest")
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
