"""Gradient iterations per second, against the plain eager loop with autograd and torch.optim.

Both descend the same cost from the same plans in the same process; the reference loop is what one
would write first. Times are medians, which another process's activity moves little.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.models.protocol import Dynamics
from wm_mpc.planners import GradientConfig, PlanRequest
from wm_mpc.planners.objective import GoalObjective
from wm_mpc.planners.registry import make_planner

CHUNK = 20


def eager_loop(
    model: Dynamics,
    objective: GoalObjective,
    latent: torch.Tensor,
    goal: torch.Tensor,
    starts: torch.Tensor,
    bounds: tuple[torch.Tensor, torch.Tensor],
    iterations: int,
) -> torch.Tensor:
    """Reference loop: autograd through the rollout, ``torch.optim.Adam``, clamp."""
    x = starts.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.2)
    for _ in range(iterations):
        optimizer.zero_grad()
        cost = objective(model.rollout(latent.expand(len(x), *latent.shape), x), x, goal)
        cost.sum().backward(inputs=[x])
        optimizer.step()
        with torch.no_grad():
            x.clamp_(*bounds)
    return x.detach()


def measure_speed(
    model: Dynamics,
    objective: GoalObjective,
    batches: tuple[int, ...] = (1, 8),
    repeats: int = 15,
    clock: Clock = monotonic,
) -> list[dict[str, Any]]:
    """Time both loops.

    Args:
        model: dynamics.
        objective: goal cost.
        batches: numbers of starts.
        repeats: timed calls per loop, interleaved so that both see the same disturbances.
        clock: monotonic clock.

    Returns:
        One dict per batch: ``starts``, ``eager_ms`` and ``planner_ms`` per iteration,
        ``planner_per_s`` iterations per second, and their ratio ``speedup``.
    """
    rows = []
    device = objective.time_weights.device
    generator = torch.Generator(device).manual_seed(0)
    latent, goal = (
        torch.randn(model.latent_shape, generator=generator, device=device) for _ in range(2)
    )
    for starts in batches:
        config = GradientConfig(
            iterations=CHUNK, starts=starts, action_noise=0.0, chunk=CHUNK, init_std=0.5
        )
        planner = make_planner("adam", model, objective, config, clock)
        planner.prepare()
        request = PlanRequest(latent, goal)
        shape = (starts, objective.horizon, model.action_width)
        x = torch.randn(shape, generator=generator, device=device)
        bounds = (planner.low, planner.high)
        times: tuple[list[float], list[float]] = ([], [])
        for repeat in range(repeats + 1):
            begun = clock()
            eager_loop(model, objective, latent, goal, x, bounds, CHUNK)
            between = clock()
            planner.plan(request)
            ended = clock()
            if repeat:  # the first round warms up
                times[0].append((between - begun) / CHUNK)
                times[1].append((ended - between) / CHUNK)
        eager, planned = (1e3 * statistics.median(t) for t in times)
        rows.append(
            {
                "starts": starts,
                "horizon": objective.horizon,
                "threads": torch.get_num_threads(),
                "eager_ms": eager,
                "planner_ms": planned,
                "planner_per_s": 1e3 / planned,
                "speedup": eager / planned,
            }
        )
    return rows
