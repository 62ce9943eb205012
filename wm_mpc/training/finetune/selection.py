"""Which weights of a run are kept: those that reach most goals, not those of the lowest loss.

The training loss does not tell success (docs/world_model.md), so some goals in the true simulator
decide. They are drawn from a seed of their own: figures to report need another one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from wm_mpc.core.fields import Checked, NonNegativeInt, PositiveInt
from wm_mpc.evaluation.rows import evaluate
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.optimise.loop import Probe


@dataclass(frozen=True)
class SelectionConfig(Checked):
    """Closed-loop evaluation that picks the weights.

    Attributes:
        goals: episodes per measurement; 0: keep the last weights, measure nothing.
        every: optimiser steps between two measurements.
        seed: of the episodes; choose another one for the figures you report.
        planner: registry name.
        options: fields of the planner's configuration, name=value.
        replan_every: control steps between two plans.
        patience: stop after this many measurements without a new best; 0: never.
    """

    goals: NonNegativeInt = 30
    every: PositiveInt = 500
    seed: NonNegativeInt = 7919
    planner: str = "adam"
    options: tuple[str, ...] = ()
    replan_every: PositiveInt = 1
    patience: NonNegativeInt = 0

    def measure(self, model: WorldModel, task: str, label: str = "base") -> dict[str, Any]:
        """Row of ``evaluation.evaluate`` for the model as it is."""
        return evaluate(
            model, task, self.planner, self.goals, self.seed, progress=False, label=label,
            options=self.options, replan_every=self.replan_every,
        )  # fmt: skip

    def probe(self, model: WorldModel, task: str) -> Probe | None:
        """What ``fit`` asks during training; None where nothing is measured."""
        if not self.goals:
            return None

        def measure() -> float:
            return success_score(self.measure(model, task))

        return Probe(measure, self.every, self.patience, asdict(self))


def success_score(row: dict[str, Any]) -> float:
    """Success rate of an evaluation row; equal ones are told apart by the median final error."""
    error = row["final_error"]["median"]
    closeness = 1 / (1 + error) if math.isfinite(error) else 0.0
    return row["success_rate"] + 1e-4 * closeness
