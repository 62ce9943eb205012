"""The planner table at a stated budget: same model, goals and step budget for every planner.

One row per task, goal distance and planner; CEM always runs in full as well, because its time is
what budgets are shares of. With ``curve`` every planner also runs at several budgets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wm_mpc.cli.latency import Latency, report_latency
from wm_mpc.cli.measuring import Measuring, settings_of
from wm_mpc.core.clock import device_clock
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import NonNegativeFloat
from wm_mpc.core.files import write_atomically
from wm_mpc.core.provenance import write_report
from wm_mpc.evaluation.pages import Shown, bench_page
from wm_mpc.evaluation.rows import format_row
from wm_mpc.evaluation.settings import BASELINES, Conditions, EvalSettings
from wm_mpc.evaluation.speed import measure_speed
from wm_mpc.evaluation.table import at_budget, compare, markdown
from wm_mpc.planners.objective import make_objective
from wm_mpc.viz.plots import plot_curve
from wm_mpc.viz.report_page import write_page

CURVE = (0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Config(Measuring, Conditions):
    """Compare planners in the true simulator at one budget.

    Attributes:
        task: tasks, separated by commas: names, or module:TASK.
        planners: planners and baselines (none, random, replay), separated by commas.
        goal_offsets: control steps between start and goal, separated by commas; empty: the task's.
        budget_fraction: planning time per tick as a share of the CEM reference's; 0: no deadline.
        table: measure the table; false: the curve alone.
        curve: also measure success over the budgets 1, 3, 10, 30 and 100 % of CEM's time.
        options: fields of the planners' configurations, planner.name=value.
        latency: measure where a tick's time goes instead of success; see the rows' options.
        rows: rows of the latency report.
        report: JSON file; a page (.html), a table (.md) and, with curve or latency, a plot (.png)
            are written beside it.
    """

    task: str = "pusht"
    planners: str = "cem,mppi,gd,adam,ilqr,grasp,latco"
    goal_offsets: str = ""
    budget_fraction: NonNegativeFloat = 0.1
    table: bool = True
    curve: bool = False
    options: tuple[str, ...] = field(default=(), kw_only=True)
    latency: bool = field(default=False, kw_only=True)
    rows: Latency = field(default_factory=Latency, kw_only=True)
    report: Path | None = field(default=None, kw_only=True)


def run(config: Config) -> int:
    """Measure the table, print it and write the report; the exit code."""
    config.use_threads()
    if config.latency:
        return report_latency(config.rows, config.device, config.seed, config.report)
    found: list[Shown] = []
    curve: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    for task in config.task.split(","):
        model, reference = config.prepare(task, config)
        objective = make_objective(model, config.objective)
        clock = device_clock(model.action_mean.device)
        facts[task] = {
            "cem_reference": reference.as_dict(),
            "gradient_speed": measure_speed(model, objective, clock=clock),
        }
        for spec in table_settings(config, task) if config.table else ():
            found.append(config.measure(spec, model, reference))
            print(format_row(found[-1].row))
        for spec in curve_settings(config, task) if config.curve else ():
            curve.append(config.measure(spec, model, reference).row)
            print(format_row(curve[-1]))
    rows = [entry.row for entry in found]
    comparisons = compare(rows)
    if rows:
        print(markdown(rows))
    if config.report is not None:
        write_report(
            config.report,
            config.seed,
            rows,
            curve=curve,
            comparisons=comparisons,
            tasks=facts,
        )
        if rows:
            write_atomically(config.report.with_suffix(".md"), markdown(rows) + "\n")
        if curve:
            plot_curve(curve, config.report.with_suffix(".png"))
        picture = config.report.with_suffix(".png") if curve else None
        write_page(config.report, lambda: bench_page(found, comparisons, picture))
    return 0


def table_settings(config: Config, task: str) -> Iterator[EvalSettings]:
    """Rows of the table for one task: every planner at the budget, and CEM in full.

    Raises:
        UserError: a goal distance that is no number.
    """
    try:
        offsets = [int(text) for text in config.goal_offsets.split(",") if text] or [0]
    except ValueError as error:
        text = config.goal_offsets
        raise UserError(f"goal_offsets: {text!r}; whole numbers expected") from error
    names = config.planners.split(",")
    for offset in offsets:
        for name in names:
            spec = settings(config, task, name, offset)
            if name == "cem":
                yield replace(spec, budget_fraction=0.0)
            if name != "cem" or config.budget_fraction:
                yield at_budget(spec, config.budget_fraction)


def curve_settings(config: Config, task: str) -> Iterator[EvalSettings]:
    """Rows of the success-over-budget curve for one task; the control period does not cut them."""
    for name in config.planners.split(","):
        for fraction in CURVE if name not in BASELINES else ():
            yield replace(at_budget(settings(config, task, name, 0), fraction), real_time=False)


def settings(config: Config, task: str, planner: str, offset: int) -> EvalSettings:
    """Evaluation settings of one planner."""
    prefix = planner + "."
    options = tuple(o.removeprefix(prefix) for o in config.options if o.startswith(prefix))
    shared = settings_of(config, Conditions) | {"options": options}
    return EvalSettings(task, planner, goal_offset=offset, **shared)
