"""The report page: one HTML file with everything in it, no script, no network.

``page.html`` is its template; style and parts are those of ``wm_mpc.viz.report_page``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wm_mpc.core.files import write_atomically
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.kept import Frame
from wm_mpc.evaluation.pages import episode_strips
from wm_mpc.models.world_model import WorldModel
from wm_mpc.tasks.environments import make_env
from wm_mpc.tasks.registry import find_task
from wm_mpc.trials.demo_report import reaction_line
from wm_mpc.trials.film import Film
from wm_mpc.trials.recording import Recording
from wm_mpc.viz import charts, report_page
from wm_mpc.viz.report_page import Strip

_NAMES = {"none": "no action", "random": "random actions"}


def write(
    path: Path, measured: Any, report: Path, films: Sequence[Film], strips: Sequence[Strip] = ()
) -> Path:
    """Write the page.

    Args:
        path: file to write.
        measured: ``wm_mpc.trials.demo_report.Measured``.
        report: the JSON report of the same demo.
        films: what ``wm_mpc.trials.film.write`` returned.
        strips: best, median and worst episode.

    Returns:
        ``path``.
    """
    facts = json.loads(report.read_text())
    row, unit = facts["results"][0], facts["results"][0]["final_error"]["unit"]
    template = report_page.environment(Path(__file__).parent).get_template("page.html")
    page = template.render(
        name=find_task(measured.task).title, row=row, unit=unit, ros=facts["ros"],
        budget=facts["budget"], machine=facts["machine"], steps=measured.steps,
        films=[_film(film, measured.period) for film in films],
        episodes=[_episode(recording, measured.steps) for recording in measured.recordings],
        strips=strips, times=_times(row, facts["ros"]),
        reaction=reaction_line(facts["ros"]["stamp_to_command_ms"]),
        origin=_origin(facts), **_comparison(facts, unit),
        **_histograms(facts["budget"], measured),
    )  # fmt: skip
    write_atomically(path, page)
    return path


def strips(measured: Any, folder: Path) -> list[Strip]:
    """Best, median and worst episode, with what the model of ``folder`` imagined."""
    model = WorldModel.load(folder)
    task = make_env(measured.task).unwrapped
    every, episodes = model.config.frameskip, []
    for recording in measured.recordings:
        episodes.append(kept_episode(recording, task, every))
    return episode_strips(episodes, measured.rows[0]["final_error"]["unit"], model)


def kept_episode(recording: Recording, task: Any, every: int) -> Episode:
    """A recording as an episode with pictures for a film strip.

    Args:
        recording: with a picture at most moments.
        task: environment that knows the robot's posture in a state.
        every: control steps from one kept picture to the next.
    """
    episode = recording.episode()
    episode.goal = recording.goal_image
    moments = list(enumerate(recording.moments))
    for index, moment in moments[:-1:every] + moments[-1:]:
        if moment.image is None:
            continue
        plan = recording.plan_at(index)
        actions = None if plan is None else plan.actions
        proprio = task.proprio(moment.state)
        episode.frames.append(Frame.keep(moment.step, moment.image, proprio, actions))
    return episode


def _film(film: Film, period: float) -> dict[str, str]:
    outcome = "reached its goal" if film.success else "did not reach its goal"
    words = f"Episode {film.episode} {outcome} ({film.steps * period:.1f} s, real time)."
    return {"words": words, "source": report_page.data_uri(film.path.read_bytes(), "image/webp")}


def _comparison(facts: dict[str, Any], unit: str) -> dict[str, Any]:
    """Chart and table of the controller beside random actions and none."""
    lines, bars = [], []
    for row in facts["results"]:
        name = _NAMES.get(row["planner"], row["planner"])
        if "same_goals" in row:
            lines.append(_line(name, "these goals", row["same_goals"]))
        lines.append(_line(name, "these goals" if row["model"] else "more goals", row))
        label = name if row["model"] else f"{name} (n = {row['n']})"
        bars.append((label, row["success_rate"], *row["success_ci95"]))
    block = ["block alone"] if "block_success_rate" in facts["results"][0] else []
    error = f"final error, median [95 % interval], p90 ({unit})"
    heads = ["", "goals", "success [95 % interval]", *block, error]
    return {"bars": charts.intervals(bars), "comparison_heads": heads, "comparison": lines}


def _line(name: str, goals: str, row: dict[str, Any]) -> list[str]:
    error = row["final_error"]
    low, high = error["median_ci95"]
    rate = _rate(row["success_rate"], row["success_ci95"])
    cells = [name, f"{row['n']}, {goals}", f"{row['successes']}/{row['n']} = {rate}"]
    if "block_success_rate" in row:
        cells.append(_rate(row["block_success_rate"], row["block_success_ci95"]))
    return [*cells, f"{error['median']:.3g} [{low:.3g}, {high:.3g}], {error['p90']:.3g}"]


def _episode(recording: Recording, steps: int) -> dict[str, Any]:
    last = recording.moments[-1]
    errors = [moment.errors["error"] for moment in recording.moments]
    pictures = [picture for picture in (last.image, recording.goal_image) if picture is not None]
    return {
        "success": recording.success, "seed": recording.seed, "steps": last.step,
        "error": errors[-1], "pictures": [report_page.png(picture) for picture in pictures],
        "course": charts.sparkline(errors, steps),
    }  # fmt: skip


def _histograms(budget: dict[str, Any], measured: Any) -> dict[str, str]:
    ticks = [tick for recording in measured.recordings for _, tick in recording.thinking()]
    granted, share = budget["budget_ms"], budget["fraction"] * budget["cem_reference_ms"]
    marks = [(granted, f"budget {granted:.1f} ms")]
    if abs(share / granted - 1) > 0.02:  # it would lie on the first one
        marks.append((share, f"{100 * budget['fraction']:.0f} % of CEM {share:.1f} ms"))
    period = measured.period * 1e3
    whole = [(period, f"control period {period:.0f} ms")]
    return {
        "planning": charts.histogram([tick.plan_ms for tick in ticks], marks, "ms"),
        "ticks": charts.histogram([tick.tick_ms for tick in ticks], whole, "ms"),
    }


def _times(row: dict[str, Any], ros: dict[str, Any]) -> list[list[str]]:
    parts = (("encoding", "encode_ms"), ("planning", "plan_ms"), ("whole tick", "tick_ms"))
    lines = [_percentiles(name, row[part]) for name, part in parts]
    reaction = ros["stamp_to_command_ms"]
    if reaction["n"]:
        words = f"camera's stamp to robot's command, over DDS (n = {reaction['n']})"
        lines.append(_percentiles(words, reaction))
    return lines


def _percentiles(name: str, found: dict[str, Any]) -> list[str]:
    return [name, *(f"{found[key]:.2f}" for key in ("p50", "p95", "p99", "max"))]


def _origin(facts: dict[str, Any]) -> dict[str, Any]:
    ros, machine = facts["ros"], facts["machine"]
    return {
        "command": facts["command"],
        "seed": facts["seed"],
        "started": facts["started"],
        "commit": facts["commit"] or "none",
        "model": facts["results"][0]["model_hash"],
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {machine['gpu'] or 'no GPU'}",
        "ROS nodes": ", ".join(ros["nodes"]),
        "middleware": f"{ros['rmw']}, domain {ros['domain']}",
        "versions": ", ".join(f"{name} {value}" for name, value in facts["versions"].items()),
    }


def _rate(rate: float, interval: Sequence[float]) -> str:
    low, high = (100 * bound for bound in interval)
    return f"{100 * rate:.0f} % [{low:.0f}, {high:.0f}]"


__all__ = ["strips", "write"]
