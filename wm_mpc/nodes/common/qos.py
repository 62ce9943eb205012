"""Qualities of service, named by what they are for."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

IMAGE = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Newest picture only; hears reliable and best-effort publishers."""
PROPRIO = qos_profile_sensor_data
"""A few samples, to find the one nearest to a picture."""
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""Newest command only, but that one for sure."""
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Goals: whoever comes later hears the last one."""
EVENT = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Rare messages of which none may be lost."""

__all__ = ["COMMAND", "EVENT", "IMAGE", "LATCHED", "PROPRIO"]
