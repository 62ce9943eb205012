"""What a planner needs of a world model."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Dynamics(Protocol):
    """What a planner may ask of a world model. All calls are differentiable and batched."""

    latent_shape: tuple[int, ...]
    action_width: int

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        """Predict one model step: ``(B, *L), (B, A) -> (B, *L)``."""
        ...

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        """Predict ``T`` steps: ``(B, *L), (B, T, A) -> (B, T, *L)``, the given one excluded."""
        ...
