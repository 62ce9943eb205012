"""Success in the true simulator, closed or open loop, with intervals and costs."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import mean, median
from typing import Any

from tqdm import tqdm

from wm_mpc.core.errors import UserError
from wm_mpc.core.stats import percentile, summary_ms, wilson
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.jobs import run_episodes
from wm_mpc.evaluation.settings import EvalSettings
from wm_mpc.models.checkpoint import recorded_hash
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.budget import CemReference
from wm_mpc.tasks.environments import make_env


def evaluate(
    model: WorldModel | str | Path | None,
    task: str,
    planner: str,
    goals: int = 50,
    seed: int = 0,
    *,
    reference: CemReference | None = None,
    workers: int = 1,
    progress: bool = True,
    label: str = "base",
    ray: bool = False,
    seen: list[Episode] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure one row.

    Args:
        model: world model, or the folder of one; None for baselines. Several workers need a
            folder.
        task: see ``EvalSettings``, as are the further settings.
        planner: see ``EvalSettings``.
        goals: see ``EvalSettings``.
        seed: see ``EvalSettings``.
        reference: cost of the CEM reference; needed for a budget and for ratios, calibrated
            when a budget asks for it.
        workers: processes that share the episodes; timings mean something with 1 only.
        progress: show a bar with the running success.
        label: what the row calls the model.
        ray: share the episodes on a Ray cluster instead of local processes.
        seen: filled with the episodes, by seed.
        settings: further fields of ``EvalSettings``.

    Returns:
        The row of the report, see docs/benchmarks.md.

    Raises:
        UserError: a setting out of its bounds, or no model where one is needed.
    """
    spec = EvalSettings(task, planner, goals=goals, seed=seed, **settings)
    if spec.plans and model is None:
        raise UserError(f"model: none given; planner {planner} needs one")
    episodes: list[Episode] = []
    bar = tqdm(total=goals, desc=f"{task} {planner}", disable=not progress, unit="ep")
    with bar:
        for episode in run_episodes(model, spec, reference, workers, ray):
            episodes.append(episode)
            done = sum(e.success for e in episodes)
            bar.set_postfix(success=f"{done}/{len(episodes)}")
            bar.update()
    episodes.sort(key=lambda e: e.seed)
    if seen is not None:
        seen.extend(episodes)
    digest = model_hash(model) if spec.plans else None
    env = make_env(spec.task).unwrapped
    return summarise(spec, episodes, reference, label, workers, env, digest)


def model_hash(model: WorldModel | str | Path | None) -> str | None:
    """Hash of a world model or of the one in a folder; None without one that was ever saved.

    First 12 hex digits of the SHA-256 of the weights file that was last loaded or saved: weights
    in training are not in it.
    """
    if isinstance(model, (str, Path)):
        return recorded_hash(Path(model))
    return (model.hash or None) if model is not None else None


def summarise(
    spec: EvalSettings,
    episodes: list[Episode],
    reference: CemReference | None,
    label: str,
    workers: int,
    task: Any,
    digest: str | None = None,
) -> dict[str, Any]:
    """Row of the report from its episodes; ``digest``: see ``model_hash``."""
    n, successes = len(episodes), sum(e.success for e in episodes)
    errors = [e.final_error for e in episodes]
    plan_ms = [ms for e in episodes for ms in e.plan_ms]
    transitions = [t for e in episodes for t in e.transitions]
    row: dict[str, Any] = {
        "task": spec.task,
        "planner": spec.planner,
        "model": label if spec.plans else None,
        "model_hash": digest,
        "mode": spec.mode,
        "goal": spec.goal if spec.plans else None,
        "options": list(spec.options),
        "added_delay_ms": spec.added_delay_ms,
        "delay_ms": spec.delay_ms if spec.plans else None,
        "n": n,
        "seed": spec.seed,
        "successes": successes,
        "success_rate": successes / n,
        "success_ci95": list(wilson(successes, n)),
        "final_success_rate": mean(e.final_success for e in episodes),
        "final_error": {
            "median": median(errors),
            "p90": percentile(errors, 90),
            "unit": task.spec_task.error_unit,
        },
        "tick_ms": summary_ms([ms for e in episodes for ms in e.tick_ms]),
        "plan_ms": summary_ms(plan_ms),
        "deadline_misses": sum(e.late for e in episodes),
        "over_budget": sum(e.over_budget for e in episodes),
        "ticks_not_running": sum(len(e.stopped) for e in episodes),
        "reasons_not_running": distinct([reason for e in episodes for reason in e.stopped]),
        "transitions_per_tick": mean(transitions) if transitions else 0,
        "iterations_per_tick": mean([i for e in episodes for i in e.iterations] or [0]),
        "transitions_per_s": sum(transitions) / (sum(plan_ms) / 1e3) if plan_ms else 0,
        "cem_ratio_wall": None,
        "cem_ratio_transitions": None,
        "env_steps": max(e.steps for e in episodes),
        "replan_every": spec.replan_every if spec.mode == "mpc" else None,
        "goal_offset": spec.goal_offset or task.spec_task.goal_offset,
        "budget_fraction": spec.budget_fraction or None,
        "budget_share": None,
        "over_budget_5pct": None,
        "workers": workers,
        "success_by_episode": [int(e.success) for e in episodes],
    }
    if all("block_success" in e.info for e in episodes):
        row["block_success_rate"] = mean(e.info["block_success"] for e in episodes)
    if reference is not None and plan_ms:
        shares = [ms / 1e3 / reference.seconds for ms in plan_ms]
        row["budget_share"] = spread(shares)
        if spec.budget_fraction:
            row["over_budget_5pct"] = mean(s > 1.05 * spec.budget_fraction for s in shares)
        row["cem_ratio_wall"] = median(plan_ms) / 1e3 / reference.seconds
        row["cem_ratio_transitions"] = mean(transitions) / reference.transitions
        row["cem_reference_ms"] = reference.seconds * 1e3
    return row


def spread(values: list[float]) -> dict[str, float]:
    """p50, p95, p99 and max of at least one value."""
    return {f"p{q}": percentile(values, q) for q in (50, 95, 99)} | {"max": max(values)}


def distinct(reasons: list[str]) -> list[str]:
    """One example of each kind of reason; kinds differ in more than numbers."""
    return sorted({re.sub(r"[\d.]+", "", reason): reason for reason in reasons}.values())


def format_row(row: dict[str, Any]) -> str:
    """Return one line for people."""
    low, high = row["success_ci95"]
    how = row["mode"] + (", goal by picture" if row["goal"] == "picture" else "")
    text = (
        f"{row['task']} {row['planner']} ({how}): success {row['successes']}/{row['n']} "
        f"= {100 * row['success_rate']:.0f} % [{100 * low:.0f}, {100 * high:.0f}], "
        f"final error median {row['final_error']['median']:.3g} {row['final_error']['unit']}"
    )
    if row["plan_ms"]["n"]:
        text += (
            f"; tick p50 {row['tick_ms']['p50']:.1f} ms, p99 {row['tick_ms']['p99']:.1f} ms, "
            f"{row['transitions_per_tick']:.0f} transitions"
        )
    if row["cem_ratio_wall"] is not None:
        text += (
            f"; of CEM: {100 * row['cem_ratio_wall']:.1f} % time, "
            f"{100 * row['cem_ratio_transitions']:.1f} % transitions"
        )
    if row["ticks_not_running"]:
        text += f"; {row['ticks_not_running']} ticks without a plan: {row['reasons_not_running']}"
    return text
