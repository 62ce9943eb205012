"""Controller on one machine, camera and gate on another: a bad link, and none at all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wm_mpc.control.gate import GateState

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools.two_hosts import Observed, TwoHosts, obstacle, start_both  # noqa: E402

PERIOD_S = 0.1
TROUBLE = obstacle()


@pytest.fixture
def hosts(ros_domain: int) -> Iterator[TwoHosts]:
    with TwoHosts() as hosts:
        yield hosts


def until(
    observed: Observed, wanted: Callable[[dict[str, Any]], Any], timeout_s: float, what: str
) -> dict[str, Any]:
    """First fact that is wanted."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        for fact in observed.read(1.0):
            if wanted(fact):
                return fact
    raise AssertionError(f"{what}: not within {timeout_s} s")


def in_state(state: GateState, since: float = 0.0) -> Callable[[dict[str, Any]], bool]:
    return lambda f: f["kind"] == "gate" and f["state"] == state and f["at"] > since


@pytest.mark.skipif(bool(TROUBLE), reason=TROUBLE)
def test_the_task_is_solved_over_a_bad_link_and_the_robot_rests_without_one(
    hosts: TwoHosts, tmp_path: Path
) -> None:
    hosts.condition(delay_s=0.020, jitter_s=0.005, loss=0.01)
    observed = start_both(hosts, "wall", tmp_path, "seed:=3")
    until(observed, in_state(GateState.PASSING), 120.0, "commands over the link")
    until(observed, lambda f: f["kind"] == "task" and f["success"], 120.0, "success")

    # in the middle of an episode, while commands pass
    passing = until(observed, in_state(GateState.PASSING), 30.0, "commands again")
    cut = hosts.condition(loss=1.0)
    stop = until(
        observed, lambda f: f["kind"] == "gate" and f["state"] != GateState.PASSING, 5.0, "a stop"
    )
    assert stop["passed"] >= passing["passed"]
    # Two periods after the last request that came, and a request may be under way at the cut.
    # Half a period is room for a busy machine.
    assert 2.0 * PERIOD_S <= stop["age_s"] < 2.5 * PERIOD_S
    assert stop["reason"].startswith("command_request: ")
    resting = until(observed, in_state(GateState.RESTING, cut), 5.0, "rest")
    assert not any(resting["command"])
    quiet = list(observed.read(1.0))
    assert {f["state"] for f in quiet if f["kind"] == "gate"} == {int(GateState.RESTING)}

    healed = hosts.condition(delay_s=0.020, jitter_s=0.005, loss=0.01)
    until(observed, in_state(GateState.PASSING, healed), 60.0, "commands after the outage")
