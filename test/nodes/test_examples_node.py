"""The example that drives a robot over ROS, with real nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ros import START_S, NodeProcess

ROOT = Path(__file__).resolve().parents[2]


def test_drive_a_robot(ros_domain: int, tmp_path: Path) -> None:
    nodes = [
        NodeProcess("wm_mpc.nodes.mpc.node", tmp_path / "mpc.log", task="wall"),
        NodeProcess("sim_bridge.node", tmp_path / "sim.log", task="wall", episode_steps=0,
                    auto_reset=False),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "drive_a_robot.py")],
            capture_output=True,
            text=True,
            timeout=START_S,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr + nodes[0].output
        first, *_, last = done.stdout.splitlines()
        assert first == "camera 96 x 96 px, planner adam"
        assert last.startswith(("reached: ", "timeout: ")) and "tick " in done.stdout
    finally:
        for node in nodes:
            node.end()
