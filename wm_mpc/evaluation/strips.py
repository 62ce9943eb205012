"""Film strips: what the camera showed in an episode, and what the model had imagined of it.

While an episode runs nothing is drawn: a picture, the proprioception and the plan in force are
kept every few control steps. Of the few episodes that are shown, each kept plan is then played in
the model from its own picture, and the decoder draws where it leads at the next kept picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wm_mpc.core.errors import CheckpointError
from wm_mpc.data.store.windows import Frames, Windows
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.kept import Frame
from wm_mpc.latents.encode import sample_ids
from wm_mpc.latents.frames import frame_latents
from wm_mpc.latents.windows import model_actions
from wm_mpc.models.decoder import Decoder
from wm_mpc.models.world_model import WorldModel

MOST_FRAMES = 11
"""Kept pictures of one episode that a strip shows."""


@dataclass(frozen=True)
class ImaginedStrip:
    """What is drawn of one episode.

    Attributes:
        steps: control steps of the pictures.
        came: what the camera showed, uint8 RGB.
        imagined: what the plan before had promised for that moment; None where there is nothing
            to compare with, such as at the start.
    """

    steps: list[int]
    came: list[np.ndarray]
    imagined: list[np.ndarray | None]


def best_median_worst(episodes: Sequence[Episode]) -> list[tuple[str, Episode]]:
    """Up to three episodes with kept pictures: successes first by steps, then by final error."""
    kept = [episode for episode in episodes if episode.frames]
    order = sorted(kept, key=lambda e: (not e.success, e.steps * e.success, e.final_error))
    places = {0: "best", len(order) // 2: "median", len(order) - 1: "worst"}
    if len(order) < 3:
        places = dict(zip(range(len(order)), ("best", "worst"), strict=False))
    return [(name, order[place]) for place, name in places.items()]


def decoder_of(model: WorldModel | None) -> Decoder | None:
    """The decoder in the model's folder; None where it has none that fits."""
    folder = getattr(model, "path", None)
    if folder is None or getattr(model, "encoder", None) is None:
        return None
    try:
        return Decoder.load(folder, model)
    except CheckpointError:
        return None


@torch.no_grad()
def imagine(model: WorldModel, decoder: Decoder, frame: Frame, steps: int) -> np.ndarray | None:
    """Where the frame's plan leads, as the model sees it.

    Args:
        model: world model with an encoder.
        decoder: of that model.
        frame: where the plan begins.
        steps: control steps to look ahead.

    Returns:
        uint8 ``(S, S, 3)`` RGB; None without a plan that long, or at no whole model step.
    """
    skip = model.config.frameskip
    count, rest = divmod(steps, skip)
    if frame.plan is None or rest or not count or len(frame.plan) < steps:
        return None
    where = model.action_mean.device
    width = model.config.proprio_dim
    proprio = frame.proprio if frame.proprio is not None else np.zeros(width, np.float32)
    image = torch.from_numpy(frame.image[None]).to(where)
    latent = model.encode(image, torch.from_numpy(proprio[None]).float().to(where))
    actions = torch.from_numpy(frame.plan[None, :steps]).float().to(where)
    last = model.rollout(latent, model.normalize_actions(actions))[0, -1]
    return decoder.to(where).decode(last).numpy()


def imagined_strip(
    frames: Sequence[Frame], model: WorldModel | None, decoder: Decoder | None
) -> ImaginedStrip:
    """Pictures of an episode, thinned to ``MOST_FRAMES``, each with what was imagined of it.

    It was imagined at the shown picture before, or as far back as the plan of then reaches.
    """
    some = np.unique(np.linspace(0, len(frames) - 1, MOST_FRAMES).round().astype(int))
    strip = ImaginedStrip([], [], [])
    for place, k in enumerate(some):
        drawn = None
        if model is not None and decoder is not None and place:
            reaching = (
                imagine(model, decoder, before, frames[k].step - before.step)
                for before in frames[some[place - 1] : k]
            )
            drawn = next((picture for picture in reaching if picture is not None), None)
        strip.steps.append(frames[k].step)
        strip.came.append(frames[k].image)
        strip.imagined.append(drawn)
    return strip


@torch.no_grad()
def predicted_windows(
    model: WorldModel, frames: Frames, windows: Windows, most: int = 64, seed: int = 0
) -> list[tuple[str, float, ImaginedStrip]]:
    """Best, median and worst of some windows, predicted open loop from their first picture.

    Args:
        model: world model with an encoder.
        frames: frames of a store.
        windows: candidates, all of the same length.
        most: how many of them are looked at.
        seed: of the choice.

    Returns:
        (which, latent RMSE at the end, pictures); empty where the model has no decoder.
    """
    decoder = decoder_of(model)
    if decoder is None:
        return []
    chosen = windows.subset(sample_ids(len(windows), most, seed))
    ids, place = np.unique(chosen.frames, return_inverse=True)
    latents = frame_latents(model, frames, ids, exact=True)
    latents = latents[torch.from_numpy(place.reshape(len(chosen), -1))]
    where = model.action_mean.device
    actions = model_actions(model, frames, chosen).to(where)
    predicted = model.rollout(latents[:, 0].to(where), actions).cpu()
    error = (predicted[:, -1] - latents[:, -1])[..., : model.visual_dim].square().flatten(1)
    rmse = error.mean(1).sqrt()
    order = rmse.argsort().tolist()
    found = []
    for name, k in (("best", order[0]), ("median", order[len(order) // 2]), ("worst", order[-1])):
        steps = [int(n) * model.config.frameskip for n in range(chosen.frames.shape[1])]
        drawn = [None, *decoder.decode(predicted[k]).numpy()]
        came = list(frames.gather(chosen.frames[k]))
        found.append((name, float(rmse[k]), ImaginedStrip(steps, came, drawn)))
    return found


__all__ = [
    "ImaginedStrip",
    "best_median_worst",
    "decoder_of",
    "imagine",
    "imagined_strip",
    "predicted_windows",
]
