"""The page of a robot trial: goals, distances over time, and film strips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_mpc.data.goals import RobotGoal
from wm_mpc.evaluation.pages import strip_of, strips_section
from wm_mpc.models.decoder import Decoder
from wm_mpc.trials.robot_trial import PICTURE_S, Attempt
from wm_mpc.viz.report_page import ReportPage, Section, Strip

_SHOWN = 10


def trial_page(
    found: dict[str, Any],
    attempts: Sequence[Attempt],
    goals: Sequence[RobotGoal],
    model: Path | None,
) -> ReportPage:
    """Describe the page.

    Args:
        found: row of the report, with one row per attempt under ``goals``.
        attempts: what became of the goals.
        goals: of the folder; attempts tell their numbers.
        model: folder with a decoder that draws imagined latents; None: none are drawn.

    Raises:
        CheckpointError: no usable decoder in ``model``.
    """
    from wm_mpc.viz import charts

    rows = found["goals"]
    low, high = (100 * bound for bound in found["success_ci95"])
    held = sum(row["held"] for row in rows)
    error = found["final_error"]
    tiles = [
        (f"{100 * found['success_rate']:.0f} %", f"held; 95 % interval {low:.0f} to {high:.0f} %"),
        (found["at_end"], f"of {found['n']} there at the end"),
        (found["ever"], f"of {found['n']} there at some time"),
        (f"{error['median']:.3g}", f"median distance at the end; p90 {error['p90']:.3g}"),
    ]
    heads = ("goal", "held", "at the end", "ever", "first after [s]", "distance at the start",
             "distance at the end")  # fmt: skip
    table = [
        (row["goal"], *("yes" if row[key] else "no" for key in ("held", "at_end", "ever")),
         "-" if row["first_s"] is None else f"{row['first_s']:.1f}",
         f"{row['start_distance']:.3f}", f"{row['end_distance']:.3f}")
        for row in rows
    ]  # fmt: skip
    courses = [
        (charts.sparkline(_thinned(attempt.distances), 100), f"goal {attempt.number}")
        for attempt in attempts
    ]
    sections = [
        strips_section(_strips(rows, attempts, goals, model), "Best, median, worst goal"),
        Section("Goals", tables=[(heads, table)]),
        Section("Distance over time", charts=courses),
    ]
    dry = ", in a dry run: nothing was commanded" if found["dry_run"] else ""
    lead = f"Planner {found['planner']}, model {found['model']}, goals by {found['goal']}{dry}."
    return ReportPage(f"{held} of {found['n']} goals reached and held", lead, tiles, sections)


def _thinned(values: Sequence[float], most: int = 101) -> list[float]:
    """At most so many values, evenly over time; those that are not finite left out."""
    some = np.array(values)[np.linspace(0, len(values) - 1, most).round().astype(int)]
    return some[np.isfinite(some)].tolist() or [0.0]


def _strips(
    rows: Sequence[dict[str, Any]], attempts: Sequence[Attempt], goals: Sequence[RobotGoal],
    model: Path | None,
) -> list[Strip]:  # fmt: skip
    decoder = None if model is None else Decoder.load(model)
    order = sorted(range(len(rows)), key=lambda k: (not rows[k]["held"], rows[k]["end_distance"]))
    places = {0: "best", len(order) // 2: "median", len(order) - 1: "worst"}
    if len(order) < 3:
        places = dict(zip(range(len(order)), ("best", "worst"), strict=False))
    strips = []
    for place, name in places.items():
        row, attempt = rows[order[place]], attempts[order[place]]
        words = f"{name}: goal {row['goal']}, distance at the end {row['end_distance']:.3f}"
        count = len(attempt.images)
        some = np.unique(np.linspace(0, count - 1, _SHOWN).round().astype(int)).tolist()
        drawn = [
            None if decoder is None or not k else foreseen(attempt, some[k - 1], index, decoder)
            for k, index in enumerate(some)
        ]
        heads = [f"{index * PICTURE_S:.1f} s" for index in some]
        came = [attempt.images[index] for index in some]
        strips.append(strip_of(words, heads, came, drawn, goals[attempt.number].image))
    return strips


def foreseen(
    attempt: Attempt, earlier: int, index: int, decoder: Decoder
) -> np.ndarray | None:
    """What the newest plan that reaches picture ``index`` so far ahead had imagined of it.

    Args:
        attempt: with the plan at each of its pictures.
        earlier: number of the picture from which on plans are asked.
        index: number of the picture that is foreseen.
        decoder: of the model that imagined.

    Returns:
        uint8 ``(S, S, 3)`` RGB; None where no plan was told or none reaches.
    """
    size = int(np.prod(decoder.config.latent_shape))
    for begin in range(earlier, index):
        plan = attempt.plans[begin]
        if plan is None or len(plan.imagined) % size:
            continue
        latents = torch.tensor(plan.imagined).reshape(-1, *decoder.config.latent_shape)
        step = plan.dt * plan.horizon / max(1, len(latents) - 1)
        place = round((index - begin) * PICTURE_S / step)
        if 0 < place < len(latents):
            return decoder.decode(latents[place]).numpy()
    return None


__all__ = ["foreseen", "trial_page"]
