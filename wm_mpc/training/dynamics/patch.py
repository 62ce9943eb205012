"""DINO-WM's layout: patch tokens as they are, a frame-causal ViT, teacher forcing.

Zhou et al., arXiv 2411.04983, app. A.9: the next frame is predicted at every history position,
with 10 channels of embedded proprioception and 10 of embedded action on every token. On top, an
open-loop loss in the way planners roll the model out: conditioned on the last frame only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tyro.conf import Suppress

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import (
    Checked,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from wm_mpc.latents.encode import encode_window, gather_tokens, sample_ids
from wm_mpc.latents.windows import TokenWindows, token_open_loop
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.optimise.loop import Probe, Schedule, fit

SIZES: dict[str, dict[str, Any]] = {
    "small": {"width": 256, "depth": 3, "heads": 4, "head_dim": 32, "dropout": 0.0},
    "dino-wm": {"width": 2048, "depth": 6, "heads": 16, "head_dim": 64, "dropout": 0.1},
}


@dataclass(frozen=True)
class PatchConfig(Checked):
    """Sizes, losses and schedule of the patch layout.

    Attributes:
        size: ``small``, or ``dino-wm`` with 20 M parameters.
        history: frames that the predictor sees, >= 1.
        proprio_embed: channels of embedded proprioception on every token, >= 1.
        action_embed: channels of the embedded action on every token, >= 1.
        steps: optimiser steps.
        batch: windows per step, over all processes.
        lr: peak learning rate.
        rollout: model steps of the open-loop loss; 0 switches it off.
        rollout_weight: its weight against teacher forcing.
        bf16: bfloat16 arithmetic; unset: on CUDA.
        max_seconds: stop after this much training time [s]; 0: no limit.
        save_every: optimiser steps between resumable states.
        seed: seed of weights and batches.
    """

    size: str = "small"
    history: PositiveInt = 3
    proprio_embed: PositiveInt = 10
    action_embed: PositiveInt = 10
    steps: PositiveInt = 5000
    batch: PositiveInt = 32
    lr: PositiveFloat = 5e-4
    rollout: NonNegativeInt = 3
    rollout_weight: NonNegativeFloat = 0.5
    bf16: bool | None = None
    max_seconds: NonNegativeFloat = 0.0
    save_every: PositiveInt = 500
    seed: Suppress[NonNegativeInt] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size not in SIZES:
            raise UserError(f"size: {self.size!r}; one of {', '.join(SIZES)} expected")

    @property
    def window(self) -> int:
        """Model steps per training window."""
        return max(self.history, self.rollout)

    def predictor_args(self) -> dict[str, Any]:
        """Arguments of ``VitPredictor``."""
        return SIZES[self.size] | {"history": self.history, "action_embed": self.action_embed}


class PatchLosses(nn.Module):
    """Teacher forcing over the history, and the open-loop rollout from the first frame."""

    def __init__(self, model: WorldModel, config: PatchConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, tokens: Tensor, proprio: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """Tokens ``(B, T + 1, N, C)``, proprioception ``(B, T + 1, P)``, actions ``(B, T, A)``."""
        config, model = self.config, self.model
        latents = encode_window(model, tokens, proprio)
        # The proprioception embedding is trained through what it helps to predict; as a target
        # it would shrink to nothing.
        targets = latents[:, 1:].detach()
        h = config.history
        predicted = model.predictor(latents[:, :h], actions[:, :h])
        terms = {"teacher": F.mse_loss(predicted, targets[:, :h])}
        if config.rollout and config.rollout_weight:
            rolled = model.rollout(latents[:, 0], actions[:, : config.rollout])
            error = F.mse_loss(rolled, targets[:, : config.rollout])
            terms["rollout"] = config.rollout_weight * error
        return terms


def set_token_scale(model: WorldModel, tokens: np.ndarray, seed: int, sample: int = 500) -> None:
    """Centre every token channel and give all of them together unit variance."""
    ids = sample_ids(len(tokens), sample, seed)
    some = gather_tokens(tokens, ids, model.visual_mean.device).flatten(0, 1)
    mean = some.mean(0)
    model.visual_mean.copy_(mean)
    model.visual_std.fill_(float((some - mean).square().mean().sqrt()))


def train_patch(
    model: WorldModel,
    data: TokenWindows,
    config: PatchConfig,
    folder: Path | None = None,
    progress: bool = True,
    probe: Probe | None = None,
) -> dict[str, Any]:
    """Train predictor and proprioception embedding in place; resumes from ``folder``.

    Args:
        model: world model of the patch layout, its normalisation set.
        data: windows of at least ``config.window`` steps.
        config: losses and schedule.
        folder: where the resumable state is kept; None: nowhere.
        progress: show a progress bar.
        probe: closed-loop success that picks the weights; None: the last weights.

    Returns:
        Facts: steps, seconds, curve, probes, held-out open-loop error per model step, parameters.

    Raises:
        UserError: windows too short, or a loss that is not finite.
    """
    if data.actions.shape[1] < config.window:
        raise UserError(
            f"window: {data.actions.shape[1]} steps; history {config.history} and rollout "
            f"{config.rollout} need {config.window}"
        )
    train, held = data.split()

    def draw(generator: torch.Generator, part: slice) -> tuple[Tensor, ...]:
        ids = train[torch.randint(len(train), (config.batch,), generator=generator)]
        return data.batch(ids[part], config.window)

    bf16 = data.device.type == "cuda" if config.bf16 is None else config.bf16
    done = fit(
        PatchLosses(model, config),
        {"predictor": model.predictor, "proprio_encoder": model.proprio_encoder},
        draw,
        Schedule(
            config.steps, config.lr, max_seconds=config.max_seconds,
            save_every=config.save_every, bf16=bf16, seed=config.seed,
        ),
        key=asdict(config) | data.key(), name="patch", folder=folder, probe=probe,
        progress=progress,
    )  # fmt: skip
    return {
        "steps": done.step,
        "seconds": round(done.elapsed, 1),
        "curve": done.curve,
        "probes": done.probes,
        "parameters": sum(p.numel() for p in model.predictor.parameters()),
        "open_loop_rmse": token_open_loop(model, data, held[:256]),
    }
