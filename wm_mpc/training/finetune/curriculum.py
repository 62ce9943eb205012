"""Curricula: short predictions and near goals first, longer and further ones later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked


@dataclass(frozen=True)
class CurriculumConfig(Checked):
    """What grows while training goes on; equal ends switch a curriculum off.

    Attributes:
        rollout: first and last number of model steps that the loss predicts open loop, from the
            model's own predictions; ``1 1`` is teacher forcing, the published loss.
        goal_distance: first and last number of model steps between start and goal of the plans
            that online fine-tuning executes, which is also their horizon; ``5 5`` as published.
        share: part of the training after which the last values are reached, in (0, 1].
    """

    rollout: tuple[int, int] = (1, 1)
    goal_distance: tuple[int, int] = (5, 5)
    share: Annotated[float, Gt(0), Le(1)] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rollout", "goal_distance"):
            first, last = getattr(self, name)
            if not 1 <= first <= last:
                raise UserError(f"{name}: {first} {last}; 1 <= first <= last expected")

    def rollout_at(self, progress: float) -> int:
        """Model steps predicted open loop after this part of the training, in [0, 1]."""
        return staircase(self.rollout, progress / self.share)

    def distance_at(self, progress: float) -> int:
        """Model steps between start and goal after this part of the training, in [0, 1]."""
        return staircase(self.goal_distance, progress / self.share)


def staircase(ends: tuple[int, int], progress: float) -> int:
    """Whole numbers from ``ends[0]`` to ``ends[1]``, each held equally long; the last from 1 on.

    >>> [staircase((1, 3), p) for p in (0, 0.4, 0.5, 0.99, 1, 2)]
    [1, 1, 2, 2, 3, 3]
    """
    first, last = ends
    return min(last, first + int(max(0.0, progress) * (last - first)))


__all__ = ["CurriculumConfig", "staircase"]
