"""``markers``: draws every plan as markers and as one picture, for RViz, Foxglove and others.

It has no part in the control loop: best-effort subscriptions of depth one, a process of its own.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from wm_mpc.core.errors import UserError, one_line
from wm_mpc.data.decoding import compressed_to_rgb, image_to_rgb
from wm_mpc.msg import Plan, PlannerStatus, TaskState
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.inputs import publish_inputs
from wm_mpc.nodes.common.messages import rgb_to_image
from wm_mpc.nodes.common.parameters import ParameterReader
from wm_mpc.nodes.common.spin import run_node
from wm_mpc.nodes.markers.config import MarkersConfig
from wm_mpc.nodes.markers.paths import AXES, SimulatedPath, in_plane, tip_path
from wm_mpc.nodes.markers.shapes import Shapes
from wm_mpc.viz.plan_picture import PlanShown, plan_picture

STATES = {
    getattr(PlannerStatus, name): name
    for name in ("UNCONFIGURED", "IDLE", "RUNNING", "REACHED", "SAFE_STOP", "E_STOP", "FAULT")
}


class MarkersNode(Node):
    """Listens to plans and draws them.

    Parameters are the fields of :class:`~wm_mpc.nodes.markers.config.MarkersConfig`.

    Raises:
        UserError: a wrong or unknown parameter.
    """

    def __init__(self) -> None:
        super().__init__("markers", automatically_declare_parameters_from_overrides=True)
        reader = ParameterReader(self)
        self.config = reader.read(MarkersConfig())
        reader.reject_unknown()
        self._simulation = SimulatedPath(self.config.task) if self.config.task else None
        self._camera: Any = None
        self._goal: np.ndarray | None = None
        self._status: PlannerStatus | None = None
        self._task: TaskState | None = None
        self._tip: PoseStamped | None = None

    def start(self) -> None:
        """Listen and publish."""
        self._markers = self.create_publisher(MarkerArray, "plan_markers", qos.COMMAND)
        self._picture = self.create_publisher(Image, "plan_image", qos.COMMAND)
        listen = self.create_subscription
        listen(Image, "image", self._on_camera, qos.IMAGE)
        listen(CompressedImage, "image/compressed", self._on_camera, qos.IMAGE)
        listen(Image, "goal_image", self._on_goal, qos.LATCHED)
        listen(PlannerStatus, "status", self._on_status, qos.NEWEST)
        listen(TaskState, "task_state", self._on_task, qos.NEWEST)
        listen(PoseStamped, "tip_pose", self._on_tip, qos.NEWEST)
        listen(Plan, "plan", self._on_plan, qos.NEWEST)
        publish_inputs(self)

    def stop(self) -> None:
        """Nothing is held."""

    def _on_camera(self, message: Any) -> None:
        # decoded when a plan is drawn: a camera may be faster than plans
        self._camera = message

    def _on_goal(self, message: Image) -> None:
        self._goal = self._decoded(message, "goal_image")

    def _on_status(self, message: PlannerStatus) -> None:
        self._status = message

    def _on_task(self, message: TaskState) -> None:
        self._task = message

    def _on_tip(self, message: PoseStamped) -> None:
        self._tip = message

    def _on_plan(self, message: Plan) -> None:
        try:
            self._draw(message)
        except (UserError, ValueError, IndexError) as error:
            said = f"plan: not drawn: {one_line(error)}"
            self.get_logger().error(said, throttle_duration_sec=5.0)

    def _decoded(self, message: Any, name: str) -> np.ndarray | None:
        if message is None:
            return None
        try:
            compressed = isinstance(message, CompressedImage)
            return compressed_to_rgb(message) if compressed else image_to_rgb(message, name)
        except (UserError, ValueError) as error:
            said = f"{name}: {one_line(error)}"
            self.get_logger().error(said, throttle_duration_sec=5.0)
            return None

    def _draw(self, message: Plan) -> None:
        shape = (message.horizon, message.action_dim)
        actions = np.array(message.actions, np.float64).reshape(shape)
        count = min(message.candidates, self.config.candidates)
        others = np.array(message.candidate_actions, np.float64).reshape(-1, *shape)[:count]
        head = self._words(message)
        places: np.ndarray | None = None
        if self._markers.get_subscription_count() or self._picture.get_subscription_count():
            places = self._places(actions)
        if self._markers.get_subscription_count():
            self._markers.publish(self._shapes(message, actions, others, places, head))
        if self._picture.get_subscription_count():
            shown = PlanShown(actions, others, message.dt)
            camera = self._decoded(self._camera, "image")
            size = self.config.picture_px
            drawn = plan_picture(camera, self._goal, shown, head, size, places)
            self._picture.publish(rgb_to_image(drawn, message.header.stamp, "plan"))

    def _words(self, message: Plan) -> tuple[str, str]:
        """State and reason; planner and what the plan costs."""
        status = self._status
        state = "" if status is None else STATES.get(status.state, str(status.state))
        first = f"{state}: {status.reason}" if status is not None and status.reason else state
        second = f"{message.planner}, cost {message.cost:.4g}"
        if status is not None:
            second += f", latent distance {status.latent_distance:.3g}"
        return first, second

    def _places(self, actions: np.ndarray) -> np.ndarray | None:
        """Path in the picture of a simulated task, fractions of its side."""
        if self._simulation is None or self._task is None:
            return None
        return self._simulation.path(self._task.state, actions)

    def _shapes(
        self,
        message: Plan,
        actions: np.ndarray,
        others: np.ndarray,
        places: np.ndarray | None,
        head: tuple[str, str],
    ) -> MarkerArray:
        config, tip, size = self.config, self._tip, self.config.size_m
        names = config.command_names
        moved = tip is not None and len(names) == actions.shape[1] and set(names) & set(AXES)
        frame = tip.header.frame_id if moved and tip.header.frame_id else config.frame_id
        shapes = Shapes(frame, message.header.stamp, size)
        place = np.array([0.0, 1.05 * size, 0.0])
        if moved:
            at = tip.pose.position
            begin = np.array([at.x, at.y, at.z])
            shapes.robot(begin)
            shapes.path(tip_path(begin, actions, names, message.dt))
            shapes.others([tip_path(begin, rows, names, message.dt) for rows in others])
            place = begin + [0.0, 0.0, 0.2 * size]
        elif places is not None:
            shapes.path(in_plane(places, size))
            shapes.robot(in_plane(places[0], size))
            if len(self._task.goal_state):
                goal = self._simulation.place(self._task.goal_state)
                shapes.goal(in_plane(goal, size))
        else:
            shapes.chart(actions)
        shapes.words("\n".join(head), place)
        return shapes.array


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal comes; returns the exit code."""
    return run_node(MarkersNode, args)


if __name__ == "__main__":
    sys.exit(main())
