"""The world model: shapes, units, and files that cannot be trusted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY_IMAGE, rollout_history, tiny_config, tiny_encoder, tiny_model
from safetensors.torch import load_file, save_file

from wm_mpc.core.errors import CheckpointError
from wm_mpc.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from wm_mpc.models.world_model import WorldModel

PATCH_LAYOUT = {
    "projector": "identity", "projector_args": {}, "visual_dim": 16, "proprio_embed": 3,
    "predictor": "vit",
    "predictor_args": {"width": 16, "depth": 1, "heads": 2, "head_dim": 4, "action_embed": 3},
}  # fmt: skip
LAYOUTS = pytest.mark.parametrize(
    ("changes", "shape"), [({}, (10,)), (PATCH_LAYOUT, (16, 19))], ids=["compact", "patch"]
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model folder with its encoder inside."""
    tiny_model(tiny_encoder(tmp_path / "encoder")).save(
        tmp_path, encoder="encoder", extra={"seed": 3}
    )
    return tmp_path


@LAYOUTS
def test_shapes(changes: dict[str, Any], shape: tuple[int, ...], tmp_path: Path) -> None:
    model = tiny_model(tiny_encoder(tmp_path), **changes)
    assert model.latent_shape == shape and model.action_width == 10
    images = torch.zeros(2, TINY_IMAGE, TINY_IMAGE, 3, dtype=torch.uint8)
    latent = model.encode(images, torch.rand(2, 4))
    assert latent.shape == (2, *shape)
    assert model.step(latent, torch.rand(2, 10)).shape == (2, *shape)
    assert model.rollout(latent, torch.rand(2, 3, 10)).shape == (2, 3, *shape)
    history = rollout_history(
        model, latent[:, None].repeat_interleave(3, 1), torch.rand(2, 2, 10), torch.rand(2, 4, 10)
    )
    assert history.shape == (2, 4, *shape)


@LAYOUTS
def test_a_rollout_is_steps_in_a_row(changes: dict[str, Any], shape: tuple[int, ...]) -> None:
    model = tiny_model(None, **changes)
    latent, actions = torch.randn(2, *shape), torch.randn(2, 3, 10)
    rolled = model.rollout(latent, actions)
    for t in range(3):
        latent = model.step(latent, actions[:, t])
        assert torch.equal(rolled[:, t], latent)


@LAYOUTS
def test_a_rollout_with_history_of_one_frame_is_a_rollout(
    changes: dict[str, Any], shape: tuple[int, ...]
) -> None:
    model = tiny_model(None, **changes)
    latents, actions = torch.randn(2, 3, *shape), torch.randn(2, 3, 10)
    alone = rollout_history(model, latents, torch.randn(2, 2, 10), actions, history=1)
    assert torch.allclose(alone, model.rollout(latents[:, -1], actions), atol=1e-5, rtol=1e-4)


def test_history_reaches_the_predictor() -> None:
    model = tiny_model(None, **PATCH_LAYOUT)
    latents, past, actions = (
        torch.randn(2, 3, 16, 19),
        torch.randn(2, 2, 10),
        torch.randn(2, 2, 10),
    )
    before = rollout_history(model, latents, past, actions)
    # the first predicted frame sees frames 0..2, the second one 1..3
    latents[:, 0] += 1
    after = rollout_history(model, latents, past, actions)
    assert (after - before)[:, 0].abs().max() > 1e-5
    teacher = model.predictor(latents, torch.cat([past, actions[:, :1]], 1))[:, -1]
    assert torch.allclose(after[:, 0], teacher, atol=1e-6)


def test_actions_survive_normalisation() -> None:
    model = tiny_model(None)
    model.action_mean.copy_(torch.tensor([0.1, -0.2]))
    raw = torch.randn(3, 20, 2)
    actions = model.normalize_actions(raw)
    assert actions.shape == (3, 4, 10)
    assert torch.allclose(model.denormalize_actions(actions), raw, atol=1e-6)
    # the first control step comes first
    assert torch.allclose(actions[:, 0, :2], (raw[:, 0] - model.action_mean) / 0.3)


def test_bounds_are_the_raw_ones() -> None:
    model = tiny_model(None, action_low=(-1.0, -2.0), action_high=(0.5, 3.0))
    model.action_mean.copy_(torch.tensor([0.1, -0.2]))
    low, high = model.action_bounds()
    assert low.shape == high.shape == (10,)
    assert torch.allclose(model.denormalize_actions(low[None]), torch.tensor([-1.0, -2.0]))
    assert torch.allclose(model.denormalize_actions(high[None]), torch.tensor([0.5, 3.0]))


def test_proprioception_is_normalised_and_last() -> None:
    model = tiny_model(None)
    proprio = torch.tensor([[356.0, 156.0, 50.0, 0.0]])
    latent = model.encode_tokens(torch.randn(1, 16, 16), proprio)
    assert latent[0, model.visual_dim :].tolist() == [1.0, -1.0, 1.0, 0.0]


def test_visual_latents_are_centred_and_scaled() -> None:
    model = tiny_model(None)
    tokens = torch.randn(5, 16, 16)
    plain = model.project(tokens)
    model.visual_mean.fill_(0.5)
    model.visual_std.fill_(2.0)
    assert torch.allclose(model.project(tokens), (plain - 0.5) / 2)


def test_without_an_encoder_pictures_are_refused() -> None:
    with pytest.raises(RuntimeError, match="built without an encoder"):
        tiny_model(None).encode(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 4))


def test_goal_weights_belong_to_plain_proprioception() -> None:
    assert tiny_model(None).goal_weights is None
    weighted = tiny_model(None, goal_weights=(1, 1, 0, 0))
    assert weighted.goal_weights.tolist() == [1, 1, 0, 0]
    assert tiny_model(None, goal_weights=(1, 1, 0, 0), **PATCH_LAYOUT).goal_weights is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frameskip": 0}, "frameskip: 0; at least 1"),
        ({"proprio_embed": -1}, "proprio_embed: -1; at least 0"),
        ({"control_period": 0.0}, "control_period: 0.0 s; more than 0"),
        ({"action_low": (-1.0,)}, "action_low: 1 values for 2 action dimensions"),
        ({"action_low": (2.0, -1.0)}, "action_low: .* is not below action_high"),
        ({"goal_weights": (1.0, -1.0, 0.0, 0.0)}, "goal_weights: .*4 values of at least 0"),
        ({"predictor": "lstm"}, "predictor: 'lstm' unknown; one of mlp, gru, vit"),
        ({"projector": "pool"}, "projector: 'pool' unknown; one of identity, keypoint_pool"),
    ],
)
def test_a_configuration_names_field_value_and_bound(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**change)


@LAYOUTS
def test_a_saved_model_comes_back(
    changes: dict[str, Any], shape: tuple[int, ...], tmp_path: Path
) -> None:
    encoder = tiny_encoder(tmp_path / "encoder")
    model = tiny_model(encoder, **changes)
    model.generation = 7
    digest = model.save(tmp_path, encoder="encoder", extra={"seed": 3})
    again = WorldModel.load(tmp_path)
    assert again.config == model.config
    assert (again.hash, again.generation, again.path) == (digest, 7, tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    images = torch.randint(0, 256, (2, TINY_IMAGE, TINY_IMAGE, 3), dtype=torch.uint8)
    proprio = torch.rand(2, 4)
    assert torch.equal(again.encode(images, proprio), model.encode(images, proprio))
    assert not again.training


def test_the_encoder_is_not_copied_and_may_be_shared(saved: Path) -> None:
    assert not any(k.startswith("encoder.") for k in load_file(saved / WEIGHTS_FILE))
    encoder = tiny_encoder(saved / "encoder")
    assert WorldModel.load(saved, encoder).encoder is encoder
    assert WorldModel.load(saved, with_encoder=False).encoder is None


def test_a_model_folder_can_be_moved_with_its_encoder(saved: Path, tmp_path: Path) -> None:
    moved = saved.rename(tmp_path.parent / (tmp_path.name + "-moved"))
    assert WorldModel.load(moved).encoder is not None


def test_extra_facts_are_kept(saved: Path) -> None:
    assert json.loads((saved / CONFIG_FILE).read_text())["extra"] == {"seed": 3}


def edit_record(folder: Path, edit: Callable[[dict], Any]) -> None:
    record = json.loads((folder / CONFIG_FILE).read_text())
    edit(record)
    (folder / CONFIG_FILE).write_text(json.dumps(record))


def edit_weights(folder: Path, edit: Callable[[dict], Any]) -> None:
    """Change the weights and vouch for them, so that only the content is wrong."""
    state = load_file(folder / WEIGHTS_FILE)
    edit(state)
    save_file(state, folder / WEIGHTS_FILE)
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    edit_record(folder, lambda record: record["sha256"].update({WEIGHTS_FILE: digest}))


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file(name: str, saved: Path) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        WorldModel.load(saved)


@pytest.mark.parametrize("place", [9, -1])
def test_a_flipped_bit(place: int, saved: Path) -> None:
    data = bytearray((saved / WEIGHTS_FILE).read_bytes())
    data[place] ^= 1
    (saved / WEIGHTS_FILE).write_bytes(data)
    with pytest.raises(CheckpointError, match="sha256 .* differs from the recorded"):
        WorldModel.load(saved)


def test_truncated_weights(saved: Path) -> None:
    data = (saved / WEIGHTS_FILE).read_bytes()
    (saved / WEIGHTS_FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="sha256"):
        WorldModel.load(saved)


def test_a_truncated_record(saved: Path) -> None:
    text = (saved / CONFIG_FILE).read_text()
    (saved / CONFIG_FILE).write_text(text[: len(text) // 2])
    with pytest.raises(CheckpointError, match="not valid JSON"):
        WorldModel.load(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.update(version=2), "version: 2; this release reads 1"),
        (lambda r: r.update(format="other"), "format: 'wm_mpc.world_model' expected"),
        (lambda r: r.pop("config"), "key 'config' is missing"),
        (lambda r: r.pop("sha256"), "key 'sha256' is missing"),
        (lambda r: r["config"].pop("task"), "config: .*task"),
        (lambda r: r["config"].update(wings=2), "config: .*wings"),
        (lambda r: r["config"].update(frameskip=0), "config: frameskip: 0; at least 1"),
        (lambda r: r["encoder"].update(channels=99), "16 x 16 tokens, the model was trained on"),
        (lambda r: r["encoder"].update(source=""), "encoder: no source recorded"),
    ],
)
def test_a_record_that_does_not_fit(edit: Callable, message: str, saved: Path) -> None:
    edit_record(saved, edit)
    with pytest.raises(CheckpointError, match=message):
        WorldModel.load(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("action_mean"), r"lacks action_mean \(1 missing, 0 unknown\)"),
        (lambda s: s.update(extra=torch.zeros(1)), "has an unknown key extra"),
        (lambda s: s.update(action_std=torch.ones(3)), r"action_std: shape \(3,\); \(2,\)"),
        (lambda s: s["visual_mean"].fill_(float("nan")), "visual_mean: not finite"),
    ],
)
def test_weights_that_do_not_fit(edit: Callable, message: str, saved: Path) -> None:
    edit_weights(saved, edit)
    with pytest.raises(CheckpointError, match=message):
        WorldModel.load(saved)


def test_an_interrupted_save_leaves_the_old_model(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = WorldModel.load(saved)

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wm_mpc.core.files.sync", full_disk)
    with pytest.raises(CheckpointError, match="cannot be written: the disk is full"):
        tiny_model(before.encoder, seed=5).save(saved, encoder="encoder")
    assert WorldModel.load(saved).hash == before.hash
