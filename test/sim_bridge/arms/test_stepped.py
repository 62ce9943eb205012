"""Simulated arms that wait: a recording of one imports, a model drives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_checkpoint

pytest.importorskip("mujoco")

from sim_bridge.arms.stepped import SteppedArm
from wm_mpc.cli.main import main
from wm_mpc.core.errors import UserError
from wm_mpc.data.store.store import Store

ROOT = Path(__file__).resolve().parents[3]


def lab(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "arm_lab.py", *map(str, words)],
        capture_output=True, text=True, check=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize(
    ("arm", "joints", "fields"),
    [("planar_arm", 2, ()), ("ur5e", 6, [f"twist.linear.{axis}" for axis in "xyz"])],
)
def test_an_arm_is_recorded_imported_and_tried(
    arm: str, joints: int, fields: list[str], tmp_path: Path
) -> None:
    if arm == "ur5e":
        pytest.importorskip("ogbench")
    file = ("--params-file", f"{arm}.yaml")
    said = lab("explore", *file, "--minutes", 0.3, "--out", tmp_path / "r")
    assert "of the box's cells visited" in said
    words = ["--rate", "10", "--proprio-topic", "joint_states", "--quiet"]
    words += ["--command-fields", *fields] if fields else []
    assert main(["bag", "import", str(tmp_path / "r"), "--out", str(tmp_path / "s"), *words]) == 0
    store = Store.open(tmp_path / "s")
    actions = len(fields) or joints
    assert (store.spec.proprio_dim, store.spec.action_dim) == (2 * joints, actions)
    episode = next(iter(store))
    assert len(episode.actions) > 150 and np.ptp(episode.actions, axis=0).min() > 0.1

    bounds = {"action_low": (-0.2,) * actions, "action_high": (0.2,) * actions}
    model = tiny_checkpoint(
        tmp_path / "m", proprio_dim=2 * joints, action_dim=actions, frameskip=1,
        control_period=0.1, **bounds,
    )  # fmt: skip
    few = ["--n", 2, "--arm.seconds", 1.5, "--arm.iterations", 2]
    assert "held" in lab("trial", *file, "--model", model, *few, "--report", tmp_path / "r.json")
    (found,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert found["n"] == 2 and found["stopped"] == 0


def test_commands_that_the_arm_does_not_take_are_refused() -> None:
    with pytest.raises(UserError, match="command_type: joint_trajectory; velocities or twists"):
        SteppedArm("planar_arm", "joint_trajectory")
    with pytest.raises(UserError, match="command_names: linear.q; of linear.x, linear.y"):
        SteppedArm("planar_arm", "twist_stamped", ("linear.q",))


def test_held_velocities_move_the_joints_and_zero_stops_them() -> None:
    robot = SteppedArm("planar_arm", "float64_multi_array")
    robot.place(np.zeros(2))
    heard: list[float] = []
    for _ in range(10):
        robot.step(np.array([0.5, 0.0]), 0.1, lambda: heard.append(robot.now))
    assert robot.state()[0] > 0.3 and len(heard) == 50
    robot.step(np.zeros(2), 1.0)
    assert abs(robot.state()[2]) < 1e-2
