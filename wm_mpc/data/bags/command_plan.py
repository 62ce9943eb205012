"""Commands of several points: at any time the one that is being pursued is in force."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

_LONGEST_NS = 3600 * 10**9


class CommandPlan:
    """The points of the newest trajectory that are still to come into force.

    Point ``i`` is pursued from when point ``i - 1`` is to be reached until it is to be reached
    itself; it is given again every half period, so that it never looks like a command that ended.
    """

    def __init__(self) -> None:
        self._due: deque[tuple[int, np.ndarray]] = deque()

    def take(
        self, start: int, points: Sequence[tuple[int, np.ndarray]], period_s: float
    ) -> bool:
        """Put a trajectory in the place of the one before.

        Args:
            start: [ns] when its time begins.
            points: ``(reached after [ns], numbers)``, in order.
            period_s: [s] control period.

        Returns:
            Whether points of the one before had not come into force.
        """
        replaced = bool(self._due)
        self._due.clear()
        if len(points) < 2:
            return replaced
        half = max(1, round(period_s * 5e8))
        begin = 0
        for after, values in points:
            end = min(after, _LONGEST_NS)
            for moment in range(begin, end, half):
                if moment:
                    self._due.append((start + moment, values))
            begin = max(begin, end)
        return replaced

    def due(self, until: int | None) -> Iterator[tuple[int, np.ndarray]]:
        """Give what comes into force up to ``until`` [ns]; None: everything."""
        while self._due and (until is None or self._due[0][0] <= until):
            yield self._due.popleft()

    def clear(self) -> None:
        """Forget the trajectory."""
        self._due.clear()
