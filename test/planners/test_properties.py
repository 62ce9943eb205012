"""Promises that every planner keeps, on dynamics that are neither linear nor convex."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

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
from fake_clock import FakeClock
from torch import Tensor

from wm_mpc.planners import PlanRequest
from wm_mpc.planners.kernels.native import MlpKernel
from wm_mpc.planners.registry import PLANNERS, make_planner, planner_config

NAMES = list(PLANNERS)
MODELS = {"autograd": AnalyticDynamics, "native": MlpDynamics}


def small(name: str, **overrides: object) -> object:
    """Return a planner's defaults, with few samples for those that sample."""
    fields = {f.name for f in dataclasses.fields(PLANNERS[name].config)}
    sizes = {"samples": 40, "elites": 6, "iterations": 8} if "samples" in fields else {}
    sizes = {key: value for key, value in sizes.items() if key in fields}
    if name == "gd":  # plain descent needs a step below the curvature of these dynamics
        sizes["learning_rate"] = 0.1
    return planner_config(name, **(sizes | overrides))


GENERATOR = torch.Generator().manual_seed(11)
LATENT_NOW = torch.randn(LATENT, generator=GENERATOR)
KNOWN, WARM = 0.3 * torch.randn(2, HORIZON, ACTION, generator=GENERATOR).clamp(-2, 2)


def request(seed: int = 0, model: Any = None, **fields: object) -> PlanRequest:
    """Ask for a plan to a goal that ``KNOWN`` reaches, from a warm start that does not."""
    with torch.no_grad():
        goal = (model or AnalyticDynamics()).rollout(LATENT_NOW[None], KNOWN[None])[0, -1]
    return PlanRequest(LATENT_NOW, goal, seed=seed, **({"warm_start": WARM} | fields))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> AnalyticDynamics:
    return MODELS[request.param]()


def true_cost(model: AnalyticDynamics, asked: PlanRequest, actions: Tensor) -> float:
    with torch.no_grad():
        latents = model.rollout(asked.latent[None], actions[None])
        return float(make_objective()(latents, actions[None], asked.goal))


def test_native_model_takes_the_native_path() -> None:
    planner = make_planner("adam", MlpDynamics(), make_objective())
    assert isinstance(planner.kernel, MlpKernel)


def test_plan_beats_the_warm_start_and_tells_the_truth(name: str, model: AnalyticDynamics) -> None:
    asked = request(model=model)
    plan = make_planner(name, model, make_objective(), small(name)).plan(asked)
    assert plan.warm_cost == pytest.approx(true_cost(model, asked, asked.warm_start), rel=1e-4)
    assert plan.cost == pytest.approx(true_cost(model, asked, plan.actions), rel=1e-4)
    known = true_cost(model, asked, KNOWN)
    assert plan.cost < known + 0.3 * (plan.warm_cost - known)
    with torch.no_grad():
        expected = model.rollout(asked.latent[None], plan.actions[None])[0]
    torch.testing.assert_close(plan.latents, expected, rtol=1e-4, atol=1e-5)
    assert plan.planner == name
    assert plan.stopped == "iterations"


@pytest.mark.parametrize("seed", range(4))
def test_never_worse_than_a_warm_start_that_is_hard_to_beat(
    name: str, model: AnalyticDynamics, seed: int
) -> None:
    good = make_planner("adam", model, make_objective()).plan(request(seed, model))
    asked = request(seed, model, warm_start=good.actions)
    # One iteration with a wild step: everything but the warm start gets worse.
    fields = {f.name for f in dataclasses.fields(PLANNERS[name].config)}
    wild = {key: 3.0 for key in ("learning_rate", "action_rate", "state_rate") if key in fields}
    planner = make_planner(name, model, make_objective(), small(name, iterations=1, **wild))
    plan = planner.plan(asked)
    assert plan.cost <= plan.warm_cost
    assert true_cost(model, asked, plan.actions) <= good.cost + 1e-5


@pytest.mark.parametrize("bound", [0.05, 0.8])
def test_plans_stay_within_the_bounds(name: str, bound: float) -> None:
    for model in (AnalyticDynamics(bound), MlpDynamics(bound=bound)):
        outside = 5 * torch.ones(HORIZON, ACTION)
        given = {"warm_start": outside, "proposals": -outside[None]}
        for fields in (given, {"warm_start": outside, "deadline": -1.0}, {}):
            asked = request(**fields)
            plan = make_planner(name, model, make_objective(), small(name)).plan(asked)
            assert plan.actions.abs().max() <= bound
    assert plan.actions.abs().max() > 0


def test_same_seed_same_plan_and_another_seed_another(name: str, model: AnalyticDynamics) -> None:
    # Weights under which no seed finds the plan that every seed starts from the best one.
    planner = make_planner(name, model, make_objective(running_weight=0.1), small(name))
    first, again, other = (planner.plan(request(seed, model)) for seed in (5, 5, 6))
    assert torch.equal(first.actions, again.actions)
    assert first.cost == again.cost
    assert not torch.equal(first.actions, other.actions)


def test_a_deadline_in_the_past_returns_the_warm_start(name: str, model: AnalyticDynamics) -> None:
    planner = make_planner(name, model, make_objective(), clock=FakeClock(10.0))
    asked = request(model=model, deadline=10.0)
    plan = planner.plan(asked)
    assert torch.equal(plan.actions, asked.warm_start.clamp(-0.8, 0.8))
    assert (plan.iterations, plan.transitions, plan.stopped) == (0, 0, "deadline")
    assert math.isinf(plan.cost) and math.isnan(plan.warm_cost) and plan.latents is None
    still = planner.plan(request(model=model, deadline=10.0, warm_start=None))
    assert not still.actions.any()


class TimedDynamics(AnalyticDynamics):
    """Every model step of a batch takes 1 ms per plan on the fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        self.clock.advance(1e-3 * len(latent))
        return super().step(latent, action)


def test_a_deadline_ends_the_search_in_time_with_a_better_plan(name: str) -> None:
    clock = FakeClock()
    planner = make_planner(name, TimedDynamics(clock), make_objective(), small(name), clock)
    full = planner.plan(request())
    budget = 0.6 * full.wall_s
    plan = planner.plan(request(deadline=clock() + budget))
    assert plan.stopped == "deadline"
    assert 0 < plan.iterations < full.iterations
    assert plan.wall_s <= budget + 1e-9
    assert plan.cost < plan.warm_cost


def test_transitions_are_counted_and_bounded(name: str) -> None:
    clock = FakeClock()
    planner = make_planner(name, TimedDynamics(clock), make_objective(), small(name), clock)
    full = planner.plan(request())
    assert full.transitions == round(full.wall_s / 1e-3)  # the model's own count
    for limit in (0, full.transitions // 3, full.transitions - 1):
        plan = planner.plan(request(max_transitions=limit))
        assert plan.transitions <= limit
        assert plan.stopped == "transitions"
    assert planner.plan(request(max_transitions=full.transitions)).stopped == "iterations"


class BrokenDynamics(AnalyticDynamics):
    """Not finite once an action exceeds ``limit`` in magnitude."""

    def __init__(self, limit: float, value: float) -> None:
        super().__init__()
        self.limit, self.value = limit, value

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        bad = action.abs().amax(-1, keepdim=True) > self.limit
        return super().step(latent, action) + torch.where(bad, self.value, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_never_reaches_the_plan(name: str, value: float) -> None:
    model = BrokenDynamics(0.5, value)
    asked = request(warm_start=torch.full((HORIZON, ACTION), 0.1))
    plan = make_planner(name, model, make_objective(), small(name)).plan(asked)
    assert torch.isfinite(plan.actions).all()
    assert math.isfinite(plan.cost) and plan.cost <= plan.warm_cost
    assert plan.actions.abs().max() <= 0.5
    assert plan.virtual_states is None or torch.isfinite(plan.virtual_states).all()


@pytest.mark.parametrize("kind", ["model", "native weights", "latent"])
def test_nothing_finite_at_all_returns_the_warm_start(name: str, kind: str) -> None:
    model: AnalyticDynamics = BrokenDynamics(-1.0, math.nan)
    if kind != "model":
        model = MlpDynamics()
    if kind == "native weights":
        with torch.no_grad():
            model.predictor.net[0].weight[0, 0] = math.nan
    asked = request()
    if kind == "latent":
        asked = dataclasses.replace(asked, latent=torch.full((LATENT,), math.nan))
    plan = make_planner(name, model, make_objective(), small(name)).plan(asked)
    assert torch.equal(plan.actions, asked.warm_start.clamp(-0.8, 0.8))
    assert plan.stopped == "non_finite"
    assert plan.virtual_states is None or torch.isfinite(plan.virtual_states).all()


def test_a_warm_start_that_is_not_finite_counts_as_zero(name: str) -> None:
    warm = torch.full((HORIZON, ACTION), math.nan)
    plan = make_planner(name, AnalyticDynamics(), make_objective()).plan(
        request(warm_start=warm, deadline=-1.0)
    )
    assert not plan.actions.any()


def test_a_good_proposal_is_used(name: str, model: AnalyticDynamics) -> None:
    good = make_planner("adam", model, make_objective()).plan(request(model=model))
    asked = request(model=model, proposals=good.actions[None])
    planner = make_planner(name, model, make_objective(), small(name, iterations=1))
    assert planner.plan(asked).cost <= good.cost + 1e-5


def test_shapes_are_checked(name: str) -> None:
    planner = make_planner(name, AnalyticDynamics(), make_objective())
    with pytest.raises(ValueError, match=r"latent: shape \(4,\); \(3,\) expected"):
        planner.plan(dataclasses.replace(request(), latent=torch.zeros(4)))
    with pytest.raises(ValueError, match="warm_start: shape"):
        planner.plan(request(warm_start=torch.zeros(HORIZON + 1, ACTION)))
    with pytest.raises(ValueError, match="warm_states: shape"):
        planner.plan(request(warm_states=torch.zeros(HORIZON, LATENT)))


def test_a_horizon_of_one_step_works(name: str) -> None:
    asked = request(warm_start=torch.zeros(1, ACTION))
    for model in (AnalyticDynamics(), MlpDynamics()):
        plan = make_planner(name, model, make_objective(1), small(name)).plan(asked)
        assert plan.cost < plan.warm_cost


def test_token_latents_work(name: str) -> None:
    model = TokenDynamics()
    latent = torch.zeros(model.latent_shape)
    with torch.no_grad():
        goal = model.rollout(latent[None], KNOWN[None])[0, -1]
    asked = PlanRequest(latent, goal, warm_start=WARM)
    gentle = {"learning_rate": 0.05} if name == "gd" else {}
    plan = make_planner(name, model, make_objective(), small(name, **gentle)).plan(asked)
    assert plan.cost < 0.8 * plan.warm_cost
    assert plan.latents.shape == (HORIZON, *model.latent_shape)


def test_unknown_names_and_options_are_told() -> None:
    with pytest.raises(ValueError, match="planner: 'nope' unknown; one of cem"):
        make_planner("nope", AnalyticDynamics(), make_objective())
    with pytest.raises(ValueError, match="nope: unknown option of planner cem; one of chunk"):
        planner_config("cem", nope=1)
    with pytest.raises(ValueError, match="CemConfig; GradientConfig expected for planner adam"):
        make_planner("adam", AnalyticDynamics(), make_objective(), PLANNERS["cem"].config)


@pytest.mark.parametrize(
    ("name", "field", "value", "bound"),
    [
        ("cem", "elites", 1, "at least 2"),
        ("cem", "samples", 20, "at least elites = 30"),
        ("mppi", "decay", 1.5, r"in \(0, 1\] expected"),
        ("adam", "learning_rate", 0.0, "more than 0"),
        ("adam", "beta1", 1.0, r"in \[0, 1\)"),
        ("adam", "starts", 0, "at least 1"),
        ("gd", "action_noise", math.nan, "at least 0"),
        ("grasp", "sync", "x", "gradient or cem"),
        ("grasp", "noise_decay", 2.0, "0 to 1 expected"),
        ("latco", "tolerance", 0.0, "more than 0"),
        ("hybrid", "gradient_steps", 0, "at least 1"),
    ],
)
def test_configurations_name_field_value_and_bound(
    name: str, field: str, value: object, bound: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: .*{bound}"):
        planner_config(name, **{field: value})


def test_a_trace_tells_the_search_and_changes_nothing(
    name: str, model: AnalyticDynamics
) -> None:
    asked, config = request(model=model), small(name, chunk=2)
    plan = make_planner(name, model, make_objective(), config).plan(asked)
    traced_request = dataclasses.replace(asked, trace=True)
    traced = make_planner(name, model, make_objective(), config).plan(traced_request)
    assert plan.trace is None and torch.equal(traced.actions, plan.actions)
    history = traced.trace.cost_history()
    assert len(history) == math.ceil(config.iterations / 2)
    assert (history.diff() <= 0).all() and history[-1] >= traced.cost
    plans, costs = traced.trace.candidates(5)
    assert plans.shape == (5, HORIZON, ACTION) and (costs.diff() >= 0).all()
    for actions, cost in zip(plans, costs, strict=True):
        assert float(cost) == pytest.approx(true_cost(model, asked, actions), rel=1e-4)
