"""The planar arm: physics that lag, limits that hold, a camera that shows the posture."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco")

from sim_bridge.arms import make_arm


def test_joints_follow_velocities_with_inertia() -> None:
    arm = make_arm("planar_arm")
    arm.place(np.zeros(2))
    arm.step(np.array([0.8, -0.8]), 0.02)
    assert 0 < arm.velocities()[0] < 0.5  # it does not jump to its speed
    arm.step(np.array([0.8, -0.8]), 1.0)
    assert 0.5 < arm.velocities()[0] < 1.0 and -1.0 < arm.velocities()[1] < -0.5
    arm.step(np.zeros(2), 1.0)
    assert np.abs(arm.velocities()).max() < 1e-3
    before = arm.positions()
    arm.step(np.zeros(2), 2.0)
    assert np.abs(arm.positions() - before).max() < 1e-4  # it stays


def test_joint_limits_hold() -> None:
    arm = make_arm("planar_arm")
    arm.place(np.array([2.3, 0.0]))
    arm.step(np.array([9.0, 0.0]), 3.0)
    assert arm.positions()[0] < arm.spec.high[0] + 0.05


def test_the_picture_shows_the_posture_and_nothing_of_the_present_one() -> None:
    arm = make_arm("planar_arm", 64)
    arm.place(np.array([1.0, 0.4]))
    picture = arm.picture()
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, arm.picture(np.array([1.0, 0.4])))
    assert not np.array_equal(picture, arm.picture(np.array([1.0, 0.6])))
    assert np.linalg.norm(arm.tip() - arm.tip(np.array([1.0, 0.6]))) == pytest.approx(
        2 * 0.09 * np.sin(0.1), abs=1e-6
    )


def test_the_ur5e_reaches_by_twists() -> None:
    pytest.importorskip("ogbench")
    arm = make_arm("ur5e")
    begin = arm.tip()
    for _ in range(50):
        arm.step(arm.joint_rates(np.array([0.1, 0, 0.05, 0, 0, 0])), 0.02)
    assert np.allclose(arm.tip() - begin, [0.1, 0, 0.05], atol=0.02)
    drawn = arm.draw(np.random.default_rng(0))
    arm.place(drawn)
    assert np.allclose(arm.positions(), drawn)
