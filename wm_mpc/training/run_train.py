"""``wm-mpc train``: the encoder (``dino``), or the world model of a task on top of one."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from wm_mpc.data.store import Store
from wm_mpc.data.windows import Frames
from wm_mpc.encoder import DinoEncoder
from wm_mpc.errors import UserError
from wm_mpc.report import write_report
from wm_mpc.training.dino import DinoConfig, train_dino
from wm_mpc.training.dynamics import (
    DynamicsConfig,
    frame_proprio,
    latent_windows,
    project_frames,
    train_dynamics,
)
from wm_mpc.training.landmarks import (
    LandmarkConfig,
    compose_tokens,
    find_reference,
    train_landmarks,
)
from wm_mpc.training.plots import draw_curves
from wm_mpc.training.presets import PRESETS, TaskPreset
from wm_mpc.training.symmetry import QuarterTurns
from wm_mpc.training.tokens import cache_tokens
from wm_mpc.world_model import WorldModel, WorldModelConfig


@dataclass(frozen=True)
class EncoderTraining:
    """Pre-train a small DINO encoder on the frames of one or more stores.

    Attributes:
        data: store folders; every store contributes equally often.
        out: folder of the encoder, in the ``transformers`` layout.
        dino: sizes and schedule.
    """

    data: tuple[Path, ...]
    out: Path
    dino: DinoConfig = field(default_factory=DinoConfig)


@dataclass(frozen=True)
class WorldModelTraining:
    """Train a task's compact world model: landmarks, then dynamics.

    Attributes:
        data: store folder.
        encoder: encoder folder or hub id.
        out: model folder; the work (token cache, resumable state) is kept in its subfolder
            ``work``.
        window: longest model steps per training window.
        seed: seed of every stage.
        reader_steps: optimiser steps of what reads the robot's posture from a goal picture.
        landmarks: the projector's schedule; sizes and robot silhouette come from the task.
        dynamics: the predictor's losses and schedule.
        report: JSON file to write beside the model; empty: ``training.json`` in ``out``.
    """

    data: Path
    encoder: str
    out: Path
    window: int = 5
    seed: int = 0
    reader_steps: int = 1500
    landmarks: LandmarkConfig = field(default_factory=LandmarkConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    report: Path | None = None
    task: str = ""


@dataclass(frozen=True)
class PushTTraining(WorldModelTraining):
    """Train the Push-T world model."""

    task: str = "pusht"


@dataclass(frozen=True)
class WallTraining(WorldModelTraining):
    """Train the Wall world model."""

    task: str = "wall"


@dataclass(frozen=True)
class PointMazeTraining(WorldModelTraining):
    """Train the PointMaze world model."""

    task: str = "point_maze"


configs: dict[str, type] = {
    "dino": EncoderTraining,
    "pusht": PushTTraining,
    "wall": WallTraining,
    "point_maze": PointMazeTraining,
}


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


def run(config: EncoderTraining | WorldModelTraining) -> int:
    """Train what the configuration names; the exit code."""
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


def train_world_model(config: WorldModelTraining) -> WorldModel:
    """Run all stages and save the model.

    Raises:
        UserError: unknown task, unusable data or encoder.
    """
    preset = PRESETS.get(config.task)
    if preset is None:
        raise UserError(f"task: {config.task!r}; one of {', '.join(PRESETS)} expected")
    if config.dynamics.threads:
        torch.set_num_threads(config.dynamics.threads)
    started = time.perf_counter()
    store = Store.open(config.data)
    frames = store.frames()
    encoder = DinoEncoder.load(config.encoder)
    work = config.out / "work"
    tokens = cache_tokens(encoder, frames, work)
    own = frame_proprio(frames)
    torch.manual_seed(config.seed)
    marks = dataclasses.replace(
        config.landmarks,
        landmarks=preset.landmarks,
        rotate=preset.rotate,
        robot=preset.robot,
        seed=config.seed,
    )
    model = WorldModel(model_config(config.task, preset, marks.landmarks), encoder)
    set_normalisation(model, frames, own)
    landmark_facts = teach_landmarks(model, frames, own, marks, config.seed)
    reader_facts = teach_reader(model, tokens, own, config.reader_steps, config.seed)
    set_visual_scale(model, tokens, config.seed)
    latents = project_frames(model, tokens, own)
    data = latent_windows(model, latents, frames, store.windows(config.window, preset.frameskip))
    dynamics = dataclasses.replace(config.dynamics, seed=config.seed)
    dynamics_facts = train_dynamics(model, data, dynamics, work, augment=symmetry(model, preset))
    facts = {
        "data": {"episodes": len(store), "frames": len(own), "steps": int(frames.length.sum())},
        "seed": config.seed,
        "seconds": round(time.perf_counter() - started, 1),
        "landmarks": landmark_facts,
        "reader": reader_facts,
        "dynamics": {k: v for k, v in dynamics_facts.items() if k != "curve"},
    }
    relative = config.encoder
    if Path(config.encoder).is_dir():
        relative = os.path.relpath(Path(config.encoder).resolve(), config.out.resolve())
    model.save(config.out, encoder=relative, extra=facts)
    draw_curves(
        config.out / "training.png", dynamics_facts["curve"], dynamics_facts["open_loop_rmse"]
    )
    write_report(
        config.report or config.out / "training.json", f"train {config.task}", config.seed, [facts]
    )
    print(json.dumps(facts))
    return model


def model_config(task: str, preset: TaskPreset, landmarks: int) -> WorldModelConfig:
    """Architecture of a task's compact model."""
    return WorldModelConfig(
        task=task,
        action_dim=len(preset.action_low),
        proprio_dim=preset.proprio_dim,
        frameskip=preset.frameskip,
        control_period=preset.control_period,
        action_low=preset.action_low,
        action_high=preset.action_high,
        projector="keypoint_pool",
        visual_dim=2 * landmarks,
        predictor="mlp",
        goal_weights=preset.goal_weights,
        proprio_reader=True,
        predictor_args={"width": preset.width, "depth": 2},
    )


def symmetry(model: WorldModel, preset: TaskPreset) -> QuarterTurns | None:
    """Quarter turns of the task's workspace, where it has them."""
    if preset.turn_centre is None:
        return None
    velocities = [(2, 3)] if preset.proprio_dim == 4 else []
    return QuarterTurns(model, [(0, 1)], velocities, preset.turn_centre, [(0, 1)])


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
    targets = (torch.from_numpy(own) - model.proprio_mean) / model.proprio_std
    train = len(own) - max(1, len(own) // 50)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.05)
    for _ in tqdm(range(steps), desc="reader", mininterval=2.0):
        ids = np.sort(rng.integers(0, train, batch))
        with torch.autocast("cpu", torch.bfloat16):
            found = reader(torch.from_numpy(np.asarray(tokens[ids], np.float32)))
        loss = F.smooth_l1_loss(found.float(), targets[ids], beta=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    ids = np.arange(train, len(own))[:2000]
    with torch.no_grad():
        found = reader(torch.from_numpy(np.asarray(tokens[ids], np.float32)))
    error = (found - targets[ids]).square().mean(0).sqrt()
    return {"steps": steps, "rmse": [round(float(e), 4) for e in error]}


def set_visual_scale(model: WorldModel, tokens: np.ndarray, seed: int, sample: int = 8000) -> None:
    """Centre the visual latent and give it unit variance.

    One scale serves all channels, so that image distances stay comparable.
    """
    ids = np.sort(
        np.random.default_rng(seed).choice(len(tokens), min(sample, len(tokens)), replace=False)
    )
    with torch.no_grad():
        parts = [
            model.projector(torch.from_numpy(np.asarray(tokens[part], np.float32)))
            for part in np.array_split(ids, max(1, len(ids) // 500))
        ]
    visual = torch.cat(parts)
    model.visual_mean.copy_(visual.mean(0))
    model.visual_std.fill_(float((visual - visual.mean(0)).square().mean().sqrt()))
