"""The scripts that measure and print the tables of docs/benchmarks.md."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from point_task import ENV_ID

from wm_mpc.core.provenance import write_report
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.rows import summarise
from wm_mpc.evaluation.settings import EvalSettings
from wm_mpc.planners.budget import CemReference
from wm_mpc.tasks.environments import make_env

ROOT = Path(__file__).parents[1]
REFERENCE = CemReference(0.1, 45_000, 3, 30, 30, "cpu", 1)
STAND_IN = """#!/bin/sh
# stands for Python: writes an empty report and remembers what it was asked, fails for mppi
[ "$1" = - ] && exec {python} -
echo "$OMP_NUM_THREADS $*" >> {log}
case "$*" in *mppi*) echo "no such planner"; exit 2 ;; esac
for last; do :; done
echo '{{}}' > "$last"
"""


def benchmarks(folder: Path, *tasks: str, **settings: str) -> subprocess.CompletedProcess[str]:
    python, log = folder / "python", folder / "asked"
    python.write_text(STAND_IN.format(python=sys.executable, log=log))
    python.chmod(0o755)
    places = {"PYTHON": str(python), "RESULTS": str(folder / "r"), "LOGS": str(folder / "logs")}
    command = [str(ROOT / "tools" / "benchmarks.sh"), *tasks]
    environment = {**os.environ, **places, **settings}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def asked(folder: Path) -> list[str]:
    path = folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


def test_every_row_is_measured_once(tmp_path: Path) -> None:
    jobs = str(min(2, len(os.sched_getaffinity(0))))
    settings = {"PARTS": "eval bench", "PLANNERS": "cem adam", "GOALS": "7", "JOBS": jobs}
    done = benchmarks(tmp_path, "wall", "point_maze", **settings)
    assert done.returncode == 0, done.stderr
    names = {path.stem for path in (tmp_path / "r").iterdir()}
    assert names == {
        "eval_wall.posture", "eval_wall.picture", "eval_point_maze.posture",
        "eval_point_maze.picture", "bench_wall.cem", "bench_wall.adam", "bench_point_maze.cem",
        "bench_point_maze.adam", "bench_point_maze.none", "bench_point_maze.random",
    }  # fmt: skip
    first = asked(tmp_path)
    assert len(first) == len(names)
    assert all(line.startswith("1 -m wm_mpc.cli ") and "--goals 7" in line for line in first)
    (tmp_path / "r" / "bench_wall.adam.json").unlink()
    assert benchmarks(tmp_path, "wall", "point_maze", **settings).returncode == 0
    (again,) = asked(tmp_path)[len(first) :]
    assert "bench --task wall --planners adam" in again


def test_one_failure_stops_no_other_and_is_told(tmp_path: Path) -> None:
    done = benchmarks(tmp_path, "wall", PARTS="bench", PLANNERS="mppi gd")
    assert done.returncode == 1
    assert "bench_wall.mppi: failed: no such planner" in done.stderr
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["bench_wall.gd.json"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"PARTS": "nope"}, "PARTS: 'nope'; curve, bench"), ({"JOBS": "9999"}, "JOBS: 9999; 1 to")],
)
def test_bad_settings_are_told(
    tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    done = benchmarks(tmp_path, **settings)
    assert done.returncode == 2 and message in done.stderr
    assert not asked(tmp_path)


def row(planner: str, **settings: object) -> dict:
    spec = EvalSettings(ENV_ID, planner, goals=4, options=("starts=8",), **settings)
    episodes = [
        Episode(i, success=i > 0, final_error=1.0, tick_ms=[9.0], plan_ms=[8.0, 10.6],
                transitions=[800, 800], iterations=[20, 20])
        for i in range(4)
    ]  # fmt: skip
    made = summarise(spec, episodes, REFERENCE, "base", 1, make_env(ENV_ID).unwrapped)
    return made | {"task": "wall"}


def test_the_tables_are_printed_from_the_reports(tmp_path: Path) -> None:
    for goal in ("posture", "picture"):
        write_report(tmp_path / f"eval_wall.{goal}.json", 21, [row("adam", goal=goal)])
    speed = {"starts": 8, "planner_per_s": 900.0, "speedup": 9.0}
    facts = {"tasks": {"wall": {"gradient_speed": [speed]}}, "curve": []}
    rows = [row("cem"), row("cem", budget_fraction=0.1)]
    write_report(tmp_path / "bench_wall.cem.json", 21, rows, **facts)
    rows = [row("adam", budget_fraction=0.1)]
    write_report(tmp_path / "bench_wall.adam.json", 21, rows, **facts)
    rows = [row("adam", budget_fraction=f, real_time=False) for f in (0.01, 0.1)]
    write_report(tmp_path / "curve_wall.adam.json", 21, [], **(facts | {"curve": rows}))
    script = str(ROOT / "tools" / "benchmark_tables.py")
    command = [sys.executable, script, str(tmp_path), "--plots", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    told = "| 8 | 3/4 = 75 % [30, 95] | target 98 %: missed; aim 100 %: missed | 9.0 / 9.0 ms |"
    assert any(line.startswith(f"| Wall | picture and posture {told}") for line in lines)
    assert any(line.startswith(f"| Wall | picture alone {told}") for line in lines)
    assert "| Wall | 9.30 % (`adam`) | 8/16 = 50.00 % |" in lines
    assert "| Wall | `adam` | +0 points [-49, 49] | 9.3 % |" in lines
    assert "| Wall | `adam` | 75 [30, 95] (9.3 %) | 75 [30, 95] (9.3 %) |" in lines
    assert "| Wall | 8 | 900 | 9.0 |" in lines
    assert (tmp_path / "curve_mazes.png").stat().st_size > 1000
