"""Choose the kernel of a model."""

from __future__ import annotations

import logging
import os

import torch
from torch import nn

from wm_mpc.core.capture import Executor, executor_for
from wm_mpc.models.protocol import Dynamics
from wm_mpc.planners.kernels import build, native
from wm_mpc.planners.kernels.autograd import AutogradKernel
from wm_mpc.planners.kernels.compiled import CompiledKernel
from wm_mpc.planners.kernels.graphs import GraphKernel
from wm_mpc.planners.kernels.inductor import compile_graph, obstacle
from wm_mpc.planners.kernels.protocol import Kernel
from wm_mpc.planners.objective import GoalObjective

log = logging.getLogger(__name__)

GRAPHS = "WM_MPC_CUDA_GRAPHS"
"""Environment variable; 1: record CUDA graphs. Off, because an error in one spoils the whole CUDA
context, and they have run on an H100 but not yet on a Jetson (docs/performance.md)."""

LARGE = 1_000_000
"""Weights of a predictor from which products take the time, not launches: a GPU tries bfloat16;
on a processor autograd is the faster kernel (docs/performance.md, "Full size on a processor")."""


def make_kernel(model: Dynamics, objective: GoalObjective, compile: bool = True) -> Kernel:
    """Choose the fastest kernel for a model; see the table in ``wm_mpc.planners.kernels``.

    Args:
        model: dynamics.
        objective: goal cost.
        compile: False: autograd.
    """
    predictor = getattr(model, "predictor", None)
    if not compile or not isinstance(predictor, nn.Module):
        return AutogradKernel(model, objective)
    if native.supported(model, objective):
        lib = build.library()
        if lib is not None:
            return native.MlpKernel(model, objective, lib)
    device = objective.time_weights.device
    executor = executor_for(device) if os.environ.get(GRAPHS) == "1" else None
    if executor is not None:
        return graph_kernel(model, objective, executor)
    if device.type == "cpu" and size(model) >= LARGE:
        return AutogradKernel(model, objective)
    reason = obstacle(device)
    if reason:
        log.warning("planning by autograd, several times slower: %s", reason)
        return AutogradKernel(model, objective)
    return CompiledKernel(model, objective, lower=precision(model, device))


def precision(model: Dynamics, device: torch.device) -> torch.dtype | None:
    """Type of the products; None: the weights' own."""
    return torch.bfloat16 if device.type == "cuda" and size(model) >= LARGE else None


def size(model: Dynamics) -> int:
    """Weights of the predictor."""
    return sum(p.numel() for p in model.predictor.parameters())


def graph_kernel(model: Dynamics, objective: GoalObjective, executor: Executor) -> Kernel:
    """Kernel that records, of compiled code where there is a compiler."""
    device = objective.time_weights.device
    lower = precision(model, device)
    reason = obstacle(device)
    if reason:
        log.warning("recording what is not compiled: %s", reason)
    return GraphKernel(
        model, objective, executor, lower=lower, compiler=None if reason else compile_graph
    )


__all__ = ["make_kernel"]
