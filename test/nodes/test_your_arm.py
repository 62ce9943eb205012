"""Every command of docs/your_arm.md, in order, on the planar arm; with less data and training."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("mujoco")

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"--minutes": "0.6", "--n": "2", "--seconds": "2"}
LITTLE = [
    "--joint.steps", "12", "--joint.batch", "8", "--reader-steps", "12", "--dynamics.steps", "60",
    "--held-out", "0.3", "--window", "5",
]  # fmt: skip


def steps() -> list[list[str]]:
    """The page's commands, without comments."""
    text = (ROOT / "docs" / "your_arm.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [words[1:] for line in lines if (words := shlex.split(line, comments=True))]


def shortened(words: list[str]) -> list[str]:
    """The same command, for a test's patience."""
    short = list(words)
    for option, value in SHORT.items():
        if option in short:
            short[short.index(option) + 1] = value
    if short[:2] == ["train", "robot"]:
        short += LITTLE
    if short[:2] == ["bag", "import"]:
        short += ["--max-steps", "100"]
    if short[0] == "validate":
        short[short.index("--held-out") + 1] = "0.5"
    if short[0] == "trial":
        short += ["--trial.seconds", "2", "--trial.least-distance", "0"]
    return short


class Afternoon:
    """Terminals of somebody who follows the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen] = {}
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def command(self, words: list[str]) -> list[str]:
        return [sys.executable, "-m", "wm_mpc.cli", *words]

    def begin(self, terminal: str, words: list[str]) -> None:
        log = (self.folder / f"{terminal}.log").open("ab")
        self.running[terminal] = subprocess.Popen(
            self.command(words), cwd=self.folder, stdout=log, stderr=log, env=self.environment
        )

    def end(self, terminal: str) -> int:
        process = self.running.pop(terminal)
        process.send_signal(signal.SIGINT)
        return process.wait(60)

    def run(self, words: list[str]) -> str:
        done = subprocess.run(
            self.command(words), cwd=self.folder, capture_output=True, text=True, timeout=240,
            env=self.environment,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{shlex.join(words)}: {said[-2000:]}"
        return said


def test_every_command_of_the_page(ros_domain: int, tmp_path: Path) -> None:
    page = Afternoon(tmp_path)
    said: dict[str, str] = {}
    try:
        for words in map(shortened, steps()):
            if words[0] == "launch":
                if "launch" in page.running:
                    assert page.end("launch") == 0
                page.begin("launch", words)
                time.sleep(3.0)
            elif words[:2] == ["bag", "record"]:
                page.begin("record", words)
                time.sleep(3.0)
            else:
                said[" ".join(words[:2])] = page.run(words)
                if words[0] == "explore":
                    assert page.end("record") == 0
        assert page.end("launch") == 0
    finally:
        for process in page.running.values():
            process.kill()
    assert "back at the start" in said["explore --params-file"]
    assert "verdict: " in said["validate models/arm"]
    reports = {
        name: json.loads((tmp_path / "out" / name / "report.json").read_text())["results"][0]
        for name in ("dry", "trial", "picture")
    }
    assert reports["dry"]["dry_run"] and not reports["trial"]["dry_run"]
    assert len(reports["dry"]["goals"][0]["command"]) == 2
    assert reports["dry"]["goals"][0]["start_distance"] == pytest.approx(
        reports["dry"]["goals"][0]["end_distance"], abs=1e-3
    ), "nothing moves in a dry run"
    assert reports["picture"]["goal"] == "picture" and reports["trial"]["goal"] == "posture"
    assert (tmp_path / "out" / "trial" / "film.webp").exists()
