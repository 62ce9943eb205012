"""Compiled and recorded kernels against autograd, on the CPU with a stand-in for CUDA graphs."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from dynamics import ACTION
from torch import Tensor, nn

from wm_mpc.core.capture import Body, Rerun
from wm_mpc.models.config import WorldModelConfig
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import PLANNERS, PlanRequest
from wm_mpc.planners.kernels import choice, graphs, tracing
from wm_mpc.planners.kernels.autograd import AutogradKernel
from wm_mpc.planners.kernels.compiled import CompiledKernel
from wm_mpc.planners.kernels.graphs import GraphKernel
from wm_mpc.planners.kernels.inductor import compile_graph
from wm_mpc.planners.kernels.protocol import KernelCall
from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig
from wm_mpc.planners.registry import make_planner, planner_config

HORIZON = 3
KINDS = ("gru", "vit", "patch", "mlp")
SMALL = {
    "cem": {"samples": 12, "elites": 4, "iterations": 3},
    "mppi": {"samples": 12, "iterations": 3},
    "gd": {"starts": 3, "iterations": 7, "chunk": 4},
    "adam": {"starts": 3, "iterations": 7, "chunk": 4},
    "ilqr": {"starts": 3, "iterations": 3},
    "grasp": {"starts": 3, "iterations": 6, "sync_every": 3, "sync_steps": 2},
    "latco": {"starts": 3, "iterations": 6},
    "hybrid": {"samples": 12, "elites": 3, "iterations": 2, "gradient_steps": 2},
}


@pytest.fixture(autouse=True)
def nothing_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test records anew."""
    monkeypatch.setattr(graphs, "_RECORDINGS", {})


def make_model(kind: str, seed: int = 0) -> WorldModel:
    """A tiny world model with random weights that predicts something."""
    arguments = {
        "gru": {"width": 12},
        "mlp": {"width": 12},
        "vit": {"width": 16, "depth": 1, "heads": 2, "head_dim": 4},
        "patch": {"width": 16, "depth": 2, "heads": 2, "head_dim": 4},
    }[kind]
    config = WorldModelConfig(
        task="pusht",
        action_dim=ACTION,
        proprio_dim=2,
        frameskip=2,
        control_period=0.1,
        action_low=(-0.7,) * ACTION,
        action_high=(0.7,) * ACTION,
        projector="identity" if kind == "patch" else "keypoint_pool",
        visual_dim=6,
        proprio_embed=2,
        predictor="vit" if kind == "patch" else kind,
        predictor_args=arguments,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WorldModel(config, None, num_tokens=4, channels=6)
        for weight in model.predictor.parameters():
            nn.init.normal_(weight, std=0.3)
    return model.eval()


def make_cost(model: WorldModel, **weights: float) -> GoalObjective:
    return GoalObjective(
        ObjectiveConfig(**weights), HORIZON, model.visual_dim, model.proprio_width
    )


def problem(model: WorldModel, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    latent, goal = (torch.randn(model.latent_shape, generator=generator) for _ in range(2))
    return latent, goal, torch.randn(rows, HORIZON, model.action_width, generator=generator)


def kernels(model: WorldModel, cost: GoalObjective) -> dict[str, Any]:
    return {
        "traced": CompiledKernel(model, cost, compiler=None),
        "graph": GraphKernel(model, cost, Rerun()),
    }


def calls(rows: int) -> list[KernelCall]:
    kinds = ("cost", "cost_and_grad", "rollout", "transitions")
    return [KernelCall(kind, rows) for kind in kinds]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["traced", "graph"])
def test_every_call_equals_autograd(kind: str, which: str) -> None:
    model = make_model(kind)
    cost = make_cost(model, action_weight=0.1, smoothness_weight=0.2)
    exact, kernel = AutogradKernel(model, cost), kernels(model, cost)[which]
    kernel.prepare(calls(5))
    assert which in kernel.name
    latent, goal, x = problem(model, 5)
    close = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(kernel.cost(latent, goal, x), exact.cost(latent, goal, x), **close)
    torch.testing.assert_close(kernel.rollout(latent, x), exact.rollout(latent, x), **close)
    for ours, theirs in zip(
        kernel.cost_and_grad(latent, goal, x), exact.cost_and_grad(latent, goal, x), strict=True
    ):
        torch.testing.assert_close(ours, theirs, **close)
    z = latent + 0.1 * torch.randn(5, *model.latent_shape)
    weights = torch.rand(2, 5)
    for state_gradient in (False, True):
        given = (z, x[:, 0], z + 0.1, goal, *weights, state_gradient)
        both = kernel.transitions(*given), exact.transitions(*given)
        for ours, theirs in zip(*both, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs, **close)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("which", ["traced", "graph"])
def test_every_planner_finds_the_same_plan(name: str, which: str) -> None:
    model = make_model("gru")
    cost = make_cost(model)
    config = planner_config(name, **SMALL[name])
    ours = make_planner(name, model, cost, config, compile=False)
    theirs = make_planner(name, model, cost, config, compile=False)
    ours.kernel = kernels(model, cost)[which]
    ours.prepare()
    latent, goal, x = problem(model, 1)
    request = PlanRequest(latent, goal, warm_start=0.3 * x[0], seed=4)
    one, other = ours.plan(request), theirs.plan(request)
    torch.testing.assert_close(one.actions, other.actions, rtol=1e-3, atol=1e-4)
    assert one.cost == pytest.approx(other.cost, rel=1e-4)
    assert one.transitions == other.transitions


@pytest.mark.parametrize("name", PLANNERS)
def test_nothing_is_compiled_in_a_tick(name: str) -> None:
    model = make_model("mlp", seed=hash(name) % 97)
    cost = make_cost(model)
    planner = make_planner(name, model, cost, planner_config(name, **SMALL[name]), compile=False)
    compiled = []

    def compiler(graph: Any, examples: Any) -> Any:
        compiled.append(graph)
        return graph

    planner.kernel = CompiledKernel(model, cost, compiler=compiler)
    planner.warm_up(1e-3)
    before = len(compiled)
    assert before
    # autograd would be used for a call that was not prepared
    planner.kernel.eager = None
    latent, goal, x = problem(model, 1)
    plan = planner.plan(PlanRequest(latent, goal, warm_start=x[0]))
    assert plan.stopped == "iterations"
    assert len(compiled) == before


@pytest.mark.parametrize("which", ["traced", "graph"])
def test_another_models_weights_run_under_the_same_code(which: str) -> None:
    models = [make_model("vit", seed) for seed in (1, 2)]
    costs = [make_cost(model) for model in models]
    pair = [kernels(m, c)[which] for m, c in zip(models, costs, strict=True)]
    for kernel in pair:
        kernel.prepare(calls(4))
    if which == "graph":
        assert pair[0].recording is pair[1].recording
    else:
        assert pair[0].pieces is pair[1].pieces
    latent, goal, x = problem(models[0], 4)
    # back and forth: the running loop plans with one while the other one is warmed up
    for index in (0, 1, 0, 1, 1, 0):
        exact = AutogradKernel(models[index], costs[index])
        for ours, theirs in zip(
            pair[index].cost_and_grad(latent, goal, x),
            exact.cost_and_grad(latent, goal, x),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_recording_keeps_its_weights_where_they_are() -> None:
    """CUDA graphs remember addresses: another kernel may neither move nor share them."""
    models = [make_model("gru", seed) for seed in (1, 2)]
    before = [[w.clone() for w in model.parameters()] for model in models]
    pair = [GraphKernel(model, make_cost(model), Rerun()) for model in models]
    pair[0].prepare(calls(3))
    places = [w.data_ptr() for w in pair[0].recording.inner.bound]
    pair[1].prepare(calls(4))
    latent, goal, x = problem(models[0], 3)
    for kernel in (*pair, *pair):
        kernel.cost(latent, goal, x)
    assert [w.data_ptr() for w in pair[1].recording.inner.bound] == places
    own = {w.data_ptr() for model in models for w in model.parameters()}
    assert not own & set(places)
    for model, weights in zip(models, before, strict=True):
        assert all(map(torch.equal, model.parameters(), weights))


def test_a_goal_without_posture_reaches_the_recording() -> None:
    model = make_model("gru")
    cost = make_cost(model)
    kernel = GraphKernel(model, cost, Rerun())
    kernel.prepare(calls(2))
    latent, goal, x = problem(model, 2)
    before = kernel.cost(latent, goal, x)
    cost.use_proprio(False)
    after = kernel.cost(latent, goal, x)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, AutogradKernel(model, cost).cost(latent, goal, x))


class Replays(Rerun):
    """Counts recordings and replays."""

    def __init__(self) -> None:
        self.replays = 0

    def record(self, body: Body) -> Body:
        replay = super().record(body)

        def counted() -> None:
            self.replays += 1
            replay()

        return counted


def test_large_models_plan_by_autograd_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("gru")
    cost = make_cost(model)
    monkeypatch.setattr(choice, "obstacle", lambda device: "")
    weights = sum(p.numel() for p in model.predictor.parameters())
    monkeypatch.setattr(choice, "LARGE", weights + 1)
    assert isinstance(choice.make_kernel(model, cost), CompiledKernel)
    monkeypatch.setattr(choice, "LARGE", weights)
    assert isinstance(choice.make_kernel(model, cost), AutogradKernel)


@pytest.mark.parametrize("iterations", [1, 3, 4, 6, 9])
def test_a_descent_is_a_few_replays(iterations: int) -> None:
    model = make_model("gru")
    cost = make_cost(model)
    config = planner_config("adam", starts=3, iterations=20, chunk=4)
    planner = make_planner("adam", model, cost, config, compile=False)
    executor = Replays()
    planner.kernel = GraphKernel(model, cost, executor)
    planner.prepare()
    latent, goal, x = problem(model, 1)
    search = planner.begin(PlanRequest(latent, goal, x[0]), torch.Generator().manual_seed(0))
    before = executor.replays
    search.advance(iterations)
    assert executor.replays - before == iterations // 4 + iterations % 4


class Refuses:
    """Executor whose recordings fail."""

    def record(self, body: Body) -> Body:
        raise RuntimeError("operation not permitted when stream is capturing")


class Wrong:
    """Executor whose recordings do nothing on replay."""

    def record(self, body: Body) -> Body:
        body()
        return lambda: None


@pytest.mark.parametrize("executor", [Refuses(), Wrong()])
def test_a_recording_that_fails_or_differs_is_told_and_survived(
    executor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model("gru", seed=5)
    cost = make_cost(model)
    kernel = GraphKernel(model, cost, executor)
    with caplog.at_level(logging.WARNING):
        kernel.prepare(calls(3))
    assert len(caplog.records) == 1
    assert "without CUDA graphs" in caplog.text
    assert "graph" not in kernel.name
    latent, goal, x = problem(model, 3)
    torch.testing.assert_close(
        kernel.cost_and_grad(latent, goal, x)[1],
        AutogradKernel(model, cost).cost_and_grad(latent, goal, x)[1],
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip


def fails(graph: Any, examples: Any) -> Any:
    raise RuntimeError("g++: internal compiler error")


def wrong(graph: Any, examples: Any) -> Any:
    return lambda *inputs: tuple(1.5 * out for out in graph(*inputs))


@pytest.mark.parametrize("compiler", [fails, wrong])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_compiler_that_fails_or_errs_is_noticed_when_prepared(
    compiler: Any, recorded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_model("gru")
    cost = make_cost(model)
    kernel = (
        GraphKernel(model, cost, Rerun(), compiler=compiler)
        if recorded
        else CompiledKernel(model, cost, compiler=compiler)
    )
    with caplog.at_level(logging.WARNING):
        kernel.prepare(calls(2))
    assert len(caplog.records) == 1
    assert kernel.name == "autograd"
    latent, goal, x = problem(model, 2)
    exact = AutogradKernel(model, cost)
    for ours, theirs in zip(
        kernel.cost_and_grad(latent, goal, x), exact.cost_and_grad(latent, goal, x), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["gru", "patch"])
def test_compiled_code_plans_what_autograd_plans(kind: str) -> None:
    """The one test that really compiles; its code is kept between runs."""
    model = make_model(kind)
    cost = make_cost(model)
    config = planner_config("adam", **SMALL["adam"])
    compiled, plain = (
        make_planner("adam", model, cost, config, compile=flag) for flag in (True, False)
    )
    compiled.warm_up()
    assert isinstance(compiled.kernel, CompiledKernel)
    assert compiled.kernel.compiler is compile_graph
    assert compiled.kernel.name == "compiled"
    latent, goal, x = problem(model, 1)
    request = PlanRequest(latent, goal, warm_start=x[0])
    one, other = compiled.plan(request), plain.plan(request)
    torch.testing.assert_close(one.actions, other.actions, rtol=1e-3, atol=1e-4)
    assert one.cost == pytest.approx(other.cost, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_lower_precision_gets_aligned_weights_and_the_same_plan(kind: str) -> None:
    """Products of a GPU are padded to what its matrix units read; the check finds them equal."""
    model = make_model(kind)
    cost = make_cost(model)
    kernel = CompiledKernel(model, cost, lower=torch.bfloat16, compiler=None)
    kernel.prepare(calls(3))
    assert kernel.trouble == ""
    exact = dict(model.predictor.named_modules())
    widths = {
        name: weight.shape
        for name, weight in zip(kernel.step.names, kernel.bound, strict=True)
        if isinstance(exact.get(name.removeprefix("predictor.").rpartition(".")[0]), nn.Linear)
        and weight.ndim == 2
    }
    assert all(shape[1] % tracing.ALIGNED == 0 for shape in widths.values())
    latent, goal, x = problem(model, 3)
    ours, theirs = kernel.cost(latent, goal, x), AutogradKernel(model, cost).cost(latent, goal, x)
    torch.testing.assert_close(ours, theirs, rtol=0.05, atol=1e-3)
