"""The planner table: what is measured at which budget, and how it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from point_task import ENV_ID, PointModel

from wm_mpc.cli import measuring
from wm_mpc.cli.bench import CURVE, Config, curve_settings, run, table_settings
from wm_mpc.cli.latency import Latency, run_latency
from wm_mpc.core.errors import UserError
from wm_mpc.evaluation.settings import EvalSettings, parse_options
from wm_mpc.evaluation.speed import measure_speed
from wm_mpc.evaluation.table import at_budget, compare
from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig
from wm_mpc.planners.registry import PLANNERS, planner_config


def test_cem_runs_in_full_and_at_the_budget() -> None:
    config = Config(task=ENV_ID, planners="cem,adam,none", goal_offsets="10,20")
    rows = [(s.planner, s.budget_fraction, s.goal_offset) for s in table_settings(config, ENV_ID)]
    one = [("cem", 0.0), ("cem", 0.1), ("adam", 0.1), ("none", 0.0)]
    assert rows == [(*r, 10) for r in one] + [(*r, 20) for r in one]


def test_offsets_must_be_numbers() -> None:
    with pytest.raises(UserError, match="goal_offsets: 'a'"):
        list(table_settings(Config(goal_offsets="a"), "pusht"))


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("fraction", CURVE)
def test_planners_fit_every_budget(name: str, fraction: float) -> None:
    spec = at_budget(EvalSettings("pusht", name), fraction)
    config = planner_config(name, **parse_options(name, spec.options))
    assert spec.budget_fraction == fraction
    if hasattr(config, "samples"):
        share = config.samples * config.iterations / 9000
        assert share <= 1.3 * fraction + 0.01


def test_the_users_options_win() -> None:
    spec = EvalSettings("pusht", "adam", options=("iterations=7",))
    options = at_budget(spec, 0.1).options
    assert parse_options("adam", options)["iterations"] == 7


def measured(planner: str, successes: int, budget: float | None = 0.1) -> dict:
    return {
        "task": "t",
        "planner": planner,
        "goal_offset": 25,
        "successes": successes,
        "n": 100,
        "success_rate": successes / 100,
        "budget_fraction": budget,
        "cem_ratio_wall": 0.08,
        "final_error": {"median": 1.0},
    }


def test_the_best_gradient_planner_is_compared_with_cem_in_full() -> None:
    rows = [
        measured("cem", 80, None),
        measured("cem", 20),
        measured("adam", 85),
        measured("mppi", 99),
        measured("grasp", 60),
    ]
    (found,) = compare(rows)
    assert found["planner"] == "adam"
    assert found["difference"] == pytest.approx(0.05)
    low, high = found["difference_ci95"]
    assert low < 0 < 0.05 < high


def test_the_command_writes_table_curve_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []

    def load(path: Path, device: str) -> PointModel:
        devices.append(device)
        return PointModel()

    monkeypatch.setattr(measuring.WorldModel, "load", load)
    path = tmp_path / "bench.json"
    config = Config(
        task=ENV_ID,
        planners="cem,adam",
        goals=2,
        model=tmp_path,
        curve=True,
        report=path,
        replan_every=5,
        options=("cem.iterations=3", "adam.iterations=20"),
    )
    assert run(config) == 0
    assert devices == ["cpu"]
    report = json.loads(path.read_text())
    assert [r["planner"] for r in report["results"]] == ["cem", "cem", "adam"]
    assert report["results"][0]["success_rate"] == 1
    assert {r["model_hash"] for r in report["results"] + report["curve"]} == {PointModel.hash}
    assert len(report["curve"]) == 2 * len(CURVE)
    assert report["comparisons"][0]["planner"] == "adam"
    facts = report["tasks"][ENV_ID]
    assert facts["cem_reference"]["transitions"] == 45_000
    assert {r["starts"] for r in facts["gradient_speed"]} == {1, 8}
    table = path.with_suffix(".md").read_text().splitlines()
    assert len(table) == 2 + 3
    assert all(line.count("|") == table[0].count("|") for line in table)
    assert path.with_suffix(".png").stat().st_size > 1000
    page = path.with_suffix(".html").read_text()
    assert "adam at 10 %" in page and "cem in full" in page and "Success over the budget" in page


def test_a_gpu_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="device: 'cuda'; this machine has no usable CUDA device"):
        run(Config(task=ENV_ID, model=tmp_path, device="cuda"))


def test_rows_take_the_device_of_the_command() -> None:
    config = Config(task=ENV_ID, planners="cem,adam", device="cuda:1")
    assert {s.device for s in table_settings(config, ENV_ID)} == {"cuda:1"}
    assert {s.device for s in curve_settings(config, ENV_ID)} == {"cuda:1"}


def test_speed_reports_both_loops() -> None:
    objective = GoalObjective(ObjectiveConfig(), 3, 1, 2)
    (row,) = measure_speed(PointModel(), objective, batches=(2,), repeats=1)
    assert row["eager_ms"] > 0 and row["planner_ms"] > 0
    assert row["speedup"] == pytest.approx(row["eager_ms"] / row["planner_ms"])


def test_latency_rows_split_the_tick(tmp_path: Path) -> None:
    """A whole run over a tiny number of ticks; without compiling, to be quick."""
    rows = Latency(
        "gru", "eager", starts="2", iterations=2, ticks=4, cem_seconds=0.01, gate_seconds=0
    )
    report = tmp_path / "latency.json"
    assert run(Config(latency=True, rows=rows, report=report)) == 0
    found = json.loads(report.read_text())
    (row,) = found["results"]
    parts = row["parts"]
    assert parts["tick"]["n"] == 4
    split = sum(parts[name]["max"] for name in ("decode", "encode", "plan", "filter"))
    assert 0 < parts["plan"]["p50"] <= parts["tick"]["max"] <= split * (1 + 1e-6)
    assert row["iterations"] == 2
    assert row["cem_reference"]["scaled"]
    assert row["cem_ratio"] > 0
    # two iterations of two starts and five steps: forward through all matrices, backward through
    # all but the one of the hidden state, which is zero
    products = 414_208 + 217_600
    assert row["flop"] == pytest.approx(2 * 2 * 2 * 5 * products, rel=0.02)
    assert found["roofline"]["float32_flops"] > 1e8
    assert found["roofline"]["copy_bytes"] > 1e7
    assert report.with_suffix(".md").read_text().count("\n") == 3
    assert report.with_suffix(".png").stat().st_size > 1000
    assert "Where a tick&#39;s time goes" in report.with_suffix(".html").read_text()


def test_a_row_that_fails_is_told_and_the_others_go_on(capsys: pytest.CaptureFixture) -> None:
    rows = Latency("nowhere,gru", "eager", starts="1", iterations=1, ticks=3, cem_seconds=0.01)
    found = run_latency(rows, "cpu")
    assert [row["model"] for row in found["results"]] == ["gru"]
    assert [failure["model"] for failure in found["failures"]] == ["nowhere"]


def test_without_ros_the_rows_stand_without_gate_and_wire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("wm_mpc.bringup.ros_env.rclpy_source", lambda: None)
    rows = Latency("gru", "eager", starts="1", iterations=1, ticks=3, cem_seconds=0.01)
    report = tmp_path / "latency.json"
    assert run(Config(latency=True, rows=rows, report=report)) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("gate and wire")]
    assert line.startswith("gate and wire: not timed; rclpy: not found")
    found = json.loads(report.read_text())
    assert found["way"] is None and len(found["results"]) == 1
    assert report.with_suffix(".png").stat().st_size > 1000
