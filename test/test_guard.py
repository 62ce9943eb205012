"""Updates are judged by what really happened: refused, rolled back, or trusted."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from wm_mpc.control.guard import EARLY, GuardConfig, UpdateGuard, Verdict
from wm_mpc.control.tick import State, TickResult

FRAMESKIP, PERIOD, SPEED = 5, 0.1, 0.2
CONFIG = GuardConfig(guard_ratio=1.5, guard_steps=12)


class ScaledModel:
    """Moves by ``scale`` times the sum of the commands; the world does with scale 1."""

    def __init__(self, scale: float, noise: float = 0.0) -> None:
        self.scale, self.noise = scale, noise
        self.hash = f"scale{scale:g}"
        self.config = SimpleNamespace(frameskip=FRAMESKIP)
        self.action_mean = torch.zeros(2)
        self.steps = 0

    def normalize_actions(self, raw: torch.Tensor) -> torch.Tensor:
        return raw.unflatten(-2, (-1, FRAMESKIP)).flatten(-2)

    def step(self, latent: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        self.steps += len(latent)
        moved = SPEED * self.scale * action.unflatten(-1, (FRAMESKIP, 2)).sum(-2)
        return latent + moved + self.noise


class FakeEngine:
    """As much of an engine as the guard asks for."""

    def __init__(self, model: Any, perception: str = "eyes") -> None:
        self.model, self.perception = model, perception

    def sees_like(self, other: FakeEngine) -> bool:
        return bool(self.perception) and self.perception == other.perception


class World:
    """A point that moves by what is sent, and the guard that watches."""

    def __init__(self, engine: FakeEngine, config: GuardConfig = CONFIG) -> None:
        self.guard = UpdateGuard(config, PERIOD)
        self.engine = engine
        self.position = np.zeros(2)
        self.now = 10.0
        self.rng = np.random.default_rng(0)
        self.goal = object()

    def tick(self, seen: bool = True, sent: bool = True, late: float = 0.0) -> Verdict | None:
        self.now += PERIOD + late
        latent = torch.tensor(self.position, dtype=torch.float32) if seen else None
        result = TickResult(
            State.RUNNING, "", image_age_s=0.02, latent=latent, engine=self.engine, goal=self.goal
        )
        command = self.rng.uniform(-1, 1, 2)
        verdict = self.guard.observe(result, command if sent else None, self.now)
        self.position = self.position + SPEED * command
        return verdict

    def run(self, ticks: int) -> list[tuple[int, Verdict]]:
        found = [(i, self.tick()) for i in range(ticks)]
        return [(i, verdict) for i, verdict in found if verdict is not None]


def engine(scale: float, **settings: Any) -> FakeEngine:
    return FakeEngine(ScaledModel(scale), **settings)


def test_a_true_model_has_no_error_and_no_verdict() -> None:
    world = World(engine(1.0))
    assert not world.run(60)
    assert world.guard.error < 1e-5 and not world.guard.on_trial


def test_a_worse_update_is_refused_before_it_drives() -> None:
    world = World(engine(0.9))
    good, bad = engine(1.0), engine(0.2)
    assert world.guard.refuses(bad) == "", "nothing is known yet"
    world.run(30)
    assert world.guard.refuses(good) == "" and world.guard.refuses(engine(0.9)) == ""
    words = world.guard.refuses(bad)
    assert "model scale0.2: predicts the last 25 model steps with error" in words
    assert "at most 1.5 times that allowed (guard_ratio)" in words
    assert world.guard.refuses(FakeEngine(ScaledModel(1.0, noise=math.nan)))


def test_a_worse_update_is_rolled_back_while_it_drives() -> None:
    world = World(engine(0.9))
    world.run(20)
    before, world.engine = world.engine, engine(0.3)
    ((tick, verdict),) = world.run(EARLY)
    assert verdict.engine is before and tick == EARLY - 1
    assert "model scale0.3 rolled back to scale0.9" in verdict.reason
    world.engine = verdict.engine
    assert not world.run(40) and not world.guard.on_trial


def test_predictions_that_are_not_finite_are_rolled_back() -> None:
    world = World(engine(1.0))
    world.run(20)
    world.engine = FakeEngine(ScaledModel(1.0, noise=math.nan))
    ((_, verdict),) = world.run(EARLY)
    assert "inf" in verdict.reason


def test_a_better_update_is_trusted_and_becomes_the_measure() -> None:
    world = World(engine(0.5))
    world.run(20)
    old, world.engine = world.engine, engine(0.95)
    assert not world.run(1) and world.guard.on_trial
    assert not world.run(30) and not world.guard.on_trial
    seen = old.model.steps
    world.run(20)
    assert old.model.steps == seen, "the old model is not asked any more"
    assert world.guard.refuses(old)


def test_two_updates_in_a_row_are_both_compared_with_the_trusted_one() -> None:
    world = World(engine(0.9))
    world.run(20)
    trusted, world.engine = world.engine, engine(0.85)
    world.run(2)
    world.engine = engine(0.2)
    ((_, verdict),) = world.run(EARLY)
    assert verdict.engine is trusted


def test_a_model_that_sees_differently_is_not_judged() -> None:
    for perception in ("other eyes", ""):
        world = World(engine(1.0))
        world.run(20)
        other = engine(0.1, perception=perception)
        assert world.guard.refuses(other) == ""
        world.engine = other
        assert not world.run(40)


def test_a_ratio_of_zero_switches_it_off() -> None:
    world = World(engine(1.0), GuardConfig(guard_ratio=0.0))
    world.run(20)
    assert world.guard.refuses(engine(0.1)) == ""
    world.engine = engine(0.1)
    assert not world.run(40)


@pytest.mark.parametrize("fault", ["unseen", "unsent", "late", "new goal"])
def test_motion_that_was_not_watched_whole_is_not_judged(fault: str) -> None:
    world = World(engine(1.0))
    asked = world.engine.model
    for i in range(40):
        # every fifth tick something is missing: never five control steps in one piece
        hit = i % FRAMESKIP == 0
        if fault == "new goal" and hit:
            world.goal, world.position = object(), world.rng.uniform(0, 9, 2)
        seen, sent = not (hit and fault == "unseen"), not (hit and fault == "unsent")
        world.tick(seen, sent, 0.05 if hit and fault == "late" else 0.0)
    assert asked.steps == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"guard_ratio": -1.0}, "guard_ratio"), ({"guard_steps": 0}, "guard_steps: 0; 1 to")],
)
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GuardConfig(**settings)
