"""A model step and its pullback as flat graphs of tensors, weights among the inputs.

The step is traced once together with its vector-Jacobian product at latent and action, and the
trace is cut in two: *forward* returns the next latent and what the pullback needs, *backward*
takes that and the cotangent. A plan of any length is a loop over the two, so that compiling costs
the same for every horizon, and lifted planners, whose transitions are independent, use them too.
No gradient of a weight is ever computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

VIEWS = {
    torch.ops.aten.view, torch.ops.aten._unsafe_view, torch.ops.aten.t, torch.ops.aten.transpose,
    torch.ops.aten.permute, torch.ops.aten.unsqueeze, torch.ops.aten.squeeze,
    torch.ops.aten.expand, torch.ops.aten.select, torch.ops.aten.slice, torch.ops.aten.detach,
    torch.ops.aten.alias, torch.ops.aten.split, torch.ops.aten.unbind,
}  # fmt: skip
"""Operations that move no data: the pullback repeats them instead of keeping their results."""


ALIGNED = 64
"""Widths of lower-precision products become a multiple of this: a GPU's matrix units read 16 bytes
at a time, tiles are 64 wide, and a product over 404 channels runs on slow code
(docs/performance.md)."""


class Step(nn.Module):
    """A model's step with its predictor as the one submodule, so that weights can be inputs.

    Args:
        model: dynamics with a ``predictor``; the step may use no other weights.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.predictor = model.predictor
        # A predictor may know a shorter way for the one frame that planning looks at. Whether it
        # computes the same is seen when the kernel is checked against the model's own step.
        self.step = getattr(model.predictor, "one_frame", model.step)
        self.names = [
            name for group in (self.named_parameters(), self.named_buffers()) for name, _ in group
        ]

    def weights(self, lower: torch.dtype | None = None) -> list[Tensor]:
        """Parameters and buffers, in the order in which graphs take them.

        Args:
            lower: type of the products; matrices come in it, those of linear layers with zero
                rows and columns up to ``ALIGNED``. None: as they are.
        """
        found = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        linear = {
            f"{name}.weight": module.bias is not None
            for name, module in self.named_modules()
            if type(module) is nn.Linear
        }
        return [lower_weight(found[n].detach(), lower, linear.get(n)) for n in self.names]

    def forward(self, latent: Tensor, action: Tensor) -> Tensor:
        """Next latents: ``(B, *L), (B, A) -> (B, *L)``."""
        return self.step(latent, action)

    def pure(self, weights: Sequence[Tensor], latent: Tensor, action: Tensor) -> Tensor:
        """``forward`` with the given weights in place of the module's own."""
        named = dict(zip(self.names, weights, strict=True))
        with PaddedProducts():
            return torch.func.functional_call(self, named, (latent, action))


class PaddedProducts(TorchFunctionMode):
    """Linear layers with weights that carry zeros: inputs are padded, results are cut."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Call ``func``; products with a wider weight are padded."""
        kwargs = kwargs or {}
        if func is not F.linear or len(args) < 2:
            return func(*args, **kwargs)
        x, weight = args[:2]
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        missing = weight.shape[1] - x.shape[-1]
        width = weight.shape[0] if bias is None else bias.shape[0]
        if missing <= 0 and width == weight.shape[0]:
            return func(*args, **kwargs)
        if missing > 0:
            x = F.pad(x, (0, missing))
        product = F.linear(x, weight)[..., :width]
        return product if bias is None else product + bias.to(product.dtype)


def lower_weight(weight: Tensor, lower: torch.dtype | None, biased: bool | None) -> Tensor:
    """Matrices in the type of the products, those of linear layers padded; the rest as it is.

    Args:
        weight: any weight.
        lower: type of the products; None: ``weight`` as it is.
        biased: whether its linear layer has a bias, which tells how many rows are real; without
            one only columns are added. None: of no linear layer.
    """
    if lower is None or weight.ndim != 2 or not weight.is_floating_point():
        return weight
    weight = weight.to(lower)
    if biased is None:
        return weight
    rows, columns = weight.shape
    more = -rows % ALIGNED if biased else 0
    return F.pad(weight, (0, -columns % ALIGNED, 0, more)).contiguous()


@dataclass(frozen=True)
class StepGraphs:
    """What tracing a step gave.

    Attributes:
        step: ``(*weights, z, a) -> (z',)``.
        forward: ``(*weights, z, a) -> (z', *kept)``.
        backward: ``(*weights, z, a, *kept, g, h) -> (gradient at z, gradient at a)`` for the
            cotangent ``g + h`` of ``z'``.
    """

    step: fx.GraphModule
    forward: fx.GraphModule
    backward: fx.GraphModule


def trace_step(
    step: Step, weights: Sequence[Tensor], z: Tensor, a: Tensor, lower: torch.dtype | None
) -> StepGraphs:
    """Trace a step and its pullback for one batch size.

    Args:
        step: what to trace, in evaluation mode.
        weights: tensors of the weights' shapes and types.
        z: ``(B, *L)``, for shape and device.
        a: ``(B, A)``, likewise.
        lower: type of the products (autocast); None: as the weights are.
    """
    count = len(weights)

    def joint(*inputs: Tensor) -> tuple[Tensor, ...]:
        z, a = (value.detach().requires_grad_() for value in inputs[count : count + 2])
        with torch.enable_grad(), lowered(z.device, lower):
            following = step.pure(inputs[:count], z, a).to(z.dtype)
        cotangent = inputs[count + 2] + inputs[count + 3]
        return following.detach(), *torch.autograd.grad(
            following, (z, a), cotangent, materialize_grads=True
        )

    inputs = [*(w.detach() for w in weights), z, a, torch.zeros_like(z), torch.zeros_like(z)]
    # The trace runs once on these very tensors; it changes none of them.
    traced = trace(joint, *inputs)
    nodes = list(traced.graph.nodes)
    given = [node for node in nodes if node.op == "placeholder"]
    (following, grad_z, grad_a) = nodes[-1].args[0]
    ahead = ancestors([following])
    ahead |= {n for n in nodes if is_getitem(n) and n.args[0] in ahead}
    kept = [n for n in nodes if n in boundary([grad_z, grad_a], ahead)]
    before = given[: count + 2]
    return StepGraphs(
        part(traced, before, [following]),
        part(traced, before, [following, *kept]),
        part(traced, [*before, *kept, *given[count + 2 :]], [grad_z, grad_a]),
    )


def lowered(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Context in which products are of a lower precision."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def trace(function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> fx.GraphModule:
    """Trace any function of tensors into operations that change none of their inputs."""
    # Recurrent cells work in place; the second pass turns that into new values, so that a trace
    # can be cut anywhere.
    traced = make_fx(torch.func.functionalize(make_fx(function)(*inputs)))(*inputs)
    for node in traced.graph.nodes:
        if getattr(node.target, "overloadpacket", None) in (
            torch.ops.aten.detach,
            torch.ops.aten.alias,
        ):
            node.replace_all_uses_with(node.args[0])
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def is_getitem(node: fx.Node) -> bool:
    """Whether a node picks one result of an operation that has several."""
    return node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"


def is_view(node: fx.Node) -> bool:
    """Whether a node moves no data."""
    return getattr(node.target, "overloadpacket", None) in VIEWS


def ancestors(outputs: list[fx.Node], stop: set[fx.Node] | None = None) -> set[fx.Node]:
    """Nodes that the outputs depend on, themselves among them, not looking behind ``stop``."""
    found: set[fx.Node] = set()
    todo = list(outputs)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            if stop is None or node not in stop:
                todo.extend(node.all_input_nodes)
    return found


def boundary(outputs: list[fx.Node], ahead: set[fx.Node]) -> set[fx.Node]:
    """Nodes of ``ahead`` whose results the outputs need; views of them are made anew."""
    found: set[fx.Node] = set()
    seen: set[fx.Node] = set()
    todo = list(outputs)
    while todo:
        node = todo.pop()
        if node in seen or node.op in ("placeholder", "get_attr"):
            continue
        seen.add(node)
        if node in ahead and not is_view(node):
            found.add(node)
        else:
            todo.extend(node.all_input_nodes)
    return found


def part(whole: fx.GraphModule, inputs: list[fx.Node], outputs: list[fx.Node]) -> fx.GraphModule:
    """The piece of a graph between some of its nodes."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
    needed = ancestors(outputs, set(inputs))
    for node in whole.graph.nodes:
        if node in needed and node not in copies:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output(tuple(copies[node] for node in outputs))
    return fx.GraphModule(whole, graph)


__all__ = ["Step", "StepGraphs", "lowered", "trace", "trace_step"]
