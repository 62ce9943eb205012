"""What rclpy needs from the environment is filled in, and what is set stays."""

from __future__ import annotations

import sys

import pytest

from wm_mpc.bringup import ros_env


def test_wheels_get_their_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ros_env, "rclpy_source", lambda: ros_env.WHEELS)
    assert ros_env.prepare({"HOME": "/h"}) == {"HOME": "/h", "AMENT_PREFIX_PATH": sys.prefix}
    sourced = {"HOME": "/h", "AMENT_PREFIX_PATH": "/opt/ros/x"}
    assert ros_env.prepare(dict(sourced)) == sourced


@pytest.mark.parametrize("source", [None, ros_env.DISTRIBUTION])
def test_a_distribution_is_left_alone(source: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ros_env, "rclpy_source", lambda: source)
    assert ros_env.prepare({"HOME": "/h"}) == {"HOME": "/h"}


def test_without_a_home_logs_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ros_env, "rclpy_source", lambda: None)
    assert "ROS_LOG_DIR" in ros_env.prepare({})
    assert ros_env.prepare({"ROS_LOG_DIR": "/l"}) == {"ROS_LOG_DIR": "/l"}
