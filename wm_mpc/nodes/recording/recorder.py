"""Records the controller's topics into a rosbag2; needs no ROS distribution.

Messages are written as they arrive, undecoded, under the node's clock. Topics may appear, and end,
at any time. See ``wm_mpc.data.bags.writer`` for what a killed recorder leaves behind.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

from wm_mpc.core.errors import DataError, UserError
from wm_mpc.core.fields import Checked
from wm_mpc.core.files import write_failure
from wm_mpc.data.bags.writer import BagWriter, WriterConfig
from wm_mpc.nodes.common.inputs import mismatch, publish_inputs
from wm_mpc.nodes.common.parameters import ParameterReader
from wm_mpc.nodes.common.spin import run_node

TOPICS = (
    "image",
    "image/compressed",
    "proprio",
    "command",
    "plan",
    "status",
    "goal_image",
    "goal_proprio",
    "task_state",
    "e_stop",
    "gate_status",
    "corrected_trajectory",
)
_QUEUE = 50
_FOREVER = QosTime(9223372036, 854775807)


@dataclass(frozen=True)
class RecorderConfig(Checked):
    """What is recorded, and for how long.

    Attributes:
        out: folder of the bag; empty: the task and the time of day, in the working directory.
        task: task or robot name, part of an unnamed bag's name.
        topics: names to record, relative to the node's namespace and remappable.
        scan_s: [s] between two looks for new topics.
        duration_s: [s] recording ends after this time; 0: when it is told to.
    """

    out: str = ""
    task: str = "robot"
    topics: tuple[str, ...] = TOPICS
    scan_s: Annotated[float, Ge(0.05), Le(60.0)] = 0.5
    duration_s: Annotated[float, Ge(0.0), Le(1e7)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.topics:
            raise ValueError("topics: none; at least 1 expected")

    def path(self) -> Path:
        """Where the bag goes."""
        return Path(self.out or f"{self.task}_{datetime.now():%Y%m%d_%H%M%S}")


class RecorderNode(Node):
    """The node; see the module.

    Args:
        config: None: from the node's parameters.
        layout: likewise.

    Raises:
        UserError: a parameter is wrong, or the bag exists.
    """

    def __init__(
        self, config: RecorderConfig | None = None, layout: WriterConfig | None = None
    ) -> None:
        super().__init__("recorder_node", automatically_declare_parameters_from_overrides=True)
        reader = ParameterReader(self)
        self.config = config or reader.read(RecorderConfig())
        self.layout = layout or reader.read(WriterConfig())
        reader.reject_unknown()
        self.exit_code = 0
        self._writer = BagWriter(self.config.path(), self.layout)
        self._wanted = {self.resolve_topic_name(name) for name in self.config.topics}
        self._refused: set[str] = set()
        self._recorded: dict[str, tuple[str, Any]] = {}

    def start(self) -> None:
        """Look for topics and record them from now on."""
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(self.config.scan_s, self._scan, clock=steady)
        self.create_timer(max(0.05, self.layout.flush_s), self._flush, clock=steady)
        if self.config.duration_s:
            self.create_timer(self.config.duration_s, self._end, clock=steady)
        publish_inputs(self)
        self.get_logger().info(f"recording to {self._writer.path}")
        self._scan()

    def stop(self) -> None:
        """Complete the bag and say what it holds; a full disk may leave no room for its end."""
        if not self._guarded(self._writer.close):
            return
        counts = ", ".join(f"{name} {n}" for name, n in sorted(self._writer.counts.items()))
        self.get_logger().info(f"{self._writer.path} is complete: {counts or 'no messages'}")

    def _scan(self) -> None:
        """Subscribe to wanted topics that somebody publishes now, and to whoever joins them."""
        self._hear_newcomers()
        for topic, types in self.get_topic_names_and_types():
            if topic not in self._wanted or topic in self._refused:
                continue
            offers = self.get_publishers_info_by_topic(topic)
            if not offers:
                continue
            self._wanted.discard(topic)
            try:
                if len(types) != 1:
                    raise DataError(f"several types: {', '.join(types)}")
                self._record(topic, types[0], [offer.qos_profile for offer in offers])
            except (DataError, ImportError, AttributeError) as error:
                self._refused.add(topic)
                self.get_logger().error(f"{topic} is not recorded: {error}")

    def _record(self, topic: str, msgtype: str, offers: list[QoSProfile]) -> None:
        profile = matching_profile(offers)
        self._writer.add_topic(topic, msgtype, qos=[_described(profile)])
        self._subscribe(topic, msgtype, profile)
        self.get_logger().info(f"recording {topic} [{msgtype}]")

    def _subscribe(self, topic: str, msgtype: str, profile: QoSProfile) -> None:
        subscription = self.create_subscription(
            message_class(msgtype), topic, partial(self._write, topic), profile, raw=True
        )
        self._recorded[topic] = (msgtype, subscription)

    def _hear_newcomers(self) -> None:
        """Ask for less where a later publisher offers less than those before it."""
        for topic, (msgtype, subscription) in list(self._recorded.items()):
            offers = [
                offer.qos_profile
                for offer in self.get_publishers_info_by_topic(topic)
                if offer.topic_type == msgtype
            ]
            if any(mismatch(offer, subscription.qos_profile) for offer in offers):
                self.destroy_subscription(subscription)
                self._subscribe(topic, msgtype, matching_profile(offers))
                self.get_logger().info(f"{topic}: another publisher offers less; heard as well")

    def _write(self, topic: str, data: bytes) -> None:
        if self.exit_code:
            return
        self._guarded(partial(self._writer.write, topic, self.get_clock().now().nanoseconds, data))

    def _flush(self) -> None:
        self._guarded(self._writer.flush)

    def _guarded(self, action: Callable[[], Any]) -> bool:
        """Do something with the disk; when the disk will not, say so and end.

        Returns:
            Whether it was done.
        """
        try:
            action()
            return True
        except (DataError, OSError) as error:
            told = write_failure(self._writer.path, error) if isinstance(error, OSError) else error
            self.get_logger().fatal(str(told))
            if not self.exit_code:
                self.exit_code = 1
                self._end()
            return False

    def _end(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def message_class(msgtype: str) -> Any:
    """Python class of a message type such as ``sensor_msgs/msg/Image``.

    Raises:
        ImportError: its package is not installed or has no such message.
    """
    package, _, name = msgtype.replace("/", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(package), name)
    except AttributeError:
        raise ImportError(f"{package} has no {name}") from None


def matching_profile(offers: list[QoSProfile]) -> QoSProfile:
    """Subscription profile that every offer serves, as reliable as they allow."""
    reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
    latched = all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
    return QoSProfile(
        depth=_QUEUE,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _described(profile: QoSProfile) -> Qos:
    """The profile in the words of a bag, so that a player can offer the same."""
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=profile.depth,
        reliability=QosReliability(int(profile.reliability)),
        durability=QosDurability(int(profile.durability)),
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )


def record(config: RecorderConfig | None = None, layout: WriterConfig | None = None) -> int:
    """Record until a signal comes; without arguments everything comes from ROS parameters.

    Returns:
        0 after a signal or the asked duration, 1 when the disk was full, 2 on bad parameters.
    """
    nodes: list[RecorderNode] = []

    def create() -> RecorderNode:
        nodes.append(RecorderNode(config, layout))
        return nodes[0]

    code = run_node(create, None if config is None else [])
    return code or (nodes[0].exit_code if nodes else 0)


def main() -> int:
    """Entry point of the executable."""
    try:
        return record()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
