"""Learning while the loop runs, with real processes: updates, poison, and kills."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from helpers import tiny_checkpoint
from ros import START_S, NodeProcess, Probe

from wm_mpc.control.tick import State
from wm_mpc.data.store.store import Store
from wm_mpc.models.world_model import WorldModel
from wm_mpc.msg import PlannerStatus, Trajectory
from wm_mpc.nodes.common.messages import to_stamp, trajectory_to_message
from wm_mpc.srv import LoadModel

MPC, SIM, TRAINER = "wm_mpc.nodes.mpc.node", "sim_bridge.node", "wm_mpc.nodes.trainer.node"
LEARN_S = 4 * START_S
WALL = {
    "task": "wall", "proprio_dim": 2, "action_low": (-1.8, -1.8), "action_high": (1.8, 1.8),
}  # fmt: skip
JOINTS = ["'x'", "'y'"]
# Any update that is finite passes its validation: what matters here is what becomes of it.
EAGER = {
    "rollout_period_s": 0.3, "steps": 20, "batch": 16, "min_new_steps": 10, "hold_out": 2,
    "worse_corrected": 1e6, "lr": 1e-3, "nice": 1,
}  # fmt: skip


@pytest.fixture
def probe(ros_domain: int) -> Iterator[Probe]:
    probe = Probe(ros_domain)
    probe.listen(PlannerStatus, "status")
    probe.listen(DiagnosticArray, "/diagnostics")
    yield probe
    probe.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Starts processes and makes sure that none survives the test."""
    running: list[NodeProcess] = []

    def begin(module: str, **parameters: Any) -> NodeProcess:
        log = tmp_path / f"{module}.{len(running)}.log"
        running.append(NodeProcess(module, log, **parameters))
        return running[-1]

    yield begin
    for process in running:
        if process.alive:
            process.end()


def facts(probe: Probe) -> dict[str, str]:
    """Newest diagnostics of the trainer."""
    for _, message in reversed(list(probe.heard["/diagnostics"])):
        for entry in message.status:
            if entry.name == "trainer_node: training":
                return {value.key: value.value for value in entry.values}
    return {}


def test_updates_poison_and_kills(
    probe: Probe, start: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    model = tiny_checkpoint(tmp_path / "model", **WALL)
    out = tmp_path / "live"
    start(SIM, task="wall", image_size=32, episode_steps=60, seed=3)
    start(MPC, task="wall", model=model, compile=False, budget_fraction=4.0, joint_names=JOINTS,
          guard_ratio=20.0)  # fmt: skip
    trainer = start(TRAINER, task="wall", model=model, out=out, joint_names=JOINTS, **EAGER)

    base = WorldModel.load(model)
    updated = probe.wait(
        lambda: (s := probe.last("status")) and s.generation >= 2 and s, LEARN_S, "an update"
    )
    assert updated.model_hash not in ("", base.hash)
    assert updated.state == State.RUNNING and updated.reason == ""
    offered = {read(path)["sha256"]: path for path in (out / "models").iterdir()}
    assert updated.model_hash in offered
    # the robot's own trajectory is whole only when its episode ends, which may be after an update
    probe.wait(lambda: sources(out) == {"rollout", "robot"}, LEARN_S, "a trajectory of the robot")

    _check_poison(probe, offered[updated.model_hash], tmp_path)

    # Killed in the middle of its work: control goes on, and nothing that was learned is lost.
    trainer.kill()
    kept = len(Store.open(out / "trajectories"))
    since = time.time()
    time.sleep(2.0)
    states = {message.state for message in probe.since("status", since)}
    assert states == {State.RUNNING} and len(probe.since("status", since)) >= 10
    probe.heard["/diagnostics"].clear()
    start(TRAINER, task="wall", model=model, out=out, joint_names=JOINTS, **EAGER)
    count = probe.wait(lambda: facts(probe).get("trajectories"), START_S, "diagnostics again")
    assert int(count) >= kept
    told = facts(probe)
    assert [told[name] for name in ("waiting", "dropped", "deaths")] == ["0", "0", "0"]
    generation = probe.last("status").generation
    probe.wait(lambda: probe.last("status").generation > generation, LEARN_S, "another update")


def sources(out: Path) -> set[str]:
    """Where the kept trajectories come from."""
    return {meta["source"] for meta in Store.open(out / "trajectories").metas()}


def read(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "world_model.json").read_text())
    return {"sha256": next(iter(record["sha256"].values()))[:12]}


def _check_poison(probe: Probe, good: Path, tmp_path: Path) -> None:
    """Weights that are not finite, or predict nonsense, do not drive; the loop does not stop."""
    since = time.time()
    spoiled = WorldModel.load(good)
    last = spoiled.predictor.net[-1]
    for name, change, words in (
        ("nan", float("nan"), "not finite"),
        ("wild", 1e3, "predicts the last"),
    ):
        with torch.no_grad():
            last.bias.fill_(change)
        spoiled.save(tmp_path / name, encoder=str(tmp_path / "model" / "encoder"))
        request = LoadModel.Request(path=str(tmp_path / name))
        end = time.monotonic() + LEARN_S
        answer = probe.call(LoadModel, "load_model", request, START_S)
        while "busy with" in answer.message and time.monotonic() < end:
            time.sleep(0.1)  # the trainer offers models all the while
            answer = probe.call(LoadModel, "load_model", request, START_S)
        assert not answer.success and words in answer.message, answer.message
        assert answer.model_hash and answer.model_hash != spoiled.hash
    assert {message.state for message in probe.since("status", since)} <= {State.RUNNING}


def test_whole_trajectories_are_kept_and_bad_ones_are_told(
    probe: Probe, start: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    from sim_bridge.collect import generate

    model = tiny_checkpoint(tmp_path / "model", **WALL)
    out = tmp_path / "live"
    trainer = start(TRAINER, task="wall", model=model, out=out, source="robot",
                    min_new_steps=10**6)  # fmt: skip
    sender = probe.node.create_publisher(Trajectory, "corrected_trajectory", 10)
    probe.wait(sender.get_subscription_count, START_S, "trainer")
    good = [trajectory_to_message(t, to_stamp(0.0)) for t in generate("wall", 2, 0, 10, 5, 32)]
    bad, broken = (trajectory_to_message(t, to_stamp(0.0)) for t in generate("wall", 2, 1, 10))
    bad.task = "pusht"
    broken.actions[3] = float("nan")
    for message in (good[0], bad, broken, good[1]):
        sender.publish(message)
    probe.wait(lambda: facts(probe).get("trajectories") == "2", START_S, "two kept")
    assert "task: 'pusht'; 'wall' expected" in trainer.output
    assert "not finite" in trainer.output
    assert trainer.end() == 0, trainer.output


def test_unusable_parameters_end_the_node(
    start: Callable[..., NodeProcess], ros_domain: int, tmp_path: Path
) -> None:
    missing = start(TRAINER, model=tmp_path / "nothing")
    wrong = start(TRAINER, source="dreams")
    for process, words in ((missing, "world_model.json is missing"), (wrong, "source: 'dreams'")):
        assert process.process.wait(START_S) == 2
        assert words in process.output and "Traceback" not in process.output
