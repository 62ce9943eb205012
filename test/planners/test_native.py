"""The native kernel against autograd: algebra in double precision, arithmetic in single."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from dynamics import MlpDynamics, make_objective

from wm_mpc.planners import GradientConfig, PlanRequest, make_planner, native, native_build
from wm_mpc.planners.kernels import AutogradKernel, make_kernel

SIZES = [(24, 2, 3, 2, 4), (33, 1, 7, 5, 3), (100, 3, 17, 10, 5), (16, 2, 36, 10, 1)]
WEIGHTS = {"action_weight": 0.1, "smoothness_weight": 0.2}


def problem(size: tuple[int, ...], rows: int) -> tuple:
    width, depth, latent, action, horizon = size
    model = MlpDynamics(width, depth, latent, action)
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
    kernel = native.MlpKernel(model, objective, native.library(double=True))
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
    narrow = native.library(double=True, tuned=False)
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
    kernel = native.MlpKernel(model, objective, native.library(double=True))
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
    ours = native.MlpKernel(model, objective, native.library()).cost_and_grad(z, g, x)
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


def test_threads_do_not_change_the_result() -> None:
    model, objective, z, g, x = problem((24, 2, 3, 2, 4), 300)
    kernel = native.MlpKernel(model, objective, native.library())
    one = kernel.cost(z, g, x)
    try:
        torch.set_num_threads(3)
        several = kernel.cost(z, g, x)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one, several)


def test_without_a_compiler_autograd_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    model, objective, *_ = problem((24, 2, 3, 2, 4), 1)
    monkeypatch.setattr(native_build.shutil, "which", lambda name: None)
    native.library.cache_clear()
    try:
        assert isinstance(make_kernel(model, objective), AutogradKernel)
    finally:
        native.library.cache_clear()


def test_the_library_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    try:
        assert native.library() is not None
        (built,) = (tmp_path / "wm_mpc").glob("*.so")
        stamp = built.stat().st_mtime_ns
        native.library.cache_clear()
        assert native.library() is not None
        assert built.stat().st_mtime_ns == stamp
    finally:
        native.library.cache_clear()


def test_a_compiler_that_fails_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = subprocess.CompletedProcess([], 1, "", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native_build.subprocess, "run", lambda *a, **k: broken)
    native.library.cache_clear()
    try:
        assert native.library() is None
    finally:
        native.library.cache_clear()
