"""What weights are, and whether two models see alike: then their latents mean the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from wm_mpc.models.dinov2 import present_name
from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.world_model import WorldModel

_OWN = ("predictor.", "encoder.", "action_")
_PROJECTION = ("projector.", "proprio_encoder.", "proprio_mean", "proprio_std", "visual_")


def tensor_digest(tensors: Mapping[str, Tensor], before: str = "", typed: bool = False) -> str:
    """SHA-256 of named tensors, 64 hex digits: the only digest of weights in this package.

    Args:
        tensors: on any device.
        before: text that goes first.
        typed: types and shapes count too, and the order of the mapping instead of that of the
            names; unfinished runs and finished stages are recorded so.
    """
    digest = hashlib.sha256(before.encode())
    for name, value in tensors.items() if typed else sorted(tensors.items()):
        about = f"{name} {value.dtype} {list(value.shape)}" if typed else name
        digest.update(about.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint(encoder: DinoEncoder) -> str:
    """Digest of an encoder's weights, 12 hex digits; computed once, as they are frozen.

    Releases of ``transformers`` name the same weights otherwise: the names of release 5 count.
    """
    if not encoder.fingerprint:
        weights = encoder.backbone.state_dict()
        renamed = {present_name(name): value for name, value in weights.items()}
        encoder.fingerprint = tensor_digest(renamed)[:12]
    return encoder.fingerprint


def perception_hash(model: WorldModel) -> str:
    """Digest of everything between picture and latent: encoder, projector, normalisation.

    Predictor and action normalisation do not count. 12 hex digits.
    """
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(_OWN)}
    before = "" if model.encoder is None else fingerprint(model.encoder)
    return tensor_digest(own, before)[:12]


def latent_fingerprint(model: WorldModel) -> str:
    """Digest of everything between tokens and latents, 12 hex digits."""
    own = {k: v for k, v in model.state_dict().items() if k.startswith(_PROJECTION)}
    return tensor_digest(own)[:12]


__all__ = ["fingerprint", "latent_fingerprint", "perception_hash", "tensor_digest"]
