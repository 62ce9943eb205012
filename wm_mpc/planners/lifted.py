"""What lifted planners share: states as variables, all transitions in one batched model call."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wm_mpc.planners.adam import Adam
from wm_mpc.planners.anytime import AnytimePlanner, BestOf
from wm_mpc.planners.base import PlanRequest
from wm_mpc.planners.kernels.protocol import KernelCall
from wm_mpc.planners.starts import start_batch

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


class LiftedPlanner(AnytimePlanner):
    """Base of the planners whose states are variables."""

    def calls(self) -> list[KernelCall]:
        """Calls of a search: all transitions at once, and evaluations of the actions alone."""
        starts = self.config.starts
        transitions = KernelCall("transitions", starts * self.horizon)
        return [*super().calls(), transitions, KernelCall("cost", starts)]


class LiftedSearch:
    """Actions ``a`` ``(B, T, A)`` and states ``s`` ``(B, S, *L)`` after steps 1 .. S.

    Actions begin at the warm start, proposals and random draws as in the gradient planner; states
    begin at the warm virtual states (row 0) or on the straight line from the current latent to
    the goal, plus noise in the other rows.

    Args:
        planner: its configuration has the fields used here.
        request: the call.
        generator: source of the draws.
        free: number of free states ``S``: ``T - 1`` when the last one is the goal, else ``T``.
    """

    def __init__(
        self, planner: AnytimePlanner, request: PlanRequest, generator: torch.Generator, free: int
    ) -> None:
        config = self.config = planner.config
        self.planner, self.kernel = planner, planner.kernel
        self.request, self.generator = request, generator
        self.latent, self.goal = request.latent, request.goal
        self.low, self.high = planner.low, planner.high
        self.horizon = planner.horizon
        self.a = start_batch(
            config.starts,
            planner.shape,
            request.warm_start,
            request.proposals,
            "zero",
            config.init_std,
            config.warm_std,
            generator,
        ).clamp_(self.low, self.high)
        self.s = self.first_states(free)
        self.adam_a = Adam(self.a, BETA1, BETA2, EPS)
        self.adam_s = Adam(self.s, BETA1, BETA2, EPS)
        self.kept = BestOf(config.starts, planner.shape, planner.device)
        self.first_cost: Tensor | None = None
        self.count = 0
        self.transitions = 0
        self.batch_cost = config.starts * planner.horizon
        self.closing = self.batch_cost

    def first_states(self, free: int) -> Tensor:
        """Virtual states to begin with, ``(B, free, *L)``."""
        rows, t = self.config.starts, self.horizon
        ones = (1,) * self.latent.ndim
        part = (torch.arange(1, free + 1, device=self.latent.device) / t).view(-1, *ones)
        line = torch.lerp(self.latent[None], self.goal[None], part)
        s = line.expand(rows, *line.shape).clone()
        if rows > 1:
            noise = torch.randn(s[1:].shape, generator=self.generator, device=s.device)
            s[1:] += self.config.state_init_std * noise
        warm = self.request.warm_states
        if warm is not None:
            s[0, : len(warm)] = warm
        return s

    def inputs(self) -> Tensor:
        """States that the transitions start from, ``(B, T, *L)``: the current latent first."""
        start = self.latent.expand(len(self.s), 1, *self.latent.shape)
        return torch.cat([start, self.s[:, : self.horizon - 1]], 1)

    def transition_gradients(
        self, target: Tensor, dynamics_weights: Tensor, goal_weights: Tensor, state_gradient: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One batched model call over starts and time.

        Args:
            target: ``(B, T, *L)``.
            dynamics_weights: ``(B, T)``.
            goal_weights: ``(B, T)``.
            state_gradient: see the kernels' ``transitions``.

        Returns:
            Predictions ``(B, T, *L)``, gradient at the actions ``(B, T, A)``, gradient at the
            input states.
        """
        z = self.inputs()
        following, grad_a, grad_z = self.kernel.transitions(
            z.flatten(0, 1),
            self.a.flatten(0, 1),
            target.flatten(0, 1),
            self.goal,
            dynamics_weights.flatten(),
            goal_weights.flatten(),
            state_gradient,
        )
        self.transitions += self.batch_cost
        shape = z.shape[:2]
        grad_z = None if grad_z is None else grad_z.unflatten(0, shape)
        return following.unflatten(0, shape), grad_a.unflatten(0, shape), grad_z

    def move(self, grad_a: Tensor, grad_s: Tensor) -> None:
        """One Adam step on actions and states."""
        config = self.config
        self.a = self.adam_a.step(self.a, grad_a, config.action_rate).clamp_(self.low, self.high)
        self.s = self.adam_s.step(self.s, grad_s, config.state_rate)

    def residual_pull(self, residual: Tensor) -> Tensor:
        """Gradient of the weighted squared residual at the prediction, ``(B, T, *L)``."""
        scale = 2.0 * self.planner.objective.channel_weights
        if self.latent.ndim == 2:
            scale = scale / self.latent.shape[0]
        return residual * scale

    def evaluate(self) -> None:
        """Cost of the actions under the real rollout; the first time these are the starts."""
        cost = self.kernel.cost(self.latent, self.goal, self.a)
        if self.first_cost is None:
            self.first_cost = cost
        self.kept.update(self.a, cost)
        self.transitions += self.batch_cost

    def finish(self) -> None:
        """Evaluate the actions the last step produced."""
        self.evaluate()

    def best(self) -> tuple[Tensor, Tensor]:
        """Best evaluated actions and their cost."""
        return self.kept.best()

    def candidates(self) -> tuple[Tensor, Tensor]:
        """Best iterate of every start and its cost."""
        return self.kept.actions, self.kept.costs

    def warm_cost(self) -> float:
        """Cost of the warm start, which is row 0 of the first evaluation."""
        given = self.request.warm_start is not None and self.first_cost is not None
        return float(self.first_cost[0]) if given else math.nan

    def virtual_states(self) -> Tensor | None:
        """States ``(T - 1, *L)`` of the best row, or None when they are not finite."""
        states = self.s[self.kept.costs.argmin(), : self.horizon - 1]
        return states if bool(torch.isfinite(states).all()) else None
