"""``wm-mpc train robot``: a model from recordings of a robot nobody described."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_encoder

from wm_mpc.core.errors import UserError
from wm_mpc.data.store.store import Store, StoreSpec, StoreWriter
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.models.identity import perception_hash
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import PlanRequest
from wm_mpc.planners.objective import ObjectiveConfig, make_objective
from wm_mpc.planners.registry import make_planner, planner_config
from wm_mpc.tasks.presets import robot_preset
from wm_mpc.training.dynamics.latent import DynamicsConfig
from wm_mpc.training.dynamics.patch import PatchConfig
from wm_mpc.training.finetune.selection import SelectionConfig
from wm_mpc.training.pipeline.config import RobotTraining
from wm_mpc.training.pipeline.pipeline import train_world_model
from wm_mpc.training.projector.joint import JointConfig


def arm_store(path: Path, proprio_dim: int = 4, episodes: int = 8, constant: bool = False) -> Path:
    """Recordings of an arm with three joint commands, 8 Hz, a picture at every step, no states."""
    spec = StoreSpec("arm", 3, proprio_dim, 0, 0.125, (32, 32))
    rng = np.random.default_rng(0)
    with StoreWriter(path, spec, writer_id="1") as writer:
        for _ in range(episodes):
            actions = rng.uniform((-0.5, 0.0, -2.0), (0.5, 1.0, 2.0), (20, 3))
            actions[:, 0] *= not constant
            place = np.clip(16 + np.cumsum(actions[:, :2], 0), 4, 28).astype(int)
            images = np.full((21, 32, 32, 3), 40, np.uint8)
            for image, (x, y) in zip(images[1:], place, strict=True):
                image[y - 3 : y + 3, x - 3 : x + 3] = 220
            writer.add(
                Trajectory(
                    images=images,
                    image_steps=np.arange(21),
                    actions=actions.astype(np.float32),
                    proprio=rng.normal(size=(21, proprio_dim)).astype(np.float32),
                    stamps=np.arange(21) * 0.125,
                )
            )
    return path


def settings(folder: Path, **changes: object) -> RobotTraining:
    config = {
        "data": folder / "store", "encoder": str(folder / "encoder"), "out": folder / "model",
        "visual_dim": 4, "window": 3, "frameskip": 2, "reader_steps": 4, "width": 8, "depth": 1,
        "joint": JointConfig(steps=4, batch=4),
        "dynamics": DynamicsConfig(steps=4, batch=4, rollout=2, threads=1),
        "patch": PatchConfig(steps=2, batch=4),
        "held_out": 0.25,
    }  # fmt: skip
    return RobotTraining(**(config | changes))


@pytest.mark.parametrize("layout", ["compact", "patch"])
@pytest.mark.parametrize("proprio_dim", [4, 0])
def test_recordings_alone_make_a_model_that_plans(
    layout: str, proprio_dim: int, tmp_path: Path
) -> None:
    arm_store(tmp_path / "store", proprio_dim)
    tiny_encoder(tmp_path / "encoder")
    train_world_model(settings(tmp_path, layout=layout))
    model = WorldModel.load(tmp_path / "model")
    config = model.config
    assert (config.task, config.frameskip, config.control_period) == ("arm", 2, 0.125)
    assert (config.action_dim, config.proprio_dim) == (3, proprio_dim)
    recorded = Store.open(tmp_path / "store").frames().actions.reshape(-1, 3)
    np.testing.assert_allclose(config.action_low, recorded.min(0), rtol=1e-6)
    np.testing.assert_allclose(config.action_high, recorded.max(0), rtol=1e-6)
    picture = torch.randint(0, 255, (1, 32, 32, 3), dtype=torch.uint8)
    latent = model.encode(picture, torch.zeros(1, proprio_dim))
    objective = make_objective(model, ObjectiveConfig(), 3)
    planner = make_planner("adam", model, objective, planner_config("adam", iterations=2))
    assert model.action_width == 3  # one command per model step, held
    plan = planner.plan(PlanRequest(latent[0], latent[0] + 1, warm_start=torch.zeros(3, 3)))
    raw = model.denormalize_actions(plan.actions)
    assert raw.shape == (6, 3)
    assert torch.isfinite(raw).all() and (model.proprio_reader is not None) == (proprio_dim > 0)


def test_bounds_and_weights(tmp_path: Path) -> None:
    store = Store.open(arm_store(tmp_path / "store"))
    low, high = (-1.0, -1.0, -3.0), (1.0, 1.0, 3.0)
    preset = robot_preset(store, 1, low, high, (1.0, 1.0, 0.0, 0.0))
    assert (preset.action_low, preset.action_high) == (low, high)
    assert preset.goal_weights == (1.0, 1.0, 0.0, 0.0)
    with pytest.raises(UserError, match="action_low: 2 numbers; 3 expected"):
        robot_preset(store, 1, (0.0, 0.0))
    with pytest.raises(UserError, match=r"action_low\[1\]: 5; below action_high\[1\], 1"):
        robot_preset(store, 1, (-1.0, 5.0, -1.0), (1.0, 1.0, 1.0))
    with pytest.raises(UserError, match="goal_weights: 1 numbers; 4 expected"):
        robot_preset(store, 1, goal_weights=(1.0,))
    still = Store.open(arm_store(tmp_path / "still", constant=True))
    with pytest.raises(UserError, match=r"action_low\[0\]: 0; below"):
        robot_preset(still, 1)


def test_settings_that_cannot_be_are_told_at_once(tmp_path: Path) -> None:
    for changes, words in (
        ({"frameskip": 0}, "frameskip: 0; at least 1"),
        ({"projector": "landmarks"}, "projector: 'landmarks'; joint expected"),
        ({"selection": SelectionConfig(goals=3)}, "selection.goals: 3; 0 expected"),
    ):
        with pytest.raises(UserError, match=words):
            settings(tmp_path, **changes)


def test_new_dynamics_on_the_latents_of_another_model(tmp_path: Path) -> None:
    arm_store(tmp_path / "store")
    tiny_encoder(tmp_path / "encoder")
    source = train_world_model(settings(tmp_path))
    again = {"out": tmp_path / "again", "latents_from": tmp_path / "model", "width": 12}
    with pytest.raises(UserError, match="latents_from: .* not with .* joint losses"):
        settings(tmp_path, **again)
    for joint in (RobotTraining.__dataclass_fields__["joint"].default_factory(), JointConfig()):
        config = settings(tmp_path, **again, joint=joint)
        assert config.joint.steps == 0
    model = train_world_model(config)
    assert perception_hash(model) == perception_hash(source) and model.hash != source.hash


def test_latents_of_another_robot_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wm_mpc.training.pipeline import material

    arm_store(tmp_path / "store")
    tiny_encoder(tmp_path / "encoder")
    train_world_model(settings(tmp_path))
    monkeypatch.setattr(material, "cache_tokens", lambda *_, **__: pytest.fail("encoded"))
    config = settings(
        tmp_path, out=tmp_path / "again", latents_from=tmp_path / "model", joint=JointConfig()
    )
    with pytest.raises(UserError, match="frameskip: 1; .*model expects 2"):
        train_world_model(replace(config, frameskip=1))
    arm_store(tmp_path / "other", proprio_dim=2)
    with pytest.raises(UserError, match="data: .*other: proprio_dim 2; .*model expects 4"):
        train_world_model(replace(config, data=tmp_path / "other"))
