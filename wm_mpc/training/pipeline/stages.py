"""The stages of world-model training between pictures and dynamics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_mpc.core.errors import UserError
from wm_mpc.data.store.windows import Frames
from wm_mpc.latents.encode import gather_tokens, sample_ids
from wm_mpc.models.world_model import WorldModel, WorldModelConfig
from wm_mpc.tasks.presets import TaskPreset
from wm_mpc.training.dynamics.symmetry import picture_units


def model_config(task: str, preset: TaskPreset, **layout: Any) -> WorldModelConfig:
    """Architecture for a task's interface.

    Args:
        task: name of the task.
        preset: its interface.
        layout: further fields of the configuration: projector, predictor, widths.
    """
    return WorldModelConfig(
        task=task,
        action_dim=len(preset.action_low),
        proprio_dim=preset.proprio_dim,
        frameskip=preset.frameskip,
        control_period=preset.control_period,
        action_low=preset.action_low,
        action_high=preset.action_high,
        goal_weights=preset.goal_weights,
        action_basis=preset.action_basis,
        action_knots=preset.action_knots,
        **layout,
    )


def predictor_args(
    kind: str, preset: TaskPreset, width: int, depth: int, object_frame: bool
) -> dict[str, Any]:
    """Arguments of a compact layout's predictor.

    Args:
        kind: key of ``PREDICTORS``.
        preset: of the task.
        width: hidden units; 0: the task's default.
        depth: layers; 0: the task's default, one of ``gru``.
        object_frame: predict in the object's frame; ``mlp`` only.
    """
    width = width or preset.width
    if kind == "gru":
        return {"width": width, "depth": depth or 1}
    sizes: dict[str, Any] = {"width": width, "depth": depth or preset.depth}
    if kind == "vit":
        # One token per frame and, as planners roll out, one frame: no history. A latent of a few
        # numbers wants an action as wide as itself beside it, and to be changed, not made anew.
        return sizes | {
            "heads": 4, "head_dim": 32, "history": 1, "action_embed": 64, "dropout": 0.0,
            "residual": True,
        }  # fmt: skip
    return sizes | {"object_frame": True} if object_frame else sizes


def fit_object_frame(model: WorldModel, preset: TaskPreset, latents: Tensor, seed: int) -> None:
    """Fit the predictor's object frame to a sample of the data; without one nothing happens.

    Args:
        model: world model with landmark latents and its normalisation set.
        preset: of its task.
        latents: normalised latents of the data ``(F, D)``.
        seed: of the sample.

    Raises:
        UserError: the task does not say where the robot is in the picture.
    """
    frame = getattr(model.predictor, "frame", None)
    if frame is None:
        return
    if preset.robot is None or preset.landmarks < 2:
        raise UserError(
            f"frame: object; {model.config.task} has no landmarks that show a heading"
        )
    chosen = torch.from_numpy(np.random.default_rng(seed).choice(len(latents), 8000))
    scale, offset, moves = picture_units(model, preset.robot)
    repeats = model.config.frameskip
    frame.fit(
        latents[chosen], preset.landmarks, scale, offset, moves,
        model.action_mean.cpu().repeat(repeats), model.action_std.cpu().repeat(repeats),
    )  # fmt: skip


def set_normalisation(
    model: WorldModel, frames: Frames, own: np.ndarray, rest_at_zero: bool = False
) -> None:
    """Set the action and proprioception statistics from the data.

    With ``rest_at_zero`` the normalised action of a robot at rest is zero: what scales actions is
    their size, not their spread.
    """
    centre = frames.actions.mean(0, dtype=np.float64) * (not rest_at_zero)
    size = np.square(frames.actions - centre).mean(0, dtype=np.float64) ** 0.5
    model.action_mean.copy_(torch.from_numpy(centre))
    model.action_std.copy_(torch.from_numpy(size.clip(1e-6)))
    model.proprio_mean.copy_(torch.from_numpy(own.mean(0, dtype=np.float64)))
    model.proprio_std.copy_(torch.from_numpy(own.std(0, dtype=np.float64).clip(1e-6)))


def set_visual_scale(model: WorldModel, tokens: np.ndarray, seed: int, sample: int = 8000) -> None:
    """Centre the visual latent and give it unit variance.

    One scale serves all channels, so that image distances stay comparable.
    """
    ids = sample_ids(len(tokens), sample, seed)
    device = model.visual_mean.device
    with torch.no_grad():
        parts = [
            model.projector(gather_tokens(tokens, part, device))
            for part in np.array_split(ids, max(1, len(ids) // 500))
        ]
    visual = torch.cat(parts)
    model.visual_mean.copy_(visual.mean(0))
    model.visual_std.fill_(float((visual - visual.mean(0)).square().mean().sqrt()))
