"""Training windows on cached tokens, for the losses that need more than frozen latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_mpc.data.store.windows import Frames, Windows
from wm_mpc.latents.encode import frame_proprio
from wm_mpc.latents.windows import held_out_split
from wm_mpc.models.world_model import WorldModel


@dataclass(frozen=True)
class TokenWindows:
    """Windows of ``K`` model steps over frames whose tokens are cached.

    Attributes:
        tokens: float16 ``(F, N, C)``: a memory map, or a tensor that already lies on the device.
        proprio: raw, float32 ``(F, P)``.
        frames: int64 ``(W, K + 1)`` frame ids of the window boundaries.
        actions: float32 ``(W, K, A)`` normalised model actions between them.
        episode: int64 ``(W,)``.
        device: where batches go.
    """

    tokens: np.ndarray | Tensor
    proprio: Tensor
    frames: Tensor
    actions: Tensor
    episode: Tensor
    device: torch.device

    @classmethod
    def build(
        cls, model: WorldModel, tokens: np.ndarray, frames: Frames, windows: Windows
    ) -> TokenWindows:
        """Pair cached tokens with the windows of a store; tokens that fit move to the GPU."""
        raw = torch.from_numpy(frames.actions[windows.actions]).flatten(1, 2)
        device = model.action_mean.device
        held: np.ndarray | Tensor = tokens
        if device.type == "cuda" and tokens.nbytes < 0.5 * torch.cuda.mem_get_info(device)[0]:
            held = torch.from_numpy(np.asarray(tokens)).to(device)
        return cls(
            held,
            torch.from_numpy(frame_proprio(frames)),
            torch.from_numpy(windows.frames),
            model.normalize_actions(raw.to(device)).cpu(),
            torch.from_numpy(windows.episode),
            device,
        )

    def split(self, share: float) -> tuple[Tensor, Tensor]:
        """Window ids ``(train, held out)``; whole episodes are held out, the last ones."""
        return held_out_split(self.episode, share)

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
        }


def encode_window(model: WorldModel, tokens: Tensor, proprio: Tensor) -> Tensor:
    """Latents ``(B, T, *L)`` of tokens ``(B, T, N, C)`` and raw proprioception ``(B, T, P)``."""
    flat = model.encode_tokens(tokens.flatten(0, 1), proprio.flatten(0, 1))
    return flat.unflatten(0, tokens.shape[:2])


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
