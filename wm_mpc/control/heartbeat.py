"""Signs of life of a thread, and what ails it when they stay away."""

from __future__ import annotations

import threading
from collections.abc import Callable

from wm_mpc.core.clock import Clock, monotonic

Scheduled = Callable[[int], tuple[float, float]]
"""Time that a thread, by its system id, spent on a core and waiting for one [s]."""


def scheduled(native_id: int) -> tuple[float, float]:
    """Time on a core and in the queue for one [s]; zeros where the system does not tell."""
    try:
        with open(f"/proc/self/task/{native_id}/schedstat", "rb") as file:
            core, queue, *_ = file.read().split()
    except (OSError, ValueError):
        return 0.0, 0.0
    return int(core) * 1e-9, int(queue) * 1e-9


class Heartbeat:
    """One thread beats, another one asks; no lock, as each value has one writer.

    Args:
        patience_s: [s] without a beat before something is wrong.
        clock: monotonic clock.
        scheduled: what the system gave a thread.
    """

    def __init__(
        self, patience_s: float, clock: Clock = monotonic, scheduled: Scheduled = scheduled
    ) -> None:
        self.patience_s = patience_s
        self.died = ""
        self._clock = clock
        self._scheduled = scheduled
        self._at: float | None = None
        self._phase = "starting"
        self._native_id = 0
        self._given: tuple[float, float] | None = None

    def beat(self, phase: str) -> None:
        """Give a sign of life; for the thread that works.

        Args:
            phase: what it does from now on.
        """
        self._phase, self._at, self._given = phase, self._clock(), None
        if not self._native_id:
            self._native_id = threading.get_native_id()

    def end(self, why: str) -> None:
        """Say the last word: why the thread ends although nobody asked it to."""
        self.died = why

    @property
    def silence_s(self) -> float:
        """Time since the last beat [s]; 0 before the first."""
        return 0.0 if self._at is None else self._clock() - self._at

    def trouble(self) -> str:
        """What ails the thread, in one line; empty while it is well.

        ``dead``: it ended; ``starved``: it is ready, but others have the cores; ``busy``: it
        computes; ``hung``: it waits for something that does not come, or was stopped.
        """
        if self.died:
            return f"planner: dead: {self.died}"
        silence = self.silence_s
        if silence <= 0.5 * self.patience_s:
            return ""
        if self._given is None:
            self._given, self._since = self._scheduled(self._native_id), silence
        if silence <= self.patience_s:
            return ""
        core, queue = (
            after - before
            for after, before in zip(
                self._scheduled(self._native_id), self._given, strict=True
            )
        )
        watched = max(silence - self._since, 1e-9)
        what = "starved" if queue > 0.5 * watched else "busy" if core > 0.5 * watched else "hung"
        return f"planner: {what}: no sign of life for {silence:.2f} s while {self._phase}"


__all__ = ["Heartbeat", "Scheduled", "scheduled"]
