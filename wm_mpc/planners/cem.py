"""Cross-entropy method: refit a diagonal Gaussian to the best samples; the reference every budget is measured by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wm_mpc.planners.anytime import AnytimePlanner, check
from wm_mpc.planners.base import PlanRequest


@dataclass(frozen=True)
class CemConfig:
    """Cross-entropy method; the defaults are DINO-WM's (arXiv 2411.04983).

    Attributes:
        samples: plans per iteration.
        elites: best plans the Gaussian is refitted to, 2 .. ``samples``.
        iterations: refits.
        std: initial standard deviation, normalised action units.
        min_std: floor of the standard deviation, normalised action units.
        chunk: iterations between two looks at the clock.
    """

    samples: int = 300
    elites: int = 30
    iterations: int = 30
    std: float = 1.0
    min_std: float = 0.0
    chunk: int = 1

    def __post_init__(self) -> None:
        check(self, {"elites": 2, "iterations": 1, "chunk": 1, "min_std": 0}, {"std": 0})
        if self.samples < self.elites:
            raise ValueError(f"samples: {self.samples}; at least elites = {self.elites} expected")


class CemPlanner(AnytimePlanner):
    """Cross-entropy method; see the module."""

    def begin(self, request: PlanRequest, generator: torch.Generator) -> CemSearch:
        """Set up the sampling distribution around the warm start."""
        return CemSearch(self, request, generator)


class CemSearch:
    """One call of CEM.

    The warm start (zeros without one) is the initial mean. Sample 0 of every iteration is the current mean, so that
    the warm start is evaluated first; proposals take the next rows of the first iteration.
    """

    def __init__(self, planner: AnytimePlanner, request: PlanRequest, generator: torch.Generator) -> None:
        self.kernel, self.config = planner.kernel, planner.config
        self.low, self.high = planner.low, planner.high
        self.latent, self.goal = request.latent, request.goal
        self.generator = generator
        self.proposals = request.proposals
        self.warm = request.warm_start is not None
        mean = request.warm_start if self.warm else torch.zeros(planner.shape, device=planner.device)
        self.mean = mean.clamp(self.low, self.high)
        self.std = torch.full_like(self.mean, self.config.std)
        self.samples = torch.empty(self.config.samples, *planner.shape, device=planner.device)
        self.best_actions = self.mean
        self.best_cost = torch.full((), math.inf, device=planner.device)
        self.first_cost: Tensor | None = None
        self.transitions = 0
        self.per_iteration = self.config.samples * planner.horizon
        self.closing = 0

    def advance(self, iterations: int) -> None:
        """Sample, evaluate, refit."""
        for _ in range(iterations):
            x = self.samples.normal_(generator=self.generator).mul_(self.std).add_(self.mean)
            x[0] = self.mean
            if self.first_cost is None and self.proposals is not None:
                given = self.proposals[: len(x) - 1]
                x[1 : 1 + len(given)] = given
            torch.maximum(torch.minimum(x, self.high, out=x), self.low, out=x)
            cost = self.kernel.cost(self.latent, self.goal, x)
            if self.first_cost is None:
                self.first_cost = cost[0].clone()
            cost = cost.nan_to_num(math.inf, math.inf, math.inf)
            values, rows = cost.topk(self.config.elites, largest=False, sorted=True)
            better = values[0] < self.best_cost
            self.best_cost = torch.where(better, values[0], self.best_cost)
            self.best_actions = torch.where(better, x[rows[0]], self.best_actions)
            self.refit(x[rows], values)
            self.transitions += self.per_iteration

    def refit(self, elites: Tensor, costs: Tensor) -> None:
        """Fit mean and standard deviation to the elites ``(E, T, A)``, unless one of them was not finite."""
        std, mean = torch.std_mean(elites, 0)
        usable = torch.isfinite(costs[-1])
        self.mean = torch.where(usable, mean, self.mean)
        self.std = torch.where(usable, std.clamp_min(self.config.min_std), self.std)

    def finish(self) -> None:
        """Nothing is left unevaluated except the last mean, which is not returned."""

    def best(self) -> tuple[Tensor, Tensor]:
        """Best sample and its cost."""
        return self.best_actions, self.best_cost

    def warm_cost(self) -> float:
        """Cost of the warm start."""
        return float(self.first_cost) if self.warm and self.first_cost is not None else math.nan

    def virtual_states(self) -> None:
        """CEM lifts no states."""
