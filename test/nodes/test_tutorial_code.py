"""The tutorial's Python runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from ros import NodeProcess

ROOT = Path(__file__).resolve().parents[2]


def test_the_spectator_sees_its_episode(ros_domain: int, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    sim = NodeProcess("sim_bridge.node", tmp_path / "sim.log", task="pusht", image_size=32)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=90,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr + sim.output
        first, *steps = done.stdout.splitlines()
        assert first.endswith("seed 7") and len(steps) == 10
        assert all(" px, success False" in step for step in steps)
    finally:
        assert sim.end() == 0
