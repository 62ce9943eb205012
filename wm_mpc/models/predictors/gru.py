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
        # cuDNN's recurrent layers have a gradient in training mode only; planning needs one too.
        with torch.backends.cudnn.flags(enabled=self.training):
            hidden, _ = self.gru(x)
        return latents + self.head(hidden).unflatten(-1, self.latent_shape)

    def one_frame(self, latent: Tensor, action: Tensor) -> Tensor:
        """``forward`` for a history of one frame: ``(B, *L), (B, A) -> (B, *L)``.

        The hidden state before the first frame is zero, so that half of the products are of zeros
        and left out here.
        """
        x = self.embed(torch.cat([latent.flatten(1), action], -1))
        for layer in range(self.gru.num_layers):
            weight, _, bias, hidden_bias = (
                getattr(self.gru, f"{name}_l{layer}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            reset, update, new = nn.functional.linear(x, weight, bias).chunk(3, -1)
            hidden_reset, hidden_update, hidden_new = hidden_bias.chunk(3)
            reset = torch.sigmoid(reset + hidden_reset)
            update = torch.sigmoid(update + hidden_update)
            x = (1 - update) * torch.tanh(new + reset * hidden_new)
        return latent + self.head(x).unflatten(-1, self.latent_shape)
