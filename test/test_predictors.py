"""Predictors: shapes, causality over the frames, and what a fresh one says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from wm_mpc.models.predictors import PREDICTORS, VitPredictor

FLAT, TOKENS, ACTION, FRAMES = (6,), (4, 6), 5, 3
ARGUMENTS: dict[str, dict[str, Any]] = {
    "mlp": {"width": 16, "depth": 2},
    "gru": {"width": 16},
    "vit": {"width": 16, "depth": 2, "heads": 2, "head_dim": 4, "history": FRAMES},
}
SHAPES = pytest.mark.parametrize("shape", [FLAT, TOKENS], ids=["flat", "tokens"])
KINDS = pytest.mark.parametrize("kind", list(PREDICTORS))


def build(kind: str, shape: tuple[int, ...], **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    predictor = PREDICTORS[kind](shape, ACTION, **{**ARGUMENTS[kind], **changes})
    for parameter in predictor.parameters():
        nn.init.normal_(parameter, std=0.3)
    return predictor.eval()


def batch(shape: tuple[int, ...], frames: int = FRAMES) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, frames, *shape, generator=generator)
    return latents, torch.randn(2, frames, ACTION, generator=generator)


@SHAPES
@KINDS
@pytest.mark.parametrize("frames", [1, FRAMES])
def test_one_latent_per_frame(kind: str, shape: tuple[int, ...], frames: int) -> None:
    latents, actions = batch(shape, frames)
    assert build(kind, shape)(latents, actions).shape == latents.shape


@SHAPES
@KINDS
@pytest.mark.parametrize("changed", range(FRAMES))
def test_a_frame_does_not_see_later_ones(kind: str, shape: tuple[int, ...], changed: int) -> None:
    predictor = build(kind, shape)
    latents, actions = batch(shape)
    before = predictor(latents, actions)
    for what in (latents, actions):
        what[:, changed] += 1.0
        after = predictor(latents, actions)
        differs = (after - before).abs().flatten(2).amax((0, 2)) > 1e-6
        assert not differs[:changed].any(), "the past saw the future"
        assert differs[changed], "a frame must see itself"
        before = after


@SHAPES
@pytest.mark.parametrize("kind", ["gru", "vit"])
def test_history_is_used(kind: str, shape: tuple[int, ...]) -> None:
    predictor = build(kind, shape)
    latents, actions = batch(shape)
    last = predictor(latents, actions)[:, -1]
    latents[:, 0] += 1.0
    assert (predictor(latents, actions)[:, -1] - last).abs().max() > 1e-4


@SHAPES
def test_the_mlp_is_markov(shape: tuple[int, ...]) -> None:
    predictor = build("mlp", shape)
    latents, actions = batch(shape)
    alone = predictor(latents[:, 1:2], actions[:, 1:2])[:, 0]
    assert torch.allclose(predictor(latents, actions)[:, 1], alone, atol=1e-6)


@KINDS
def test_a_prefix_is_predicted_alike(kind: str) -> None:
    predictor = build(kind, TOKENS)
    latents, actions = batch(TOKENS)
    whole = predictor(latents, actions)
    assert torch.allclose(predictor(latents[:, :2], actions[:, :2]), whole[:, :2], atol=1e-5)


@SHAPES
@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_a_fresh_predictor_expects_no_change(kind: str, shape: tuple[int, ...]) -> None:
    latents, actions = batch(shape)
    predictor = PREDICTORS[kind](shape, ACTION, **ARGUMENTS[kind])
    assert torch.equal(predictor(latents, actions), latents)


def test_every_token_sees_all_tokens_of_its_frame() -> None:
    predictor = build("vit", TOKENS)
    latents, actions = batch(TOKENS)
    before = predictor(latents, actions)
    latents[:, 1, 3] += 1.0
    moved = (predictor(latents, actions) - before)[:, 1].abs().amax((0, 2))
    assert (moved > 1e-6).all()


def test_actions_may_come_embedded_and_differ_by_token() -> None:
    predictor = build("vit", TOKENS)
    latents, actions = batch(TOKENS)
    embedded = predictor.action_embed(actions)
    per_token = embedded[:, :, None].expand(-1, -1, TOKENS[0], -1)
    expected = predictor(latents, actions)
    for form in (embedded, per_token):
        assert torch.allclose(predictor.predict_from_embedded(latents, form), expected)


def test_dino_wm_size_has_its_published_number_of_parameters() -> None:
    with torch.device("meta"):
        predictor = VitPredictor((196, 394), 10)
    count = sum(p.numel() for p in predictor.parameters())
    assert 19e6 < count < 21e6
