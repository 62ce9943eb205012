"""The decoder: it learns to draw, and its file cannot be mistaken for another's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from wm_mpc.core.errors import CheckpointError, UserError
from wm_mpc.data.store.windows import Frames
from wm_mpc.models.decoder import DECODER_FILE, Decoder, DecoderConfig
from wm_mpc.training.dynamics.decoder import DecoderTraining, draw_places, train_decoder

SIZE = 16


def squares(count: int = 120) -> tuple[torch.Tensor, Frames]:
    """Latents (x, y) in [-1, 1] and pictures of a bright square there on a dark slope."""
    rng = np.random.default_rng(0)
    place = rng.uniform(4, 12, (count, 2))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    inside = (np.abs(columns + 0.5 - place[:, 0, None, None]) < 3) & (
        np.abs(rows + 0.5 - place[:, 1, None, None]) < 3
    )
    pictures = np.repeat((30 + 3 * columns)[None, ..., None], 3, -1) * np.ones((count, 1, 1, 1))
    pictures[inside] = (230, 60, 40)
    none = np.zeros(0)
    frames = Frames(
        images=[pictures.astype(np.uint8)], image_shard=np.zeros(count, int),
        image_row=np.arange(count), image_step=none, actions=none, proprio=none, state=None,
        length=none, frame_start=none, action_start=none, row_start=none,
    )  # fmt: skip
    return torch.from_numpy(place / 8 - 1).float(), frames


def test_it_learns_to_draw_what_moves() -> None:
    latents, frames = squares()
    config = DecoderTraining(steps=200, batch=32, pixels=64, width=32, depth=2, lr=1e-2)
    decoder, facts = train_decoder(latents, frames, config, progress=False)
    drawn = decoder.decode(latents[-8:]).numpy().astype(float)
    true = frames.gather(np.arange(112, 120)).astype(float)
    mean = frames.gather(np.arange(120)).mean(0)
    assert np.abs(drawn - true).mean() < 0.5 * np.abs(mean - true).mean()
    assert facts["steps"] == 200 and facts["mean_absolute_error"] > 0


def test_an_untrained_one_draws_the_background() -> None:
    latents, frames = squares()
    decoder, _ = train_decoder(
        latents, frames, DecoderTraining(steps=1, lr=1e-9, width=8, depth=1), progress=False
    )
    torch.nn.init.zeros_(decoder.net[-1].weight)
    torch.nn.init.zeros_(decoder.net[-1].bias)
    mean = frames.gather(np.arange(120)).mean(0)
    drawn = decoder.decode(latents[:1])[0].numpy().astype(float)
    # the background is kept as logits of values within [0.02, 0.98]
    assert np.abs(drawn - mean.clip(5.1, 249.9)).max() < 1.5


@pytest.mark.parametrize("shape", [(5,), (9, 5)])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_any_leading_shape_is_drawn(shape: tuple[int, ...], lead: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(shape, SIZE, width=8, depth=1))
    latents = torch.randn(*lead, *shape)
    pictures = decoder.decode(latents)
    assert pictures.shape == (*lead, SIZE, SIZE, 3) and pictures.dtype == torch.uint8
    flat = decoder.decode(latents.reshape(-1, *shape))
    assert torch.equal(pictures.reshape(-1, SIZE, SIZE, 3), flat)


def test_tokens_draw_their_own_place() -> None:
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig((16, 5), SIZE, width=16, depth=1))
    latents = torch.randn(1, 16, 5)
    changed = latents.clone()
    changed[0, 0] += 5.0  # the top left token of four by four
    moved = (decoder.decode(changed).int() - decoder.decode(latents).int()).abs().sum(-1)[0]
    assert moved[:4, :4].max() > 0 and moved[8:].max() == 0 and moved[:, 8:].max() == 0


def test_half_of_the_places_show_what_is_odd() -> None:
    _, frames = squares()
    pictures = frames.gather(np.arange(20))
    mean = np.median(pictures, 0)
    chosen = draw_places(pictures, mean, 200, np.random.default_rng(0))
    odd = np.abs(pictures - mean).sum(-1).reshape(20, -1) > 100
    hits = np.take_along_axis(odd, chosen, 1)
    assert hits[:, :100].mean() > 0.9 > 0.6 > hits[:, 100:].mean()


def test_training_is_deterministic() -> None:
    latents, frames = squares()
    config = DecoderTraining(steps=3, width=8, depth=1)
    first, again = (train_decoder(latents, frames, config, progress=False)[0] for _ in range(2))
    assert torch.equal(first.net[-1].weight, again.net[-1].weight)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    Decoder(DecoderConfig((10,), SIZE, width=8, depth=1)).save(tmp_path, tiny_model(None))
    return tmp_path


def test_a_saved_one_comes_back(saved: Path) -> None:
    torch.manual_seed(0)
    original = Decoder(DecoderConfig((10,), SIZE, width=8, depth=1))
    latents = torch.randn(2, 10)
    again = Decoder.load(saved, tiny_model(None))
    assert again.config == original.config
    assert torch.equal(again.decode(latents), original.decode(latents))


def test_it_belongs_to_its_latents(saved: Path) -> None:
    tuned = tiny_model(None)
    tuned.predictor.net[0].weight.data += 1.0
    Decoder.load(saved, tuned)
    other = tiny_model(None)
    other.visual_mean += 1.0
    with pytest.raises(CheckpointError, match="made for other latents"):
        Decoder.load(saved, other)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{DECODER_FILE} is missing"):
        Decoder.load(tmp_path)


def test_a_truncated_file_is_told(saved: Path) -> None:
    file = saved / DECODER_FILE
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(CheckpointError, match="damaged"):
        Decoder.load(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda about, _: about.update(version=2), "wm_mpc.decoder of version 1 expected"),
        (lambda about, _: about["config"].update(width=9), "size mismatch|Error"),
        (lambda about, _: about["config"].update(wings=2), "wings"),
        (lambda _, state: state["place.bias"].add_(1), "sha256"),
        (lambda _, state: state.pop("place.bias"), "Error"),
    ],
)
def test_a_file_that_does_not_fit_is_told(edit: object, message: str, saved: Path) -> None:
    file = saved / DECODER_FILE
    with safe_open(file, "pt") as stored:
        about = json.loads(stored.metadata()["decoder"])
    state = load_file(file)
    edit(about, state)
    save_file(state, file, {"decoder": json.dumps(about)})
    with pytest.raises(CheckpointError, match=message):
        Decoder.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_shape": (12, 4)}, "latent_shape: 12 tokens are no square grid"),
        ({"width": 0}, "width: 0; at least 1"),
    ],
)
def test_settings_name_field_value_and_bound(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**({"latent_shape": (4,), "image_size": 8} | change))


def test_pictures_must_be_square() -> None:
    latents, frames = squares(4)
    frames.images[0] = frames.images[0][:, :10]
    with pytest.raises(UserError, match="images: 10 x 16 px; square ones expected"):
        train_decoder(latents, frames, DecoderTraining(steps=1), progress=False)
