"""Gauss-Newton: its Jacobians, what it solves at once, and that it only ever gets better."""

from __future__ import annotations

import pytest
import torch
from dynamics import (
    ACTION,
    HORIZON,
    LATENT,
    AnalyticDynamics,
    MlpDynamics,
    TokenDynamics,
    make_objective,
)
from torch import Tensor

from wm_mpc.planners import PlanRequest
from wm_mpc.planners.ilqr import IlqrPlanner, IlqrSearch
from wm_mpc.planners.registry import make_planner, planner_config

GENERATOR = torch.Generator().manual_seed(5)
PLANS = 0.4 * torch.randn(3, HORIZON, ACTION, generator=GENERATOR)


class LinearDynamics(AnalyticDynamics):
    """``z' = 0.9 z + M a``: one Gauss-Newton step is exact."""

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return 0.9 * latent + action @ self.matrix.to(latent)


def search_of(model: AnalyticDynamics, **options: object) -> IlqrSearch:
    latent = torch.full(model.latent_shape, 0.3)
    goal = torch.full(model.latent_shape, 0.7)
    options = {"starts": 3} | options
    planner = make_planner("ilqr", model, make_objective(), planner_config("ilqr", **options))
    assert isinstance(planner, IlqrPlanner)
    return IlqrSearch(planner, PlanRequest(latent, goal), PLANS.clone())


@pytest.mark.parametrize(
    ("model", "tolerance"),
    [
        (AnalyticDynamics(), 1e-5),
        (MlpDynamics(), 1e-5),
        (MlpDynamics(latent=18, action=4, object_frame=True), 1e-4),
        (TokenDynamics(), 3e-2),
    ],
    ids=["autograd", "native", "object frame", "tokens"],
)
def test_jacobians_are_those_of_the_rollout(model: AnalyticDynamics, tolerance: float) -> None:
    latent = torch.full(model.latent_shape, 0.3)
    objective = make_objective(latent=model.latent_shape[-1])
    planner = make_planner("ilqr", model, objective, planner_config("ilqr", starts=3))
    plans = torch.cat([PLANS, PLANS], 2)[..., : model.action_width]
    search = IlqrSearch(planner, PlanRequest(latent, latent + 0.4), plans.clone())
    z = search.kernel.rollout(latent, plans)
    found = search.jacobian(z)
    for plan, jacobian in zip(plans, found, strict=True):
        expected = torch.autograd.functional.jacobian(
            lambda a: unroll(model, latent, a).flatten(), plan
        )
        torch.testing.assert_close(jacobian, expected.flatten(1), rtol=tolerance, atol=tolerance)


def unroll(model: AnalyticDynamics, latent: Tensor, actions: Tensor) -> Tensor:
    z, steps = latent[None], []
    for action in actions:
        z = model.step(z, action[None])
        steps.append(z[0])
    return torch.stack(steps)


def test_a_linear_quadratic_problem_is_solved_at_once() -> None:
    model = LinearDynamics(bound=100.0)
    objective = make_objective(action_weight=0.1, smoothness_weight=0.2)
    options = planner_config("ilqr", iterations=1, damping=1e-6, trials=1)
    planner = make_planner("ilqr", model, objective, options)
    latent, goal = torch.full((LATENT,), 0.3), torch.full((LATENT,), 2.0)
    plan = planner.plan(PlanRequest(latent, goal, seed=1))
    best = plan.actions.clone().requires_grad_()
    cost = objective(unroll(model, latent, best)[None], best[None], goal).sum()
    (gradient,) = torch.autograd.grad(cost, best)
    assert gradient.abs().max() < 1e-4
    assert plan.cost < 0.5


def test_limits_that_bind_are_met_and_the_rest_is_optimal() -> None:
    """At the solution a command is free and has no gradient, or rests on its bound."""
    model = LinearDynamics(bound=0.15)
    objective = make_objective(action_weight=0.01)
    planner = make_planner("ilqr", model, objective, planner_config("ilqr", iterations=30))
    latent, goal = torch.zeros(LATENT), torch.tensor([1.5, 0.2, -0.4])
    plan = planner.plan(PlanRequest(latent, goal))
    best = plan.actions.clone().requires_grad_()
    cost = objective(unroll(model, latent, best)[None], best[None], goal).sum()
    (gradient,) = torch.autograd.grad(cost, best)
    low, high = plan.actions <= -0.15, plan.actions >= 0.15
    assert 0 < int((low | high).sum()) < best.numel()
    assert gradient[~low & ~high].abs().max() < 1e-4
    assert (gradient[low] >= 0).all() and (gradient[high] <= 0).all()


@pytest.mark.parametrize("model", [AnalyticDynamics(), MlpDynamics(), TokenDynamics()])
def test_no_iteration_makes_any_start_worse(model: AnalyticDynamics) -> None:
    search = search_of(model, damping=1e-6)
    before = None
    for _ in range(12):
        search.advance(1)
        costs = search.kept.costs.clone()
        assert before is None or (costs <= before).all()
        torch.testing.assert_close(
            search.objective(
                search.kernel.rollout(search.latent, search.x), search.x, search.goal
            ),
            costs,
            rtol=1e-4,
            atol=1e-6,
        )
        before = costs
    assert (before < 0.5 * search.first_cost).all()


def test_it_needs_fewer_iterations_than_adam() -> None:
    model = AnalyticDynamics()
    latent = torch.full((LATENT,), 0.3)
    with torch.no_grad():
        goal = model.rollout(latent[None], PLANS[:1])[0, -1]
    asked = PlanRequest(latent, goal, warm_start=torch.zeros(HORIZON, ACTION))
    costs = {
        name: make_planner(
            name, model, make_objective(), planner_config(name, iterations=8, starts=4)
        )
        .plan(asked)
        .cost
        for name in ("ilqr", "adam")
    }
    assert costs["ilqr"] < 0.5 * costs["adam"]
