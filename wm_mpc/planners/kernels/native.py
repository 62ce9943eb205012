"""Native kernel of the residual MLP world model: the Python side of ``mlp_kernel.c``."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from wm_mpc.models.predictors import MlpPredictor
from wm_mpc.models.predictors.object_frame import ObjectFrame
from wm_mpc.planners.objective import GoalObjective

MAX_LAYERS = 8
MAX_PLAN = 4096
# A second row costs next to nothing while the weights pass by, so a thread takes at least two.
ROWS_PER_THREAD = 2
# Multiplications that are worth a thread: about 80 microseconds. A hand-over takes 10 to 40.
WORK_PER_THREAD = 4_000_000


class Shape(ctypes.Structure):
    """Sizes; mirrors ``Shape`` of the C source."""

    _fields_ = [
        (n, ctypes.c_int) for n in ("latent", "action", "width", "layers", "horizon", "frame")
    ]


def structures(real: Any) -> tuple[type[ctypes.Structure], type[ctypes.Structure]]:
    """C structures ``Objective`` and ``Descent`` for a floating-point type."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int

    class Objective(ctypes.Structure):
        _fields_ = [
            *[(n, pointer) for n in ("goal", "time_weights", "channel_weights")],
            *[(n, real) for n in ("action_weight", "smoothness_weight")],
        ]

    class Descent(ctypes.Structure):
        _fields_ = [
            *[(n, pointer) for n in ("low", "high", "noise")],
            *[
                (n, real)
                for n in ("learning_rate", "beta1", "beta2", "eps", "action_noise", "grad_clip")
            ],
            *[(n, integer) for n in ("adam", "iterations", "done")],
        ]

    return Objective, Descent


class Call(ctypes.Structure):
    """Arguments of a call; mirrors ``Call`` of the C source."""

    _fields_ = [
        *[(n, ctypes.c_void_p) for n in ("shape", "weights", "objective", "descent")],
        *[(n, ctypes.c_int) for n in ("rows", "hurry")],
        ("steps", ctypes.c_void_p),
        *[(n, ctypes.c_void_p) for n in ("latent", "actions", "z", "a", "target")],
        *[(n, ctypes.c_void_p) for n in ("dynamics_weights", "goal_weights")],
        *[(n, ctypes.c_void_p) for n in ("cost", "grad", "latents", "next", "grad_a", "grad_z")],
        *[(n, ctypes.c_void_p) for n in ("x", "m", "v", "best", "best_cost", "first_cost")],
    ]


def supported(model: Any, objective: GoalObjective) -> bool:
    """True when the kernel can run this model: a residual MLP on the CPU in single precision.

    The cost is written out in C, so a subclass of ``GoalObjective`` needs another kernel.
    """
    if type(objective) is not GoalObjective:
        return False
    net = getattr(model, "predictor", None)
    if not isinstance(net, MlpPredictor) or len(model.latent_shape) != 1:
        return False
    weight = net.net[0].weight
    extras = 0 if net.frame is None else ObjectFrame.EXTRAS
    return (
        weight.shape[1] == model.latent_shape[0] + extras + model.action_width
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and len(net.net) // 3 <= MAX_LAYERS
        and objective.horizon * model.action_width <= MAX_PLAN
    )


class MlpKernel:
    """Kernel (see ``Kernel``) of a residual MLP, with whole descent loops in native code.

    The weights are copied when the kernel is built. A call with enough arithmetic is shared
    between ``torch.get_num_threads()`` threads, the calling one among them; the result is the
    same, bit for bit, whatever their number. A kernel serves one call at a time, from any thread.

    Args:
        model: world model with an ``MlpPredictor``.
        objective: goal cost.
        lib: the library of ``library()``.
    """

    name = "C"

    def __init__(self, model: Any, objective: GoalObjective, lib: ctypes.CDLL) -> None:
        self.lib = lib
        layers: nn.Sequential = model.predictor.net
        frame: ObjectFrame | None = model.predictor.frame
        first: nn.Linear = layers[0]
        self.dtype = first.weight.dtype
        self.latent_dim, self.action_dim = layers[-1].out_features, model.action_width
        self.horizon = objective.horizon
        sizes = self.latent_dim, self.action_dim, first.out_features, len(layers) // 3
        self.shape = Shape(*sizes, self.horizon, frame is not None)
        self.one_step = Shape(*sizes, 1, frame is not None)
        real = ctypes.c_double if self.dtype == torch.float64 else ctypes.c_float
        self.Objective, self.Descent = structures(real)
        lanes, panel = lib.wm_lanes(), lib.wm_panel()
        self.weights = aligned(pack(layers, frame, self.action_dim, lanes, panel))
        if len(self.weights) != lib.wm_weights(ctypes.byref(self.shape)):
            raise RuntimeError("planning kernel: its weight layout differs from this module's")
        self.time_weights = objective.time_weights.to(self.dtype).contiguous()
        self.channel_weights = objective.channel_weights.to(self.dtype).contiguous()
        self.action_weight = objective.config.action_weight
        self.smoothness_weight = objective.config.smoothness_weight
        self.work_size = lib.wm_work(ctypes.byref(self.shape))
        self.work = aligned(torch.zeros(self.work_size, dtype=self.dtype))

    def cost(self, latent: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        """Objective of each plan, ``(B,)``."""
        cost = torch.empty(len(actions), dtype=self.dtype)
        self._cost(latent, goal, actions, cost)
        return cost

    def cost_and_grad(
        self, latent: Tensor, goal: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Objective ``(B,)`` and gradient ``(B, T, A)``."""
        cost = torch.empty(len(actions), dtype=self.dtype)
        grad = torch.empty(actions.shape, dtype=self.dtype)
        self._cost(latent, goal, actions, cost, grad=grad)
        return cost, grad

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Predicted latents ``(B, T, D)``."""
        cost = torch.empty(len(actions), dtype=self.dtype)
        latents = torch.empty(*actions.shape[:2], self.latent_dim, dtype=self.dtype)
        self._cost(latent, latent, actions, cost, latents=latents)
        return latents

    def _cost(
        self,
        latent: Tensor,
        goal: Tensor,
        actions: Tensor,
        cost: Tensor,
        grad: Tensor | None = None,
        latents: Tensor | None = None,
    ) -> None:
        latent, goal, actions = (self._flat(v) for v in (latent, goal, actions))
        rows, passes = len(actions), self.horizon * (1 if grad is None else 2)
        tensors = {"latent": latent, "actions": actions}
        results = {"cost": cost, "grad": grad, "latents": latents}
        self._run(self.lib.wm_cost, rows, passes, self.shape, goal, **tensors, **results)

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
        z, a, target, goal = (self._flat(v) for v in (z, a, target, goal))
        dynamics_weights, goal_weights = self._flat(dynamics_weights), self._flat(goal_weights)
        following, grad_a = torch.empty_like(z), torch.empty_like(a)
        grad_z = torch.empty_like(z) if state_gradient else None
        tensors = {"z": z, "a": a, "target": target}
        weights = {"dynamics_weights": dynamics_weights, "goal_weights": goal_weights}
        results = {"next": following, "grad_a": grad_a, "grad_z": grad_z}
        run, shape = self.lib.wm_transitions, self.one_step
        self._run(run, len(z), 2, shape, goal, **tensors, **weights, **results)
        return following, grad_a, grad_z

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
        """Run gradient steps in place, see ``GradientSearch``.

        Args:
            latent: ``(D,)``.
            goal: ``(D,)``.
            bounds: two tensors ``(A,)``.
            noise: standard normal draws ``(iterations, B, T, A)``, or None.
            state: ``x``, ``m``, ``v``, ``best`` ``(B, T, A)``; ``best_cost``, ``first_cost``
                ``(B,)``.
            config: a ``GradientConfig``.
            done: steps taken before.
            iterations: steps to take.
        """
        latent, goal = self._flat(latent), self._flat(goal)
        low, high = (self._flat(b) for b in bounds)
        descent = self.Descent(
            pointer(low),
            pointer(high),
            None if noise is None else pointer(noise),
            config.learning_rate,
            config.beta1,
            config.beta2,
            config.eps,
            config.action_noise,
            config.grad_clip,
            config.optimizer == "adam",
            iterations,
            done,
        )
        rows, passes = len(state["x"]), 2 * self.horizon * iterations
        run, shape = self.lib.wm_descend, self.shape
        steps = torch.zeros(rows, dtype=torch.int32)
        self._run(run, rows, passes, shape, goal, descent, latent=latent, steps=steps, **state)

    def threads(self, rows: int, passes: int) -> int:
        """Number of threads to share a call between.

        Args:
            rows: plans or transitions.
            passes: forward and backward passes through the network per row.
        """
        work = rows * passes * len(self.weights) // 2  # the weights are stored once per direction
        most = min(torch.get_num_threads(), -(-rows // ROWS_PER_THREAD))
        return max(1, min(most, work // WORK_PER_THREAD))

    def _run(
        self,
        run: Any,
        rows: int,
        passes: int,
        shape: Shape,
        goal: Tensor,
        descent: ctypes.Structure | None = None,
        **tensors: Tensor | None,
    ) -> None:
        """Call one of the library's functions; ``tensors`` are the fields of ``Call``."""
        threads = self.threads(rows, passes)
        if len(self.work) < threads * self.work_size:
            self.work = aligned(torch.zeros(threads * self.work_size, dtype=self.dtype))
        objective = self._objective(goal)
        call = Call(
            ctypes.addressof(shape),
            self.weights.data_ptr(),
            ctypes.addressof(objective),
            None if descent is None else ctypes.addressof(descent),
            rows,
            **{name: t.data_ptr() for name, t in tensors.items() if t is not None},
        )
        run(ctypes.byref(call), threads, pointer(self.work))

    def _objective(self, goal: Tensor) -> ctypes.Structure:
        return self.Objective(
            pointer(goal),
            pointer(self.time_weights),
            pointer(self.channel_weights),
            self.action_weight,
            self.smoothness_weight,
        )

    def _flat(self, value: Tensor) -> Tensor:
        return value.detach().to(self.dtype).contiguous()


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """Address of a contiguous tensor."""
    return ctypes.c_void_p(tensor.data_ptr())


def aligned(tensor: Tensor) -> Tensor:
    """Copy of a flat tensor that begins on a 64-byte boundary."""
    size = tensor.element_size()
    raw = torch.zeros(len(tensor) + 64 // size, dtype=tensor.dtype)
    skip = (-raw.data_ptr() % 64) // size
    out = raw[skip : skip + len(tensor)]
    out.copy_(tensor)
    return out


def pack(
    layers: nn.Sequential, frame: ObjectFrame | None, action_dim: int, lanes: int, panel: int
) -> Tensor:
    """Lay out the weights as ``layout`` of the C source reads them: one flat tensor.

    Args:
        layers: ``MlpPredictor.net``.
        frame: ``MlpPredictor.frame``.
        action_dim: ``A``; the first layer's inputs are ``[features of z, a]``.
        lanes: numbers per vector; rows are padded with zeros to a multiple.
        panel: columns of a matrix that lie together, a multiple of ``lanes``; the last ones may
            be fewer.
    """
    parts: list[Tensor] = []

    def add(matrix: Tensor) -> None:
        padded = nn.functional.pad(matrix, (0, -matrix.shape[-1] % lanes))
        parts.extend(columns.flatten() for columns in padded.split(panel, -1))

    with torch.no_grad():
        linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
        norms = [layer for layer in layers if isinstance(layer, nn.LayerNorm)]
        first, last = linears[0].weight, linears[-1]
        into, action = first[:, :-action_dim], first[:, -action_dim:]
        add(into.T)
        add(action.T)
        for i, (linear, norm) in enumerate(zip(linears[:-1], norms, strict=True)):
            if i:
                add(linear.weight.T)
            add(linear.bias)
            add(norm.weight)
            add(norm.bias)
        add(last.weight.T)
        add(last.bias)
        add(last.weight)
        for linear in linears[1:-1]:
            add(linear.weight)
        add(into)
        add(action)
        if frame is not None:
            add(frame.matrix)
            for vector in ("offset", "action_scale", "action_offset", "change_scale"):
                add(getattr(frame, vector))
            add(frame.matrix.T)
        return torch.cat(parts)


__all__ = ["MlpKernel", "supported"]
