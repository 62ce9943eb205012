"""Episodes, model changes and misses are counted right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from wm_mpc.control.tick import State
from wm_mpc.msg import PlannerStatus, TaskState
from wm_mpc.nodes.mpc.telemetry import deadlines
from wm_mpc.trials.live_watch import LiveWatch


@pytest.fixture
def watch(ros_domain: int) -> Iterator[LiveWatch]:
    watch = LiveWatch()
    yield watch
    watch.close()


def test_only_whole_episodes_count(watch: LiveWatch) -> None:
    for episode, success in ((7, True), (8, False), (8, True), (8, False), (9, False), (10, True)):
        watch._on_state(TaskState(episode=episode, success=success))
    # 7 was not seen from its start, 10 is not over
    assert watch.episodes == [True, False]
    watch.begin()
    for episode in (10, 11, 12):
        watch._on_state(TaskState(episode=episode, success=True))
    assert watch.episodes == [True]


def test_changes_and_misses(watch: LiveWatch) -> None:
    def status(model: str, missed: bool = False, state: State = State.RUNNING) -> None:
        watch._on_status(PlannerStatus(model_hash=model, deadline_missed=missed, state=int(state)))

    assert not watch.running()
    status("a")
    assert watch.running() and watch.changes == []
    status("b", missed=True)
    status("a")
    status("c", state=State.SAFE_STOP)
    assert [(before, after) for _, before, after in watch.changes] == [
        ("a", "b"), ("b", "a"), ("a", "c"),
    ]  # fmt: skip
    assert (watch.changes_back, watch.stopped, len(watch.ticks)) == (1, 1, 4)
    assert watch.episodes_at_changes == [0, 0, 0]
    assert watch.misses(10.0) == {
        "ticks_near_changes": 4, "misses_near_changes": 1, "ticks_elsewhere": 0,
        "misses_elsewhere": 0,
    }  # fmt: skip
    watch.changes = [(when - 100.0, *rest) for when, *rest in watch.changes]
    assert watch.misses(10.0)["misses_elsewhere"] == 1


def test_what_the_controller_tells_of_its_misses(watch: LiveWatch) -> None:
    def tell(ticks: int, **misses: str) -> None:
        counts = {"ticks_swapped": str(ticks), "misses_swapped": str(len(misses))}
        other = DiagnosticStatus(name="trainer_node: training")
        entry = deadlines("mpc_node", counts | {f"miss {k}": v for k, v in misses.items()})
        watch._on_diagnostics(DiagnosticArray(status=[other, entry]))

    watch.begin()
    tell(5)
    tell(8, n9='{"condition": "swapped", "cause": "blocked", "late_ms": 2, "past_period": false}')
    row = watch.tally.rows()["swapped"]
    assert (row["ticks"], row["misses"], row["causes"]["blocked"]) == (3, 1, 1)
    watch.begin()
    assert watch.tally.rows()["swapped"]["ticks"] == 0
