"""Validation: a latent that is the truth ranks perfectly, a blind one does not rank at all."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_encoder, tiny_model
from torch import Tensor, nn
from training_data import dot_store

from wm_mpc.cli.validate import Config, run
from wm_mpc.core.errors import UserError
from wm_mpc.core.stats import spearman
from wm_mpc.data.store.store import Store
from wm_mpc.evaluation.validation import draw_pairs, open_loop, rank_correlations, validate
from wm_mpc.latents.frames import held_out_frames
from wm_mpc.models.world_model import WorldModel
from wm_mpc.tasks.registry import find_task

WALL = {
    "task": "wall", "proprio_dim": 2, "visual_dim": 2, "action_low": (-1.8, -1.8),
    "action_high": (1.8, 1.8),
}  # fmt: skip


class TruePlace(nn.Module):
    """Reads the dot's place from the picture itself, as an encoder and projector in one would."""

    image_size, num_tokens, dim, source = 32, 16, 16, ""

    def forward(self, images: Tensor) -> Tensor:
        red = (images[..., 0].float() - images[..., 1] > 60).float()
        axis = (torch.arange(32) + 0.5) / 32 * 65
        total = red.sum((1, 2))
        place = torch.stack([(red * axis).sum((1, 2)), (red * axis[:, None]).sum((1, 2))], -1)
        return (place / total[:, None])[:, None].expand(-1, 16, -1)


class First(nn.Module):
    """A projector that passes the first token's first channels on."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0, :2]


class Drift(nn.Module):
    """The store's true dynamics for a latent of two places, in px."""

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        move = 2 * actions.unflatten(-1, (5, 2)).sum(-2)
        return latents + torch.cat([move, move], -1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(dot_store(tmp_path_factory.mktemp("store"), episodes=20))


def true_model() -> WorldModel:
    model = tiny_model(None, **WALL)
    model.action_std.fill_(1.0)
    model.encoder, model.projector, model.predictor = TruePlace(), First(), Drift()
    return model


def ranked(model: WorldModel, store: Store) -> list[dict[str, Any]]:
    frames = store.frames()
    return rank_correlations(model, frames, held_out_frames(frames, 0.5, 200, 0), pairs=2000)


def test_a_true_latent_ranks_truly(store: Store) -> None:
    rows = ranked(true_model(), store)
    (quantity,) = find_task("wall").quantities
    assert [row["range"] for row in rows] == [list(r) for r in quantity.ranges]
    for row in rows:
        assert row["visual"] > 0.9 and row["with_proprio"] > 0.9, row
    assert sum(row["pairs"] for row in rows[1:]) == rows[0]["pairs"]
    assert rows[0]["curve"]["true"] == sorted(rows[0]["curve"]["true"])


def test_a_random_encoder_does_not_rank_far_pairs(store: Store, tmp_path: Path) -> None:
    model = tiny_model(tiny_encoder(tmp_path), **WALL)
    far = ranked(model, store)[-1]
    assert far["visual"] < 0.6
    # proprioception is the truth here, but weighs little against it
    assert far["with_proprio"] > far["visual"]


def test_true_dynamics_have_no_open_loop_error(store: Store) -> None:
    frames = store.frames()
    windows = store.windows(3, 5)
    inner = np.abs(frames.state[windows.rows[:, 0]] - 32).max(1) < 8  # far from the clipping walls
    windows = dataclasses.replace(
        windows, **{f.name: getattr(windows, f.name)[inner] for f in dataclasses.fields(windows)}
    )
    found = open_loop(true_model(), frames, windows, 30, 0)
    assert found["steps"] == [1, 2, 3]
    assert max(found["visual_rmse"]) < 3.0 < min(found["still_visual_rmse"])
    assert found["still_visual_rmse"] == sorted(found["still_visual_rmse"])


@pytest.mark.parametrize("quantity", find_task("pusht").quantities, ids=lambda q: q.name)
def test_pairs_match_where_they_must(quantity: Any) -> None:
    rng = np.random.default_rng(0)
    states = rng.uniform(0, 100, (200, 7))
    pairs = draw_pairs(quantity, states, np.arange(200) // 10, 500, 0)
    assert 0 < len(pairs) <= 500 and (pairs[:, 0] != pairs[:, 1]).all()
    if quantity.match:
        gap = np.linalg.norm(states[pairs[:, 0], 2:4] - states[pairs[:, 1], 2:4], axis=1)
        assert gap.max() < quantity.within
    else:
        together = (pairs // 10)[:, 0] == (pairs // 10)[:, 1]
        assert 0.4 < together.mean() < 0.6


def test_angles_go_the_shorter_way_round() -> None:
    angle = find_task("pusht").quantities[1]
    first, second = np.zeros((3, 7)), np.zeros((3, 7))
    first[:, 4] = [0.1, 6.2, math.pi]
    second[:, 4] = [6.2, 0.1, 0.0]
    expected = [2 * math.pi - 6.1] * 2 + [math.pi]
    assert np.allclose(angle.distance(first, second), expected)


def test_ranks_ignore_scale_and_share_ties() -> None:
    x = np.array([1.0, 1.0, 2.0, 3.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)
    assert math.isnan(spearman(x, np.ones(4)))


def test_only_held_out_episodes_are_judged(store: Store) -> None:
    frames = store.frames()
    ids = held_out_frames(frames, 0.1, 10**6, 0)
    assert ids.tolist() == list(range(18 * 31, 20 * 31))
    assert len(held_out_frames(frames, 0.1, 7, 0)) == 7


def test_a_store_of_another_interface_is_refused(store: Store) -> None:
    with pytest.raises(UserError, match="proprio_dim: the store has 2; the model 4"):
        validate(tiny_model(None), store)


def test_windows_longer_than_the_episodes_are_refused(store: Store) -> None:
    with pytest.raises(UserError, match="no episode has 9 model steps"):
        validate(true_model(), store, steps=9)


def test_the_command_reports_and_draws(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = tiny_model(tiny_encoder(tmp_path / "encoder"), **WALL)
    model.save(tmp_path / "model", encoder="../encoder")
    report = tmp_path / "report" / "validation.json"
    config = Config(tmp_path / "model", store.path, held_out=0.5, frames=60, windows=5,
                    report=report)  # fmt: skip
    assert run(config) == 0
    (facts,) = json.loads(report.read_text())["results"]
    assert facts["model"] == model.hash and facts["closed_loop"] is None
    assert len(facts["rank_correlation"]) == 4
    assert report.with_suffix(".png").stat().st_size > 5000
    page = report.with_suffix(".html").read_text()
    assert page.count("data:image/png") == 1 and "open loop, visual RMSE" in page
    said = capsys.readouterr()
    assert "rank correlation, position 10 to inf px" in said.out
    assert said.err.count("latents: 100%") == 2  # frames that are ranked, and windows


@pytest.mark.parametrize(
    ("change", "message"),
    [({"held_out": 0.0}, "held_out: 0.0"), ({"frames": 1}, "frames: 1; at least 2")],
)
def test_settings_name_field_value_and_bound(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Config(Path("model"), Path("store"), **change)
