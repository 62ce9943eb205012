"""GRASP's and LatCo's gradients against finite differences of their written objectives."""

from __future__ import annotations

from collections.abc import Callable

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

from wm_mpc.planners import GraspConfig, LatcoConfig, PlanRequest
from wm_mpc.planners.objective import GoalObjective
from wm_mpc.planners.registry import make_planner

STARTS = 3


class Recording(AnalyticDynamics):
    """Notes the batch size of every model step and whether its states ask for a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, bool]] = []

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        self.calls.append((len(latent), latent.requires_grad))
        return super().step(latent, action)


def search(name: str, config: object, model: AnalyticDynamics, objective: GoalObjective) -> object:
    generator = torch.Generator().manual_seed(2)
    latent, goal = torch.randn(2, *model.latent_shape, generator=generator)
    planner = make_planner(name, model, objective, config)
    return planner.begin(PlanRequest(latent, goal), generator)


def finite_differences(f: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-6) -> Tensor:
    gradient = torch.empty_like(x)
    for i in range(x.numel()):
        delta = torch.zeros_like(x).flatten()
        delta[i] = step
        delta = delta.view_as(x)
        gradient.view(-1)[i] = (f(x + delta) - f(x - delta)) / (2 * step)
    return gradient


def grasp_objective(
    model: AnalyticDynamics, objective: GoalObjective, frozen: Tensor, goal: Tensor, gamma: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Eq. 10 of arXiv 2602.00475, one transition at a time; ``frozen`` are the states under sg."""

    def loss(a: Tensor, s: Tensor) -> Tensor:
        total = torch.zeros(())
        for b in range(STARTS):
            for t in range(HORIZON):
                following = model.step(frozen[b, t][None], a[b, t][None])[0]
                target = s[b, t] if t < HORIZON - 1 else goal
                total = total + objective.distance(following - target, torch.zeros_like(goal))
                total = total + gamma * objective.distance(following, goal)
        return total

    return loss


@pytest.mark.parametrize("kind", [AnalyticDynamics, MlpDynamics, TokenDynamics])
def test_grasp_descends_its_written_objective(double: None, kind: type) -> None:
    model, objective = kind(), make_objective()
    grasp = search("grasp", GraspConfig(starts=STARTS, goal_weight=0.7), model, objective)
    _, grad_a, grad_s = grasp.gradients()
    written = grasp_objective(model, objective, grasp.inputs(), grasp.goal, 0.7)
    with torch.no_grad():
        expected_a = finite_differences(lambda a: written(a, grasp.s), grasp.a)
        expected_s = finite_differences(lambda s: written(grasp.a, s), grasp.s)
    torch.testing.assert_close(grad_a, expected_a, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(grad_s, expected_s, rtol=1e-6, atol=1e-8)


def test_grasp_batches_time_and_needs_no_state_jacobian() -> None:
    model = Recording()
    grasp = search("grasp", GraspConfig(starts=STARTS), model, make_objective())
    following, _, _ = grasp.gradients()
    assert model.calls == [(STARTS * HORIZON, False)]
    states = grasp.inputs()
    for t in range(HORIZON):
        serial = AnalyticDynamics().step(states[:, t], grasp.a[:, t])
        torch.testing.assert_close(following[:, t], serial)


def test_grasp_synchronises_on_schedule_through_the_rollout() -> None:
    model = Recording()
    config = GraspConfig(starts=STARTS, sync_every=4, sync_steps=2)
    grasp = search("grasp", config, model, make_objective())
    grasp.advance(3)
    assert not any(asks for _, asks in model.calls)
    grasp.advance(1)
    # A rollout's gradient flows through its own states.
    assert any(asks for _, asks in model.calls)


@pytest.mark.parametrize("sync", ["gradient", "cem"])
def test_synchronising_lowers_the_cost_under_the_rollout(sync: str) -> None:
    costs = []
    for every in (10**6, 5):
        config = GraspConfig(sync=sync, sync_every=every, iterations=20)
        model = AnalyticDynamics()
        planner = make_planner("grasp", model, make_objective(), config)
        latent, goal = torch.zeros(LATENT), torch.tensor([1.0, -0.5, 0.5])
        costs.append(planner.plan(PlanRequest(latent, goal)).cost)
    assert costs[1] < costs[0]


def test_state_noise_fades_and_is_seeded() -> None:
    def states(noise: float) -> Tensor:
        config = GraspConfig(starts=STARTS, state_noise=noise, sync_every=100)
        grasp = search("grasp", config, AnalyticDynamics(), make_objective())
        grasp.advance(config.iterations)
        return grasp.s

    assert torch.equal(states(0.1), states(0.1))
    assert not torch.equal(states(0.1), states(0.0))
    config = GraspConfig(starts=STARTS, iterations=10)
    grasp = search("grasp", config, AnalyticDynamics(), make_objective())
    assert grasp.progress == 0
    grasp.advance(10)
    assert grasp.progress == 1


def test_warm_states_are_taken_and_handed_back() -> None:
    warm = torch.full((HORIZON - 1, LATENT), 0.25)
    for name in ("grasp", "latco"):
        planner = make_planner(name, AnalyticDynamics(), make_objective())
        asked = PlanRequest(torch.zeros(LATENT), torch.ones(LATENT), warm_states=warm)
        begun = planner.begin(asked, torch.Generator().manual_seed(0))
        assert torch.equal(begun.s[0, : HORIZON - 1], warm)
        assert planner.plan(asked).virtual_states.shape == warm.shape


@pytest.mark.parametrize("kind", [AnalyticDynamics, MlpDynamics, TokenDynamics])
def test_latco_descends_its_lagrangian(double: None, kind: type) -> None:
    model, objective = kind(), make_objective()
    latco = search("latco", LatcoConfig(starts=STARTS), model, objective)
    latco.multipliers = torch.rand(STARTS, HORIZON) + 0.5
    _, grad_a, grad_s = latco.gradients()

    def lagrangian(a: Tensor, s: Tensor) -> Tensor:
        total = torch.zeros(())
        for b in range(STARTS):
            before = latco.latent
            for t in range(HORIZON):
                gap = model.step(before[None], a[b, t][None])[0] - s[b, t]
                violation = objective.distance(gap, torch.zeros_like(gap))
                total = total + latco.multipliers[b, t] * violation
                reached = objective.distance(s[b, t], latco.goal)
                total = total + objective.time_weights[t] * reached
                before = s[b, t]
        return total

    with torch.no_grad():
        expected_a = finite_differences(lambda a: lagrangian(a, latco.s), latco.a)
        expected_s = finite_differences(lambda s: lagrangian(latco.a, s), latco.s)
    torch.testing.assert_close(grad_a, expected_a, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(grad_s, expected_s, rtol=1e-6, atol=1e-8)


def test_latco_multipliers_enforce_the_dynamics() -> None:
    config = LatcoConfig(starts=STARTS, iterations=400)
    latco = search("latco", config, AnalyticDynamics(), make_objective())
    latco.advance(1)
    before = latco.gradients()[0].abs().max()
    latco.advance(399)
    assert latco.gradients()[0].abs().max() < 0.3 * before
    assert latco.a.shape == (STARTS, HORIZON, ACTION)


def test_grasp_states_begin_where_the_first_actions_lead() -> None:
    """Then every transition is feasible, and only the goal pulls; each step taken is counted."""
    model = Recording()
    config = GraspConfig(
        starts=STARTS, iterations=4, states="rollout", state_rate=1e-9, action_rate=1e-9,
        state_noise=0.0, sync_every=10,
    )  # fmt: skip
    grasp = search("grasp", config, model, make_objective())
    first = grasp.a.clone()
    expected = grasp.cost_of(2)
    grasp.advance(2)
    reached = model.rollout(grasp.latent.expand(STARTS, LATENT), first)
    torch.testing.assert_close(grasp.s, reached[:, :-1], rtol=1e-4, atol=1e-5)
    # the evaluation and the rollout of the starts, then two iterations
    assert grasp.transitions == expected == 4 * STARTS * HORIZON
    line = search("grasp", GraspConfig(starts=STARTS, iterations=4), model, make_objective())
    assert not torch.allclose(line.s, reached[:, :-1], atol=0.1)
