"""Messages of several topics become episodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from replayed import PERIOD, replay, tick

from wm_mpc.control.tick import State
from wm_mpc.trials.recording import Plan


def test_a_tick_belongs_to_the_picture_it_looked_at() -> None:
    whole = replay(5)
    for index in (0, 3, 11):
        found = whole.tick_at(index)
        assert found is not None
        assert 0 < found.stamp - whole.moments[index].stamp < PERIOD
        assert len(whole.plan_at(index).actions) == 25 - index
    assert whole.tick_at(len(whole.moments) - 1) is None


def test_a_tick_whose_picture_was_old_is_not_given_to_a_newer_one() -> None:
    whole = replay(5)
    stamps = [moment.stamp for moment in whole.moments]
    # ended just before picture 4 came, having looked at picture 2 for a long time
    late = tick(stamps[4] - 0.001, tick_ms=190.0, image_age_ms=9.0)
    one = replace(whole, ticks=(late,), plans=(Plan(late.stamp, np.zeros((5, 2))),))
    assert one.tick_at(2) is late and one.plan_at(2) is one.plans[0]
    assert one.tick_at(3) is None and one.plan_at(3) is None
    lost = replace(whole, ticks=(tick(stamps[0] - 0.2),))
    assert all(lost.tick_at(k) is None for k in range(len(stamps)))


def test_an_episode_in_the_terms_of_the_evaluation() -> None:
    whole = replay(5)
    slow = replace(whole.ticks[3], plan_ms=30.0, deadline_missed=True)
    idle = replace(whole.ticks[4], plan_ms=float("nan"), state=int(State.SAFE_STOP), reason="old")
    ticks = (*whole.ticks[:3], slow, idle, *whole.ticks[5:])
    recording = replace(whole, ticks=ticks)
    episode = recording.episode()
    assert episode.success and episode.final_success
    assert episode.steps == whole.moments[-1].step
    assert episode.final_error == whole.moments[-1].errors["error"] < 20
    assert len(episode.plan_ms) == len(whole.moments) - 2
    assert (episode.over_budget, episode.late) == (1, 1)
    assert recording.stops() == ["old"]
    assert episode.info["block_success"] == 1.0


def test_success_at_the_start_alone_is_none() -> None:
    short = replay(5, steps=4)
    begun = replace(short.moments[0], success=True)
    assert not replace(short, moments=(begun, *short.moments[1:])).success


@pytest.mark.parametrize("seed", [1, 2])
def test_too_few_steps_do_not_reach_the_goal(seed: int) -> None:
    recording = replay(seed, steps=6)
    assert not recording.success and recording.episode().steps == 6
