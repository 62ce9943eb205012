"""What ``trainer_node`` hears, keeps and says, in this process and without training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from fake_clock import FakeClock
from helpers import tiny_checkpoint

from wm_mpc.control.tick import State
from wm_mpc.core.errors import UserError
from wm_mpc.core.files import claim_folder
from wm_mpc.data.store.store import Store
from wm_mpc.models.world_model import WorldModel
from wm_mpc.msg import PlannerStatus
from wm_mpc.nodes.common.messages import CommandFormat, rgb_to_image, to_stamp
from wm_mpc.nodes.trainer.command_watch import SILENT_S, CommandWatch
from wm_mpc.nodes.trainer.node import LOCK, TrainerNode, model_hashes

PERIOD = 0.1


def claim(folder: Path) -> IO[str]:
    return claim_folder(folder, LOCK, "trainer_node")


WALL = {"task": "wall", "proprio_dim": 0, "action_low": (-1.8, -1.8), "action_high": (1.8, 1.8)}


@pytest.fixture
def build(ros_domain: int, tmp_path: Path) -> Iterator[Callable[..., TrainerNode]]:
    """Builds a node with the given parameters; it is neither started nor spun."""
    nodes: list[TrainerNode] = []
    model = tiny_checkpoint(tmp_path / "model", **WALL)

    def begin(**parameters: str) -> TrainerNode:
        values = {"model": model, "out": tmp_path / "live", "source": "robot"} | parameters
        words = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
        rclpy.init(args=["--ros-args", *words])
        nodes.append(TrainerNode())
        return nodes[-1]

    yield begin
    for node in nodes:
        node.stop()
        node.destroy_node()
    rclpy.try_shutdown()


def drive(node: TrainerNode, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the node hear ``steps`` control steps of camera and commands."""
    send = CommandFormat("float64_multi_array", (), 2, PERIOD)
    picture = np.zeros((32, 32, 3), np.uint8)
    began = time.time()

    class Then:
        nanoseconds = 0

        def now(self) -> Then:
            return self

    then = Then()
    monkeypatch.setattr(node, "get_clock", lambda: then)
    for step in range(steps + 1):
        stamp = began + step * PERIOD
        node._on_image(rgb_to_image(picture, to_stamp(stamp)))
        then.nanoseconds = round((stamp + 0.02) * 1e9)
        node._on_command(send.build(np.array([0.1, 0.2]), to_stamp(stamp)))
    monkeypatch.undo()


def test_stopping_keeps_the_motion_that_was_not_cut_yet(
    build: Callable[..., TrainerNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = build(max_steps="50")
    drive(node, 23, monkeypatch)
    assert node._keeper.count == 0, "shorter than max_steps: nothing is whole yet"
    node.stop()
    (kept,) = Store.open(node._keeper.folder)
    assert len(kept) >= 20 and kept.meta["source"] == "robot"
    np.testing.assert_allclose(kept.actions, np.tile([0.1, 0.2], (len(kept), 1)), rtol=1e-6)


def test_one_trainer_per_working_folder(build: Callable[..., TrainerNode], tmp_path: Path) -> None:
    node = build()
    with pytest.raises(UserError, match=f"out: {tmp_path / 'live'} is in use by another"):
        claim(tmp_path / "live")
    claim(tmp_path / "elsewhere").close()
    node.stop()
    claim(tmp_path / "live").close()


def test_a_second_trainer_is_refused_before_it_touches_anything(
    build: Callable[..., TrainerNode], tmp_path: Path
) -> None:
    with claim(tmp_path / "live"):
        with pytest.raises(UserError, match="is in use by another trainer_node"):
            build()
        assert [path.name for path in (tmp_path / "live").iterdir()] == ["trainer.lock"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"out: {tmp_path / 'file' / 'live'}: Not a directory"):
        claim(tmp_path / "file" / "live")


def test_generations_of_the_folder_and_the_start_model_are_its_own(tmp_path: Path) -> None:
    start = tiny_checkpoint(tmp_path / "model", 0)
    first = tiny_checkpoint(tmp_path / "live" / "models" / "00001", 1)
    (tmp_path / "live" / "models" / "00002.partial").mkdir()
    expected = {WorldModel.load(path).hash for path in (start, first)}
    assert model_hashes(start, tmp_path / "live") == expected and len(expected) == 2


# ---- seen but not heard ------------------------------------------------------------------------


def test_silence_is_told_only_while_images_come_and_a_command_is_due() -> None:
    clock = FakeClock()
    watch = CommandWatch(clock)

    def see(seconds: float, each: Callable[[], Any] = lambda: None) -> float:
        for _ in range(round(seconds / PERIOD)):
            clock.now += PERIOD
            watch.image()
            each()
        return watch.silent_s()

    clock.now += 60.0
    assert watch.silent_s() == 0.0, "nothing comes at all"
    assert see(SILENT_S - 0.5) == 0.0
    assert see(1.0) == pytest.approx(SILENT_S + 0.5, abs=0.2)
    watch.command()
    assert watch.silent_s() == 0.0
    assert see(20.0, lambda: watch.status(State.IDLE)) == 0.0, "no goal, no command"
    assert see(2 * SILENT_S, lambda: watch.status(State.RUNNING)) > 0.0
    clock.now += SILENT_S + 0.1
    assert watch.silent_s() == 0.0, "the camera is gone too"
    assert see(1.0) == 0.0, "counted from its return"


def test_commands_that_are_not_heard_and_paused_offers_show_in_diagnostics(
    build: Callable[..., TrainerNode],
) -> None:
    node = build(command_type="twist_stamped", command_names='["linear.x", "linear.y"]')
    told: list[Any] = []
    node._diagnostics.publish = lambda array: told.append(array.status[0])
    clock = FakeClock()
    node._watch = CommandWatch(clock)

    def second() -> DiagnosticStatus:
        node._on_second()
        return told[-1]

    picture = rgb_to_image(np.zeros((32, 32, 3), np.uint8), to_stamp(1.0))
    node._on_image(picture)
    assert second().level == DiagnosticStatus.OK
    clock.now = SILENT_S
    entry = second()
    assert entry.level == DiagnosticStatus.WARN
    assert "command: none heard for 5 s" in entry.message and "twist_stamped" in entry.message
    own = WorldModel.load(node.config.model_path).hash
    node._told("accepted", "words")
    for digest, paused in ((own, False), ("somebodys", True), (own, False)):
        node._on_status(PlannerStatus(model_hash=digest, state=int(State.IDLE)))
        assert ("offers paused: model somebodys runs" in second().message) is paused
        assert (second().level == DiagnosticStatus.WARN) is paused
    node._complain("command", "an error beside the warning")
