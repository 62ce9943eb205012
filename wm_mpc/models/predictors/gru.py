"""GRU predictor: carries a hidden state over the history frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GruPredictor(nn.Module):
    """Predict the change of a flat latent from a recurrent summary of the history.

    Args:
        latent_shape: ``(D,)``; token latents are flattened.
        action_width: ``A``.
        width: hidden units.
        depth: GRU layers.
    """

    def __init__(
        self, latent_shape: tuple[int, ...], action_width: int, width: int = 256, depth: int = 1
    ) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        flat = int(torch.Size(latent_shape).numel())
        self.embed = nn.Sequential(
            nn.Linear(flat + action_width, width), nn.LayerNorm(width), nn.SiLU()
        )
        self.gru = nn.GRU(width, width, depth, batch_first=True)
        self.head = nn.Linear(width, flat)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Predict the next latent of every frame: ``(B, H, *L), (B, H, A) -> (B, H, *L)``."""
        x = self.embed(torch.cat([latents.flatten(2), actions], -1))
        hidden, _ = self.gru(x)
        return latents + self.head(hidden).unflatten(-1, self.latent_shape)
