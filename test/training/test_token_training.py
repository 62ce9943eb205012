"""Joint and patch training on token windows: they learn, and the guards hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_model
from torch import Tensor
from training_data import equal_states

from wm_mpc.core.errors import UserError
from wm_mpc.latents.encode import encode_window
from wm_mpc.latents.windows import TokenWindows, token_open_loop
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.dynamics.patch import SIZES, PatchConfig, set_token_scale, train_patch
from wm_mpc.training.projector.joint import JointConfig, train_joint

GRID, CHANNELS, STEPS = 4, 16, 3
PATCH = PatchConfig(steps=60, batch=16, lr=3e-3, rollout=2, history=2)
JOINT = JointConfig(steps=60, batch=32, lr=3e-3)
PATCH_LAYOUT: dict[str, Any] = {
    "projector": "identity", "projector_args": {}, "visual_dim": CHANNELS, "proprio_embed": 4,
    "predictor": "vit",
    "predictor_args": {"width": 32, "depth": 1, "heads": 2, "head_dim": 8, "history": 2},
}  # fmt: skip


def moving_dot(episodes: int = 24) -> TokenWindows:
    """A bright token that actions push over a grid, wrapping around; proprioception is idle."""
    generator = torch.Generator().manual_seed(0)
    move = torch.randint(-1, 2, (episodes, STEPS, 2), generator=generator)
    start = torch.randint(GRID, (episodes, 1, 2), generator=generator)
    place = torch.cat([start, start + move.cumsum(1)], 1) % GRID
    tokens = 0.1 * torch.randn(episodes, STEPS + 1, GRID * GRID, CHANNELS, generator=generator)
    flat = place[..., 1] * GRID + place[..., 0]
    tokens.scatter_(
        2, flat[..., None, None].expand(-1, -1, 1, CHANNELS), 3 * torch.ones(CHANNELS).expand(
            episodes, STEPS + 1, 1, CHANNELS)
    )  # fmt: skip
    actions = torch.zeros(episodes, STEPS, 10)
    actions[..., :2] = move.float()
    return TokenWindows(
        tokens.flatten(0, 1).half().numpy(),
        torch.zeros(episodes * (STEPS + 1), 4),
        torch.arange(episodes * (STEPS + 1)).view(episodes, STEPS + 1),
        actions,
        torch.arange(episodes),
        torch.device("cpu"),
        held_out=0.2,
    )


def patch_model(data: TokenWindows) -> WorldModel:
    model = tiny_model(None, **PATCH_LAYOUT)
    set_token_scale(model, data.tokens, 0)
    return model


def spread(model: WorldModel, data: TokenWindows) -> Tensor:
    """Standard deviation of each visual channel over all frames."""
    tokens = torch.from_numpy(data.tokens).float()
    with torch.no_grad():
        return model.project(tokens).std(0)


def test_batches_are_the_windows() -> None:
    data = moving_dot()
    tokens, own, actions = data.batch(torch.tensor([3, 5]), 2)
    assert (
        tokens.shape == (2, 3, 16, 16) and own.shape == (2, 3, 4) and actions.shape == (2, 2, 10)
    )
    assert torch.equal(tokens[1, 2], torch.from_numpy(data.tokens[5 * 4 + 2]).float())
    assert torch.equal(actions[0], data.actions[3, :2])
    resident = dataclasses.replace(data, tokens=torch.from_numpy(data.tokens))
    assert torch.equal(resident.batch(torch.tensor([3, 5]), 2)[0], tokens)
    assert resident.key() == data.key()


def test_the_patch_layout_learns_to_predict() -> None:
    data = moving_dot()
    model = patch_model(data)
    held = data.split(0.2)[1]
    before = token_open_loop(model, data, held)
    facts = train_patch(model, data, PATCH, progress=False)
    assert facts["open_loop_rmse"][0] < 0.7 * before[0]
    assert facts["parameters"] == sum(p.numel() for p in model.predictor.parameters())
    first, last = facts["curve"][0], facts["curve"][-1]
    assert first[0] == 0 and len(first) == 4 and last[1] <= first[1]


def test_the_proprioception_embedding_is_trained_and_the_rest_is_not() -> None:
    data = moving_dot()
    model, fresh = patch_model(data), patch_model(data)
    data.proprio[:] = torch.randn(data.proprio.shape, generator=torch.Generator().manual_seed(1))
    train_patch(model, data, dataclasses.replace(PATCH, steps=3), progress=False)
    changed = {
        name.partition(".")[0]
        for name, value in model.state_dict().items()
        if not torch.equal(value, fresh.state_dict()[name])
    }
    assert changed == {"predictor", "proprio_encoder"}


def test_the_open_loop_loss_can_be_switched_off() -> None:
    data = moving_dot()
    config = dataclasses.replace(PATCH, steps=2, rollout=0)
    facts = train_patch(patch_model(data), data, config, progress=False)
    assert len(facts["curve"][0]) == 2


def test_bfloat16_trains_alike() -> None:
    data = moving_dot()
    losses = []
    for bf16 in (False, True):
        config = dataclasses.replace(PATCH, steps=30, bf16=bf16)
        facts = train_patch(patch_model(data), data, config, progress=False)
        losses.append(facts["open_loop_rmse"][0])
    assert losses[1] == pytest.approx(losses[0], rel=0.1) and losses[0] != losses[1]


def test_guards_keep_a_joint_latent_from_collapsing() -> None:
    data = moving_dot()
    free, guarded = (tiny_model(None, predictor_args={"width": 32, "depth": 1}) for _ in range(2))
    unguarded = dataclasses.replace(JOINT, inverse=0.0, variance=0.0, covariance=0.0)
    train_joint(free, data, unguarded, progress=False)
    train_joint(guarded, data, JOINT, progress=False)
    assert spread(guarded, data).min() > 2 * spread(free, data).mean()


def test_the_bar_shows_every_loss(capsys: pytest.CaptureFixture) -> None:
    train_joint(tiny_model(None), moving_dot(), dataclasses.replace(JOINT, steps=2))
    shown = capsys.readouterr().err.splitlines()[-1]
    for name in ("loss", "prediction", "straighten", "inverse", "variance", "covariance"):
        assert f"{name}=" in shown


@pytest.mark.parametrize("stage", ["size", "projector", "same"])
def test_a_joint_state_belongs_to_what_it_began_with(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def run(folder: Path | None, change: bool) -> WorldModel:
        size = {"visual_dim": 5} if change and stage == "size" else {}
        model = tiny_model(None, **size)
        if change and stage == "projector":  # an earlier stage with other settings taught it
            with torch.no_grad():
                for value in model.projector.parameters():
                    value.mul_(1.01)
        train_joint(model, moving_dot(), config, folder, progress=False)
        return model

    config = dataclasses.replace(JOINT, steps=4, save_every=2)
    run(tmp_path, False)
    fresh, beside = run(None, True), run(tmp_path, True)
    told = "other settings; training starts anew" in capsys.readouterr().out
    assert told == (stage != "same")
    assert equal_states(fresh.state_dict(), beside.state_dict())


@pytest.mark.parametrize("name", ["prediction", "straighten", "inverse", "variance", "covariance"])
def test_every_loss_can_be_switched_off_and_on(name: str) -> None:
    weights = ("prediction", "straighten", "inverse", "variance", "covariance")
    only = {w: 1.0 if w == name else 0.0 for w in weights}
    data, model = moving_dot(), tiny_model(None)
    config = dataclasses.replace(JOINT, steps=2, **only)
    facts = train_joint(model, data, config, progress=False)
    assert set(facts["losses"]) == {"loss"} or set(facts["losses"]) == {"loss", name}
    fresh = tiny_model(None)
    moved = any(
        not torch.equal(a, b)
        for a, b in zip(model.projector.parameters(), fresh.projector.parameters(), strict=True)
    )
    assert moved
    assert torch.equal(model.predictor.net[0].weight, fresh.predictor.net[0].weight) == (
        name != "prediction"
    )


def test_nothing_to_minimise_is_told() -> None:
    off = dict.fromkeys(("prediction", "straighten", "inverse", "variance", "covariance"), 0.0)
    with pytest.raises(UserError, match="prediction: 0.0; at least one weight above 0"):
        train_joint(tiny_model(None), moving_dot(), JointConfig(steps=1, **off), progress=False)


def test_windows_must_hold_history_and_rollout() -> None:
    data = moving_dot()
    with pytest.raises(UserError, match="window: 3 steps; history 2 and rollout 5 need 5"):
        train_patch(patch_model(data), data, dataclasses.replace(PATCH, rollout=5))
    with pytest.raises(UserError, match="rollout: 4 steps; the windows have 3"):
        train_joint(tiny_model(None), data, dataclasses.replace(JOINT, rollout=4))


def test_windows_encode_frame_by_frame() -> None:
    data, model = moving_dot(), tiny_model(None)
    tokens, own, _ = data.batch(torch.arange(2), STEPS)
    whole = encode_window(model, tokens, own)
    assert whole.shape == (2, STEPS + 1, 10)
    alone = model.encode_tokens(tokens[1, 2:3], own[1, 2:3])[0]
    assert torch.allclose(whole[1, 2], alone, atol=1e-5)


def test_sizes_are_the_published_one_and_a_small_one() -> None:
    published = PatchConfig(size="dino-wm").predictor_args()
    assert published == SIZES["dino-wm"] | {"history": 3, "action_embed": 10}
    assert (published["depth"], published["heads"], published["head_dim"]) == (6, 16, 64)
    with pytest.raises(UserError, match="size: 'huge'; one of small, dino-wm"):
        PatchConfig(size="huge")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (PatchConfig, {"history": 0}, "history: 0; at least 1"),
        (PatchConfig, {"rollout_weight": -1.0}, "rollout_weight: -1.0; at least 0"),
        (JointConfig, {"rollout": 1}, "rollout: 1; at least 2"),
        (JointConfig, {"straighten": -0.1}, "straighten: -0.1; at least 0"),
    ],
)
def test_settings_name_field_value_and_bound(kind: type, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        kind(**change)
