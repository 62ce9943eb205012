"""Publishers that a node cannot hear, said by name.

DDS connects a publisher and a subscription only where the qualities of service and the types fit.
Where they do not, nothing arrives and nothing fails: an e-stop, a goal or a camera goes unheard.
"""

from __future__ import annotations

from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

INPUTS = ": inputs"
"""How the name of the entry on ``/diagnostics`` ends that tells unheard publishers."""
PERIOD_S = 1.0


def unheard(node: Node) -> dict[str, str]:
    """Topics of which a node does not hear every publisher, each with a line that says why.

    A topic with several subscriptions is heard when one of them is served. Costs one question to
    the local graph per subscribed topic and sends nothing.
    """
    listening: dict[str, list[Any]] = {}
    for subscription in node.subscriptions:
        listening.setdefault(subscription.topic_name, []).append(subscription)
    told = {}
    for topic, subscriptions in listening.items():
        lines = [
            reason
            for offer in node.get_publishers_info_by_topic(topic)
            if (reason := _reason(offer, subscriptions))
        ]
        if lines:
            told[topic] = "; ".join(sorted(set(lines)))
    return told


def _reason(offer: Any, subscriptions: list[Any]) -> str:
    """Why an offer serves none of the subscriptions; empty: it serves one."""
    reasons = []
    for subscription in subscriptions:
        wanted = message_name(subscription.msg_type)
        if offer.topic_type != wanted:
            reasons.append(f"publishes {offer.topic_type}; {wanted} expected")
        elif words := mismatch(offer.qos_profile, subscription.qos_profile):
            reasons.append(words)
        else:
            return ""
    name = f"{offer.node_namespace.rstrip('/')}/{offer.node_name}"
    return f"{name} is not heard: {reasons[0]}"


def mismatch(offered: QoSProfile, requested: QoSProfile) -> str:
    """Why a publisher's quality of service does not serve a subscription; empty: it does."""
    fits, _ = qos_check_compatible(offered, requested)
    if fits != QoSCompatibility.ERROR:
        return ""
    for policy in ("reliability", "durability", "liveliness", "deadline"):
        offer, want = getattr(offered, policy), getattr(requested, policy)
        one = QoSProfile(depth=1, **{policy: offer})
        other = QoSProfile(depth=1, **{policy: want})
        if qos_check_compatible(one, other)[0] == QoSCompatibility.ERROR:
            return f"offers {policy} {_word(offer)}; {_word(want)} expected"
    return "offers another quality of service than asked for"


def message_name(kind: type) -> str:
    """A message class as the graph names it: ``sensor_msgs/msg/Image``."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def _word(value: Any) -> str:
    return getattr(value, "name", str(value)).lower()


def inputs_status(node: Node) -> DiagnosticStatus:
    """Entry of ``/diagnostics``: which publishers of this node's inputs go unheard; OK if none."""
    told = unheard(node)
    level = DiagnosticStatus.WARN if told else DiagnosticStatus.OK
    entry = DiagnosticStatus(level=level, name=f"{node.get_name()}{INPUTS}")
    lines = [f"{topic}: {reason}" for topic, reason in told.items()]
    entry.message = "; ".join(lines) or "every publisher is heard"
    entry.values = [KeyValue(key=topic, value=reason) for topic, reason in told.items()]
    return entry


def publish_inputs(node: Node) -> None:
    """Tell unheard publishers on ``/diagnostics`` every second, for nodes that tell nothing else.

    What goes unheard is logged as well, once per change.
    """
    publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    said: list[str] = [""]

    def tell() -> None:
        entry = inputs_status(node)
        if entry.level != DiagnosticStatus.OK and entry.message != said[0]:
            node.get_logger().warning(entry.message)
        said[0] = entry.message
        array = DiagnosticArray(status=[entry])
        array.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(array)

    node.create_timer(PERIOD_S, tell, clock=Clock(clock_type=ClockType.STEADY_TIME))
