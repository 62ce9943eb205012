"""Training of the decoder on detached latents, pixel by pixel."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from tyro.conf import Suppress

from wm_mpc.core.device import usable_device
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeInt, PositiveFloat, PositiveInt
from wm_mpc.data.store.windows import Frames
from wm_mpc.models.decoder import Decoder, DecoderConfig
from wm_mpc.training.optimise.distributed import check_batch
from wm_mpc.training.optimise.loop import Schedule, fit


@dataclass(frozen=True)
class DecoderTraining(Checked):
    """Size and schedule of the decoder.

    Attributes:
        steps: optimiser steps; 0: no decoder.
        batch: pictures per step.
        pixels: places per picture, half of them where it differs most from the mean picture.
        width: hidden units.
        depth: hidden layers.
        lr: peak learning rate.
        save_every: optimiser steps between resumable states.
        seed: seed of weights and batches.
    """

    steps: NonNegativeInt = 0
    batch: PositiveInt = 48
    pixels: Annotated[int, Ge(2)] = 256
    width: PositiveInt = 128
    depth: PositiveInt = 3
    lr: PositiveFloat = 3e-3
    save_every: PositiveInt = 500
    seed: Suppress[NonNegativeInt] = 0


class ColourLoss(nn.Module):
    """Squared error of the colours at the drawn places."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, latents: Tensor, places: Tensor, colours: Tensor) -> dict[str, Tensor]:
        """``(B, *L)``, ``(B, M, 2)`` in [-1, 1], ``(B, M, 3)`` in 0..1."""
        return {"colour": F.mse_loss(self.decoder(latents, places), colours)}


def draw_places(
    pictures: np.ndarray, mean: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Pixel indices ``(B, count)``: half anywhere, half where a picture differs from the mean.

    Args:
        pictures: uint8 ``(B, S, S, 3)``.
        mean: float ``(S, S, 3)``.
        count: places per picture.
        rng: source of the choice.
    """
    batch, size = pictures.shape[:2]
    chosen = rng.integers(0, size * size, (batch, count))
    odd = np.abs(pictures - mean).sum(-1).reshape(batch, -1) + 1e-3
    cumulative = np.cumsum(odd, 1)
    for row, total in zip(chosen, cumulative, strict=True):
        draws = rng.random(count // 2) * total[-1]
        row[: count // 2] = np.minimum(np.searchsorted(total, draws), size * size - 1)
    return chosen


def train_decoder(
    latents: Tensor,
    frames: Frames,
    config: DecoderTraining,
    ids: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    progress: bool = True,
) -> tuple[Decoder, dict[str, Any]]:
    """Train a decoder for latents that stay as they are.

    Args:
        latents: ``(M, *L)``, one per frame.
        frames: frames of the store.
        config: sizes and schedule.
        ids: which frames the latents are of, ``(M,)``; None: all of them, in order.
        device: where to train.
        folder: where the resumable state is kept; None: nowhere.
        progress: show a progress bar.

    Returns:
        The decoder, and facts: steps, seconds, mean absolute error in 0..255 on the last frames.

    Raises:
        UserError: pictures that are not square, a device that is not there, a batch that the
            processes cannot share evenly, or a loss that is not finite.
    """
    check_batch("decoder.batch", config.batch)
    device = usable_device(device)
    size, width = frames.images[0].shape[1:3]
    if size != width:
        raise UserError(f"images: {size} x {width} px; square ones expected")
    ids = np.arange(len(latents)) if ids is None else ids
    torch.manual_seed(config.seed)
    shape = tuple(latents.shape[1:])
    anchors = shape[0] // 2 if len(shape) == 1 else 0
    decoder = Decoder(
        DecoderConfig(shape, size, config.width, config.depth, anchors=anchors)
    ).to(device)
    sample = np.sort(np.random.default_rng(config.seed).choice(
        len(latents), min(500, len(latents)), replace=False))  # fmt: skip
    mean = frames.gather(ids[sample]).mean(0)
    decoder.background.copy_(torch.from_numpy(mean / 255).permute(2, 0, 1).logit(0.02))
    train = max(1, len(latents) - max(1, len(latents) // 50))

    def draw(generator: torch.Generator, part: slice) -> tuple[Tensor, ...]:
        rows = torch.randint(train, (config.batch,), generator=generator)[part]
        pictures = frames.gather(ids[rows.numpy()])
        entropy = int(torch.randint(2**31, (), generator=generator))
        chosen = draw_places(pictures, mean, config.pixels, np.random.default_rng(entropy))
        places = torch.from_numpy(np.stack([chosen % size, chosen // size], -1))
        colours = np.take_along_axis(pictures.reshape(len(rows), -1, 3), chosen[..., None], 1)
        batch = (
            latents[rows].detach().float(),
            (places.float() + 0.5) / size * 2 - 1,
            torch.from_numpy(colours).float() / 255,
        )
        return tuple(value.to(device) for value in batch)

    key = asdict(config) | {"latents": float(latents[::7].double().sum())}
    done = fit(
        ColourLoss(decoder), {"decoder": decoder}, draw,
        Schedule(config.steps, config.lr, save_every=config.save_every, seed=config.seed),
        key=key, name="decoder", folder=folder, progress=progress,
    )  # fmt: skip
    last = np.arange(train, len(latents))[:16]
    drawn = decoder.decode(latents[last].to(device)).numpy().astype(np.float32)
    error = float(np.abs(drawn - frames.gather(ids[last])).mean())
    return decoder.eval(), {"steps": done.step, "seconds": round(done.elapsed, 1),
                            "mean_absolute_error": round(error, 2)}  # fmt: skip
