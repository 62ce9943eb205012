"""Rows side by side: settings at one budget, paired differences, the table in Markdown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wm_mpc.core.stats import difference_interval
from wm_mpc.evaluation.settings import EvalSettings
from wm_mpc.planners.registry import planner_entry


def at_budget(spec: EvalSettings, fraction: float) -> EvalSettings:
    """Fit a planner to a share of CEM's time: what it does at most; the deadline does the rest.

    Sampling planners shrink samples and iterations alike, since a few iterations of many samples
    would not converge and one iteration alone might not fit. Gradient planners get more
    iterations where there is time for them. The user's own options win.
    """
    if not spec.plans:
        return spec
    if not fraction:
        return replace(spec, budget_fraction=0.0)
    default = planner_entry(spec.planner).config
    root = min(fraction, 1.0) ** 0.5
    if hasattr(default, "samples"):
        samples = max(16, round(300 * root))
        sizes = {"samples": samples, "iterations": max(3, round(30 * root))}
        if hasattr(default, "elites"):
            sizes["elites"] = max(2, samples // 10)
    else:
        sizes = {"iterations": max(default.iterations, round(600 * fraction))}
    fitted = tuple(f"{name}={value}" for name, value in sizes.items())
    return replace(spec, budget_fraction=fraction, options=fitted + spec.options)


def compare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Best gradient planner within the budget against CEM in full, per task and goal distance."""
    found = []
    for cem in rows:
        if cem["planner"] != "cem" or cem["budget_fraction"]:
            continue
        rivals = [
            r
            for r in rows
            if r["planner"] in ("gd", "adam", "ilqr", "grasp", "latco", "hybrid")
            and (r["task"], r["goal_offset"]) == (cem["task"], cem["goal_offset"])
        ]
        if not rivals:
            continue
        best = max(rivals, key=lambda r: (r["successes"], -r["final_error"]["median"]))
        interval = difference_interval(best["successes"], best["n"], cem["successes"], cem["n"])
        found.append(
            {
                "task": cem["task"],
                "goal_offset": cem["goal_offset"],
                "planner": best["planner"],
                "difference": best["success_rate"] - cem["success_rate"],
                "difference_ci95": list(interval),
                "cem_ratio_wall": best["cem_ratio_wall"],
            }
        )
    return found


HEADS = (
    "task", "goal", "planner", "budget", "success % [95 %]", "error median / p90",
    "plan ms p50 / p95 / p99", "transitions", "% of CEM time p50 / p99",
    "% of ticks over by 5 %", "1000 transitions/s",
)  # fmt: skip
"""Columns of the table."""


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table for people."""
    lines = ["| " + " | ".join(HEADS) + " |", "|" + len(HEADS) * "---|"]
    return "\n".join([*lines, *("| " + " | ".join(cells(row)) + " |" for row in rows)])


def cells(row: dict[str, Any]) -> list[str]:
    """One line of the table, in the order of ``HEADS``."""
    low, high = row["success_ci95"]
    error, ms = row["final_error"], row["plan_ms"]
    budget = f"{100 * row['budget_fraction']:g} %" if row["budget_fraction"] else "-"
    share, over = row["budget_share"], row["over_budget_5pct"]
    plans = ms["n"] > 0
    return [
        row["task"],
        f"{row['goal_offset']}{', picture' if row['goal'] == 'picture' else ''}",
        row["planner"],
        budget,
        f"{100 * row['success_rate']:.0f} [{100 * low:.0f}, {100 * high:.0f}]",
        f"{error['median']:.3g} / {error['p90']:.3g} {error['unit']}",
        f"{ms['p50']:.1f} / {ms['p95']:.1f} / {ms['p99']:.1f}" if plans else "-",
        f"{row['transitions_per_tick']:.0f}" if plans else "-",
        f"{100 * share['p50']:.1f} / {100 * share['p99']:.1f}" if share else "-",
        "-" if over is None else f"{100 * over:.1f}",
        f"{row['transitions_per_s'] / 1e3:.0f}" if plans else "-",
    ]
