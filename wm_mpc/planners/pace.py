"""How long a model transition takes here and now: what decides how much fits before a deadline."""

from __future__ import annotations

import statistics
from collections import deque

KEPT = 5
"""Chunks that are remembered: two stalls among them are not believed, a slower machine is."""


class Pace:
    """Expected time of one model transition, from the chunks of a search.

    A chunk in which the thread stood still (another process had the core, the process was
    stopped) says nothing about the next one, and a machine that became slower must be believed
    soon: the median of the last chunks does both. One fast chunk is proof that the machine can be
    fast: the pace is never above the last one, so that it forgets any load with the first chunk
    after it.

    >>> pace = Pace()
    >>> for seconds in (1.0, 1.0, 90.0):
    ...     pace.add(seconds)
    >>> pace.seconds
    1.0
    >>> for seconds in (90.0, 90.0, 90.0):
    ...     pace.add(seconds)
    >>> pace.seconds
    90.0
    >>> pace.add(2.0)
    >>> pace.seconds
    2.0
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=KEPT)

    def add(self, seconds: float) -> None:
        """Note what a transition took in the last chunk [s]."""
        self._recent.append(seconds)

    @property
    def seconds(self) -> float:
        """Expected time of one transition [s]; 0: nothing was measured yet."""
        if not self._recent:
            return 0.0
        return min(self._recent[-1], statistics.median(self._recent))


__all__ = ["Pace"]
