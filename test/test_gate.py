"""The command gate's decisions, without ROS and without waiting."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from fake_clock import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_mpc.control.gate import CommandGate, GateConfig, GateState
from wm_mpc.control.safety import CommandLimits, SafeCommand

PERIOD = 0.1
WISH = np.array([0.4, -0.4])
REST = np.zeros(2)


class Bench:
    """A gate, its clock, and everything that left."""

    def __init__(
        self, dim: int = 2, held: dict[str, int] | None = None, **settings: object
    ) -> None:
        config = GateConfig(
            **{k: settings.pop(k) for k in list(settings) if k in GateConfig.__dataclass_fields__}
        )
        bounds = {"action_low": (-1.0,), "action_high": (1.0,)}
        self.clock = FakeClock()
        self.gate = CommandGate(
            CommandLimits(**(bounds | settings)), config, dim, self.clock, self.clock, held
        )
        self.left: list[tuple[float, np.ndarray]] = []

    def take(self, answer: SafeCommand | None) -> SafeCommand | None:
        if answer is not None and answer.publish:
            self.left.append((self.clock(), answer.values))
        return answer

    def ask(self, wish: np.ndarray = WISH, sender: str = "mpc") -> SafeCommand | None:
        return self.take(self.gate.request(np.asarray(wish, float), sender))

    def press(self, engaged: bool = True, who: str = "button") -> None:
        self.take(self.gate.e_stop(engaged, who, int(self.clock() * 1e9)))

    def wait(self, seconds: float, step: float = 0.01) -> None:
        """Let time pass as the node does, which looks whenever something is due."""
        end = self.clock() + seconds
        while self.clock() < end - 1e-9:
            self.clock.advance(step)
            self.take(self.gate.poll())

    def drive(self, ticks: int, wish: np.ndarray = WISH) -> None:
        for _ in range(ticks):
            self.ask(wish)
            self.wait(PERIOD)

    @property
    def last(self) -> np.ndarray:
        return self.left[-1][1]


def test_requests_pass_unchanged_and_at_once() -> None:
    bench = Bench()
    answer = bench.ask()
    assert np.array_equal(answer.values, WISH) and bench.gate.state is GateState.PASSING
    assert bench.gate.told() == "" and bench.gate.counts.passed == 1


def test_a_gate_that_starts_says_rest_for_a_while_and_then_waits() -> None:
    bench = Bench()
    bench.take(bench.gate.begin())
    bench.wait(2.5)
    count = len(bench.left)
    assert count > 10 and not np.any([values for _, values in bench.left])
    bench.wait(2.0)
    assert len(bench.left) == count and bench.gate.state is GateState.WAITING
    assert bench.gate.told() == ""


def test_silence_begins_a_ramp_within_two_periods_and_ends_in_rest_that_is_said_again() -> None:
    bench = Bench(ramp_s=0.2)
    bench.drive(5)
    bench.ask()
    asked = bench.clock()
    bench.wait(3.0)
    after = [(when - asked, values) for when, values in bench.left if when > asked]
    first, _ = after[0]
    assert first <= 2 * PERIOD + 1e-9
    rest = [when for when, values in after if np.array_equal(values, REST)]
    assert rest[0] <= 2 * PERIOD + 0.2 + 1e-9
    assert all(b - a <= PERIOD + 0.011 for a, b in pairwise(rest)) and len(rest) > 20
    assert bench.gate.state is GateState.RESTING and bench.gate.counts.stops == 1
    assert bench.gate.told().startswith("command_request: none for 0.2 s")
    assert np.array_equal(bench.ask().values, WISH) and bench.gate.told() == ""


def test_a_controller_that_came_to_rest_may_be_silent() -> None:
    bench = Bench()
    bench.drive(3)
    bench.drive(5, REST)
    bench.wait(1.0)
    count = len(bench.left)
    bench.wait(2.0)
    assert bench.gate.state is GateState.WAITING and len(bench.left) == count
    assert np.array_equal(bench.last, REST) and bench.gate.counts.stops == 0


@pytest.mark.parametrize("bad", [[math.nan, 0.0], [math.inf, 0.0], [1.0], [0.0] * 3, []])
def test_what_cannot_be_used_stops_at_once(bad: list[float]) -> None:
    bench = Bench(ramp_s=0.2)
    bench.drive(5)
    answer = bench.ask(np.array(bad))
    assert np.abs(answer.values).max() < 0.4 and np.isfinite(answer.values).all()
    assert bench.gate.told().startswith("command_request: ") and bench.gate.counts.refused == 1
    bench.wait(0.2)
    assert np.array_equal(bench.last, REST)


def test_a_rest_that_is_asked_for_outranks_the_rate_limit() -> None:
    bench = Bench(rate_limit=(1.0,), ramp_s=0.2)
    bench.drive(20)
    bench.ask(REST)
    bench.wait(PERIOD)
    bench.ask(REST)
    assert np.allclose(bench.last, 0), "not slower than a controller that stops by itself"


# ---- emergency stop ----------------------------------------------------------------------------


def test_e_stop_rests_at_once_and_until_the_controller_rested_too() -> None:
    bench = Bench()
    bench.drive(5)
    bench.press()
    assert np.array_equal(bench.last, REST) and bench.gate.state is GateState.E_STOP
    bench.drive(5)
    assert all(not values.any() for when, values in bench.left if when >= 0.5)
    bench.press(False)
    bench.drive(5)
    assert np.array_equal(bench.last, REST), "a wish from before the release"
    assert "released" in bench.gate.told()
    bench.ask(REST)
    bench.wait(PERIOD)
    assert np.array_equal(bench.ask().values, WISH)


def test_e_stop_is_released_by_silence_too() -> None:
    bench = Bench()
    bench.drive(3)
    bench.press()
    bench.press(False)
    bench.wait(0.5)
    assert bench.gate.state in (GateState.RESTING, GateState.WAITING)
    assert np.array_equal(bench.ask().values, WISH)


def test_e_stop_pressed_before_the_gate_started_holds() -> None:
    bench = Bench(held={"button": 0})
    bench.take(bench.gate.begin())
    bench.drive(5)
    assert bench.gate.state is GateState.E_STOP and not np.any([v for _, v in bench.left])
    assert "before the gate was started" in bench.gate.told()
    bench.press(False)
    bench.drive(3, REST)
    assert np.array_equal(bench.ask().values, WISH)


def test_e_stop_without_a_known_width_holds_as_soon_as_there_is_one() -> None:
    bench = Bench(dim=0)
    bench.press()
    assert bench.gate.state is GateState.E_STOP and not bench.left
    bench.ask()
    assert np.array_equal(bench.last, REST)


def test_one_button_does_not_let_go_of_another() -> None:
    bench = Bench()
    hear = bench.gate.stop.hear
    hear(True, "a", 5, None)
    hear(False, "b", 6, {"a", "b"})
    assert bench.gate.stop.reason == "e_stop: pressed"
    hear(False, "c", 1, {"b", "c"})
    assert bench.gate.stop.reason == "e_stop: pressed", "a latched word from before"
    hear(False, "b", 7, {"b"})
    assert bench.gate.stop.reason == "", "a is gone, and b says that all is well"


def test_a_word_that_comes_late_a_second_time_changes_nothing() -> None:
    bench = Bench()
    hear = bench.gate.stop.hear
    hear(False, "a", 1)
    hear(True, "a", 2)
    hear(False, "a", 1)
    assert bench.gate.stop.reason


def test_a_heartbeat_that_ends_stops() -> None:
    bench = Bench(e_stop_timeout_s=0.5)
    for _ in range(10):
        bench.press(False)
        bench.drive(1)
    assert bench.gate.state is GateState.PASSING
    bench.drive(6)
    assert bench.gate.state is GateState.E_STOP and "e_stop: silent" in bench.gate.told()
    assert np.array_equal(bench.last, REST)


# ---- who asks, and by which clock --------------------------------------------------------------


def test_a_second_publisher_is_refused_and_told() -> None:
    bench = Bench()
    bench.drive(3)
    bench.ask()
    assert bench.ask(-WISH, "intruder") is None
    assert np.array_equal(bench.last, WISH)
    assert "second publisher" in bench.gate.told() and bench.gate.counts.refused == 1
    bench.wait(0.5)
    assert np.array_equal(bench.ask(-WISH, "intruder").values, -WISH), "the first is gone"


def test_a_clock_that_goes_back_brings_to_rest() -> None:
    bench = Bench(ramp_s=0.0)
    bench.drive(5)
    bench.clock.now -= 100.0
    bench.take(bench.gate.poll())
    assert np.array_equal(bench.last, REST)
    assert np.array_equal(bench.ask().values, WISH)


def test_a_simulated_clock_that_stands_still_does_not_keep_the_robot_moving() -> None:
    bench = Bench()
    wall = FakeClock()
    bench.gate.wall = bench.gate.stop.clock = wall
    bench.ask()
    wall.advance(4.9)
    assert bench.gate.poll() is None, "a simulator may be paused"
    wall.advance(0.2)
    assert np.array_equal(bench.gate.poll().values, REST) and "clock: stands" in bench.gate.told()
    wall.advance(1.1)
    assert np.array_equal(bench.gate.poll().values, REST), "and says so again"


def test_absolute_commands_begin_where_the_controller_saw_the_robot() -> None:
    bench = Bench(hold_at_rest=True, rate_limit=(1.0,))
    bench.take(bench.gate.begin())
    assert not bench.left
    assert np.array_equal(bench.ask([0.9, 0.9]).values, [0.9, 0.9])
    bench.wait(PERIOD)
    assert np.allclose(bench.ask([0.5, 0.9]).values, [0.8, 0.9])
    bench.wait(1.0)
    assert np.allclose(bench.last, [0.8, 0.9]), "resting is holding"


def test_hardware_without_limits_is_not_driven() -> None:
    bench = Bench(dim=0, hardware=True)
    assert bench.ask() is None and "rate_limit: not set" in bench.gate.told()


def test_a_dry_run_publishes_nothing_and_tells_what_it_would() -> None:
    bench = Bench(dry_run=True)
    bench.drive(3)
    assert not bench.left and np.array_equal(bench.gate.command.values, WISH)


def test_the_end_of_the_process_is_rest() -> None:
    bench = Bench(ramp_s=0.2)
    bench.drive(5)
    bench.ask()
    while (answer := bench.take(bench.gate.halt())) is not None:
        bench.clock.advance(PERIOD)
    assert answer is None and np.array_equal(bench.last, REST)


# ---- whatever happens --------------------------------------------------------------------------

events = st.one_of(
    st.tuples(st.just("ask"), st.lists(st.floats(-3, 3), min_size=2, max_size=2)),
    st.tuples(st.just("ask"), st.sampled_from([[math.nan, 0.0], [1.0], [0.0, 0.0], [1e300, 1]])),
    st.tuples(st.just("intrude"), st.just([1.0, 1.0])),
    st.tuples(st.just("press"), st.booleans()),
    st.tuples(st.just("wait"), st.floats(0.0, 0.5)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.1, 0.1, 3.0])),
    st.tuples(st.just("jump"), st.floats(-10, 10)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(events, max_size=60), st.sampled_from([2.0, 20.0]), st.sampled_from([3.0, 300.0]))
def test_no_history_breaks_a_limit_or_leaves_a_silent_robot_moving(
    history: list[tuple[str, object]], rate: float, acceleration: float
) -> None:
    bench = Bench(rate_limit=(rate,), acceleration_limit=(acceleration,), ramp_s=0.2)
    gate, last, slope, pressed = bench.gate, REST, np.zeros(2), False
    last_at: float | None = None
    real = bench.clock.now

    def check(answer: SafeCommand | None) -> None:
        nonlocal last, slope, last_at
        if answer is None:
            return
        elapsed = PERIOD if last_at is None else max(bench.clock.now - last_at, 1e-6)
        assert (np.abs(answer.values) <= 1.0).all()
        if gate.state is GateState.PASSING:
            assert not pressed
            new = (answer.values - last) / elapsed
            change = acceleration * min(elapsed, 2 * PERIOD) * (1 + 1e-6) + 1e-6
            late = elapsed > 2 * PERIOD
            low, high = (np.minimum(slope, 0), np.maximum(slope, 0)) if late else (slope, slope)
            assert (np.abs(new) <= rate * (1 + 1e-6) + 1e-6).all()
            assert (new >= low - change).all() and (new <= high + change).all()
            slope = new
        else:
            assert (np.abs(answer.values) <= np.abs(last) + 1e-12).all()
            slope = np.zeros(2)
        last, last_at = answer.values, bench.clock.now

    for what, value in history:
        if what == "ask":
            check(gate.request(np.array(value, float), "mpc"))
        elif what == "intrude":
            check(gate.request(np.array(value, float), "intruder"))
        elif what == "press":
            real += 1
            pressed = bool(value)
            check(gate.e_stop(pressed, "button", int(real)))
        elif what == "jump":
            bench.clock.now += value
            check(gate.poll())
        else:
            for _ in range(math.ceil(value / 0.02)):
                bench.clock.advance(value / math.ceil(value / 0.02))
                check(gate.poll())
    for _ in range(60):
        bench.clock.advance(0.02)
        check(gate.poll())
    assert np.array_equal(last, REST), "silence ends in rest, whatever was before"


def test_the_gate_needs_no_torch() -> None:
    code = (
        "import sys, wm_mpc.control.gate, wm_mpc.control.safety\n"
        "print([name for name in ('torch', 'transformers', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
