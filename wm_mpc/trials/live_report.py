"""The report of ``wm-mpc live``: episodes, model changes, and deadline misses by what went on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wm_mpc.core.stats import difference_interval, wilson
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.pages import episode_strips, figures_page, strips_section
from wm_mpc.models.world_model import WorldModel
from wm_mpc.tasks.environments import make_env
from wm_mpc.trials.stage import DemoError
from wm_mpc.viz.report_page import ReportPage

if TYPE_CHECKING:
    from wm_mpc.trials.live_config import Config
    from wm_mpc.trials.live_watch import LiveWatch

IMAGINED = (
    "Imagined, where there is such a row: the plan of the picture before, played in the model "
    "that the run began with, and drawn by its decoder."
)
NEAR_S = 1.0
"""[s] A deadline miss this soon after a model change is counted as near it."""


def summarise(config: Config, watch: LiveWatch, facts: dict[str, Any]) -> dict[str, Any]:
    """Row of the report."""
    episodes = watch.episodes
    n = min(config.window, len(episodes) // 2)
    if not n:
        raise DemoError(f"{len(episodes)} episodes: too few to compare; run for longer")
    first, last = sum(episodes[:n]), sum(episodes[-n:])
    return {
        "task": config.task, "model": "spoiled" if config.action_scale != 1 else "base",
        "mode": "live", "learn": config.learn, "n": n, "episodes": len(episodes),
        "success_by_episode": [int(e) for e in episodes],
        "first": {"success_rate": first / n, "success_ci95": list(wilson(first, n))},
        "last": {"success_rate": last / n, "success_ci95": list(wilson(last, n))},
        "difference_ci95": list(difference_interval(last, n, first, n)),
        "model_changes": len(watch.changes), "rollbacks": watch.changes_back,
        "changes": [
            {"episode": episode, "from": before, "to": after}
            for episode, (_, before, after) in zip(
                watch.episodes_at_changes, watch.changes, strict=True
            )
        ],
        "ticks": len(watch.ticks), "deadline_misses": sum(miss for _, miss in watch.ticks),
        **watch.misses(NEAR_S), "stopped_ticks": watch.stopped,
        "conditions": watch.tally.rows(), "misses": watch.tally.misses, **facts,
    }  # fmt: skip


def format_row(row: dict[str, Any]) -> str:
    """Lines for people."""
    low, high = (100 * bound for bound in row["difference_ci95"])
    lines = [
        f"{row['task']} live: {row['episodes']} episodes, success of the first {row['n']} "
        f"{100 * row['first']['success_rate']:.0f} %, of the last {row['n']} "
        f"{100 * row['last']['success_rate']:.0f} %; difference [{low:.0f}, {high:.0f}] points",
        f"{row['model_changes']} model changes ({row['rollbacks']} back), {row['ticks']} ticks, "
        f"{row['deadline_misses']} deadline misses: {row['misses_near_changes']} in "
        f"{row['ticks_near_changes']} ticks within {NEAR_S:g} s of a change, "
        f"{row['misses_elsewhere']} in {row['ticks_elsewhere']} ticks elsewhere",
    ]
    lines += [condition_line(name, counts) for name, counts in row["conditions"].items()]
    lines += [f"poison {p['kind']}: {p['outcome']}: {p['message']}" for p in row["poison"]]
    if row["kill"]:
        lines.append(kill_line(row["kill"]))
    return "\n".join(lines)


def kill_line(kill: dict[str, Any]) -> str:
    """What became of a trainer that was killed, for people."""
    taken = "nothing reported" if kill["taken_up"] is None else f"{kill['taken_up']} taken up"
    return (
        f"trainer killed with {kill['trajectories_before']} trajectories on disk, {taken}; "
        f"{kill['ticks_while_dead']} ticks meanwhile; "
        f"rounds had seen {kill['used_before']} and saw {kill['used_after']}, "
        f"generations {kill['generations_before']} and {kill['generations_after']}: "
        f"training {'resumed' if kill['resumed'] else 'did NOT resume'}"
    )


def condition_line(name: str, counts: dict[str, Any]) -> str:
    """Deadline misses of one condition, for people."""
    head = f"  {name}: {counts['misses']} misses in {counts['ticks']} planned ticks"
    if not counts["ticks"]:
        return head
    low, high = (100 * bound for bound in counts["ci95"])
    line = f"{head}, {100 * counts['rate']:.1f} % [{low:.1f}, {high:.1f}]"
    if not counts["misses"]:
        return line
    why = ", ".join(f"{count} {cause}" for cause, count in counts["causes"].items() if count)
    return (
        f"{line}; at most {counts['late_ms_max']:.1f} ms late, "
        f"{counts['past_period']} past the period; {why}"
    )


def live_page(
    row: dict[str, Any],
    picture: Path,
    first: Sequence[Episode] = (),
    last: Sequence[Episode] = (),
    model: WorldModel | None = None,
) -> ReportPage:
    """Page of a live run: success over episodes, model changes, misses by what went on.

    Args:
        row: of the report.
        picture: success over episodes, drawn already.
        first: episodes with pictures, of the beginning.
        last: those of the end.
        model: that the run began with; draws what it imagines where it has a decoder.
    """
    heads = ("while", "planned ticks", "misses", "rate, 95 %")
    conditions = [
        (name, counts["ticks"], counts["misses"],
         f"{100 * counts['rate']:.2f} % [{100 * counts['ci95'][0]:.2f}, "
         f"{100 * counts['ci95'][1]:.2f}]" if counts["ticks"] else "-")
        for name, counts in row["conditions"].items()
    ]  # fmt: skip
    changes = [(c["episode"], c["from"], c["to"]) for c in row["changes"]]
    tables = [
        ("In words", ("",), [(line.strip(),) for line in format_row(row).splitlines()]),
        ("Deadline misses", heads, conditions),
        ("Model changes", ("episode", "from", "to"), changes),
    ]
    title = f"{row['task']}: {row['episodes']} episodes while learning"
    pictures = [(picture, "success over episodes; lines mark changes of the model")]
    page = figures_page(title, "", pictures, tables)
    strips = []
    unit = make_env(row["task"]).unwrapped.spec_task.error_unit if first else ""
    for words, episodes in (("first", first), ("last", last)):
        drawn = episode_strips(episodes, unit, model)
        if drawn:
            head = f"Best, median, worst of the {words} {len(episodes)} episodes"
            strips.append(replace(strips_section(drawn, head), note=IMAGINED))
    return replace(page, sections=[*page.sections, *strips])
