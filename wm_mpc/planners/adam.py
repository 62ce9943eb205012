"""Adam without autograd, on the device, for a batch of independent problems."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Adam:
    """Adam's moments of one tensor (Kingma and Ba 2015).

    Args:
        like: the variable, for its shape and device.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.
    """

    def __init__(self, like: Tensor, beta1: float, beta2: float, eps: float) -> None:
        self.m, self.v = torch.zeros_like(like), torch.zeros_like(like)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.count = 0

    def step(self, x: Tensor, grad: Tensor, rate: float) -> Tensor:
        """Return ``x`` after one step along ``grad``; what is not finite counts as zero."""
        grad = torch.nan_to_num(grad, 0.0, 0.0, 0.0)
        self.count += 1
        self.m.lerp_(grad, 1 - self.beta1)
        self.v.mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
        # The bias corrections are folded into the rate and eps, which saves two passes.
        scale = math.sqrt(1 - self.beta2**self.count)
        denominator = self.v.sqrt().add_(self.eps * scale)
        step = rate * scale / (1 - self.beta1**self.count)
        return torch.addcdiv(x, self.m, denominator, value=-step)
