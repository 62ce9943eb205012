"""Slow work waits for the pauses of a loop, and an engine is built in pieces."""

from __future__ import annotations

import threading
from pathlib import Path

from fake_clock import FakeClock
from helpers import tiny_encoder, tiny_model

from wm_mpc.control.engine import Engine, EngineConfig
from wm_mpc.core.pauses import Gaps
from wm_mpc.planners.budget import CemReference


def test_a_piece_begins_when_a_tick_has_ended() -> None:
    gaps, answers = Gaps(patience_s=60.0), []
    gaps.tick_ended()
    worker = threading.Thread(target=lambda: answers.append(gaps.wait()))
    worker.start()
    while worker.is_alive():
        gaps.tick_ended()
    assert answers == [True]


def test_a_loop_that_stands_still_is_not_waited_for() -> None:
    gaps = Gaps(patience_s=0.0)
    gaps.tick_ended()
    assert gaps.wait() is False, "a tick that ended before is no pause now"


def test_work_is_told_from_its_first_piece_to_its_last() -> None:
    gaps = Gaps(patience_s=0.0)
    assert not gaps.working
    try:
        with gaps.work(), gaps.work():
            assert gaps.working
            raise RuntimeError
    except RuntimeError:
        pass
    assert not gaps.working


def test_an_update_is_built_in_pieces(tmp_path: Path) -> None:
    model = tiny_model(tiny_encoder(tmp_path))
    reference = CemReference(0.5, 45000, 1, 30, 30, "cpu", 1)
    config = EngineConfig(horizon=2, compile=False)

    def readings(pause: object) -> float:
        # every look at this clock takes a millisecond: it tells how long the planner worked
        clock = FakeClock(tick=0.001)
        Engine.build(
            model, config, reference=reference, clock=clock, warm_encoder=False, pause=pause
        )
        return clock.now

    pauses: list[None] = []
    assert readings(lambda: pauses.append(None)) < readings(None)
    # planner, two plans to warm it up, perception
    assert len(pauses) == 4
