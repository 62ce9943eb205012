"""What the commands that measure share: model, processes, report."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from wm_mpc.core.clock import device_clock
from wm_mpc.core.fields import Checked, NonNegativeInt, PositiveInt
from wm_mpc.core.locations import ASSETS
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.pages import Shown, shown
from wm_mpc.evaluation.rows import evaluate
from wm_mpc.evaluation.settings import EvalSettings
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.budget import CemReference
from wm_mpc.planners.objective import make_objective


@dataclass(frozen=True, kw_only=True)
class Measuring(Checked):
    """How rows are measured.

    Attributes:
        model: world-model folder; unset: the bundled one of the task.
        label: name of the model in the report.
        threads: threads of torch; 0: torch's own choice.
        workers: processes; timings, and budgets in time, mean something with 1 only.
        ray: share the episodes on a Ray cluster (RAY_ADDRESS, or a local one of ``workers``).
        report: JSON file to write; a page (.html) is written beside it.
    """

    model: Path | None = None
    label: str = "base"
    threads: NonNegativeInt = 0
    workers: PositiveInt = 1
    ray: bool = False
    report: Path | None = None

    def use_threads(self) -> None:
        """Tell torch how many threads it has."""
        if self.threads:
            torch.set_num_threads(self.threads)

    def prepare(self, task: str, settings: Any) -> tuple[WorldModel, CemReference]:
        """Load the model of a task and time the CEM reference with it.

        Args:
            task: task name.
            settings: ``Conditions``: device, goal cost, compiled or not.
        """
        model = WorldModel.load(self.model or ASSETS / task, device=settings.device)
        objective = make_objective(model, settings.objective)
        clock = device_clock(model.action_mean.device)
        return model, CemReference.calibrate(model, objective, clock, settings.compile)

    def measure(
        self, spec: EvalSettings, model: WorldModel | None, reference: CemReference | None
    ) -> Shown:
        """One row of the report, with what its page shows."""
        episodes: list[Episode] = []
        row = evaluate(
            model,
            **settings_of(spec),
            reference=reference,
            workers=self.workers,
            label=self.label,
            ray=self.ray,
            seen=episodes,
        )
        return shown(row, episodes if self.report else [], model)


def settings_of(config: Any, kind: type = EvalSettings) -> dict[str, Any]:
    """The fields of ``kind`` in an instance of a class that extends it."""
    return {item.name: getattr(config, item.name) for item in fields(kind)}


__all__ = ["Measuring", "settings_of"]
