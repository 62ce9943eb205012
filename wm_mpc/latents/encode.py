"""Pictures to tokens, tokens to latents."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wm_mpc.core.precision import autocast
from wm_mpc.data.store.windows import Frames, Windows
from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.world_model import WorldModel

CPU_BATCH = 64


def encode_images(encoder: DinoEncoder, images: np.ndarray) -> np.ndarray:
    """Tokens of pictures: uint8 ``(B, H, W, 3)`` -> float16 ``(B, N, C)``.

    The arithmetic is bfloat16 where that is faster, see ``precision``.
    """
    device = encoder.mean.device
    # activations of a larger batch fall out of a CPU's cache (a fifth slower at 256)
    step = CPU_BATCH if device.type == "cpu" else len(images)
    with torch.no_grad(), autocast(device):
        parts = [
            encoder(torch.from_numpy(images[i : i + step]).to(device)).half().cpu()
            for i in range(0, len(images), step)
        ]
    return torch.cat(parts).numpy()


class FrameView:
    """The frames of a store as one sequence of pictures."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames.image_step)

    def __getitem__(self, index: int) -> np.ndarray:
        """Picture ``index``, uint8 ``(H, W, 3)``."""
        return self.frames.gather(np.array([index]))[0]


def project_frames(
    model: WorldModel, tokens: np.ndarray, proprio: np.ndarray, batch: int = 1024
) -> Tensor:
    """Latents of all frames, ``(F, *L)``.

    Args:
        model: world model; its projector and proprioception encoder are used.
        tokens: float16 ``(F, N, C)``.
        proprio: raw proprioception, float32 ``(F, P)``.
        batch: frames per forward pass.
    """
    parts = []
    device = model.action_mean.device
    with torch.no_grad():
        for start in range(0, len(tokens), batch):
            part = torch.from_numpy(np.asarray(tokens[start : start + batch], np.float32))
            own = torch.from_numpy(proprio[start : start + batch]).to(device)
            parts.append(model.encode_tokens(part.to(device), own).cpu())
    return torch.cat(parts)


def frame_proprio(frames: Frames) -> np.ndarray:
    """Raw proprioception at every frame of a store, float32 ``(F, P)``."""
    episode = np.repeat(np.arange(len(frames.length)), np.diff(frames.frame_start))
    return frames.proprio[frames.row_start[episode] + frames.image_step]


BATCH = 256


def project_chosen(
    model: WorldModel, tokens: np.ndarray, ids: np.ndarray, own: np.ndarray, progress: bool = False
) -> Tensor:
    """Latents of frames ``ids`` from cached tokens ``(F, N, C)``: ``(len(ids), *L)``."""
    parts = [
        project_frames(model, tokens[ids[i : i + BATCH]], own[i : i + BATCH])
        for i in _batches(len(ids), "latents", progress)
    ]
    return torch.cat(parts)


def encode_chosen(
    model: WorldModel, frames: Frames, ids: np.ndarray, own: np.ndarray, progress: bool = False
) -> Tensor:
    """Latents of frames ``ids`` from their pictures: ``(len(ids), *L)``."""
    parts = [
        encode_pictures(model, frames.gather(ids[i : i + BATCH]), own[i : i + BATCH])
        for i in _batches(len(ids), "frames", progress)
    ]
    return torch.cat(parts)


def encode_pictures(model: WorldModel, images: np.ndarray, proprio: np.ndarray) -> Tensor:
    """Latents of pictures uint8 ``(F, H, W, 3)`` and raw proprioception ``(F, P)``: ``(F, *L)``.

    Goes through the same half-precision tokens as a token cache, so that latents agree.
    """
    assert model.encoder is not None
    parts = [
        project_frames(model, encode_images(model.encoder, images[i : i + BATCH]),
                       proprio[i : i + BATCH])
        for i in range(0, len(images), BATCH)
    ]  # fmt: skip
    return torch.cat(parts)


def _batches(count: int, name: str, progress: bool) -> tqdm:
    return tqdm(range(0, count, BATCH), desc=name, disable=not progress, mininterval=2.0)


def held_out_frames(frames: Frames, share: float, most: int, seed: int) -> np.ndarray:
    """Frame ids of the last episodes, which training holds out too; sorted, at most ``most``."""
    episodes = len(frames.length)
    first = episodes - max(1, int(np.ceil(share * episodes)))
    ids = np.arange(frames.frame_start[first], frames.frame_start[-1])
    if len(ids) > most:
        ids = np.sort(np.random.default_rng(seed).choice(ids, most, replace=False))
    return ids


def encode_frames(model: WorldModel, frames: Frames, ids: np.ndarray, batch: int = 64) -> Tensor:
    """Latents ``(M, *L)`` of frames, computed from the pictures as the node does."""
    own, device = frame_proprio(frames), model.action_mean.device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(ids), batch):
            some = ids[start : start + batch]
            images = torch.from_numpy(frames.gather(some)).to(device)
            parts.append(model.encode(images, torch.from_numpy(own[some]).to(device)).cpu())
    return torch.cat(parts)


def last_episodes(windows: Windows, frames: Frames, share: float) -> Windows:
    """The windows of the held-out episodes."""
    episodes = len(frames.length)
    first = episodes - max(1, int(np.ceil(share * episodes)))
    keep = windows.episode >= first
    return Windows(
        windows.episode[keep], windows.start[keep], windows.frames[keep], windows.actions[keep],
        windows.rows[keep],
    )  # fmt: skip
