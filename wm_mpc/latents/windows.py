"""Windows of consecutive model steps: on latents, or on tokens for losses that train a projector.

Both know their frames, their normalised model actions and their episodes, and hold out the last
episodes. ``replay`` cuts windows of the same kind from trajectories that were never in a store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_mpc.data.store.windows import Frames, Windows
from wm_mpc.latents.encode import encode_window
from wm_mpc.latents.frames import first_held_out
from wm_mpc.models.world_model import WorldModel

Batch = tuple[Tensor, Tensor, Tensor]
"""Start latents ``(B, *L)``, model actions ``(B, U, A)``, target latents ``(B, U, *L)``."""

Augmentation = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Maps latents ``(B, U + 1, *L)`` and actions ``(B, U, A)`` to equally valid ones."""


def held_out_split(episode: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Indices ``(train, held out)`` of windows whose episodes are given, int64 ``(N,)``.

    The last ``share`` of the episodes is held out, at least one of them.
    """
    limit = first_held_out(int(episode.max()) + 1, share)
    return torch.where(episode < limit)[0], torch.where(episode >= limit)[0]


def model_actions(model: WorldModel, frames: Frames, windows: Windows) -> Tensor:
    """Normalised model actions of windows, float32 ``(N, K, A)``."""
    raw = torch.from_numpy(frames.actions[windows.actions])  # (N, K, frameskip, action_dim)
    return model.normalize_actions(raw.flatten(1, 2).to(model.action_mean.device)).cpu()


class _Split:
    episode: Tensor
    held_out: float

    def split(self, share: float | None = None) -> tuple[Tensor, Tensor]:
        """Window ids ``(train, held out)``; whole episodes are held out, the last ones.

        Args:
            share: of the episodes; None: ``held_out``.
        """
        return held_out_split(self.episode, self.held_out if share is None else share)


@dataclass(frozen=True)
class LatentWindows(_Split):
    """Training windows on latents.

    Attributes:
        latents: float32 ``(F, *L)``, one per frame of the store.
        frames: int64 ``(N, K + 1)`` frame ids of the window boundaries.
        actions: float32 ``(N, K, A)`` model actions between them, normalised.
        episode: int64 ``(N,)``.
        held_out: share of the episodes kept for validation, in (0, 0.5].
    """

    latents: Tensor
    frames: Tensor
    actions: Tensor
    episode: Tensor
    held_out: float = 0.02

    @classmethod
    def build(
        cls,
        model: WorldModel,
        latents: Tensor,
        frames: Frames,
        windows: Windows,
        held_out: float = 0.02,
    ) -> LatentWindows:
        """Pair latents with the windows of a store."""
        actions = model_actions(model, frames, windows)
        ids, episode = torch.from_numpy(windows.frames), torch.from_numpy(windows.episode)
        return cls(latents, ids, actions, episode, held_out)

    def take(self, ids: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Latents ``(B, U + 1, *L)`` and actions ``(B, U, A)``, the first steps of windows."""
        return self.latents[self.frames[ids, : steps + 1]], self.actions[ids, :steps]

    def batch(self, ids: Tensor, steps: int) -> Batch:
        """The first model steps of windows ``ids`` ``(B,)``."""
        latents, actions = self.take(ids, steps)
        return latents[:, 0], actions, latents[:, 1:]


@dataclass(frozen=True)
class TokenWindows(_Split):
    """Windows of ``K`` model steps over frames whose tokens are cached.

    Attributes:
        tokens: float16 ``(F, N, C)``: a memory map, or a tensor that already lies on the device.
        proprio: raw, float32 ``(F, P)``.
        frames: int64 ``(W, K + 1)`` frame ids of the window boundaries.
        actions: float32 ``(W, K, A)`` normalised model actions between them.
        episode: int64 ``(W,)``.
        device: where batches go.
        held_out: share of the episodes kept for validation, in (0, 0.5].
    """

    tokens: np.ndarray | Tensor
    proprio: Tensor
    frames: Tensor
    actions: Tensor
    episode: Tensor
    device: torch.device
    held_out: float = 0.02

    @classmethod
    def build(
        cls,
        model: WorldModel,
        tokens: np.ndarray,
        proprio: np.ndarray,
        frames: Frames,
        windows: Windows,
        held_out: float = 0.02,
    ) -> TokenWindows:
        """Pair cached tokens with the windows of a store; tokens that fit move to the GPU."""
        device = model.action_mean.device
        held: np.ndarray | Tensor = tokens
        if device.type == "cuda" and tokens.nbytes < 0.5 * torch.cuda.mem_get_info(device)[0]:
            held = torch.from_numpy(np.asarray(tokens)).to(device)
        actions = model_actions(model, frames, windows)
        ids, episode = torch.from_numpy(windows.frames), torch.from_numpy(windows.episode)
        own = torch.from_numpy(proprio)
        return cls(held, own, ids, actions, episode, device, held_out)

    def batch(self, ids: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, proprioception and actions of windows, on the device.

        Args:
            ids: window ids ``(B,)``.
            steps: model steps ``T`` to take of each window.

        Returns:
            float32 ``(B, T + 1, N, C)``, ``(B, T + 1, P)`` and ``(B, T, A)``.
        """
        frames = self.frames[ids, : steps + 1]
        if isinstance(self.tokens, Tensor):
            tokens = self.tokens[frames.to(self.device)]
        else:
            tokens = torch.from_numpy(self.tokens[frames.numpy()]).to(self.device)
        own, actions = self.proprio[frames], self.actions[ids, :steps]
        return tokens.float(), own.to(self.device), actions.to(self.device)

    def key(self) -> dict[str, Any]:
        """What identifies the data of an unfinished run."""
        sample = np.asarray(self.tokens[0].cpu() if isinstance(self.tokens, Tensor)
                            else self.tokens[0], np.float64)  # fmt: skip
        return {
            "windows": list(self.actions.shape),
            "tokens": [*self.tokens.shape, float(sample.sum())],
            "proprio": float(self.proprio.double().sum()),
            "held_out": self.held_out,
        }


def prediction_errors(model: WorldModel, batch: Batch, size: int = 64) -> Tensor:
    """Open-loop predictions of a batch minus the truth, ``(B, U, *L)`` on the CPU."""
    device, parts = model.action_mean.device, []
    with torch.no_grad():
        for start, actions, targets in zip(*(part.split(size) for part in batch), strict=True):
            predicted = model.rollout(start.to(device), actions.to(device))
            parts.append(predicted.cpu() - targets)
    return torch.cat(parts)


def token_open_loop(model: WorldModel, data: TokenWindows, ids: Tensor) -> list[float]:
    """Root mean squared latent error after 1..K open-loop model steps, from cached tokens."""
    total, count = torch.zeros(data.actions.shape[1]), 0
    with torch.no_grad():
        for some in ids.split(16):
            tokens, own, actions = data.batch(some, data.actions.shape[1])
            latents = encode_window(model, tokens, own)
            error = (model.rollout(latents[:, 0], actions) - latents[:, 1:]).square()
            total += error.flatten(2).mean(2).sum(0).cpu()
            count += len(some)
    return (total / max(count, 1)).sqrt().tolist()


__all__ = [
    "Augmentation",
    "Batch",
    "LatentWindows",
    "TokenWindows",
    "held_out_split",
    "model_actions",
    "prediction_errors",
    "token_open_loop",
]
