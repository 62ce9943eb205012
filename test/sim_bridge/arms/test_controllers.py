"""The manners of real controllers: what they take, what they refuse, and when they halt."""

from __future__ import annotations

import numpy as np
import pytest

from sim_bridge.arms.controllers import (
    ForwardCommand,
    RefusedError,
    TrajectoryController,
    TwistServo,
)

HERE = np.array([0.5, -0.5])


def test_forward_commands_hold_for_ever() -> None:
    controller = ForwardCommand(2)
    assert controller.rates(0.0, HERE, 0.02).tolist() == [0, 0]
    controller.command([0.3, -0.2])
    assert controller.rates(1e6, HERE, 0.02).tolist() == [0.3, -0.2]
    for bad, said in (([0.1], "1 values; 2 expected"), ([0.1, float("nan")], "not finite")):
        with pytest.raises(RefusedError, match=said):
            controller.command(bad)
    assert controller.rates(1e6, HERE, 0.02).tolist() == [0.3, -0.2]


def test_an_old_twist_means_halt() -> None:
    servo = TwistServo(lambda twist: twist[:2] * 10, 2, timeout_s=0.1)
    assert servo.rates(0.0, HERE, 0.02).tolist() == [0, 0]
    servo.command([0.1, 0.2, 0, 0, 0, 0], now=5.0)
    assert servo.rates(5.09, HERE, 0.02).tolist() == [1.0, 2.0]
    assert servo.rates(5.11, HERE, 0.02).tolist() == [0, 0]
    with pytest.raises(RefusedError, match="six finite numbers"):
        servo.command([float("inf"), 0, 0, 0, 0, 0], 6.0)


def test_a_trajectory_is_interpolated_and_then_held() -> None:
    controller = TrajectoryController(("a", "b"), HERE)
    # joints in another order than the arm's
    controller.command(("b", "a"), [(1.0, (0.5, 1.5)), (2.0, (0.5, 2.5))], begin=10.0, now=10.0)
    assert np.allclose(controller.desired(10.5), [1.0, 0.0])
    assert np.allclose(controller.desired(11.5), [2.0, 0.5])
    assert np.allclose(controller.desired(99.0), [2.5, 0.5])
    assert np.allclose(controller.rates(10.5, np.array([1.0, 0.0]), 0.1), [1.0, 1.0])


def test_a_new_trajectory_begins_where_the_last_one_had_got_to() -> None:
    controller = TrajectoryController(("a", "b"), HERE)
    controller.command(("a", "b"), [(1.0, (1.5, 0.5))], begin=0.0, now=0.0)
    controller.command(("a", "b"), [(0.5, (0.0, 0.0))], begin=0.5, now=0.5)
    assert np.allclose(controller.desired(0.5), [1.0, 0.0])
    assert np.allclose(controller.desired(0.75), [0.5, 0.0])


@pytest.mark.parametrize(
    ("names", "points", "begin", "said"),
    [
        (("a", "c"), [(1.0, (0, 0))], 0.0, "'c' is unknown; a, b expected"),
        (("a",), [(1.0, (0,))], 0.0, "1 joints; all 2 expected"),
        (("a", "b"), [], 0.0, "points: none"),
        (("a", "b"), [(1.0, (0,))], 0.0, r"points\[0\].positions: 1 values; 2 expected"),
        (("a", "b"), [(1.0, (0, float("nan")))], 0.0, r"points\[0\]: not finite"),
        (("a", "b"), [(1.0, (0, 0)), (1.0, (1, 1))], 0.0, r"points\[1\].*not after"),
        (("a", "b"), [(1.0, (0, 0))], -3.0, "2.000 s in the past"),
    ],
)
def test_trajectories_that_are_refused(names, points, begin, said) -> None:  # noqa: ANN001
    controller = TrajectoryController(("a", "b"), HERE)
    with pytest.raises(RefusedError, match=said):
        controller.command(names, points, begin, now=0.0)
    assert controller.desired(5.0).tolist() == HERE.tolist()
