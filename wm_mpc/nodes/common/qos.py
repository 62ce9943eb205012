"""Qualities of service, named by what they are for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from std_msgs.msg import Bool

IMAGE = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Newest picture only; hears reliable and best-effort publishers."""
PROPRIO = qos_profile_sensor_data
"""A few samples, to find the one nearest to a picture."""
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Newest sample only, from publishers of every kind."""
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Newest command only, but that one for sure."""
COMMANDS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Every command, for whoever only watches: nobody waits for that one's acknowledgement."""
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Goals: whoever comes later hears the last one."""
EVENT = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Rare messages of which none may be lost."""
MANY_CALLS = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE)
"""A service that many may call at once: a short queue would leave some without an answer."""

EVERY = (
    LATCHED,
    EVENT,
    QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT),
)
"""Together these hear every publisher: latched ones that spoke before, reliable ones for sure,
and best-effort ones at all. One message may come up to three times."""


def hear_every(
    node: Node, topic: str, hear: Callable[[bool, bytes, int], None]
) -> list[Any]:
    """Subscribe to a ``std_msgs/Bool`` whatever its publishers' quality of service.

    Args:
        node: who hears.
        topic: for example ``e_stop``.
        hear: called with the word, the publisher's id and the time it was sent [ns, its clock].
            What comes twice is the same in all three; order them by the time.

    Returns:
        The subscriptions.
    """

    def on_message(message: Bool, info: dict) -> None:
        hear(message.data, sender_of(info), info["source_timestamp"])

    # That one of them does not fit a publisher is meant, and no reason for a warning.
    quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
    return [
        node.create_subscription(Bool, topic, on_message, profile, event_callbacks=quiet)
        for profile in EVERY
    ]


def sender_of(info: dict) -> bytes:
    """Id of a message's publisher; empty where the middleware does not tell."""
    gid = info.get("publisher_gid")
    return bytes(gid["data"])[:16] if gid else b""


def publishers_of(node: Node, topic: str) -> set[bytes]:
    """Ids of the publishers of a topic that exist now; see ``sender_of``."""
    found = node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
    return {bytes(info.endpoint_gid)[:16] for info in found}


__all__ = [
    "COMMAND",
    "COMMANDS",
    "EVENT",
    "EVERY",
    "IMAGE",
    "LATCHED",
    "MANY_CALLS",
    "NEWEST",
    "PROPRIO",
    "hear_every",
    "publishers_of",
    "sender_of",
]
