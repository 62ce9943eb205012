"""Windows of latents that dynamics train on, and the share of episodes held out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wm_mpc.data.store.windows import Frames, Windows
from wm_mpc.models.world_model import WorldModel

Augmentation = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


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
        return held_out_split(self.episode, share)


def held_out_split(episode: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Indices ``(train, held out)`` of windows whose episodes are given, int64 ``(N,)``.

    The last ``share`` of the episodes is held out, at least one of them.
    """
    last = episode.max() + 1
    limit = last - max(1, math.ceil(share * float(last)))
    return torch.where(episode < limit)[0], torch.where(episode >= limit)[0]


def latent_windows(
    model: WorldModel, latents: Tensor, frames: Frames, windows: Windows
) -> LatentWindows:
    """Pair latents with the normalised model actions of the windows."""
    raw = torch.from_numpy(frames.actions[windows.actions])  # (N, K, frameskip, action_dim)
    actions = model.normalize_actions(raw.flatten(1, 2).to(model.action_mean.device)).cpu()
    return LatentWindows(
        latents, torch.from_numpy(windows.frames), actions, torch.from_numpy(windows.episode)
    )
