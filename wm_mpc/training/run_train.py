"""``wm-mpc train``: the encoder (``dino``), a task's world model, or a decoder that draws it."""

from __future__ import annotations

import torch

from wm_mpc.data.store import Store
from wm_mpc.training.decode import train_decoder
from wm_mpc.training.dino import train_dino
from wm_mpc.training.pipeline import train_world_model
from wm_mpc.training.stages import FrameView
from wm_mpc.training.train_config import (
    DecoderForModel,
    EncoderTraining,
    WorldModelTraining,
    configs,
)
from wm_mpc.training.validation import encode_frames, held_out_frames
from wm_mpc.world_model import WorldModel

__all__ = ["configs", "run"]


def run(config: EncoderTraining | DecoderForModel | WorldModelTraining) -> int:
    """Train what the configuration names; the exit code."""
    if isinstance(config, DecoderForModel):
        return add_decoder(config)
    if isinstance(config, EncoderTraining):
        views = [FrameView(Store.open(path).frames()) for path in config.data]
        facts = train_dino(views, config.out, config.dino)
        last = facts["history"][-1]
        print(
            f"encoder: {config.out} ({facts['steps']} steps, {facts['seconds']:.0f} s, "
            f"patch loss {last['patch_loss']:.2f}, effective rank {last['rank']:.1f})"
        )
        return 0
    train_world_model(config)
    return 0


def add_decoder(config: DecoderForModel) -> int:
    """Train a decoder on the latents of some frames and save it beside the model."""
    if config.threads:
        torch.set_num_threads(config.threads)
    model = WorldModel.load(config.model, device=config.device)
    frames = Store.open(config.data).frames()
    ids = held_out_frames(frames, 1.0, config.frames, config.decoder.seed)
    latents = encode_frames(model, frames, ids)
    decoder, facts = train_decoder(latents, frames, config.decoder, ids, config.device)
    decoder.save(config.model, model)
    print(
        f"{config.model}: decoder after {facts['steps']} steps, {facts['seconds']} s; "
        f"mean absolute error {facts['mean_absolute_error']} of 255"
    )
    return 0
