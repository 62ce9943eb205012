"""Latent predictors behind one call: ``(B, H, *L), (B, H, A) -> (B, H, *L)``.

All are causal over the H frames.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from wm_mpc.models.predictors.gru import GruPredictor
from wm_mpc.models.predictors.mlp import MlpPredictor
from wm_mpc.models.predictors.vit import VitPredictor

PREDICTORS: dict[str, Callable[..., nn.Module]] = {
    "mlp": MlpPredictor,
    "gru": GruPredictor,
    "vit": VitPredictor,
}

__all__ = ["PREDICTORS", "GruPredictor", "MlpPredictor", "VitPredictor"]
