"""What ``mpc_node`` hears while active: pictures, joints, goals; in the executor's thread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image, JointState

from wm_mpc.control.controller import Controller
from wm_mpc.control.stamps import StampWatch
from wm_mpc.core.clock import stamp_seconds
from wm_mpc.core.errors import NotFiniteError, UserError
from wm_mpc.data.decoding import image_to_rgb, joint_state_to_array
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.intake import PacedGroup
from wm_mpc.nodes.mpc.config import MpcNodeConfig
from wm_mpc.nodes.mpc.mailbox import Mailbox

SetGoal = Callable[[np.ndarray, np.ndarray | None, float], object]


class Inputs:
    """Subscriptions from ``open`` to ``close``.

    Of a topic that floods, only the newest message of a tenth of a control period is taken (a
    twentieth for joints, of which the one nearest to a picture is wanted).

    Args:
        node: owner of the topics.
        config: what the node reads.
        controller: told what cannot be used.
        mailbox: where pictures and joints go.
        stamps: told the age of every picture.
        set_goal: pursues a goal; ``UserError`` says why not.
        complain: told what is wrong, one line.

    Attributes:
        goals_since_ns: goals sent before this instant (their publisher's clock) do not count.
    """

    def __init__(
        self,
        node: LifecycleNode,
        config: MpcNodeConfig,
        controller: Controller,
        mailbox: Mailbox,
        stamps: StampWatch,
        set_goal: SetGoal,
        complain: Callable[[str, str], None],
    ) -> None:
        self._node = node
        self._config = config
        self._controller = controller
        self._mailbox = mailbox
        self._stamps = stamps
        self._set_goal = set_goal
        self._complain = complain
        self._by_arrival = config.stamp_source == "arrival"
        self._subscriptions: list = []
        self.goals_since_ns = 0
        period = controller.engine.config.period_s
        self._groups = [PacedGroup(period / share) for share in (10, 10, 20)]
        self.close()

    def open(self) -> None:
        """Begin to hear."""
        listen = self._node.create_subscription
        image, compressed, joints = self._groups
        self._subscriptions = [
            listen(Image, "image", self._on_image, qos.IMAGE, callback_group=image),
            listen(
                CompressedImage, "image/compressed", self._on_image, qos.IMAGE,
                callback_group=compressed,
            ),
            listen(JointState, "proprio", self._on_proprio, qos.NEWEST, callback_group=joints),
            listen(JointState, "goal_proprio", self._on_goal_proprio, qos.LATCHED),
            listen(Image, "goal_image", self._on_goal_image, qos.LATCHED),
        ]  # fmt: skip

    def close(self) -> None:
        """Hear nothing more, and forget everything."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self._goal_image: Image | None = None
        self._goal_joints: JointState | None = None
        self._stamps.clear()
        self._mailbox.clear()

    def read_joints(self, message: JointState, field: str) -> np.ndarray | None:
        """Proprioception in the model's order; None where the model uses none."""
        dim = self._controller.engine.model.config.proprio_dim
        names = self._config.joint_names
        return joint_state_to_array(message, names, dim, field) if dim else None

    def _stamp(self, message: Image | CompressedImage | JointState) -> float:
        """When a message counts as made [s], node clock."""
        if self._by_arrival:
            return self._node.seconds()
        return stamp_seconds(message.header.stamp)

    def _on_image(self, message: Image | CompressedImage) -> None:
        stamp = self._stamp(message)
        self._stamps.arrived(stamp, self._node.seconds())
        self._mailbox.put_image(stamp, message)

    def _on_proprio(self, message: JointState) -> None:
        try:
            values = self.read_joints(message, "proprio")
            self._mailbox.put_proprio(self._stamp(message), values)
        except NotFiniteError as error:
            # Whoever says nonsense once may have said it before: no waiting for the watchdog.
            if self._controller.distrust("proprio", str(error)):
                self._mailbox.urge()
            self._complain("proprio", str(error))
        except UserError as error:
            self._reject("proprio", error)

    def _on_goal_image(self, message: Image, info: dict) -> None:
        if self._too_early(info):
            words = "goal_image: sent before the e_stop was released; send it again"
            self._reject("goal_image", UserError(words))
            return
        self._goal_image = message
        self._pursue()

    def _on_goal_proprio(self, message: JointState, info: dict) -> None:
        if self._too_early(info):
            return
        self._goal_joints = message
        if self._goal_is_whole():
            self._pursue()

    def _too_early(self, info: dict) -> bool:
        return info["source_timestamp"] < self.goals_since_ns

    def _goal_is_whole(self) -> bool:
        image, joints = self._goal_image, self._goal_joints
        return bool(image and joints and image.header.stamp == joints.header.stamp)

    def _pursue(self) -> None:
        """Pursue the goal picture, with the proprioception of the same stamp if there is any."""
        try:
            image = image_to_rgb(self._goal_image, "goal_image")
            proprio = None
            if self._goal_is_whole():
                proprio = self.read_joints(self._goal_joints, "goal_proprio")
            self._set_goal(image, proprio, 0.0)
        except UserError as error:
            self._reject("goal_image", error)

    def _reject(self, source: str, error: Exception) -> None:
        self._controller.reject(source, str(error))
        self._complain(source, str(error))


__all__ = ["Inputs"]
