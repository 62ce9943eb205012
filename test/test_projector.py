"""Projectors: the keypoint pool reads positions exactly; the identity changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wm_mpc.models.projectors import PROJECTORS, Identity, KeypointPool

SIDE, CHANNELS, HEADS = 5, 8, 3


def pool(mixing: bool = True, **changes: int) -> KeypointPool:
    torch.manual_seed(0)
    arguments = {"heads": HEADS, "features": 2, "hidden": 16} | changes
    projector = KeypointPool(SIDE * SIDE, CHANNELS, 6, **arguments)
    if not mixing:
        projector.mix = nn.Identity()
    return projector


def parts(found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Places ``(B, HEADS, 2)`` and features ``(B, HEADS, 2)`` of an unmixed pool."""
    return found.unflatten(-1, (HEADS, 4)).split(2, -1)


class OneHot(nn.Module):
    """Scores that put all attention of head ``h`` on token ``chosen[h]``."""

    def __init__(self, chosen: list[int]) -> None:
        super().__init__()
        self.chosen = chosen

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        scores = torch.full((*tokens.shape[:2], len(self.chosen)), -1e4)
        for head, token in enumerate(self.chosen):
            scores[:, token, head] = 1e4
        return scores


def test_attention_on_one_token_gives_exactly_its_place() -> None:
    projector = pool(mixing=False)
    chosen = [0, SIDE * SIDE - 1, 1 * SIDE + 3]
    projector.score = OneHot(chosen)
    where, _ = parts(projector(torch.randn(2, SIDE * SIDE, CHANNELS)))
    expected = torch.tensor(
        [[(t % SIDE + 0.5) / SIDE * 2 - 1, (t // SIDE + 0.5) / SIDE * 2 - 1] for t in chosen]
    )
    assert torch.allclose(where, expected.expand(2, -1, -1), atol=1e-6)


def test_attention_on_one_token_gives_exactly_its_features() -> None:
    projector = pool(mixing=False)
    projector.score = OneHot([7] * HEADS)
    tokens = torch.randn(2, SIDE * SIDE, CHANNELS)
    found = parts(projector(tokens))[1].flatten(1)
    assert torch.allclose(found, projector.value(projector.norm(tokens))[:, 7], atol=1e-6)


def test_equal_attention_gives_the_middle() -> None:
    projector = pool(mixing=False)
    nn.init.zeros_(projector.score[-1].weight)
    found, _ = parts(projector(torch.randn(2, SIDE * SIDE, CHANNELS)))
    assert torch.allclose(found, torch.zeros_like(found), atol=1e-6)


def test_what_moves_on_the_grid_moves_in_the_latent() -> None:
    projector = pool(mixing=False)
    tokens = torch.zeros(1, SIDE, SIDE, CHANNELS)
    tokens[0, 2, 1] = torch.randn(CHANNELS)
    shifted = tokens.roll(1, dims=2)
    before, after = (parts(projector(t.flatten(1, 2)))[0][0] for t in (tokens, shifted))
    step = after - before
    assert (step[:, 0].abs() > 1e-4).all() and (step[:, 1].abs() < 1e-6).all()


def test_the_pool_gives_one_vector_per_picture() -> None:
    assert pool()(torch.randn(3, SIDE * SIDE, CHANNELS)).shape == (3, 6)


def test_a_grid_must_be_square() -> None:
    with pytest.raises(ValueError, match="num_tokens: 12 is no square grid"):
        KeypointPool(12, CHANNELS, 6)


def test_identity_keeps_the_tokens() -> None:
    tokens = torch.randn(2, 4, CHANNELS)
    assert Identity(4, CHANNELS, CHANNELS)(tokens) is tokens
    with pytest.raises(ValueError, match="visual_dim: 6; the identity projector keeps the"):
        Identity(4, CHANNELS, 6)


def test_all_are_known_by_name() -> None:
    assert set(PROJECTORS) == {"identity", "keypoint_pool"}
