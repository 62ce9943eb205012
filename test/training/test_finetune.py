"""Fine-tuning improves what it should, leaves alone what it must, and resumes exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from wall_data import wall_model, wall_store

from wm_mpc import cli
from wm_mpc.errors import UserError
from wm_mpc.perception import perception_hash
from wm_mpc.training.adversarial import Attack, AttackConfig
from wm_mpc.training.corrected import Replay, expert_windows
from wm_mpc.training.curriculum import CurriculumConfig
from wm_mpc.training.expert import Expert, load_expert
from wm_mpc.training.finetune import Collector, FinetuneConfig, finetune
from wm_mpc.training.gap import errors_per_step
from wm_mpc.training.loop import Probe, Schedule
from wm_mpc.training.online import OnlineConfig, simulator
from wm_mpc.training.run_finetune import Config
from wm_mpc.training.selection import success_score
from wm_mpc.training.stages import task_symmetry
from wm_mpc.world_model import WorldModel

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
    held = expert_windows(expert.data, expert.held, 1)
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


def test_interrupted_and_resumed_equals_uninterrupted(
    model: WorldModel, expert: Expert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = {k: v.clone() for k, v in model.predictor.state_dict().items()}

    def run(folder: Path) -> torch.Tensor:
        model.predictor.load_state_dict(start)
        source = collector(model, expert, folder / "corrected")
        finetune(model, expert, SHORT, TWO, attack=Attack(model, AttackConfig()),
                 collector=source, folder=folder, progress=False)  # fmt: skip
        return weights(model)

    whole = run(tmp_path / "whole")
    rate, calls = Schedule.rate, iter(range(10**9))

    def dying(self: Schedule, share: float) -> float:
        if next(calls) == 15:
            raise KeyboardInterrupt
        return rate(self, share)

    with monkeypatch.context() as patch:
        patch.setattr(Schedule, "rate", dying)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut")
    torch.testing.assert_close(run(tmp_path / "cut"), whole, rtol=0, atol=0)


def test_the_best_probe_wins(model: WorldModel, expert: Expert) -> None:
    values, seen = iter([0.2, 0.9, 0.5]), []

    def measure() -> float:
        seen.append(weights(model))
        return next(values)

    finetune(model, expert, SHORT, CurriculumConfig(), probe=Probe(measure, 10), progress=False)
    assert len(seen) == 3
    torch.testing.assert_close(weights(model), seen[1], rtol=0, atol=0)


def test_corrected_data_of_an_earlier_run(
    model: WorldModel, expert: Expert, tmp_path: Path
) -> None:
    earlier = collector(model, expert, tmp_path / "a")
    earlier.round(0, 2)
    config = replace(ONLINE, corrected=(tmp_path / "a",))
    later = Collector(model, simulator("wall", model), expert, config, tmp_path / "b", seed=1)
    assert len(later.buffer) == len(earlier.buffer) == 6
    # rounds of another run are not this one's
    later.round(0, 2)
    assert len(later.buffer) == 12


def test_windows_are_moved_whole(model: WorldModel, expert: Expert, tmp_path: Path) -> None:
    """Expert and corrected windows alike, start and targets together."""
    seen = []

    def mirror(
        latents: torch.Tensor, actions: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((latents.shape, actions.shape))
        return -latents, -actions

    source = collector(model, expert, tmp_path / "c")
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
        "--gap.starts", "3", "--gap.distance", "2",
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
    assert {row["model"] for row in record["gap"]["gaps"]} == {"base", "both"}
    assert (tmp_path / "tuned" / "finetune.png").stat().st_size > 1000
    assert "gap" in capsys.readouterr().out
    # the same command again finds its work done
    assert cli.main(words) == 0
    assert WorldModel.load(tmp_path / "tuned").hash == tuned.hash


def test_the_start_model_is_never_the_target(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="never overwritten"):
        Config("wall", tmp_path, tmp_path / "x" / ".." / "m", model=tmp_path / "m")
