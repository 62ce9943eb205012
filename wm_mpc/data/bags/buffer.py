"""Samples of one topic, ordered by time, with the three ways to read a value off them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Any

import numpy as np

_CLOCK_WENT_BACK = 3
"""Samples in a row far behind the newest that mean a clock set back; one is an outlier."""


class SampleBuffer:
    """A short window of ``(stamp, value)`` pairs that arrive roughly in order.

    Attributes:
        stamps: int nanoseconds, strictly increasing.
        values: one per stamp.
        newest: largest stamp ever pushed since the last ``clear``, or None.
        first: the stamp pushed first since then, or None.
        dropped: reason -> number of samples that were not kept.

    Args:
        reorder_ns: samples up to this much behind the newest one are sorted in; later ones are
            dropped.
    """

    def __init__(self, reorder_ns: int) -> None:
        self.stamps: list[int] = []
        self.values: list[Any] = []
        self.newest: int | None = None
        self.first: int | None = None
        self.dropped: Counter[str] = Counter()
        self._reorder_ns = reorder_ns
        self._forgotten: int | None = None
        self._behind = 0

    def __len__(self) -> int:
        """Samples in the window."""
        return len(self.stamps)

    def push(self, stamp: int, value: Any) -> bool:
        """Take in a sample.

        Returns:
            True when the samples show that the clock was set back: the caller then starts over.
        """
        if self.newest is None or stamp > self.newest:
            self.stamps.append(stamp)
            self.values.append(value)
            if self.newest is None:
                self.first = stamp
            self.newest = stamp
            self._behind = 0
            return False
        if stamp < self.newest - self._reorder_ns:
            self._behind += 1
            self.dropped["stamp goes backward"] += 1
            return self._behind >= _CLOCK_WENT_BACK
        self._behind = 0
        at = bisect_left(self.stamps, stamp)
        if at < len(self.stamps) and self.stamps[at] == stamp:
            self.dropped["duplicate stamp"] += 1
        elif self._forgotten is not None and stamp <= self._forgotten:
            self.dropped["duplicate stamp" if stamp == self._forgotten else "too late"] += 1
        else:
            self.stamps.insert(at, stamp)
            self.values.insert(at, value)
        return False

    def forget_before(self, stamp: int) -> int:
        """Drop samples older than ``stamp``; return how many."""
        count = bisect_left(self.stamps, stamp)
        if count:
            self._forgotten = self.stamps[count - 1]
            del self.stamps[:count], self.values[:count]
        return count

    def forget_from(self, stamp: int) -> None:
        """Drop samples of ``stamp`` and later: something else holds from there on."""
        at = bisect_left(self.stamps, stamp)
        del self.stamps[at:], self.values[at:]

    def clear(self) -> None:
        """Forget everything, the newest stamp included."""
        self.stamps.clear()
        self.values.clear()
        self.newest = self.first = self._forgotten = None
        self._behind = 0

    def nearest(self, stamp: int, tolerance_ns: int) -> int | None:
        """Index of the sample nearest to ``stamp`` within the tolerance; earlier of equals."""
        at = bisect_left(self.stamps, stamp)
        around = [i for i in (at - 1, at) if 0 <= i < len(self.stamps)]
        best = min(around, key=lambda i: abs(self.stamps[i] - stamp), default=None)
        if best is None or abs(self.stamps[best] - stamp) > tolerance_ns:
            return None
        return best

    def read(self, stamp: int, method: str, tolerance_ns: int) -> Any | None:
        """Value at ``stamp``, or None where the samples do not reach.

        Args:
            stamp: instant [ns].
            method: ``nearest``; ``zoh``, the newest sample that is not later; ``linear`` between
                the two samples
                around ``stamp``, both within the tolerance (at an open end: the nearest).
            tolerance_ns: how far away a sample may lie.
        """
        at = bisect_left(self.stamps, stamp)
        if at < len(self.stamps) and self.stamps[at] == stamp:
            return self.values[at]
        if method == "zoh":
            known = at > 0 and stamp - self.stamps[at - 1] <= tolerance_ns
            return self.values[at - 1] if known else None
        if method == "linear" and 0 < at < len(self.stamps):
            before, after = self.stamps[at - 1], self.stamps[at]
            if max(stamp - before, after - stamp) > tolerance_ns:
                return None
            weight = (stamp - before) / (after - before)
            return (1 - weight) * self.values[at - 1] + weight * np.asarray(self.values[at])
        best = self.nearest(stamp, tolerance_ns)
        return None if best is None else self.values[best]
