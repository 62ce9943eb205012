"""Cost and gradient of action sequences under a model: the inner loop of every planner.

A kernel binds a model and an objective once; ``cost`` and ``cost_and_grad`` then take a batch of
plans. The kernel here works with any differentiable model. Faster ones for one architecture keep
the same interface.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from wm_mpc.models.protocol import Dynamics
from wm_mpc.planners.kernels import build, native
from wm_mpc.planners.objective import GoalObjective


class Kernel(Protocol):
    """Cost, gradient, rollout of plans ``(B, T, A)`` from one latent ``L`` to one goal ``L``."""

    def cost(self, latent: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        """Objective of each plan, ``(B,)``, no gradient."""
        ...

    def cost_and_grad(
        self, latent: Tensor, goal: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Objective ``(B,)`` and its gradient with respect to the actions ``(B, T, A)``."""
        ...

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Predicted latents ``(B, T, *L)``, no gradient."""
        ...

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
        """Predict ``N`` independent transitions and the gradient of their weighted residuals.

        With the objective's frame distance ``d``, row ``i`` has the loss
        ``dynamics_weights_i d(F(z_i, a_i), target_i) + goal_weights_i d(F(z_i, a_i), goal)``.

        Args:
            z: states, ``(N, *L)``.
            a: actions, ``(N, A)``.
            target: ``(N, *L)``.
            goal: ``L``.
            dynamics_weights: ``(N,)``.
            goal_weights: ``(N,)``.
            state_gradient: also return the gradient with respect to ``z``.

        Returns:
            ``F(z, a)``, gradient at ``a``, gradient at ``z`` or None.
        """
        ...


class AutogradKernel:
    """Kernel for any differentiable model, with autograd.

    Args:
        model: dynamics.
        objective: cost.
    """

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


def make_kernel(model: Dynamics, objective: GoalObjective, compile: bool = True) -> Kernel:
    """Choose the fastest kernel for a model: native code for compact MLP models on the CPU."""
    if compile and native.supported(model, objective):
        lib = build.library()
        if lib is not None:
            return native.MlpKernel(model, objective, lib)
    return AutogradKernel(model, objective)
