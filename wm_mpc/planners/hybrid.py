"""CEM whose elites take a few gradient steps before the Gaussian is refitted to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from wm_mpc.core.fields import NonNegativeFloat, PositiveFloat, PositiveInt
from wm_mpc.planners.anytime import AnytimePlanner
from wm_mpc.planners.base import PlanRequest
from wm_mpc.planners.cem import CemConfig, CemPlanner, CemSearch
from wm_mpc.planners.gradient import GradientConfig, GradientSearch, descent_calls
from wm_mpc.planners.kernels.protocol import KernelCall


@dataclass(frozen=True)
class HybridConfig(CemConfig):
    """CEM with gradient refinement.

    Attributes:
        samples: plans per iteration.
        elites: best plans, refined and refitted to, 2 .. ``samples``.
        iterations: refits.
        std: initial standard deviation, normalised action units.
        min_std: floor of the standard deviation, normalised action units.
        chunk: iterations between two looks at the clock.
        gradient_steps: Adam steps on every elite per iteration.
        learning_rate: step size of Adam, normalised action units.
    """

    samples: Annotated[int, Ge(2)] = 64
    elites: Annotated[int, Ge(2)] = 8
    iterations: PositiveInt = 6
    min_std: NonNegativeFloat = 0.05
    gradient_steps: PositiveInt = 6
    learning_rate: PositiveFloat = 0.2


class HybridPlanner(CemPlanner):
    """CEM with gradient refinement; see the module."""

    def calls(self) -> list[KernelCall]:
        """Calls of a search and of the elites' refinement."""
        config = self.config
        return [*super().calls(), *descent_calls(refinement(config), config.elites)]

    def begin(self, request: PlanRequest, generator: torch.Generator) -> HybridSearch:
        """Set up the sampling distribution around the warm start."""
        return HybridSearch(self, request, generator)


class HybridSearch(CemSearch):
    """One call of the hybrid."""

    def __init__(
        self, planner: AnytimePlanner, request: PlanRequest, generator: torch.Generator
    ) -> None:
        super().__init__(planner, request, generator)
        self.planner = planner
        self.request = replace(request, warm_start=None, proposals=None)
        config = self.config
        self.gradient = refinement(config)
        self.refine_cost = (config.gradient_steps + 1) * config.elites * planner.horizon
        self.per_iteration += self.refine_cost

    def refit(self, x: Tensor, cost: Tensor) -> None:
        """Refine the elites, keep the best of them, fit the Gaussian."""
        rows = cost.topk(self.config.elites, largest=False).indices
        search = GradientSearch(self.planner, self.request, x[rows], self.generator, self.gradient)
        search.advance(self.config.gradient_steps)
        search.finish()
        self.keep(search.kept.actions, search.kept.costs)
        self.fit(search.kept.actions, search.kept.costs)


def refinement(config: HybridConfig) -> GradientConfig:
    """Gradient descent of the elites of one iteration."""
    return GradientConfig(
        learning_rate=config.learning_rate,
        iterations=config.gradient_steps,
        starts=config.elites,
        action_noise=0.0,
        chunk=config.gradient_steps,
    )
