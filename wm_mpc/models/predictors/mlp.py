"""Residual MLP predictor: Markov, for compact latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_mpc.models.predictors.object_frame import ObjectFrame


class MlpPredictor(nn.Module):
    """Predict the change of a flat latent: ``z' = z + f([z, a])``.

    Args:
        latent_shape: ``(D,)``; token latents are flattened.
        action_width: ``A``.
        width: hidden units per layer.
        depth: hidden layers.
        object_frame: predict in the frame of the object that the latent's landmarks mark, see
            ``ObjectFrame``; it has to be fitted before use.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        action_width: int,
        width: int = 384,
        depth: int = 2,
        object_frame: bool = False,
    ) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        flat = int(torch.Size(latent_shape).numel())
        self.frame = ObjectFrame(flat, action_width) if object_frame else None
        seen = flat + action_width + (ObjectFrame.EXTRAS if object_frame else 0)
        sizes = [seen] + [width] * depth
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.LayerNorm(width), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Linear(width, flat))
        # A fresh model predicts "nothing changes", the right prior for short steps.
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Predict the next latent of every frame: ``(B, H, *L), (B, H, A) -> (B, H, *L)``."""
        flat = latents.flatten(2)
        if self.frame is None:
            change = self.net(torch.cat([flat, actions], -1))
        else:
            features, heading = self.frame.enter(flat, actions)
            change = self.frame.leave(self.net(features), heading)
        return latents + change.unflatten(-1, self.latent_shape)
