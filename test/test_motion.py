"""Motion that a model learns from: inside its box, at its speed, seeded, and back again."""

from __future__ import annotations

import numpy as np
import pytest

from wm_mpc.core.errors import UserError
from wm_mpc.nodes.explore.config import ExploreConfig
from wm_mpc.nodes.explore.motion import Coverage, Motion, MotionConfig

CONFIG = MotionConfig((-1.0, -2.0), (1.0, 0.5), (0.5, 1.0), minutes=4.0, seed=3)
PERIOD = 0.1


def drive(config: MotionConfig, lag: float = 0.3) -> tuple[np.ndarray, np.ndarray, Coverage]:
    """Positions and commands of a robot that follows its commands with a lag."""
    start = np.array([0.2, -0.4])
    motion, where, speed = Motion(config, start, PERIOD), start.copy(), np.zeros(2)
    coverage, places, asked = Coverage(motion.low, motion.high), [], []
    while not motion.done:
        command = motion.step(where)
        speed += (command - speed) * (1 - lag)
        where = where + speed * PERIOD
        coverage.add(where)
        places.append(where)
        asked.append(command)
    return np.array(places), np.array(asked), coverage


def test_it_stays_in_the_box_at_its_speed_and_comes_back() -> None:
    places, asked, coverage = drive(CONFIG)
    assert len(asked) == pytest.approx(4 * 60 / PERIOD, abs=1)
    assert (np.abs(asked) <= np.array(CONFIG.speed) + 1e-9).all()
    assert (places > np.array(CONFIG.low) - 0.05).all()
    assert (places < np.array(CONFIG.high) + 0.05).all()
    assert np.abs(places[-1] - [0.2, -0.4]).max() < 0.02
    assert coverage.share > 0.8


def test_every_part_of_the_box_is_visited_about_alike() -> None:
    config = MotionConfig((-2.3, -2.3), (2.3, 2.3), (1.0, 1.0), minutes=15.0)
    places = drive(config)[0]
    count = np.histogram2d(*places.T, bins=6, range=[[-2.3, 2.3]] * 2)[0]
    assert count.min() > 0.25 * count.mean(), "the border too"
    assert count.max() < 2.5 * count.mean(), "the middle is nothing special"


def test_the_seed_decides() -> None:
    first, again = drive(CONFIG)[1], drive(CONFIG)[1]
    other = drive(MotionConfig(CONFIG.low, CONFIG.high, CONFIG.speed, 4.0, seed=4))[1]
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_commands_tell_more_than_the_path() -> None:
    """Fast and slow, both ways, and not the same for both joints."""
    asked = drive(CONFIG)[1] / np.array(CONFIG.speed)
    assert (np.abs(asked) > 0.6).any(0).all() and (np.abs(asked) < 0.1).mean() > 0.05
    assert np.abs(np.corrcoef(asked.T)[0, 1]) < 0.5
    assert (np.diff(asked, axis=0) ** 2).mean() < 0.2 * (asked**2).mean() * 2  # smooth


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(UserError, match=r"low\[1\]: 3; below high\[1\], 2"):
        MotionConfig((0.0, 3.0), (1.0, 2.0), (1.0, 1.0))
    with pytest.raises(UserError, match=r"speed\[0\]: 0; more than 0"):
        MotionConfig((0.0,), (1.0,), (0.0,))
    with pytest.raises(UserError, match="low: empty"):
        ExploreConfig().motion()
