r"""LatCo: collocation over latent states with multipliers on the dynamics (Rybkin et al. 2021).

.. math::

   \min_{s, a} \max_\lambda\; \sum_t w_t \|s_t - g\|^2
   + \sum_t \lambda_t \|F(s_t, a_t) - s_{t+1}\|^2

States ``s_1 .. s_T`` are free, and unlike GRASP the gradient flows through the states that enter
the model. Each multiplier grows while its transition is violated by more than ``tolerance`` and
shrinks otherwise. Norms and ``w`` are the objective's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wm_mpc.core.fields import Checked, NonNegativeFloat, PositiveFloat, PositiveInt
from wm_mpc.planners.anytime import AnytimePlanner
from wm_mpc.planners.base import PlanRequest
from wm_mpc.planners.lifted import LiftedPlanner, LiftedSearch


@dataclass(frozen=True)
class LatcoConfig(Checked):
    """Latent collocation.

    Attributes:
        iterations: steps on states and actions.
        starts: problems optimised in parallel.
        state_rate: Adam step on the states, latent units.
        action_rate: Adam step on the actions, normalised action units.
        multiplier: initial multiplier.
        max_multiplier: bound of the multipliers.
        tolerance: squared violation per transition that is acceptable, squared latent units.
        dual_every: steps between two updates of the multipliers.
        dual_rate: exponent of the update: the factor is (violation / tolerance)**dual_rate.
        evaluate_every: steps between two evaluations of the actions under the real rollout.
        init_std: standard deviation of fresh starts, normalised action units.
        warm_std: standard deviation of starts around the warm start, normalised action units.
        state_init_std: noise on the initial states of all starts but the first, latent units.
        chunk: iterations between two looks at the clock.
    """

    live: ClassVar[bool] = True

    iterations: PositiveInt = 50
    starts: PositiveInt = 6
    state_rate: PositiveFloat = 0.05
    action_rate: PositiveFloat = 0.1
    multiplier: PositiveFloat = 1.0
    max_multiplier: PositiveFloat = 1e4
    tolerance: PositiveFloat = 1e-3
    dual_every: PositiveInt = 5
    dual_rate: NonNegativeFloat = 0.3
    evaluate_every: PositiveInt = 10
    init_std: NonNegativeFloat = 0.5
    warm_std: NonNegativeFloat = 0.3
    state_init_std: NonNegativeFloat = 0.1
    chunk: PositiveInt = 10


class LatcoPlanner(LiftedPlanner):
    """Latent collocation; see the module."""

    config: LatcoConfig

    def begin(self, request: PlanRequest, generator: torch.Generator) -> LatcoSearch:
        """Lay out actions, states and multipliers; nothing is evaluated yet."""
        return LatcoSearch(self, request, generator)


class LatcoSearch(LiftedSearch):
    """One call of LatCo."""

    config: LatcoConfig

    def __init__(
        self, planner: AnytimePlanner, request: PlanRequest, generator: torch.Generator
    ) -> None:
        super().__init__(planner, request, generator, planner.horizon)
        rows = (self.config.starts, planner.horizon)
        self.multipliers = torch.full(rows, self.config.multiplier, device=planner.device)
        self.zeros = torch.zeros(rows, device=planner.device)
        weights = planner.objective.time_weights
        self.time_weights = weights.view(1, -1, *(1,) * self.latent.ndim)

    def cost_of(self, iterations: int) -> int:
        """Model transitions of the next iterations, their evaluations included."""
        every = self.config.evaluate_every
        looks = (self.count + iterations) // every - self.count // every
        looks += self.first_cost is None
        return (iterations + looks) * self.batch_cost

    def advance(self, iterations: int) -> None:
        """Steps on states and actions; multipliers and evaluations when they are due."""
        if self.first_cost is None:
            self.evaluate()
        config = self.config
        for _ in range(iterations):
            residual, grad_a, grad_s = self.gradients()
            self.move(grad_a, grad_s)
            self.count += 1
            if self.count % config.dual_every == 0:
                self.update_multipliers(residual)
            if self.count % config.evaluate_every == 0:
                self.evaluate()

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Violations ``(B, T, *L)`` and the Lagrangian's gradients at actions and states."""
        following, grad_a, grad_z = self.transition_gradients(
            self.s, self.multipliers, self.zeros, state_gradient=True
        )
        residual = following - self.s
        weight = self.multipliers.view(*self.multipliers.shape, *(1,) * self.latent.ndim)
        grad_s = self.time_weights * self.residual_pull(self.s - self.goal)
        grad_s = grad_s - weight * self.residual_pull(residual)
        # Input states 1 .. T-1 are the free states; the first input is given.
        grad_s[:, :-1] += grad_z[:, 1:]
        return residual, grad_a, grad_s

    def update_multipliers(self, residual: Tensor) -> None:
        """Grow the multipliers of violated transitions, shrink those of satisfied ones."""
        config = self.config
        zero = torch.zeros_like(self.goal)
        violation = self.planner.objective.distance(residual, zero)
        factor = (violation / config.tolerance).clamp(1e-3, 1e3) ** config.dual_rate
        factor = torch.nan_to_num(factor, 1.0)
        self.multipliers = (self.multipliers * factor).clamp(1e-3, config.max_multiplier)
