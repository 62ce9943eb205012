r"""iLQR: Gauss-Newton on the latent residuals, damped, with limits, from several starts at once.

The goal cost is a weighted sum of squares of residuals :math:`r_t = z_t - g`. With the model's
Jacobians :math:`A_t = \partial F / \partial z`, :math:`B_t = \partial F / \partial a` at the
present plan, the residuals are linear in a change of the actions, :math:`r + J \delta`, and each
iteration solves

.. math::

    \min_\delta \|r + J \delta\|_W^2 + R(a + \delta) + \lambda \|\delta\|^2,
    \qquad a_{low} \le a + \delta \le a_{high}

where R are the objective's own penalties. That is the step of iLQR (Li and Todorov 2004) in its
condensed form: what its backward pass eliminates step by step is here one symmetric system of
``T A`` numbers per start. Limits are those of box-DDP (Tassa et al. 2014): commands at a bound
that the gradient presses against are held, the others solved for, and the sum is clipped. Several
dampings are tried side by side (Levenberg-Marquardt), the best one is kept, and a step that makes
nothing better is not taken, so that costs never rise.

Jacobians of compact latents come from one batched call of the kernel over all starts, steps and
latent channels: a transition per channel, whose target differs from the prediction in that channel
alone. Latents of more than ``MOST_CHANNELS`` numbers (patch tokens) take forward differences of
whole rollouts instead, one per number of the plan.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.fields import Checked, NonNegativeFloat, PositiveFloat, PositiveInt, Share
from wm_mpc.models.protocol import Dynamics
from wm_mpc.planners.anytime import AnytimePlanner, BestOf
from wm_mpc.planners.base import PlanRequest
from wm_mpc.planners.kernels import make_kernel
from wm_mpc.planners.kernels.protocol import Kernel, KernelCall, PreparedKernel
from wm_mpc.planners.objective import GoalObjective
from wm_mpc.planners.starts import start_batch

MOST_CHANNELS = 64
"""Latents of more numbers are differentiated by their actions, not by their channels."""
DIFFERENCE = 1e-2
"""Step of forward differences, normalised action units: single precision leaves five digits."""
LEAST, MOST = 1e-6, 1e6
"""Bounds of the damping."""


@dataclass(frozen=True)
class IlqrConfig(Checked):
    """Gauss-Newton.

    Attributes:
        iterations: linearisations.
        starts: plans improved in parallel.
        damping: first damping, as a share of the largest curvature along a single action.
        trials: dampings tried side by side, each ten times the one before.
        init_std: standard deviation of fresh starts, normalised action units.
        warm_std: standard deviation of starts drawn around the warm start, normalised action
            units.
        persistence: share of a fresh start's variance that is one direction held over the plan,
            in [0, 1].
        chunk: iterations between two looks at the clock.
    """

    iterations: PositiveInt = 10
    starts: PositiveInt = 8
    damping: PositiveFloat = 1e-2
    trials: PositiveInt = 4
    init_std: NonNegativeFloat = 1.0
    warm_std: NonNegativeFloat = 0.3
    persistence: Share = 0.7
    chunk: PositiveInt = 1


class IlqrPlanner(AnytimePlanner):
    """Gauss-Newton on latent residuals; see the module."""

    config: IlqrConfig

    def __init__(
        self,
        name: str,
        model: Dynamics,
        objective: GoalObjective,
        config: IlqrConfig,
        clock: Clock = monotonic,
        compile: bool = True,
    ) -> None:
        """Prepare the kernel that gives Jacobians; arguments as in ``AnytimePlanner``."""
        super().__init__(name, model, objective, config, clock, compile)
        self.channels = math.prod(model.latent_shape)
        self.compact = len(model.latent_shape) == 1 and self.channels <= MOST_CHANNELS
        self.unweighted: Kernel | None = None
        if self.compact:
            self.unweighted = make_kernel(model, unweighted(objective), compile)

    def calls(self) -> list[KernelCall]:
        """Calls of a search: the starts, their Jacobians, the dampings that are tried."""
        starts = self.config.starts
        rows = [starts, starts * self.config.trials]
        if not self.compact:
            rows.append(starts * self.shape[0] * self.shape[1])
        return [*super().calls(), *(KernelCall("rollout", count) for count in rows)]

    def prepare(self) -> None:
        """Compile what plans will need, where the kernels compile."""
        super().prepare()
        if isinstance(self.unweighted, PreparedKernel):
            rows = self.config.starts * self.horizon * self.channels
            self.unweighted.prepare([KernelCall("transitions", rows)])

    def begin(self, request: PlanRequest, generator: torch.Generator) -> IlqrSearch:
        """Lay out the starts; nothing is evaluated yet."""
        config = self.config
        starts = start_batch(
            config.starts,
            self.shape,
            request.warm_start,
            request.proposals,
            "random",
            config.init_std,
            config.warm_std,
            generator,
            config.persistence,
            self.action_dim,
        )
        return IlqrSearch(self, request, starts.clamp_(self.low, self.high))


class IlqrSearch:
    """Plans ``(B, T, A)`` that only ever get better.

    Args:
        planner: planner and its kernels.
        request: the call.
        starts: ``(B, T, A)``.
    """

    def __init__(self, planner: IlqrPlanner, request: PlanRequest, starts: Tensor) -> None:
        self.planner, self.config, self.kernel = planner, planner.config, planner.kernel
        self.objective = planner.objective
        self.latent, self.goal = request.latent, request.goal
        self.warm = request.warm_start is not None
        self.x, self.z = starts, None
        rows, (steps, width) = len(starts), planner.shape
        self.kept = BestOf(rows, planner.shape, planner.device)
        self.damping = torch.full((rows,), self.config.damping, device=planner.device)
        self.ladder = 10.0 ** torch.arange(self.config.trials, device=planner.device)
        self.first_cost: Tensor | None = None
        self.low = planner.low.repeat(steps)
        self.high = planner.high.repeat(steps)
        self.penalty = penalty_curvature(self.objective, steps, width)
        self.count, self.transitions, self.closing = 0, 0, 0
        self.first = rows * steps
        linearise = steps * planner.channels if planner.compact else steps * width * steps
        self.per_iteration = rows * (linearise + self.config.trials * steps)

    def cost_of(self, iterations: int) -> int:
        """Model transitions of the next iterations, the first evaluation included."""
        return iterations * self.per_iteration + (self.first if self.z is None else 0)

    def advance(self, iterations: int) -> None:
        """Linearise, solve for several dampings, keep what is better."""
        if self.z is None:
            self.z = self.kernel.rollout(self.latent, self.x)
            self.first_cost = self.objective(self.z, self.x, self.goal)
            self.kept.update(self.x, self.first_cost)
            self.transitions += self.first
        for _ in range(iterations):
            self.improve(self.z)
            self.count += 1
            self.transitions += self.per_iteration

    def improve(self, z: Tensor) -> None:
        """One iteration from plans whose predictions are ``z`` ``(B, T, *L)``."""
        rows, steps, width = self.x.shape
        tried = self.damping[:, None] * self.ladder
        flat = self.x.flatten(1)
        candidates = (flat[:, None] + self.steps(z, flat, tried)).clamp(self.low, self.high)
        plans = candidates.view(-1, steps, width)
        predicted = self.kernel.rollout(self.latent, plans)
        costs = self.objective(predicted, plans, self.goal).view(rows, -1)
        cost, best = costs.nan_to_num(math.inf, math.inf, math.inf).min(1)
        row = torch.arange(rows, device=best.device)
        index = row * self.config.trials + best
        better = cost < self.kept.costs
        taken = better[:, None, None]
        self.kept.update(plans[index], cost)
        self.x = torch.where(taken, plans[index], self.x)
        shape = (-1, *(1,) * (z.ndim - 1))
        self.z = torch.where(better.view(shape), predicted[index], z)
        # The ladder begins one rung below what served; where nothing did, above all of it.
        served = torch.where(better, tried[row, best] / 10, tried[:, -1] * 10)
        self.damping = served.clamp(LEAST, MOST)

    def steps(self, z: Tensor, flat: Tensor, damping: Tensor) -> Tensor:
        """Change of the plans for every damping: ``(B, T, *L), (B, n), (B, K) -> (B, K, n)``."""
        jacobian = self.jacobian(z).nan_to_num(0.0, 0.0, 0.0)
        objective = self.objective
        weights = objective.time_weights[:, None] * self.channel_weights()
        residual = ((z - self.goal).flatten(2) * weights).flatten(1)
        weighted = jacobian * weights.flatten()[:, None]
        curvature = 2 * jacobian.mT @ weighted + self.penalty
        gradient = 2 * (residual[:, None] @ jacobian)[:, 0] + flat @ self.penalty
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        pressed = (flat <= self.low) & (gradient > 0) | (flat >= self.high) & (gradient < 0)
        free = (~pressed).to(flat.dtype)
        curvature = curvature * free[:, :, None] * free[:, None, :]
        largest = curvature.diagonal(dim1=1, dim2=2).amax(1).clamp_min(1e-12)
        # Held commands get the diagonal alone, and with no gradient stay where they are.
        raised = damping * largest[:, None]
        identity = torch.eye(flat.shape[1], device=flat.device)
        systems = curvature[:, None] + raised[..., None, None] * identity
        factor, failed = torch.linalg.cholesky_ex(systems)
        right = (gradient * free)[:, None, :, None].expand(-1, damping.shape[1], -1, -1)
        step = -torch.cholesky_solve(right, factor)[..., 0]
        return torch.where((failed == 0)[..., None], step, 0.0).nan_to_num(0.0, 0.0, 0.0)

    def channel_weights(self) -> Tensor:
        """Weight of every number of a frame's latent, flattened."""
        weights = self.objective.channel_weights
        if self.goal.ndim == 1:
            return weights
        return weights.repeat(len(self.goal)) / len(self.goal)

    def jacobian(self, z: Tensor) -> Tensor:
        """Derivative of the latents by the actions, ``(B, T L, T A)``; zero before an action."""
        if self.planner.unweighted is None:
            return self.differences(z)
        by_state, by_action = self.transition_jacobians(z, self.planner.unweighted)
        rows, steps, channels, width = by_action.shape
        whole = by_action.new_zeros(rows, steps, channels, steps * width)
        for t in range(steps):
            if t:
                before = slice(0, t * width)
                whole[:, t, :, before] = by_state[:, t] @ whole[:, t - 1, :, before]
            whole[:, t, :, t * width : (t + 1) * width] = by_action[:, t]
        return whole.flatten(1, 2)

    def transition_jacobians(self, z: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
        """``A_t`` ``(B, T, L, L)`` and ``B_t`` ``(B, T, L, A)`` of every predicted step."""
        rows, steps, channels = z.shape
        first = self.latent.expand(rows, 1, channels)
        before = torch.cat([first, z[:, :-1]], 1).flatten(0, 1)
        count = rows * steps
        # The gradient of |F - (F - e/2)|^2 is e's row of the Jacobian.
        target = z.flatten(0, 1)[:, None] - 0.5 * torch.eye(channels, device=z.device)
        ones = torch.ones(count * channels, device=z.device)
        _, by_action, by_state = kernel.transitions(
            before.repeat_interleave(channels, 0),
            self.x.flatten(0, 1).repeat_interleave(channels, 0),
            target.flatten(0, 1),
            self.goal,
            ones,
            torch.zeros_like(ones),
            state_gradient=True,
        )
        assert by_state is not None
        shape = (rows, steps, channels, -1)
        return by_state.view(shape), by_action.view(shape)

    def differences(self, z: Tensor) -> Tensor:
        """The same by forward differences of whole rollouts, ``(B, T L, T A)``."""
        rows, steps, width = self.x.shape
        shifts = DIFFERENCE * torch.eye(steps * width, device=z.device).view(-1, steps, width)
        moved = (self.x[:, None] + shifts).flatten(0, 1)
        predicted = self.kernel.rollout(self.latent, moved).view(rows, steps * width, -1)
        return ((predicted - z.reshape(rows, 1, -1)) / DIFFERENCE).mT

    def finish(self) -> None:
        """Everything is evaluated already."""

    def best(self) -> tuple[Tensor, Tensor]:
        """Best plan of all starts and its cost."""
        return self.kept.best()

    def candidates(self) -> tuple[Tensor, Tensor]:
        """Best iterate of every start and its cost."""
        return self.kept.actions, self.kept.costs

    def warm_cost(self) -> float:
        """Cost of the warm start, which is row 0 of the first evaluation."""
        return float(self.first_cost[0]) if self.warm and self.first_cost is not None else math.nan

    def virtual_states(self) -> None:
        """Shooting methods lift no states."""


def unweighted(objective: GoalObjective) -> GoalObjective:
    """An objective whose frame distance is the plain sum of squares over all channels."""
    other = copy.copy(objective)
    other.channel_weights = torch.ones_like(objective.channel_weights)
    return other


def penalty_curvature(objective: GoalObjective, steps: int, width: int) -> Tensor:
    """Second derivative of the objective's penalties on actions, ``(T A, T A)``."""
    config, device = objective.config, objective.time_weights.device
    curvature = (2 * config.action_weight / (steps * width)) * torch.eye(steps, device=device)
    if config.smoothness_weight and steps > 1:
        change = torch.eye(steps, device=device).diff(dim=0)
        scale = 2 * config.smoothness_weight / ((steps - 1) * width)
        curvature = curvature + scale * change.mT @ change
    return torch.kron(curvature, torch.eye(width, device=device))
