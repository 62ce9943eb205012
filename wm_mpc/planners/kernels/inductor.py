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
from typing import Any

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

    The compiler's entry point wraps what it made in layers for aliased and changed inputs, which a
    functional graph does not need; on a CPU they take as long as a small matrix product. They are
    left out where the bare code returns the same.

    Raises:
        Exception: whatever the compiler raises; callers fall back.
    """
    folder: Path = cache_folder() / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    import torch._inductor.config as settings
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    made: list[Any] = []

    def inner(*args: Any, **options: Any) -> Any:
        made.append(compile_fx_inner(*args, **options))
        return made[-1]

    changes: dict[str, Any] = {}
    if examples[0].device.type == "cpu":
        # One process compiles: worker processes would stay beside a robot's control loop.
        changes = {"compile_threads": 1, "size_asserts": False}
    with settings.patch(changes), torch.no_grad():
        wrapped = compile_fx(graph, list(examples), inner_compile=inner)
        if len(made) == 1 and same(bare(made[0])(*examples), wrapped(*examples)):
            return bare(made[0])
        return wrapped


def bare(code: Any) -> Compiled:
    """Call compiled code, which takes a list and empties it, with arguments."""

    def call(*inputs: Tensor) -> Sequence[Tensor]:
        return code(list(inputs))

    return call


def same(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Whether results agree in number, layout and value."""
    return len(ours) == len(theirs) and all(
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and a.shape == b.shape
        and a.dtype == b.dtype
        and torch.allclose(a, b, rtol=1e-2, atol=1e-4, equal_nan=True)
        for a, b in zip(ours, theirs, strict=True)
    )


__all__ = ["compile_graph", "obstacle"]
