"""Predictor training on cached latents: teacher forcing and multi-step rollouts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from wm_mpc.data.windows import Frames, Windows
from wm_mpc.errors import UserError
from wm_mpc.world_model import WorldModel


Augmentation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class DynamicsConfig:
    """Losses and schedule of the predictor.

    Attributes:
        rollout: model steps predicted open loop in the loss, 1 (teacher forcing) to the window
            length; the model sees its own predictions from the second step on.
        steps: optimiser steps.
        batch: windows per step.
        lr: peak learning rate (cosine, 2 % warm-up).
        weight_decay: AdamW's.
        huber: errors above this many latent standard deviations count linearly; 0: plain squares.
        noise: standard deviation of noise added to the start latent, a smoothing of the learned
            map.
        held_out: share of the episodes kept for validation, in (0, 0.5].
        seed: seed of weights and batches.
        threads: CPU threads; 0 leaves torch's choice.
        max_seconds: stop after this much training time, the schedule following the clock; 0: no
            limit.
        save_every: optimiser steps between checkpoints.
    """

    rollout: int = 3
    steps: int = 20000
    batch: int = 512
    lr: float = 2e-3
    weight_decay: float = 1e-4
    huber: float = 0.2
    noise: float = 0.0
    held_out: float = 0.02
    seed: int = 0
    threads: int = 0
    max_seconds: float = 0.0
    save_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("rollout", "steps", "batch", "save_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)}; at least 1 expected")
        if not 0 < self.held_out <= 0.5:
            raise UserError(f"held_out: {self.held_out}; in (0, 0.5] expected")


@dataclass(frozen=True)
class LatentWindows:
    """Training windows on latents.

    Attributes:
        latents: float32 ``(F, *L)``, one per frame of the store.
        frames: int64 ``(N, K + 1)`` frame ids of the window boundaries.
        actions: float32 ``(N, K, A)`` model actions between them, normalised.
        episode: int64 ``(N,)``.
    """

    latents: Tensor
    frames: Tensor
    actions: Tensor
    episode: Tensor

    def split(self, share: float) -> tuple[Tensor, Tensor]:
        """Window ids ``(train, held out)``; whole episodes are held out, the last ones."""
        last = self.episode.max() + 1
        limit = last - max(1, math.ceil(share * float(last)))
        return torch.where(self.episode < limit)[0], torch.where(self.episode >= limit)[0]


def project_frames(
    model: WorldModel, tokens: np.ndarray, proprio: np.ndarray, batch: int = 1024
) -> Tensor:
    """Latents of all frames, ``(F, *L)``.

    Args:
        model: world model; its projector and proprioception encoder are used.
        tokens: float16 ``(F, N, C)``.
        proprio: raw proprioception, float32 ``(F, P)``.
        batch: frames per forward pass.
    """
    parts = []
    device = model.action_mean.device
    with torch.no_grad():
        for start in range(0, len(tokens), batch):
            part = torch.from_numpy(np.asarray(tokens[start : start + batch], np.float32)).to(
                device
            )
            own = torch.from_numpy(proprio[start : start + batch]).to(device)
            parts.append(model.encode_tokens(part, own).cpu())
    return torch.cat(parts)


def frame_proprio(frames: Frames) -> np.ndarray:
    """Raw proprioception at every frame of a store, float32 ``(F, P)``."""
    episode = np.repeat(np.arange(len(frames.length)), np.diff(frames.frame_start))
    return frames.proprio[frames.row_start[episode] + frames.image_step]


def latent_windows(
    model: WorldModel, latents: Tensor, frames: Frames, windows: Windows
) -> LatentWindows:
    """Pair latents with the normalised model actions of the windows."""
    raw = torch.from_numpy(frames.actions[windows.actions])  # (N, K, frameskip, action_dim)
    actions = model.normalize_actions(raw.flatten(1, 2))
    return LatentWindows(
        latents, torch.from_numpy(windows.frames), actions, torch.from_numpy(windows.episode)
    )


def rollout_loss(
    model: WorldModel, start: Tensor, actions: Tensor, targets: Tensor, huber: float
) -> Tensor:
    """Mean error of an open-loop rollout: ``(B, *L), (B, U, A), (B, U, *L) -> ()``."""
    predicted = model.rollout(start, actions)
    return (
        F.smooth_l1_loss(predicted, targets, beta=huber) / huber
        if huber
        else F.mse_loss(predicted, targets)
    )


def open_loop_error(model: WorldModel, data: LatentWindows, ids: Tensor) -> list[float]:
    """Root mean squared latent error after 1..K open-loop model steps."""
    with torch.no_grad():
        predicted = model.rollout(data.latents[data.frames[ids, 0]], data.actions[ids])
        error = (predicted - data.latents[data.frames[ids, 1:]]).square()
    return [float(e) for e in error.flatten(2).mean((0, 2)).sqrt()]


def train_dynamics(
    model: WorldModel,
    data: LatentWindows,
    config: DynamicsConfig,
    folder: str | Path | None = None,
    progress: bool = True,
    augment: Augmentation | None = None,
) -> dict:
    """Train ``model.predictor`` in place; resumes from ``folder`` when it holds an unfinished run.

    Args:
        model: world model whose projector stays as it is.
        data: windows of at least ``config.rollout`` steps.
        config: losses and schedule.
        folder: where the resumable state is kept; None: nowhere.
        progress: show a progress bar.
        augment: maps latents ``(B, U + 1, *L)`` and actions ``(B, U, A)`` to equally valid ones.

    Returns:
        Facts: steps, seconds, loss curve, held-out open-loop error per model step.

    Raises:
        UserError: windows too short, or a loss that is not finite.
    """
    if data.actions.shape[1] < config.rollout:
        raise UserError(
            f"rollout: {config.rollout} steps; the windows have {data.actions.shape[1]}"
        )
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    parameters = list(model.predictor.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    train, held = data.split(config.held_out)
    first, elapsed, curve = _resume(model, optimizer, generator, folder)
    started = time.perf_counter() - elapsed
    model.predictor.train()
    bar = tqdm(
        range(first, config.steps),
        initial=first,
        total=config.steps,
        desc="dynamics",
        disable=not progress,
        mininterval=2.0,
    )
    step = first
    for step in bar:
        share = step / config.steps
        if config.max_seconds:
            share = max(share, (time.perf_counter() - started) / config.max_seconds)
            if share >= 1:
                break
        for group in optimizer.param_groups:
            group["lr"] = (
                config.lr * min(1.0, share / 0.02 + 1e-2) * (0.5 + 0.5 * math.cos(math.pi * share))
                + 1e-6
            )
        ids = train[torch.randint(len(train), (config.batch,), generator=generator)]
        latents = data.latents[data.frames[ids, : config.rollout + 1]]
        actions = data.actions[ids, : config.rollout]
        if augment is not None:
            latents, actions = augment(latents, actions)
        start = latents[:, 0]
        if config.noise:
            start = start + config.noise * torch.randn(start.shape, generator=generator)
        loss = rollout_loss(model, start, actions, latents[:, 1:], config.huber)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 0:
            value = float(loss)
            if not math.isfinite(value):
                raise UserError(f"loss: not finite at step {step}; lower lr {config.lr}")
            curve.append([step, value])
            bar.set_postfix(loss=f"{value:.4f}")
        if folder is not None and (step + 1) % config.save_every == 0:
            _save(
                model, optimizer, generator, folder, step + 1, time.perf_counter() - started, curve
            )
    model.predictor.eval()
    return {
        "steps": step + 1,
        "seconds": round(time.perf_counter() - started, 1),
        "curve": curve,
        "open_loop_rmse": open_loop_error(model, data, held[:4000]),
    }


def _save(
    model: WorldModel,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    folder: str | Path,
    step: int,
    elapsed: float,
    curve: list[list[float]],
) -> None:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"predictor.{k}": v for k, v in model.predictor.state_dict().items()}
    for i, (_, value) in enumerate(sorted(optimizer.state_dict()["state"].items())):
        state |= {f"optimizer.{i}.{k}": v for k, v in value.items()}
    state["generator"] = generator.get_state()
    state["step"] = torch.tensor([step])
    state["elapsed"] = torch.tensor([elapsed], dtype=torch.float64)
    state["curve"] = torch.tensor(curve, dtype=torch.float64)
    temporary = folder / "resume.safetensors.tmp"
    save_file({k: v.contiguous() for k, v in state.items()}, temporary)
    temporary.replace(folder / "resume.safetensors")


def _resume(
    model: WorldModel,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    folder: str | Path | None,
) -> tuple[int, float, list[list[float]]]:
    file = None if folder is None else Path(folder) / "resume.safetensors"
    if file is None or not file.is_file():
        return 0, 0.0, []
    state = load_file(file)
    model.predictor.load_state_dict(
        {k.removeprefix("predictor."): v for k, v in state.items() if k.startswith("predictor.")}
    )
    saved = optimizer.state_dict()
    count = len(list(model.predictor.parameters()))
    saved["state"] = {
        i: {k.rsplit(".", 1)[1]: v for k, v in state.items() if k.startswith(f"optimizer.{i}.")}
        for i in range(count)
    }
    optimizer.load_state_dict(saved)
    generator.set_state(state["generator"])
    return int(state["step"]), float(state["elapsed"]), state["curve"].tolist()
