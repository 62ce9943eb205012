"""Compile traced graphs with TorchInductor: C++ on the CPU, Triton on a GPU.

Compiling takes seconds, so nothing here is called in a tick. What was compiled once is found again
in the user's cache folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, fx

from wm_mpc.planners.kernels.build import cache_folder

Compiled = Callable[..., Sequence[Tensor]]


def obstacle(device: torch.device) -> str:
    """Why graphs cannot be compiled for a device; empty where they can."""
    if not hasattr(torch, "_inductor") and importlib.util.find_spec("torch._inductor") is None:
        return "this PyTorch has no compiler"
    if device.type == "cuda":
        found = importlib.util.find_spec("triton") is not None
        return "" if found else "Triton is not installed"
    if device.type != "cpu":
        return f"device {device.type} is not compiled for"
    candidates = (os.environ.get("CXX"), "g++", "clang++")
    if not any(c and shutil.which(c) for c in candidates):
        return "no C++ compiler found (g++, clang++)"
    return ""


def compile_graph(graph: fx.GraphModule, examples: Sequence[Tensor]) -> Compiled:
    """Compile a graph for inputs of the examples' shapes, strides and types.

    Raises:
        Exception: whatever the compiler raises; callers fall back.
    """
    folder: Path = cache_folder() / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    import torch._inductor as inductor
    import torch._inductor.config as settings

    # One process compiles: worker processes would stay beside a robot's control loop.
    changes = {"compile_threads": 1} if examples[0].device.type == "cpu" else {}
    with settings.patch(changes), torch.no_grad():
        return inductor.compile(graph, list(examples))


__all__ = ["compile_graph", "obstacle"]
