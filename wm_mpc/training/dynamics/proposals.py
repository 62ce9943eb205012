"""Trains proposers: a first guess of the plan from start and goal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from wm_mpc.models.proposers import PROPOSERS, Augmentation, Proposer
from wm_mpc.training.optimise.loop import Schedule, fit


class ProposalLoss(nn.Module):
    """``Proposer.loss`` as a module: what ``fit`` minimises; draws from the batches' generator."""

    def __init__(self, network: Proposer) -> None:
        super().__init__()
        self.network = network
        self.generator = torch.Generator()

    def forward(self, latents: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """Latents ``(B, T + 1, *L)``, model actions ``(B, T, A)``."""
        return {"proposal": self.network.loss(latents, actions, self.generator)}


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
    losses = ProposalLoss(network.to(latents.device))

    def draw(generator: torch.Generator, part: slice) -> tuple[Tensor, ...]:
        rows = torch.randint(len(latents), (batch,), generator=generator).to(latents.device)
        states, moves = latents[rows], actions[rows]
        losses.generator = generator
        return (states, moves) if augment is None else augment(states, moves, generator)

    schedule = Schedule(
        steps, learning_rate, clip=math.inf, seed=seed,
        scheduler=lambda optimizer: CosineAnnealingLR(optimizer, steps),
    )  # fmt: skip
    name = f"{kind} proposals"
    with torch.random.fork_rng():
        fit(losses, {"network": network}, draw, schedule, key={}, name=name, progress=progress)
    return network
