"""Pictures to tokens, tokens to latents: whatever is not a control tick encodes here.

The node calls ``WorldModel.encode``, single precision from the picture to the latent. Here tokens
pass through half precision, as a token cache holds them, and products are bfloat16 where that is
faster (``core/precision``), so that latents of cached tokens and of fresh pictures agree, and
training sees what evaluation and replay see. ``exact=True`` is the node's arithmetic.

How far the two lie apart, in standard deviations of the visual latent, root mean square (largest)
over the channels of 512 frames of each bundled model:

| arithmetic | Push-T | Wall | PointMaze |
|---|---|---|---|
| float32, tokens float16 | 5e-5 (4e-4) | 5e-5 (4e-4) | 8e-5 (6e-4) |
| bfloat16, tokens float16 | 2e-3 (1e-2) | 2e-3 (1e-2) | 4e-3 (1e-2) |

Frames of ``sim_bridge.collect.generate(task, 20, seed=5, steps=130, frame_stride=5)``, on an AMD
EPYC with bfloat16 instructions. The models' own one-step errors are 0.04 to 0.12.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from wm_mpc.core.precision import autocast
from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.world_model import WorldModel

CPU_BATCH = 64
"""Pictures that a CPU encodes at a time: activations of more fall out of its cache (a fifth slower
at 256)."""
BATCH = 256
"""Pictures that a GPU encodes at a time, and frames that are projected at a time."""


def encode_images(encoder: DinoEncoder, images: np.ndarray) -> np.ndarray:
    """Tokens of pictures: uint8 ``(B, H, W, 3)`` -> float16 ``(B, N, C)``."""
    device = encoder.mean.device
    step = CPU_BATCH if device.type == "cpu" else BATCH
    with torch.no_grad(), autocast(device):
        parts = [
            encoder(torch.from_numpy(images[i : i + step]).to(device)).half().cpu()
            for i in range(0, len(images), step)
        ]
    return torch.cat(parts).numpy()


def gather_tokens(tokens: np.ndarray, ids: np.ndarray, device: torch.device) -> Tensor:
    """Cached tokens ``(F, N, C)`` of frames ``ids``, float32 ``(len(ids), N, C)`` on a device."""
    return torch.from_numpy(np.asarray(tokens[ids], np.float32)).to(device)


def sample_ids(count: int, most: int, seed: int) -> np.ndarray:
    """``most`` different ids in [0, count), sorted; all of them where there are no more."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def project(model: WorldModel, tokens: np.ndarray, proprio: np.ndarray) -> Tensor:
    """Latents of tokens float16 ``(F, N, C)`` and raw proprioception ``(F, P)``: ``(F, *L)``.

    They lie on the CPU, whatever the model's device.
    """
    device, parts = model.action_mean.device, []
    with torch.no_grad():
        for some in batches(len(tokens), BATCH):
            own = torch.from_numpy(proprio[some]).to(device)
            parts.append(model.encode_tokens(gather_tokens(tokens, some, device), own).cpu())
    return torch.cat(parts)


def encode_pictures(
    model: WorldModel, images: np.ndarray, proprio: np.ndarray, exact: bool = False
) -> Tensor:
    """Latents of pictures uint8 ``(F, H, W, 3)`` and raw proprioception ``(F, P)``: ``(F, *L)``.

    Args:
        model: world model with its encoder.
        images: pictures, in the store's size.
        proprio: raw proprioception at each of them.
        exact: the node's arithmetic instead of the token cache's, see the module.
    """
    assert model.encoder is not None
    if not exact:
        return project(model, encode_images(model.encoder, images), proprio)
    device, parts = model.action_mean.device, []
    with torch.inference_mode():
        for some in batches(len(images), CPU_BATCH):
            pictures, own = (torch.from_numpy(part[some]).to(device) for part in (images, proprio))
            parts.append(model.encode(pictures, own).cpu())
    return torch.cat(parts)


def encode_window(model: WorldModel, tokens: Tensor, proprio: Tensor) -> Tensor:
    """Latents ``(B, T, *L)`` of tokens ``(B, T, N, C)`` and raw proprioception ``(B, T, P)``.

    Differentiable: the losses that train a projector see latents through it.
    """
    flat = model.encode_tokens(tokens.flatten(0, 1), proprio.flatten(0, 1))
    return flat.unflatten(0, tokens.shape[:2])


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices that cover ``count`` rows, each of at most ``size``."""
    return (slice(start, start + size) for start in range(0, count, size))


__all__ = [
    "encode_images",
    "encode_pictures",
    "encode_window",
    "gather_tokens",
    "project",
    "sample_ids",
]
