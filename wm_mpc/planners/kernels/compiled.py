"""Kernel of any model with a predictor, from compiled pieces: step, pullback, cost, update.

A rollout is a loop over the compiled step; the gradient runs back through the compiled pullback
with the cost's gradients added on the way. All pieces take the weights as inputs, so that models
of one architecture share them: another model costs no compiling. They are made by ``prepare``,
which checks them against autograd, and never in a tick: a call that was not prepared, a compiler
that fails and a result that differs all mean autograd instead, told in one line.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from wm_mpc.core.errors import one_line
from wm_mpc.planners.kernels.autograd import AutogradKernel
from wm_mpc.planners.kernels.descent import STATE, update
from wm_mpc.planners.kernels.inductor import Compiled, compile_graph
from wm_mpc.planners.kernels.protocol import KernelCall
from wm_mpc.planners.kernels.tracing import Step, trace, trace_step
from wm_mpc.planners.objective import GoalObjective

log = logging.getLogger(__name__)

TOLERANCE = {None: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Largest relative error (Euclidean norm over a plan) of cost and gradient, by precision."""

Compiler = Callable[[fx.GraphModule, Sequence[Tensor]], Compiled]

_SHARED: dict[Any, dict[Any, Any]] = {}
"""Compiled pieces of this process by architecture."""


class CompiledKernel:
    """Kernel (see ``Kernel``) of compiled pieces.

    Args:
        model: world model with a ``predictor`` in evaluation mode; its step uses no other weights.
        objective: goal cost.
        lower: type of the products; None: the weights' own.
        compiler: turns a graph into a function; None: graphs run as they are, operation by
            operation.

    Attributes:
        trouble: why it plans by autograd; empty: it does not.
        compile_s: [s] that ``prepare`` took.
    """

    def __init__(
        self,
        model: Any,
        objective: GoalObjective,
        lower: torch.dtype | None = None,
        compiler: Compiler | None = compile_graph,
    ) -> None:
        self.model, self.objective = model, objective
        self.lower, self.compiler = lower, compiler
        self.eager = AutogradKernel(model, objective)
        self.step = Step(model)
        self.device = objective.time_weights.device
        self.latent_shape = tuple(model.latent_shape)
        self.horizon, self.width = objective.horizon, model.action_width
        self.trouble = ""
        self.compile_s = 0.0
        key = architecture(model, objective, lower, compiler)
        self.pieces: dict[Any, Any] = {} if key is None else _SHARED.setdefault(key, {})
        self.ready: set[Any] = set()

    @property
    def name(self) -> str:
        """What runs."""
        if self.trouble:
            return "autograd"
        kind = "compiled" if self.compiler is not None else "traced"
        return kind if self.lower is None else f"{kind} {str(self.lower).removeprefix('torch.')}"

    def weights(self) -> list[Tensor]:
        """Weights in the order and types in which the pieces take them."""
        return self.step.weights(self.lower)

    # ---- preparing ---------------------------------------------------------------------------

    def prepare(self, calls: Iterable[KernelCall]) -> None:
        """Compile what the calls need and compare it with autograd; see ``PreparedKernel``."""
        begun = time.monotonic()
        try:
            if not hasattr(self, "bound"):  # recordings hold on to where the weights lie
                self.bound = self.weights()
            for call in calls:
                if not self.trouble and call not in self.ready:
                    self.make(call)
                    self.check(call)
                    self.ready.add(call)
        except Exception as error:  # whatever a compiler raises: planning goes on without it
            self.give_up(f"{type(error).__name__}: {one_line(error)}")
        self.compile_s += time.monotonic() - begun

    def give_up(self, reason: str) -> None:
        """Plan by autograd from now on."""
        self.trouble = reason
        log.warning("the compiled planning kernel is not used, autograd is slower: %s", reason)

    def make(self, call: KernelCall) -> None:
        """Compile the pieces of one call."""
        rows, kind = call.rows, call.kind
        if kind in ("cost", "rollout") and ("pair", rows) not in self.pieces:
            self.piece(("step", rows), self.make_step)
        if kind == "cost":
            self.piece(("cost", rows), self.make_cost)
        if kind in ("cost_and_grad", "descend", "transitions"):
            self.piece(("pair", rows), self.make_pair)
        if kind in ("cost_and_grad", "descend"):
            self.piece(("tail", rows), self.make_tail)
        if kind == "transitions":
            self.piece(("pull", rows), self.make_pull)
        if kind == "descend":
            key = ("update", rows, call.config)
            self.piece(key, lambda rows: self.make_update(rows, call.config))

    def piece(self, key: tuple, maker: Callable[[int], Any]) -> None:
        """Make a piece unless a kernel of this architecture did."""
        if key not in self.pieces:
            self.pieces[key] = maker(key[1])

    def build(self, graph: fx.GraphModule, examples: Sequence[Tensor]) -> Compiled:
        """Compile one graph."""
        if self.compiler is None:
            return graph
        return self.compiler(graph, examples)

    def examples(self, rows: int) -> tuple[Tensor, Tensor]:
        """Latents and actions of a batch of steps."""
        z = torch.zeros(rows, *self.latent_shape, device=self.device)
        return z, torch.zeros(rows, self.width, device=self.device)

    def make_step(self, rows: int) -> Compiled:
        """Compile the step alone."""
        z, a = self.examples(rows)
        graphs = trace_step(self.step, self.bound, z, a, self.lower)
        return self.build(graphs.step, [*self.bound, z, a])

    def make_pair(self, rows: int) -> tuple[Compiled, Compiled]:
        """Compile step and pullback."""
        z, a = self.examples(rows)
        graphs = trace_step(self.step, self.bound, z, a, self.lower)
        forward = self.build(graphs.forward, [*self.bound, z, a])
        # What the compiled forward keeps may be laid out otherwise than what was traced.
        _, *kept = forward(*self.bound, z, a)
        inputs = [*self.bound, z, a, *kept, torch.zeros_like(z), torch.zeros_like(z)]
        return forward, self.build(graphs.backward, inputs)

    def bare_objective(self, time_weights: Tensor, channel_weights: Tensor) -> GoalObjective:
        """The objective with other weight tensors."""
        other = copy.copy(self.objective)
        other.time_weights, other.channel_weights = time_weights, channel_weights
        return other

    def tail_inputs(self, rows: int) -> list[Tensor]:
        """Example inputs of the cost: states, actions, goal and weights."""
        z, _ = self.examples(rows)
        states = [z.clone() for _ in range(self.horizon)]
        actions = torch.zeros(rows, self.horizon, self.width, device=self.device)
        objective = self.objective
        weights = [objective.time_weights.clone(), objective.channel_weights.clone()]
        return [*states, actions, torch.zeros_like(z[0]), *weights]

    def make_cost(self, rows: int) -> Compiled:
        """Compile the cost of predicted states."""
        horizon = self.horizon

        def cost(*inputs: Tensor) -> tuple[Tensor]:
            actions, goal, *weights = inputs[horizon:]
            states = torch.stack(inputs[:horizon], 1)
            return (self.bare_objective(*weights)(states, actions, goal),)

        inputs = self.tail_inputs(rows)
        return self.build(trace(cost, *inputs), inputs)

    def make_tail(self, rows: int) -> Compiled:
        """Compile the cost with its gradients at states and actions."""
        horizon = self.horizon

        def tail(*inputs: Tensor) -> tuple[Tensor, ...]:
            free = [value.detach().requires_grad_() for value in inputs[: horizon + 1]]
            goal, *weights = inputs[horizon + 1 :]
            with torch.enable_grad():
                states = torch.stack(free[:horizon], 1)
                cost = self.bare_objective(*weights)(states, free[horizon], goal)
            grads = torch.autograd.grad(cost.sum(), free, materialize_grads=True)
            return cost.detach(), *grads

        inputs = self.tail_inputs(rows)
        return self.build(trace(tail, *inputs), inputs)

    def make_pull(self, rows: int) -> Compiled:
        """Compile the gradient of the transitions' weighted residuals at the predictions."""

        def pull(
            following: Tensor,
            target: Tensor,
            goal: Tensor,
            dynamics_weights: Tensor,
            goal_weights: Tensor,
            channel_weights: Tensor,
        ) -> tuple[Tensor]:
            following = following.detach().requires_grad_()
            objective = self.bare_objective(self.objective.time_weights, channel_weights)
            with torch.enable_grad():
                apart = objective.distance(following - target, torch.zeros_like(goal))
                loss = apart @ dynamics_weights
                loss = loss + objective.distance(following, goal) @ goal_weights
            return torch.autograd.grad(loss, (following,))

        z, _ = self.examples(rows)
        weights = torch.zeros(2, rows, device=self.device).unbind(0)
        channels = self.objective.channel_weights.clone()
        inputs = [z, z.clone(), z[0].clone(), *(w.clone() for w in weights), channels]
        return self.build(trace(pull, *inputs), inputs)

    def make_update(self, rows: int, config: Any) -> Compiled:
        """Compile the optimiser's step."""
        plans = torch.zeros(rows, self.horizon, self.width, device=self.device)
        costs = torch.zeros(rows, device=self.device)
        count = torch.zeros((), dtype=torch.float64, device=self.device)
        bound = torch.ones(self.width, device=self.device)
        state = [*(plans.clone() for _ in range(4)), costs, costs.clone(), count]
        inputs = [*state, costs.clone(), plans.clone(), plans.clone(), -bound, bound]
        return self.build(trace(lambda *i: update(*i, config), *inputs), inputs)

    # ---- checking ----------------------------------------------------------------------------

    def check(self, call: KernelCall) -> None:
        """Compare one call with autograd on random plans.

        Raises:
            ArithmeticError: they differ by more than ``TOLERANCE``.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (call.rows, self.horizon, self.width)
        latent, goal, moved = (
            torch.randn(self.latent_shape, generator=generator).to(self.device) for _ in range(3)
        )
        x = 0.5 * torch.randn(shape, generator=generator).to(self.device)
        few = x[:2]
        if call.kind == "rollout":
            pairs = [(self.rollout(latent, x), self.eager.rollout(latent, few))]
        elif call.kind == "cost":
            pairs = [(self.cost(latent, goal, x), self.eager.cost(latent, goal, few))]
        elif call.kind == "cost_and_grad":
            ours = self.cost_and_grad(latent, goal, x)
            pairs = list(zip(ours, self.eager.cost_and_grad(latent, goal, few), strict=True))
        elif call.kind == "transitions":
            z = latent + 0.1 * (moved - latent)
            z, a = z.expand(call.rows, *z.shape).contiguous(), x[:, 0].contiguous()
            target, ones = z + 0.1, torch.ones(call.rows, device=self.device)
            ours = self.transitions(z, a, target, goal, ones, ones, True)
            theirs = self.eager.transitions(
                z[:2], a[:2], target[:2], goal, ones[:2], ones[:2], True
            )
            pairs = list(zip(ours, theirs, strict=True))
        else:
            pairs = self.descended_pairs(call, latent, goal, x)
        bound = TOLERANCE[self.lower]
        for ours, theirs in pairs:
            found = relative_error(ours[: len(theirs)], theirs)
            if not found <= bound:
                raise ArithmeticError(
                    f"{call.kind} of {call.rows}: relative error {found:.2g} against autograd; "
                    f"at most {bound:g} expected"
                )

    def descended_pairs(
        self, call: KernelCall, latent: Tensor, goal: Tensor, x: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """Our and autograd's numbers after one step of a descent."""
        cost, grad = self.eager.cost_and_grad(latent, goal, x[:2])
        wide = torch.full((self.width,), torch.inf, device=self.device)
        config = dataclasses.replace(call.config, action_noise=0.0)
        state = fresh_state(x)
        still = torch.zeros(1, *x.shape, device=self.device)
        self.descend(latent, goal, (-wide, wide), still, state, call.config, 0, 1)
        start = fresh_state(x[:2])
        count = torch.zeros((), dtype=torch.float64, device=self.device)
        expected = dict(
            zip(
                STATE,
                update(*start.values(), count, cost, grad, x[:2], -wide, wide, config),
                strict=False,
            )
        )
        # Adam's first step has the size of the rate whatever the gradient, so its sign would be
        # compared where there is none; the moments say the same.
        names = ("m", "first_cost") if config.optimizer == "adam" else ("x", "first_cost")
        return [(state[name], expected[name]) for name in names]

    # ---- the kernel --------------------------------------------------------------------------

    def usable(self, kind: str, rows: int, config: Any = None) -> bool:
        """Whether a call was prepared."""
        if self.trouble:
            return False
        step = ("step" if ("step", rows) in self.pieces else "pair", rows)
        needs = {
            "rollout": (step,),
            "cost": (step, ("cost", rows)),
            "cost_and_grad": (("pair", rows), ("tail", rows)),
            "transitions": (("pair", rows), ("pull", rows)),
            "descend": (("pair", rows), ("tail", rows), ("update", rows, config)),
        }[kind]
        if not all(key in self.pieces for key in needs):
            return False
        if not hasattr(self, "bound"):
            self.bound = self.weights()
        return True

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Predicted latents ``(B, T, *L)``."""
        if not self.usable("rollout", len(actions)):
            return self.eager.rollout(latent, actions)
        return torch.stack(self.states(latent, actions), 1)

    def states(self, latent: Tensor, actions: Tensor) -> list[Tensor]:
        """Predicted latents, ``(B, *L)`` per model step."""
        rows = len(actions)
        step = self.pieces.get(("step", rows)) or self.pieces["pair", rows][0]
        z = latent.expand(len(actions), *latent.shape).contiguous()
        states = []
        for a in actions.transpose(0, 1).contiguous():
            z, *_ = step(*self.bound, z, a)
            z = z.contiguous()
            states.append(z)
        return states

    def cost(self, latent: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        """Objective of each plan, ``(B,)``."""
        rows = len(actions)
        if not self.usable("cost", rows):
            return self.eager.cost(latent, goal, actions)
        weights = self.objective.time_weights, self.objective.channel_weights
        states = self.states(latent, actions)
        (cost,) = self.pieces["cost", rows](*states, actions.contiguous(), goal, *weights)
        return cost

    def cost_and_grad(
        self, latent: Tensor, goal: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Objective ``(B,)`` and gradient ``(B, T, A)``."""
        rows = len(actions)
        if not self.usable("cost_and_grad", rows):
            return self.eager.cost_and_grad(latent, goal, actions)
        forward, backward = self.pieces["pair", rows]
        z = latent.expand(rows, *latent.shape).contiguous()
        steps, following = [], []
        for a in actions.transpose(0, 1).contiguous():
            ahead, *kept = forward(*self.bound, z, a)
            steps.append((z, a, *kept))
            # the compiler lays results out as it likes, and expects dense inputs
            z = ahead.contiguous()
            following.append(z)
        weights = self.objective.time_weights, self.objective.channel_weights
        cost, *pulls, direct = self.pieces["tail", rows](
            *following, actions.contiguous(), goal, *weights
        )
        grads = []
        behind = torch.zeros_like(z)
        for kept, pull in zip(reversed(steps), reversed(pulls), strict=True):
            cotangents = pull.contiguous(), behind.contiguous()
            behind, grad = backward(*self.bound, *kept, *cotangents)
            grads.append(grad)
        return cost, torch.stack(grads[::-1], 1).add_(direct)

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
        rows = len(z)
        if not self.usable("transitions", rows):
            given = (z, a, target, goal, dynamics_weights, goal_weights, state_gradient)
            return self.eager.transitions(*given)
        forward, backward = self.pieces["pair", rows]
        z, a = z.detach().contiguous(), a.detach().contiguous()
        following, *kept = forward(*self.bound, z, a)
        weights = (dynamics_weights.contiguous(), goal_weights.contiguous())
        (pull,) = self.pieces["pull", rows](
            following.contiguous(), target.contiguous(), goal, *weights,
            self.objective.channel_weights,
        )  # fmt: skip
        pull = pull.contiguous()
        grad_z, grad_a = backward(*self.bound, z, a, *kept, pull, torch.zeros_like(pull))
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
        current = [state[name] for name in STATE]
        current.append(torch.full((), float(done), dtype=torch.float64, device=self.device))
        current = self.steps(latent, goal, bounds, noise, current, config, iterations)
        for name, value in zip(STATE, current, strict=False):
            state[name].copy_(value)

    def steps(
        self,
        latent: Tensor,
        goal: Tensor,
        bounds: tuple[Tensor, Tensor],
        noise: Tensor | None,
        current: list[Tensor],
        config: Any,
        iterations: int,
    ) -> list[Tensor]:
        """State after some steps of ``update``; ``current`` is left as it is."""
        key = ("update", len(current[0]), config)
        if self.usable("descend", len(current[0]), config):
            move = self.pieces[key]
        else:

            def move(*inputs: Tensor) -> Sequence[Tensor]:
                return update(*inputs, config)

        for step in range(iterations):
            x = current[0]
            cost, grad = self.cost_and_grad(latent, goal, x)
            drawn = x if noise is None else noise[step]
            current = list(move(*current, cost, grad, drawn, *bounds))
        return current


def fresh_state(x: Tensor) -> dict[str, Tensor]:
    """State of a descent that begins at ``x``."""
    zeros, costs = torch.zeros_like(x), torch.full_like(x[:, 0, 0], torch.inf)
    values = (x.clone(), zeros, zeros.clone(), zeros.clone(), costs, costs.clone())
    return dict(zip(STATE, values, strict=True))


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Euclidean distance over the reference's norm; 0 where both vanish."""
    apart, size = (ours - theirs).double().norm(), theirs.double().norm()
    return float(apart / size.clamp_min(1e-9))


def architecture(
    model: Any, objective: GoalObjective, lower: torch.dtype | None, compiler: Any
) -> Any:
    """What compiled pieces depend on beside batch size; None where it cannot be told.

    A model that has no configuration shares nothing.
    """
    config = getattr(model, "config", None)
    if not dataclasses.is_dataclass(config) or not hasattr(config, "predictor_args"):
        return None
    arguments = repr(sorted(config.predictor_args.items()))
    device = objective.time_weights.device
    kind = (type(model), config.predictor, arguments, tuple(model.latent_shape))
    if type(objective) is not GoalObjective:
        return None  # what a cost of somebody's own depends on is not known here
    cost = (objective.config, objective.horizon, objective.visual_dim)
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    return kind, model.action_width, cost, str(device), lower, compiler, threads


__all__ = ["TOLERANCE", "CompiledKernel", "architecture"]
