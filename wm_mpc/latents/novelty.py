"""Statistics of what training saw, from a store; see ``models/novelty``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wm_mpc.data.store.windows import Frames
from wm_mpc.latents.encode import CPU_BATCH, batches, sample_ids
from wm_mpc.latents.frames import first_held_out, frame_proprio, held_out_frames
from wm_mpc.models.identity import fingerprint
from wm_mpc.models.novelty import Novelty
from wm_mpc.models.world_model import WorldModel

FRAMES = 4000
"""Most frames that statistics are computed from."""


def fit_novelty(
    model: WorldModel,
    stores: Sequence[Frames],
    held_out: float = 0.1,
    seed: int = 0,
) -> Novelty:
    """Statistics of a model's encoder and robot.

    Args:
        model: world model with its encoder.
        stores: frames of the stores it was trained on, or of ones like them.
        held_out: share of the episodes that the scale is taken from; not those of the statistics.
        seed: seed of the choice of frames.
    """
    seen, unseen = [], []
    for frames in stores:
        first = int(frames.frame_start[first_held_out(len(frames.length), held_out)])
        most = FRAMES // len(stores)
        seen.append(_pooled(model, frames, sample_ids(first, most, seed)))
        ids = held_out_frames(frames, held_out, most, seed)
        unseen.append(_pooled(model, frames, ids))
    (pooled, proprio), (held, felt) = (
        tuple(torch.cat(part) for part in zip(*parts, strict=True)) for parts in (seen, unseen)
    )
    assert model.encoder is not None
    return Novelty.fit(pooled, proprio, (held, felt), fingerprint(model.encoder))


def _pooled(model: WorldModel, frames: Frames, ids: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean patch tokens ``(F, C)`` and proprioception ``(F, P)`` of some frames."""
    assert model.encoder is not None
    parts = []
    device = model.action_mean.device
    with torch.no_grad():
        # The node's arithmetic: half precision would show as novelty where pictures hardly differ.
        for some in batches(len(ids), CPU_BATCH):
            pictures = torch.from_numpy(frames.gather(ids[some])).to(device)
            parts.append(model.encoder(pictures).mean(1).cpu())
    return torch.cat(parts), torch.from_numpy(frame_proprio(frames)[ids])


__all__ = ["fit_novelty"]
