r"""Goal costs: how far an imagined trajectory is from the goal.

One weighted sum covers all of the published objectives:

.. math::

    J = \sum_t w_t \sum_d c_d (z_{t,d} - g_d)^2 + \lambda_a \|a\|^2
        + \lambda_s \|\Delta a\|^2

with time weights ``w`` (terminal; or geometric, ``w_t ~ base**t``, arXiv 2512.09929) and channel
weights ``c`` (mean over the visual channels plus ``proprio_weight`` times the mean over the
proprioception channels).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from wm_mpc.core.fields import Checked, NonNegativeFloat, PositiveFloat
from wm_mpc.models.world_model import WorldModel


@dataclass(frozen=True)
class ObjectiveConfig(Checked):
    """Weights of the goal cost.

    Attributes:
        mode: ``terminal`` (last step only), ``running`` (last step + ``running_weight`` times
            every earlier one) or ``geometric`` (``base**t``, normalised to sum 1; base < 1
            stresses early, > 1 late predictions).
        base: base of the geometric weights, > 0.
        running_weight: weight of the non-terminal steps in ``running`` mode, >= 0.
        proprio_weight: weight of the proprioception channels, >= 0.
        action_weight: weight of the mean squared normalised action, >= 0.
        smoothness_weight: weight of the mean squared difference of consecutive model actions,
            >= 0.
    """

    live: ClassVar[bool] = True

    mode: Literal["terminal", "running", "geometric"] = "running"
    base: PositiveFloat = 0.5
    running_weight: NonNegativeFloat = 0.02
    proprio_weight: NonNegativeFloat = 0.3
    action_weight: NonNegativeFloat = 0.0
    smoothness_weight: NonNegativeFloat = 0.0

    def time_weights(self, horizon: int) -> Tensor:
        """Weights of the predicted steps 1..T, shape ``(T,)``."""
        weights = torch.zeros(horizon)
        if self.mode == "geometric":
            weights = self.base ** torch.arange(horizon, dtype=torch.float32)
            return weights / weights.sum()
        if self.mode == "running":
            weights[:] = self.running_weight
        weights[-1] = 1.0
        return weights

    def channel_weights(
        self, visual_dim: int, proprio_width: int, proprio_weights: Tensor | None = None
    ) -> Tensor:
        """Weights of the latent channels, shape ``(visual_dim + proprio_width,)``.

        Args:
            visual_dim: number of visual channels; their weights sum to 1.
            proprio_width: number of proprioception channels; their weights sum to
                ``proprio_weight``.
            proprio_weights: relative weight per proprioception channel, ``(proprio_width,)``,
                >= 0; default: all equal. Velocities usually get 0: a goal is a place to be, not a
                speed to pass through it with.
        """
        visual = torch.full((visual_dim,), 1.0 / visual_dim)
        proprio = (
            torch.ones(proprio_width) if proprio_weights is None else proprio_weights.cpu().float()
        )
        total = proprio.sum().clamp(min=1e-12)
        return torch.cat([visual, self.proprio_weight * proprio / total])


class GoalObjective:
    """Goal cost with its weights laid out as tensors, ready for compiled planners.

    Args:
        config: weights.
        horizon: ``T``.
        visual_dim: visual channels, the first of the latent's last axis.
        proprio_width: channels of proprioception behind them.
        device: torch device.
        proprio_weights: relative weight per proprioception channel, see
            ``ObjectiveConfig.channel_weights``.

    Attributes:
        uses_proprio: whether the proprioception channels have their weight.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        horizon: int,
        visual_dim: int,
        proprio_width: int,
        device: torch.device | str = "cpu",
        proprio_weights: Tensor | None = None,
    ) -> None:
        self.config = config
        self.horizon = horizon
        self.visual_dim = visual_dim
        self.time_weights = config.time_weights(horizon).to(device)
        self.channel_weights = config.channel_weights(
            visual_dim, proprio_width, proprio_weights
        ).to(device)
        self._all_weights = self.channel_weights.clone()
        self.uses_proprio = True

    def with_horizon(self, horizon: int) -> GoalObjective:
        """Return the same cost over another horizon."""
        other = copy.copy(self)
        other.horizon = horizon
        other.time_weights = self.config.time_weights(horizon).to(self.time_weights.device)
        return other

    def use_proprio(self, used: bool) -> None:
        """Give the proprioception channels their weight, or none where the goal's is unknown.

        The weights change in place, so that every planner and compiled kernel that holds them
        follows.
        """
        self.uses_proprio = used
        self.channel_weights.copy_(self._all_weights)
        self.channel_weights[self.visual_dim :] *= float(used)

    def distance(self, latents: Tensor, goal: Tensor) -> Tensor:
        """Weighted squared distance per frame, averaged over tokens.

        ``(..., *L)`` and ``L`` -> ``(...)``.
        """
        error = (latents - goal).square() @ self.channel_weights
        return error.mean(-1) if goal.ndim == 2 else error

    def __call__(self, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        """Cost of predicted trajectories: ``(B, T, *L), (B, T, A), L -> (B,)``."""
        cost = self.distance(latents, goal) @ self.time_weights
        if self.config.action_weight:
            cost = cost + self.config.action_weight * actions.square().mean((1, 2))
        if self.config.smoothness_weight and actions.shape[1] > 1:
            cost = cost + self.config.smoothness_weight * actions.diff(dim=1).square().mean((1, 2))
        return cost


def make_objective(model: WorldModel, config: ObjectiveConfig, horizon: int = 5) -> GoalObjective:
    """Goal cost over a model's latents; the default horizon is the CEM reference's."""
    device, weights = model.action_mean.device, model.goal_weights
    return GoalObjective(config, horizon, model.visual_dim, model.proprio_width, device, weights)
