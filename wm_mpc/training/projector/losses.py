"""Losses that shape a latent space for planning, each of them a scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def curvature(latents: Tensor) -> Tensor:
    """Bend of latent trajectories: mean of one minus the cosine of successive velocities.

    Straight trajectories make the planning loss better conditioned (Temporal Straightening,
    arXiv 2603.12231). Steps without motion have no direction and do not count.

    Args:
        latents: ``(B, T, ...)`` with T >= 3.

    Returns:
        A scalar from 0 (straight) to 2 (back and forth).
    """
    velocity = latents.flatten(2).diff(dim=1)
    first, second = velocity[:, :-1], velocity[:, 1:]
    moving = (first.norm(dim=-1) > 1e-6) & (second.norm(dim=-1) > 1e-6)
    bend = 1 - F.cosine_similarity(first, second, dim=-1)
    return (bend * moving).sum() / moving.sum().clamp(min=1)


def variance_loss(x: Tensor, target: float = 1.0) -> Tensor:
    """Hinge on each channel's standard deviation over the batch (VICReg, arXiv 2105.04906, eq. 1).

    Args:
        x: ``(M, D)``.
        target: standard deviation below which a channel counts as collapsing.
    """
    return F.relu(target - (x.var(0) + 1e-4).sqrt()).mean()


def covariance_loss(x: Tensor) -> Tensor:
    """Squared covariances of different channels of ``(M, D)``, per channel (VICReg, eq. 3-4)."""
    centred = x - x.mean(0)
    covariance = centred.T @ centred / (len(x) - 1)
    off = covariance - torch.diag(covariance.diagonal())
    return off.square().sum() / x.shape[1]


class Regression(nn.Module):
    """Error of a network's numbers, above a tenth linear: what landmarks and readers minimise."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Tokens ``(B, N, C)`` and what is to be read from them, ``(B, D)``."""
        found = self.network(tokens).float()
        return {"regression": F.smooth_l1_loss(found, targets, beta=0.1)}


class InverseDynamics(nn.Module):
    """Which action led from one latent to the next: ``(..., D), (..., D) -> (..., A)``.

    A latent from which it can be told holds whatever the robot can influence.
    """

    def __init__(self, latent_width: int, action_width: int, hidden: int = 256) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2 * latent_width, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, action_width),
        )

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Guess the model action between two latents."""
        return self.net(torch.cat([before, after], -1))
