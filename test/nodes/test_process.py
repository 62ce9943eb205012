"""How node processes begin and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_checkpoint
from ros import ROOT, START_S, NodeProcess, Probe

from wm_mpc.control.tick import State
from wm_mpc.msg import PlannerStatus, TaskState

MPC, SIM = "wm_mpc.nodes.mpc.node", "sim_bridge.node"


@pytest.fixture
def start(ros_domain: int, tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    running: list[NodeProcess] = []

    def begin(module: str, **parameters: Any) -> NodeProcess:
        running.append(NodeProcess(module, tmp_path / f"{len(running)}.log", **parameters))
        return running[-1]

    yield begin
    for process in running:
        if process.alive:
            process.kill()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"imagesize": 64}, "error: parameter imagesize: unknown; image_size"),
     ({"image_size": 7}, "error: parameter image_size: 7; 16 to 2048 expected"),
     ({"task": "chess"}, "error: parameter task: 'chess' unknown; one of point_maze"),
     ({"image_size": [1, "a"]}, "error: failed to initialize rcl: Couldn't parse parameter")],
)  # fmt: skip
def test_bad_parameters_end_with_code_2_and_one_line(
    start: Callable[..., NodeProcess], parameters: dict[str, Any], words: str
) -> None:
    process = start(SIM, **parameters)
    assert process.process.wait(START_S) == 2
    assert words in process.output and "Traceback" not in process.output


def test_a_simulator_that_cannot_run_ends_with_code_1(
    start: Callable[..., NodeProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A broken installation: the module that holds the physics cannot be imported.
    (tmp_path / "gym_pusht").mkdir()
    (tmp_path / "gym_pusht" / "__init__.py").write_text("raise RuntimeError('no physics')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = start(SIM, image_size=32)
    assert process.process.wait(START_S) == 1, process.output
    assert "simulation: no physics" in process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_with_code_0(
    ros_domain: int, start: Callable[..., NodeProcess], number: int
) -> None:
    probe = Probe(ros_domain)
    probe.listen(TaskState, "task_state")
    process = start(SIM, image_size=32)
    try:
        probe.wait(lambda: probe.last("task_state"), START_S, "simulating")
    finally:
        probe.close()
    assert process.end(number) == 0, process.output
    assert "Traceback" not in process.output


def test_hardware_without_limits_is_not_activated(
    ros_domain: int, start: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    probe = Probe(ros_domain)
    probe.listen(PlannerStatus, "status")
    model = tiny_checkpoint(tmp_path / "model")
    process = start(MPC, model=model, compile=False, hardware=True)
    try:
        probe.wait(
            lambda: probe.last("status") and "action_low: not set" in probe.last("status").reason,
            START_S,
            "refusal",
        )
        assert probe.last("status").state == State.FAULT
    finally:
        probe.close()
    assert process.end(signal.SIGTERM) == 0, process.output


def test_a_failed_start_brings_the_launch_down(ros_domain: int, tmp_path: Path) -> None:
    """A controller that cannot work leaves no simulator playing to nobody."""
    launches = {}
    for name, argument in (("device", "device:=cuda"), ("model", f"model:={tmp_path / 'none'}")):
        command = [sys.executable, "-m", "wm_mpc.cli", "launch", "pusht_sim", argument]
        command.append(f"namespace:={name}")
        # CUDA_VISIBLE_DEVICES: also where there is a GPU
        env = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
        env["OMP_NUM_THREADS"] = "1"
        launches[name] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
        )
    try:
        said = {name: launch.communicate(timeout=START_S)[0] for name, launch in launches.items()}
    finally:
        for launch in launches.values():
            launch.kill()
    assert "device: 'cuda'; this machine has no usable CUDA device" in said["device"]
    assert str(tmp_path / "none") in said["model"]
    for name, launch in launches.items():
        assert launch.returncode == 1, said[name]
        assert "[mpc_node] ended with code 1" in said[name]
        assert "[launch] sim_bridge: process" in said[name] and "Traceback" not in said[name]


def test_a_failed_start_waits_for_a_better_model_unless_told_otherwise(
    ros_domain: int, start: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    waiting = start(MPC, model=tmp_path / "none")
    ending = start(MPC, model=tmp_path / "none", exit_on_failed_start=True)
    impatient = start(MPC, model=tmp_path / "none", exit_on_failed_start=True, cores=[100000])
    assert ending.process.wait(START_S) == 1, ending.output
    assert impatient.process.wait(START_S) == 1, impatient.output
    assert "configure: cores: [100000]; some of" in impatient.output
    assert waiting.alive
    assert waiting.end(signal.SIGTERM) == 0
