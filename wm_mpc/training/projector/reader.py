"""The reader of proprioception from a latent."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from wm_mpc.core.precision import fast_bf16
from wm_mpc.latents.encode import gather_tokens
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.optimise.loop import Schedule, fit
from wm_mpc.training.projector.losses import Regression


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
    if model.config.goal_weights:  # what counts in no goal, velocities, is read as its mean
        counts = torch.tensor(model.config.goal_weights, device=device) > 0
        targets = targets * counts
    train = len(own) - max(1, len(own) // 50)

    def draw(generator: torch.Generator, part: slice) -> tuple[Tensor, ...]:
        ids = np.sort(rng.integers(0, train, batch))
        return gather_tokens(tokens, ids, device), targets[ids]

    schedule = Schedule(
        steps, 2e-3, bf16=fast_bf16(device.type), seed=seed,
        scheduler=lambda optimizer: OneCycleLR(optimizer, 3e-3, steps, pct_start=0.05),
    )  # fmt: skip
    fit(Regression(reader), {"reader": reader}, draw, schedule, key={}, name="reader", alone=True)
    ids = np.arange(train, len(own))[:2000]
    with torch.no_grad():
        found = reader(gather_tokens(tokens, ids, device))
    error = (found - targets[ids]).square().mean(0).sqrt()
    return {"steps": steps, "rmse": [round(float(e), 4) for e in error]}
