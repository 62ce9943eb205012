"""Every example runs as it stands; the planner among them keeps what planners promise."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from helpers import tiny_model
from torch import Tensor

from wm_mpc.core.errors import UserError
from wm_mpc.evaluation.settings import EvalSettings, parse_options
from wm_mpc.planners import PlanRequest, make_planner, planner_config
from wm_mpc.planners.kernels import make_kernel
from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig, make_objective

pytest.importorskip("gymnasium")

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
ELSEWHERE = {"drive_a_robot.py": "needs nodes: test/nodes/test_examples_node.py"}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def run(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the example prints when it is run as a program."""
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    except SystemExit as end:
        assert end.code in (None, 0)
    return capsys.readouterr().out


def test_every_example_is_run_here_or_there() -> None:
    here = Path(__file__).read_text()
    found = {path.name for path in EXAMPLES.glob("*.py")}
    assert len(found) >= 6
    assert {name for name in found if f'run("{name}"' not in here} == set(ELSEWHERE)
    there = (ROOT / "test" / "nodes" / "test_examples_node.py").read_text()
    assert all(name in there for name in ELSEWHERE)


def test_the_page_of_examples_names_each() -> None:
    page = (ROOT / "docs" / "examples.md").read_text()
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(
        re.findall(r"examples/(\w+\.py)\)", page)
    )


def test_plan_in_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    said = run("plan_in_ten_lines.py", capsys)
    cost = float(re.search(r"cost (\S+) after 60 iterations", said)[1])
    assert 0 <= cost < 0.5
    assert said.count("command ") == 5


def test_closed_loop(capsys: pytest.CaptureFixture[str]) -> None:
    said = run("closed_loop.py", capsys)
    assert "step 0: RUNNING" in said and said.endswith("goal reached\n")


def test_own_cost(capsys: pytest.CaptureFixture[str]) -> None:
    said = run("own_cost.py", capsys)
    usual, own = (float(number) for number in re.findall(r"nearest (\S+) px", said))
    assert said.count("goal reached") == 2
    assert own > usual + 2.0


def test_own_task(capsys: pytest.CaptureFixture[str]) -> None:
    said = run("slider.py", capsys)
    assert "the same again: True" in said and "picture (96, 96, 3)" in said


def test_the_page_on_tasks_shows_the_example() -> None:
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "tasks.md").read_text(), re.DOTALL
    )
    assert code.strip() in (EXAMPLES / "slider.py").read_text()


def test_own_planner(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["--goals", "2", "--report", str(tmp_path / "bench.json")]
    monkeypatch.setattr(sys, "argv", ["own_planner.py", *words])
    said = run("own_planner.py", capsys)
    assert "wall own_planner:PLANNER (mpc): success" in said


def test_a_planner_of_ones_own_keeps_the_promises() -> None:
    model = tiny_model(None)
    planner = make_planner("own_planner:PLANNER", model, make_objective(model, ObjectiveConfig()))
    draw = torch.Generator().manual_seed(0)
    latent, goal = torch.randn(2, *model.latent_shape, generator=draw)
    warm = torch.randn(planner.shape, generator=draw).clamp(planner.low, planner.high)
    request = PlanRequest(latent, goal, warm_start=warm, seed=3)
    plan = planner.plan(request)
    assert (plan.actions >= planner.low).all() and (plan.actions <= planner.high).all()
    assert plan.cost <= plan.warm_cost and plan.iterations == 20
    assert torch.equal(plan.actions, planner.plan(request).actions)
    late = planner.plan(PlanRequest(latent, goal, warm_start=warm, deadline=0.0))
    assert late.stopped == "deadline" and torch.equal(late.actions, warm)


def test_its_options_are_checked_like_those_of_the_others() -> None:
    assert planner_config("own_planner:PLANNER", samples=8).samples == 8
    assert parse_options("own_planner:PLANNER", ("std=0.5",)) == {"std": 0.5}
    assert EvalSettings("wall", "own_planner:PLANNER").plans
    with pytest.raises(ValueError, match="samples: 0"):
        planner_config("own_planner:PLANNER", samples=0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:PLANNER", "planner: 'nowhere:PLANNER': there is no module nowhere"),
        ("own_planner:NONE", "planner: 'own_planner:NONE' is a NoneType; a PlannerEntry expected"),
    ],
)
def test_what_is_no_planner_is_told_in_one_line(name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        EvalSettings("wall", name)
    assert str(error.value) == said


def test_a_cost_of_ones_own_is_what_is_evaluated() -> None:
    class Constant(GoalObjective):
        def __call__(self, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
            return torch.full((len(actions),), 7.0) + 0 * actions.sum((1, 2))

    model = tiny_model(None)
    sizes = (5, model.visual_dim, model.proprio_width)
    kernel = make_kernel(model, Constant(ObjectiveConfig(), *sizes), compile=True)
    assert kernel.name != make_kernel(model, make_objective(model, ObjectiveConfig())).name
    plain = make_kernel(model, Constant(ObjectiveConfig(), *sizes), compile=False)
    latent, goal = torch.zeros(2, *model.latent_shape)
    cost = plain.cost(latent, goal, torch.zeros(3, 5, model.action_width))
    assert cost.tolist() == [7.0, 7.0, 7.0]
