"""A task that no file of this package knows goes through the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_encoder
from own_task import own_package

from wm_mpc.bringup import description as bringup
from wm_mpc.cli.main import main
from wm_mpc.core.errors import UserError
from wm_mpc.data.store.store import Store
from wm_mpc.models.world_model import WorldModel
from wm_mpc.tasks import registry
from wm_mpc.tasks.registry import find_task, known_task, task_names

pytest.importorskip("gymnasium")

TINY = (
    "--window=2", "--dynamics.rollout=2", "--dynamics.steps=4", "--dynamics.batch=8",
    "--held-out=0.2", "--landmarks.compositions=16", "--landmarks.steps=2",
    "--landmarks.batch=8", "--reader-steps=2", "--validation.frames=20",
    "--validation.windows=4",
)  # fmt: skip


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What one test has loaded is new to the next."""
    monkeypatch.setattr(registry, "_LOADED", {})
    yield
    for name in ("slider", "broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package, installed."""
    monkeypatch.syspath_prepend(own_package(tmp_path / "site"))
    return tmp_path


@pytest.mark.parametrize(("name", "declared"), [("slider", True), ("slider:TASK", False)])
def test_the_commands_take_it_from_data_to_success(
    name: str, declared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(own_package(tmp_path / "site", declared))
    tiny_encoder(tmp_path / "encoder")
    data, model, report = tmp_path / "data", tmp_path / "model", tmp_path / "eval.json"
    few = ("--episodes=8", "--episode-steps=20", "--image-size=32", "--workers=1")
    assert main(["collect", name, *few, "--out", str(data)]) == 0
    assert Store.open(data).spec.task == "slider"
    files = ("--data", str(data), "--encoder", str(tmp_path / "encoder"), "--out", str(model))
    assert main(["train", name, *files, *TINY]) == 0
    assert WorldModel.load(model).config.task == "slider"
    (facts,) = json.loads((model / "training.json").read_text())["results"]
    (rank,) = facts["validation"]["rank_correlation"]
    assert (rank["quantity"], rank["unit"]) == ("position", "m")
    goals = ("--goals=2", "--steps=4", "--planner=cem", "--options", "iterations=1", "samples=40")
    measured = ("--task", name, "--model", str(model), "--report", str(report))
    assert main(["eval", *measured, *goals]) == 0
    (row,) = json.loads(report.read_text())["results"]
    assert row["n"] == 2 and row["final_error"]["unit"] == "m"


def test_it_is_listed_and_its_options_are_told(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert task_names() == ("point_maze", "point_maze_medium", "pusht", "wall", "slider")
    assert "slider" not in sys.modules
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "slider" in capsys.readouterr().out
    assert find_task("slider").title == "Slider"
    assert known_task("slider") is find_task("slider") and known_task("hoist") is None


def test_the_session_runs_it(installed: Path) -> None:
    from sim_bridge.session import Session, rollout

    simulator = find_task("slider").simulator()
    session = Session(simulator.make(image_size=32), 0, 3)
    first = session.reset()
    assert first.image.shape == (32, 32, 3) and first.proprio.shape == (2,)
    action = np.array([1.0, -1.0])
    frames = [session.advance(action) for _ in range(3)]
    assert frames[-1].ended and not frames[0].ended
    again = rollout(simulator.make(image_size=32), first.state, np.tile(action, (3, 1)))
    assert np.array_equal(again.state[-1], frames[-1].state)


def test_the_bringup_hands_it_to_every_node() -> None:
    asked = {"task": "slider:TASK", "control_rate_hz": "10", "record": "true", "view": "true"}
    nodes = bringup.resolve(bringup.find("sim"), asked | {"online_finetune": "true"})
    told = {node.name: dict(node.overrides) for node in nodes}
    assert [name for name in told if "task" not in told[name]] == ["command_gate"]
    for name in ("sim_bridge", "mpc_node", "command_gate"):
        assert told[name]["control_rate_hz"] == 10.0
    assert told["trainer_node"]["task"] == "slider:TASK"


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        (
            "hoist",
            "",
            "task: 'hoist' unknown; one of point_maze, point_maze_medium, pusht, wall, "
            "or module:TASK",
        ),
        ("hoist:TASK", "", "task: 'hoist:TASK': there is no module hoist"),
        ("broken:TASK", "", "task: 'broken:TASK': broken has no TASK"),
        ("broken:TASK", "TASK = 3", "task: 'broken:TASK' is a int; a Task expected"),
        ("broken:TASK", "from wm_mpc.tasks.task import Task\nTASK = Task('wall', 'W', '')",
         "task: 'broken:TASK' calls itself 'wall', as another task does"),
    ],
)  # fmt: skip
def test_what_is_no_task_is_told_in_one_line(
    name: str, code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as error:
        find_task(name)
    assert str(error.value).startswith(said)


def test_a_module_that_cannot_import_what_it_needs_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("import no_such_simulator")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_simulator"):
        find_task("broken:TASK")


def test_no_other_module_of_the_package_names_a_task() -> None:
    root = Path(registry.__file__).parents[2]
    files = [*(root / "wm_mpc").rglob("*.py"), *(root / "sim_bridge").rglob("*.py")]
    named = {str(path.relative_to(root)) for path in files if "point_maze" in path.read_text()}
    tasks = ("point_maze", "point_maze_medium")
    places = ("wm_mpc/tasks/builtin", "sim_bridge/tasks/simulations", "sim_bridge/tasks")
    assert named == {f"{place}/{task}.py" for place in places for task in tasks}
