"""Evaluation on a task whose dynamics the model knows exactly."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_model
from point_task import ENV_ID, PointEnv, PointModel

from wm_mpc.cli.eval import Config, run
from wm_mpc.control.controller import Controller
from wm_mpc.control.tick import TickResult
from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.errors import UserError
from wm_mpc.evaluation import jobs as eval_jobs
from wm_mpc.evaluation import loop as eval_loop
from wm_mpc.evaluation.episodes import Episode, run_episode
from wm_mpc.evaluation.jobs import episode_seed
from wm_mpc.evaluation.rows import evaluate, model_hash, summarise
from wm_mpc.evaluation.settings import EvalSettings, parse_options
from wm_mpc.models.identity import perception_hash
from wm_mpc.models.proposers import InitNetwork, save_proposer
from wm_mpc.planners import Plan, PlanRequest
from wm_mpc.planners.budget import CemReference
from wm_mpc.planners.gradient import GradientPlanner
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
    found = row("cem", budget_fraction=0.1, reference=tiny, steps=1)
    unlimited = row("cem", reference=tiny, steps=1)
    # What the controller grants a robot too: a moment for the first iteration, not for all 30.
    assert 1 <= found["iterations_per_tick"] < unlimited["iterations_per_tick"] == 30
    assert found["success_rate"] == 0
    assert found["budget_fraction"] == 0.1


def test_a_budget_too_short_for_anything_is_overdrawn_and_told() -> None:
    tiny = CemReference(1e-6, 45_000, 3, 30, 30, "cpu", 1)
    found = row("adam", budget_fraction=0.1, reference=tiny, steps=4, goal_offset=40)
    assert found["tick_ms"]["n"] == found["over_budget"] == found["deadline_misses"] == 16
    assert found["over_budget_5pct"] == 1
    assert found["ticks_not_running"] == 0 and found["reasons_not_running"] == []


def test_ticks_without_a_command_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = GradientPlanner.plan

    def blank(self: GradientPlanner, request: PlanRequest) -> Plan:
        return replace(plan(self, request), cost=math.inf, iterations=0, stopped="deadline")

    monkeypatch.setattr(GradientPlanner, "plan", blank)
    found = row("adam", steps=1)
    assert found["ticks_not_running"] == 4 and found["success_rate"] == 0
    assert found["reasons_not_running"] == ["planner: nothing evaluated (deadline)"]


def test_rows_tell_the_share_of_the_budget() -> None:
    spec = EvalSettings(ENV_ID, "adam", goals=1, budget_fraction=0.1)
    episode = Episode(1, plan_ms=[8.0, 9.0, 10.0, 10.4, 10.6], tick_ms=[1.0], transitions=[1])
    task = make_env(ENV_ID).unwrapped
    found = summarise(spec, [episode], REFERENCE, "base", 1, task)
    assert found["budget_share"]["p50"] == pytest.approx(0.1)
    assert found["budget_share"]["max"] == pytest.approx(0.106)
    assert found["over_budget_5pct"] == pytest.approx(0.2)
    unlimited = replace(spec, budget_fraction=0.0)
    found = summarise(unlimited, [episode], REFERENCE, "base", 1, task)
    assert found["budget_share"]["p50"] == pytest.approx(0.1)
    assert found["over_budget_5pct"] is None
    assert summarise(spec, [episode], None, "base", 1, task)["budget_share"] is None


def test_a_broken_controller_fails_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Controller, now: float) -> TickResult:
        raise RuntimeError("the controller is broken")

    monkeypatch.setattr(Controller, "tick", broken)
    with pytest.raises(RuntimeError, match="the controller is broken"):
        row("adam")
    assert row("none")["n"] == 4


def test_without_commands_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    tick = Controller.tick

    def silent(self: Controller, now: float) -> TickResult:
        return replace(tick(self, now), command=None)

    monkeypatch.setattr(Controller, "tick", silent)
    found, idle = row("adam"), row("none")
    assert found["tick_ms"]["n"] > 0
    assert found["success_rate"] == idle["success_rate"] == 0
    assert found["final_error"] == idle["final_error"]


def test_a_planner_that_fails_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: GradientPlanner, *_: object) -> None:
        raise ValueError("no such iterate")

    monkeypatch.setattr(GradientPlanner, "_iterate", broken)
    monkeypatch.setattr(GradientPlanner, "warm_up", lambda self, *_: None)
    with pytest.raises(RuntimeError, match="step 0: tick: no such iterate"):
        row("adam")


def test_old_pictures_stop_no_row_that_asked_for_them() -> None:
    found = row("adam", replan_every=10, goal_offset=40)
    assert found["env_steps"] == 20 and found["tick_ms"]["n"] == 2 * 4
    assert found["ticks_not_running"] == 0


def test_a_plan_that_has_run_out_holds_still() -> None:
    short = row("adam", mode="open_loop", horizon=2, goal_offset=40)
    longer = row("adam", mode="open_loop", horizon=2, goal_offset=40, steps=12)
    assert (short["env_steps"], longer["env_steps"]) == (4, 12)
    assert longer["final_error"]["median"] == pytest.approx(short["final_error"]["median"])
    assert longer["ticks_not_running"] == 4 * 8


class Reading(PointModel):
    """Reads its position from the picture."""

    proprio_reader = True

    def read_proprio(self, images: torch.Tensor) -> torch.Tensor:
        return images[..., :2].float().mean((1, 2)) / 32 - 4


def test_a_goal_may_be_a_picture_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(self: PointEnv, state: np.ndarray, size: int | None = None) -> np.ndarray:
        picture = np.zeros((size or self.image_size,) * 2 + (3,), np.uint8)
        picture[..., :2] = (np.asarray(state) + 4) * 32
        return picture

    monkeypatch.setattr(PointEnv, "render_state", drawn)
    told = row("adam")
    blind = row("adam", goal="picture")
    assert (told["goal"], told["success_rate"]) == ("posture", 1)
    # This model sees nothing in pictures, and nobody tells it where the goal is.
    assert (blind["goal"], blind["success_rate"]) == ("picture", 0)
    reading = evaluate(Reading(), ENV_ID, "adam", 4, 1, progress=False, goal="picture")
    assert reading["success_rate"] == 1
    assert row("none", goal="picture")["goal"] is None


def test_proposals_go_through_the_engine(tmp_path: Path) -> None:
    model = PointModel()
    network = InitNetwork(model.latent_shape, model.action_width, 5, width=8)
    path = save_proposer(network, tmp_path, perception_hash(model))
    assert row("adam", proposals=path)["success_rate"] == 1
    with pytest.raises(UserError, match="proposals: horizon 5; 4 expected"):
        row("adam", proposals=path, horizon=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"task": "nope"},
            "task: 'nope' unknown; one of point_maze, point_maze_medium, pusht, wall",
        ),
        ({"planner": "nope"}, "planner: 'nope' unknown; one of cem"),
        ({"mode": "nope"}, "mode: 'nope'; mpc or open_loop"),
        ({"goal": "nope"}, "goal: 'nope'; posture or picture"),
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
    said = capsys.readouterr().out
    page = path.with_suffix(".html")
    assert "success 3/3" in said and f"page: {page}" in said
    assert "3 of 3 goals reached" in page.read_text()


def test_the_device_is_that_of_loaded_models(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[str] = []

    def load(path: Path, device: str) -> PointModel:
        devices.append(device)
        return PointModel()

    monkeypatch.setattr(eval_jobs.WorldModel, "load", load)
    rows = []
    for device in ("cpu", "cuda:1"):
        spec = EvalSettings(ENV_ID, "adam", goals=2, seed=1, device=device)
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

    monkeypatch.setattr(eval_loop, "device_clock", waiting)
    spec = EvalSettings(ENV_ID, "adam", goals=1, seed=1)
    task = make_env(spec.task).unwrapped.spec_task
    policy, _ = eval_jobs.make_policy(spec, PointModel(), None, task)
    controller = policy.controller
    assert policy.clock is controller.clock is controller.engine.planner.clock
    before = len(waits)
    run_episode(make_env(spec.task), policy, seed=3, steps=1)
    # before and after encoding, before and after planning, around every chunk of iterations
    assert len(waits) - before >= 6
