"""Cost and gradient of action sequences under a model: the inner loop of every planner.

A kernel binds a model and an objective once; ``cost`` and ``cost_and_grad`` then take a batch of plans. The kernel here
works with any differentiable model. Faster ones for one architecture keep the same interface.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from wm_mpc.objective import GoalObjective
from wm_mpc.planners.base import Dynamics

log = logging.getLogger(__name__)


class Kernel(Protocol):
    """Cost, gradient and rollout of batches of plans ``(B, T, A)`` from one latent ``L`` to one goal ``L``."""

    def cost(self, latent: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        """Objective of each plan, ``(B,)``, no gradient."""
        ...

    def cost_and_grad(self, latent: Tensor, goal: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Objective ``(B,)`` and its gradient with respect to the actions ``(B, T, A)``."""
        ...

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Predicted latents ``(B, T, *L)``, no gradient."""
        ...


class AutogradKernel:
    """Kernel for any differentiable model, with autograd.

    Args:
        model: dynamics.
        objective: cost.
        compile: compile one model step with torch.compile; the horizon is unrolled around it, so that compilation
            costs one step and not ``T``. Falls back to eager, with a warning, where no compiler works.
    """

    def __init__(self, model: Dynamics, objective: GoalObjective, compile: bool = False) -> None:
        self.model = model
        self.objective = objective
        self.step: Callable[[Tensor, Tensor], Tensor] = model.step
        if compile:
            self.step = CompiledStep(model.step)

    def unroll(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Serial rollout ``(B, T, *L)`` from one latent ``L``, differentiable."""
        z = latent.expand(len(actions), *latent.shape)
        steps = []
        for action in actions.unbind(1):
            z = self.step(z, action)
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

    def cost_and_grad(self, latent: Tensor, goal: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Objective ``(B,)`` and gradient ``(B, T, A)``."""
        with torch.enable_grad():
            x = actions.detach().requires_grad_()
            cost = self.objective(self.unroll(latent, x), x, goal)
            (grad,) = torch.autograd.grad(cost.sum(), x)
        return cost.detach(), grad


class CompiledStep:
    """A model step under torch.compile that turns into the eager step for good when compilation fails."""

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.eager = step
        self.current = torch.compile(step, dynamic=False)

    def __call__(self, latent: Tensor, action: Tensor) -> Tensor:
        """Predict one step."""
        try:
            return self.current(latent, action)
        except Exception as error:  # whatever the compiler backend raises; the eager step then tells a real error
            if self.current is self.eager:
                raise
            log.warning("torch.compile failed (%s); planning runs eager", str(error).splitlines()[0])
            self.current = self.eager
            return self.eager(latent, action)


def make_kernel(model: Dynamics, objective: GoalObjective, compile: bool = True) -> Kernel:
    """Choose the fastest kernel for a model."""
    return AutogradKernel(model, objective)
