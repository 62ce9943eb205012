"""What sampling planners share: draw plans, evaluate them in one batch, keep the best, refit."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from wm_mpc.planners.anytime import AnytimePlanner
from wm_mpc.planners.base import PlanRequest
from wm_mpc.planners.kernels.protocol import KernelCall


class SamplingPlanner(AnytimePlanner):
    """Base of the planners that evaluate samples."""

    def calls(self) -> list[KernelCall]:
        """Calls of a search: every iteration evaluates all samples."""
        return [*super().calls(), KernelCall("cost", self.config.samples)]


class SamplingSearch:
    """One call of a sampling planner; subclasses implement ``refit``.

    The warm start (zeros without one) is the initial mean. Sample 0 of every iteration is the
    current mean, so that the warm start is evaluated first; proposals take the next rows of the
    first iteration.

    Args:
        planner: its configuration has ``samples`` and ``std``.
        request: the call.
        generator: source of the draws.
        config: used instead of the planner's.
    """

    def __init__(
        self,
        planner: AnytimePlanner,
        request: PlanRequest,
        generator: torch.Generator,
        config: Any = None,
    ) -> None:
        self.kernel, self.config = planner.kernel, config or planner.config
        self.low, self.high = planner.low, planner.high
        self.latent, self.goal = request.latent, request.goal
        self.generator = generator
        self.proposals = request.proposals
        self.warm = request.warm_start is not None
        zeros = torch.zeros(planner.shape, device=planner.device)
        mean = request.warm_start if self.warm else zeros
        self.mean = mean.clamp(self.low, self.high)
        self.std = torch.full_like(self.mean, self.config.std)
        self.samples = torch.empty(self.config.samples, *planner.shape, device=planner.device)
        self.best_actions = self.mean
        self.best_cost = torch.full((), math.inf, device=planner.device)
        self.costs = torch.full((self.config.samples,), math.inf, device=planner.device)
        self.first_cost: Tensor | None = None
        self.transitions = 0
        self.per_iteration = self.config.samples * planner.horizon
        self.closing = 0

    def cost_of(self, iterations: int) -> int:
        """Model transitions of the next iterations."""
        return iterations * self.per_iteration

    def advance(self, iterations: int) -> None:
        """Sample, evaluate, refit."""
        for _ in range(iterations):
            x = self.draw()
            cost = self.kernel.cost(self.latent, self.goal, x)
            if self.first_cost is None:
                self.first_cost = cost[0].clone()
            cost = self.costs = cost.nan_to_num(math.inf, math.inf, math.inf)
            self.keep(x, cost)
            self.refit(x, cost)
            self.transitions += self.per_iteration

    def draw(self) -> Tensor:
        """Samples of this iteration, ``(N, T, A)``, in a buffer that the next draw overwrites."""
        x = self.samples.normal_(generator=self.generator).mul_(self.std).add_(self.mean)
        x[0] = self.mean
        if self.first_cost is None and self.proposals is not None:
            given = self.proposals[: len(x) - 1]
            x[1 : 1 + len(given)] = given
        return torch.maximum(torch.minimum(x, self.high, out=x), self.low, out=x)

    def keep(self, x: Tensor, cost: Tensor) -> None:
        """Remember the best plan of a batch; infinite costs never win."""
        value, row = cost.min(0)
        better = value < self.best_cost
        self.best_cost = torch.where(better, value, self.best_cost)
        self.best_actions = torch.where(better, x[row], self.best_actions)

    def refit(self, x: Tensor, cost: Tensor) -> None:
        """Move mean and standard deviation, given samples and costs (``inf``: not usable)."""
        raise NotImplementedError

    def finish(self) -> None:
        """Nothing is left to evaluate: every returned plan was a sample."""

    def best(self) -> tuple[Tensor, Tensor]:
        """Best sample and its cost."""
        return self.best_actions, self.best_cost

    def candidates(self) -> tuple[Tensor, Tensor]:
        """Samples of the last iteration and their costs."""
        return self.samples, self.costs

    def warm_cost(self) -> float:
        """Cost of the warm start."""
        return float(self.first_cost) if self.warm and self.first_cost is not None else math.nan

    def virtual_states(self) -> None:
        """Sampling planners lift no states."""
