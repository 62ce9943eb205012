"""What is wrong with stamps that no watchdog can believe, and what to do about it. Pure."""

from __future__ import annotations

import math
from collections import deque

STANDING_S = 1.0
"""[s] of real time after which a clock that has not moved stands still."""
OFFSET_S = 2.0
"""[s] A constant age larger than this is no delay: two clocks differ."""


class ClockWatch:
    """Tells a node clock that stands still: a simulated one that nobody publishes, or a pause.

    >>> watch = ClockWatch()
    >>> watch.trouble(0.0, 10.0), watch.trouble(0.0, 10.5)
    ('', '')
    >>> watch.trouble(0.0, 11.5)[:53]
    'clock: use_sim_time is true, but nothing came on /clo'
    """

    def __init__(self) -> None:
        self._last = math.nan
        self._moved = -math.inf

    def trouble(self, node_now: float, now: float) -> str:
        """Say what is wrong, or nothing.

        Args:
            node_now: [s] node clock.
            now: [s] monotonic clock.
        """
        if node_now != self._last:
            self._last, self._moved = node_now, now
        if now - self._moved < STANDING_S:
            return ""
        if node_now == 0:
            return (
                "clock: use_sim_time is true, but nothing came on /clock: start what publishes "
                "it, or set use_sim_time to false"
            )
        return f"clock: /clock stands still at {node_now:.3f} s: is the simulator paused?"


class StampWatch:
    """Tells a camera whose clock is not the node's from pictures that are really old."""

    def __init__(self) -> None:
        self._ages: deque[float] = deque(maxlen=10)

    def clear(self) -> None:
        """Forget everything."""
        self._ages.clear()

    def arrived(self, stamp: float, now: float) -> None:
        """Note the age of a picture on arrival.

        Args:
            stamp: [s] of the picture.
            now: [s] node clock.
        """
        self._ages.append(now - stamp)

    def hint(self) -> str:
        """What is wrong and what to do, or nothing.

        >>> watch = StampWatch()
        >>> for k in range(5):
        ...     watch.arrived(stamp=7.0 + k, now=1007.0 + k)
        >>> watch.hint()[:62]
        'camera clock and node clock differ by 1000.000 s, constant: se'
        """
        if len(self._ages) < 3:
            return ""
        low, high = min(self._ages), max(self._ages)
        if min(abs(low), abs(high)) < OFFSET_S or high - low > 0.5:
            return ""
        return (
            f"camera clock and node clock differ by {self._ages[-1]:.3f} s, constant: set them "
            "alike, or set stamp_source to arrival"
        )


__all__ = ["ClockWatch", "StampWatch"]
