"""Who watches the control thread: a hang, a death, an e-stop meanwhile, a stall inside a tick."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fake_clock import FakeClock
from helpers import tiny_encoder, tiny_model

from wm_mpc.control.controller import Controller, ControllerConfig
from wm_mpc.control.engine import Engine, EngineConfig
from wm_mpc.control.heartbeat import Heartbeat
from wm_mpc.control.safety import CommandFilter, SafetyLimits
from wm_mpc.control.stamps import ClockWatch, StampWatch
from wm_mpc.control.tick import State
from wm_mpc.core.clock import monotonic
from wm_mpc.nodes.mpc.loop import ControlLoop
from wm_mpc.nodes.mpc.mailbox import Mailbox
from wm_mpc.planners import Plan, PlanRequest
from wm_mpc.planners.budget import CemReference
from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
PROPRIO = np.array([250.0, 260.0, 0.0, 0.0], np.float32)
SOON_S = 10.0


class Picture:
    """What the loop needs of an Image message."""

    encoding, height, width, step, is_bigendian = "rgb8", 32, 32, 96, 0
    data = PICTURE.tobytes()


class Planner:
    """Answers half the largest command, and does first what a test asks for."""

    name = "half"

    def __init__(self) -> None:
        self.first: Callable[[], object] = lambda: None

    def plan(self, request: PlanRequest) -> Plan:
        self.first()
        return Plan(torch.full((2, 10), 0.5), 1.0, math.nan, None, 2, 1, 0.0, "iterations", "half")


class Rig:
    """A running loop: real threads, pictures on demand."""

    def __init__(self, encoder: object, clock: Any = monotonic) -> None:
        model = tiny_model(encoder)
        model.action_std.fill_(1.0)
        objective = GoalObjective(ObjectiveConfig(), 2, model.visual_dim, model.proprio_width)
        reference = CemReference(0.5, 45000, 1, 30, 30, "cpu", 1)
        self.planner = Planner()
        config = EngineConfig(horizon=2, compile=False)
        engine = Engine(model, self.planner, objective, reference, config)
        limits = SafetyLimits(ramp_s=0.0)
        self.clock = clock
        self.controller = Controller(engine, ControllerConfig(), limits, clock)
        self.filter = CommandFilter(limits, (-1.0,) * 2, (1.0,) * 2, 0.1, clock)
        self.mailbox = Mailbox(needs_proprio=True)
        self.told: list[tuple[State, str, list[float] | None]] = []
        self.loop = ControlLoop(
            self.controller, self.filter, self.mailbox, self._publish, clock, 0.05, False,
            lambda *_: None, clock,
        )  # fmt: skip
        self.controller.set_goal(PICTURE, PROPRIO)

    def _publish(self, result: Any, safe: Any, send: bool, started: float) -> None:
        self.told.append((result.state, result.reason, safe.values.tolist() if send else None))

    def see(self) -> None:
        self.mailbox.put_proprio(self.clock(), PROPRIO)
        self.mailbox.put_image(self.clock(), Picture())

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + SOON_S
        while not true():
            assert time.monotonic() < end, self.told[-3:]
            self.see()
            time.sleep(0.02)

    def drives(self) -> None:
        self.until(lambda: bool(self.told) and self.told[-1][2] == [0.5, 0.5])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> object:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def rig(encoder: object) -> Iterator[Rig]:
    rig = Rig(encoder)
    rig.loop.start()
    rig.drives()
    yield rig
    rig.planner.first = lambda: None
    rig.loop.stop(0.2)


@pytest.fixture
def hang(rig: Rig) -> Iterator[threading.Event]:
    """The planner hangs from now on, until the event is set."""
    event = threading.Event()
    rig.planner.first = lambda: event.wait(SOON_S)
    yield event
    event.set()


def test_a_hung_planner_is_named_and_rest_is_said_in_its_place(
    rig: Rig, hang: threading.Event
) -> None:
    rig.until(lambda: "planner:" in rig.told[-1][1])
    state, reason, sent = rig.told[-1]
    assert state is State.SAFE_STOP and sent == [0.0, 0.0]
    assert "hung: no sign of life" in reason and "while planning" in reason
    rig.planner.first = lambda: None
    hang.set()
    rig.drives()


def test_the_e_stop_is_obeyed_at_once_while_the_planner_hangs(
    rig: Rig, hang: threading.Event
) -> None:
    rig.until(lambda: rig.loop.heartbeat.silence_s > 0.05)
    rig.filter.e_stop(True)
    rig.loop.halt()
    assert rig.told[-1][0] is State.E_STOP and rig.told[-1][2] == [0.0, 0.0]
    hang.set()
    time.sleep(0.3)
    assert all(sent == [0.0, 0.0] for *_, sent in rig.told[-2:])


def test_stopping_says_rest_although_the_planner_hangs_and_nothing_comes_after_it(
    rig: Rig, hang: threading.Event
) -> None:
    rig.until(lambda: rig.loop.heartbeat.silence_s > 0.05)
    rig.loop.stop(0.05)
    assert rig.told[-1] == (State.SAFE_STOP, "stopping", [0.0, 0.0]) and rig.loop.hangs
    count = len(rig.told)
    hang.set()
    time.sleep(0.3)
    assert len(rig.told) == count and not rig.loop.hangs


def end(*_: object) -> None:
    raise SystemExit(3)


def test_a_control_thread_that_ends_is_a_fault_and_says_rest(rig: Rig) -> None:
    rig.planner.first = end
    rig.until(lambda: rig.told[-1][0] is State.FAULT)
    assert "planner: dead: " in rig.told[-1][1] and rig.told[-1][2] == [0.0, 0.0]
    assert rig.loop.heartbeat.died


def test_images_that_end_stop_it_after_two_periods_and_not_a_tick_later(encoder: object) -> None:
    rig = Rig(encoder)
    rig.loop.start()
    try:
        rig.drives()
        last = rig.clock()
        while rig.told[-1][2] == [0.5, 0.5] and rig.clock() - last < 2.0:
            time.sleep(0.005)
        assert "image: 0.2" in rig.told[-1][1]
    finally:
        rig.loop.stop()


def test_ages_are_judged_when_a_command_leaves(encoder: object) -> None:
    clock = FakeClock(100.0)
    rig = Rig(encoder, clock)
    rig.see()
    rig.loop.step()
    assert rig.told[-1] == (State.RUNNING, "", [0.5, 0.5])
    clock.advance(0.1)
    rig.planner.first = lambda: clock.advance(2.0)
    rig.see()
    rig.loop.step()
    state, reason, sent = rig.told[-1]
    assert state is State.SAFE_STOP and sent == [0.0, 0.0]
    assert reason == "image: 2.000 s old; at most 0.2 s allowed"


@pytest.mark.parametrize(
    ("given", "word"), [((0.0, 1.0), "starved"), ((1.0, 0.0), "busy"), ((0.0, 0.0), "hung")]
)
def test_what_ails_a_silent_thread_is_told_apart(given: tuple[float, float], word: str) -> None:
    clock = FakeClock()

    def scheduled(_: int) -> tuple[float, float]:
        return given[0] * clock.now, given[1] * clock.now

    heart = Heartbeat(0.2, clock, scheduled)
    assert heart.trouble() == ""
    heart.beat("planning")
    for wait, expected in ((0.1, ""), (0.05, ""), (0.1, word)):
        clock.advance(wait)
        assert expected in heart.trouble() and bool(heart.trouble()) == bool(expected)
    heart.beat("waiting")
    assert heart.trouble() == ""


def test_a_clock_that_stands_still_is_told_and_one_that_is_slow_is_not() -> None:
    watch = ClockWatch()
    slow = [watch.trouble(0.01 * k, 0.9 * k) for k in range(1, 20)]
    assert slow == [""] * 19
    assert "/clock stands still at 0.190 s" in watch.trouble(0.19, 30.0)


def test_late_pictures_are_no_difference_of_clocks() -> None:
    watch = StampWatch()
    for k in range(10):
        watch.arrived(5.0, 8.0 + k)  # the same old picture again and again
    assert watch.hint() == ""
