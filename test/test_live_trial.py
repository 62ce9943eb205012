"""The live trial spoils and poisons as it says, and counts right."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import tiny_checkpoint

from wm_mpc.cli.live import run
from wm_mpc.control.deadlines import Tally
from wm_mpc.control.thread_usage import CONDITIONS
from wm_mpc.core.errors import CheckpointError, UserError
from wm_mpc.core.provenance import write_report
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.kept import Frame
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.live.state import LiveState
from wm_mpc.trials import live as live_trial
from wm_mpc.trials.live import (
    Trial,
    parameter_file,
    poison,
    split_cores,
    spoiled_model,
)
from wm_mpc.trials.live_config import Config
from wm_mpc.trials.live_report import format_row, live_page, summarise
from wm_mpc.trials.stage import DemoError
from wm_mpc.viz.plots import draw_live
from wm_mpc.viz.report_page import write_page


def test_a_spoiled_model_sees_alike_and_takes_actions_for_larger_ones(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "model")
    config = Config("pusht", tmp_path / "out", model=source, action_scale=2.0)
    before, after = WorldModel.load(source), WorldModel.load(spoiled_model(config))
    raw = torch.randn(1, 5, 2)
    torch.testing.assert_close(
        after.normalize_actions(raw), before.normalize_actions(raw) / 2, atol=1e-6, rtol=1e-5
    )
    picture = torch.randint(0, 255, (1, 32, 32, 3), dtype=torch.uint8)
    own = torch.zeros(1, 4)
    torch.testing.assert_close(before.encode(picture, own), after.encode(picture, own))


def test_poison_is_what_it_says(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "model")
    poison(source, tmp_path / "nan", "nan")
    with pytest.raises(CheckpointError, match="not finite"):
        WorldModel.load(tmp_path / "nan")
    digest = poison(source, tmp_path / "shuffled", "shuffled")
    good, bad = (WorldModel.load(p) for p in (source, tmp_path / "shuffled"))
    assert bad.hash == digest != good.hash
    latent, action = torch.randn(8, 10), torch.randn(8, 10)
    torch.testing.assert_close(bad.step(latent, action), good.step(latent, -action.roll(-1, 1)))


def test_the_parameter_file_changes_only_what_was_asked(tmp_path: Path) -> None:
    config = Config("wall", tmp_path, episode_steps=33, trainer=("steps=7", "replay_ratio=[1, 1]"))
    sections = json.loads(parameter_file(config).read_text())
    assert sections["/**/sim_bridge"]["ros__parameters"]["episode_steps"] == 33
    trainer = sections["/**/trainer_node"]["ros__parameters"]
    assert (trainer["steps"], trainer["replay_ratio"]) == (7, [1, 1])
    assert sections["/**/mpc_node"]["ros__parameters"]["joint_names"] == ["x", "y"]


def tally() -> Tally:
    told = Tally()
    told.hear({f"{what}_{name}": "0" for name in CONDITIONS for what in ("ticks", "misses")})
    miss = {"tick": 7, "condition": "building", "cause": "blocked", "late_ms": 1.25,
            "past_period": False}  # fmt: skip
    told.hear({
        "ticks_swapped": "3", "misses_swapped": "0", "ticks_building": "10",
        "misses_building": "1", "ticks_otherwise": "0", "misses_otherwise": "0",
        "miss 7": json.dumps(miss),
    })  # fmt: skip
    return told


def watch(episodes: list[bool]) -> SimpleNamespace:
    return SimpleNamespace(
        episodes=episodes, changes=[(1.0, "a", "b")], episodes_at_changes=[3], changes_back=0,
        stopped=2,
        ticks=[(0.5, True), (1.2, True), (5.0, False)],
        misses=lambda s: {"ticks_near_changes": 2, "misses_near_changes": 2,
                          "ticks_elsewhere": 1, "misses_elsewhere": 0},
        tally=tally(),
    )  # fmt: skip


def test_first_and_last_episodes_are_compared(tmp_path: Path) -> None:
    config = Config("wall", tmp_path, window=20)
    episodes = [False] * 20 + [True, False] * 5 + [True] * 20
    row = summarise(config, watch(episodes), {"kill": None, "poison": []})
    assert (row["n"], row["episodes"]) == (20, 50)
    assert row["first"]["success_rate"] == 0 and row["last"]["success_rate"] == 1
    low, high = row["difference_ci95"]
    assert 0.7 < low < high <= 1
    text = format_row(row)
    assert row["deadline_misses"] == 2 and "50 episodes" in text
    assert "swapped: 0 misses in 3 planned ticks, 0.0 % [0.0, 56.1]\n" in text
    assert (
        "building: 1 misses in 10 planned ticks, 10.0 % [1.8, 40.4]; at most 1.2 ms late, "
        "0 past the period; 1 blocked\n"
    ) in text
    assert "otherwise: 0 misses in 0 planned ticks\n" in text + "\n"
    assert row["misses"][0]["tick"] == 7
    assert row["changes"] == [{"episode": 3, "from": "a", "to": "b"}]
    picture = tmp_path / "pictures" / "live.png"
    draw_live(picture, row)
    assert picture.read_bytes().startswith(b"\x89PNG")
    report = write_report(tmp_path / "live.json", 0, [row])
    page = write_page(report, lambda: live_page(row, picture))
    assert "50 episodes while learning" in page.read_text()
    frames = [Frame.keep(k, np.full((8, 8, 3), k, np.uint8)) for k in (0, 5)]
    seen = [Episode(seed, success=True, steps=5, frames=frames) for seed in range(3)]
    page = write_page(report, lambda: live_page(row, picture, seen, seen[:1]))
    assert "worst of the first 3 episodes" in page.read_text()
    assert page.read_text().count("reached the goal in 5 steps") == 4
    short = summarise(config, watch([False, True, True]), {"kill": None, "poison": []})
    assert short["n"] == 1
    with pytest.raises(DemoError, match="1 episodes: too few"):
        summarise(config, watch([True]), {"kill": None, "poison": []})


def kept_by_a_trainer(live: Path, count: int, used: int, last: int) -> None:
    """What a trainer leaves on disk after ``count`` trajectories."""
    folder = live / "trajectories"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3, count):  # the first ones were deleted
        (folder / f"shard-live-{number:05d}.safetensors").touch()
    LiveState(used=used, last=last).save(live)


@pytest.mark.parametrize(
    ("taken_up", "used", "resumed"),
    [("10", 10, True), ("12", 9, True), ("9", 10, False), ("10", 8, False), (None, 10, False)],
)
def test_a_killed_trainer_must_take_up_what_it_had_and_finish_a_round(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    taken_up: str | None,
    used: int,
    resumed: bool,
) -> None:
    monkeypatch.setattr(live_trial, "DEAD_S", 0.1)
    monkeypatch.setattr(live_trial, "BACK_S", 0.1)
    live = tmp_path / "live"
    kept_by_a_trainer(live, 10, used=8, last=2)
    reports = {"trajectories": "99"}  # of the one that is killed
    done: list[str] = []

    def start(spec: str) -> None:
        done.append(spec)
        assert reports == {}
        if taken_up is not None:
            reports["trajectories"] = taken_up

    def send(name: str, number: int) -> None:
        done.append(name)

    supervisor = SimpleNamespace(poll=lambda: {"trainer_node": -9}, send=send, start=start)
    watched = SimpleNamespace(ticks=[(0.0, False)])
    trial = Trial(Config("wall", tmp_path), supervisor, watched, [], reports)
    kill = trial.kill_trainer("again")
    assert done == ["trainer_node", "again"]
    assert (kill["kept_before"], kill["kept_after"], kill["ticks_while_dead"]) == (7, 7, 0)
    assert kill["trajectories_before"] == 10
    kept_by_a_trainer(live, 14, used=used, last=3)
    facts = trial.resumed(kill)
    assert facts["resumed"] is resumed
    assert (facts["used_before"], facts["used_after"]) == (8, used)
    assert (facts["generations_before"], facts["generations_after"]) == (2, 3)
    row = summarise(trial.config, watch([True] * 4), {"kill": facts, "poison": []})
    line = format_row(row).splitlines()[-1]
    assert line.startswith("trainer killed with 10 trajectories on disk, ")
    assert line.endswith("training resumed" if resumed else "training did NOT resume")
    assert ("nothing reported" in line) == (taken_up is None)


def test_the_controller_is_given_a_core_that_nobody_else_uses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2}, raising=False)
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda pid, cores: kept.append(cores), raising=False
    )
    assert split_cores(-1) == set() and kept == []
    assert split_cores(2) == {2} and kept == [{0}]
    with pytest.raises(UserError, match=r"core: 1; one of \[0, 2\]"):
        split_cores(1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    with pytest.raises(UserError, match="and one more beside it"):
        split_cores(0)


def test_bad_settings(tmp_path: Path) -> None:
    for settings, words in (
        ({"task": "chess"}, "task: 'chess'"),
        ({"minutes": 0.0}, "minutes: 0.0; 0.1 to 10000"),
        ({"action_scale": -1.0}, "action_scale"),
    ):
        with pytest.raises(UserError, match=words):
            Config(**({"task": "wall", "out": tmp_path} | settings))
    (tmp_path / "old").touch()
    with pytest.raises(UserError, match="is not empty"):
        run(Config("wall", tmp_path))
