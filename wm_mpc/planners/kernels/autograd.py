"""Cost and gradient by autograd: the kernel of any differentiable model, and the reference.

It works with every model and needs no preparation; the other kernels are checked against it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wm_mpc.models.protocol import Dynamics
from wm_mpc.planners.objective import GoalObjective


class AutogradKernel:
    """Kernel for any differentiable model, with autograd.

    Args:
        model: dynamics.
        objective: cost.
    """

    name = "autograd"

    def __init__(self, model: Dynamics, objective: GoalObjective) -> None:
        self.model = model
        self.objective = objective

    def unroll(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Serial rollout ``(B, T, *L)`` from one latent ``L``, differentiable."""
        z = latent.expand(len(actions), *latent.shape)
        steps = []
        for action in actions.unbind(1):
            z = self.model.step(z, action)
            steps.append(z)
        return torch.stack(steps, 1)

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Predicted latents ``(B, T, *L)``, no gradient."""
        with torch.no_grad():
            return self.unroll(latent, actions)

    def cost(self, latent: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        """Objective of each plan, ``(B,)``."""
        with torch.no_grad():
            return self.objective(self.unroll(latent, actions), actions, goal)

    def cost_and_grad(
        self, latent: Tensor, goal: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Objective ``(B,)`` and gradient ``(B, T, A)``."""
        with torch.enable_grad():
            x = actions.detach().requires_grad_()
            cost = self.objective(self.unroll(latent, x), x, goal)
            (grad,) = torch.autograd.grad(cost.sum(), x)
        return cost.detach(), grad

    def transitions(
        self,
        z: Tensor,
        a: Tensor,
        target: Tensor,
        goal: Tensor,
        dynamics_weights: Tensor,
        goal_weights: Tensor,
        state_gradient: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Predict transitions and pull back their residuals; see ``Kernel``."""
        with torch.enable_grad():
            a = a.detach().requires_grad_()
            z = z.detach().requires_grad_(state_gradient)
            following = self.model.step(z, a)
            # The distance to a batch of targets is the distance of the difference to zero.
            zero = torch.zeros_like(goal)
            apart = self.objective.distance(following - target.detach(), zero)
            loss = apart @ dynamics_weights
            loss = loss + self.objective.distance(following, goal) @ goal_weights
            grads = torch.autograd.grad(loss, (a, z) if state_gradient else (a,))
        return following.detach(), grads[0], grads[1] if state_gradient else None
