"""The reader of proprioception from a latent."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from wm_mpc.core.precision import autocast
from wm_mpc.latents.encode import gather_tokens
from wm_mpc.models.world_model import WorldModel


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
            found = reader(gather_tokens(tokens, ids, device))
        loss = F.smooth_l1_loss(found.float(), targets[ids], beta=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    ids = np.arange(train, len(own))[:2000]
    with torch.no_grad():
        found = reader(gather_tokens(tokens, ids, device))
    error = (found - targets[ids]).square().mean(0).sqrt()
    return {"steps": steps, "rmse": [round(float(e), 4) for e in error]}
