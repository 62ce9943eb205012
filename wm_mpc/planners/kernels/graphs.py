"""Kernel whose calls, whole optimiser iterations among them, are recorded in CUDA graphs.

Every function of the compiled kernel is recorded once per batch size on static tensors and then
replayed: one launch instead of hundreds. A descent is recorded in chunks, a single iteration and
a whole chunk, so that any number of iterations is a few replays. The recording holds static
copies of the weights; kernels of one architecture share it, and the one that is called copies its
weights under the graph when another was called before. What cannot be recorded is launched
piece by piece, told in one line.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from wm_mpc.core.capture import Executor, Recorded
from wm_mpc.core.errors import one_line
from wm_mpc.planners.kernels.autograd import AutogradKernel
from wm_mpc.planners.kernels.compiled import CompiledKernel, Compiler, architecture
from wm_mpc.planners.kernels.descent import STATE
from wm_mpc.planners.kernels.protocol import KernelCall
from wm_mpc.planners.kernels.tracing import Step
from wm_mpc.planners.objective import GoalObjective

log = logging.getLogger(__name__)


class Recording:
    """What kernels of one architecture share.

    Args:
        inner: compiled kernel of the first of them, not prepared yet.

    Attributes:
        inner: its weights and the weights of its cost stay where they are.
        calls: what is recorded, by call and, for descents, number of iterations.
        owner: the kernel whose weights lie there.
        lock: held while anything is replayed.
    """

    def __init__(self, inner: CompiledKernel) -> None:
        inner.objective = copy.copy(inner.objective)
        for name in ("time_weights", "channel_weights"):
            setattr(inner.objective, name, getattr(inner.objective, name).clone())
        inner.bound = [weight.clone() for weight in inner.weights()]
        self.inner = inner
        self.calls: dict[Any, Recorded] = {}
        self.owner: GraphKernel | None = None
        self.lock = threading.RLock()


_RECORDINGS: dict[Any, Recording] = {}


class GraphKernel:
    """Kernel (see ``Kernel``) of recorded calls.

    Args:
        model, objective, compiler: see ``CompiledKernel``.
        executor: records.
        lower: type of the products where the check finds it accurate enough; else, and with
            None, the weights' own.

    Attributes:
        unrecorded: why calls are launched piece by piece; empty: they are not.
        compile_s: [s] that ``prepare`` took.
    """

    def __init__(
        self,
        model: Any,
        objective: GoalObjective,
        executor: Executor,
        lower: torch.dtype | None = None,
        compiler: Compiler | None = None,
    ) -> None:
        self.model, self.objective = model, objective
        self.executor, self.compiler = executor, compiler
        self.eager = AutogradKernel(model, objective)
        self.device = objective.time_weights.device
        self.unrecorded = ""
        self.compile_s = 0.0
        self.recording = self._recording(lower)
        self.weights: list[Tensor] = []

    def _recording(self, lower: torch.dtype | None) -> Recording:
        """The recording of this architecture and precision, perhaps still an empty one."""
        key = architecture(self.model, self.objective, lower, self.compiler)
        shared = None if key is None else _RECORDINGS.get((key, type(self.executor)))
        if shared is None or shared.inner.trouble:
            inner = CompiledKernel(self.model, self.objective, lower, self.compiler)
            shared = Recording(inner)
            if key is not None:
                _RECORDINGS[key, type(self.executor)] = shared
        return shared

    @property
    def name(self) -> str:
        """What runs."""
        inner = self.recording.inner
        return inner.name if inner.trouble or self.unrecorded else f"graph of {inner.name}"

    @property
    def trouble(self) -> str:
        """Why it plans by autograd; empty: it does not."""
        return self.recording.inner.trouble

    # ---- preparing ---------------------------------------------------------------------------

    def prepare(self, calls: Iterable[KernelCall]) -> None:
        """Compile, record and check; see ``PreparedKernel``."""
        begun, calls = time.monotonic(), list(calls)
        with self.recording.lock:
            self._own()
            self.recording.inner.prepare(calls)
        if self.trouble and self.recording.inner.lower is not None:
            log.warning("planning in full precision instead")
            self.recording, self.weights = self._recording(None), []
            self.prepare(calls)
            return
        if not self.trouble and not self.unrecorded:
            self._record(calls)
        self.compile_s += time.monotonic() - begun

    def _record(self, calls: list[KernelCall]) -> None:
        """Record calls and compare the recordings with what they record."""
        for call in calls:
            try:
                with self.recording.lock:
                    self._own()
                    for key, function, examples in self._functions(call):
                        if key not in self.recording.calls:
                            recorded = Recorded(self.executor, function, examples)
                            check_replay(key, recorded, function, examples)
                            self.recording.calls[key] = recorded
            except Exception as error:  # CUDA raises many types; planning goes on without graphs
                self.unrecorded = f"{type(error).__name__}: {one_line(error)}"
                log.warning("planning without CUDA graphs, slower: %s", self.unrecorded)
                return

    def _functions(
        self, call: KernelCall
    ) -> list[tuple[Any, Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]]:
        """Key, function of tensors and example inputs of what a call replays."""
        inner, rows = self.recording.inner, call.rows
        z, a = inner.examples(rows)
        latent, goal = torch.zeros_like(z[0]), torch.ones_like(z[0])
        x = torch.zeros(rows, inner.horizon, inner.width, device=self.device)
        costs = torch.zeros(rows, device=self.device)
        if call.kind == "rollout":
            return [(call, lambda *i: (inner.rollout(*i),), (latent, x))]
        if call.kind == "cost":
            return [(call, lambda *i: (inner.cost(*i),), (latent, goal, x))]
        if call.kind == "cost_and_grad":
            return [(call, inner.cost_and_grad, (latent, goal, x))]
        if call.kind == "transitions":
            examples = (z, a, z + 0.1, goal, costs + 1, costs + 1)
            return [(call, lambda *i: inner.transitions(*i, True), examples)]
        config = call.config

        def steps(count: int) -> Callable[..., tuple[Tensor, ...]]:
            def function(*inputs: Tensor) -> tuple[Tensor, ...]:
                latent, goal, low, high, noise, *state = inputs
                done = inner.steps(latent, goal, (low, high), noise, state, config, count)
                return tuple(done)

            return function

        wide = torch.ones(inner.width, device=self.device)
        count = torch.zeros((), dtype=torch.float64, device=self.device)
        state = (*(x.clone() for _ in range(4)), costs + torch.inf, costs, count)
        return [
            (
                (call, size),
                steps(size),
                (latent, goal, -wide, wide, x.expand(size, *x.shape).clone(), *state),
            )
            for size in chunk_sizes(config)
        ]

    def _own(self) -> None:
        """Have this kernel's weights lie under the graphs."""
        shared, inner = self.recording, self.recording.inner
        if shared.owner is not self:
            inner.model, inner.eager, inner.step = self.model, self.eager, Step(self.model)
            if not self.weights:
                self.weights = inner.weights()
            for static, weight in zip(inner.bound, self.weights, strict=True):
                static.copy_(weight, non_blocking=True)
            shared.owner = self
        # These change in place when the goal's posture becomes known or unknown.
        inner.objective.channel_weights.copy_(self.objective.channel_weights, non_blocking=True)
        inner.objective.time_weights.copy_(self.objective.time_weights, non_blocking=True)

    def _call(self, key: Any, plain: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Any:
        """Replay a recording, or do the same without one."""
        shared = self.recording
        if shared.inner.trouble:
            return None
        with shared.lock:
            self._own()
            recorded = None if self.unrecorded else shared.calls.get(key)
            return plain(*inputs) if recorded is None else recorded(*inputs)

    # ---- the kernel --------------------------------------------------------------------------

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Predicted latents ``(B, T, *L)``."""
        key, inner = KernelCall("rollout", len(actions)), self.recording.inner
        found = self._call(key, lambda *i: (inner.rollout(*i),), (latent, actions))
        return self.eager.rollout(latent, actions) if found is None else found[0]

    def cost(self, latent: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        """Objective of each plan, ``(B,)``."""
        key, inner = KernelCall("cost", len(actions)), self.recording.inner
        found = self._call(key, lambda *i: (inner.cost(*i),), (latent, goal, actions))
        return self.eager.cost(latent, goal, actions) if found is None else found[0]

    def cost_and_grad(
        self, latent: Tensor, goal: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Objective ``(B,)`` and gradient ``(B, T, A)``."""
        key = KernelCall("cost_and_grad", len(actions))
        inputs = (latent, goal, actions)
        found = self._call(key, self.recording.inner.cost_and_grad, inputs)
        return self.eager.cost_and_grad(*inputs) if found is None else found

    def transitions(
        self,
        z: Tensor,
        a: Tensor,
        target: Tensor,
        goal: Tensor,
        dynamics_weights: Tensor,
        goal_weights: Tensor,
        state_gradient: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Predict transitions and pull back their residuals; see ``Kernel``."""
        inner, key = self.recording.inner, KernelCall("transitions", len(z))
        inputs = (z, a, target, goal, dynamics_weights, goal_weights)
        found = self._call(key, lambda *i: inner.transitions(*i, True), inputs)
        if found is None:
            return self.eager.transitions(*inputs, state_gradient)
        following, grad_a, grad_z = found
        return following, grad_a, grad_z if state_gradient else None

    def descend(
        self,
        latent: Tensor,
        goal: Tensor,
        bounds: tuple[Tensor, Tensor],
        noise: Tensor | None,
        state: dict[str, Tensor],
        config: Any,
        done: int,
        iterations: int,
    ) -> None:
        """Run gradient steps in place, see ``DescendingKernel``."""
        shared, inner = self.recording, self.recording.inner
        call = KernelCall("descend", len(state["x"]), config)
        with shared.lock:
            self._own()
            sizes = tuple(s for s in chunk_sizes(config) if (call, s) in shared.calls)
            if shared.inner.trouble or self.unrecorded or 1 not in sizes:
                inner.descend(latent, goal, bounds, noise, state, config, done, iterations)
                return
            current = [state[name] for name in STATE]
            current.append(torch.full((), float(done), dtype=torch.float64, device=self.device))
            begun = 0
            for size in chunks(iterations, sizes):
                recorded = shared.calls[call, size]
                drawn = recorded.inputs[4] if noise is None else noise[begun : begun + size]
                current = list(recorded(latent, goal, *bounds, drawn, *current))
                begun += size
            for name, value in zip(STATE, current, strict=False):
                state[name].copy_(value)


def chunk_sizes(config: Any) -> tuple[int, ...]:
    """Numbers of iterations that are recorded, largest first.

    >>> from wm_mpc.planners import GradientConfig
    >>> chunk_sizes(GradientConfig(chunk=10)), chunk_sizes(GradientConfig(chunk=1))
    ((10, 1), (1,))
    """
    return tuple(sorted({1, min(config.chunk, config.iterations)}, reverse=True))


def chunks(count: int, sizes: tuple[int, ...]) -> list[int]:
    """Recorded chunks that add up to ``count`` iterations, few of them.

    >>> chunks(23, (10, 1)), chunks(0, (10, 1))
    ([10, 10, 1, 1, 1], [])
    """
    found = []
    for size in sorted(sizes, reverse=True):
        found += [size] * (count // size)
        count %= size
    return found


def check_replay(
    key: Any,
    recorded: Recorded,
    function: Callable[..., tuple[Tensor, ...]],
    examples: tuple[Tensor, ...],
) -> None:
    """Compare a replay with the function on other inputs than it was recorded with.

    Raises:
        ArithmeticError: the replay does something else.
    """
    generator = torch.Generator().manual_seed(1)
    inputs = []
    for example in examples:
        drawn = 0.3 * torch.randn(example.shape, generator=generator, dtype=torch.float32)
        # Bounds, costs and counts keep their meaning; states, goals and plans are others.
        fresh = example.ndim > 1
        inputs.append(drawn.to(example) if fresh else example)
    ours, theirs = recorded(*inputs), function(*inputs)
    for one, other in zip(ours, theirs, strict=True):
        usable = torch.isfinite(other)
        apart = (one - other)[usable].double().norm()
        size = other[usable].double().norm().clamp_min(1e-9)
        if bool((torch.isfinite(one) != usable).any()) or not float(apart / size) <= 1e-2:
            raise ArithmeticError(
                f"the recording of {key} differs from what it records by {apart / size:.2g}"
            )


__all__ = ["GraphKernel", "chunk_sizes", "chunks"]
