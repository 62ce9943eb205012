"""A clock in the hands of a test."""

from __future__ import annotations


class FakeClock:
    """A clock that moves only when told, and optionally by a fixed amount per reading.

    >>> clock = FakeClock(tick=0.5)
    >>> clock(), clock()
    (0.0, 0.5)
    """

    def __init__(self, start: float = 0.0, tick: float = 0.0) -> None:
        self.now = start
        self.tick = tick

    def __call__(self) -> float:
        """Return the instant, then advance by ``tick``."""
        now = self.now
        self.now += self.tick
        return now

    def advance(self, seconds: float) -> None:
        """Move the clock forward by ``seconds``."""
        if seconds < 0:
            raise ValueError(f"seconds: {seconds} is negative; a monotonic clock never goes back")
        self.now += seconds
