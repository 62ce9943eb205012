"""Small analytic dynamics that planners are tested on."""

from __future__ import annotations

import torch
from torch import Tensor

from wm_mpc.models.predictors import MlpPredictor
from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig

HORIZON, LATENT, ACTION = 4, 3, 3


class AnalyticDynamics:
    """``z' = z + M tanh(a) + 0.1 sin(3 z)``: smooth, not convex, bounded actions."""

    latent_shape = (LATENT,)
    action_width = ACTION

    def __init__(self, bound: float = 0.8) -> None:
        generator = torch.Generator().manual_seed(7)
        self.matrix = torch.randn(ACTION, LATENT, generator=generator)
        self.bound = bound

    def action_bounds(self) -> tuple[Tensor, Tensor]:
        high = torch.full((ACTION,), self.bound)
        return -high, high

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return latent + torch.tanh(action) @ self.matrix.to(latent) + 0.1 * torch.sin(3 * latent)

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        steps = []
        for action in actions.unbind(1):
            latent = self.step(latent, action)
            steps.append(latent)
        return torch.stack(steps, 1)


class TokenDynamics(AnalyticDynamics):
    """Two tokens that interact: the patch layout ``(N, D)``."""

    latent_shape = (2, LATENT)

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        moved = super().step(latent.flatten(0, 1), action.repeat_interleave(2, 0))
        return moved.view_as(latent) + 0.2 * torch.sin(latent.flip(1))


class MlpDynamics(AnalyticDynamics):
    """A random residual MLP, the architecture that native code runs."""

    def __init__(
        self,
        width: int = 24,
        depth: int = 2,
        latent: int = LATENT,
        action: int = ACTION,
        bound: float = 0.8,
        object_frame: bool = False,
    ) -> None:
        self.bound = bound
        self.latent_shape, self.action_width = (latent,), action
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.predictor = MlpPredictor(
                (latent,), action, width=width, depth=depth, object_frame=object_frame
            )
            for parameter in self.predictor.parameters():
                torch.nn.init.normal_(parameter, std=0.4)
            if self.predictor.frame is not None:
                # any numbers will do for the algebra
                for buffer in self.predictor.frame.buffers():
                    torch.nn.init.normal_(buffer, 0.5, 0.4)

    def action_bounds(self) -> tuple[Tensor, Tensor]:
        high = torch.full((self.action_width,), self.bound)
        return -high, high

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return self.predictor(latent[:, None], action[:, None])[:, 0]


def make_objective(
    horizon: int = HORIZON, latent: int = LATENT, **weights: float
) -> GoalObjective:
    """Cost over ``latent - 1`` visual channels and one of proprioception."""
    return GoalObjective(ObjectiveConfig(**weights), horizon, latent - 1, 1)
