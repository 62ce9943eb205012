"""Rounds of live fine-tuning: better weights are written, poison refused, kills cost nothing."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_setup import CONFIG, Setup
from wall_data import wall_model, wall_store, wall_trajectories

from wm_mpc.core.errors import UserError
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.live import trainer as live
from wm_mpc.training.live.intake import Assembler, Keeper
from wm_mpc.training.live.process import LiveProcess
from wm_mpc.training.live.trainer import LiveTrainer, verdict
from wm_mpc.training.live.worker import Job
from wm_mpc.training.optimise.loop import Schedule


def test_a_round_writes_a_better_generation(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    trainer = setup.trainer()
    assert not trainer.ready()
    setup.collect(2)
    assert not trainer.ready(), "nothing is held out yet"
    setup.collect(4)
    assert trainer.ready()
    outcome = trainer.round()
    assert outcome.reason == "" and outcome.path == setup.out / "models" / "00001"
    assert outcome.after["corrected"] < outcome.before["corrected"]
    written = WorldModel.load(outcome.path)
    assert written.hash == outcome.hash != setup.start.hash and written.generation == 1
    record = json.loads((outcome.path / "world_model.json").read_text())["extra"]["live"]
    assert record["trajectories"] == 6 and record["after"] == outcome.after
    assert not trainer.ready() and not (setup.out / "work").exists()
    assert WorldModel.load(tmp_path / "model").hash == setup.start.hash


def test_generations_follow_each_other_and_survive_a_restart(tmp_path: Path) -> None:
    setup = Setup(tmp_path, worse_corrected=1.5)
    setup.collect(6)
    first = setup.trainer().round()
    setup.collect(6)
    again = setup.trainer()
    assert again.model.hash == first.hash and again.good_path() == first.path
    assert again.ready()
    second = again.round()
    assert second.path == setup.out / "models" / "00002"
    assert second.before["corrected"] < first.before["corrected"]
    assert again.take_back(first.hash, "drives badly")
    assert again.good_path() is None and again.model.hash == setup.start.hash
    assert not again.take_back(second.hash, "again")
    assert setup.trainer().good_path() is None
    setup.collect(6)
    third = again.round()
    assert third.path == setup.out / "models" / "00003"


def test_killed_in_mid_round_it_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = (Setup(tmp_path / name) for name in ("whole", "cut"))
    for setup in (whole, cut):
        setup.collect(6)
    expected = whole.trainer().round()
    rate, calls = Schedule.rate, iter(range(10**9))

    def dying(self: Schedule, share: float) -> float:
        if next(calls) == 33:
            raise KeyboardInterrupt
        return rate(self, share)

    with monkeypatch.context() as patch:
        patch.setattr(Schedule, "rate", dying)
        with pytest.raises(KeyboardInterrupt):
            cut.trainer().round()
    cut.collect(3)  # what comes meanwhile is for the next round
    trainer = cut.trainer()
    assert trainer.ready()
    resumed = trainer.round()
    assert (resumed.hash, resumed.after) == (expected.hash, expected.after)
    assert trainer.look() == 3


def test_candidates_that_are_not_finite_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path)
    setup.collect(6)
    trainer = setup.trainer()
    monkeypatch.setattr(
        live, "fit", lambda *a, **k: trainer.model.predictor.net[0].weight.data.fill_(torch.nan)
    )
    outcome = trainer.round()
    assert outcome.path is None and "not finite" in outcome.reason
    assert not list((setup.out / "models").glob("*"))
    assert all(torch.isfinite(p).all() for p in trainer.model.predictor.parameters())
    assert "not finite" in json.loads((setup.out / "state.json").read_text())["refused"][0]


def test_batches_and_loaded_weights_go_to_the_device_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device stands in for a GPU: what is left on the CPU shows."""
    setup = Setup(tmp_path, worse_corrected=1e6)
    setup.collect(6)
    trainer = setup.trainer()
    trainer.round()
    load, devices = WorldModel.load, []

    def draw_one(losses: Any, trained: Any, draw: Any, *rest: Any, **more: Any) -> None:
        devices.extend(part.device.type for part in draw(torch.Generator(), slice(None)))

    def told(*args: Any, device: str = "cpu", **more: Any) -> WorldModel:
        devices.append(device)
        return load(*args, **more)

    trainer.device = "meta"
    monkeypatch.setattr(live, "fit", draw_one)
    monkeypatch.setattr(live.WorldModel, "load", told)
    trainer._fit()
    trainer._return_to_good()
    assert devices == ["meta"] * 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_round_on_a_gpu(tmp_path: Path) -> None:
    setup = Setup(tmp_path, worse_corrected=1.5)
    setup.collect(6)
    trainer = LiveTrainer(tmp_path / "model", setup.out, setup.config, device="cuda")
    assert trainer.round().reason == ""
    trainer._return_to_good()
    assert {p.device.type for p in trainer.model.parameters()} == {"cuda"}


def test_shuffled_actions_are_refused_by_the_expert_data(tmp_path: Path) -> None:
    wall_store(tmp_path / "expert", episodes=20, seed=90)
    setup = Setup(tmp_path, replay=str(tmp_path / "expert"), hold_out=2, worse_expert=1.05)
    setup.collect(8)
    assert setup.trainer().round().reason == ""
    poisoned = replace(setup.config, replay_ratio=(0, 1), steps=150)
    setup.config = poisoned
    setup.collect(40, shuffled=True)
    trainer = setup.trainer()
    good = trainer.model.hash
    outcome = trainer.round()
    assert outcome.path is None and outcome.reason.startswith("expert: error")
    assert trainer.model.hash == good


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"corrected": 1.0}, {"corrected": 0.9}, ""),
        ({"corrected": 1.0}, {"corrected": 1.01}, "corrected: error 1.01 on held-out data"),
        ({"corrected": 1.0, "expert": 1.0}, {"corrected": 0.5, "expert": 1.19}, ""),
        ({"corrected": 1.0, "expert": 1.0}, {"corrected": 0.5, "expert": 1.21}, "expert: error"),
        ({"corrected": 1.0}, {"corrected": float("nan")}, "not finite"),
        ({"expert": 1.0}, {"expert": 0.1}, "no held-out trajectory"),
    ],
)
def test_verdicts(before: dict[str, float], after: dict[str, float], words: str) -> None:
    found = verdict(before, after, CONFIG)
    assert words in found if words else found == ""


def test_a_folder_of_another_start_model_is_refused(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.collect(6)
    setup.trainer().round()
    wall_model(tmp_path, seed=1)
    with pytest.raises(UserError, match="out: .* continues model"):
        setup.trainer()


# ---- intake ------------------------------------------------------------------------------------


def test_the_keeper_refuses_what_does_not_fit_and_keeps_the_order(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    good = wall_trajectories(3)
    setup.keeper.keep(good[0])
    bad = wall_trajectories(1)[0]
    bad.meta["task"] = "pusht"
    short = wall_trajectories(1, steps=5)[0]
    short.actions = short.actions[:4]
    broken = wall_trajectories(1)[0]
    broken.actions[3] = np.nan
    for trajectory, words in ((bad, "task: 'pusht'"), (short, "4 steps"), (broken, "not finite")):
        with pytest.raises(UserError, match=words):
            setup.keeper.keep(trajectory)
    again = Keeper(setup.keeper.folder, setup.start.config)
    assert again.count == 1
    again.keep(good[1])
    again.keep(good[2])
    stored = live.Store.open(setup.keeper.folder)
    assert [t.meta["episode"] for t in stored] == [0, 1, 2]
    assert all(t.state is None for t in stored)


def test_topics_become_trajectories_of_true_motion(tmp_path: Path) -> None:
    model = wall_model(tmp_path).config
    (truth,) = wall_trajectories(1, steps=40)
    assembler = Assembler(model, max_steps=20)
    pictures = np.random.default_rng(0).integers(0, 255, (41, 8, 8, 3), dtype=np.uint8)
    found = []
    for step in range(41):
        stamp = 50.0 + 0.1 * step
        if step == 25:
            assembler.cut(stamp - 0.01, "new goal")
        found += assembler.push("proprio", stamp, truth.proprio[step])
        found += assembler.push("image", stamp, pictures[step])
        if step < 40:
            found += assembler.push("command", stamp + 0.04, truth.actions[step])
    found += assembler.finish()
    spans = []
    for trajectory in found:
        first = round((trajectory.stamps[0] - 50.0) / 0.1)
        last = first + len(trajectory)
        spans.append((first, last))
        np.testing.assert_array_equal(trajectory.actions, truth.actions[first:last])
        np.testing.assert_allclose(trajectory.proprio, truth.proprio[first : last + 1])
        assert trajectory.image_steps.tolist() == list(range(0, len(trajectory) + 1, 5))
        for image, step in zip(trajectory.images, trajectory.image_steps, strict=True):
            np.testing.assert_array_equal(image, pictures[first + step])
    # the cut at step 25 loses only the step across it
    assert spans == [(0, 20), (25, 40)] or spans == [(0, 20), (20, 24), (25, 40)]


# ---- the process -------------------------------------------------------------------------------


def test_the_training_process_offers_survives_a_kill_and_ends_with_its_parent(
    tmp_path: Path,
) -> None:
    setup = Setup(tmp_path)
    setup.collect(6)
    job = Job(str(tmp_path / "model"), str(setup.out), asdict(setup.config), nice=0)
    process = LiveProcess(job, tmp_path / "log")
    process.start()
    seen: list[dict[str, Any]] = []

    def wait(kind: str, seconds: float = 300.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen.extend(process.events())
            for event in seen:
                if event["event"] == kind:
                    seen.remove(event)
                    return event
            time.sleep(0.05)
        raise AssertionError(f"no {kind}: {seen}; {(tmp_path / 'log').read_text()}")

    try:
        assert wait("ready")["hash"] == setup.start.hash
        offer = wait("offer")
        assert WorldModel.load(offer["path"]).hash == offer["hash"]
        process.send(refused=offer["hash"], reason="test")
        assert wait("taken_back")["now"] == setup.start.hash
        first = process.pid
        process._process.kill()
        wait("restarted")
        assert process.pid != first and wait("ready")["hash"] == setup.start.hash
    finally:
        running = process._process
        process.stop(10.0)
    assert running.returncode == 0
