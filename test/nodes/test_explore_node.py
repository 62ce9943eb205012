"""An arm in a process of its own, moved by ``explore_node`` in another, over DDS."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from ros import START_S, NodeProcess, Probe
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

pytest.importorskip("mujoco")

EXPLORE = {
    "command_names": ["shoulder", "elbow"], "low": [-1.0, -1.0], "high": [1.0, 1.0],
    "speed": [1.0, 1.0], "minutes": 0.1, "control_rate_hz": 20.0,
}  # fmt: skip


def at(probe: Probe) -> np.ndarray:
    return np.array(probe.last("joint_states").position)


def test_explore_moves_an_arm_and_brings_it_back(ros_domain: int, tmp_path: Path) -> None:
    probe = Probe(ros_domain)
    for kind, topic in ((JointState, "joint_states"), (Image, "image"), (PoseStamped, "tip_pose")):
        probe.listen(kind, topic)
    arm = NodeProcess("sim_bridge.arms.node", tmp_path / "arm.log", arm="planar_arm", seed=4)
    try:
        probe.wait(lambda: probe.last("image"), START_S, "picture")
        begin = at(probe)
        mover = _explore(tmp_path)
        assert mover.process.wait(60) == 0
        assert "done:" in mover.output and "cells visited" in mover.output
        assert probe.last("image").encoding == "rgb8"
        places = np.array([m.position for _, m in probe.heard["joint_states"]])
        assert np.ptp(places, axis=0).min() > 0.1  # every joint moved
        probe.wait(lambda: np.abs(probe.last("joint_states").velocity).max() < 0.01, 5, "rest")
        inside = np.clip(begin, -1, 1)  # from outside the box it goes in
        assert np.abs(at(probe) - inside).max() < 0.1
        assert arm.end(signal.SIGTERM) == 0
    finally:
        arm.end()
        probe.close()


def _explore(folder: Path) -> NodeProcess:
    return NodeProcess(
        "wm_mpc.nodes.explore.node", folder / "explore.log",
        remap={"proprio": "joint_states"}, **EXPLORE,
    )  # fmt: skip


def test_without_a_box_nothing_moves(ros_domain: int, tmp_path: Path) -> None:
    node = NodeProcess("wm_mpc.nodes.explore.node", tmp_path / "explore.log")
    assert node.process.wait(60) == 2
    assert "low: empty" in node.output


def test_an_arm_under_a_trajectory_controller(ros_domain: int, tmp_path: Path) -> None:
    probe = Probe(ros_domain)
    probe.listen(JointState, "joint_states")
    out = probe.node.create_publisher(JointTrajectory, "command", 10)
    arm = NodeProcess(
        "sim_bridge.arms.node", tmp_path / "arm.log", controller="joint_trajectory", seed=1
    )
    try:
        probe.wait(lambda: probe.last("joint_states"), START_S, "joint states")
        message = JointTrajectory(joint_names=["shoulder", "elbow"])
        goal = at(probe) + [0.3, -0.3]
        point = JointTrajectoryPoint(positions=goal.tolist())
        point.time_from_start.sec = 1
        message.points = [point]
        unknown = JointTrajectory(joint_names=["shoulder", "wrist"], points=[point])
        out.publish(unknown)
        time.sleep(0.3)
        out.publish(message)
        probe.wait(lambda: np.abs(at(probe) - goal).max() < 0.02, 10, "goal of the trajectory")
        assert "'wrist' is unknown" in arm.output
    finally:
        arm.end()
        probe.close()


def test_a_forward_command_holds_when_its_sender_is_gone(ros_domain: int, tmp_path: Path) -> None:
    probe = Probe(ros_domain)
    probe.listen(JointState, "joint_states")
    out = probe.node.create_publisher(Float64MultiArray, "command", 10)
    arm = NodeProcess("sim_bridge.arms.node", tmp_path / "arm.log")
    try:
        probe.wait(lambda: probe.last("joint_states"), START_S, "joint states")
        before = at(probe)
        direction = -np.sign(before) * 0.3
        out.publish(Float64MultiArray(data=direction.tolist()))
        probe.wait(lambda: np.abs(at(probe) - before).min() > 0.2, 10, "motion without end")
    finally:
        arm.end()
        probe.close()
