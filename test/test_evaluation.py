"""Evaluation on a task whose dynamics the model knows exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_model
from point_task import ENV_ID, PointModel

from wm_mpc.cli.eval import Config, run
from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.errors import UserError
from wm_mpc.evaluation import jobs as eval_jobs
from wm_mpc.evaluation.episodes import Episode, run_episode
from wm_mpc.evaluation.jobs import EvalSettings, episode_seed, parse_options
from wm_mpc.evaluation.rows import evaluate, model_hash
from wm_mpc.planners.budget import CemReference
from wm_mpc.tasks.environments import make_env

REFERENCE = CemReference(0.1, 45_000, 3, 30, 30, "cpu", 1)
OBJECTIVE_KEYS = {
    "task",
    "planner",
    "model",
    "mode",
    "n",
    "success_rate",
    "success_ci95",
    "final_error",
    "tick_ms",
    "deadline_misses",
    "transitions_per_tick",
    "cem_ratio_wall",
    "cem_ratio_transitions",
}


def row(planner: str, goals: int = 4, seed: int = 1, **settings: Any) -> dict[str, Any]:
    model = PointModel() if planner in ("adam", "cem", "grasp") else None
    return evaluate(model, ENV_ID, planner, goals, seed, progress=False, **settings)


@pytest.mark.parametrize("mode", ["mpc", "open_loop"])
@pytest.mark.parametrize("planner", ["adam", "grasp"])
def test_a_true_model_reaches_every_goal(planner: str, mode: str) -> None:
    found = row(planner, mode=mode, reference=REFERENCE)
    assert found["success_rate"] == 1
    assert found["success_ci95"][0] > 0.5
    assert found["final_error"]["median"] < 0.15
    assert found["final_error"]["unit"] == "m"
    assert OBJECTIVE_KEYS <= set(found)
    assert found["model_hash"] == PointModel.hash
    assert found["cem_ratio_transitions"] == found["transitions_per_tick"] / 45_000
    assert found["cem_ratio_wall"] == pytest.approx(found["plan_ms"]["p50"] / 100)


def test_baselines_bracket_the_planners() -> None:
    assert row("none")["success_rate"] == 0
    assert row("replay")["success_rate"] == 1
    random = row("random", goals=10)
    assert random["success_rate"] < 1
    assert random["transitions_per_tick"] == 0 and random["model"] is None
    assert random["model_hash"] is None


def test_same_seed_same_row() -> None:
    first, again, other = row("random"), row("random"), row("random", seed=2)
    assert first["final_error"] == again["final_error"] != other["final_error"]
    assert first["success_by_episode"] == again["success_by_episode"]


def test_more_goals_keep_the_first_ones() -> None:
    seeds = [episode_seed(1, i) for i in range(50)]
    assert len(set(seeds)) == 50
    assert seeds[0] != episode_seed(2, 0)
    assert seeds == [episode_seed(1, i) for i in range(50)]


@pytest.mark.parametrize(("every", "ticks"), [(1, 6), (2, 3), (5, 2)])
def test_replanning_happens_on_schedule(every: int, ticks: int) -> None:
    # The steps are too few to reach the goal, so that every episode runs all of them.
    found = row("adam", replan_every=every, steps=6, goal_offset=40)
    assert found["env_steps"] == 6
    assert found["tick_ms"]["n"] == 4 * ticks


def test_open_loop_plans_once_over_the_goals_distance() -> None:
    found = row("adam", mode="open_loop", goal_offset=15)
    assert found["tick_ms"]["n"] == 4
    assert found["env_steps"] <= 16
    # Horizon 8 model steps, 8 starts, 60 iterations and the last evaluation.
    assert found["transitions_per_tick"] == 8 * 8 * 61 + 8


class Passing:
    """A policy that runs through the goal and beyond."""

    def reset(self, goal: dict[str, Any], seed: int, replay: np.ndarray) -> None:
        self.action = replay[0]

    def act(self, observation: dict[str, Any], episode: Episode) -> np.ndarray:
        return self.action


def test_success_is_latched_at_any_control_step() -> None:
    env = make_env(ENV_ID)
    episode = run_episode(env, Passing(), seed=3, steps=20)
    # 0.12 m per step: after 9 of 10 steps the goal is closer than its tolerance.
    assert episode.success and episode.steps == 9
    too_short = run_episode(env, Passing(), seed=3, steps=4)
    assert not too_short.success and too_short.steps == 4


def test_budget_is_kept_from_the_reference() -> None:
    tiny = CemReference(1e-6, 45_000, 3, 30, 30, "cpu", 1)
    found = row("cem", budget_fraction=0.1, reference=tiny)
    # No time for a single iteration: the shifted plan, which is zero.
    assert found["iterations_per_tick"] == 0
    assert found["success_rate"] == 0
    assert found["budget_fraction"] == 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "nope"}, "task: 'nope' unknown; pusht"),
        ({"planner": "nope"}, "planner: 'nope' unknown; one of cem"),
        ({"mode": "nope"}, "mode: 'nope'; mpc or open_loop"),
        ({"goals": 0}, "goals: 0; at least 1"),
        ({"budget_fraction": -0.1}, "budget_fraction: -0.1; at least 0"),
        ({"replan_every": 0}, "replan_every: 0; at least 1"),
    ],
)
def test_settings_name_field_value_and_bound(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvalSettings(**({"task": ENV_ID, "planner": "adam"} | settings))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("starts", "'starts'; name=value with one of optimizer"),
        ("nope=1", "'nope=1'; name=value"),
        ("starts=x", "starts: 'x' is no int"),
        ("starts=0", "options: starts: 0; at least 1"),
    ],
)
def test_bad_options_are_told(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        row("adam", options=(option,))


def test_options_take_the_type_of_their_default() -> None:
    parsed = parse_options("grasp", ("sync=cem", "starts=3", "goal_weight=2"))
    assert parsed == {"sync": "cem", "starts": 3, "goal_weight": 2.0}


def test_a_planner_needs_a_model_and_workers_a_folder() -> None:
    with pytest.raises(UserError, match="model: none given; planner adam needs one"):
        evaluate(None, ENV_ID, "adam", 1, progress=False)


def test_the_hash_is_that_of_the_folder(tmp_path: Path) -> None:
    model = tiny_model(None)
    assert model_hash(model) is None and model_hash(None) is None
    saved = model.save(tmp_path)
    assert len(saved) == 12
    assert model_hash(model) == model_hash(tmp_path) == model_hash(str(tmp_path)) == saved


def test_the_command_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "report.json"
    assert run(Config(task=ENV_ID, planner="replay", goals=3, seed=5, report=path)) == 0
    report = json.loads(path.read_text())
    assert report["seed"] == 5
    (found,) = report["results"]
    assert OBJECTIVE_KEYS <= set(found)
    assert found["success_rate"] == 1
    assert "success 3/3" in capsys.readouterr().out


def test_the_device_is_that_of_loaded_models(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[str] = []

    def load(path: Path, device: str) -> PointModel:
        devices.append(device)
        return PointModel()

    monkeypatch.setattr(eval_jobs.WorldModel, "load", load)
    rows = []
    for device in ("cpu", "cuda:1"):
        spec = EvalSettings(ENV_ID, "adam", 2, 1, device=device)
        rows.append(list(eval_jobs.evaluate_seeds("folder", spec, REFERENCE, [3, 4])))
    assert devices == ["cpu", "cuda:1"]
    assert [e.final_error for e in rows[0]] == [e.final_error for e in rows[1]]


def test_cpu_is_the_default_and_changes_no_row() -> None:
    plain, named = row("adam"), row("adam", device="cpu")
    timed = {"tick_ms", "plan_ms", "transitions_per_s", "deadline_misses"}
    assert plain.keys() == named.keys()
    assert {k: plain[k] for k in plain.keys() - timed} == {
        k: named[k] for k in named.keys() - timed
    }


def test_a_gpu_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="device: 'cuda'; this machine has no usable CUDA device"):
        run(Config(task=ENV_ID, planner="adam", model=tmp_path, device="cuda"))


def test_planner_and_policy_share_a_clock_that_waits_for_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[int] = []

    def waiting(device: torch.device) -> Clock:
        def read() -> float:
            waits.append(1)
            return monotonic()

        return read

    monkeypatch.setattr(eval_jobs, "device_clock", waiting)
    spec = EvalSettings(ENV_ID, "adam", 1, 1)
    task = make_env(spec.task).unwrapped.spec_task
    policy, _ = eval_jobs.make_policy(spec, PointModel(), None, task)
    assert policy.clock is policy.planner.clock
    before = len(waits)
    run_episode(make_env(spec.task), policy, seed=3, steps=1)
    # before and after encoding, before and after planning, around every chunk of iterations
    assert len(waits) - before >= 6
