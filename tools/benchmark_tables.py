"""Print the tables of docs/benchmarks.md that tools/benchmarks.sh measures, from its reports.

python tools/benchmark_tables.py [RESULTS] [--plots FOLDER]

Reads ``eval_TASK.GOAL.json``, ``bench_TASK.PLANNER.json``, ``curve_*.json`` and
``long_horizon*.json``; a table without reports is left out. tools/docs_tables.py writes them into
the pages. With ``--plots`` the curves of
success over budget are drawn into the folder, as ``curve_pusht.png`` and ``curve_mazes.png``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wm_mpc.evaluation.table import compare, markdown

TASKS = {"pusht": "Push-T", "point_maze": "PointMaze", "wall": "Wall"}
GOALS = {"posture": "picture and posture", "picture": "picture alone"}
TARGETS = {"pusht": (55, 95), "point_maze": (90, 100), "wall": (98, 100)}
"""Success that had to be reached and that was aimed at [%]."""
PLOTS = {"curve_pusht.png": ("pusht",), "curve_mazes.png": ("point_maze", "wall")}
Report = dict[str, Any]
Row = dict[str, Any]


def load(results: Path, pattern: str) -> list[Report]:
    """Reports by the order of tasks and then of names."""
    reports = [json.loads(path.read_text()) for path in sorted(results.glob(pattern))]
    order = [*TASKS]
    return sorted(reports, key=lambda report: order.index(first(report)["task"]))


def first(report: Report) -> Row:
    """First row of a report."""
    return (report.get("curve", []) + report["results"])[0]


def percent(row: Row) -> str:
    """Success of a row with its interval."""
    low, high = row["success_ci95"]
    share = f"{100 * row['success_rate']:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
    return f"{row['successes']}/{row['n']} = {share}"


def lines(head: str, rows: list[str]) -> list[str]:
    """A Markdown table, or nothing without rows."""
    count = head.count("|") - 1
    return [head, "|" + "---|" * count, *rows] if rows else []


def headline(reports: list[Report]) -> list[str]:
    """Closed loop with a plan in every control step, goal by picture with and without posture."""
    rows = []
    for report in reports:
        row = report["results"][0]
        options = dict(option.split("=") for option in row["options"])
        verdicts = "; ".join(
            f"{word} {bound} %: {'reached' if 100 * row['success_rate'] >= bound else 'missed'}"
            for word, bound in zip(("target", "aim"), TARGETS[row["task"]], strict=True)
        )
        tick = row["tick_ms"]
        rows.append(
            f"| {TASKS[row['task']]} | {GOALS[row['goal']]} | {options['starts']} | "
            f"{percent(row)} | {verdicts} | {tick['p50']:.1f} / {tick['p99']:.1f} ms | "
            f"{100 * row['cem_ratio_wall']:.1f} % | {100 * row['cem_ratio_transitions']:.1f} % |"
        )
    return lines(
        "| task | goal | starts | success | against | tick p50 / p99 | share of CEM's time | "
        "of its transitions |",
        rows,
    )


def budgets(reports: list[Report]) -> list[str]:
    """Whether planning kept its share of CEM's time, per task over all planners with a budget."""
    rows = []
    for task, name in TASKS.items():
        kept = [
            row
            for report in reports
            for row in report["results"]
            if row["task"] == task and row["over_budget_5pct"] is not None
        ]
        if not kept:
            continue
        ticks = sum(row["plan_ms"]["n"] for row in kept)
        over = sum(round(row["over_budget_5pct"] * row["plan_ms"]["n"]) for row in kept)
        worst = max(kept, key=lambda row: row["budget_share"]["p50"])
        rows.append(
            f"| {name} | {100 * worst['budget_share']['p50']:.2f} % (`{worst['planner']}`) | "
            f"{over}/{ticks} = {100 * over / ticks:.2f} % |"
        )
    return lines(
        "| task | largest median share of CEM's time | ticks over the budget by more than 5 % |",
        rows,
    )


def comparisons(rows: list[Row]) -> list[str]:
    """Best gradient planner within the budget minus CEM in full."""
    return lines(
        "| task | planner | difference in success [95 %] | median share of CEM's time |",
        [
            f"| {TASKS[found['task']]} | `{found['planner']}` | "
            f"{100 * found['difference']:+.0f} points "
            f"[{100 * found['difference_ci95'][0]:.0f}, {100 * found['difference_ci95'][1]:.0f}]"
            f" | {100 * found['cem_ratio_wall']:.1f} % |"
            for found in compare(rows)
        ],
    )


def curves(reports: list[Report]) -> list[str]:
    """Success over the budget asked for, with the share really used."""
    found = [row for report in reports for row in report["curve"]]
    asked = sorted({row["budget_fraction"] for row in found})
    rows = []
    for task, name in TASKS.items():
        mine = [row for row in found if row["task"] == task]
        for planner in dict.fromkeys(row["planner"] for row in mine):
            by_budget = {r["budget_fraction"]: r for r in mine if r["planner"] == planner}
            cells = [cell(by_budget[f]) if f in by_budget else "-" for f in asked]
            rows.append(f"| {name} | `{planner}` | {' | '.join(cells)} |")
    head = " | ".join(f"{100 * fraction:g} %" for fraction in asked)
    return lines(f"| task | planner | {head} |", rows)


def cell(row: Row) -> str:
    """Success [%] with its interval and the median share of CEM's time."""
    low, high = row["success_ci95"]
    return (
        f"{100 * row['success_rate']:.0f} [{100 * low:.0f}, {100 * high:.0f}] "
        f"({100 * row['cem_ratio_wall']:.1f} %)"
    )


def long_horizon(reports: list[Report]) -> list[str]:
    """One open-loop plan of the goal's distance."""
    rows = [row for report in reports for row in report["results"]]
    rows.sort(key=lambda row: row["goal_offset"])
    return lines(
        "| goal, steps ahead | planner | success | final block error, median | "
        "plan time, median [s] |",
        [
            f"| {row['goal_offset']} | `{row['planner']}` | {percent(row)} | "
            f"{row['final_error']['median']:.0f} {row['final_error']['unit']} | "
            f"{row['plan_ms']['p50'] / 1e3:.2f} |"
            for row in rows
        ],
    )


def speed(reports: list[Report]) -> list[str]:
    """Iterations per second against the eager loop; of each task the report of ``adam``."""
    rows = []
    for report in reports:
        for task, facts in report["tasks"].items():
            if report["results"][0]["planner"] != "adam":
                continue
            rows += [
                f"| {TASKS[task]} | {row['starts']} | {row['planner_per_s']:.0f} | "
                f"{row['speedup']:.1f} |"
                for row in facts["gradient_speed"]
            ]
    return lines("| task | starts | iterations / s | times eager |", rows)


def origin(reports: list[Report]) -> list[str]:
    """Machines and commits of the reports."""
    machines = {f"{r['machine']['cpu']}, {r['machine']['cores']} core(s)" for r in reports}
    commits = {r["commit"] for r in reports}
    found = [r["versions"] for r in reports]
    versions = {f"torch {v['torch']}, Python {v['python']}" for v in found}
    return [", ".join(sorted(map(str, found))) for found in (machines, versions, commits)]


def tables(results: Path) -> Iterator[tuple[str, list[str]]]:
    """Title and lines of every table."""
    evals = [report for goal in GOALS for report in load(results, f"eval_*.{goal}.json")]
    evals.sort(key=lambda report: [*TASKS].index(first(report)["task"]))
    benches = load(results, "bench_*.*.json")
    shares = load(results, "curve_*.json")
    long = load(results, "long_horizon*.json")
    rows = [row for report in benches for row in report["results"]]
    yield "Machine, versions, commit", origin([*evals, *benches, *shares, *long])
    yield "The three tasks, closed loop", headline(evals)
    yield "Planners side by side", markdown(rows).splitlines() if rows else []
    yield "The budget", budgets(benches)
    yield "Best gradient planner minus CEM in full", comparisons(rows)
    yield "Success over budget", curves(shares)
    yield "Long horizon, open loop", long_horizon(long)
    yield "Speed of the inner loop", speed(benches)


def plot(results: Path, folder: Path) -> None:
    """Draw the curves."""
    from wm_mpc.viz.plots import plot_curve

    reports = load(results, "curve_*.json")
    folder.mkdir(parents=True, exist_ok=True)
    for name, tasks in PLOTS.items():
        rows = [row for report in reports for row in report["curve"] if row["task"] in tasks]
        if rows:
            plot_curve(rows, folder / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/results"))
    parser.add_argument("--plots", type=Path)
    arguments = parser.parse_args()
    for title, found in tables(arguments.results):
        if found:
            print(f"## {title}\n", *found, "", sep="\n")
    if arguments.plots:
        plot(arguments.results, arguments.plots)
