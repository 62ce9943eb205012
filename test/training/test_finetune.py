"""Fine-tuning improves what it should, leaves alone what it must, and resumes exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wall_data import wall_model, wall_store

from wm_mpc.cli import main as cli
from wm_mpc.cli.finetune import Config
from wm_mpc.core.errors import UserError
from wm_mpc.core.locations import ASSETS
from wm_mpc.data.store.store import Store
from wm_mpc.evaluation.rollouts import simulator
from wm_mpc.evaluation.train_test_gap import errors_per_step
from wm_mpc.latents.expert import Expert, load_expert
from wm_mpc.latents.replay import Replay
from wm_mpc.models.identity import perception_hash
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.dynamics.symmetry import task_symmetry
from wm_mpc.training.finetune.adversarial import Attack, AttackConfig
from wm_mpc.training.finetune.curriculum import CurriculumConfig
from wm_mpc.training.finetune.finetune import Collector, FinetuneConfig, finetune
from wm_mpc.training.finetune.online import OnlineConfig
from wm_mpc.training.finetune.rounds import KEY_FILE
from wm_mpc.training.finetune.selection import SelectionConfig, success_score
from wm_mpc.training.optimise.loop import Probe, Schedule
from wm_mpc.training.optimise.resume import Progress

SHORT = FinetuneConfig(steps=30, batch=32, lr=5e-3, save_every=10)
FAST = ("iterations=2", "starts=2")
ONLINE = OnlineConfig(rollouts=3, every=10, options=FAST)
TWO = CurriculumConfig(rollout=(1, 2), goal_distance=(1, 2))


@pytest.fixture
def model(tmp_path: Path) -> WorldModel:
    return wall_model(tmp_path)


@pytest.fixture
def expert(model: WorldModel, tmp_path: Path) -> Expert:
    return load_expert(model, wall_store(tmp_path / "store"), 3, held_out=0.3, progress=False)


def collector(model: WorldModel, expert: Expert, folder: Path) -> Collector:
    return Collector(model, simulator("wall", model), expert, ONLINE, folder, seed=1)


def weights(model: WorldModel) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.predictor.parameters()])


@pytest.mark.parametrize("method", ["adversarial", "online", "both"])
def test_the_predictor_learns_and_nothing_else_changes(
    method: str, model: WorldModel, expert: Expert, tmp_path: Path
) -> None:
    held = expert.data.batch(expert.held, 1)
    before, seen = errors_per_step(model, held).mean(), perception_hash(model)
    attack = Attack(model, AttackConfig()) if method != "online" else None
    source = collector(model, expert, tmp_path / "c") if method != "adversarial" else None
    done = finetune(
        model, expert, replace(SHORT, steps=80), TWO, attack=attack, collector=source,
        progress=False,
    )  # fmt: skip
    assert errors_per_step(model, held).mean() < 0.9 * before
    assert perception_hash(model) == seen and not model.predictor.training
    assert done.step == 80
    if source is not None:
        # 8 rounds of 3 plans, of 1 model step in the first half and 2 in the second
        assert source.rounds == set(range(8))
        assert len(source.buffer) == 3 * (4 * 1 + 4 * 2)


@dataclass
class Runs:
    """Runs of one configuration from the same start, each in a folder of its own."""

    model: WorldModel
    expert: Expert

    def __post_init__(self) -> None:
        self.start = {k: v.clone() for k, v in self.model.predictor.state_dict().items()}

    def __call__(
        self, folder: Path, config: FinetuneConfig = SHORT, attack: Attack | None = None,
        **online: Any,
    ) -> torch.Tensor:  # fmt: skip
        """Weights after a run with a round every 5 steps and a stored state every 10."""
        self.model.predictor.load_state_dict(self.start)
        source = Collector(
            self.model, simulator("wall", self.model), self.expert,
            replace(ONLINE, every=5, **online), folder / "corrected", seed=1,
        )  # fmt: skip
        attack = attack or Attack(self.model, AttackConfig(radii="fixed"))
        finetune(self.model, self.expert, config, TWO, attack=attack, collector=source,
                 folder=folder, key={"online": asdict(source.config)}, progress=False)  # fmt: skip
        return weights(self.model)


@pytest.fixture
def runs(model: WorldModel, expert: Expert) -> Runs:
    return Runs(model, expert)


def killed(monkeypatch: pytest.MonkeyPatch, step: int, run: Callable[[], object]) -> None:
    """Run and die before optimiser step ``step`` of ``SHORT``, after its round of plans."""
    rate = Schedule.rate

    def dying(self: Schedule, share: float) -> float:
        if round(share * SHORT.steps) == step:
            raise KeyboardInterrupt
        return rate(self, share)

    with monkeypatch.context() as patch:
        patch.setattr(Schedule, "rate", dying)
        with pytest.raises(KeyboardInterrupt):
            run()


def plans(folder: Path) -> list[tuple[int, bytes]]:
    """Round and actions of every stored plan."""
    return [(t.meta["round"], np.array(t.actions).tobytes()) for t in Store.open(folder)]


@pytest.mark.parametrize("kills", [(7,), (10,), (17,), (17, 26)])
def test_interrupted_and_resumed_equals_uninterrupted(
    kills: tuple[int, ...], runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runs(tmp_path / "whole")
    for step in kills:
        killed(monkeypatch, step, lambda: runs(tmp_path / "cut"))
    torch.testing.assert_close(runs(tmp_path / "cut"), whole, rtol=0, atol=0)
    expected = plans(tmp_path / "whole" / "corrected")
    assert [number for number, _ in expected] == [n for n in range(6) for _ in range(3)]
    assert plans(tmp_path / "cut" / "corrected") == expected
    # what was planned after the stored state is not lost, and there is one folder of it per kill
    late = {7: {0, 1}, 10: {2}, 17: {2, 3}, 26: {4, 5}}
    for i, step in enumerate(kills, 1):
        aside = plans(tmp_path / "cut" / f"corrected-{i}")
        assert {number for number, _ in aside} == late[step] and set(aside) <= set(expected)
    assert not (tmp_path / "cut" / f"corrected-{len(kills) + 1}").exists()


@pytest.mark.parametrize("change", ["planner", "options", "far", "chain", "start", "lr"])
def test_plans_of_other_settings_are_not_taken_up(
    change: str, runs: Runs, model: WorldModel, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    short = replace(SHORT, steps=10)
    runs(tmp_path / "used", short)
    before = plans(tmp_path / "used" / "corrected")
    settings: dict[str, Any] = {
        "planner": {"planner": "gd"}, "options": {"options": ("iterations=3", "starts=2")},
        "far": {"far": 1.0}, "chain": {"chain": 3},
    }.get(change, {})  # fmt: skip
    if change == "lr":
        short = replace(short, lr=1e-3)
    if change == "start":
        model.hash = "another"
        for value in runs.start.values():
            value.mul_(0.9)
    fresh = runs(tmp_path / "fresh", short, **settings)
    torch.testing.assert_close(runs(tmp_path / "used", short, **settings), fresh, rtol=0, atol=0)
    assert plans(tmp_path / "used" / "corrected") == plans(tmp_path / "fresh" / "corrected")
    assert plans(tmp_path / "used" / "corrected-1") == before
    assert "plans of another run; moved to" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (KEY_FILE, "not the plans of the unfinished run"),
        ("shard-round00001-00000.safetensors", "round 1 of the unfinished run is missing"),
    ],
)
def test_plans_that_a_stored_state_needs_must_be_there(
    lost: str, words: str, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of versions that did not note whose the plans are lack the first file."""
    killed(monkeypatch, 17, lambda: runs(tmp_path / "run"))
    folder = tmp_path / "run" / "corrected"
    (folder / lost).unlink()
    names = sorted(folder.iterdir())
    with pytest.raises(UserError, match=words):
        runs(tmp_path / "run")
    assert sorted(folder.iterdir()) == names and len(list((tmp_path / "run").iterdir())) == 2


def test_plans_without_a_record_and_without_a_state_are_moved_aside(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(monkeypatch, 7, lambda: runs(tmp_path / "run"))
    (tmp_path / "run" / "corrected" / KEY_FILE).unlink()
    torch.testing.assert_close(runs(tmp_path / "run"), runs(tmp_path / "new"), rtol=0, atol=0)
    assert len(plans(tmp_path / "run" / "corrected-1")) == 6


def test_fixed_radii_are_those_of_the_run_that_is_resumed(
    runs: Runs, model: WorldModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = (Attack(model, AttackConfig(radii="fixed")) for _ in range(2))
    killed(monkeypatch, 17, lambda: runs(tmp_path, attack=first))
    again.fixed = torch.full((3,), 9.0)
    runs(tmp_path, attack=again)
    torch.testing.assert_close(again.fixed, first.fixed, rtol=0, atol=0)


def test_the_best_probe_wins(model: WorldModel, expert: Expert) -> None:
    values, seen = iter([0.2, 0.9, 0.5]), []

    def measure() -> float:
        seen.append(weights(model))
        return next(values)

    finetune(model, expert, SHORT, CurriculumConfig(), probe=Probe(measure, 10), progress=False)
    assert len(seen) == 3
    torch.testing.assert_close(weights(model), seen[1], rtol=0, atol=0)


@pytest.mark.parametrize(("every", "steps"), [(20, [20, 30]), (500, [30]), (15, [15, 30])])
def test_the_last_weights_are_measured(
    every: int, steps: list[int], model: WorldModel, expert: Expert, tmp_path: Path
) -> None:
    measured = []
    start = {k: v.clone() for k, v in model.predictor.state_dict().items()}

    def run() -> Progress:
        model.predictor.load_state_dict(start)
        probe = Probe(lambda: measured.append(weights(model)) or 0.5, every)
        return finetune(model, expert, replace(SHORT, save_every=20), CurriculumConfig(),
                        probe=probe, folder=tmp_path, progress=False)  # fmt: skip

    assert [step for step, _ in run().probes] == steps
    # a run that is over stays so
    assert [step for step, _ in run().probes] == steps and len(measured) == len(steps)


def test_the_clock_ends_a_run_with_a_measurement(model: WorldModel, expert: Expert) -> None:
    config = replace(SHORT, steps=10**9, max_seconds=0.3)
    best = []
    probe = Probe(lambda: best.append(weights(model)) or 0.5, 10**9)
    done = finetune(model, expert, config, CurriculumConfig(), probe=probe, progress=False)
    assert done.step > 0 and done.probes == [[done.step, 0.5]]
    torch.testing.assert_close(weights(model), best[0], rtol=0, atol=0)


def test_corrected_data_of_an_earlier_run(
    model: WorldModel, expert: Expert, tmp_path: Path
) -> None:
    earlier = collector(model, expert, tmp_path / "a")
    earlier.take_up({"run": 1}, 0)
    earlier.round(0, 2)
    config = replace(ONLINE, corrected=(tmp_path / "a",))
    later = Collector(model, simulator("wall", model), expert, config, tmp_path / "b", seed=1)
    assert len(later.buffer) == len(earlier.buffer) == 6
    # rounds of another run are not this one's
    later.take_up({"run": 2}, 0)
    later.round(0, 2)
    assert len(later.buffer) == 12
    with pytest.raises(UserError, match="corrected: .* keeps its own plans; choose another out"):
        Collector(model, simulator("wall", model), expert, config, tmp_path / "a", seed=1)


def test_windows_are_moved_whole(model: WorldModel, expert: Expert, tmp_path: Path) -> None:
    """Expert and corrected windows alike, start and targets together."""
    seen = []

    def mirror(
        latents: torch.Tensor, actions: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((latents.shape, actions.shape))
        return -latents, -actions

    source = collector(model, expert, tmp_path / "c")
    source.take_up({}, 0)
    source.round(0, 2)
    replay = Replay(expert.data, expert.train, source.buffer, (1, 1), 8, 2, augment=mirror)
    plain = Replay(expert.data, expert.train, source.buffer, (1, 1), 8, 2)
    for moved, same in zip(
        replay(torch.Generator().manual_seed(0)), plain(torch.Generator().manual_seed(0)),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(moved, -same)
    assert seen == [((8, 3, *model.latent_shape), (8, 2, model.action_width))]


def test_symmetries_must_be_known(model: WorldModel) -> None:
    with pytest.raises(UserError, match="augment: no symmetry is known for wall"):
        task_symmetry(model)


def test_windows_must_be_as_long_as_the_curriculum(model: WorldModel, expert: Expert) -> None:
    with pytest.raises(UserError, match="rollout: 4 model steps; the windows have 3"):
        finetune(model, expert, SHORT, CurriculumConfig(rollout=(1, 4)), progress=False)


def test_success_counts_before_closeness() -> None:
    def row(rate: float, error: float) -> dict[str, Any]:
        return {"success_rate": rate, "final_error": {"median": error}}

    assert success_score(row(0.5, 9.0)) > success_score(row(0.49, 0.0))
    assert success_score(row(0.5, 1.0)) > success_score(row(0.5, 2.0))
    assert success_score(row(0.5, float("nan"))) == 0.5


def test_the_command_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wall_model(tmp_path)
    wall_store(tmp_path / "store")
    start = tmp_path / "model"
    before = {file.name: file.read_bytes() for file in start.iterdir()}
    words = [
        "finetune", "wall", "--method", "both", "--data", str(tmp_path / "store"),
        "--model", str(start), "--out", str(tmp_path / "tuned"), "--tokens", str(tmp_path / "t"),
        "--finetune.steps", "20", "--finetune.batch", "16", "--finetune.save-every", "10",
        "--online.rollouts", "2", "--online.every", "10", "--online.options", *FAST,
        "--curriculum.goal-distance", "2", "2", "--curriculum.rollout", "1", "2",
        "--selection.goals", "2", "--selection.every", "10", "--selection.options", *FAST,
        "--selection.replan-every", "25", "--held-out", "0.3", "--measure-gap",
        "--gap.starts", "3", "--gap.distance", "2", "--attack.iterations", "3",
    ]  # fmt: skip
    assert cli.main(words) == 0
    assert {file.name: file.read_bytes() for file in start.iterdir()} == before
    tuned = WorldModel.load(tmp_path / "tuned")
    record = json.loads((tmp_path / "tuned" / "finetune.json").read_text())
    facts = record["results"][0]
    base = WorldModel.load(start)
    assert facts["parent"] == base.hash != tuned.hash and tuned.generation == 1
    assert [row[0] for row in facts["probes"]] == [10, 20]
    assert facts["start"]["n"] == 2 and facts["corrected_steps"] == 8
    assert facts["improved"] in (True, False) and record["config"]["attack"]["iterations"] == 3
    assert {row["model"] for row in record["gap"]["gaps"]} == {"base", "both"}
    assert (tmp_path / "tuned" / "finetune.png").stat().st_size > 1000
    assert "gap" in capsys.readouterr().out
    # the same command again finds its work done
    assert cli.main(words) == 0
    assert WorldModel.load(tmp_path / "tuned").hash == tuned.hash


@pytest.mark.parametrize("goals", [0, 2])
def test_improvement_is_claimed_only_where_it_was_measured(
    goals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The run is over before the first measurement that the schedule asks for."""
    wall_model(tmp_path)
    wall_store(tmp_path / "store")
    rates = iter([0.5, 0.0])
    monkeypatch.setattr(
        SelectionConfig, "measure",
        lambda *_: {"n": goals, "seed": 1, "success_rate": next(rates), "success_ci95": [0, 1],
                    "final_error": {"median": 1.0}},
    )  # fmt: skip
    assert cli.main([
        "finetune", "wall", "--data", str(tmp_path / "store"), "--held-out", "0.3",
        "--model", str(tmp_path / "model"), "--out", str(tmp_path / "tuned"),
        "--finetune.steps", "5", "--finetune.batch", "16", "--curriculum.rollout", "1", "1",
        "--selection.goals", str(goals),
    ]) == 0  # fmt: skip
    for record in (
        json.loads((tmp_path / "tuned" / "finetune.json").read_text())["results"][0],
        json.loads((tmp_path / "tuned" / "world_model.json").read_text())["extra"],
    ):
        assert record["improved"] is (False if goals else None)
        assert [step for step, _ in record["probes"]] == ([5] if goals else [])
        assert record["best_step"] == 5
    said = capsys.readouterr().out
    assert ("success 0.50 -> 0.00" in said) == bool(goals)
    assert ("the start model does better" in said) == bool(goals)


def test_bundled_models_claim_no_more_than_was_measured() -> None:
    for file in ASSETS.glob("*/world_model.json"):
        extra = json.loads(file.read_text())["extra"]
        assert (extra.get("improved") is None) == (not extra.get("probes")), file


def test_the_start_model_is_never_the_target(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="never overwritten"):
        Config("wall", tmp_path, tmp_path / "x" / ".." / "m", model=tmp_path / "m")
