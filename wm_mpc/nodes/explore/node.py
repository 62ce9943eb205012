"""``explore_node``: moves a robot for data, through the command gate, and comes back.

What it asks for leaves on ``command``, which launch files lead through the gate as they do with
the controller's: limits, watchdog and emergency stop are the gate's.
It hears joint states, and the tip's pose where commands are twists. Without fresh ones it asks for
rest. Where a joint gets to its limit only motion back is asked for.
"""

from __future__ import annotations

import sys

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState

from wm_mpc.core.clock import monotonic
from wm_mpc.core.errors import MessageError
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.inputs import publish_inputs
from wm_mpc.nodes.common.messages import CommandFormat, joint_state_to_array
from wm_mpc.nodes.common.parameters import ParameterReader
from wm_mpc.nodes.common.spin import run_node
from wm_mpc.nodes.explore.config import ExploreConfig
from wm_mpc.nodes.explore.motion import Motion

TELL_S = 10.0
"""Between two lines about how it goes."""
REST_TICKS = 5
"""Requests of rest after the last motion."""


class ExploreNode(Node):
    """See the module.

    Attributes:
        finished: the motion is over and the robot was asked to rest.
    """

    def __init__(self) -> None:
        super().__init__("explore_node", automatically_declare_parameters_from_overrides=True)
        reader = ParameterReader(self)
        self.config = config = reader.read(ExploreConfig())
        reader.reject_unknown()
        self._width = len(config.low)
        self._period = 1 / config.control_rate_hz
        self._format = CommandFormat(
            config.command_type, config.command_names, self._width, self._period
        )
        self._plan = config.motion()
        self._linear = [i for i, name in enumerate(config.command_names) if "linear" in name]
        self.failed = self.finished = False
        self._joints: np.ndarray | None = None
        self._came = -np.inf
        self._motion: Motion | None = None
        # of the tip, where commands are twists; turns are added up, ways are told
        self._way = np.zeros(self._width)
        self._tip_start: np.ndarray | None = None
        self._tip_came = -np.inf
        self._told, self._rested = monotonic(), 0
        self._request = self.create_publisher(self._format.type, "command", qos.COMMAND)
        self.create_subscription(JointState, "proprio", self._on_joints, qos.PROPRIO)
        if self._twists:
            self.create_subscription(PoseStamped, "tip_pose", self._on_pose, qos.PROPRIO)
        self._timer = self.create_timer(self._period, self._tick)

    def start(self) -> None:
        """Say what is going to happen; nothing moves before joint states come."""
        publish_inputs(self)
        config = self.config
        self.get_logger().info(
            f"explores for {config.minutes:g} min, seed {config.seed}: low {list(config.low)}, "
            f"high {list(config.high)}, speed {list(config.speed)}"
        )

    def stop(self) -> None:
        """Ask for rest; the gate would bring the robot to rest without it, a little later."""
        self._ask(np.zeros(self._width))

    @property
    def _twists(self) -> bool:
        return self.config.command_type == "twist_stamped"

    def _on_joints(self, message: JointState) -> None:
        names = self.config.joint_names or tuple(message.name)
        try:
            values = joint_state_to_array(message, names, len(names))
        except MessageError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        if not self._twists and len(values) != self._width:
            self.get_logger().error(
                f"proprio: {len(values)} joints; {self._width} expected, one per number of low; "
                "set joint_names",
                throttle_duration_sec=5.0,
            )
            return
        self._joints, self._came = np.asarray(values, float), monotonic()

    def _on_pose(self, message: PoseStamped) -> None:
        at = message.pose.position
        tip = np.array([at.x, at.y, at.z])
        if not np.isfinite(tip).all():
            return
        if self._tip_start is None:
            self._tip_start = np.zeros(3) if self.config.absolute else tip
        axes = ["xyz".index(self.config.command_names[i][-1]) for i in self._linear]
        self._way[self._linear] = (tip - self._tip_start)[axes]
        self._tip_came = monotonic()

    def _missing(self) -> str:
        """What has not come yet, or not lately; empty: nothing."""
        late = monotonic() - self.config.max_joint_age_s
        if self._came < late:
            return "joint states"
        return "tip_pose" if self._twists and self._linear and self._tip_came < late else ""

    def _tick(self) -> None:
        missing = self._missing()
        if missing and self._motion is None:
            self.get_logger().warning(f"waits for {missing}", throttle_duration_sec=5.0)
            return
        if missing:
            self.get_logger().warning(
                f"{missing}: none for {self.config.max_joint_age_s:g} s: asks for rest",
                throttle_duration_sec=2.0,
            )
            self._ask(np.zeros(self._width))
            return
        where = self._way.copy() if self._twists else self._joints
        if self._motion is None:
            self._motion = Motion(self._plan, where, self._period)
            self._report(where)
        if self._motion.done:
            self._rest()
            return
        velocity = self._within_joints(self._motion.step(where), where)
        turns = np.setdiff1d(np.arange(self._width), self._linear)
        self._way[turns] += velocity[turns] * self._period
        self._ask(velocity)
        if monotonic() - self._told >= TELL_S:
            self._report(where)

    def _within_joints(self, velocity: np.ndarray, where: np.ndarray) -> np.ndarray:
        """The same velocity, or one that goes back where a joint is at its limit."""
        config = self.config
        if not config.joint_low or len(config.joint_low) != len(self._joints):
            return velocity
        if np.all(self._joints > config.joint_low) and np.all(self._joints < config.joint_high):
            return velocity
        self.get_logger().warning(
            f"a joint is at its limit, {np.round(self._joints, 2).tolist()}: goes back",
            throttle_duration_sec=2.0,
        )
        back = self._motion.start - where
        return np.clip(back, -self._motion.speed / 2, self._motion.speed / 2)

    def _ask(self, velocity: np.ndarray) -> None:
        """Publish a request; positions are asked for where the robot takes positions."""
        values = velocity
        if self.config.command_type == "joint_trajectory":
            if self._joints is None:
                return
            values = self._joints + velocity * self._period
        self._request.publish(self._format.build(values, self.get_clock().now().to_msg()))

    def _rest(self) -> None:
        self._ask(np.zeros(self._width))
        self._rested += 1
        if self._rested == REST_TICKS:
            off = float(np.abs((self._way if self._twists else self._joints)
                               - self._motion.start).max())  # fmt: skip
            self.get_logger().info(
                f"done: {self._motion.coverage.share:.0%} of the box's cells visited, back at the "
                f"start within {off:.3f}"
            )
            self.finished = True

    def _report(self, where: np.ndarray) -> None:
        self._told = monotonic()
        if self._motion is not None:
            self.get_logger().info(
                f"{self._motion.elapsed / 60:.1f} of {self.config.minutes:g} min, "
                f"{self._motion.coverage.share:.0%} of the box's cells visited, at "
                f"{np.round(where, 3).tolist()}"
            )


def main(args: list[str] | None = None) -> int:
    """Run the node until its motion is over or a signal comes; exit code 0 for both."""
    return run_node(ExploreNode, args)


if __name__ == "__main__":
    sys.exit(main())
