"""The law of the house: rooms, imports that point down, no circles, heads that tell."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ("msg", "srv", "action")
ROOMS = sorted(
    path.name
    for path in (ROOT / "wm_mpc").iterdir()
    if (path / "__init__.py").is_file() and path.name not in GENERATED
)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of the project's pyproject.toml against the packages in ``folder``."""
    code = "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())"
    command = [sys.executable, "-c", code, "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages without their models, to plant faults in."""
    folder = tmp_path_factory.mktemp("house")
    ignore = shutil.ignore_patterns("assets", "__pycache__", "*.so")
    for package in ("wm_mpc", "sim_bridge"):
        shutil.copytree(ROOT / package, folder / package, ignore=ignore)
    return folder


def test_imports_point_down_only() -> None:
    checked = lint(ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("where", "what", "contract"),
    [
        ("wm_mpc/core/errors.py", "import wm_mpc.cli.main", "rooms of wm_mpc, top to bottom"),
        ("wm_mpc/core/files.py", "from wm_mpc.core import planted", "no circles between modules"),
        ("wm_mpc/control/tick.py", "import sim_bridge.tasks", "its simulator bridge"),
        ("sim_bridge/tasks/base.py", "import wm_mpc.core.errors", "know no world model"),
    ],
)
def test_a_planted_import_breaks_the_law(
    copy: Path, where: str, what: str, contract: str
) -> None:
    file, planted = copy / where, copy / "wm_mpc/core/planted.py"
    before = file.read_text()
    try:
        planted.write_text('"""Planted."""\n\nimport wm_mpc.core.files\n')
        file.write_text(f"{before}\n\ndef planted() -> None:\n    {what}\n")
        checked = lint(copy)
    finally:
        file.write_text(before)
        planted.unlink()
    broken = [line for line in checked.stdout.splitlines() if line.endswith("BROKEN")]
    assert checked.returncode != 0 and any(contract in line for line in broken), checked.stdout


def test_the_house_stays_small_enough_to_see() -> None:
    graph = grimp.build_graph("wm_mpc", "sim_bridge")
    rooms = [*(f"wm_mpc.{name}" for name in ROOMS), "sim_bridge"]
    members = {room: {room, *graph.find_descendants(room)} for room in rooms}
    home = {module: room for room, modules in members.items() for module in modules}
    arrows = {
        (home[module], home[imported])
        for module in home
        for imported in graph.find_modules_directly_imported_by(module)
        if imported in home and home[imported] != home[module]
    }
    assert len(rooms) <= 20
    assert len(arrows) <= 90
    assert not [pair for pair in permutations(rooms, 2) if pair in arrows and pair[::-1] in arrows]


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is(room: str) -> None:
    head = ast.get_docstring(ast.parse((ROOT / "wm_mpc" / room / "__init__.py").read_text()))
    assert head is not None
    assert head.startswith("Room: ")
    assert "\nCalls: " in head and "Words: " in head
    assert room in (ROOT / "docs" / "architecture.md").read_text()


def test_functions_fit_a_screen() -> None:
    """Below 80 lines each, docstring included."""
    long = []
    for package in ("wm_mpc", "sim_bridge"):
        for file in sorted((ROOT / package).rglob("*.py")):
            if file.relative_to(ROOT).parts[1] in GENERATED:
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or 0) - node.lineno + 1
                    if lines >= 80:
                        long.append(f"{file.relative_to(ROOT)}: {node.name}: {lines} lines")
    assert not long
