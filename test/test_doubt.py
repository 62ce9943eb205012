"""What the controller does not know: pictures unlike any in training, cameras that freeze."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_clock import FakeClock
from helpers import tiny_encoder, tiny_model
from safetensors.torch import load_file, save_file

from wm_mpc.control.controller import Controller, ControllerConfig
from wm_mpc.control.engine import Engine, EngineConfig
from wm_mpc.control.frozen import FrozenWatch
from wm_mpc.control.safety import SafetyLimits
from wm_mpc.control.tick import State, TickResult
from wm_mpc.core.errors import CheckpointError
from wm_mpc.core.locations import ASSETS
from wm_mpc.models.novelty import NOVELTY_FILE, Novelty
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.budget import CemReference
from wm_mpc.tasks.environments import make_env

STILL = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("joints_move", "command", "stops_after"), [(True, 1.0, 11), (False, 1.0, 51), (True, 0.0, 0)]
)
def test_a_frozen_camera_is_told_from_rest_and_from_a_blocked_robot(
    joints_move: bool, command: float, stops_after: int
) -> None:
    watch = FrozenWatch(1.0, np.full(2, 2.0), np.zeros(2), np.ones(2))
    told = []
    for k in range(70):
        joints = np.full(2, 0.1 * k if joints_move else 0.0)
        told.append(watch.see(STILL.copy(), joints, 0.1 * k))
        watch.commanded(None if told[-1] else np.full(2, command))
    first = next((k for k, words in enumerate(told) if words), 0)
    assert abs(first - stops_after) <= 1
    if first:  # at rest nothing moves: only another picture proves that the camera lives
        assert all(told[first:]) and "frozen" in told[first]
        assert watch.see(STILL + 1, np.zeros(2), 9.0) == ""


def test_a_blocked_robot_tries_again_for_another_goal_a_frozen_camera_does_not() -> None:
    for joints_move in (False, True):
        watch = FrozenWatch(1.0, np.full(2, 2.0), np.zeros(2), np.ones(2))
        for k in range(60):
            told = watch.see(STILL.copy(), np.full(2, 0.1 * k * joints_move), 0.1 * k)
            watch.commanded(np.ones(2))
        assert told
        watch.another_goal()
        assert bool(watch.see(STILL.copy(), np.full(2, 5.9 * joints_move), 6.0)) is joints_move


class Rig:
    """The bundled wall model before its environment."""

    def __init__(self, **config: float) -> None:
        self.model = WorldModel.load(ASSETS / "wall")
        reference = CemReference(0.3, 45000, 1, 30, 30, "cpu", 1)
        engine_config = EngineConfig(compile=False)
        self.clock = FakeClock()
        engine = Engine.build(
            self.model, engine_config, reference=reference, clock=self.clock
        )
        limits = SafetyLimits(max_plan_age_s=100.0)
        self.controller = Controller(engine, ControllerConfig(**config), limits, self.clock)


@pytest.fixture(scope="module")
def seen() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A picture and the proprioception of the wall task."""
    env = make_env("wall", 96)
    observation, _ = env.reset(seed=5)
    yield observation["image"], observation["proprio"].astype(np.float32)
    env.close()


def judge(rig: Rig, picture: np.ndarray, proprio: np.ndarray) -> TickResult:
    rig.clock.advance(0.1)
    rig.controller.observe(picture, proprio, rig.clock.now)
    return rig.controller.tick(rig.clock.now)


def test_what_no_training_saw_stops_the_robot(seen: tuple[np.ndarray, np.ndarray]) -> None:
    rig = Rig()
    picture, proprio = seen
    rig.controller.set_goal(picture, proprio)
    normal = judge(rig, picture, proprio)
    assert normal.state is State.RUNNING and 0 < normal.novelty < 1.5
    noise = np.random.default_rng(0).integers(0, 256, picture.shape, dtype=np.uint8)
    for image, joints in (
        (noise, proprio), (np.zeros_like(picture), proprio), (np.full_like(picture, 255), proprio),
        (picture, np.full_like(proprio, 1e6)), (picture, np.full_like(proprio, 1e20)),
    ):  # fmt: skip
        result = judge(rig, image, joints)
        assert result.state is State.SAFE_STOP and result.command is None
        assert "novelty: " in result.reason and "at most 3.2 allowed" in result.reason
    assert judge(rig, picture, proprio).state is State.RUNNING


def test_another_goal_does_not_vouch_for_a_frozen_camera(
    seen: tuple[np.ndarray, np.ndarray],
) -> None:
    rig = Rig(novelty_limit=0.0)
    picture, proprio = seen
    goal = np.roll(picture, 20, axis=0)
    states = []
    for tick in range(60):
        if tick % 7 == 0:
            rig.controller.set_goal(np.roll(goal, tick, axis=1), proprio)
        result = judge(rig, picture, proprio + 0.2 * tick)
        left = np.zeros(2) if result.command is None else result.command
        rig.controller.sent(result, left, rig.clock.now, rig.clock.now)
        states.append(result.state)
    first = states.index(State.SAFE_STOP)
    assert 10 <= first <= 14 and set(states[first:]) == {State.SAFE_STOP}
    assert "frozen" in result.reason
    assert judge(rig, np.roll(picture, 1, axis=0), proprio).state is State.RUNNING


def test_zero_as_a_limit_lets_everything_pass(seen: tuple[np.ndarray, np.ndarray]) -> None:
    rig = Rig(novelty_limit=0.0)
    picture, proprio = seen
    rig.controller.set_goal(picture, proprio)
    assert judge(rig, np.zeros_like(picture), proprio).state is State.RUNNING


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = tiny_model(tiny_encoder(tmp_path / "encoder"))
    model.save(tmp_path / "model", encoder=str(tmp_path / "encoder"))
    return tmp_path / "model"


def test_statistics_travel_with_a_model_and_change_no_hash(saved: Path) -> None:
    model = WorldModel.load(saved)
    assert model.novelty is None  # as every older checkpoint
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randn(500, model.channels, generator=rng)
    proprio = torch.randn(500, model.config.proprio_dim, generator=rng)
    fit = Novelty.fit(tokens[:400], proprio[:400], (tokens[400:], proprio[400:]), "abc")
    before, model.novelty = model.hash, fit
    again = WorldModel.load(saved) if model.save(saved, encoder=model.encoder.source) else None
    assert again.hash == before and again.novelty.encoder == "abc"
    near = again.novelty(tokens[400:, None], proprio[400:])
    assert near.quantile(0.9) < 1.0 and near.max() < 1.5
    assert again.novelty(tokens[:1, None] + 30.0, proprio[:1]) > 10.0


@pytest.mark.parametrize(
    ("change", "words"),
    [({"mean": torch.zeros(3)}, "mean: shape"),
     ({"scale": torch.zeros(())}, "scale: 0; more than"),
     ({"proprio_mean": torch.full((4,), torch.nan)}, "proprio_mean: not finite")],
)  # fmt: skip
def test_damaged_statistics_are_refused_by_name(
    saved: Path, change: dict[str, torch.Tensor], words: str
) -> None:
    model = WorldModel.load(saved)
    tokens, proprio = torch.randn(50, model.channels), torch.randn(50, 4)
    model.novelty = Novelty.fit(tokens, proprio, (tokens, proprio), "abc")
    model.save(saved, encoder=model.encoder.source)
    file = saved / NOVELTY_FILE
    save_file(load_file(file) | change, file)
    with pytest.raises(CheckpointError, match=words):
        WorldModel.load(saved)


def test_statistics_of_another_encoder_are_left_unused_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = WorldModel.load(ASSETS / "wall")
    model.novelty.encoder = "0" * 12
    reference = CemReference(0.3, 45000, 1, 30, 30, "cpu", 1)
    engine = Engine(model, None, None, reference, EngineConfig())
    assert engine.novelty is None
    assert "novelty: not watched; its statistics are of encoder 000000000000" in caplog.text
