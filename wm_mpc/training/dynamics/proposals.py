"""Trains proposers: a first guess of the plan from start and goal."""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from wm_mpc.models.proposers import PROPOSERS, Augmentation, Proposer


def train_proposer(
    kind: str,
    latents: Tensor,
    actions: Tensor,
    steps: int = 2000,
    batch: int = 256,
    learning_rate: float = 1e-3,
    width: int = 256,
    seed: int = 0,
    augment: Augmentation | None = None,
    progress: bool = False,
) -> Proposer:
    """Fit a proposer to recorded windows.

    Args:
        kind: ``init`` or ``inverse``.
        latents: latents of a frozen model, ``(N, T + 1, *L)``.
        actions: model actions between them, ``(N, T, A)``.
        steps: optimiser steps.
        batch: windows per step.
        learning_rate: of AdamW, falling to zero along a cosine.
        width: hidden units.
        seed: initial weights and every draw.
        augment: maps latents ``(B, T + 1, *L)`` and actions ``(B, T, A)`` to equally valid ones.
        progress: show a progress bar.

    Raises:
        ValueError: unknown kind, or windows that do not match.
    """
    if kind not in PROPOSERS:
        raise ValueError(f"kind: {kind!r}; one of {', '.join(PROPOSERS)} expected")
    if latents.shape[:2] != (len(actions), actions.shape[1] + 1):
        shape = tuple(latents.shape[:2])
        raise ValueError(f"latents: {shape} frames for actions {tuple(actions.shape[:2])}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = PROPOSERS[kind](latents.shape[2:], actions.shape[2], actions.shape[1], width)
    network = network.to(latents.device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(steps), desc=f"{kind} proposals", disable=not progress, mininterval=2.0):
        rows = torch.randint(len(latents), (batch,), generator=generator).to(latents.device)
        states, moves = latents[rows], actions[rows]
        if augment is not None:
            states, moves = augment(states, moves, generator)
        loss = network.loss(states, moves, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()
