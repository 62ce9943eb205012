"""Print the table of arXiv 2512.09929 and the train-test gap from reports in benchmarks/results.

python tools/gap_table.py [RESULTS]

Reads ``table_TASK.MODEL.MODE.json`` (wm-mpc bench) and ``gap_TASK.json`` (wm-mpc gap).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TASKS = {"pusht": "Push-T", "point_maze": "PointMaze", "wall": "Wall"}
MODELS = ("base", "online", "adversarial", "both")
MODES = {"open_loop": "open loop", "mpc": "MPC"}
PLANNERS = ("gd", "adam", "cem")


def success_table(results: Path) -> list[str]:
    """Success in percent with 95 % intervals, a row per task and model."""
    columns = [(mode, planner) for mode in MODES for planner in PLANNERS]
    head = " | ".join(f"{MODES[mode]} {planner}" for mode, planner in columns)
    lines = [f"| task | model | {head} |", "|---" * (len(columns) + 2) + "|"]
    for task, name in TASKS.items():
        for model in MODELS:
            cells = []
            for mode, planner in columns:
                path = results / f"table_{task}.{model}.{mode}.json"
                rows = json.loads(path.read_text())["results"] if path.is_file() else []
                found = [r for r in rows if r["planner"] == planner]
                cells.append(percent(found[0]) if found else "-")
            if set(cells) != {"-"}:
                lines.append(f"| {name} | {model} | " + " | ".join(cells) + " |")
    return lines


def percent(row: dict) -> str:
    """Success of a row."""
    low, high = row["success_ci95"]
    return f"{100 * row['success_rate']:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def share(gap: dict) -> str:
    """How much of the base model's gap is gone, with its interval."""
    low, high = gap["gone_mean_ci95"]
    return f"{100 * gap['gone_mean']:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def gap_table(results: Path) -> list[str]:
    """Errors on expert and planner trajectories, and what of the gap is gone."""
    lines = [
        "| task | model | error on expert, step 1 / 5 | on its own planner's, step 1 / 5 | "
        "gap, mean of the steps [95 %] | gone | plans promise | and reach |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, name in TASKS.items():
        path = results / f"gap_{task}.json"
        if not path.is_file():
            continue
        found = json.loads(path.read_text())
        promises = {row["model"]: row for row in found["promises"]}
        first = found["results"][0]["model"]
        for gap in found["results"]:
            model = gap["model"]
            errors = {
                where: [
                    row["error"]
                    for row in found["errors"]
                    if row["model"] == model and row["trajectories"] == where
                ]
                for where in ("expert", f"planner of {model}")
            }
            low, high = gap["gap_mean_ci95"]
            promised, reached = (promises[model][k]["median"] for k in ("promised", "reached"))
            gone = "" if model == first else share(gap)
            own = errors[f"planner of {model}"]
            lines.append(
                f"| {name} | {model} | {errors['expert'][0]:.3f} / {errors['expert'][-1]:.3f} | "
                f"{own[0]:.3f} / {own[-1]:.3f} | {gap['gap_mean']:.3f} [{low:.3f}, {high:.3f}] | "
                f"{gone} | {promised:.3f} | {reached:.3f} |"
            )
    return lines


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "benchmarks/results")
    print("\n".join([*success_table(folder), "", *gap_table(folder)]))
