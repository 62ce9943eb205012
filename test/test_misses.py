"""Misses are told apart by what went on, and counted beside the ticks they are a share of."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from wm_mpc.control.deadlines import MissLog, Tally, cause
from wm_mpc.control.thread_usage import FIRST_TICKS, Stall, Surroundings, Usage, thread_usage


@pytest.mark.parametrize(
    ("building", "since_swap", "condition"),
    [(False, -1, "otherwise"), (True, -1, "building"), (False, 0, "swapped"),
     (True, FIRST_TICKS - 1, "swapped"), (False, FIRST_TICKS, "otherwise"),
     (True, FIRST_TICKS, "building")],
)  # fmt: skip
def test_conditions(building: bool, since_swap: int, condition: str) -> None:
    assert Surroundings(building, since_swap).condition == condition


@pytest.mark.parametrize(
    ("queued", "blocked", "own", "expected"),
    [(0.003, 0.0, 0.0, "preempted"), (0.002, 0.009, 0.001, "preempted"),
     (0.001, 0.001, 0.0, "blocked"), (0.0, 0.002, 0.0, "blocked"), (0.003, 0.0, 0.002, "own"),
     (0.0, 0.003, 0.009, "own"), (0.001, 0.0005, 0.009, "computing"),
     (0.0, 0.0, 0.0, "computing")],
)  # fmt: skip
def test_a_cause_is_what_the_miss_would_not_have_happened_without(
    queued: float, blocked: float, own: float, expected: str
) -> None:
    assert cause(0.002, Stall(queued, blocked, own)) == expected


def test_a_stall_is_what_is_neither_computing_nor_queueing() -> None:
    stall = Stall.between(Usage(1.0, 2.0, 5.0), Usage(1.25, 2.5, 5.75), 1.0)
    assert stall == Stall(queued_s=0.5, blocked_s=0.25, own_s=0.5)
    # clocks that disagree by a little make no negative times
    assert Stall.between(Usage(1.0, 2.0, 3.0), Usage(2.5, 2.0, 4.0), 1.0) == Stall()


def test_the_thread_is_metered() -> None:
    before = thread_usage()
    sum(range(10**5))
    after = thread_usage()
    assert after.process_s > before.process_s and after.cpu_s > before.cpu_s
    assert after.queued_s >= before.queued_s >= 0


def tick(late_s: float, planned: bool = True, **around: Any) -> Any:
    engine = SimpleNamespace(config=SimpleNamespace(period_s=0.1))
    return SimpleNamespace(
        plan=object() if planned else None, engine=engine, deadline_missed=late_s > 0,
        late_s=late_s, stall=Stall(0.002, 0.0), encode_s=0.005, plan_s=0.04,
        around=Surroundings(**around),
    )  # fmt: skip


def test_a_run_is_counted_from_where_it_was_joined() -> None:
    log, tally = MissLog(), Tally()
    log.add(1, tick(0.5), 0.2)
    tally.hear(log.values())
    log.add(2, tick(-0.001), 0.05)
    log.add(3, tick(0.001, building=True), 0.05)
    log.add(4, tick(0.004, since_swap=0), 0.15)
    log.add(5, tick(0.0, since_swap=1), 0.05)
    log.add(6, tick(0.3, planned=False), 0.3)
    tally.hear(log.values())
    tally.hear(log.values())
    assert [(m["tick"], m["condition"], m["cause"]) for m in tally.misses] == [
        (3, "building", "preempted"), (4, "swapped", "computing"),
    ]  # fmt: skip
    rows = tally.rows()
    assert {name: (row["ticks"], row["misses"]) for name, row in rows.items()} == {
        "swapped": (2, 1), "building": (1, 1), "otherwise": (1, 0),
    }  # fmt: skip
    swapped = rows["swapped"]
    assert (swapped["rate"], swapped["late_ms_max"], swapped["past_period"]) == (0.5, 4.0, 1)
    assert swapped["causes"] == {"own": 0, "preempted": 0, "blocked": 0, "computing": 1}
    low, high = rows["otherwise"]["ci95"]
    assert low == 0.0 and 0.7 < high < 0.9
    json.dumps([rows, tally.misses], allow_nan=False)


def test_without_ticks_there_is_no_rate() -> None:
    rows = Tally().rows()
    assert all(row["ticks"] == 0 and row["rate"] is row["ci95"] is None for row in rows.values())
