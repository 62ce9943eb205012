"""What a kernel is asked: cost, gradient and rollout of plans, the inner loop of every planner.

A kernel binds a model and an objective once; ``cost`` and ``cost_and_grad`` then take a batch of
plans.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class KernelCall:
    """A call that a planner will make in a tick.

    Attributes:
        kind: name of the kernel's function.
        rows: plans (transitions) of a call.
        config: ``GradientConfig`` of a ``descend``.
    """

    kind: Literal["cost", "cost_and_grad", "rollout", "transitions", "descend"]
    rows: int
    config: Any = None


class Kernel(Protocol):
    """Cost, gradient, rollout of plans ``(B, T, A)`` from one latent ``L`` to one goal ``L``.

    Attributes:
        name: what it is, for reports and messages.
    """

    name: str

    def cost(self, latent: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        """Objective of each plan, ``(B,)``, no gradient."""
        ...

    def cost_and_grad(
        self, latent: Tensor, goal: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Objective ``(B,)`` and its gradient with respect to the actions ``(B, T, A)``."""
        ...

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Predicted latents ``(B, T, *L)``, no gradient."""
        ...

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
        """Predict ``N`` independent transitions and the gradient of their weighted residuals.

        With the objective's frame distance ``d``, row ``i`` has the loss
        ``dynamics_weights_i d(F(z_i, a_i), target_i) + goal_weights_i d(F(z_i, a_i), goal)``.

        Args:
            z: states, ``(N, *L)``.
            a: actions, ``(N, A)``.
            target: ``(N, *L)``.
            goal: ``L``.
            dynamics_weights: ``(N,)``.
            goal_weights: ``(N,)``.
            state_gradient: also return the gradient with respect to ``z``.

        Returns:
            ``F(z, a)``, gradient at ``a``, gradient at ``z`` or None.
        """
        ...


@runtime_checkable
class DescendingKernel(Protocol):
    """Kernel that runs whole gradient descents itself."""

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
            latent: ``L``.
            goal: ``L``.
            bounds: two tensors ``(A,)``.
            noise: standard normal draws ``(iterations, B, T, A)``, or None.
            state: ``x``, ``m``, ``v``, ``best`` ``(B, T, A)``; ``best_cost``, ``first_cost``
                ``(B,)``.
            config: a ``GradientConfig``.
            done: steps taken before.
            iterations: steps to take.
        """
        ...


@runtime_checkable
class PreparedKernel(Protocol):
    """Kernel that compiles or records before the first tick, never in one."""

    def prepare(self, calls: Iterable[KernelCall]) -> None:
        """Get ready for calls; whatever was not prepared runs by autograd."""
        ...
