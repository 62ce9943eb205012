"""The guard of DINO pre-training: have the features collapsed?

Some pictures of every source, the same ones throughout, must give features that differ between
pictures in several directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_mpc.core.errors import UserError
from wm_mpc.models.encoder import IMAGENET_MEAN, IMAGENET_STD

GUARD_FROM = 100
"""First steps that the guard only records; it looks at the final features of every run."""
PROBE = 64
"""Pictures per source that the guard measures on."""
FEWEST = 8
"""Sources with fewer pictures are not judged: what so few tell has a low rank of its own."""
MIN_RANK = {"rank": 2.0, "class_rank": 1.5}
"""Effective ranks below which features count as collapsed, see ``collapse_measure``."""
MIN_SHARE = 1e-5
"""Share of the features' energy that must differ between pictures, see ``collapse_measure``."""


def collapse_measure(tokens: Tensor) -> float:
    """Effective rank of what tokens ``(B, N, dim)`` of ``B`` pictures tell pictures apart by.

    It is the exponential of the spectral entropy after the mean over the pictures was subtracted
    at every position: a map of the position alone says nothing, however rich it is. Where less
    than ``MIN_SHARE`` of the tokens' energy differs between pictures, the rank is that of rounding
    and 1 is returned. A rank of 1 means collapsed.

    Measured on 64 pictures each of Push-T, PointMaze and Wall: the bundled encoder has 11.4, 8.0
    and 7.4 for patches, 6.4, 5.9 and 6.1 for the class token; the share that differs is at least
    8e-3 for patches and 1.4e-3 for the class token. Untrained, the ranks are at least 9.0 and 6.6,
    the shares 4e-3 and 5e-5. Training on these pictures of Push-T and Wall, one seed each, the
    ranks fell to no less than 6.1 and 5.8 in 400 steps of 48 pictures, and to 6.5 and 2.5 in 300
    steps of 16, which is why the class token is held to less.
    """
    x = tokens.float()
    own = x - x.mean(0)
    if own.square().sum() < MIN_SHARE * x.square().sum():
        return 1.0
    spectrum = torch.linalg.svdvals(own.flatten(0, 1)).square()
    p = spectrum / spectrum.sum().clamp(min=1e-12)
    return float((-(p * (p + 1e-12).log()).sum()).exp())


def probe_pictures(
    frames: Sequence[np.ndarray], size: int, seed: int, device: torch.device
) -> list[Tensor]:
    """Pictures that the guard measures on, up to ``PROBE`` of every source, not augmented.

    Args:
        frames: as for ``train_dino``.
        size: side to resize to [px].
        seed: of the choice.
        device: where they go.

    Returns:
        Float ``(B, 3, size, size)``, normalised, for every source of at least ``FEWEST`` frames.

    Raises:
        UserError: no source has that many.
    """
    rng = np.random.default_rng([seed, PROBE])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    found = []
    for source in frames:
        if len(source) < FEWEST:
            continue
        ids = rng.choice(len(source), min(PROBE, len(source)), replace=False)
        x = torch.from_numpy(np.stack([source[int(i)] for i in np.sort(ids)]))
        x = x.permute(0, 3, 1, 2).float() / 255
        if x.shape[-2:] != (size, size):
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        found.append(((x - mean) / std).to(device))
    if not found:
        most = max(len(source) for source in frames)
        raise UserError(f"frames: {most} in the largest source; at least {FEWEST} expected")
    return found


@torch.no_grad()
def feature_ranks(network: nn.Module, probes: Sequence[Tensor]) -> dict[str, float]:
    """Lowest effective rank over the sources: ``rank`` of patch, ``class_rank`` of class tokens.

    Every source is measured alone: that sources differ says little of the pictures in them.
    """
    told = [network(pixels) for pixels in probes]
    return {
        "rank": min(collapse_measure(tokens[:, 1:]) for tokens in told),
        "class_rank": min(collapse_measure(tokens[:, :1]) for tokens in told),
    }


def check_ranks(ranks: dict[str, float], step: int) -> None:
    """Raise when features have collapsed.

    Raises:
        UserError: an effective rank below ``MIN_RANK``.
    """
    for name, least in MIN_RANK.items():
        if not ranks[name] >= least:
            raise UserError(
                f"{name}: features collapsed to effective rank {ranks[name]:.2f} at step {step}; "
                f"{least:g} or more expected"
            )
