"""Pages of what was measured without ROS: rows, tables, curves, validations, latencies, gaps.

Each function describes a page for ``wm_mpc.viz.report_page.write_page``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_mpc.data.store.windows import Frames, Windows
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.strips import (
    best_median_worst,
    decoder_of,
    imagined_strip,
    predicted_windows,
)
from wm_mpc.evaluation.table import HEADS, cells
from wm_mpc.models.world_model import WorldModel
from wm_mpc.viz.report_page import ReportPage, Section, Strip

IMAGINED_NOTE = (
    "Imagined: the plan of the picture before, played in the model from that picture alone and "
    "drawn by the decoder, which control never uses."
)


@dataclass(frozen=True)
class Shown:
    """A row with what people want to see of it.

    Attributes:
        row: of the report.
        strips: best, median and worst episode.
        plan_ms: [ms] planning, every tick.
        tick_ms: [ms] picture in, command out, every tick.
    """

    row: dict[str, Any]
    strips: list[Strip]
    plan_ms: list[float]
    tick_ms: list[float]


def shown(row: dict[str, Any], episodes: Sequence[Episode], model: WorldModel | None) -> Shown:
    """Draw the strips of a row, so that its episodes need not be kept."""
    strips = episode_strips(episodes, row["final_error"]["unit"], model)
    plan_ms = [ms for episode in episodes for ms in episode.plan_ms]
    tick_ms = [ms for episode in episodes for ms in episode.tick_ms]
    return Shown(row, strips, plan_ms, tick_ms)


def episode_strips(
    episodes: Sequence[Episode], unit: str, model: WorldModel | None
) -> list[Strip]:
    """Best, median and worst episode, with what ``model`` imagined where it has a decoder."""
    decoder = decoder_of(model)
    strips = []
    for name, episode in best_median_worst(episodes):
        found = imagined_strip(episode.frames, model, decoder)
        outcome = "reached the goal" if episode.success else "did not reach the goal"
        words = (
            f"{name}: {outcome} in {episode.steps} steps, error {episode.final_error:.3g} "
            f"{unit} (seed {episode.seed})"
        )
        strips.append(strip_of(words, found.steps, found.came, found.imagined, episode.goal))
    return strips


def strip_of(
    words: str,
    steps: Sequence[Any],
    came: Sequence[np.ndarray | None],
    imagined: Sequence[np.ndarray | None],
    goal: np.ndarray | None = None,
) -> Strip:
    """A strip of camera pictures over imagined ones; ``goal`` closes it."""
    heads = [step if isinstance(step, str) else f"step {step}" for step in steps]
    rows = [("camera", list(came))]
    if any(picture is not None for picture in imagined):
        rows.append(("imagined", list(imagined)))
    if goal is not None:
        heads.append("goal")
        rows = [(name, [*row, goal if name == "camera" else None]) for name, row in rows]
    return Strip(words, heads, rows)


def window_strips(
    model: WorldModel, frames: Frames, windows: Windows, seed: int = 0
) -> list[Strip]:
    """Windows as they came and as the model imagined them; none without a decoder."""
    return [
        strip_of(f"{name}: latent RMSE {error:.3g} at the end", found.steps, found.came,
                 found.imagined)
        for name, error, found in predicted_windows(model, frames, windows, seed=seed)
    ]  # fmt: skip


def strips_section(strips: Sequence[Strip], title: str = "Best, median, worst episode") -> Section:
    """Film strips with what must be known of them."""
    drawn = any(len(strip.rows) > 1 for strip in strips)
    return Section(title, strips=strips, note=IMAGINED_NOTE if drawn else "")


def eval_page(found: Shown) -> ReportPage:
    """Page of one row."""
    row = found.row
    low, high = (100 * bound for bound in row["success_ci95"])
    error = row["final_error"]
    tiles: list[tuple[Any, str]] = [
        (
            f"{100 * row['success_rate']:.0f} %",
            f"success; 95 % interval {low:.0f} to {high:.0f} %",
        ),
        (f"{error['median']:.3g} {error['unit']}", f"median final error; p90 {error['p90']:.3g}"),
    ]
    if row["tick_ms"]["n"]:
        ms = row["tick_ms"]
        tiles.append((f"{ms['p50']:.1f} ms", f"median tick; p99 {ms['p99']:.1f} ms"))
        tiles.append((row["deadline_misses"], f"deadline misses in {ms['n']} ticks"))
    if row["cem_ratio_wall"] is not None:
        tiles.append(
            (f"{100 * row['cem_ratio_wall']:.1f} %", "of the CEM reference's time, median")
        )
    sections = [strips_section(found.strips), Section("Table", tables=[(HEADS, [cells(row)])])]
    if found.plan_ms:
        sections.insert(1, Section("Time", charts=_times(found)))
    how = "one plan, played to its end" if row["mode"] == "open_loop" else "closed loop"
    return ReportPage(
        f"{row['task']}: {row['successes']} of {row['n']} goals reached",
        f"{row['planner']} in the true simulator, {how}, no ROS.", tiles, sections,
    )  # fmt: skip


def _times(found: Shown) -> list[tuple[str, str]]:
    from wm_mpc.viz import charts

    row, marks = found.row, []
    if row.get("cem_reference_ms") and row["budget_fraction"]:
        budget = row["budget_fraction"] * row["cem_reference_ms"]
        marks.append((budget, f"{100 * row['budget_fraction']:g} % of CEM {budget:.1f} ms"))
    return [
        (charts.histogram(found.plan_ms, marks, "ms"), "Planning per tick [ms]"),
        (charts.histogram(found.tick_ms, [], "ms"), "Whole tick, picture to command [ms]"),
    ]


def bench_page(
    found: Sequence[Shown], comparisons: Sequence[dict[str, Any]], curve: Path | None
) -> ReportPage:
    """Page of the planner table, and of success over budgets where that was measured."""
    rows = [entry.row for entry in found]
    sections = []
    if rows:
        sections += [
            Section("Success", charts=[(_intervals(rows), "with 95 % intervals")]),
            Section("Table", tables=[(HEADS, [cells(row) for row in rows])],
                    note=" ".join(map(_comparison, comparisons))),
        ]  # fmt: skip
    if curve is not None and curve.is_file():
        sections.append(
            Section("Success over the budget", charts=[(curve, "one curve a planner")])
        )
    sections += [
        strips_section(
            entry.strips, f"{entry.row['task']}, {entry.row['planner']}{_at(entry.row)}"
        )
        for entry in found
    ]
    tasks = ", ".join(dict.fromkeys(row["task"] for row in rows))
    return ReportPage(f"Planners compared{': ' + tasks if tasks else ''}", sections=sections)


def _at(row: dict[str, Any]) -> str:
    share = f" at {100 * row['budget_fraction']:g} %" if row["budget_fraction"] else " in full"
    return f"{share}, goal {row['goal_offset']}"


def _intervals(rows: Sequence[dict[str, Any]]) -> str:
    from wm_mpc.viz import charts

    return charts.intervals(
        [
            (f"{row['task']} {row['planner']}{_at(row)}", row["success_rate"],
             *row["success_ci95"])
            for row in rows
        ]
    )  # fmt: skip


def _comparison(facts: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in facts["difference_ci95"])
    return (
        f"{facts['task']}, goal {facts['goal_offset']}: best gradient planner {facts['planner']}, "
        f"{100 * facts['difference']:+.0f} points [{low:+.0f}, {high:+.0f}] against CEM in full."
    )


def validation_page(
    facts: dict[str, Any], said: Sequence[str], picture: Path, strips: Sequence[Strip]
) -> ReportPage:
    """Page of a validation.

    Args:
        facts: row of the report.
        said: the figures in lines.
        picture: curves, drawn already.
        strips: windows predicted open loop.
    """
    title = f"{facts['task']}: model {facts['model'] or 'unsaved'} against data"
    return ReportPage(title, sections=_against_data(said, picture, strips))


def _against_data(said: Sequence[str], picture: Path, strips: Sequence[Strip]) -> list[Section]:
    figures = [line.strip().partition(": ")[::2] for line in said[1:]]
    sections = [Section("Figures", tables=[(("measure", "value"), figures)])] if figures else []
    if figures and picture.is_file():
        sections.append(
            Section("Latent over true distance; open-loop error", charts=[(picture, "")])
        )
    if strips:
        note = "Imagined: the recorded actions, played in the model from the first picture alone."
        title = "Open loop: best, median and worst window"
        sections.append(Section(title, strips=strips, note=note))
    return sections


def training_page(
    facts: dict[str, Any], said: Sequence[str], folder: Path, strips: Sequence[Strip]
) -> ReportPage:
    """Page of a training run.

    Args:
        facts: row of the report.
        said: what its validation found, in lines; empty: there was none.
        folder: of the model, with the pictures drawn already.
        strips: held-out windows predicted open loop.
    """
    data = facts["data"]
    tiles = [
        (f"{facts['seconds'] / 60:.3g} min", "training, all stages"),
        (data["episodes"], f"episodes, {data['frames']} pictures, {data['steps']} control steps"),
    ]
    curves = folder / "training.png", "loss and open-loop error"
    sections = [Section("Dynamics", charts=[curves])]
    sections += _against_data(said, folder / "validation.png", strips)
    return ReportPage(f"{facts['task']}: a model of layout {facts['layout']}", "", tiles, sections)


def figures_page(
    title: str,
    lead: str = "",
    pictures: Sequence[tuple[Path, str]] = (),
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Any]]]] = (),
) -> ReportPage:
    """Page of pictures that were drawn already, and of tables (title, heads, rows)."""
    drawn = [(path, words) for path, words in pictures if path.is_file()]
    sections = [Section("Pictures", charts=drawn)] if drawn else []
    sections += [Section(name, tables=[(heads, rows)]) for name, heads, rows in tables if rows]
    return ReportPage(title, lead, sections=sections)


def table_of(text: str) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of a Markdown table."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return lines[0], lines[2:]


__all__ = ["Shown", "bench_page", "episode_strips", "eval_page", "figures_page", "shown",
           "strip_of", "strips_section", "table_of", "training_page", "validation_page",
           "window_strips"]  # fmt: skip
