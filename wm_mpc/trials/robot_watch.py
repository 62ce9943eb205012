"""A node that gives a robot goals and watches what becomes of them; it knows only its topics."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, JointState

from wm_mpc.core.clock import monotonic
from wm_mpc.core.errors import MessageError, UserError
from wm_mpc.data.decoding import image_to_rgb, joint_state_to_array
from wm_mpc.data.goals import RobotGoal
from wm_mpc.msg import Plan, PlannerStatus
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.messages import COMMAND_TYPES, array_to_joint_state, rgb_to_image


@dataclass(frozen=True)
class Topics:
    """Names of the topics that are heard and told."""

    image: str = "image"
    proprio: str = "joint_states"
    command: str = "command"


class RobotWatch:
    """Hears a robot and its controller from a thread of its own, until ``close``.

    Args:
        topics: names.
        names: joints wanted, in order; empty: as they come.
        command_type: message type of ``command``; empty: commands are not heard.
        node_name: of the watching node.
    """

    def __init__(
        self, topics: Topics, names: tuple[str, ...] = (), command_type: str = "",
        node_name: str = "trial",
    ) -> None:  # fmt: skip
        self.names = names
        self.image: np.ndarray | None = None
        self.joints: tuple[float, np.ndarray] | None = None
        self.status: PlannerStatus | None = None
        self.plan: Plan | None = None
        self.commands: deque[tuple[float, np.ndarray]] = deque(maxlen=10000)
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node(node_name, context=self._context)
        listen = self.node.create_subscription
        listen(Image, topics.image, self._on_image, qos.IMAGE)
        listen(JointState, topics.proprio, self._on_joints, qos.PROPRIO)
        listen(PlannerStatus, "status", self._on_status, qos.EVENT)
        listen(Plan, "plan", self._on_plan, qos.EVENT)
        if command_type:
            listen(COMMAND_TYPES[command_type], topics.command, self._on_command, qos.EVENT)
        self._goal_image = self.node.create_publisher(Image, "goal_image", qos.LATCHED)
        self._goal_joints = self.node.create_publisher(JointState, "goal_proprio", qos.LATCHED)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="watch", daemon=True)
        self._thread.start()

    def wait_for(self, *what: str, timeout_s: float = 30.0) -> None:
        """Wait until each of ``image``, ``joints``, ``status`` has been heard.

        Raises:
            UserError: one has not, in time.
        """
        end = monotonic() + timeout_s
        while missing := [name for name in what if getattr(self, name) is None]:
            if monotonic() > end:
                raise UserError(
                    f"{missing[0]}: nothing heard for {timeout_s:g} s; are robot and mpc_node up?"
                )
            self._closing.wait(0.05)

    def snap(self) -> RobotGoal:
        """The present picture and posture as a goal."""
        positions = tuple(float(v) for v in self.joints[1])
        return RobotGoal(self.image.copy(), self.names, positions, "snapped")

    def pursue(self, goal: RobotGoal, posture: bool) -> None:
        """Tell the controller a goal, with or without the posture that it was taken at."""
        stamp = self.node.get_clock().now().to_msg()
        if posture and goal.positions:
            values = np.array([*goal.positions, *([0.0] * len(goal.positions))])
            self._goal_joints.publish(array_to_joint_state(values, goal.names, stamp))
        self._goal_image.publish(rgb_to_image(goal.image, stamp))

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        self._executor.shutdown(2.0)
        self._thread.join(2.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    # ---- in the executor's thread --------------------------------------------------------------

    def _spin(self) -> None:
        while not self._closing.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.2)
            except ExternalShutdownException:
                return

    def _on_image(self, message: Image) -> None:
        try:
            self.image = image_to_rgb(message)
        except MessageError as error:
            self.node.get_logger().error(str(error), throttle_duration_sec=5.0)

    def _on_joints(self, message: JointState) -> None:
        self.names = self.names or tuple(message.name)
        try:
            values = joint_state_to_array(message, self.names, len(self.names))
        except MessageError as error:
            self.node.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        self.joints = (monotonic(), np.asarray(values, float))

    def _on_status(self, message: PlannerStatus) -> None:
        self.status = message

    def _on_plan(self, message: Plan) -> None:
        self.plan = message

    def _on_command(self, message: Any) -> None:
        if hasattr(message, "data"):
            values = list(message.data)
        elif hasattr(message, "twist"):
            line, turn = message.twist.linear, message.twist.angular
            values = [line.x, line.y, line.z, turn.x, turn.y, turn.z]
        else:
            values = list(message.points[0].positions) if message.points else []
        self.commands.append((monotonic(), np.array(values, float)))
