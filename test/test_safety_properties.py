"""Whatever is asked for and whenever: no command breaks a limit."""

from __future__ import annotations

import math

import numpy as np
from fake_clock import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_mpc.control.safety import CommandFilter, CommandLimits, Motion

PERIOD = 0.1
CLOSE = 1e-6
"""Relative to a limit: rounding, of slopes over steps that take no time too."""

numbers = st.floats(-3.0, 3.0) | st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, 1e300])
wishes = st.none() | st.lists(numbers, min_size=2, max_size=2).map(np.array)
ordinary = st.floats(0.5 * PERIOD, 2 * PERIOD) | st.just(PERIOD)
# late by far, all at once, standing still, going back
waits = ordinary | st.sampled_from([0.0, 1e-9, 5 * PERIOD, 100.0, -0.05, -100.0])
limits = st.builds(
    CommandLimits,
    rate_limit=st.floats(0.05, 50.0).map(lambda x: (x,)),
    acceleration_limit=st.floats(0.05, 500.0).map(lambda x: (x,)),
    ramp_s=st.sampled_from([0.0, 0.05, 0.2, 1.0]),
    rest=st.sampled_from([(), (0.25,)]),
)


class JumpyClock(FakeClock):
    """A clock that may also go back."""

    def advance(self, seconds: float) -> None:
        self.now += seconds


@settings(max_examples=300, deadline=None)
@given(limits, st.lists(st.tuples(wishes, waits, st.sampled_from(range(20))), max_size=60))
def test_no_command_breaks_a_limit(
    limit: CommandLimits, history: list[tuple[np.ndarray | None, float, int]]
) -> None:
    clock = JumpyClock()
    command_filter = CommandFilter(limit, (-1.0, -1.0), (1.0, 1.0), PERIOD, clock)
    rate, acceleration = limit.rate_limit[0], limit.acceleration_limit[0]
    last, slope, elapsed = command_filter.rest.copy(), np.zeros(2), PERIOD
    for wish, wait, event in history:
        if event == 0:
            command_filter.e_stop(True)
        elif event == 1:
            command_filter.e_stop(False)
            command_filter.reset()
        answer = command_filter.follow(wish)
        value = answer.values
        assert np.isfinite(value).all() and (np.abs(value) <= 1.0).all()
        if answer.motion is Motion.FOLLOW:
            new = (value - last) / elapsed
            assert (np.abs(new) <= rate * (1 + CLOSE) + CLOSE).all()
            change = acceleration * min(elapsed, 2 * PERIOD) * (1 + CLOSE) + CLOSE
            # Nobody speaks while a step is late: then motion may end at once, never begin.
            late = elapsed > 2 * PERIOD
            low, high = (np.minimum(slope, 0), np.maximum(slope, 0)) if late else (slope, slope)
            assert (new >= low - change).all() and (new <= high + change).all()
            slope = new
        else:
            # A stop goes straight towards rest, and what follows starts from standstill.
            before, after = last - command_filter.rest, value - command_filter.rest
            assert (np.abs(after) <= np.abs(before) + 1e-12).all()
            assert (before * after >= -1e-12).all()
            slope = np.zeros(2)
        if answer.motion in (Motion.REST, Motion.E_STOP):
            assert np.array_equal(value, command_filter.rest)
        last = value
        clock.advance(wait)
        elapsed = max(wait, 1e-6)


@settings(max_examples=100, deadline=None)
@given(limits, st.lists(ordinary, min_size=1, max_size=50), st.floats(-1.0, 1.0))
def test_a_stop_is_over_in_the_time_of_the_ramp(
    limit: CommandLimits, steps: list[float], value: float
) -> None:
    clock = FakeClock()
    command_filter = CommandFilter(limit, (-1.0,), (1.0,), PERIOD, clock)
    for step in steps:
        command_filter.follow(np.array([value]))
        clock.advance(step)
    stopped = clock()
    while command_filter.follow(None).motion is Motion.RAMP:
        clock.advance(PERIOD)
    assert clock() - stopped <= limit.ramp_s + 1e-9


def test_a_missing_command_does_not_send_the_next_ones_to_the_other_side() -> None:
    limit = CommandLimits(rate_limit=(20.0,), acceleration_limit=(10.0,), ramp_s=0.2)
    clock = FakeClock()
    command_filter = CommandFilter(limit, (-1.0,), (1.0,), PERIOD, clock)
    seen = []
    for tick in range(60):
        wish = None if tick == 30 else np.ones(1)
        seen.append(float(command_filter.follow(wish).values[0]))
        clock.advance(PERIOD)
    assert seen[29] == 1.0 and math.isclose(seen[30], 0.5), "half of the ramp"
    assert min(seen[30:]) == seen[30] and seen[-1] == 1.0
    assert all(a <= b for a, b in zip(seen[30:], seen[31:], strict=False))


def test_a_thousand_new_plans_make_no_jump_beyond_the_rate() -> None:
    rng = np.random.default_rng(0)
    limit = CommandLimits(rate_limit=(3.0, 2.0), acceleration_limit=(40.0,))
    clock = FakeClock()
    command_filter = CommandFilter(limit, (-1.0, -1.0), (1.0, 1.0), PERIOD, clock)
    last = command_filter.follow(np.zeros(2)).values
    for _ in range(1000):
        elapsed = float(rng.uniform(0.05, 0.15))
        clock.advance(elapsed)
        value = command_filter.follow(rng.uniform(-1, 1, 2)).values
        assert (np.abs(value - last) <= np.array(limit.rate_limit) * elapsed + 1e-9).all()
        last = value
