"""The frames of a store: their proprioception, their latents, and which of them are held out."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wm_mpc.data.store.windows import Frames, Windows
from wm_mpc.latents.encode import BATCH, encode_pictures, project, sample_ids
from wm_mpc.models.world_model import WorldModel


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


def frame_rows(frames: Frames) -> np.ndarray:
    """Row of ``Frames.proprio`` and ``Frames.state`` at every frame, int ``(F,)``."""
    episode = np.repeat(np.arange(len(frames.length)), np.diff(frames.frame_start))
    return frames.row_start[episode] + frames.image_step


def frame_proprio(frames: Frames) -> np.ndarray:
    """Raw proprioception at every frame of a store, float32 ``(F, P)``."""
    return frames.proprio[frame_rows(frames)]


def frame_latents(
    model: WorldModel,
    frames: Frames,
    ids: np.ndarray | None = None,
    tokens: np.ndarray | None = None,
    exact: bool = False,
    progress: bool = False,
) -> Tensor:
    """Latents of frames of a store, ``(len(ids), *L)`` on the CPU.

    Args:
        model: world model; with its encoder where there are no tokens.
        frames: frames of the store.
        ids: which of them; None: all, in order.
        tokens: the store's token cache ``(F, N, C)``; None: encode the pictures.
        exact: encode them as the node does, see ``encode``; without ``tokens`` only.
        progress: show a progress bar.
    """
    own = frame_proprio(frames)
    ids = np.arange(len(own)) if ids is None else ids
    parts = []
    starts = range(0, len(ids), BATCH)
    for start in tqdm(starts, desc="latents", disable=not progress, mininterval=2.0):
        some = ids[start : start + BATCH]
        if tokens is not None:
            parts.append(project(model, tokens[some], own[some]))
        else:
            parts.append(encode_pictures(model, frames.gather(some), own[some], exact))
    return torch.cat(parts)


def first_held_out(episodes: int, share: float) -> int:
    """Number of the first held-out episode: the last ``share`` of them is, at least one."""
    return episodes - max(1, math.ceil(share * episodes))


def held_out_frames(frames: Frames, share: float, most: int, seed: int) -> np.ndarray:
    """Frame ids of the held-out episodes; sorted, at most ``most``."""
    first = frames.frame_start[first_held_out(len(frames.length), share)]
    return first + sample_ids(int(frames.frame_start[-1] - first), most, seed)


def held_out_windows(windows: Windows, frames: Frames, share: float) -> Windows:
    """The windows of the held-out episodes."""
    return windows.subset(windows.episode >= first_held_out(len(frames.length), share))


__all__ = [
    "FrameView",
    "first_held_out",
    "frame_latents",
    "frame_proprio",
    "frame_rows",
    "held_out_frames",
    "held_out_windows",
]
