"""Projector and predictor trained together, on cached tokens: the published way to a latent.

The latent is whatever can be predicted; guards keep it from collapsing. The landmark projector
(``landmarks.py``) is this package's default; this one is the alternative it is measured against,
and can also refine it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge
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
from wm_mpc.latents.encode import encode_window
from wm_mpc.latents.windows import TokenWindows
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.dynamics.latent import rollout_loss
from wm_mpc.training.optimise.distributed import check_batch
from wm_mpc.training.optimise.loop import Schedule, fit
from wm_mpc.training.projector.losses import (
    InverseDynamics,
    covariance_loss,
    curvature,
    variance_loss,
)

LOSSES = ("prediction", "straighten", "inverse", "variance", "covariance", "posture")


@dataclass(frozen=True)
class JointConfig(Checked):
    """Weights of the losses, 0 switching one off, and the schedule.

    Attributes:
        steps: optimiser steps; 0: no joint training.
        batch: windows per step. Of several processes each guards the variance and covariance of
            its own share.
        lr: peak learning rate.
        rollout: model steps predicted open loop, >= 2.
        prediction: weight of the rollout error, whose targets are trained too.
        straighten: weight of the curvature of visual latents.
        inverse: weight of guessing the action from two successive latents.
        variance: weight of the guard on each channel's standard deviation.
        covariance: weight of the guard on correlated channels.
        posture: weight of the error of the first visual channels as a reading of the robot's own
            positions, those of its reports that count in a goal. It ties distances in the picture
            to distances of the robot.
        huber: errors above this many standard deviations count linearly; 0: plain squares.
        max_seconds: stop after this much training time [s]; 0: no limit.
        save_every: optimiser steps between resumable states.
        seed: seed of batches.
    """

    steps: NonNegativeInt = 0
    batch: Annotated[int, Ge(2)] = 64
    lr: PositiveFloat = 1e-3
    rollout: Annotated[int, Ge(2)] = 3
    prediction: NonNegativeFloat = 1.0
    straighten: NonNegativeFloat = 0.1
    inverse: NonNegativeFloat = 0.1
    variance: NonNegativeFloat = 1.0
    covariance: NonNegativeFloat = 0.04
    posture: NonNegativeFloat = 0.0
    huber: NonNegativeFloat = 0.0
    max_seconds: NonNegativeFloat = 0.0
    save_every: PositiveInt = 500
    seed: Suppress[NonNegativeInt] = 0


class JointLosses(nn.Module):
    """The weighted losses of one batch of windows, by name."""

    def __init__(self, model: WorldModel, config: JointConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        width = int(torch.Size(model.latent_shape).numel())
        self.inverse = InverseDynamics(width, model.action_width)
        self.positions = posture_channels(model) if config.posture else []

    def forward(self, tokens: Tensor, proprio: Tensor, actions: Tensor) -> dict[str, Tensor]:
        """Tokens ``(B, T + 1, N, C)``, proprioception ``(B, T + 1, P)``, actions ``(B, T, A)``."""
        config, model = self.config, self.model
        latents = encode_window(model, tokens, proprio)
        visual = latents[..., : model.visual_dim]
        terms: dict[str, Tensor] = {}
        if config.prediction:
            error = rollout_loss(model, latents[:, 0], actions, latents[:, 1:], config.huber)
            terms["prediction"] = config.prediction * error
        if config.straighten:
            terms["straighten"] = config.straighten * curvature(visual)
        if config.inverse:
            flat = latents.flatten(2)
            guess = self.inverse(flat[:, :-1], flat[:, 1:])
            terms["inverse"] = config.inverse * F.mse_loss(guess, actions)
        if config.posture:
            own = latents[..., model.visual_dim :][..., self.positions]
            read = visual[..., : len(self.positions)]
            terms["posture"] = config.posture * F.mse_loss(read, own)
        samples = visual.flatten(0, -2)
        if config.variance:
            terms["variance"] = config.variance * variance_loss(samples)
        if config.covariance:
            terms["covariance"] = config.covariance * covariance_loss(samples)
        return terms


def posture_channels(model: WorldModel) -> list[int]:
    """Channels of the normalised proprioception that the first visual channels read.

    Raises:
        UserError: there are none, or more than visual channels.
    """
    config = model.config
    weights = config.goal_weights or (1.0,) * config.proprio_dim
    found = [i for i, weight in enumerate(weights) if weight > 0]
    if config.proprio_embed or not 0 < len(found) <= model.visual_dim:
        raise UserError(
            f"joint.posture: {len(found)} positions without an embedding; 1 to "
            f"{model.visual_dim} (visual_dim) expected"
        )
    return found


def train_joint(
    model: WorldModel,
    data: TokenWindows,
    config: JointConfig,
    folder: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train projector and predictor together, in place; resumes from ``folder``.

    Args:
        model: world model with a trained projector, compact layout.
        data: windows of at least ``config.rollout`` steps.
        config: losses and schedule.
        folder: where the resumable state is kept; None: nowhere.
        progress: show a progress bar.

    Returns:
        Facts: steps, seconds, final value of each loss.

    Raises:
        UserError: windows too short, a batch that the processes cannot share evenly, nothing to
            minimise, or a loss that is not finite.
    """
    check_batch("joint.batch", config.batch)
    if data.actions.shape[1] < config.rollout:
        raise UserError(
            f"rollout: {config.rollout} steps; the windows have {data.actions.shape[1]}"
        )
    if not any(getattr(config, name) for name in LOSSES):
        raise UserError(f"prediction: {config.prediction}; at least one weight above 0 expected")
    torch.manual_seed(config.seed)
    losses = JointLosses(model, config).to(data.device)
    train, _ = data.split()

    def draw(generator: torch.Generator, part: slice) -> tuple[Tensor, ...]:
        ids = train[torch.randint(len(train), (config.batch,), generator=generator)]
        return data.batch(ids[part], config.rollout)

    trained: dict[str, nn.Module] = {"projector": model.projector}
    if config.prediction:
        trained["predictor"] = model.predictor
    if config.inverse:
        trained["inverse"] = losses.inverse
    done = fit(
        losses, trained, draw,
        Schedule(
            config.steps, config.lr, max_seconds=config.max_seconds,
            save_every=config.save_every, seed=config.seed,
        ),
        key=asdict(config) | data.key(), name="joint", folder=folder, progress=progress,
    )  # fmt: skip
    last = dict(zip(done.names, done.curve[-1][1:], strict=True)) if done.curve else {}
    return {"steps": done.step, "seconds": round(done.elapsed, 1), "losses": last}
