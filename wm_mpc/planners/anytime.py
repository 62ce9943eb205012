"""What all planners share: the anytime loop, its accounting, and what they promise to return."""

from __future__ import annotations

import bisect
import copy
import math
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.pauses import Pause, no_pause
from wm_mpc.models.protocol import Dynamics
from wm_mpc.planners.base import Plan, PlanRequest
from wm_mpc.planners.kernels import make_kernel
from wm_mpc.planners.kernels.protocol import Kernel, KernelCall, PreparedKernel
from wm_mpc.planners.objective import GoalObjective
from wm_mpc.planners.pace import Pace
from wm_mpc.planners.trace import SearchTrace

HOPELESS_S = 10.0
"""[s] An iteration that takes longer is no iteration of a control loop."""


class Search(Protocol):
    """One planning call in progress. Everything stays on the device until the loop reads it.

    Attributes:
        transitions: model transitions spent so far.
        closing: model transitions that ``finish`` will spend.
    """

    transitions: int
    closing: int

    def cost_of(self, iterations: int) -> int:
        """Model transitions that the next iterations will spend."""
        ...

    def advance(self, iterations: int) -> None:
        """Run some iterations without a host sync."""
        ...

    def finish(self) -> None:
        """Evaluate what the last iteration produced, where that is not done yet."""
        ...

    def best(self) -> tuple[Tensor, Tensor]:
        """Best plan so far ``(T, A)`` and its cost, 0-d (``inf``: nothing finite was seen)."""
        ...

    def candidates(self) -> tuple[Tensor, Tensor]:
        """Plans ``(N, T, A)`` compared last and their costs ``(N,)``; inf: not usable."""
        ...

    def warm_cost(self) -> float:
        """Cost of the warm start, ``nan`` when there was none."""
        ...

    def virtual_states(self) -> Tensor | None:
        """Lifted states ``(T - 1, *L)`` of methods that have them."""
        ...


class AnytimePlanner:
    """Base of the planners: subclasses implement ``begin``.

    Args:
        name: registry name.
        model: dynamics; bounds come from its ``action_bounds()`` when it has one.
        objective: cost; its horizon is the plan's.
        config: the planner's configuration, with ``iterations`` and ``chunk``.
        clock: monotonic clock for deadlines.
        compile: use compiled code where that is faster.
    """

    def __init__(
        self,
        name: str,
        model: Dynamics,
        objective: GoalObjective,
        config: Any,
        clock: Clock = monotonic,
        compile: bool = True,
    ) -> None:
        self.name = name
        self.model = model
        self.objective = objective
        self.config = config
        self.clock = clock
        self.horizon = objective.horizon
        self.device = objective.time_weights.device
        self.shape = (self.horizon, model.action_width)
        # Models that are no world models may not know control steps; theirs are model steps.
        self.action_dim = getattr(getattr(model, "config", None), "action_dim", model.action_width)
        self.low, self.high = bounds_of(model, self.device)
        self.kernel: Kernel = make_kernel(model, objective, compile)
        self.pace = Pace()

    def begin(self, request: PlanRequest, generator: torch.Generator) -> Search:
        """Set up a search; may not evaluate the model."""
        raise NotImplementedError

    def plan(self, request: PlanRequest) -> Plan:
        """Return the best finite plan found in time; without any time, the warm start.

        A call that begins before its deadline evaluates at least one iteration, however long that
        is expected to take: expectations are learned only by running.
        """
        started = self.clock()
        request = self._sanitize(request)
        fallback = request.warm_start
        if fallback is None:
            fallback = torch.zeros(self.shape, device=self.device).clamp(self.low, self.high)
        if request.deadline is not None and started >= request.deadline:
            return self._empty(fallback, "deadline", started)
        generator = torch.Generator(self.device).manual_seed(request.seed)
        search = self.begin(request, generator)
        history: list[Tensor] = []
        iterations, stopped = self._iterate(search, request, history)
        if iterations == 0:
            return self._empty(fallback, stopped, started)
        search.finish()
        actions, cost_tensor = search.best()
        cost = float(cost_tensor)
        if not math.isfinite(cost):
            actions, stopped, latents = fallback, "non_finite", None
        else:
            latents = self.kernel.rollout(request.latent, actions[None])[0]
        return Plan(
            actions=actions,
            cost=cost,
            warm_cost=search.warm_cost(),
            latents=latents,
            iterations=iterations,
            transitions=search.transitions + (self.horizon if latents is not None else 0),
            wall_s=self.clock() - started,
            stopped=stopped,
            planner=self.name,
            virtual_states=search.virtual_states(),
            trace=SearchTrace(tuple(history), search) if request.trace else None,
        )

    def first_iterate_s(self, config: Any, pace: float) -> float:
        """Time that a first iteration with other options would take at least [s].

        Args:
            config: of this planner's type.
            pace: [s] that a model transition takes where many are made at once.
        """
        sizes = (getattr(config, name, 1) for name in ("starts", "samples", "sync_samples"))
        least = pace * max(sizes) * self.horizon
        if least > HOPELESS_S:
            return least  # what takes so long must not even be laid out in memory
        other = copy.copy(self)
        other.config = config
        zero = torch.zeros(self.model.latent_shape, device=self.device)
        search = other.begin(PlanRequest(zero, zero), torch.Generator(self.device))
        spent = search.cost_of(1) + search.closing + self.horizon
        return pace * spent

    def calls(self) -> list[KernelCall]:
        """Every call that a plan may make of the kernel; subclasses add theirs."""
        return [KernelCall("rollout", 1)]

    def prepare(self) -> None:
        """Compile what plans will need, where the kernel compiles; takes up to a minute."""
        if isinstance(self.kernel, PreparedKernel):
            self.kernel.prepare(self.calls())

    def warm_up(self, seconds: float | None = None, pause: Pause = no_pause) -> None:
        """Compile and touch every code path, so that the first tick costs what the others do."""
        zero = torch.zeros(self.model.latent_shape, device=self.device)
        request = PlanRequest(zero, zero)
        self.prepare()
        # A real call after the compiling one fills caches and allocators.
        for warm in (None, torch.zeros(self.shape, device=self.device)):
            pause()
            deadline = None if seconds is None else self.clock() + seconds
            self.plan(replace(request, warm_start=warm, deadline=deadline))

    def _iterate(
        self, search: Search, request: PlanRequest, history: list[Tensor]
    ) -> tuple[int, str]:
        """Advance in chunks; all but the first begin only if they will end in time."""
        done = 0
        limit, closing = self.config.iterations, search.closing + self.horizon
        while done < limit:
            count = min(self.config.chunk, limit - done)
            if request.max_transitions is not None:
                room = request.max_transitions - search.transitions - closing
                count = affordable(search, count, room)
                if count < 1:
                    return done, "transitions"
            before = self.clock()
            if request.deadline is not None:
                count = self._fitting(search, count, request.deadline - before, closing)
                # One iteration is always made: a pace that is too slow is unlearned by running.
                count = count if done else max(1, count)
                if count < 1:
                    return done, "deadline"
            spent = search.transitions
            search.advance(count)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.pace.add((self.clock() - before) / (search.transitions - spent))
            done += count
            if request.trace:
                history.append(search.best()[1].clone())
        return done, "iterations"

    def _fitting(self, search: Search, count: int, left: float, closing: int) -> int:
        """Number of iterations, up to ``count``, that fit into ``left`` seconds; may be 0.

        Before anything was measured it is one, which tells what they cost.
        """
        if left <= 0:
            return 0
        pace = self.pace.seconds
        return affordable(search, count, left / pace - closing) if pace else 1

    def _sanitize(self, request: PlanRequest) -> PlanRequest:
        """Check shapes, clamp given plans into the bounds, zero what is not finite in them."""
        latent_shape = tuple(self.model.latent_shape)
        for name in ("latent", "goal"):
            value = getattr(request, name)
            if tuple(value.shape) != latent_shape:
                raise ValueError(f"{name}: shape {tuple(value.shape)}; {latent_shape} expected")
        changed = {}
        for name, lead in (("warm_start", 0), ("proposals", 1)):
            value = getattr(request, name)
            if value is None:
                continue
            if tuple(value.shape[lead:]) != self.shape:
                found = tuple(value.shape)
                raise ValueError(f"{name}: shape {found}; (..., {self.shape}) expected")
            value = value.to(self.device).nan_to_num(0.0, 0.0, 0.0)
            changed[name] = value.clamp(self.low, self.high)
        states = request.warm_states
        if states is not None:
            expected = (self.horizon - 1, *latent_shape)
            if tuple(states.shape) != expected:
                raise ValueError(f"warm_states: shape {tuple(states.shape)}; {expected} expected")
            if not torch.isfinite(states).all():
                changed["warm_states"] = None
        return replace(request, **changed) if changed else request

    def _empty(self, actions: Tensor, stopped: str, started: float) -> Plan:
        wall = self.clock() - started
        return Plan(actions, math.inf, math.nan, None, 0, 0, wall, stopped, self.name)


class BestOf:
    """Best finite plan per row of a batch, kept on the device.

    Args:
        rows: batch size.
        shape: ``(T, A)``.
        device: torch device.
    """

    def __init__(self, rows: int, shape: tuple[int, int], device: torch.device) -> None:
        self.costs = torch.full((rows,), math.inf, device=device)
        self.actions = torch.zeros(rows, *shape, device=device)

    def update(self, actions: Tensor, costs: Tensor) -> None:
        """Take over the rows whose cost is finite and lower (a NaN compares false)."""
        better = costs < self.costs
        self.costs = torch.where(better, costs, self.costs)
        self.actions = torch.where(better[:, None, None], actions, self.actions)

    def best(self) -> tuple[Tensor, Tensor]:
        """Best plan ``(T, A)`` and its cost (0-d)."""
        row = self.costs.argmin()
        return self.actions[row], self.costs[row]


def affordable(search: Search, count: int, transitions: float) -> int:
    """Largest number of iterations, up to ``count``, that spends no more than ``transitions``."""
    if count > 0 and search.cost_of(count) > transitions:
        count = bisect.bisect_right(range(1, count), transitions, key=search.cost_of)
    return count


def bounds_of(model: Dynamics, device: torch.device) -> tuple[Tensor, Tensor]:
    """Action bounds in normalised units, two tensors ``(A,)``; infinite when none are given."""
    bounds = getattr(model, "action_bounds", None)
    if bounds is None:
        wide = torch.full((model.action_width,), math.inf, device=device)
        return -wide, wide
    low, high = bounds()
    return low.to(device), high.to(device)
