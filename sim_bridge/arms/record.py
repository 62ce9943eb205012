"""A simulated arm explored into a rosbag2 without ROS, as fast as the machine goes.

The motion is ``explore_node``'s, the limits are the gate's, and the controller, joint states and
camera are ``sim_arm``'s: what a recording of the three over ROS would hold, on simulated time.
``wm-mpc bag import`` takes it like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sim_bridge.arms.stepped import SteppedArm
from wm_mpc.control.safety import CommandFilter, CommandLimits
from wm_mpc.data.bags.writer import BagWriter, WriterConfig
from wm_mpc.nodes.explore.config import ExploreConfig
from wm_mpc.nodes.explore.motion import Motion

BEGIN_S = 1000.0
"""Stamp of the first message."""


def record(
    robot: SteppedArm, config: ExploreConfig, limits: CommandLimits, out: Path,
    tell: Callable[[str], None] = print,
) -> float:  # fmt: skip
    """Explore a simulated arm and write camera, joint states, tip and commands.

    Args:
        robot: the arm.
        config: what ``explore_node`` would do.
        limits: what ``command_gate`` would let through.
        out: rosbag2 folder to create.
        tell: called with a line every simulated minute.

    Returns:
        Share of the box's cells that were visited.

    Raises:
        UserError: no box, or ``out`` exists.
    """
    arm, period = robot.arm, 1 / config.control_rate_hz
    robot.place(arm.draw(np.random.default_rng(config.seed)))
    origin = arm.tip() * (not config.absolute)

    def where() -> np.ndarray:
        return (arm.tip() - origin)[robot.axes] if robot.twists else arm.positions()

    motion = Motion(config.motion(), where(), period)
    low = tuple(-v for v in config.speed)
    gate = CommandFilter(limits, low, config.speed, period, lambda: robot.now)
    told = 0
    with BagWriter(out, WriterConfig()) as writer:
        bag = _Bag(writer, robot)
        bag.state()
        while not motion.done:
            bag.picture()
            command = gate.follow(motion.step(where())).values
            bag.command(command)
            robot.step(command, period, bag.state)
            if motion.elapsed // 60 > told:
                told = int(motion.elapsed // 60)
                tell(
                    f"{told} of {config.minutes:g} min, {motion.coverage.share:.0%} of the box's "
                    "cells visited"
                )
    return motion.coverage.share


class _Bag:
    """Messages of an arm, stamped with simulated time."""

    def __init__(self, writer: BagWriter, robot: SteppedArm) -> None:
        self._writer, self._robot = writer, robot
        self._time, self._head = writer.types(
            "builtin_interfaces/msg/Time", "std_msgs/msg/Header"
        )

    def _put(self, topic: str, kind: str, **fields: Any) -> None:
        self._writer.add_topic(topic, kind)
        (message,) = self._writer.types(kind)
        data = self._writer.serialize(topic, message(**fields))
        self._writer.write(topic, self._ns(), data)

    def _ns(self) -> int:
        return round((BEGIN_S + self._robot.now) * 1e9)

    def _header(self, frame: str = "") -> Any:
        stamp = self._time(sec=self._ns() // 10**9, nanosec=self._ns() % 10**9)
        return self._head(stamp=stamp, frame_id=frame)

    def picture(self) -> None:
        """What the camera sees."""
        image = self._robot.arm.picture()
        height, width = image.shape[:2]
        self._put(
            "/image", "sensor_msgs/msg/Image", header=self._header("camera"), height=height,
            width=width, encoding="rgb8", is_bigendian=0, step=3 * width,
            data=np.ascontiguousarray(image).reshape(-1),
        )  # fmt: skip

    def state(self) -> None:
        """Joint states and the pose of the tip."""
        arm = self._robot.arm
        self._put(
            "/joint_states", "sensor_msgs/msg/JointState", header=self._header(),
            name=list(arm.spec.joints), position=arm.positions(), velocity=arm.velocities(),
            effort=np.zeros(0),
        )  # fmt: skip
        point, turn, pose = self._writer.types(
            "geometry_msgs/msg/Point", "geometry_msgs/msg/Quaternion", "geometry_msgs/msg/Pose"
        )
        tip = pose(point(*map(float, arm.tip())), turn(0.0, 0.0, 0.0, 1.0))
        self._put(
            "/tip_pose", "geometry_msgs/msg/PoseStamped", header=self._header("base"), pose=tip
        )

    def command(self, values: np.ndarray) -> None:
        """A command that left, as joint velocities or a twist."""
        types = self._writer.types
        if self._robot.twists:
            vector, twist = types("geometry_msgs/msg/Vector3", "geometry_msgs/msg/Twist")
            whole = self._robot.twist(values)
            line, turn = (vector(*map(float, part)) for part in (whole[:3], whole[3:]))
            self._put(
                "/command", "geometry_msgs/msg/TwistStamped", header=self._header("base"),
                twist=twist(linear=line, angular=turn),
            )  # fmt: skip
            return
        dimension, layout = types(
            "std_msgs/msg/MultiArrayDimension", "std_msgs/msg/MultiArrayLayout"
        )
        dim = [dimension(label="", size=len(values), stride=len(values))]
        self._put(
            "/command", "std_msgs/msg/Float64MultiArray",
            layout=layout(dim=dim, data_offset=0), data=np.asarray(values, float),
        )  # fmt: skip
