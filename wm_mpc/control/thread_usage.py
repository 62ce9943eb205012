"""What a thread was given: running, waiting for a core, blocked; the circumstances of a tick."""

from __future__ import annotations

from dataclasses import dataclass

from wm_mpc.core.usage import Meter, Usage, thread_usage

FIRST_TICKS = 3
"""Ticks after a change of the engine that count as just swapped."""
CONDITIONS = ("swapped", "building", "otherwise")


@dataclass(frozen=True)
class Stall:
    """Time between two instants during which a thread did not run.

    Attributes:
        queued_s: [s] another thread or process had the core.
        blocked_s: [s] it waited for something else: the interpreter, a lock, the disk.
        own_s: [s] other threads of its process were on a core between these instants.
    """

    queued_s: float = 0.0
    blocked_s: float = 0.0
    own_s: float = 0.0

    @classmethod
    def between(cls, first: Usage, last: Usage, wall_s: float) -> Stall:
        """Stall of a thread that was measured at both ends of ``wall_s`` [s]."""
        queued, cpu = last.queued_s - first.queued_s, last.cpu_s - first.cpu_s
        own = last.process_s - first.process_s - cpu
        return cls(max(0.0, queued), max(0.0, wall_s - cpu - queued), max(0.0, own))


@dataclass(frozen=True)
class Surroundings:
    """What went on around a tick.

    Attributes:
        building: an engine was being built while the tick ran.
        since_swap: ticks with the present engine before this one; -1: it never changed.
        woke_late_s: [s] the thread was ready, but had no core, between the last tick and this one.
        guard_s: [s] the guard judged after the last tick.
    """

    building: bool = False
    since_swap: int = -1
    woke_late_s: float = 0.0
    guard_s: float = 0.0

    @property
    def condition(self) -> str:
        """One of ``CONDITIONS``; a tick just swapped counts as that, whatever else went on."""
        if 0 <= self.since_swap < FIRST_TICKS:
            return "swapped"
        return "building" if self.building else "otherwise"


__all__ = [
    "CONDITIONS",
    "FIRST_TICKS",
    "Meter",
    "Stall",
    "Surroundings",
    "Usage",
    "thread_usage",
]
