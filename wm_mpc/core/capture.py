"""Work recorded once and replayed: CUDA graphs behind one small interface.

A *body* is a function without arguments that reads and writes tensors which stay where they are.
An executor records it and returns a function that does the same work again. On a GPU that is one
launch instead of hundreds; ``Rerun`` calls the body again and behaves alike on any device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Body = Callable[[], None]


class Executor(Protocol):
    """Records bodies."""

    def record(self, body: Body) -> Body:
        """Return a function that repeats the work of ``body`` on the same tensors.

        The body may run several times while it is recorded.

        Raises:
            RuntimeError: the body cannot be recorded.
        """
        ...


class Rerun:
    """Executor that calls the body again: the stand-in where there are no CUDA graphs."""

    def record(self, body: Body) -> Body:
        """Return the body itself, run once as a recording would."""
        body()
        return body


class CudaGraphs:
    """Executor of CUDA graphs that share one memory pool, because they never run at once.

    Args:
        device: CUDA device.
    """

    WARM_UPS = 3
    """Runs before the recording, in which libraries set up what may not be set up in one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()

    def record(self, body: Body) -> Body:
        """Record ``body`` in a graph; see ``Executor``."""
        with torch.cuda.device(self.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(self.WARM_UPS):
                    body()
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other threads may allocate meanwhile; only this one is recorded.
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                body()
            torch.cuda.synchronize()
        return graph.replay


class Recorded:
    """A function of tensors, recorded: static copies of its inputs, results copied out.

    Args:
        executor: records it.
        function: takes and returns tensors of fixed shapes.
        examples: inputs of the shapes and types that calls will have.
    """

    def __init__(
        self,
        executor: Executor,
        function: Callable[..., tuple[Tensor, ...]],
        examples: tuple[Tensor, ...],
    ) -> None:
        self.inputs = tuple(example.detach().clone() for example in examples)
        self.outputs: tuple[Tensor, ...] = ()

        def body() -> None:
            self.outputs = function(*self.inputs)

        self.replay = executor.record(body)
        self.lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Results of one call; they belong to the caller."""
        with self.lock:
            for static, value in zip(self.inputs, inputs, strict=True):
                static.copy_(value, non_blocking=True)
            self.replay()
            return tuple(output.clone() for output in self.outputs)


def executor_for(device: torch.device) -> Executor | None:
    """Executor of a device; None where nothing is gained by recording."""
    return CudaGraphs(device) if device.type == "cuda" else None


__all__ = ["CudaGraphs", "Executor", "Recorded", "Rerun", "executor_for"]
