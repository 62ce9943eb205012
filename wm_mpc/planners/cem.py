"""Cross-entropy method: refit a diagonal Gaussian to the best samples.

It is the reference that every budget is measured by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from wm_mpc.core.fields import Checked, NonNegativeFloat, PositiveFloat, PositiveInt
from wm_mpc.planners.base import PlanRequest
from wm_mpc.planners.sampling import SamplingPlanner, SamplingSearch


@dataclass(frozen=True)
class CemConfig(Checked):
    """Cross-entropy method; the defaults are DINO-WM's (arXiv 2411.04983).

    Attributes:
        samples: plans per iteration.
        elites: best plans the Gaussian is refitted to, 2 .. ``samples``.
        iterations: refits.
        std: initial standard deviation, normalised action units.
        min_std: floor of the standard deviation, normalised action units.
        chunk: iterations between two looks at the clock.
    """

    live: ClassVar[bool] = True

    samples: int = 300
    elites: Annotated[int, Ge(2)] = 30
    iterations: PositiveInt = 30
    std: PositiveFloat = 1.0
    min_std: NonNegativeFloat = 0.0
    chunk: PositiveInt = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < self.elites:
            raise ValueError(f"samples: {self.samples}; at least elites = {self.elites} expected")


class CemPlanner(SamplingPlanner):
    """Cross-entropy method; see the module."""

    def begin(self, request: PlanRequest, generator: torch.Generator) -> CemSearch:
        """Set up the sampling distribution around the warm start."""
        return CemSearch(self, request, generator)


class CemSearch(SamplingSearch):
    """One call of CEM."""

    def refit(self, x: Tensor, cost: Tensor) -> None:
        """Fit mean and standard deviation to the elites, unless one of them was not finite."""
        values, rows = cost.topk(self.config.elites, largest=False)
        self.fit(x[rows], values)

    def fit(self, elites: Tensor, costs: Tensor) -> None:
        """Moments of the elites ``(E, T, A)``."""
        std, mean = torch.std_mean(elites, 0)
        usable = torch.isfinite(costs).all()
        self.mean = torch.where(usable, mean, self.mean)
        self.std = torch.where(usable, std.clamp_min(self.config.min_std), self.std)
