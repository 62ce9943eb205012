"""The gap is zero for the truth, and shrinks when errors do."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from wall_data import wall_model, wall_store

from wm_mpc.cli import main as cli
from wm_mpc.core.errors import UserError
from wm_mpc.evaluation.rollouts import simulator
from wm_mpc.evaluation.train_test_gap import (
    GapConfig,
    directions,
    errors_per_step,
    gap_row,
    interval,
    landscape,
    measure_gap,
)
from wm_mpc.latents.expert import Expert, load_expert
from wm_mpc.models.world_model import WorldModel

CONFIG = GapConfig(starts=4, distance=2, grid=5, span=0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> WorldModel:
    return wall_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def expert(model: WorldModel, tmp_path_factory: pytest.TempPathFactory) -> Expert:
    store = wall_store(tmp_path_factory.mktemp("store"))
    return load_expert(model, store, 2, held_out=0.5, progress=False)


def test_a_model_that_predicts_the_targets_has_no_error(model: WorldModel) -> None:
    start = torch.randn(5, *model.latent_shape)
    actions = torch.randn(5, 3, model.action_width)
    with torch.no_grad():
        truth = model.rollout(start, actions)
    assert float(errors_per_step(model, (start, actions, truth)).abs().max()) == 0
    off = errors_per_step(model, (start, actions, truth + 0.25))
    torch.testing.assert_close(off, torch.full((5, 3), 0.25))


def test_every_model_is_measured_on_all_trajectories(model: WorldModel, expert: Expert) -> None:
    worse = copy.deepcopy(model)
    with torch.no_grad():
        worse.predictor.net[-1].bias.add_(1.0)
    env = simulator("wall", model)
    found = measure_gap({"base": model, "worse": worse}, env, expert, CONFIG)
    rows = {(r["model"], r["trajectories"], r["step"]): r for r in found["errors"]}
    assert len(rows) == 2 * 3 * 2 and found["starts"] == 4
    for where in ("expert", "planner of base", "planner of worse"):
        for step in (1, 2):
            base, other = (rows[name, where, step] for name in ("base", "worse"))
            assert other["error"] > base["error"] + 0.5
            assert base["error_ci95"][0] <= base["error"] <= base["error_ci95"][1]
    own = rows["base", "planner of base", 2]["error"] - rows["base", "expert", 2]["error"]
    gaps = {row["model"]: row for row in found["gaps"]}
    assert gaps["base"]["gap_last_step"] == pytest.approx(own, abs=1e-5)
    assert gaps["base"]["gone_mean"] == 0
    promises = {row["model"]: row for row in found["promises"]}
    assert promises["base"]["promised"]["n"] == found["starts"]
    # what a plan reaches differs from the promise by no more than the model's error
    last = max(r["error"] for r in found["errors"] if r["trajectories"] == "planner of worse")
    worse_row = promises["worse"]
    assert worse_row["reached"]["error"] != worse_row["promised"]["error"]
    assert abs(worse_row["reached"]["error"] - worse_row["promised"]["error"]) < 3 * last


def test_models_that_see_differently_cannot_be_compared(model: WorldModel, expert: Expert) -> None:
    other = copy.deepcopy(model)
    other.visual_std.mul_(2)
    with pytest.raises(UserError, match="latents cannot be compared"):
        measure_gap({"a": model, "b": other}, simulator("wall", model), expert, CONFIG)


def test_gap_rows_tell_how_much_is_gone() -> None:
    generator = torch.Generator().manual_seed(0)
    first = 1 + 0.1 * torch.randn(200, 3, generator=generator)
    row = gap_row(0.25 * first, first, seed=0)
    assert row["gone_mean"] == pytest.approx(0.75) and row["gone_mean_ci95"] == pytest.approx(
        [0.75, 0.75], abs=1e-4
    )
    low, high = row["gap_mean_ci95"]
    assert low < row["gap_mean"] == pytest.approx(0.25, abs=0.01) and row["gap_mean"] < high
    assert high - low < 0.01
    spread = interval(first[:, 0])
    assert spread["error_ci95"][1] - spread["error_ci95"][0] == pytest.approx(0.0277, rel=0.1)


def test_directions_are_orthogonal_and_of_unit_size() -> None:
    first, second = directions(torch.Size((3, 10)), 5)
    assert first.shape == (3, 10)
    assert float((first * second).sum()) == pytest.approx(0, abs=1e-4)
    for direction in (first, second):
        assert float(direction.square().mean()) == pytest.approx(1, abs=1e-5)


def test_the_plan_lies_in_the_middle_of_its_landscape(model: WorldModel, expert: Expert) -> None:
    picture = landscape({"base": model}, expert, CONFIG)["base"]
    cost = torch.tensor(picture["cost"])
    assert cost.shape == (5, 5) and picture["axis"][2] == 0
    # the planner came to rest near a minimum: hardly anything around is better
    assert float((cost < cost[2, 2]).float().mean()) < 0.2


def test_the_command_writes_table_and_pictures(model: WorldModel, tmp_path: Path) -> None:
    wall_store(tmp_path / "store")
    folder = str(model.path)
    words = [
        "gap", "wall", "--data", str(tmp_path / "store"), "--models", f"base={folder}",
        f"again={folder}", "--held-out", "0.5", "--gap.starts", "3", "--gap.distance", "2",
        "--gap.grid", "3", "--plot", str(tmp_path / "a" / "gap.png"),
        "--landscape", str(tmp_path / "land.png"), "--report", str(tmp_path / "gap.json"),
    ]  # fmt: skip
    assert cli.main(words) == 0
    report = json.loads((tmp_path / "gap.json").read_text())
    assert {row["model"] for row in report["promises"]} == {"base", "again"}
    assert [row["model"] for row in report["results"]] == ["base", "again"]
    assert report["results"][1]["gone_mean"] == pytest.approx(0, abs=1e-5)
    assert report["models"] == {"base": model.hash, "again": model.hash}
    for name in ("a/gap.png", "land.png"):
        assert (tmp_path / name).stat().st_size > 1000
    page = (tmp_path / "gap.html").read_text()
    assert "the train-test gap" in page and page.count("data:image/png") == 2


@pytest.mark.parametrize("models", [["base"], ["=x"], ["expert=x"], ["a=x", "a=y"]])
def test_bad_labels(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gap", "wall", "--data", str(tmp_path), "--models", *models]) == 2
    assert "models: " in capsys.readouterr().err
