"""Cores, real-time priority and the collector: what is asked for happens, or is refused."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wm_mpc.core.errors import UserError
from wm_mpc.core.scheduling import PausedCollector, check_fifo, use_cores, use_fifo

ROOT = Path(__file__).resolve().parents[1]
PINNED = """
import os, threading
from wm_mpc.core.scheduling import use_cores
ready, go = threading.Event(), threading.Event()
def wait():
    ready.set()
    go.wait()
before = threading.Thread(target=wait); before.start(); ready.wait()
use_cores((CORE,))
after = threading.Thread(target=go.wait); after.start()
threads = threading.main_thread(), before, after
print(*(sorted(os.sched_getaffinity(thread.native_id)) for thread in threads))
go.set()
"""


def test_every_thread_stays_on_the_cores() -> None:
    core = max(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-c", PINNED.replace("CORE", str(core))],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == f"[{core}] [{core}] [{core}]"


def test_no_cores_change_nothing_and_unusable_ones_are_named() -> None:
    before = os.sched_getaffinity(0)
    use_cores(())
    with pytest.raises(UserError, match=r"cores: \[100000\]; some of .* expected"):
        use_cores((100000,))
    assert os.sched_getaffinity(0) == before


def test_fifo_holds_for_one_thread_or_is_refused_in_one_line() -> None:
    seen: list[object] = []

    def thread() -> None:
        try:
            use_fifo(5)
        except UserError as error:
            seen.append(str(error))
        else:
            policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
            seen.append((policy, os.sched_getparam(0).sched_priority))

    one = threading.Thread(target=thread)
    one.start()
    one.join()
    if isinstance(seen[0], str):
        assert seen[0].startswith("fifo_priority: 5; not permitted: CAP_SYS_NICE or")
        with pytest.raises(UserError, match="not permitted"):
            check_fifo(5)
    else:
        assert seen[0] == (os.SCHED_FIFO, 5)
        check_fifo(5)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_what_is_not_permitted_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with pytest.raises(UserError, match="fifo_priority: 50; not permitted") as caught:
        check_fifo(50)
    assert "\n" not in str(caught.value)
    check_fifo(0)


class Ring:
    """Garbage that only the collector finds."""

    alive = 0

    def __init__(self) -> None:
        self.me = self
        Ring.alive += 1

    def __del__(self) -> None:
        Ring.alive -= 1


def test_the_collector_waits_for_a_pause_that_is_long_enough() -> None:
    runs: list[str] = []

    def note(phase: str, _info: object) -> None:
        runs.append(phase)

    collector = PausedCollector()
    gc.collect()
    gc.callbacks.append(note)
    try:
        collector.begin()
        for _ in range(2 * gc.get_threshold()[0]):
            Ring()
        assert not runs and Ring.alive > gc.get_threshold()[0]
        assert not collector.pause(0.001) and not runs
        assert collector.pause(0.05)
        assert Ring.alive == 0
        assert not collector.pause(0.05), "nothing is due any more"
    finally:
        collector.end()
        gc.callbacks.remove(note)
    assert gc.isenabled()
