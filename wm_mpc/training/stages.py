"""The stages of world-model training between pictures and dynamics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from wm_mpc.data.windows import Frames
from wm_mpc.errors import UserError
from wm_mpc.training.landmarks import (
    LandmarkConfig,
    compose_tokens,
    find_reference,
    train_landmarks,
)
from wm_mpc.training.precision import autocast
from wm_mpc.training.presets import PRESETS, TaskPreset
from wm_mpc.training.resume import tensor_digest
from wm_mpc.training.symmetry import QuarterTurns, RigidMotions, picture_units
from wm_mpc.world_model import WorldModel, WorldModelConfig


class FrameView:
    """The frames of a store as one sequence of pictures."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames.image_step)

    def __getitem__(self, index: int) -> np.ndarray:
        """Picture ``index``, uint8 ``(H, W, 3)``."""
        return self.frames.gather(np.array([index]))[0]


def once(
    file: Path,
    key: Mapping[str, Any],
    model: WorldModel,
    parts: tuple[str, ...],
    stage: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Run a stage that trains parts of a model in place, or take up what it left when done.

    Args:
        file: where the stage's result is kept, written atomically.
        key: JSON-able settings and data of the stage; a result of others is told on stdout and
            not used, nor is a damaged one.
        model: world model, whose named parts are trained or loaded.
        parts: beginnings of the state's keys that the stage sets.
        stage: does the work and returns its facts, JSON-able.

    Returns:
        The stage's facts.
    """
    own = {k: v for k, v in model.state_dict().items() if k.startswith(parts)}
    # what it starts from tells of sizes and of everything before it
    whole = json.loads(json.dumps({**key, "initial": tensor_digest(own)}))
    if file.is_file():
        try:
            with safe_open(file, "pt") as stored:
                about = json.loads((stored.metadata() or {}).get("stage", "{}"))
                if about.get("key") == whole:
                    kept = {name: stored.get_tensor(name) for name in own}
                    model.load_state_dict(kept, strict=False)
                    print(f"{file}: done before, taken up")
                    return about["facts"]
            print(f"{file}: of a run with other settings; the stage starts anew")
        except (SafetensorError, ValueError) as error:
            print(f"{file}: damaged ({error}); the stage starts anew")
    facts = stage()
    file.parent.mkdir(parents=True, exist_ok=True)
    trained = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if k in own}
    temporary = file.with_name(file.name + ".tmp")
    save_file(trained, temporary, {"stage": json.dumps({"key": whole, "facts": facts})})
    temporary.replace(file)
    return facts


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


def symmetry(model: WorldModel, preset: TaskPreset) -> QuarterTurns | RigidMotions | None:
    """Motions of the task's workspace that change nothing, where it has them."""
    if preset.turn_centre is None:
        return None
    velocities = [(2, 3)] if preset.proprio_dim == 4 else []
    turns = QuarterTurns(model, [(0, 1)], velocities, preset.turn_centre, [(0, 1)])
    if preset.clearance is None or preset.robot is None:
        return turns
    return RigidMotions(model, preset.robot, turns, preset.clearance, preset.border)


def task_symmetry(model: WorldModel) -> QuarterTurns | RigidMotions:
    """Motions of the workspace of a model's task that change nothing.

    Raises:
        UserError: the task has none, or the latents are no landmarks.
    """
    task = model.config.task
    preset = PRESETS.get(task)
    found = None
    if preset is not None and model.visual_dim == 2 * preset.landmarks:
        found = symmetry(model, preset)
    if found is None:
        raise UserError(f"augment: no symmetry is known for {task} and these latents")
    return found


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


def set_normalisation(model: WorldModel, frames: Frames, own: np.ndarray) -> None:
    """Set the action and proprioception statistics from the data."""
    model.action_mean.copy_(torch.from_numpy(frames.actions.mean(0, dtype=np.float64)))
    model.action_std.copy_(torch.from_numpy(frames.actions.std(0, dtype=np.float64).clip(1e-6)))
    model.proprio_mean.copy_(torch.from_numpy(own.mean(0, dtype=np.float64)))
    model.proprio_std.copy_(torch.from_numpy(own.std(0, dtype=np.float64).clip(1e-6)))


def teach_landmarks(
    model: WorldModel,
    frames: Frames,
    own: np.ndarray,
    config: LandmarkConfig,
    seed: int,
    candidates: int = 4000,
) -> dict:
    """Train the projector on compositions of one reference frame.

    Returns the facts of the stage.
    """
    assert model.encoder is not None
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(len(own), min(candidates, len(own)), replace=False))
    images = frames.gather(ids)
    reference = find_reference(images, own[ids], config)
    tokens, targets = compose_tokens(model.encoder, reference, images, own[ids], config)
    facts = train_landmarks(model.projector, tokens, targets, config)
    return facts | {
        "reference_frame": int(ids[reference.index]),
        "reference_pixels": reference.area,
    }


def teach_reader(
    model: WorldModel, tokens: np.ndarray, own: np.ndarray, steps: int, seed: int, batch: int = 192
) -> dict:
    """Teach ``model.proprio_reader`` to read the robot's own reports from its pictures.

    Args:
        model: world model with its normalisation set; the reader is trained in place.
        tokens: cached tokens ``(F, N, C)``.
        own: raw proprioception ``(F, P)`` of the same frames.
        steps: optimiser steps.
        seed: seed of the batches.
        batch: frames per step.

    Returns:
        Facts: steps, and the root mean squared error per channel on held-out frames [std].
    """
    reader = model.proprio_reader
    assert reader is not None
    rng = np.random.default_rng(seed)
    device = model.proprio_mean.device
    targets = (torch.from_numpy(own).to(device) - model.proprio_mean) / model.proprio_std
    train = len(own) - max(1, len(own) // 50)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.05)
    for _ in tqdm(range(steps), desc="reader", mininterval=2.0):
        ids = np.sort(rng.integers(0, train, batch))
        with autocast(device):
            found = reader(torch.from_numpy(np.asarray(tokens[ids], np.float32)).to(device))
        loss = F.smooth_l1_loss(found.float(), targets[ids], beta=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    ids = np.arange(train, len(own))[:2000]
    with torch.no_grad():
        found = reader(torch.from_numpy(np.asarray(tokens[ids], np.float32)).to(device))
    error = (found - targets[ids]).square().mean(0).sqrt()
    return {"steps": steps, "rmse": [round(float(e), 4) for e in error]}


def set_visual_scale(model: WorldModel, tokens: np.ndarray, seed: int, sample: int = 8000) -> None:
    """Centre the visual latent and give it unit variance.

    One scale serves all channels, so that image distances stay comparable.
    """
    ids = np.sort(
        np.random.default_rng(seed).choice(len(tokens), min(sample, len(tokens)), replace=False)
    )
    device = model.visual_mean.device
    with torch.no_grad():
        parts = [
            model.projector(torch.from_numpy(np.asarray(tokens[part], np.float32)).to(device))
            for part in np.array_split(ids, max(1, len(ids) // 500))
        ]
    visual = torch.cat(parts)
    model.visual_mean.copy_(visual.mean(0))
    model.visual_std.fill_(float((visual - visual.mean(0)).square().mean().sqrt()))
