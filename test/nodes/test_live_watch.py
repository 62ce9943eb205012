"""Episodes, model changes and misses are counted right."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from wm_mpc.control.tick import State
from wm_mpc.msg import PlannerStatus, TaskState
from wm_mpc.nodes.common.messages import rgb_to_image, to_stamp
from wm_mpc.nodes.mpc.telemetry import deadlines
from wm_mpc.trials.live_pictures import LivePictures
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


def test_pictures_of_whole_episodes_are_kept_with_their_goals(ros_domain: int) -> None:
    kept = LivePictures("wall", 5, 1)
    try:
        for episode in (3, 4, 5, 6, 7):
            began = 100.0 * episode
            shade = np.full((8, 8, 3), 10 * episode, np.uint8)
            kept._on_goal(rgb_to_image(shade, to_stamp(began - 0.01)))
            for step in range(2 if episode == 3 else 0, 11):
                stamp = to_stamp(began + 0.1 * step)
                state = TaskState(
                    episode=episode, seed=episode, step=step, state=[10.0, 20.0],
                    success=step == 10 and episode > 4, error=1.0,
                )  # fmt: skip
                state.header.stamp = stamp
                image = rgb_to_image(np.full((8, 8, 3), step, np.uint8), stamp)
                # either may come first
                heard = [(kept._on_state, state), (kept._on_image, image)]
                for hear, message in heard if step % 2 else heard[::-1]:
                    hear(message)
        # 3 was not seen from its start, 7 is not over
        episodes = [*kept.first, *kept.last]
        assert [(e.seed, e.success) for e in episodes] == [(4, False), (6, True)]
        for episode in episodes:
            assert [frame.step for frame in episode.frames] == [0, 5, 10]
            assert [int(frame.image[0, 0, 0]) for frame in episode.frames] == [0, 5, 10]
            assert episode.goal[0, 0, 0] == 10 * episode.seed
    finally:
        kept.close()


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
