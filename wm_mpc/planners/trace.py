"""How a search went, for whoever wants to look at it afterwards: never read within a tick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Compared(Protocol):
    """A search that knows which plans it compared last."""

    def candidates(self) -> tuple[Tensor, Tensor]:
        """Plans ``(N, T, A)`` and their costs ``(N,)``; not finite: not usable."""
        ...


@dataclass(frozen=True)
class SearchTrace:
    """What is left of a search, on the device until somebody asks.

    Attributes:
        history: best objective after each chunk of iterations, 0-d tensors.
        search: the search itself.
    """

    history: tuple[Tensor, ...]
    search: Compared

    def cost_history(self) -> Tensor:
        """Best objective after each chunk of iterations, ``(chunks,)``."""
        return torch.stack(self.history) if self.history else torch.empty(0)

    def candidates(self, most: int) -> tuple[Tensor, Tensor]:
        """The best of the plans that the search compared at its end, cheapest first.

        Args:
            most: how many at most.

        Returns:
            Plans ``(N, T, A)`` in model units and costs ``(N,)``, all finite.
        """
        plans, costs = self.search.candidates()
        ordered, rows = costs.nan_to_num(float("inf"), float("inf"), float("inf")).sort()
        count = min(most, int(torch.isfinite(ordered).sum()))
        return plans[rows[:count]], ordered[:count]


__all__ = ["Compared", "SearchTrace"]
