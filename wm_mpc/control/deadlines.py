"""Why a tick missed its deadline: what went on around it, and where its time went.

Every tick that planned is counted under one condition, so that rates can be compared; every miss
is kept with its lateness and its cause. Counts and misses travel as the text values of a
diagnostics entry.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from wm_mpc.control.thread_usage import CONDITIONS, Stall
from wm_mpc.core.stats import wilson

if TYPE_CHECKING:
    from wm_mpc.control.tick import TickResult

CAUSES = ("own", "preempted", "blocked", "computing")
KEPT = 1000
"""Misses that wait to be told; more than a loop can have between two diagnostics."""


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


__all__ = ["CAUSES", "MissLog", "Tally", "cause", "describe"]
