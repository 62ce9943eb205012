import dataclasses
import math

import numpy as np
import pytest
from fake_clock import FakeClock

from wm_mpc.control.safety import CommandFilter, Motion, SafetyLimits

PERIOD = 0.1
FRESH = (0.0, 0.0)


def make(dim: int = 2, **limits: object) -> tuple[CommandFilter, FakeClock]:
    clock = FakeClock()
    low, high = (-1.0,) * dim, (1.0,) * dim
    return CommandFilter(SafetyLimits(**limits), low, high, PERIOD, clock), clock


def run(filter_: CommandFilter, clock: FakeClock, commands: list) -> np.ndarray:
    out = []
    for command in commands:
        out.append(filter_.step(command, *FRESH).values)
        clock.advance(PERIOD)
    return np.array(out)


def test_passes_a_harmless_command_unchanged() -> None:
    filter_, _ = make()
    answer = filter_.step(np.array([0.3, -0.7]), *FRESH)
    assert answer.values.tolist() == [0.3, -0.7]
    assert (answer.motion, answer.limited, answer.reason) == (Motion.FOLLOW, False, "")


@pytest.mark.parametrize("seed", range(20))
def test_limits_hold_for_any_command(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rate, acceleration = rng.uniform(0.5, 5.0, 2), rng.uniform(2.0, 30.0, 2)
    filter_, clock = make(rate_limit=tuple(rate), acceleration_limit=tuple(acceleration))
    wanted = list(rng.normal(0, 2, (200, 2)).repeat(rng.integers(1, 8), 0))
    got = np.vstack([np.zeros((2, 2)), run(filter_, clock, wanted)])
    velocity = np.diff(got, axis=0) / PERIOD
    assert (np.abs(got) <= 1.0).all()
    assert (np.abs(velocity) <= rate * (1 + 1e-9)).all()
    assert (np.abs(np.diff(velocity, axis=0)) / PERIOD <= acceleration * (1 + 1e-6)).all()


@pytest.mark.parametrize("seed", range(5))
def test_limited_command_arrives_and_does_not_overshoot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.uniform(-1, 1, 2)
    filter_, clock = make(rate_limit=(2.0,), acceleration_limit=(6.0,))
    got = run(filter_, clock, [target] * 60)
    assert np.allclose(got[-1], target, atol=1e-6)
    assert (np.abs(got) <= np.abs(target) + 1e-9).all()


def test_rate_limit_does_not_let_a_late_step_jump() -> None:
    filter_, clock = make(rate_limit=(1.0,))
    filter_.step(np.zeros(2), *FRESH)
    clock.advance(5.0)
    assert filter_.step(np.ones(2), *FRESH).values.max() == pytest.approx(2 * PERIOD)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_refuses_what_is_not_finite(bad: float) -> None:
    filter_, clock = make(ramp_s=0.2)
    filter_.step(np.ones(2), *FRESH)
    clock.advance(PERIOD)
    answer = filter_.step(np.array([0.5, bad]), *FRESH)
    assert np.isfinite(answer.values).all() and "not finite" in answer.reason
    assert answer.motion is Motion.RAMP


def test_refuses_a_wrong_shape() -> None:
    filter_, _ = make()
    assert "shape (3,); (2,) expected" in filter_.step(np.zeros(3), *FRESH).reason


@pytest.mark.parametrize("ramp_s", [0.0, 0.1, 0.25, 1.0])
def test_ramps_down_monotonically_then_rests_explicitly(ramp_s: float) -> None:
    filter_, clock = make(ramp_s=ramp_s, rate_limit=(1e-3,))
    filter_._last = np.array([1.0, -0.5])
    got = run(filter_, clock, [None] * 15)
    assert (np.diff(np.abs(got), axis=0) <= 1e-12).all()
    steps = max(1, math.ceil(ramp_s / PERIOD - 1e-9))
    assert not got[steps - 1 :].any()
    assert filter_.step(None, *FRESH, reason="why").motion is Motion.REST
    assert filter_.at_rest


def test_ramps_to_a_rest_command_that_is_not_zero() -> None:
    filter_, clock = make(rest=(0.25,), ramp_s=0.1)
    run(filter_, clock, [np.ones(2), None, None])
    assert filter_.step(None, *FRESH).values.tolist() == [0.25, 0.25]


def test_absolute_commands_start_where_the_robot_is_and_not_before() -> None:
    filter_, clock = make(hold_at_rest=True, rate_limit=(1.0,))
    answer = filter_.step(np.array([0.9, 0.9]), *FRESH)
    assert not answer.publish and "position is not known" in answer.reason
    filter_.begin(np.array([0.5, -0.5]))
    clock.advance(PERIOD)
    answer = filter_.step(np.array([0.9, 0.9]), *FRESH)
    assert answer.publish and answer.values == pytest.approx([0.6, -0.4])


def test_absolute_commands_rest_by_holding() -> None:
    filter_, clock = make(hold_at_rest=True)
    filter_.begin(np.zeros(2))
    run(filter_, clock, [np.array([0.4, -0.4])])
    answer = filter_.step(None, *FRESH)
    assert answer.values.tolist() == [0.4, -0.4] and answer.motion is Motion.REST


@pytest.mark.parametrize(
    ("ages", "word"),
    [((math.inf, 0.0), "image: none"), ((0.31, 0.0), "image: 0.310 s old"),
     ((-0.4, 0.0), "image: -0.400 s old"), ((math.nan, 0.0), "image"), ((0.0, 0.6), "plan: 0.600"),
     ((0.0, math.nan), "plan")],
)
def test_watchdogs_stop_and_recover(ages: tuple[float, float], word: str) -> None:
    filter_, clock = make(ramp_s=0.1)
    filter_.step(np.ones(2), *FRESH)
    clock.advance(PERIOD)
    stopped = filter_.step(np.ones(2), *ages)
    assert word in stopped.reason and np.abs(stopped.values).max() < 1
    clock.advance(PERIOD)
    assert filter_.step(np.ones(2), *FRESH).values.tolist() == [1.0, 1.0]


def test_e_stop_latches_until_false_and_reset() -> None:
    filter_, clock = make()
    filter_.step(np.ones(2), *FRESH)
    filter_.e_stop(True)
    answer = filter_.step(np.ones(2), *FRESH)
    assert answer.motion is Motion.E_STOP and not answer.values.any()
    assert not filter_.reset()
    filter_.e_stop(False)
    assert filter_.step(np.ones(2), *FRESH).motion is Motion.E_STOP
    assert filter_.reset()
    clock.advance(PERIOD)
    assert filter_.step(np.ones(2), *FRESH).motion is Motion.FOLLOW


def test_hardware_needs_limits() -> None:
    SafetyLimits(hardware=False).require_for_hardware()
    whole = SafetyLimits(hardware=True, action_low=(-1,), action_high=(1,), rate_limit=(1,))
    whole.require_for_hardware()
    for name in ("action_low", "action_high", "rate_limit"):
        with pytest.raises(ValueError, match=f"{name}: not set"):
            dataclasses.replace(whole, **{name: ()}).require_for_hardware()


def test_dry_run_publishes_nothing() -> None:
    filter_, _ = make(dry_run=True)
    answer = filter_.step(np.ones(2), *FRESH)
    assert not answer.publish and answer.values.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("limits", "message"),
    [({"action_low": (2.0,)}, "action_low"), ({"action_high": (1.0, 1.0, 1.0)}, "1 or 2 expected"),
     ({"rest": (3.0,)}, "rest"), ({"rate_limit": (0.0,)}, "rate_limit"),
     ({"max_image_age_s": math.nan}, "max_image_age_s: nan"), ({"ramp_s": -1.0}, "ramp_s: -1.0")],
)
def test_bad_limits_are_named(limits: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**limits)


def test_narrower_limits_hold_from_the_next_step_on_and_break_no_rate() -> None:
    clock = FakeClock()
    limits = SafetyLimits(rate_limit=(2.0,), acceleration_limit=(10.0,))
    one = CommandFilter(limits, (-1.0,), (1.0,), 0.1, clock)
    said = []

    def step() -> float:
        clock.advance(0.1)
        said.append(float(one.step(np.array([1.0]), 0.0, 0.0).values[0]))
        return said[-1]

    while step() < 1.0:
        pass
    one.adopt(SafetyLimits(action_high=(0.2,), rate_limit=(1.0,), acceleration_limit=(10.0,)))
    came = len(said)
    while step() > 0.2:
        assert len(said) < came + 30
    assert said[-1] == pytest.approx(0.2) and step() == pytest.approx(0.2)
    slopes = np.diff(said[came - 1 :]) / 0.1
    assert slopes.min() >= -1.0 - 1e-9 and np.abs(np.diff(slopes)).max() <= 10.0 * 0.1 + 1e-9
    with pytest.raises(ValueError, match="rest"):
        one.adopt(SafetyLimits(action_high=(-0.5,)))
    assert step() == pytest.approx(0.2)
