"""One optimiser step on a batch of plans as a pure function, for kernels that compile or record.

It is the arithmetic of ``GradientSearch`` with everything that changes from step to step in
tensors: the number of steps taken is one of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

STATE = ("x", "m", "v", "best", "best_cost", "first_cost")


def update(
    x: Tensor,
    m: Tensor,
    v: Tensor,
    best: Tensor,
    best_cost: Tensor,
    first_cost: Tensor,
    count: Tensor,
    cost: Tensor,
    grad: Tensor,
    noise: Tensor,
    low: Tensor,
    high: Tensor,
    config: Any,
) -> tuple[Tensor, ...]:
    """State after one step: the evaluated plans are kept where better, and then moved.

    Args:
        x: plans ``(B, T, A)``.
        m: Adam's first moment, ``(B, T, A)``.
        v: Adam's second moment, ``(B, T, A)``.
        best: best plans so far, ``(B, T, A)``.
        best_cost: their costs ``(B,)``.
        first_cost: costs of the starts ``(B,)``.
        count: steps taken before, 0-d float64.
        cost: of ``x``, ``(B,)``.
        grad: at ``x``, ``(B, T, A)``; what is not finite counts as zero.
        noise: standard normal draws, ``(B, T, A)``.
        low: bounds ``(A,)``.
        high: bounds ``(A,)``.
        config: a ``GradientConfig``.

    Returns:
        ``x``, ``m``, ``v``, ``best``, ``best_cost``, ``first_cost``, ``count``.
    """
    first_cost = torch.where(count == 0, cost, first_cost)
    better = cost < best_cost
    best_cost = torch.where(better, cost, best_cost)
    best = torch.where(better[:, None, None], x, best)
    grad = torch.nan_to_num(grad, 0.0, 0.0, 0.0)
    if config.grad_clip:
        norm = grad.square().sum((1, 2)).sqrt().clamp_min(1e-12)
        grad = grad * (config.grad_clip / norm).clamp_max(1.0)[:, None, None]
        grad = torch.nan_to_num(grad, 0.0, 0.0, 0.0)
    count = count + 1
    if config.optimizer == "sgd":
        x = x - config.learning_rate * grad
    else:
        m = m + (1 - config.beta1) * (grad - m)
        v = config.beta2 * v + (1 - config.beta2) * grad * grad
        scale = (1 - config.beta2**count).sqrt()
        rate = (config.learning_rate * scale / (1 - config.beta1**count)).to(x.dtype)
        x = x - rate * m / (v.sqrt() + config.eps * scale.to(x.dtype))
    if config.action_noise:
        x = x + config.action_noise * noise
    return torch.clamp(x, low, high), m, v, best, best_cost, first_cost, count


__all__ = ["STATE", "update"]
