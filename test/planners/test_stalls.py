"""A search that once stood still plans on as before: real model and controller, simulated time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_clock import FakeClock

from wm_mpc.control.controller import Controller, ControllerConfig
from wm_mpc.control.engine import Engine, EngineConfig
from wm_mpc.control.safety import SafetyLimits
from wm_mpc.control.tick import State, TickResult
from wm_mpc.core.locations import ASSETS
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.budget import CemReference

PACE_S = 1e-5
"""Of one transition."""


@pytest.fixture(scope="module")
def wall() -> WorldModel:
    return WorldModel.load(ASSETS / "wall")


class Rig:
    """The wall model's controller on a clock that only planning moves."""

    def __init__(self, model: WorldModel, planner: str) -> None:
        self.clock = FakeClock()
        reference = CemReference(0.9, 45000, 1, 30, 30, "cpu", 1)
        config = EngineConfig(planner, compile=False)
        self.engine = Engine.build(model, config, reference=reference, clock=self.clock)
        self.begin = self.engine.planner.begin
        self.engine.planner.begin = self._begin
        self.stalls: dict[int, float] = {}
        self.pace = PACE_S
        self.chunks = 0
        # noise for a picture, so that it is unlike anything the model was trained on
        config = ControllerConfig(seed=3, novelty_limit=0.0)
        self.controller = Controller(
            self.engine, config, SafetyLimits(max_plan_age_s=10.0), self.clock
        )
        self.picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        self.proprio = np.zeros(model.config.proprio_dim, np.float32)
        self.new_goal()

    def new_goal(self) -> None:
        self.controller.set_goal(self.picture[::-1], self.proprio)

    def _begin(self, *arguments: Any) -> Any:
        search = self.begin(*arguments)
        advance = search.advance

        def timed(iterations: int) -> None:
            spent = search.transitions
            advance(iterations)
            self.chunks += 1
            stall = self.stalls.pop(self.chunks, 0.0)
            self.clock.advance((search.transitions - spent) * self.pace + stall)

        search.advance = timed
        return search

    def tick(self) -> TickResult:
        self.clock.advance(0.1)
        # a camera that lives: pictures that stay the same pixel by pixel stop the controller
        self.picture = np.roll(self.picture, 1, axis=1)
        self.controller.observe(self.picture, self.proprio, self.clock.now)
        return self.controller.tick(self.clock.now)

    def full(self) -> tuple[int, int]:
        """Iterations of an undisturbed tick, and its chunks."""
        for _ in range(3):
            before = self.chunks
            iterations = self.tick().plan.iterations
        return iterations, self.chunks - before


@pytest.mark.parametrize("planner", ["adam", "cem", "grasp"])
@pytest.mark.parametrize(
    ("where", "stall_s"), [("first", 2.0), ("middle", 2.0), ("last", 2.0), ("last", 0.5)]
)
def test_after_one_stall_every_tick_plans_in_full(
    wall: WorldModel, planner: str, where: str, stall_s: float
) -> None:
    rig = Rig(wall, planner)
    full, chunks = rig.full()
    assert full > 2
    rig.stalls[rig.chunks + {"first": 1, "middle": chunks // 2, "last": chunks}[where]] = stall_s
    assert rig.tick().plan.iterations >= 1
    assert [rig.tick().plan.iterations for _ in range(5)] == [full] * 5
    rig.new_goal()
    assert rig.full()[0] == full


@pytest.mark.flaky(reruns=1)
@pytest.mark.parametrize("planner", ["adam", "cem"])
def test_however_long_a_machine_was_slow_it_plans_in_full_within_a_second_of_being_quick(
    wall: WorldModel, planner: str
) -> None:
    rig = Rig(wall, planner)
    full, _ = rig.full()
    for factor in (5, 5000):
        rig.pace = factor * PACE_S
        slow = [rig.tick() for _ in range(12)]
        # however slow: an evaluated plan in every tick
        assert all(tick.plan.iterations >= 1 for tick in slow)
        assert {tick.state for tick in slow} == {State.RUNNING}
        rig.pace = PACE_S
        quick = [rig.tick().plan.iterations for _ in range(10)]
        assert quick[-1] >= 0.8 * full and min(quick) > 1
