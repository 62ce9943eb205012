"""Whether two models see alike: then their latents mean the same and their errors compare."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.world_model import WorldModel

_OWN = ("predictor.", "encoder.", "action_")


def perception_hash(model: WorldModel) -> str:
    """Hash of everything between picture and latent: encoder, projector, normalisation.

    Predictor and action normalisation do not count. 12 hex digits.
    """
    digest = hashlib.sha256()
    if model.encoder is not None:
        digest.update(fingerprint(model.encoder).encode())
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith(_OWN):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]




def fingerprint(encoder: DinoEncoder) -> str:
    """Hash of an encoder's weights, 12 hex digits."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """What named tensors are: 24 hex digits of a hash over names, types, sizes and values."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:24]


def latent_fingerprint(model: WorldModel) -> str:
    """Hash of everything between tokens and latents, 12 hex digits."""
    digest = hashlib.sha256()
    parts = ("projector.", "proprio_encoder.", "proprio_mean", "proprio_std", "visual_")
    for name, value in sorted(model.state_dict().items()):
        if name.startswith(parts):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


__all__ = ["perception_hash"]
