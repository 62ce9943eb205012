"""Why a tick missed its deadline: what went on around it, and where its time went.

Every tick that planned is counted under one condition, so that rates can be compared; every miss
is kept with its lateness and its cause. Counts and misses travel as the text values of a
diagnostics entry.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wm_mpc.stats import wilson

if TYPE_CHECKING:
    from wm_mpc.tick import TickResult

FIRST_TICKS = 3
"""Ticks after a change of the engine that count as just swapped."""
CONDITIONS = ("swapped", "building", "otherwise")
CAUSES = ("own", "preempted", "blocked", "computing")
KEPT = 1000
"""Misses that wait to be told; more than a loop can have between two diagnostics."""
_SCHEDSTAT = "/proc/thread-self/schedstat"


@dataclass(frozen=True)
class Usage:
    """What a thread was given since it began.

    Attributes:
        cpu_s: [s] on a core.
        queued_s: [s] ready to run, but another thread or process had the core; 0 where the system
            does not tell.
        process_s: [s] that all threads of the process were on a core, since that began.
    """

    cpu_s: float
    queued_s: float
    process_s: float = 0.0


Meter = Callable[[], Usage]


def thread_usage() -> Usage:
    """Usage of the calling thread; costs some 20 microseconds."""
    try:
        with open(_SCHEDSTAT, "rb") as file:
            queued = int(file.read().split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        queued = 0.0
    return Usage(time.thread_time(), queued, time.process_time())


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


def cause(late_s: float, stall: Stall) -> str:
    """What a miss would not have happened without, one of ``CAUSES``.

    ``computing``: even without the time it stood still it would have been late: the search ended
    later than expected, or the processor was slower than usual. Otherwise it stood still for too
    long: ``own``: other threads of this process, such as the one that builds engines, computed
    at least as long meanwhile; without that ``preempted``: other processes had the core for as
    long; ``blocked``: anything else.

    >>> cause(0.002, Stall(0.001, 0.0, 0.009)), cause(0.002, Stall(0.003, 0.0, 0.002))
    ('computing', 'own')
    >>> cause(0.002, Stall(0.003, 0.001, 0.001)), cause(0.002, Stall(0.001, 0.001))
    ('preempted', 'blocked')
    """
    if stall.queued_s + stall.blocked_s < late_s:
        return "computing"
    if stall.own_s >= late_s:
        return "own"
    return "preempted" if stall.queued_s >= late_s else "blocked"


class MissLog:
    """Counts of ticks and misses by condition, and the misses not yet told; thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ticks: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()
        self._untold: list[dict[str, Any]] = []

    def add(self, number: int, result: TickResult, tick_s: float) -> None:
        """Count a tick; one that planned nothing had no deadline.

        Args:
            number: of the tick.
            result: what it gave.
            tick_s: [s] from its start until its command left.
        """
        if result.plan is None or result.engine is None:
            return
        around = result.around
        with self._lock:
            self._ticks[around.condition] += 1
            if result.deadline_missed:
                self._misses[around.condition] += 1
                self._untold = [*self._untold[1 - KEPT :], describe(number, result, tick_s)]

    def values(self) -> dict[str, str]:
        """Counts since the beginning and misses since the last call, as text; see ``Tally``."""
        with self._lock:
            untold, self._untold = self._untold, []
            counts = {
                f"{what}_{name}": str(counter[name])
                for name in CONDITIONS
                for what, counter in (("ticks", self._ticks), ("misses", self._misses))
            }
        return counts | {f"miss {miss['tick']}": json.dumps(miss) for miss in untold}


def describe(number: int, result: TickResult, tick_s: float) -> dict[str, Any]:
    """One miss in words and numbers [ms]."""
    around, stall, engine = result.around, result.stall, result.engine
    assert engine is not None
    times = {
        "late": result.late_s, "tick": tick_s, "encode": result.encode_s, "plan": result.plan_s,
        "queued": stall.queued_s, "blocked": stall.blocked_s, "own": stall.own_s,
        "woke_late": around.woke_late_s, "guard": around.guard_s,
    }  # fmt: skip
    return {
        "tick": number,
        "condition": around.condition,
        "cause": cause(result.late_s, stall),
        "building": around.building,
        "since_swap": around.since_swap,
        "past_period": tick_s > engine.config.period_s,
        **{f"{name}_ms": round(value * 1e3, 3) for name, value in times.items()},
    }


class Tally:
    """Reads what ``MissLog.values`` says, from the second time on: a run is joined midway."""

    def __init__(self) -> None:
        self.misses: list[dict[str, Any]] = []
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def hear(self, values: Mapping[str, str]) -> None:
        """Take in one entry."""
        counts = {key: int(value) for key, value in values.items() if not key.startswith("miss ")}
        if not self._first or counts.keys() != self._first.keys():
            self._first = self._last = counts
            return
        self._last = counts
        self.misses += [json.loads(v) for key, v in values.items() if key.startswith("miss ")]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Per condition: ticks, misses, their rate with its interval, lateness, causes."""
        rows = {}
        for name in CONDITIONS:
            ticks, misses = (
                self._last.get(f"{what}_{name}", 0) - self._first.get(f"{what}_{name}", 0)
                for what in ("ticks", "misses")
            )
            rows[name] = rate(ticks, misses) | summary(
                miss for miss in self.misses if miss["condition"] == name
            )
        return rows


def rate(ticks: int, misses: int) -> dict[str, Any]:
    """Rate of misses and its 95 % interval; None without a tick."""
    known = ticks > 0
    return {
        "ticks": ticks, "misses": misses, "rate": misses / ticks if known else None,
        "ci95": list(wilson(misses, ticks)) if known else None,
    }  # fmt: skip


def summary(misses: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Lateness [ms] and causes of some misses, and how many of them ran past the period."""
    chosen = list(misses)
    causes = Counter(miss["cause"] for miss in chosen)
    return {
        "late_ms_max": max((miss["late_ms"] for miss in chosen), default=0.0),
        "past_period": sum(miss["past_period"] for miss in chosen),
        "causes": {name: causes[name] for name in CAUSES},
    }


__all__ = [
    "CAUSES",
    "CONDITIONS",
    "Meter",
    "MissLog",
    "Stall",
    "Surroundings",
    "Tally",
    "Usage",
    "cause",
    "describe",
    "thread_usage",
]
