"""Subscriptions that cannot flood a node: between two messages of one topic lies a shortest time.

What comes meanwhile stays with the middleware, which keeps the newest only: the executor is not
even woken for it.
"""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from wm_mpc.core.clock import monotonic

IDLE_S = 0.5
"""[s] An executor that waits for nothing in particular looks around this often."""


class PacedGroup(MutuallyExclusiveCallbackGroup):
    """Callback group whose callbacks begin at least ``every_s`` after one another."""

    def __init__(self, every_s: float) -> None:
        super().__init__()
        self.every_s = every_s
        self.free_at = 0.0

    def can_execute(self, entity: Any) -> bool:
        """Whether a callback may run now."""
        return monotonic() >= self.free_at and super().can_execute(entity)

    def beginning_execution(self, entity: Any) -> bool:
        """Note that one begins."""
        begins = super().beginning_execution(entity)
        if begins:
            self.free_at = monotonic() + self.every_s
        return begins


def wake_in(node: Node) -> float:
    """Time after which an executor must look again [s]: a paced subscription is free then."""
    now = monotonic()
    groups = [subscription.callback_group for subscription in node.subscriptions]
    waits = [
        group.free_at - now
        for group in groups
        if isinstance(group, PacedGroup) and group.free_at > now
    ]
    return min([*waits, IDLE_S])


__all__ = ["IDLE_S", "PacedGroup", "wake_in"]
