"""The quick rows of ``make faults``, which drive the gate in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.faults import runner, table
from tools.faults.outcome import Outcome

ROOT = Path(__file__).parents[2]


def test_there_are_enough_rows_and_each_has_a_name_of_its_own() -> None:
    names = [row.name for row in runner.ROWS]
    assert len(names) >= 45 and len(set(names)) == len(names)
    assert {row.group for row in runner.ROWS} <= set(runner.GROUPS)


def test_the_quick_rows_are_green(ros_domain: int, tmp_path: Path) -> None:
    words = ["--quick", "--only", "gate", "--domain", str(ros_domain), "--logs", str(tmp_path)]
    # other tests may keep every core busy: more slack than `make faults` grants
    done = subprocess.run(
        [sys.executable, "-m", "tools.faults", *words, "--slack", "3"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "RED" not in done.stdout and done.stdout.count("green gate") >= 9


def test_the_table_is_written_between_the_marks_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    good, bad = Outcome("stands", 2, 1.5, 0, "drives", "why"), Outcome("stands", 2, wrong=["late"])
    rows = runner.ROWS[:2]
    outcomes = zip(rows, (good, bad), strict=True)
    table.write_page(page, [runner.Result(row, outcome, 1.0) for row, outcome in outcomes])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text
    assert f"| {rows[0].name} | stands | 1.5 | 0 | drives | why | green |" in text
    assert "red: late" in text
    page.write_text("no marks")
    with pytest.raises(ValueError, match="faults: begin"):
        table.write_page(page, [])
