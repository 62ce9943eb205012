"""Whether two models see alike: then their latents mean the same and their errors compare."""

from __future__ import annotations

import hashlib

from wm_mpc.training.tokens import fingerprint
from wm_mpc.world_model import WorldModel

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


__all__ = ["perception_hash"]
