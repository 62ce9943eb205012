"""Predictor training on cached latents: teacher forcing and multi-step rollouts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tyro.conf import Suppress

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import (
    Checked,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from wm_mpc.latents.windows import Augmentation, LatentWindows, prediction_errors
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.optimise.distributed import check_batch
from wm_mpc.training.optimise.loop import Probe, Schedule, fit


@dataclass(frozen=True)
class DynamicsConfig(Checked):
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
        seed: seed of weights and batches.
        threads: CPU threads; 0 leaves torch's choice.
        max_seconds: stop after this much training time, the schedule following the clock; 0: no
            limit.
        save_every: optimiser steps between checkpoints.
    """

    rollout: PositiveInt = 3
    steps: PositiveInt = 20000
    batch: PositiveInt = 256
    lr: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 1e-4
    huber: NonNegativeFloat = 0.0
    noise: NonNegativeFloat = 0.0
    seed: Suppress[NonNegativeInt] = 0
    threads: NonNegativeInt = 0
    max_seconds: NonNegativeFloat = 0.0
    save_every: PositiveInt = 1000


def rollout_loss(
    model: WorldModel, start: Tensor, actions: Tensor, targets: Tensor, huber: float
) -> Tensor:
    """Mean error of an open-loop rollout: ``(B, *L), (B, U, A), (B, U, *L) -> ()``."""
    predicted = model.rollout(start, actions)
    if huber:
        return F.smooth_l1_loss(predicted, targets, beta=huber) / huber
    return F.mse_loss(predicted, targets)


def open_loop_error(model: WorldModel, data: LatentWindows, ids: Tensor) -> list[float]:
    """Root mean squared latent error after 1..K open-loop model steps."""
    error = prediction_errors(model, data.batch(ids, data.actions.shape[1])).square()
    return error.flatten(2).mean((0, 2)).sqrt().tolist()


class RolloutLoss(nn.Module):
    """``rollout_loss`` of a model as a module: what ``fit`` minimises."""

    def __init__(self, model: WorldModel, huber: float) -> None:
        super().__init__()
        self.model, self.huber = model, huber

    def forward(self, start: Tensor, actions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Arguments as in ``rollout_loss``."""
        return {"rollout": rollout_loss(self.model, start, actions, targets, self.huber)}


def train_dynamics(
    model: WorldModel,
    data: LatentWindows,
    config: DynamicsConfig,
    folder: str | Path | None = None,
    progress: bool = True,
    augment: Augmentation | None = None,
    probe: Probe | None = None,
) -> dict[str, Any]:
    """Train ``model.predictor`` in place; resumes from ``folder`` when it holds an unfinished run.

    Args:
        model: world model whose projector stays as it is.
        data: windows of at least ``config.rollout`` steps.
        config: losses and schedule.
        folder: where the resumable state is kept; None: nowhere.
        progress: show a progress bar.
        augment: maps latents ``(B, U + 1, *L)`` and actions ``(B, U, A)`` to equally valid ones.
        probe: closed-loop success that picks the weights; None: the last weights.

    Returns:
        Facts: steps, seconds, loss curve, probes, held-out open-loop error per model step.

    Raises:
        UserError: windows too short, a batch that the processes cannot share evenly, or a loss
            that is not finite.
    """
    check_batch("dynamics.batch", config.batch)
    if data.actions.shape[1] < config.rollout:
        raise UserError(
            f"rollout: {config.rollout} steps; the windows have {data.actions.shape[1]}"
        )
    if config.threads:
        torch.set_num_threads(config.threads)
    train, held = data.split()
    device = model.action_mean.device

    def draw(generator: torch.Generator, part: slice) -> tuple[Tensor, ...]:
        ids = train[torch.randint(len(train), (config.batch,), generator=generator)]
        latents, actions = data.take(ids, config.rollout)
        if augment is not None:
            latents, actions = augment(latents, actions, generator)
        start = latents[:, 0]
        if config.noise:
            start = start + config.noise * torch.randn(start.shape, generator=generator)
        batch = (start, actions, latents[:, 1:])
        return tuple(value[part].to(device) for value in batch)

    done = fit(
        RolloutLoss(model, config.huber),
        {"predictor": model.predictor},
        draw,
        Schedule(
            config.steps, config.lr, config.weight_decay, max_seconds=config.max_seconds,
            save_every=config.save_every, seed=config.seed,
        ),
        key=resume_key(config, data),
        name="dynamics",
        folder=None if folder is None else Path(folder),
        probe=probe,
        progress=progress,
    )  # fmt: skip
    return {
        "steps": done.step,
        "seconds": round(done.elapsed, 1),
        "curve": [row[:2] for row in done.curve],
        "probes": done.probes,
        "open_loop_rmse": open_loop_error(model, data, held[:4000]),
    }


def resume_key(config: DynamicsConfig, data: LatentWindows) -> dict[str, Any]:
    """What must agree for a stored state to be taken up: the settings and the data.

    ``fit`` adds what the run starts from.
    """
    settings = {k: v for k, v in asdict(config).items() if k != "threads"}
    settings["held_out"] = data.held_out
    return {
        "settings": settings,
        "windows": list(data.actions.shape),
        # any change of projector or store shows here
        "latents": float(data.latents[::7].double().sum()),
    }
