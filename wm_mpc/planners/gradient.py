r"""Gradient-based planning: descend the goal cost through the rollout from several starts.

The update, as in arXiv 2512.09929 and with bounds:

.. math:: a \leftarrow \mathrm{clip}(a - \eta\, \mathrm{Adam}(\nabla_a J(a)) + \sigma \xi)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from wm_mpc.core.fields import Checked, NonNegativeFloat, PositiveFloat, PositiveInt, Share
from wm_mpc.planners.adam import Adam
from wm_mpc.planners.anytime import AnytimePlanner, BestOf
from wm_mpc.planners.base import PlanRequest
from wm_mpc.planners.kernels.protocol import DescendingKernel, KernelCall
from wm_mpc.planners.starts import start_batch


@dataclass(frozen=True)
class GradientConfig(Checked):
    """Adam or plain gradient descent on the actions.

    Attributes:
        optimizer: ``adam`` or ``sgd`` (plain gradient descent).
        learning_rate: step size, normalised action units (per unit of gradient for ``sgd``).
        iterations: gradient steps.
        starts: plans descended in parallel.
        init: first free start without a warm start: ``random`` or ``zero``.
        init_std: standard deviation of fresh starts, normalised action units.
        warm_std: standard deviation of starts drawn around the warm start, normalised action
            units.
        persistence: share of a fresh start's variance that is one direction held over the plan,
            in [0, 1].
        action_noise: standard deviation of the noise added after each step, normalised action
            units.
        grad_clip: largest gradient norm of one plan; 0 switches clipping off.
        entropy_weight: weight of the entropy of the set of starts (nearest-neighbour
            estimate), which pushes starts apart; it fades linearly to zero over the iterations.
        beta1, beta2, eps: Adam's constants.
        chunk: iterations between two looks at the clock.
    """

    live: ClassVar[bool] = True

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: PositiveFloat = 0.2
    iterations: PositiveInt = 60
    starts: PositiveInt = 8
    init: Literal["random", "zero"] = "random"
    init_std: NonNegativeFloat = 1.0
    warm_std: NonNegativeFloat = 0.3
    persistence: Share = 0.7
    action_noise: NonNegativeFloat = 0.003
    grad_clip: NonNegativeFloat = 0.0
    entropy_weight: NonNegativeFloat = 0.0
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    eps: PositiveFloat = 1e-8
    chunk: PositiveInt = 10


class GradientPlanner(AnytimePlanner):
    """Multi-start gradient descent; see the module."""

    config: GradientConfig

    def calls(self) -> list[KernelCall]:
        """Calls of a search and its last evaluation."""
        return [*super().calls(), *descent_calls(self.config, self.config.starts)]

    def begin(self, request: PlanRequest, generator: torch.Generator) -> GradientSearch:
        """Lay out the starts; nothing is evaluated yet."""
        config = self.config
        starts = start_batch(
            config.starts,
            self.shape,
            request.warm_start,
            request.proposals,
            config.init,
            config.init_std,
            config.warm_std,
            generator,
            config.persistence,
            self.action_dim,
        ).clamp_(self.low, self.high)
        return GradientSearch(self, request, starts, generator)


class GradientSearch:
    """Descent of a batch of plans ``(B, T, A)`` with the best iterate of each kept.

    An iteration evaluates the current plans and then moves them, so the starts themselves count as
    iterates and the result is never worse than the warm start.
    """

    def __init__(
        self,
        planner: AnytimePlanner,
        request: PlanRequest,
        starts: Tensor,
        generator: torch.Generator,
        config: GradientConfig | None = None,
    ) -> None:
        self.kernel, self.config = planner.kernel, config or planner.config
        self.low, self.high = planner.low, planner.high
        self.latent, self.goal = request.latent, request.goal
        self.generator = generator
        self.warm = request.warm_start is not None
        self.x = starts
        config = self.config
        self.adam = Adam(starts, config.beta1, config.beta2, config.eps)
        self.kept = BestOf(len(starts), planner.shape, planner.device)
        self.first_cost: Tensor | None = None
        self.count = 0
        self.transitions = 0
        self.per_iteration = len(starts) * planner.horizon
        self.closing = self.per_iteration

    def cost_of(self, iterations: int) -> int:
        """Model transitions of the next iterations."""
        return iterations * self.per_iteration

    def advance(self, iterations: int) -> None:
        """Evaluate, keep the best, step."""
        config, noise = self.config, None
        if config.action_noise:
            noise = torch.randn(
                iterations, *self.x.shape, generator=self.generator, device=self.x.device
            )
        if isinstance(self.kernel, DescendingKernel) and not config.entropy_weight:
            self.descend(self.kernel, noise, iterations)
            return
        for step in range(iterations):
            cost, grad = self.kernel.cost_and_grad(self.latent, self.goal, self.x)
            if self.first_cost is None:
                self.first_cost = cost
            self.kept.update(self.x, cost)
            grad = torch.nan_to_num(grad, 0.0, 0.0, 0.0)
            if config.entropy_weight and len(self.x) > 1:
                fade = max(0.0, 1.0 - self.count / config.iterations)
                grad = grad - config.entropy_weight * fade * entropy_gradient(self.x)
            if config.grad_clip:
                norm = grad.flatten(1).norm(dim=1).clamp_min(1e-12)
                grad = grad * (config.grad_clip / norm).clamp_max(1.0)[:, None, None]
            self.count += 1
            self.x = self.stepped(grad, None if noise is None else noise[step])
            self.transitions += self.per_iteration

    def descend(self, kernel: DescendingKernel, noise: Tensor | None, iterations: int) -> None:
        """Run the same iterations in one call of the kernel."""
        if self.first_cost is None:
            self.first_cost = torch.empty_like(self.kept.costs)
        state = {
            "x": self.x,
            "m": self.adam.m,
            "v": self.adam.v,
            "best": self.kept.actions,
            "best_cost": self.kept.costs,
            "first_cost": self.first_cost,
        }
        bounds = (self.low, self.high)
        kernel.descend(
            self.latent, self.goal, bounds, noise, state, self.config, self.count, iterations
        )
        self.count += iterations
        self.transitions += iterations * self.per_iteration

    def stepped(self, grad: Tensor, noise: Tensor | None) -> Tensor:
        """Plans after one optimiser step, noise and clamping."""
        config = self.config
        if config.optimizer == "sgd":
            x = self.x - config.learning_rate * grad
        else:
            x = self.adam.step(self.x, grad, config.learning_rate)
        if noise is not None:
            x = x.add_(noise, alpha=config.action_noise)
        return x.clamp_(self.low, self.high)

    def finish(self) -> None:
        """Evaluate the plans the last step produced."""
        self.kept.update(self.x, self.kernel.cost(self.latent, self.goal, self.x))
        self.transitions += self.per_iteration

    def best(self) -> tuple[Tensor, Tensor]:
        """Best iterate of all starts and its cost."""
        return self.kept.best()

    def candidates(self) -> tuple[Tensor, Tensor]:
        """Best iterate of every start and its cost."""
        return self.kept.actions, self.kept.costs

    def warm_cost(self) -> float:
        """Cost of the warm start, which is row 0 of the first evaluation."""
        return float(self.first_cost[0]) if self.warm and self.first_cost is not None else math.nan

    def virtual_states(self) -> None:
        """Shooting methods lift no states."""


def descent_calls(config: GradientConfig, rows: int) -> list[KernelCall]:
    """What a ``GradientSearch`` over ``rows`` plans asks of its kernel."""
    step = (
        KernelCall("cost_and_grad", rows)
        if config.entropy_weight
        else KernelCall("descend", rows, config)
    )
    return [step, KernelCall("cost", rows)]


def entropy_gradient(x: Tensor) -> Tensor:
    """Gradient of the nearest-neighbour entropy estimate of a set of plans.

    Kozachenko and Leonenko's estimate is, up to constants, ``mean_i log d_i`` with ``d_i`` the
    distance from plan ``i`` to its nearest neighbour.

    Args:
        x: plans, ``(B, T, A)`` with ``B >= 2``.

    Returns:
        ``(B, T, A)``; coinciding plans get zero, not infinity.
    """
    flat = x.flatten(1)
    squared = torch.cdist(flat, flat).square()
    squared.fill_diagonal_(math.inf)
    nearest_squared, nearest = squared.min(1)
    pull = flat - flat[nearest]
    pull = pull / nearest_squared.clamp_min(1e-8)[:, None] / len(flat)
    return pull.index_add(0, nearest, pull, alpha=-1.0).view_as(x)
