"""The control loop step by step, without its thread: what leaves, and what is said."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from fake_clock import FakeClock
from helpers import tiny_encoder, tiny_model

from wm_mpc.control.controller import Controller, ControllerConfig
from wm_mpc.control.engine import Engine, EngineConfig
from wm_mpc.control.safety import CommandFilter, SafetyLimits
from wm_mpc.control.thread_usage import Surroundings, Usage
from wm_mpc.control.tick import State
from wm_mpc.core.pauses import Gaps
from wm_mpc.nodes.mpc.loop import ControlLoop
from wm_mpc.nodes.mpc.mailbox import Mailbox
from wm_mpc.nodes.mpc.telemetry import Complaints
from wm_mpc.planners import Plan, PlanRequest
from wm_mpc.planners.budget import CemReference
from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
PROPRIO = np.array([250.0, 260.0, 0.0, 0.0], np.float32)


class HalfSpeed:
    """A planner that always answers half the largest command."""

    name = "half"

    def plan(self, request: PlanRequest) -> Plan:
        return Plan(torch.full((2, 10), 0.5), 1.0, math.nan, None, 1, 1, 0.0, "iterations", "half")

    def warm_up(self) -> None:
        pass


class Picture:
    """What the loop needs of an Image message."""

    encoding, height, width, step, is_bigendian = "rgb8", 32, 32, 96, 0

    def __init__(self, **changes: Any) -> None:
        self.data = PICTURE.tobytes()
        self.__dict__.update(changes)


class Bench:
    """A loop with everything in the test's hands."""

    def __init__(self, encoder: object, **limits: Any) -> None:
        self.clock = FakeClock()
        model = tiny_model(encoder)
        model.action_std.fill_(1.0)
        objective = GoalObjective(ObjectiveConfig(), 2, model.visual_dim, model.proprio_width)
        reference = CemReference(0.5, 45000, 1, 30, 30, "cpu", 1)
        config = EngineConfig(horizon=2, compile=False)
        engine = Engine(model, HalfSpeed(), objective, reference, config)
        safety = SafetyLimits(ramp_s=0.2, max_image_age_s=0.35, max_plan_age_s=0.5, **limits)
        self.controller = Controller(engine, ControllerConfig(), safety, self.clock)
        self.filter = CommandFilter(safety, (-1.0,) * 2, (1.0,) * 2, 0.1, self.clock)
        self.mailbox = Mailbox(needs_proprio=True)
        self.errors: list[tuple[str, str]] = []
        self.ticks: list[tuple[State, str, list[float] | None]] = []
        self.gaps = Gaps(patience_s=0.0)
        self.around: list[Surroundings] = []
        self.loop = ControlLoop(
            self.controller, self.filter, self.mailbox, self._publish, self.clock, 0.05, False,
            lambda *words: self.errors.append(words), self.clock, self.clock.advance,
            gaps=self.gaps,
        )  # fmt: skip

    def _publish(self, result: Any, safe: Any, send: bool, started: float) -> None:
        self.around.append(result.around)
        sent = safe.values.tolist() if send else None
        self.ticks.append((result.state, result.reason, sent))

    def step(self, message: Any = None, offset: float = 0.0) -> tuple[State, str, Any]:
        """One tick 0.1 s later, with a picture if there is one."""
        self.clock.advance(0.1)
        if message is not None:
            self.mailbox.put_proprio(self.clock.now - offset, PROPRIO)
            self.mailbox.put_image(self.clock.now, message)
        self.loop.step()
        return self.ticks[-1]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> object:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def bench(encoder: object) -> Bench:
    bench = Bench(encoder)
    bench.controller.set_goal(PICTURE, PROPRIO)
    return bench


def test_without_a_goal_nothing_leaves(encoder: object) -> None:
    bench = Bench(encoder)
    assert [bench.step(Picture())[2] for _ in range(3)] == [None] * 3
    assert bench.ticks[-1][:2] == (State.IDLE, "goal: none set")


def test_commands_leave_while_running(bench: Bench) -> None:
    assert bench.step(Picture()) == (State.RUNNING, "", [0.5, 0.5])


def test_losing_the_goal_ramps_down_says_rest_once_and_falls_silent(bench: Bench) -> None:
    bench.step(Picture())
    bench.controller.clear_goal()
    sent = [bench.step(Picture())[2] for _ in range(4)]
    assert sent[0] == pytest.approx([0.25, 0.25]) and sent[1:] == [[0.0, 0.0], None, None]


def test_missing_images_ramp_down_and_repeat_rest(bench: Bench) -> None:
    bench.step(Picture())
    sent = [bench.step()[2] for _ in range(8)]
    assert sent[2] == [0.5, 0.5] and sent[3] == pytest.approx([0.25, 0.25])
    assert sent[4:] == [[0.0, 0.0]] * 4
    assert bench.ticks[-1][0] is State.SAFE_STOP


@pytest.mark.parametrize(
    ("message", "offset", "words"),
    [(Picture(encoding="x"), 0.0, "image.encoding"), (Picture(data=b""), 0.0, "image.data"),
     (Picture(), 0.06, "proprio: 0.060 s away from the image; at most 0.05 s")],
)  # fmt: skip
def test_what_is_wrong_with_an_input_is_said(
    bench: Bench, message: Picture, offset: float, words: str
) -> None:
    state, reason, sent = bench.step(message, offset)
    assert state is State.SAFE_STOP and words in reason
    assert sent == [0.0, 0.0]
    assert words in bench.errors[-1][1]


def test_an_image_without_any_proprioception_is_refused(bench: Bench) -> None:
    bench.mailbox.put_image(0.1, Picture())
    assert "proprio: none received" in bench.step()[1]


def test_e_stop_stops_at_once_whatever_the_controller_wants(bench: Bench) -> None:
    bench.step(Picture())
    bench.filter.e_stop(True)
    state, reason, sent = bench.step(Picture())
    assert state is State.E_STOP and "latched" in reason and sent == [0.0, 0.0]


def test_what_goes_on_around_a_tick_is_told(bench: Bench) -> None:
    bench.step(Picture())
    with bench.gaps.work():
        bench.step(Picture())
    old = bench.controller.engine
    new = Engine(old.model, old.planner, old.objective, old.reference, old.config)
    bench.controller.swap_model(new)
    for _ in range(4):
        bench.step(Picture())
    assert [a.condition for a in bench.around] == [
        "otherwise", "building", "swapped", "swapped", "swapped", "otherwise",
    ]  # fmt: skip
    assert [a.since_swap for a in bench.around] == [-1, -1, 0, 1, 2, 3]


def test_time_in_which_others_had_the_core_before_a_tick_is_told(bench: Bench) -> None:
    queued = iter((0.5, 0.75, 1.0))
    bench.loop.meter = lambda: Usage(0.0, next(queued))
    bench.step(Picture())
    bench.step(Picture())
    assert [a.woke_late_s for a in bench.around] == [0.0, 0.25]


def test_a_dry_run_reports_and_sends_nothing(encoder: object) -> None:
    bench = Bench(encoder, dry_run=True)
    bench.controller.set_goal(PICTURE, PROPRIO)
    assert bench.step(Picture()) == (State.RUNNING, "", None)


def test_absolute_commands_begin_where_the_robot_stands(encoder: object) -> None:
    bench = Bench(encoder, hold_at_rest=True, rate_limit=(1.0,))
    bench.controller.set_goal(PICTURE, PROPRIO)
    # The joints stand far outside the limits: the nearest bound is where commands begin.
    assert bench.step(Picture())[2] == pytest.approx([0.9, 0.9])


def test_stopping_ends_at_rest(bench: Bench) -> None:
    bench.step(Picture())
    bench.loop._come_to_rest()
    sent = [sent[0] for *_, sent in bench.ticks]
    assert sent == pytest.approx([0.5, 0.25, 0.0], abs=1e-4) and sent[-1] == 0.0


def test_stopping_without_having_moved_says_nothing(encoder: object) -> None:
    bench = Bench(encoder)
    bench.step()
    bench.loop._come_to_rest()
    assert [sent for *_, sent in bench.ticks] == [None]


def test_complaints_come_once_per_change_and_now_and_then() -> None:
    said: list[str] = []
    clock = FakeClock()
    complain = Complaints(said.append, clock, repeat_s=5.0)
    for age in range(11):
        complain("image", f"image: {age} s old")
        clock.advance(1.0)
    assert said == ["image: 0 s old", "image: 5 s old", "image: 10 s old"]
    complain("image", "image.encoding: 'x'")
    complain("proprio", "proprio: none")
    assert said[-2:] == ["image.encoding: 'x'", "proprio: none"]
