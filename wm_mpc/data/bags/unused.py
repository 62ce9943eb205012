"""Parts of a twist that a robot never uses: what never changes cannot be learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_mpc.core.channels import Channel
from wm_mpc.core.errors import MessageError
from wm_mpc.data.bags.topics import FIELDS, VectorReader

TWISTS = ("geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped")


class Spread:
    """Which numbers of a topic change, over all of its messages.

    Args:
        msgtype: one of ``TWISTS``.
    """

    def __init__(self, msgtype: str) -> None:
        self.paths = FIELDS[msgtype]
        self._read = VectorReader("command", msgtype, ())
        self._low = np.full(len(self.paths), np.inf)
        self._high = -self._low

    def __call__(self, message: Any) -> None:
        """Take in a decoded message; one that cannot be used is told of later."""
        try:
            values = self._read(message)
        except MessageError:
            return
        np.minimum(self._low, values, out=self._low)
        np.maximum(self._high, values, out=self._high)

    def changing(self) -> tuple[str, ...]:
        """Fields with more than one value."""
        return tuple(np.array(self.paths)[self._high > self._low].tolist())


def choose(spread: Spread, known: tuple[Channel, ...]) -> tuple[tuple[str, ...], str, str]:
    """Fields to read, where nobody named any.

    Args:
        spread: of the bag's commands.
        known: action channels of the store; empty: a new one.

    Returns:
        The fields, a note on what is left out, and a problem; both empty where there is none.
    """
    names = tuple(channel.name for channel in known)
    changing = spread.changing()
    if names and set(names) <= set(spread.paths):
        more = [path for path in changing if path not in names]
        words = f"command: {', '.join(more)} change here and are not in the store"
        return names, "", words if more else ""
    if names or not changing:
        return spread.paths, "", ""
    left = [path for path in spread.paths if path not in changing]
    return changing, f"never changing, left out: {', '.join(left)}" if left else "", ""


__all__ = ["TWISTS", "Spread", "choose"]
