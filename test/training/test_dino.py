"""DINO pre-training: its parts do what their papers say, its result is an encoder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_data import dot_picture

from sim_bridge.collect import generate
from wm_mpc.core.errors import UserError
from wm_mpc.core.locations import ASSETS
from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.training.encoder import dino
from wm_mpc.training.encoder.collapse import (
    MIN_RANK,
    PROBE,
    collapse_measure,
    feature_ranks,
    probe_pictures,
)
from wm_mpc.training.encoder.dino import DinoConfig, koleo, sinkhorn, train_dino
from wm_mpc.training.encoder.views import block_mask, random_views, salient_patches

ENCODER = ASSETS / "encoder"
CONFIG = DinoConfig(
    image_size=32, patch_size=8, dim=16, layers=1, heads=2, local_size=16, local_crops=1,
    prototypes=16, batch=4, steps=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([dot_picture(*rng.uniform(0.1, 0.9, 2), 32) for _ in range(30)])


def test_training_writes_an_encoder(pictures: np.ndarray, tmp_path: Path) -> None:
    facts = train_dino([pictures], tmp_path, CONFIG, progress=False)
    assert facts["steps"] == 6 and facts["frames"] == [30]
    encoder = DinoEncoder.load(tmp_path)
    assert (encoder.image_size, encoder.num_tokens, encoder.dim) == (32, 16, 16)
    assert torch.isfinite(encoder(torch.from_numpy(pictures[:2]))).all()
    stored = json.loads((tmp_path / "dino.json").read_text())
    assert stored["config"]["seed"] == 0 and stored["history"][0]["step"] == 0
    assert all(stored[name] > least for name, least in MIN_RANK.items())


def test_same_seed_same_encoder(pictures: np.ndarray, tmp_path: Path) -> None:
    images = torch.from_numpy(pictures[:3])
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = dataclasses.replace(CONFIG, seed=seed)
        train_dino([pictures], tmp_path / name, config, progress=False)
        found.append(DinoEncoder.load(tmp_path / name)(images))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_loss_falls(pictures: np.ndarray, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=26, batch=8, lr=5e-3)
    history = train_dino([pictures], tmp_path, config, progress=False)["history"]
    assert history[-1]["step"] == 25
    assert history[-1]["patch_loss"] < history[0]["patch_loss"] - 0.02


def test_every_source_is_drawn_equally_often(tmp_path: Path) -> None:
    class Source:
        def __init__(self, length: int) -> None:
            self.length, self.taken = length, 0

        def __len__(self) -> int:
            return self.length

        def __getitem__(self, index: int) -> np.ndarray:
            self.taken += 1
            return dot_picture(*np.random.default_rng(index).uniform(0.1, 0.9, 2), 32)

    few, many = Source(2), Source(500)
    train_dino([few, many], tmp_path, CONFIG, progress=False)
    # the guard looks at some pictures once; two are too few for it
    assert few.taken == many.taken - PROBE == 12


def test_time_ends_a_run(pictures: np.ndarray, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=10**6, max_seconds=0.5)
    assert train_dino([pictures], tmp_path, config, progress=False)["steps"] < 10**6


def blind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the pictures show from the patch tokens, the class token, or both."""
    forward = dino.Network.forward

    def blinded(
        self: dino.Network, pixels: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        mean = pixels.mean(0, keepdim=True)
        seen = forward(self, pixels, mask)
        unseen = forward(self, mean, None).expand_as(seen)
        if kind == "patches":
            return torch.cat([seen[:, :1], unseen[:, 1:]], 1)
        if kind == "class":
            return torch.cat([unseen[:, :1], seen[:, 1:]], 1)
        return unseen

    monkeypatch.setattr(dino.Network, "forward", blinded)


@pytest.mark.parametrize(
    ("kind", "name"), [("patches", "rank"), ("class", "class_rank"), ("both", "rank")]
)
def test_collapse_at_the_end_of_a_short_run_is_told(
    kind: str, name: str, pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind(kind, monkeypatch)
    message = f"^{name}: features collapsed to effective rank 1.00 at step 5"
    with pytest.raises(UserError, match=message):
        train_dino([pictures], tmp_path, CONFIG, progress=False)
    assert not (tmp_path / "model.safetensors").exists()


def test_collapse_ends_a_run(
    pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind("both", monkeypatch)
    monkeypatch.setattr(dino, "GUARD_FROM", 20)
    config = dataclasses.replace(CONFIG, steps=30, batch=2, local_crops=0)
    with pytest.raises(UserError, match="features collapsed to effective rank 1.00 at step 25"):
        train_dino([pictures], tmp_path, config, progress=False)


def test_one_blind_source_is_enough(pictures: np.ndarray, tmp_path: Path) -> None:
    frozen = np.repeat(pictures[:1], 20, 0)  # a camera that hangs
    with pytest.raises(UserError, match="rank: features collapsed to effective rank 1.00"):
        train_dino([pictures, frozen], tmp_path, CONFIG, progress=False)


def test_a_run_is_judged_by_what_its_encoder_will_see(pictures: np.ndarray) -> None:
    encoder = DinoEncoder.load(ENCODER)
    (probe,) = probe_pictures([pictures], encoder.image_size, 0, torch.device("cpu"))
    assert torch.allclose(probe, encoder.preprocess(torch.from_numpy(pictures)), atol=1e-4)
    many = np.repeat(pictures, 4, 0)
    first, again = (probe_pictures([many], 32, 0, torch.device("cpu"))[0] for _ in range(2))
    assert len(first) == PROBE and torch.equal(first, again)


@pytest.mark.parametrize("task", ["wall", "pusht"])
def test_the_bundled_encoder_is_far_from_collapsed(task: str) -> None:
    encoder = DinoEncoder.load(ENCODER)
    frames = [np.asarray(t.images) for t in generate(task, 12, 0, 15, 5, encoder.image_size)]
    probes = probe_pictures([np.concatenate(frames)], encoder.image_size, 0, torch.device("cpu"))

    def network(pixels: torch.Tensor) -> torch.Tensor:
        return encoder.backbone(pixel_values=pixels).last_hidden_state

    ranks = feature_ranks(network, probes)
    for name, least in MIN_RANK.items():
        assert ranks[name] > 2 * least, ranks


@pytest.mark.parametrize("frames", [[], [np.zeros((0, 32, 32, 3), np.uint8)]])
def test_no_frames_is_told(frames: list, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="frames: .*at least 1 frame per source"):
        train_dino(frames, tmp_path, CONFIG, progress=False)


def test_too_few_frames_to_judge_are_told(pictures: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="frames: 7 in the largest source; at least 8 expected"):
        train_dino([pictures[:7], pictures[:3]], tmp_path, CONFIG, progress=False)


def test_sinkhorn_uses_prototypes_equally() -> None:
    torch.manual_seed(0)
    scores = torch.rand(64, 8)
    scores[:, 3] += 1  # a prototype that everything likes
    # repeated, the two normalisations agree; three rounds come close
    q = sinkhorn(scores, 0.1, iterations=50)
    assert torch.allclose(q.sum(1), torch.ones(64), atol=1e-4)
    assert torch.allclose(q.mean(0), torch.full((8,), 1 / 8), atol=1e-3)
    plain = (scores / 0.1).softmax(1).mean(0)
    assert (sinkhorn(scores, 0.1).mean(0) - 1 / 8).abs().max() < (plain - 1 / 8).abs().max() / 3


def test_koleo_prefers_spread_features() -> None:
    torch.manual_seed(0)
    spread, crowded = torch.randn(32, 16), torch.ones(32, 16) + 0.01 * torch.randn(32, 16)
    assert koleo(spread) < koleo(crowded)
    assert torch.allclose(koleo(spread), koleo(5 * spread), atol=1e-4)


def test_collapse_is_measured_as_rank() -> None:
    torch.manual_seed(0)
    wide = torch.randn(400, 10, 8)
    line = torch.randn(400, 10, 1) @ torch.randn(1, 8)
    assert collapse_measure(wide) == pytest.approx(8, abs=0.1)
    assert collapse_measure(line + 5) == pytest.approx(1, abs=0.01)


def test_a_map_of_the_position_alone_is_a_collapse() -> None:
    torch.manual_seed(0)
    position = 3 * torch.randn(1, 10, 8)
    assert collapse_measure(position.expand(50, -1, -1)) == 1
    assert collapse_measure(position + 1e-4 * torch.randn(50, 10, 8)) == 1  # but for noise
    # what pictures add counts, however strong the position is, and a second direction is needed
    content = torch.randn(50, 10, 8)
    assert collapse_measure(position + content) == pytest.approx(
        collapse_measure(content), abs=1e-3
    )
    one = torch.randn(50, 10, 1) * torch.randn(8)
    assert collapse_measure(position + one) < min(MIN_RANK.values())


def test_views_keep_colours_apart_and_sizes(pictures: np.ndarray) -> None:
    generator = torch.Generator().manual_seed(0)
    views = random_views(torch.from_numpy(pictures), 24, (0.5, 1.0), generator)
    assert views.shape == (30, 3, 24, 24)
    assert views.min() >= 0 and views.max() <= 1
    again = random_views(torch.from_numpy(pictures), 24, (0.5, 1.0), generator)
    assert not torch.equal(views, again)


def test_a_whole_view_is_the_picture_turned(pictures: np.ndarray) -> None:
    generator = torch.Generator().manual_seed(0)
    views = random_views(torch.from_numpy(pictures), 32, (1.0, 1.0), generator)
    # red stands out in any crop, turn or mirror image, at the share that it has in the picture
    red = ((views[:, 0] - views[:, 1]) > 0.3).float().mean((1, 2))
    own = (pictures[..., 0].astype(int) - pictures[..., 1] > 0.3 * 255).mean()
    assert float(red.median()) == pytest.approx(own, rel=0.3)


def test_salient_patches_have_structure() -> None:
    plain = torch.zeros(1, 3, 32, 32)
    plain[:, :, 8:12, 16:20] = 1.0
    found = salient_patches(plain, 8)[0]
    assert found.nonzero().flatten().tolist() == [1 * 4 + 2]


def test_masks_cover_salient_patches_of_every_second_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    salient = torch.zeros(200, 64, dtype=torch.bool)
    salient[:, 27] = True
    mask = block_mask(salient, 0.5, generator)
    assert not mask[1::2].any()
    share = mask[::2].float().mean(1)
    assert (share > 0).all() and share.max() < 0.75
    assert mask[::2, 27].float().mean() > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 33}, "image_size: 33 px is no multiple of patch_size 8 px"),
        ({"local_size": 20}, "local_size: 20 px is no multiple of patch_size 8 px"),
        ({"batch": 1}, "batch: 1; at least 2"),
        ({"mask_ratio": 1.0}, r"mask_ratio: 1.0; in \[0, 1\)"),
    ],
)
def test_settings_name_field_value_and_bound(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **change)
