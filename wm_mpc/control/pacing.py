"""When the next control step is due. Pure: instants go in, waiting times come out."""

from __future__ import annotations

import math


class Schedule:
    """An absolute schedule: steps are due on a grid, so that small errors do not add up.

    A late step does not pull the following ones together: whole periods that were missed are left
    out, the grid stays.

    Args:
        period: time between two steps [s], more than 0.

    >>> schedule = Schedule(0.5)
    >>> [schedule.wait(now) for now in (10.0, 10.25, 10.75, 12.25)]
    [0.0, 0.25, 0.0, 0.0]
    >>> schedule.wait(12.375), schedule.missed
    (0.125, 2)
    """

    def __init__(self, period: float) -> None:
        if not period > 0:
            raise ValueError(f"period: {period} s; more than 0 expected")
        self.period = period
        self.missed = 0
        self._due: float | None = None

    def wait(self, now: float) -> float:
        """Time until the next step [s]; 0: it is due, and this call counts as taking it.

        A clock that jumped back begins a new grid.
        """
        if self._due is None or now < self._due - 2 * self.period:
            self._due = now
        if now < self._due:
            return self._due - now
        late = math.floor((now - self._due) / self.period + 1e-9)
        self.missed += late
        self._due += (late + 1) * self.period
        return 0.0


class ImagePacer:
    """Steps that follow the camera, and go on without it.

    A step is due as soon as a new image is there and the last image is nearly a period old: acting
    on a picture at once costs less delay than waiting for a grid the camera knows nothing of. When
    no image comes, steps go on, so that watchdogs run.

    Args:
        period: nominal time between two steps [s], more than 0.
        early: share of the period by which an image may come early.
        patience: periods after which a step is due without an image.
    """

    def __init__(self, period: float, early: float = 0.1, patience: float = 1.25) -> None:
        if not period > 0:
            raise ValueError(f"period: {period} s; more than 0 expected")
        self.period = period
        self.early = early
        self.patience = patience
        self._last_step = -math.inf
        self._last_image = -math.inf

    def wait(self, now: float, fresh: bool) -> float:
        """Time until the next step [s]; 0: it is due, and this call counts as taking it.

        Args:
            now: [s], any clock; one that jumped back begins anew.
            fresh: whether an image waits that no step has used.
        """
        if now < self._last_step - self.period:
            self._last_step = self._last_image = -math.inf
        blind = self._last_step + self._patience()
        seeing = self._last_image + (1 - self.early) * self.period if fresh else math.inf
        due = min(blind, seeing)
        if now < due:
            return due - now
        self._last_step = now
        if fresh:
            self._last_image = now
        return 0.0

    def _patience(self) -> float:
        """Patience is for an image that comes a little late; without any, the pace is even."""
        seen_last_time = self._last_image == self._last_step
        return self.period * (self.patience if seen_last_time else 1.0)


__all__ = ["ImagePacer", "Schedule"]
