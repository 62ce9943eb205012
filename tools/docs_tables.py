"""Write the measured tables of README and docs from the reports in benchmarks/results.

    python tools/docs_tables.py            # write them
    python tools/docs_tables.py --check    # exit code 1 where a page is out of date

A table stands between ``<!-- table: NAME -->`` and ``<!-- end table -->``; nobody edits what lies
between. ``TABLES`` has the names.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import ablation_table, gap_table, grasp_experiment  # noqa: E402
from tools import benchmark_tables as bench  # noqa: E402
from wm_mpc.core.stats import difference_interval  # noqa: E402
from wm_mpc.evaluation.table import markdown  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- end table -->)", re.S)
BASELINES = {"random": "random actions", "none": "no action"}


def report(name: str) -> dict[str, Any]:
    """A report by the name of its file."""
    return json.loads((RESULTS / name).read_text())


def evals(goal: str = "*") -> list[dict[str, Any]]:
    """Closed loop, a plan in every control step, by task."""
    found = [
        r for kind in bench.GOALS if goal in ("*", kind)
        for r in bench.load(RESULTS, f"eval_*.{kind}.json")
    ]  # fmt: skip
    return sorted(found, key=lambda r: [*bench.TASKS].index(bench.first(r)["task"]))


def benches() -> list[dict[str, Any]]:
    """Planners side by side."""
    return bench.load(RESULTS, "bench_*.*.json")


def rows_of(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows of reports."""
    return [row for found in reports for row in found["results"]]


def readme() -> list[str]:
    """One row a task: success by the goal picture alone, time of a tick; what less reaches."""
    demo = report("demo_pusht.json")["results"]
    lines = []
    for found in evals("picture"):
        row = found["results"][0]
        tick = row["tick_ms"]
        lines.append(
            f"| {bench.TASKS[row['task']]}, simulator | {bench.percent(row)} | "
            f"{tick['p50']:.0f} / {tick['p99']:.0f} ms | {100 * row['cem_ratio_wall']:.1f} % |"
        )
    for row in demo:
        live = row["planner"] not in BASELINES
        words = "over ROS 2, real time" if live else BASELINES[row["planner"]]
        tick = row.get("tick_ms") or {}
        time = f"{tick['p50']:.0f} / {tick['p99']:.0f} ms" if live else "-"
        share = f"{100 * row['cem_ratio_wall']:.1f} %" if live else "-"
        lines.append(f"| Push-T, {words} | {bench.percent(row)} | {time} | {share} |")
    head = "| task | goals reached | tick p50 / p99 | planning, of CEM's time |"
    return bench.lines(head, lines)


def demo() -> list[str]:
    """Push-T over DDS against doing less."""
    lines = []
    for row in report("demo_pusht.json")["results"]:
        name = BASELINES.get(row["planner"], f"`{row['planner']}`")
        error = row["final_error"]
        low, high = error["median_ci95"]
        lines.append(
            f"| {name} | {bench.percent(row)} | {error['median']:.1f} {error['unit']} "
            f"[{low:.1f}, {high:.1f}] |"
        )
    return bench.lines("| | success | final block error, median [95 %] |", lines)


def demo_ticks() -> list[str]:
    """Where the time of its ticks went."""
    row = report("demo_pusht.json")["results"][0]
    lines = [
        f"| {words} | " + " | ".join(f"{row[key][p]:.1f}" for p in ("p50", "p95", "p99", "max"))
        + " |"
        for key, words in (
            ("tick_ms", "whole tick [ms] (encode, plan, fetch)"),
            ("encode_ms", "encoding [ms]"),
            ("plan_ms", "planning [ms]"),
        )
    ]  # fmt: skip
    count = row["tick_ms"]["n"]
    return bench.lines(f"| tick over DDS, n = {count} | p50 | p95 | p99 | max |", lines)


def live() -> list[str]:
    """Ticks of the live run by what went on around them."""
    words = {
        "swapped": "the first three with another engine (*swapped*)",
        "building": "while an update was loaded, built or judged (*building*)",
        "otherwise": "all others",
    }
    lines = []
    for name, found in report("live_wall.json")["results"][0]["conditions"].items():
        low, high = found["ci95"]
        causes = ", ".join(f"{count} {why}" for why, count in found["causes"].items() if count)
        lines.append(
            f"| {words[name]} | {found['misses']}/{found['ticks']} = {100 * found['rate']:.1f} % "
            f"[{100 * low:.1f}, {100 * high:.1f}] | {found['late_ms_max']:.1f} ms | {causes} |"
        )
    return bench.lines("| ticks | deadline misses | late, at most | causes |", lines)


def live_run() -> list[str]:
    """What the live run learned, and how it took poison and a killed trainer."""
    row = report("live_wall.json")["results"][0]
    first, last, n = row["first"], row["last"], row["n"]

    def share(part: dict[str, Any]) -> str:
        low, high = (100 * bound for bound in part["success_ci95"])
        rate = part["success_rate"]
        return f"{rate * n:.0f}/{n} = {100 * rate:.0f} % [{low:.0f}, {high:.0f}]"

    low, high = (100 * bound for bound in row["difference_ci95"])
    kill, back = row["kill"], row["rollbacks"]
    told = {"nan": "weight that is not a number", "shuffled": "actions shuffled"}

    def refusal(entry: dict[str, Any]) -> str:
        errors = re.findall(r"(?:error|with) (\d\.\d+)", entry["message"])
        more = f", error {' against '.join(errors)}" if errors else ""
        return f"{told[entry['kind']]}: {entry['outcome']}{more}"

    poison = "; ".join(refusal(entry) for entry in row["poison"])
    lines = [
        f"| success, first {n} of {row['episodes']} episodes | {share(first)} |",
        f"| last {n} | {share(last)}; difference [{low:.0f}, {high:.0f}] points |",
        f"| model changes | {row['model_changes']}, {back or 'none'} rolled back |",
        f"| poisoned models | {poison} |",
        f"| trainer killed half-way | {kill['ticks_while_dead']} ticks went on without it; "
        f"{kill['trajectories_before']} trajectories on disk, {kill['taken_up']} taken up after "
        f"its restart; {kill['generations_before']} generations then, "
        f"{kill['generations_after']} at the end |",
    ]
    return bench.lines("| what | result |", lines)


def two_hosts() -> list[str]:
    """Wall over a link with delay, jitter and loss."""
    lines = []
    for row in report("two_hosts_wall.json")["results"]:
        low, high = (100 * bound for bound in row["success_ci95"])
        lines.append(
            f"| {row['delay_ms']:.0f} ms | {row['n']} | "
            f"{100 * row['success_rate']:.0f} % [{low:.0f}, {high:.0f}] |"
        )
    return bench.lines("| delay, one way | n | success |", lines)


def lerobot() -> list[str]:
    """Wall trained on a store, and on LeRobot datasets made of it."""
    lines = []
    for row in report("lerobot_wall.json")["results"]:
        name, equal, differ = "the store", "", ""
        if row["arm"] != "store":
            name = f"LeRobot {row['arm'].removeprefix('v')}, {row['pictures']}"
            equal = "equal" if row["numbers_equal"] else "differ"
            differ = f"{row['pictures_mean']:.3f} on average, {row['pictures_max']} at most"
        lines.append(f"| {name} | {equal} | {differ} | {bench.percent(row)} |")
    head = (
        "| trained on | actions and proprioception | pictures differ by, of 255 | success |"
    )
    return bench.lines(head, lines)


def grasp() -> list[str]:
    """One open-loop plan a goal: success under the model and in the simulator."""
    lines = []
    for row in report("grasp_plans.json")["results"]:
        told = row | {"method": GRASP_METHODS.get(row["method"], f"`{row['method']}`")}
        lines.append(grasp_experiment.line(told))
    head = (
        "| goal, steps ahead | method | success under the model | in the simulator | "
        "block error at the end, median | cost, median | transitions |"
    )
    return bench.lines(head, lines)


def curve(pattern: str = "curve_*.json") -> list[str]:
    """Success over budget, and CEM without one."""
    found = bench.load(RESULTS, pattern)
    full = {
        (row["task"], row["planner"]): row
        for row in rows_of(found)
        if row["budget_fraction"] is None
    }
    table = bench.curves(found)
    titles = {title: task for task, title in bench.TASKS.items()}
    for k, line in enumerate(table):
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        row = full.get((titles.get(cells[0], ""), cells[1]))
        more = gap_table.percent(row) if row else ""
        table[k] = f"{line}---|" if k == 1 else f"{line} {'CEM in full' if k == 0 else more} |"
    return table


FIXED = (
    "five_pusht.ilqr", "five_pusht.adam", "eval_pusht.ilqr", "five_point_maze.ilqr",
    "five_wall.ilqr",
)  # fmt: skip
"""Rows of fixed iterations, in the order of the table."""
GRASP_METHODS = {
    "cem": "`cem`, 200 x 15",
    "gd": "`gd`, 150 iterations",
    "adam": "`adam`, 100 iterations",
    "ilqr": "`ilqr`, 20 iterations",
    "grasp": "`grasp`, 200 iterations, a sync of 6 steps every 10",
    "grasp, states from rollout": "the same, states begin where the first actions lead",
    "grasp, CEM sync": "the same, sync by CEM",
    "grasp, two long syncs": "the same, two syncs of 60 steps",
}
FAR = {
    "eval_point_maze_medium.{}.json": ("PointMaze medium", 80, 98),
    "far_pusht_75.{}.json": ("Push-T", 60, 92),
}
"""Reports without and with subgoals -> title, success that had to be reached and the aim [%]."""


def fixed() -> list[str]:
    """Gauss-Newton and Adam with fixed iterations and no deadline."""
    lines = []
    for name in FIXED:
        row = report(f"{name}.json")["results"][0]
        options = dict(option.split("=") for option in row["options"])
        every = row["replan_every"]
        iterations = int(options["iterations"])
        count = f"{iterations} iteration{'s' * (iterations > 1)} x {options['starts']} starts"
        error = row["final_error"]
        lines.append(
            f"| {bench.TASKS[row['task']]} | {'step' if every == 1 else f'{every} steps'} | "
            f"`{row['planner']}`, {count} | {bench.percent(row)} | {error['median']:.3g} "
            f"{error['unit']} | {row['transitions_per_tick']:.0f} |"
        )
    head = "| task | a plan every | planner | success | final error, median | transitions |"
    return bench.lines(head, lines)


def far() -> list[str]:
    """Far goals in closed loop, without subgoals and with them."""
    lines = []
    for pattern, (title, target, aim) in FAR.items():
        without, joined = (
            report(pattern.format(kind))["results"][0] for kind in ("none", "subgoals")
        )
        low, high = difference_interval(
            joined["successes"], joined["n"], without["successes"], without["n"]
        )
        points = 100 * (joined["success_rate"] - without["success_rate"])
        goal = "random cells" if "medium" in pattern else f"{joined['goal_offset']} ahead"
        rate = 100 * joined["success_rate"]
        lines.append(
            f"| {title} | {goal} | {bench.percent(without)} | "
            f"{bench.percent(joined)} | {points:+.0f} [{100 * low:.0f}, {100 * high:.0f}] | "
            f"{target} %: {met(rate, target)}; aim {aim} %: {met(rate, aim)} |"
        )
    head = "| task | goal | without subgoals | with | difference in points | target |"
    return bench.lines(head, lines)


def met(rate: float, wanted: float) -> str:
    """Whether a rate [%] is what was wanted, in a word."""
    return "reached" if rate >= wanted else "missed"


TABLES: dict[str, Callable[[], list[str]]] = {
    "readme": readme,
    "headline": lambda: bench.headline(evals()),
    "latents": lambda: ablation_table.table(RESULTS),
    "planners": lambda: markdown(rows_of(benches())).splitlines(),
    "budget": lambda: bench.budgets(benches()),
    "against-cem": lambda: bench.comparisons(rows_of(benches())),
    "curve": curve,
    "fixed": fixed,
    "far": far,
    "long-horizon": lambda: bench.long_horizon(bench.load(RESULTS, "long_horizon*.json")),
    "speed": lambda: bench.speed(benches()),
    "gap-success": lambda: gap_table.success_table(RESULTS),
    "gap-error": lambda: gap_table.gap_table(RESULTS),
    "live": live,
    "live-run": live_run,
    "two-hosts": two_hosts,
    "lerobot": lerobot,
    "grasp": grasp,
    "demo": demo,
    "demo-ticks": demo_ticks,
}


def filled(text: str) -> str:
    """A page with its tables as the reports have them.

    Raises:
        KeyError: a table that is none of ``TABLES``.
    """
    return BLOCK.sub(lambda m: m[1] + "\n".join(TABLES[m["name"]]()) + "\n" + m[4], text)


def pages() -> list[Path]:
    """Pages that may have tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> int:
    """Write or check; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check, stale = parser.parse_args().check, 0
    for page in pages():
        text = page.read_text()
        new = filled(text)
        if new == text:
            continue
        stale += 1
        print(f"{page.relative_to(ROOT)}: {'out of date' if check else 'written'}")
        if not check:
            page.write_text(new)
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
