r"""GRASP: parallel stochastic gradient planning over virtual states (arXiv 2602.00475, eq. 10).

.. math:: L = \sum_t \|F(\bar s_t, a_t) - s_{t+1}\|^2 + \gamma \sum_t \|F(\bar s_t, a_t) - g\|^2

with the start and goal fixed (``s_0`` the current latent, ``s_T = g``) and a stop-gradient on the
states that enter the model, marked by the bar: no state-input Jacobian is ever computed, and all
``T`` transitions of an iteration are one batched model call. Norms are the objective's weighted
channel means. States receive noise; every ``sync_every`` iterations the actions alone descend the
goal cost through the serial rollout, because without it the minimisers need not be feasible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from wm_mpc.core.fields import Checked, NonNegativeFloat, PositiveFloat, PositiveInt, Share
from wm_mpc.planners.anytime import AnytimePlanner
from wm_mpc.planners.base import PlanRequest
from wm_mpc.planners.cem import CemConfig, CemSearch
from wm_mpc.planners.gradient import GradientConfig, GradientSearch, descent_calls
from wm_mpc.planners.kernels.protocol import KernelCall
from wm_mpc.planners.lifted import LiftedPlanner, LiftedSearch


@dataclass(frozen=True)
class GraspConfig(Checked):
    """GRASP.

    Attributes:
        iterations: stochastic steps on states and actions.
        starts: problems optimised in parallel.
        state_rate: Adam step on the states, latent units.
        action_rate: Adam step on the actions, normalised action units.
        goal_weight: weight gamma of the dense goal term at the first iteration.
        goal_decay: share of gamma lost linearly over the iterations, in [0, 1].
        state_noise: standard deviation of the noise on the states per iteration, latent units.
        noise_decay: share of the noise lost linearly over the iterations, in [0, 1].
        sync_every: stochastic steps between two synchronisations.
        sync: ``gradient`` (Adam on the rollout) or ``cem`` (on the best start).
        sync_steps: iterations of one synchronisation.
        sync_rate: Adam step of a gradient synchronisation, normalised action units.
        sync_samples: samples of one iteration of a CEM synchronisation; an eighth are elites.
        sync_std: standard deviation of a CEM synchronisation, normalised action units.
        init_std: standard deviation of fresh starts, normalised action units.
        warm_std: standard deviation of starts around the warm start, normalised action units.
        state_init_std: noise on the initial states of all starts but the first, latent units.
        states: where states begin without warm ones: ``line`` (straight from the current latent to
            the goal) or ``rollout`` (where the actions that a start begins with lead).
        chunk: iterations between two looks at the clock.
    """

    live: ClassVar[bool] = True

    iterations: PositiveInt = 40
    starts: PositiveInt = 6
    state_rate: PositiveFloat = 0.1
    action_rate: PositiveFloat = 0.1
    goal_weight: NonNegativeFloat = 1.0
    goal_decay: Share = 0.0
    state_noise: NonNegativeFloat = 0.005
    noise_decay: Share = 1.0
    sync_every: PositiveInt = 10
    sync: Literal["gradient", "cem"] = "gradient"
    sync_steps: PositiveInt = 6
    sync_rate: PositiveFloat = 0.1
    sync_samples: Annotated[int, Ge(16)] = 64
    sync_std: PositiveFloat = 0.3
    init_std: NonNegativeFloat = 0.5
    warm_std: NonNegativeFloat = 0.3
    state_init_std: NonNegativeFloat = 0.1
    states: Literal["line", "rollout"] = "line"
    chunk: PositiveInt = 10


class GraspPlanner(LiftedPlanner):
    """GRASP; see the module."""

    config: GraspConfig

    def calls(self) -> list[KernelCall]:
        """Calls of a search and of its synchronisations."""
        config = self.config
        roll = [KernelCall("rollout", config.starts)] if config.states == "rollout" else []
        if config.sync == "gradient":
            return [*roll, *super().calls(), *descent_calls(sync_gradient(config), config.starts)]
        return [*roll, *super().calls(), KernelCall("cost", config.sync_samples)]

    def begin(self, request: PlanRequest, generator: torch.Generator) -> GraspSearch:
        """Lay out actions and virtual states; nothing is evaluated yet."""
        return GraspSearch(self, request, generator)


class GraspSearch(LiftedSearch):
    """One call of GRASP."""

    config: GraspConfig

    def __init__(
        self, planner: AnytimePlanner, request: PlanRequest, generator: torch.Generator
    ) -> None:
        super().__init__(planner, request, generator, planner.horizon - 1)
        config = self.config
        rows = (config.starts, planner.horizon)
        self.ones = torch.ones(rows, device=planner.device)
        self.plain = replace(request, warm_start=None, proposals=None, warm_states=None)
        self.sync_gradient = sync_gradient(config)
        self.rolls_out = config.states == "rollout" and request.warm_states is None
        # The first evaluation is on the rows themselves, a CEM sync on samples around the best.
        if config.sync == "gradient":
            self.sync_cost = (config.sync_steps + 1) * self.batch_cost
        else:
            self.sync_cost = config.sync_steps * config.sync_samples * planner.horizon
            self.sync_cost += self.batch_cost

    def cost_of(self, iterations: int) -> int:
        """Model transitions of the next iterations, their synchronisations included."""
        every = self.config.sync_every
        syncs = (self.count + iterations) // every - self.count // every
        first = (1 + self.rolls_out) * self.batch_cost if self.first_cost is None else 0
        return first + iterations * self.batch_cost + syncs * self.sync_cost

    def advance(self, iterations: int) -> None:
        """Stochastic steps, with a synchronisation whenever one is due."""
        if self.first_cost is None:
            self.evaluate()
            if self.rolls_out:
                self.s = self.kernel.rollout(self.latent, self.a)[:, :-1].clone()
                self.transitions += self.batch_cost
        for _ in range(iterations):
            _, grad_a, grad_s = self.gradients()
            self.move(grad_a, grad_s)
            fade = 1.0 - self.config.noise_decay * self.progress
            if self.config.state_noise * fade > 0 and self.s.numel():
                noise = torch.randn(self.s.shape, generator=self.generator, device=self.s.device)
                self.s = self.s.add_(noise, alpha=self.config.state_noise * fade)
            self.count += 1
            if self.count % self.config.sync_every == 0:
                self.synchronise()

    @property
    def progress(self) -> float:
        """Share of the iterations that are done."""
        return self.count / self.config.iterations

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions ``(B, T, *L)`` and eq. 10's gradients at actions and states."""
        config = self.config
        goal = self.goal.expand(len(self.s), 1, *self.goal.shape)
        target = torch.cat([self.s, goal], 1)
        gamma = config.goal_weight * (1.0 - config.goal_decay * self.progress)
        following, grad_a, _ = self.transition_gradients(
            target, self.ones, gamma * self.ones, state_gradient=False
        )
        grad_s = -self.residual_pull(following - target)[:, :-1]
        return following, grad_a, grad_s

    def synchronise(self) -> None:
        """Descend the goal cost over the actions alone, through the serial rollout."""
        if self.config.sync == "gradient":
            search = GradientSearch(
                self.planner, self.plain, self.a.clone(), self.generator, self.sync_gradient
            )
            search.advance(self.config.sync_steps)
            search.finish()
            self.a = search.kept.actions.where(
                torch.isfinite(search.kept.costs)[:, None, None], self.a
            )
            self.kept.update(search.kept.actions, search.kept.costs)
            self.transitions += search.transitions
        else:
            self.evaluate()
            self.synchronise_by_cem()

    def synchronise_by_cem(self) -> None:
        """Search around the best start with CEM, and put what it found in that start's place."""
        config, row = self.config, int(self.kept.costs.argmin())
        cem = CemConfig(
            samples=config.sync_samples,
            elites=config.sync_samples // 8,
            iterations=config.sync_steps,
            std=config.sync_std,
        )
        request = replace(self.plain, warm_start=self.kept.actions[row])
        search = CemSearch(self.planner, request, self.generator, cem)
        search.advance(config.sync_steps)
        found, cost = search.best()
        self.transitions += search.transitions
        if math.isfinite(float(cost)):
            self.a[row] = found
            self.evaluated(row, found, cost)

    def evaluated(self, row: int, actions: Tensor, cost: Tensor) -> None:
        """Take over a plan whose cost is known."""
        costs = torch.full_like(self.kept.costs, math.inf)
        costs[row] = cost
        self.kept.update(actions.expand_as(self.kept.actions), costs)


def sync_gradient(config: GraspConfig) -> GradientConfig:
    """Gradient descent of one synchronisation."""
    return GradientConfig(
        learning_rate=config.sync_rate,
        iterations=config.sync_steps,
        starts=config.starts,
        action_noise=0.0,
        chunk=config.sync_steps,
    )
