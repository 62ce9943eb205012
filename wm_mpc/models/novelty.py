"""How far an observation lies from everything that training saw.

The picture is judged by its mean patch token, not by its latent: a projector maps black, white and
noise into the middle of its range (tools and figures: docs/world_model.md). Distance is
Mahalanobis' with a shrunk covariance, as in Lee et al., arXiv 1807.03888; proprioception is judged
channel by channel. Both are scaled so that 1 is the 99.9th percentile of held-out data.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wm_mpc.core.errors import CheckpointError, one_line

NOVELTY_FILE = "novelty.safetensors"
QUANTILE = 0.999
SHRINK = 0.01
"""Share of the mean channel variance that is added to every one: directions in which the data
hardly vary would otherwise see rounding errors as news."""
MOST_BYTES = 1 << 26


class Novelty:
    """Statistics of training data, and the distance from them.

    Args:
        state: ``mean`` (C,), ``whiten`` (C, C), ``scale`` (), ``proprio_mean`` (P,),
            ``proprio_std`` (P,), ``proprio_scale`` (), float32.
        encoder: fingerprint of the encoder whose tokens they are.
    """

    def __init__(self, state: dict[str, Tensor], encoder: str) -> None:
        self.state = state
        self.encoder = encoder

    def to(self, device: torch.device) -> Novelty:
        """The same on a device."""
        return Novelty({key: value.to(device) for key, value in self.state.items()}, self.encoder)

    def __call__(self, tokens: Tensor, proprio: Tensor) -> Tensor:
        """Novelty ``(B,)`` of tokens ``(B, N, C)`` and raw proprioception ``(B, P)``."""
        own = self.state
        picture = self._picture(tokens.mean(1)) / own["scale"]
        if not len(own["proprio_mean"]):
            return picture
        return torch.maximum(picture, self._body(proprio) / own["proprio_scale"])

    def _picture(self, pooled: Tensor) -> Tensor:
        own = self.state
        return ((pooled - own["mean"]) @ own["whiten"]).square().mean(-1).sqrt()

    def _body(self, proprio: Tensor) -> Tensor:
        own = self.state
        return ((proprio - own["proprio_mean"]) / own["proprio_std"]).abs().amax(-1)

    @classmethod
    def fit(
        cls,
        pooled: Tensor,
        proprio: Tensor,
        held_out: tuple[Tensor, Tensor],
        encoder: str,
    ) -> Novelty:
        """Learn from pooled tokens ``(F, C)`` and raw proprioception ``(F, P)``.

        Args:
            pooled: mean patch token of every training frame.
            proprio: at the same frames.
            held_out: the same two of frames that the model was not trained on.
            encoder: fingerprint of the encoder.
        """
        x, p = pooled.double(), proprio.double()
        covariance = torch.cov(x.T)
        floor = SHRINK * covariance.diagonal().mean() + 1e-9
        covariance += floor * torch.eye(len(covariance), dtype=covariance.dtype)
        whiten = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
        one = torch.ones(())
        made = cls(
            {
                "mean": x.mean(0).float(), "whiten": whiten.float(), "scale": one,
                "proprio_mean": p.mean(0).float(),
                "proprio_std": (p.std(0) + 1e-6).float(), "proprio_scale": one,
            },
            encoder,
        )  # fmt: skip
        seen, felt = held_out
        made.state["scale"] = torch.quantile(made._picture(seen.float()), QUANTILE)
        if proprio.shape[1]:
            made.state["proprio_scale"] = torch.quantile(made._body(felt.float()), QUANTILE)
        return made

    def serialize(self) -> bytes:
        """What ``load_novelty`` reads."""
        state = {key: value.detach().cpu().contiguous() for key, value in self.state.items()}
        return save(state, {"encoder": self.encoder})


def load_novelty(folder: Path, channels: int, proprio_dim: int) -> Novelty | None:
    """Statistics in a model folder; None where there are none, as in older ones.

    Args:
        folder: of the world model.
        channels: ``C`` of its tokens.
        proprio_dim: ``P``.

    Raises:
        CheckpointError: damaged, or of another shape.
    """
    path = folder / NOVELTY_FILE
    if not path.is_file():
        return None
    shapes = {
        "mean": [channels], "whiten": [channels, channels], "scale": [],
        "proprio_mean": [proprio_dim], "proprio_std": [proprio_dim], "proprio_scale": [],
    }  # fmt: skip
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes; too large")
        with safe_open(path, "pt") as file:
            for key, shape in shapes.items():
                found = list(file.get_slice(key).get_shape())
                if found != shape:
                    raise CheckpointError(f"{path}: {key}: shape {found}; {shape} expected")
            state = {key: file.get_tensor(key).float() for key in shapes}
            encoder = (file.metadata() or {}).get("encoder", "")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: {one_line(error)}") from error
    for key, value in state.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {key}: not finite")
        if key in ("scale", "proprio_scale", "proprio_std") and not (value > 0).all():
            raise CheckpointError(f"{path}: {key}: {value.min():g}; more than 0 expected")
    return Novelty(state, encoder)


__all__ = ["NOVELTY_FILE", "Novelty", "load_novelty"]
