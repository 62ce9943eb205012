"""Small, valid, untrained things to test with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.world_model import WorldModel, WorldModelConfig

TINY_IMAGE = 32


def tiny_config(**changes: Any) -> WorldModelConfig:
    """Push-T's interface with a predictor of a few thousand weights."""
    settings: dict[str, Any] = {
        "task": "pusht", "action_dim": 2, "proprio_dim": 4, "frameskip": 5, "control_period": 0.1,
        "action_low": (-1.0, -1.0), "action_high": (1.0, 1.0), "visual_dim": 6,
        "projector_args": {"heads": 2, "features": 2, "hidden": 16},
        "predictor_args": {"width": 16, "depth": 1},
    }  # fmt: skip
    return WorldModelConfig(**{**settings, **changes})


def tiny_encoder(folder: Path, seed: int = 0) -> DinoEncoder:
    """A DINOv2 backbone of one layer with random weights, saved to and loaded from ``folder``."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2,
        image_size=TINY_IMAGE, patch_size=8,
    )  # fmt: skip
    Dinov2Model(config).save_pretrained(folder)
    return DinoEncoder.load(folder)


def tiny_model(encoder: DinoEncoder | None, seed: int = 0, **changes: Any) -> WorldModel:
    """An untrained model whose predictions do depend on state and action."""
    torch.manual_seed(seed)
    model = WorldModel(tiny_config(**changes), encoder, num_tokens=16, channels=16)
    for layer in model.predictor.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.3)
    # Push-T speaks in px and px/s.
    if model.config.proprio_dim == 4:
        model.proprio_mean.copy_(torch.tensor([256.0, 256.0, 0.0, 0.0]))
        model.proprio_std.copy_(torch.tensor([100.0, 100.0, 50.0, 50.0]))
    model.action_std.fill_(0.3)
    return model.eval()


def tiny_checkpoint(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A model folder that ``WorldModel.load`` and the nodes accept.

    Args:
        folder: created; holds the encoder in ``encoder``.
        seed: two seeds, two models.
        changes: fields of the model's configuration.

    Returns:
        ``folder``.
    """
    encoder = tiny_encoder(folder / "encoder")
    tiny_model(encoder, seed, **changes).save(folder, encoder="encoder")
    return folder


def rollout_history(
    model: WorldModel, latents: Tensor, past: Tensor, actions: Tensor, history: int = 3
) -> Tensor:
    """Open-loop rollout on up to ``history`` frames (DINO-WM's "regular" rollout).

    Args:
        model: world model, whose predictor takes several frames.
        latents: known frames, ``(B, H, *L)``, the last one being now.
        past: model actions between them, ``(B, H - 1, A)``.
        actions: model actions to come, ``(B, T, A)``.
        history: longest window handed to the predictor.

    Returns:
        ``(B, T, *L)``.
    """
    frames, taken = list(latents.unbind(1)), list(past.unbind(1))
    for t in range(actions.shape[1]):
        taken.append(actions[:, t])
        window = torch.stack(frames[-history:], 1)
        known = torch.stack(taken[-window.shape[1] :], 1)
        frames.append(model.predictor(window, known)[:, -1])
    return torch.stack(frames[latents.shape[1] :], 1)
