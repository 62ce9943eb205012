"""What the demo measured, as rows: the controller, random actions and no action on the same goals.

The baselines run in the true simulator without ROS, on the demo's starts and goals and on further
ones of the same sequence, which makes their intervals narrow at little cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from wm_mpc.core.stats import median_interval, percentile, summary_ms, wilson
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.jobs import run_episodes
from wm_mpc.evaluation.rows import summarise
from wm_mpc.evaluation.settings import EvalSettings
from wm_mpc.planners.budget import CemReference
from wm_mpc.tasks.environments import make_env
from wm_mpc.trials.recording import Recording, Tick

BUDGET_FRACTION = 0.10
"""Share of the CEM reference's time that a tick's planning may take."""
BASELINES = ("random", "none")
_SLOW = 1.5  # an iteration this much slower than usual was not computing all the time


@dataclass(frozen=True)
class Measured:
    """Outcome of a demo.

    Attributes:
        task: task name.
        seed: seed of the demo.
        steps: control-step budget of an episode.
        period: control period [s].
        recordings: one per episode, in order.
        rows: results, the controller's first.
        budget: see :func:`budget_facts`.
        ros: middleware, nodes and rates.
    """

    task: str
    seed: int
    steps: int
    period: float
    recordings: tuple[Recording, ...]
    rows: tuple[dict[str, Any], ...]
    budget: dict[str, Any]
    ros: dict[str, Any]


def controller_row(task: str, seed: int, steps: int, recordings: list[Recording]) -> dict:
    """Row of the episodes that were observed over ROS."""
    ticks = [tick for recording in recordings for _, tick in recording.thinking()]
    last = ticks[-1]
    reference = CemReference(
        last.cem_reference_ms / 1e3, last.transitions_reference, 0, 0, 0, "", 0
    )
    spec = EvalSettings(
        task, last.planner, goals=len(recordings), seed=seed, steps=steps,
        budget_fraction=BUDGET_FRACTION,
    )
    episodes = [recording.episode() for recording in recordings]
    row = _row(spec, episodes, reference)
    row["encode_ms"] = summary_ms([tick.encode_ms for tick in ticks])
    row["model_hash"] = last.model_hash
    row["ticks_not_running"] = sum(len(recording.stops()) for recording in recordings)
    return row


def baseline_row(task: str, planner: str, seed: int, steps: int, same: int, goals: int) -> dict:
    """Row of a baseline.

    Args:
        task: task name.
        planner: ``random`` or ``none``.
        seed: seed of the demo.
        steps: control-step budget.
        same: episodes of the demo; the first ``same`` goals are its goals.
        goals: episodes of the row, at least ``same``.
    """
    spec = EvalSettings(task, planner, goals=goals, seed=seed, steps=steps)
    runs = run_episodes(None, spec, None, workers=1, ray=False)
    bar = tqdm(runs, desc=f"{planner:>6}", total=goals, unit="ep", leave=False, mininterval=1)
    episodes = list(bar)
    row = _row(spec, episodes, None)
    row["same_goals"] = _summary(episodes[:same])
    return row


def _row(spec: EvalSettings, episodes: list[Episode], reference: CemReference | None) -> dict:
    task = make_env(spec.task).unwrapped
    row = summarise(spec, episodes, reference, "base", 1, task)
    row["final_error"]["median_ci95"] = list(median_interval([e.final_error for e in episodes]))
    if "block_success_rate" in row:
        row["block_success_ci95"] = list(wilson(_block_successes(episodes), len(episodes)))
    return row


def _summary(episodes: list[Episode]) -> dict[str, Any]:
    n, successes = len(episodes), sum(episode.success for episode in episodes)
    errors = [episode.final_error for episode in episodes]
    summary = {
        "n": n,
        "successes": successes,
        "success_rate": successes / n,
        "success_ci95": list(wilson(successes, n)),
        "final_error": {
            "median": median(errors),
            "p90": percentile(errors, 90),
            "median_ci95": list(median_interval(errors)),
        },
    }
    if all("block_success" in episode.info for episode in episodes):
        blocks = _block_successes(episodes)
        summary["block_success_rate"] = blocks / n
        summary["block_success_ci95"] = list(wilson(blocks, n))
    return summary


def _block_successes(episodes: list[Episode]) -> int:
    return sum(bool(episode.info["block_success"]) for episode in episodes)


def per_episode(recordings: list[Recording]) -> list[dict[str, Any]]:
    """One dict per episode: seed, outcome, steps, errors at start and end, tick times."""
    rows = []
    for number, recording in enumerate(recordings, 1):
        start, end = recording.moments[0], recording.moments[-1]
        episode = recording.episode()
        rows.append(
            {
                "episode": number,
                "seed": recording.seed,
                "success": episode.success,
                "steps": episode.steps,
                "start_error": start.errors["error"],
                "final_error": end.errors["error"],
                "final_errors": dict(end.errors),
                "planning_ticks": len(episode.plan_ms),
                "tick_ms_p50": percentile(episode.tick_ms, 50),
                "plan_ms_max": max(episode.plan_ms, default=float("nan")),
                "deadline_misses": episode.late,
                "reasons_not_running": sorted(set(recording.stops())),
            }
        )
    return rows


def budget_facts(recordings: list[Recording]) -> dict[str, Any]:
    """How planning time compares with the CEM reference, tick by tick.

    ``ticks_over`` lists every tick that took more than its share: where, how much, and why.
    """
    where = list(_planning(recordings))
    ratios = [tick.cem_ratio_wall for _, _, tick, _ in where]
    pace = [tick.plan_ms / tick.iterations for _, _, tick, _ in where if tick.iterations]
    usual = median(pace) if pace else float("nan")
    over = [entry for entry in where if entry[2].cem_ratio_wall > BUDGET_FRACTION]
    last = where[-1][2]
    return {
        "fraction": BUDGET_FRACTION,
        "budget_ms": last.budget_ms,
        "cem_reference_ms": last.cem_reference_ms,
        "cem_reference_transitions": last.transitions_reference,
        "cem_ratio_wall": {
            "p50": percentile(ratios, 50), "p99": percentile(ratios, 99), "max": max(ratios),
        },
        "planning_ticks": len(where),
        "ticks_over": [
            {
                "episode": episode,
                "step": step,
                "plan_ms": tick.plan_ms,
                "cem_ratio_wall": tick.cem_ratio_wall,
                "why": _why_over(tick, before, usual),
            }
            for episode, step, tick, before in over
        ],
    }  # fmt: skip


def _planning(recordings: list[Recording]) -> Iterator[tuple[int, int, Tick, Tick | None]]:
    """Episode, step, tick, and the planning tick before it in the same episode."""
    for number, recording in enumerate(recordings, 1):
        before = None
        for step, tick in recording.thinking():
            yield number, step, tick, before
            before = tick


def _why_over(tick: Tick, before: Tick | None, usual: float) -> str:
    """Say why planning took more than its share of the reference's time.

    Args:
        tick: the one that took more.
        before: the one before it.
        usual: median duration of an iteration in all ticks [ms].
    """
    if tick.plan_ms <= tick.budget_ms:
        return f"the node was configured with a larger budget: {tick.budget_ms:.2f} ms"
    if not tick.iterations:
        return "not even one iteration ended within the budget"
    if before is not None and not before.iterations:
        return "nothing was evaluated in the tick before, so that the whole period was granted"
    each = tick.plan_ms / tick.iterations
    if each > _SLOW * usual:
        return (
            f"an iteration took {each:.2f} ms instead of {usual:.2f} ms: the planner shared its "
            "processor with other work"
        )
    return f"{tick.iterations} iterations of {each:.2f} ms ended after the deadline"


def rates(recordings: list[Recording]) -> dict[str, float]:
    """Rate at which the simulator really ran, and how evenly."""
    gaps = np.concatenate(
        [np.diff([moment.stamp for moment in recording.moments]) for recording in recordings]
    )
    return {
        "control_rate_hz": float(1 / gaps.mean()),
        "period_ms_p50": float(np.median(gaps) * 1e3),
        "period_ms_max": float(gaps.max() * 1e3),
    }


def reaction(recordings: list[Recording], simulated: bool) -> dict[str, Any]:
    """From the stamp of the camera's picture to the arrival of the robot's command, over DDS.

    Args:
        recordings: one per episode.
        simulated: stamps are of a simulated clock, commands come by the wall clock.

    Returns:
        p50, p95, p99, max [ms], n and ``ticks_without``: planning ticks whose command was not
        heard or not known again. In simulated time n is 0 and ``why`` says so.
    """
    if simulated:
        return {"n": 0, "why": "simulated time: its stamps do not tell how long a command takes"}
    every = [seconds for recording in recordings for seconds in recording.reactions()]
    known = [1e3 * seconds for seconds in every if math.isfinite(seconds)]
    return {**summary_ms(known), "ticks_without": len(every) - len(known)}


def reaction_line(found: dict[str, Any]) -> str:
    """``reaction`` in one line."""
    words = "from the camera's stamp to the robot's command: "
    if not found["n"]:
        return words + found.get("why", "no command was known again")
    times = ", ".join(f"{key} {found[key]:.1f}" for key in ("p50", "p95", "p99", "max"))
    return f"{words}{times} ms (n = {found['n']}; {found['ticks_without']} ticks without)"


__all__ = [
    "BASELINES",
    "BUDGET_FRACTION",
    "Measured",
    "baseline_row",
    "budget_facts",
    "controller_row",
    "per_episode",
    "rates",
    "reaction",
    "reaction_line",
]
