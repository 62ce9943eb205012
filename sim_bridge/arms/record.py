"""A simulated arm explored into a rosbag2 without ROS, as fast as the machine goes.

The motion is ``explore_node``'s, the limits are the gate's, and the controller, joint states and
camera are ``sim_arm``'s: what a recording of the three over ROS would hold, on simulated time.
``wm-mpc bag import`` cannot tell the two apart.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sim_bridge.arms import make_arm
from sim_bridge.arms.controllers import ForwardCommand, TwistServo
from wm_mpc.control.safety import CommandFilter, CommandLimits
from wm_mpc.core.errors import UserError
from wm_mpc.data.bags.writer import BagWriter, WriterConfig
from wm_mpc.nodes.explore.config import ExploreConfig
from wm_mpc.nodes.explore.motion import Motion

SUBSTEPS_S = 0.02
"""Between two joint states, as ``sim_arm`` has it."""
BEGIN_S = 1000.0
"""Stamp of the first message."""
_AXES = ("linear.x", "linear.y", "linear.z")


def record(
    arm_name: str, config: ExploreConfig, limits: CommandLimits, out: Path, image_size: int = 96,
    tell: Callable[[str], None] = print,
) -> float:  # fmt: skip
    """Explore a simulated arm and write camera, joint states, tip and commands.

    Args:
        arm_name: planar_arm or ur5e.
        config: what ``explore_node`` would do.
        limits: what ``command_gate`` would let through.
        out: rosbag2 folder to create.
        image_size: side of the pictures [px].
        tell: called with a line every simulated minute.

    Returns:
        Share of the box's cells that were visited.

    Raises:
        UserError: commands that the arm does not take, or ``out`` exists.
    """
    if config.command_type == "joint_trajectory":
        raise UserError("command_type: joint_trajectory; velocities or twists expected here")
    arm = make_arm(arm_name, image_size)
    arm.place(arm.draw(np.random.default_rng(config.seed)))
    twists, period = config.command_type == "twist_stamped", 1 / config.control_rate_hz
    servo: Any = ForwardCommand(len(arm.spec.joints))
    if twists:
        servo = TwistServo(arm.joint_rates, len(arm.spec.joints))
    origin = arm.tip() * (not config.absolute)
    axes = [_AXES.index(name) for name in config.command_names if name in _AXES]
    if twists and len(axes) != len(config.command_names):
        raise UserError(f"command_names: {config.command_names}; of {', '.join(_AXES)} expected")
    now = 0.0

    def where() -> np.ndarray:
        return (arm.tip() - origin)[axes] if twists else arm.positions()

    motion = Motion(config.motion(), where(), period)
    gate = CommandFilter(
        limits, tuple(-v for v in config.speed), config.speed, period, lambda: now
    )
    told = 0
    with BagWriter(out, WriterConfig()) as writer:
        bag = _Bag(writer, arm.spec.joints)
        bag.state(now, arm)
        while not motion.done:
            bag.picture(now, arm.picture())
            command = gate.follow(motion.step(where())).values
            if twists:
                twist = np.zeros(6)
                twist[axes] = command
                bag.twist(now, twist)
                servo.command(twist, now)
            else:
                bag.numbers(now, command)
                servo.command(command)
            for _ in range(round(period / SUBSTEPS_S)):
                arm.step(servo.rates(now, arm.positions(), SUBSTEPS_S), SUBSTEPS_S)
                now += SUBSTEPS_S
                bag.state(now, arm)
            if motion.elapsed // 60 > told:
                told = int(motion.elapsed // 60)
                tell(
                    f"{told} of {config.minutes:g} min, {motion.coverage.share:.0%} of the box's "
                    "cells visited"
                )
    return motion.coverage.share


class _Bag:
    """Messages of an arm, stamped with simulated time."""

    def __init__(self, writer: BagWriter, joints: tuple[str, ...]) -> None:
        self._writer, self._joints = writer, list(joints)
        self._time, self._head = writer.types(
            "builtin_interfaces/msg/Time", "std_msgs/msg/Header"
        )

    def _put(self, topic: str, kind: str, now: float, **fields: Any) -> None:
        self._writer.add_topic(topic, kind)
        (message,) = self._writer.types(kind)
        data = self._writer.serialize(topic, message(**fields))
        self._writer.write(topic, self._ns(now), data)

    def _ns(self, now: float) -> int:
        return round((BEGIN_S + now) * 1e9)

    def _header(self, now: float, frame: str = "") -> Any:
        ns = self._ns(now)
        stamp = self._time(sec=ns // 10**9, nanosec=ns % 10**9)
        return self._head(stamp=stamp, frame_id=frame)

    def picture(self, now: float, image: np.ndarray) -> None:
        height, width = image.shape[:2]
        self._put(
            "/image", "sensor_msgs/msg/Image", now, header=self._header(now, "camera"),
            height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width,
            data=np.ascontiguousarray(image).reshape(-1),
        )  # fmt: skip

    def state(self, now: float, arm: Any) -> None:
        self._put(
            "/joint_states", "sensor_msgs/msg/JointState", now, header=self._header(now),
            name=self._joints, position=arm.positions(), velocity=arm.velocities(),
            effort=np.zeros(0),
        )  # fmt: skip
        point, turn, pose = self._writer.types(
            "geometry_msgs/msg/Point", "geometry_msgs/msg/Quaternion", "geometry_msgs/msg/Pose"
        )
        tip = pose(point(*map(float, arm.tip())), turn(0.0, 0.0, 0.0, 1.0))
        self._put(
            "/tip_pose", "geometry_msgs/msg/PoseStamped", now, header=self._header(now, "base"),
            pose=tip,
        )  # fmt: skip

    def twist(self, now: float, values: np.ndarray) -> None:
        vector, twist = self._writer.types("geometry_msgs/msg/Vector3", "geometry_msgs/msg/Twist")
        line, turn = (vector(*map(float, part)) for part in (values[:3], values[3:]))
        self._put(
            "/command", "geometry_msgs/msg/TwistStamped", now, header=self._header(now, "base"),
            twist=twist(linear=line, angular=turn),
        )  # fmt: skip

    def numbers(self, now: float, values: np.ndarray) -> None:
        dimension, layout = self._writer.types(
            "std_msgs/msg/MultiArrayDimension", "std_msgs/msg/MultiArrayLayout"
        )
        dim = [dimension(label="", size=len(values), stride=len(values))]
        self._put(
            "/command", "std_msgs/msg/Float64MultiArray", now,
            layout=layout(dim=dim, data_offset=0), data=np.asarray(values, float),
        )  # fmt: skip
