"""Model-predictive path integral control: average the samples by their exponentiated cost.

Williams et al. 2017, information-theoretic MPPI, iterated within a tick:

.. math:: mean = sum_i w_i a_i,  w_i ~ exp(-(J_i - min J) / (temperature * std J))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from wm_mpc.core.fields import Checked, PositiveFloat, PositiveInt
from wm_mpc.planners.base import PlanRequest
from wm_mpc.planners.sampling import SamplingPlanner, SamplingSearch


@dataclass(frozen=True)
class MppiConfig(Checked):
    """Path-integral control.

    Attributes:
        samples: plans per iteration.
        iterations: updates of the mean.
        std: standard deviation of the samples in the first iteration, normalised action units.
        decay: factor on the standard deviation after each iteration, in (0, 1].
        temperature: of the weights, in units of the costs' standard deviation over the samples,
            which makes it independent of the cost's scale.
        chunk: iterations between two looks at the clock.
    """

    live: ClassVar[bool] = True

    samples: Annotated[int, Ge(2)] = 300
    iterations: PositiveInt = 30
    std: PositiveFloat = 1.0
    decay: Annotated[float, Gt(0), Le(1)] = 0.9
    temperature: PositiveFloat = 0.1
    chunk: PositiveInt = 1


class MppiPlanner(SamplingPlanner):
    """Path-integral control; see the module."""

    def begin(self, request: PlanRequest, generator: torch.Generator) -> MppiSearch:
        """Set up the sampling distribution around the warm start."""
        return MppiSearch(self, request, generator)


class MppiSearch(SamplingSearch):
    """One call of MPPI."""

    def refit(self, x: Tensor, cost: Tensor) -> None:
        """Weighted mean of the usable samples; without one the mean stays."""
        usable = torch.isfinite(cost)
        finite = torch.where(usable, cost, 0.0)
        count = usable.sum().clamp_min(1)
        centre = finite.sum() / count
        spread = (torch.where(usable, cost - centre, 0.0).square().sum() / count).sqrt()
        logits = -cost / (self.config.temperature * spread).clamp_min(1e-12)
        # softmax of a row of -inf is NaN: nothing was usable
        weights = logits.softmax(0)
        mean = torch.einsum("n,nta->ta", weights, x)
        self.mean = torch.where(usable.any(), mean, self.mean)
        self.std = self.std * self.config.decay
