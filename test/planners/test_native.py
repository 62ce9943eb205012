"""The native kernel against autograd: algebra in double precision, arithmetic in single."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from dynamics import MlpDynamics, make_objective
from torch import Tensor

from wm_mpc.planners import GradientConfig, PlanRequest
from wm_mpc.planners.kernels import build, make_kernel, native
from wm_mpc.planners.kernels import build as native_build
from wm_mpc.planners.kernels.autograd import AutogradKernel
from wm_mpc.planners.registry import make_planner

SIZES = [
    (24, 2, 3, 2, 4), (33, 1, 7, 5, 3), (100, 3, 17, 10, 5), (16, 2, 36, 10, 1),
    # in the frame of an object
    (20, 2, 8, 4, 3, True), (100, 3, 16, 10, 5, True), (24, 1, 14, 2, 1, True),
]  # fmt: skip
WEIGHTS = {"action_weight": 0.1, "smoothness_weight": 0.2}


def problem(size: tuple[int, ...], rows: int) -> tuple:
    width, depth, latent, action, horizon, *framed = size
    model = MlpDynamics(width, depth, latent, action, object_frame=bool(framed))
    objective = make_objective(horizon, latent, **WEIGHTS)
    model.predictor.to(torch.get_default_dtype())
    generator = torch.Generator().manual_seed(rows)
    z, g = torch.randn(2, latent, generator=generator)
    x = torch.randn(rows, horizon, action, generator=generator)
    return model, objective, z, g, x


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 9, 21])
def test_gradients_equal_autograd(double: None, size: tuple[int, ...], rows: int) -> None:
    model, objective, z, g, x = problem(size, rows)
    kernel = native.MlpKernel(model, objective, build.library(double=True))
    exact = AutogradKernel(model, objective)
    for ours, theirs in zip(
        kernel.cost_and_grad(z, g, x), exact.cost_and_grad(z, g, x), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(kernel.rollout(z, x), exact.rollout(z, x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kernel.cost(z, g, x), exact.cost(z, g, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rows", [1, 3, 4, 7])
def test_narrow_vectors_give_the_same(double: None, size: tuple[int, ...], rows: int) -> None:
    model, objective, z, g, x = problem(size, rows)
    narrow = build.library(double=True, tuned=False)
    _, ours = native.MlpKernel(model, objective, narrow).cost_and_grad(z, g, x)
    _, theirs = AutogradKernel(model, objective).cost_and_grad(z, g, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state_gradient", [False, True])
def test_transitions_equal_autograd(
    double: None, size: tuple[int, ...], state_gradient: bool
) -> None:
    model, objective, _, g, x = problem(size, 11)
    a = x[:, 0]
    z, target = torch.randn(2, 11, len(g))
    weights = torch.rand(2, 11)
    kernel = native.MlpKernel(model, objective, build.library(double=True))
    exact = AutogradKernel(model, objective)
    ours = kernel.transitions(z, a, target, g, *weights, state_gradient)
    theirs = exact.transitions(z, a, target, g, *weights, state_gradient)
    for one, other in zip(ours[: 2 + state_gradient], theirs, strict=False):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    assert (ours[2] is None) == (theirs[2] is None) == (not state_gradient)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_single_precision_is_accurate(scale: float) -> None:
    """Large weights drive the activation into both of its tails."""
    model, objective, z, g, x = problem((24, 2, 3, 2, 4), 8)
    with torch.no_grad():
        model.predictor.net[1].weight *= scale
    ours = native.MlpKernel(model, objective, build.library()).cost_and_grad(z, g, x)
    model.predictor.double()
    double = [v.double() for v in (z, g, x)]
    objective.time_weights = objective.time_weights.double()
    objective.channel_weights = objective.channel_weights.double()
    theirs = AutogradKernel(model, objective).cost_and_grad(*double)
    for one, other in zip(ours, theirs, strict=True):
        largest = float(other.abs().max())
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_native_descent_takes_the_same_path_as_the_torch_one(optimizer: str) -> None:
    model, objective, z, g, x = problem((24, 2, 3, 2, 4), 1)
    config = GradientConfig(
        optimizer, learning_rate=0.05, iterations=12, starts=5, action_noise=0.0, grad_clip=0.5
    )
    asked = PlanRequest(z, g, warm_start=x[0])
    plans = [
        make_planner("adam", model, objective, config, compile=compile).plan(asked)
        for compile in (True, False)
    ]
    torch.testing.assert_close(plans[0].actions, plans[1].actions, rtol=1e-3, atol=1e-4)
    assert plans[0].cost == pytest.approx(plans[1].cost, rel=1e-4)
    assert plans[0].transitions == plans[1].transitions


def test_action_noise_is_drawn_from_the_seed() -> None:
    model, objective, z, g, x = problem((24, 2, 3, 2, 4), 1)
    still, noisy = (
        make_planner("adam", model, objective, GradientConfig(action_noise=s, starts=1)).plan(
            PlanRequest(z, g, warm_start=x[0])
        )
        for s in (0.0, 0.05)
    )
    assert not torch.equal(still.actions, noisy.actions)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Share even the least work between threads."""
    monkeypatch.setattr(native, "WORK_PER_THREAD", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def descended(
    kernel: native.MlpKernel, problem: tuple, threads: int, noise: Tensor | None
) -> dict[str, Tensor]:
    """State of a descent after two calls of several steps each."""
    _, _, z, g, x = problem
    names = ("x", "m", "v", "best")
    state = {name: x.clone() if name == "x" else torch.zeros_like(x) for name in names}
    state["best_cost"] = torch.full((len(x),), torch.inf)
    state["first_cost"] = torch.full((len(x),), torch.nan)
    bounds = (torch.full(x.shape[2:], -0.9), torch.full(x.shape[2:], 0.8))
    config = GradientConfig(learning_rate=0.1, action_noise=0.05, grad_clip=0.5)
    torch.set_num_threads(threads)
    kernel.descend(z, g, bounds, noise, state, config, 0, 6)
    kernel.descend(z, g, bounds, noise, state, config, 6, 6)
    return state


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 12, 16])
def test_threads_do_not_change_a_descent(shared: None, rows: int, noisy: bool) -> None:
    given = problem((100, 3, 17, 10, 5), rows)
    kernel = native.MlpKernel(*given[:2], build.library())
    noise = torch.randn(6, *given[4].shape) if noisy else None
    one = descended(kernel, given, 1, noise)
    assert torch.isfinite(one["first_cost"]).all()
    assert (one["best_cost"] < one["first_cost"]).all()
    for threads in (2, 3):
        several = descended(kernel, given, threads, noise)
        for name, value in one.items():
            assert torch.equal(several[name], value), name


@pytest.mark.parametrize("rows", [3, 8, 21, 300])
def test_threads_do_not_change_costs_and_transitions(shared: None, rows: int) -> None:
    model, objective, z, g, x = problem((33, 1, 7, 5, 3), rows)
    kernel = native.MlpKernel(model, objective, build.library())
    states, targets = torch.randn(2, rows, len(z))
    weights = torch.rand(2, rows)

    def results(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        transitions = kernel.transitions(states, x[:, 0], targets, g, *weights, True)
        return [
            kernel.cost(z, g, x),
            kernel.rollout(z, x),
            *kernel.cost_and_grad(z, g, x),
            *transitions,
        ]

    one = results(1)
    for threads in (2, 3):
        for ours, theirs in zip(results(threads), one, strict=True):
            assert torch.equal(ours, theirs)


def test_work_decides_how_many_threads_share_a_call(shared: None) -> None:
    model, objective, *_ = problem((100, 3, 17, 10, 5), 1)
    kernel = native.MlpKernel(model, objective, build.library())
    torch.set_num_threads(4)
    assert [kernel.threads(rows, 100) for rows in (0, 1, 2, 3, 4, 5, 8, 300)] == [
        *(1, 1, 1, 2, 2, 3, 4, 4)
    ]
    native.WORK_PER_THREAD = 8 * 100 * len(kernel.weights) // 4
    assert [kernel.threads(8, passes) for passes in (1, 99, 100, 150, 1000)] == [1, 1, 2, 3, 4]


def test_kernels_in_several_threads_at_once(shared: None) -> None:
    given = problem((100, 3, 17, 10, 5), 8)
    kernels = [native.MlpKernel(*given[:2], build.library()) for _ in range(3)]
    one = descended(kernels[0], given, 1, None)
    with ThreadPoolExecutor(3) as callers:
        for _ in range(5):
            for state in callers.map(lambda k: descended(k, given, 2, None), kernels):
                for name, value in one.items():
                    assert torch.equal(state[name], value), name


def test_a_forked_child_shares_calls_too(shared: None) -> None:
    """The child inherits no helper thread and starts one of its own."""
    given = problem((100, 3, 17, 10, 5), 8)
    kernel = native.MlpKernel(*given[:2], build.library())
    one = descended(kernel, given, 2, None)
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a child that waits for a thread it does not have
        failed = 1
        try:
            alone = len(os.listdir("/proc/self/task"))
            state = descended(kernel, given, 2, None)
            helped = len(os.listdir("/proc/self/task")) == alone + 1
            failed = int(not (helped and all(torch.equal(state[n], one[n]) for n in one)))
        finally:
            os._exit(failed)
    assert os.waitpid(child, 0)[1] == 0


def test_a_network_with_other_inputs_is_left_to_autograd() -> None:
    model, objective, *_ = problem((24, 2, 3, 2, 4), 1)
    assert native.supported(model, objective)
    model.predictor.net[0] = torch.nn.Linear(3 + 2 + 1, 24)
    assert not native.supported(model, objective)


def test_without_a_compiler_autograd_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective, *_ = problem((24, 2, 3, 2, 4), 1)
    monkeypatch.setattr(native_build.shutil, "which", lambda name: None)
    build.library.cache_clear()
    try:
        assert isinstance(make_kernel(model, objective), AutogradKernel)
    finally:
        build.library.cache_clear()


def test_the_library_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()
    try:
        assert build.library() is not None
        (built,) = (tmp_path / "wm_mpc").glob("*.so")
        stamp = built.stat().st_mtime_ns
        build.library.cache_clear()
        assert build.library() is not None
        assert built.stat().st_mtime_ns == stamp
    finally:
        build.library.cache_clear()


def test_a_compiler_that_fails_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = subprocess.CompletedProcess([], 1, "", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native_build.subprocess, "run", lambda *a, **k: broken)
    build.library.cache_clear()
    try:
        assert build.library() is None
    finally:
        build.library.cache_clear()
