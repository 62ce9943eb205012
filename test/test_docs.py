"""The documentation builds into a site without a warning, and its error messages are real."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def told() -> list[tuple[str, str]]:
    """Command and answer of every pair in the console blocks of the troubleshooting page."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return re.findall(r"^\$ wm-mpc (.+)\n(.+)$", "\n".join(blocks), re.MULTILINE)


def test_the_site_builds_strictly_and_asks_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.html")}
    assert len(pages) > 15
    loads = re.compile(r'<(?:script|img|iframe)[^>]*src="https?:|<link[^>]*stylesheet[^>]*https?:')
    assert [page for page, text in pages.items() if loads.search(text)] == []
    api = (tmp_path / "api" / "planners.html").read_text()
    assert "make_planner" in api and "max_transitions" in api


def test_there_are_messages_to_check() -> None:
    assert len(told()) >= 15


@pytest.mark.parametrize(("command", "answer"), told(), ids=lambda text: text[:40])
def test_a_command_goes_wrong_as_the_page_says(command: str, answer: str, tmp_path: Path) -> None:
    call = [sys.executable, "-m", "wm_mpc.cli", *command.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    parts = [re.escape(part) for part in answer.split("...")]
    assert re.fullmatch(".*".join(parts), last), last


def test_the_tables_of_the_rosbag_page_are_those_of_the_code() -> None:
    tool = ROOT / "tools" / "rosbag_docs.py"
    code = (
        f"import sys; sys.path[:0] = [{str(tool.parent)!r}, {str(ROOT)!r}]; "
        "import rosbag_docs as d; text = d.PAGE.read_text(); "
        "assert d.with_tables(text) == text, 'run tools/rosbag_docs.py'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
