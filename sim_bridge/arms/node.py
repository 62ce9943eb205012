"""``sim_arm``: a simulated arm in the place of a real one.

It offers what a real one offers and no more: pictures of a camera, joint states, the pose of the
tip, and one controller that takes commands. It never waits for whoever commands it, it can be put
back by nobody, and how far it is from a goal it does not know.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from sim_bridge.arms import ARMS, make_arm
from sim_bridge.arms.controllers import (
    ForwardCommand,
    RefusedError,
    TrajectoryController,
    TwistServo,
)
from wm_mpc.core.clock import monotonic
from wm_mpc.core.errors import UserError, one_line
from wm_mpc.core.fields import Checked, Seed
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.inputs import publish_inputs
from wm_mpc.nodes.common.messages import array_to_joint_state, rgb_to_image
from wm_mpc.nodes.common.parameters import ParameterReader
from wm_mpc.nodes.common.spin import run_node

PERIOD_S = 0.02
"""Between two commands to the joints, and between two joint states."""


@dataclass(frozen=True)
class SimArmConfig(Checked):
    """Parameters of ``sim_arm``.

    Attributes:
        arm: planar_arm or ur5e.
        controller: forward_command (velocities), joint_trajectory (positions) or twist.
        camera_rate_hz: [Hz] pictures per second.
        image_size: [px] height and width of the pictures.
        image_delay_s: [s] from the moment that a picture shows to its arrival; its stamp is
            the moment of its arrival, as that of cheap cameras is.
        command_delay_s: [s] from a command's arrival to its effect.
        twist_timeout_s: [s] an older twist means halt.
        seed: of where the arm stands at first.
    """

    arm: Literal["planar_arm", "ur5e"] = "planar_arm"
    controller: Literal["forward_command", "joint_trajectory", "twist"] = "forward_command"
    camera_rate_hz: Annotated[float, Ge(1), Le(50)] = 10.0
    image_size: Annotated[int, Ge(32), Le(2048)] = 96
    image_delay_s: Annotated[float, Ge(0), Le(2)] = 0.0
    command_delay_s: Annotated[float, Ge(0), Le(2)] = 0.0
    twist_timeout_s: Annotated[float, Ge(0.01), Le(10)] = 0.1
    seed: Seed = 0


class SimArm(Node):
    """See the module. One thread simulates, the executor's thread hears commands."""

    def __init__(self) -> None:
        super().__init__("sim_arm", automatically_declare_parameters_from_overrides=True)
        reader = ParameterReader(self)
        self.config = config = reader.read(SimArmConfig())
        reader.reject_unknown()
        if config.controller == "twist" and not ARMS[config.arm].takes_twists:
            raise UserError(f"parameter controller: twist; not with arm {config.arm}")
        self.failed = False
        self._stopping = threading.Event()
        self._commands: deque[tuple[float, Any]] = deque(maxlen=100)
        self._image_out = self.create_publisher(Image, "image", qos.COMMAND)
        self._joints_out = self.create_publisher(JointState, "joint_states", qos.EVENT)
        self._tip_out = self.create_publisher(PoseStamped, "tip_pose", qos.EVENT)
        kind = {
            "forward_command": Float64MultiArray,
            "joint_trajectory": JointTrajectory,
            "twist": TwistStamped,
        }[config.controller]
        self.create_subscription(kind, "command", self._on_command, qos.EVENT)
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)

    def start(self) -> None:
        """Begin to simulate."""
        self._thread.start()
        publish_inputs(self)

    def stop(self) -> None:
        """End the simulation."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(2.0)

    def _on_command(self, message: Any) -> None:
        self._commands.append((monotonic() + self.config.command_delay_s, message))

    # ---- the simulation, in its own thread -----------------------------------------------------

    def _run(self) -> None:
        try:
            self._simulate()
        except Exception as error:  # a dead arm must not look like one that stands still
            self.get_logger().fatal(f"simulation: {one_line(error)}\n{traceback.format_exc()}")
            self.failed = True

    def _simulate(self) -> None:
        config = self.config
        self.arm = arm = make_arm(config.arm, config.image_size)
        arm.place(arm.draw(np.random.default_rng(config.seed)))
        arm.picture()  # the first one takes long
        self._controller = self._make_controller()
        shown: deque[tuple[float, np.ndarray]] = deque()
        begun, steps, pictures = monotonic(), 0, 0
        while not self._stopping.is_set():
            now = monotonic()
            wait = begun + steps * PERIOD_S - now
            if wait > 0:
                self._stopping.wait(wait)
                continue
            self._hear(now)
            rates = self._controller.rates(now, arm.positions(), PERIOD_S)
            arm.step(rates, PERIOD_S)
            steps += 1
            joints = np.concatenate([arm.positions(), arm.velocities()])
            stamp = self.get_clock().now().to_msg()
            self._joints_out.publish(array_to_joint_state(joints, arm.spec.joints, stamp))
            self._tip_out.publish(_pose(arm.tip(), stamp))
            if now - begun >= pictures / config.camera_rate_hz:
                pictures = int((now - begun) * config.camera_rate_hz) + 1
                shown.append((now + config.image_delay_s, arm.picture()))
            while shown and shown[0][0] <= now:
                image = shown.popleft()[1]
                self._image_out.publish(rgb_to_image(image, self.get_clock().now().to_msg()))
            if monotonic() - begun > steps * PERIOD_S + 1.0:  # the machine slept: go on from here
                begun, steps, pictures = monotonic(), 0, 0

    def _make_controller(self) -> ForwardCommand | TrajectoryController | TwistServo:
        arm = self.arm
        if self.config.controller == "forward_command":
            return ForwardCommand(len(arm.spec.joints))
        if self.config.controller == "joint_trajectory":
            return TrajectoryController(arm.spec.joints, arm.positions())
        return TwistServo(arm.joint_rates, len(arm.spec.joints), self.config.twist_timeout_s)

    def _hear(self, now: float) -> None:
        """Give the controller the commands whose time has come."""
        while self._commands and self._commands[0][0] <= now:
            message = self._commands.popleft()[1]
            try:
                self._take(message, now)
            except RefusedError as error:
                self.get_logger().error(f"command refused: {error}", throttle_duration_sec=2.0)

    def _take(self, message: Any, now: float) -> None:
        controller = self._controller
        if isinstance(controller, ForwardCommand):
            controller.command(message.data)
        elif isinstance(controller, TwistServo):
            line, turn = message.twist.linear, message.twist.angular
            controller.command([line.x, line.y, line.z, turn.x, turn.y, turn.z], now)
        else:
            points = [
                (p.time_from_start.sec + p.time_from_start.nanosec * 1e-9, p.positions)
                for p in message.points
            ]
            begin = now
            stamp = message.header.stamp
            if stamp.sec or stamp.nanosec:  # a stamp of 0 means: at once
                age = self.get_clock().now() - Time.from_msg(stamp, self.get_clock().clock_type)
                begin = now - age.nanoseconds * 1e-9
            controller.command(message.joint_names, points, begin, now)


def _pose(tip: np.ndarray, stamp: Any) -> PoseStamped:
    """What ``pose_broadcaster`` tells of the tip; the orientation is left at none."""
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = stamp, "base"
    message.pose.position.x, message.pose.position.y, message.pose.position.z = map(float, tip)
    message.pose.orientation.w = 1.0
    return message


def main(args: list[str] | None = None) -> int:
    """Run the node; exit code 0 after SIGINT or SIGTERM, 2 for unusable parameters."""
    return run_node(SimArm, args)


if __name__ == "__main__":
    sys.exit(main())
