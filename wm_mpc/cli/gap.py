"""``wm-mpc gap``: model error where experts went against where the planner goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tyro.conf import Positional

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeInt
from wm_mpc.core.locations import ASSETS
from wm_mpc.core.provenance import write_report
from wm_mpc.data.formats import open_data
from wm_mpc.evaluation.pages import figures_page
from wm_mpc.evaluation.rollouts import simulator
from wm_mpc.evaluation.train_test_gap import GapConfig, landscape, measure_gap, print_gap
from wm_mpc.latents.expert import load_expert
from wm_mpc.models.world_model import WorldModel
from wm_mpc.viz.plots import draw_gap, draw_landscape
from wm_mpc.viz.report_page import ReportPage, write_page


@dataclass(frozen=True)
class Config(Checked):
    """Measure the train-test gap of one or more models of a task.

    Attributes:
        task: a task's name, or module:TASK.
        data: store of expert trajectories with simulator states.
        models: label=folder, the first is the one the others are compared with; default: the
            bundled model of the task as base.
        tokens: folder of the store's token cache; default: encode the chosen episodes.
        episodes: so many episodes, spread evenly over the store; 0: all.
        held_out: share of the episodes that count as held out; as in training.
        gap: what is measured.
        threads: threads of torch; 0: torch's own choice.
        plot: PNG of the errors per step.
        landscape: PNG of the planning loss around a plan.
        report: JSON file to write; a page (.html) is written beside it.
    """

    task: Positional[str]
    data: Path
    models: tuple[str, ...] = ()
    tokens: Path | None = None
    episodes: NonNegativeInt = 0
    held_out: float = 0.05
    gap: GapConfig = field(default_factory=GapConfig)
    threads: NonNegativeInt = 0
    plot: Path | None = None
    landscape: Path | None = None
    report: Path | None = None

    def folders(self) -> dict[str, Path]:
        """Model folders by label.

        Raises:
            UserError: an entry that is not label=folder, or a label given twice.
        """
        found: dict[str, Path] = {}
        for entry in self.models:
            label, separator, folder = entry.partition("=")
            if not separator or not label or label == "expert" or label in found:
                raise UserError(f"models: {entry!r}; label=folder, each label once, expected")
            found[label] = Path(folder)
        return found or {"base": ASSETS / self.task}


def run(config: Config) -> int:
    """Measure, print the table, draw, write the report; the exit code."""
    if config.threads:
        torch.set_num_threads(config.threads)
    models: dict[str, WorldModel] = {}
    for label, folder in config.folders().items():
        encoder = next(iter(models.values())).encoder if models else None
        models[label] = WorldModel.load(folder, encoder)
    first = next(iter(models.values()))
    store = open_data(config.data)
    distance = config.gap.distance
    expert = load_expert(first, store, distance, config.tokens, config.episodes, config.held_out)
    found = measure_gap(models, simulator(config.task, first), expert, config.gap)
    print_gap(found)
    if config.plot is not None:
        draw_gap(config.plot, found)
    if config.landscape is not None:
        draw_landscape(config.landscape, landscape(models, expert, config.gap))
    if config.report is not None:
        rows = [{"task": config.task, "planner": found["planner"], **row} for row in found["gaps"]]
        hashes = {label: model.hash for label, model in models.items()}
        rest = {name: found[name] for name in ("starts", "unit", "errors", "promises")}
        write_report(
            config.report,
            config.gap.seed,
            rows,
            models=hashes,
            config=asdict(config),
            **rest,
        )
        write_page(config.report, lambda: gap_page(config, found))
    return 0


def gap_page(config: Config, found: dict[str, Any]) -> ReportPage:
    """Errors per step, gaps and promises."""
    pictures = [
        (path, words)
        for path, words in ((config.plot, "error over model steps"),
                            (config.landscape, "planning loss around a plan"))
        if path is not None
    ]  # fmt: skip
    errors = [
        (row["model"], row["trajectories"], row["step"], f"{row['error']:.4f}",
         "[{:.4f}, {:.4f}]".format(*row["error_ci95"]))
        for row in found["errors"]
    ]  # fmt: skip
    gaps = [
        (row["model"], f"{row['gap_mean']:.4f}", "[{:.4f}, {:.4f}]".format(*row["gap_mean_ci95"]),
         f"{100 * row['gone_mean']:.0f} %")
        for row in found["gaps"]
    ]  # fmt: skip
    promises = [
        (row["model"], f"{row['promised']['median']:.3f}", f"{row['reached']['median']:.3f}")
        for row in found["promises"]
    ]
    tables = [
        ("Gap", ("model", "mean gap", "95 %", "of the first gone"), gaps),
        ("Errors", ("model", "trajectories", "model step", "latent RMSE", "95 %"), errors),
        ("Promises", ("model", "plans end, by the model", "in truth (medians)"), promises),
    ]
    lead = f"Model error where experts went against where {found['planner']} goes."
    return figures_page(f"{config.task}: the train-test gap", lead, pictures, tables)
