"""The report page: one HTML file with everything in it, no script, no network."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wm_mpc.core.files import write_atomically
from wm_mpc.trials.film import Film
from wm_mpc.trials.recording import Recording
from wm_mpc.viz import charts

_CSS = Path(__file__).with_name("page.css")
_TITLES = {"pusht": "Push-T", "wall": "Wall", "point_maze": "PointMaze"}
_NAMES = {"none": "no action", "random": "random actions"}


def write(path: Path, measured: Any, report: Path, films: Sequence[Film]) -> Path:
    """Write the page.

    Args:
        path: file to write.
        measured: ``wm_mpc.trials.demo_report.Measured``.
        report: the JSON report of the same demo.
        films: what ``wm_mpc.trials.film.write`` returned.

    Returns:
        ``path``.
    """
    facts = json.loads(report.read_text())
    unit = facts["results"][0]["final_error"]["unit"]
    name = _TITLES.get(measured.task, measured.task)
    parts = [
        _headline(facts, name),
        _tiles(facts, unit),
        _films(films, measured.period),
        _comparison(facts, unit),
        _strip(measured, unit),
        _timing(facts, measured),
        _provenance(facts),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>wm_mpc: {escape(name)} over ROS 2</title><style>{_CSS.read_text()}</style>"
        f"</head><body><main>{''.join(parts)}</main></body></html>\n"
    )
    write_atomically(path, page)
    return path


def _headline(facts: dict[str, Any], name: str) -> str:
    row, ros = facts["results"][0], facts["ros"]
    return (
        f"<h1>{escape(name)}: {row['successes']} of {row['n']} goals reached</h1>"
        f"<p>Planner <code>{escape(row['planner'])}</code> drove the simulated robot from camera "
        f"pictures to goal pictures at {ros['control_rate_hz']:.1f} Hz, over "
        f"<code>{escape(ros['rmw'])}</code> between processes of their own.</p>"
    )


def _tiles(facts: dict[str, Any], unit: str) -> str:
    row, budget = facts["results"][0], facts["budget"]
    wall = budget["cem_ratio_wall"]
    transitions = row["cem_ratio_transitions"]
    tiles = [
        _rate_tile("success", row["success_rate"], row["success_ci95"]),
        (f"{row['final_error']['median']:.3g} {unit}", "median final error"),
        (f"{row['tick_ms']['p50']:.0f} ms", f"median tick; p99 {row['tick_ms']['p99']:.0f} ms"),
        (f"{100 * wall['p50']:.1f} %", "of the CEM reference's time, median"),
        (f"{100 * transitions:.1f} %", "of its model transitions"),
        (str(row["deadline_misses"]), f"deadline misses in {row['tick_ms']['n']} ticks"),
    ]
    if "block_success_rate" in row:
        block = _rate_tile("block alone", row["block_success_rate"], row["block_success_ci95"])
        tiles.insert(1, block)
    cells = (
        f'<div class="tile"><b>{escape(value)}</b><span class="soft">{escape(label)}</span></div>'
        for value, label in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _rate_tile(name: str, rate: float, interval: Sequence[float]) -> tuple[str, str]:
    low, high = (100 * bound for bound in interval)
    return f"{100 * rate:.0f} %", f"{name}; 95 % interval {low:.0f} to {high:.0f} %"


def _films(films: Sequence[Film], period: float) -> str:
    figures = []
    for film in films:
        outcome = "reached its goal" if film.success else "did not reach its goal"
        words = f"Episode {film.episode} {outcome} ({film.steps * period:.1f} s, real time)."
        source = _data_uri(film.path.read_bytes(), "image/webp")
        figures.append(
            f'<figure class="film"><img src="{source}" alt="{escape(words)}">'
            f"<figcaption>{escape(words)}</figcaption></figure>"
        )
    return (
        f'<h2>Camera, goal and plan</h2><div class="films">{"".join(figures)}</div>'
        '<p class="note">Orange: the plan in force, played in the simulator from the true state; '
        "dots are the robot's path, outlines how things would lie at its end. The controller sees "
        "the small pictures only.</p>"
    )


def _comparison(facts: dict[str, Any], unit: str) -> str:
    rows, bars = [], []
    for row in facts["results"]:
        name = _NAMES.get(row["planner"], row["planner"])
        rows.append(_table_row(name, "these goals" if row["model"] else "more goals", row, unit))
        if "same_goals" in row:
            rows.insert(-1, _table_row(name, "these goals", row["same_goals"], unit))
        label = name if row["model"] else f"{name} (n = {row['n']})"
        bars.append((label, row["success_rate"], *row["success_ci95"]))
    heads = ["", "goals", "success [95 % interval]"]
    if "block_success_rate" in facts["results"][0]:
        heads.append("block alone")
    heads.append(f"final error, median [95 % interval], p90 ({unit})")
    head = "".join(f"<th>{escape(words)}</th>" for words in heads)
    return (
        f"<h2>Against random actions and no action</h2>{charts.intervals(bars)}"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _table_row(name: str, goals: str, row: dict[str, Any], unit: str) -> str:
    error = row["final_error"]
    low, high = error["median_ci95"]
    rate = _rate(row["success_rate"], row["success_ci95"])
    cells = [
        name,
        f"{row['n']}, {goals}",
        f"{row['successes']}/{row['n']} = {rate}",
    ]
    if "block_success_rate" in row:
        cells.append(_rate(row["block_success_rate"], row["block_success_ci95"]))
    cells.append(f"{error['median']:.3g} [{low:.3g}, {high:.3g}], {error['p90']:.3g}")
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _strip(measured: Any, unit: str) -> str:
    tiles = [
        _episode(number, recording, measured.steps, unit)
        for number, recording in enumerate(measured.recordings, 1)
    ]
    return (
        '<h2>Episodes</h2><p class="note">Last camera picture and goal picture; below, the error '
        f"over at most {measured.steps} control steps.</p>"
        f'<div class="strip">{"".join(tiles)}</div>'
    )


def _episode(number: int, recording: Recording, steps: int, unit: str) -> str:
    last = recording.moments[-1]
    errors = [moment.errors["error"] for moment in recording.moments]
    pictures = [picture for picture in (last.image, recording.goal_image) if picture is not None]
    shown = "".join(f'<img src="{_png(picture)}" alt="">' for picture in pictures)
    kind = "episode good" if recording.success else "episode"
    outcome = "reached" if recording.success else "missed"
    return (
        f'<div class="{kind}" title="seed {recording.seed}"><b><span>{number}</span>'
        f'<span>{outcome}</span></b><div class="pictures">{shown}</div>'
        f"{charts.sparkline(errors, steps)}"
        f'<span class="soft">{last.step} steps, {errors[-1]:.3g} {escape(unit)}</span></div>'
    )


def _timing(facts: dict[str, Any], measured: Any) -> str:
    budget, row = facts["budget"], facts["results"][0]
    ticks = [tick for recording in measured.recordings for _, tick in recording.thinking()]
    share = budget["fraction"] * budget["cem_reference_ms"]
    planning = charts.histogram(
        [tick.plan_ms for tick in ticks],
        _distinct(
            (budget["budget_ms"], f"budget {budget['budget_ms']:.1f} ms"),
            (share, f"{100 * budget['fraction']:.0f} % of CEM {share:.1f} ms"),
        ),
        "ms",
    )
    period = measured.period * 1e3
    whole = charts.histogram(
        [tick.tick_ms for tick in ticks], [(period, f"control period {period:.0f} ms")], "ms"
    )
    figures = (
        f"<figure>{planning}<figcaption>Planning per tick [ms]</figcaption></figure>"
        f"<figure>{whole}<figcaption>Whole tick, image to command [ms]</figcaption></figure>"
    )
    return (
        f'<h2>Time</h2><div class="charts">{figures}</div>{_percentiles(row)}{_over(budget)}'
        f"{_busy(facts)}"
    )


def _distinct(*marks: tuple[float, str]) -> list[tuple[float, str]]:
    """Marks without those that would lie on the first one."""
    first = marks[0]
    return [first, *(mark for mark in marks[1:] if abs(mark[0] / first[0] - 1) > 0.02)]


def _percentiles(row: dict[str, Any]) -> str:
    keys = ("p50", "p95", "p99", "max")
    head = "".join(f"<th>{key} [ms]</th>" for key in keys)
    lines = []
    parts = (("encoding", "encode_ms"), ("planning", "plan_ms"), ("whole tick", "tick_ms"))
    for name, key in parts:
        cells = "".join(f"<td>{row[key][column]:.2f}</td>" for column in keys)
        lines.append(f"<tr><td>{name}</td>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _over(budget: dict[str, Any]) -> str:
    """Say which ticks took more than their share, and why."""
    over, share = budget["ticks_over"], 100 * budget["fraction"]
    total, reference = budget["planning_ticks"], budget["cem_reference_ms"]
    measured = f"CEM 300 x 30 took {reference:.1f} ms here with this model."
    if not over:
        words = f"{measured} None of {total} ticks took more than {share:.0f} %."
        return f'<p class="note">{words}</p>'
    worst = sorted(over, key=lambda entry: -entry["cem_ratio_wall"])[:8]
    items = "".join(
        f"<li>episode {entry['episode']}, step {entry['step']}: {entry['plan_ms']:.1f} ms = "
        f"{100 * entry['cem_ratio_wall']:.1f} %; {escape(entry['why'])}</li>"
        for entry in worst
    )
    return (
        f'<p class="note">{measured} {len(over)} of {total} ticks took more than {share:.0f} %; '
        f'the worst:</p><ul class="note">{items}</ul>'
    )


def _busy(facts: dict[str, Any]) -> str:
    """Say when other work kept the processor from the nodes."""
    load, cores = facts["ros"]["load_average"], facts["machine"]["cores"]
    if load <= cores:
        return ""
    return (
        f'<p class="note">The machine was busy: {load:.1f} processes wanted to run at a time, on '
        f"{cores} cores. Times and success suffer from that.</p>"
    )


def _provenance(facts: dict[str, Any]) -> str:
    row, ros, machine = facts["results"][0], facts["ros"], facts["machine"]
    entries = {
        "command": facts["command"],
        "seed": facts["seed"],
        "started": facts["started"],
        "commit": facts["commit"] or "none",
        "model": row["model_hash"],
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {machine['gpu'] or 'no GPU'}",
        "ROS nodes": ", ".join(ros["nodes"]),
        "middleware": f"{ros['rmw']}, domain {ros['domain']}",
        "versions": ", ".join(f"{name} {value}" for name, value in facts["versions"].items()),
    }
    lines = [f"<dt>{name}</dt><dd>{escape(str(text))}</dd>" for name, text in entries.items()]
    return f"<h2>Where this comes from</h2><dl>{''.join(lines)}</dl>"


def _rate(rate: float, interval: Sequence[float]) -> str:
    low, high = (100 * bound for bound in interval)
    return f"{100 * rate:.0f} % [{low:.0f}, {high:.0f}]"


def _png(picture: np.ndarray) -> str:
    _, data = cv2.imencode(".png", picture[:, :, ::-1])
    return _data_uri(data.tobytes(), "image/png")


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


__all__ = ["write"]
