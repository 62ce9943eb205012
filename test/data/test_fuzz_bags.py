"""Mutated recordings: a few of what ``tools/fuzz_bags.py`` tries by the hundred."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "fuzz_bags.py"


def fuzz(report: Path, *words: str) -> list[dict]:
    command = [sys.executable, str(TOOL), "--report", str(report), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return json.loads(report.read_text())["results"]


def test_mutated_bags_are_read_or_refused_in_a_line(tmp_path: Path) -> None:
    rows = fuzz(tmp_path / "report.json", "--mutants", "16", "--seed", "3000")
    assert {row["command"] for row in rows} == {"info", "import", "recover"}
    assert {row["kind"] for row in rows} == {"mcap", "sqlite3"}
    # what was tried is neither all sound nor all lost
    assert len({row["code"] for row in rows if row["command"] == "import"}) >= 3


def test_mutated_datasets_too(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = fuzz(
        tmp_path / "report.json", "--mutants", "8", "--seed", "3000", "--kinds", "lerobot"
    )
    assert len({row["code"] for row in rows}) >= 2
