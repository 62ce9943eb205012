"""``make demo`` and ``make test`` set up first, once; CI runs ``make test``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


def plan(*words: str) -> str:
    """What make would do; the variables of a make that runs these tests do not count."""
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKEOVERRIDES")}
    command = ["make", "-n", *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("target", "then"),
    [
        ("test", "-m pytest -q"),
        ("demo", "bin/wm-mpc demo"),
        ("lint", "ruff"),
        ("models", "tools/train_models.sh"),
    ],
)
def test_targets_set_up_first(target: str, then: str, tmp_path: Path) -> None:
    planned = plan(target, f"VENV={tmp_path}")
    assert planned.index("tools/setup.sh") < planned.index(then)


def test_a_second_set_up_does_nothing_until_an_input_changes(tmp_path: Path) -> None:
    stamp = tmp_path / ".setup-done"
    stamp.touch()
    assert "setup.sh" not in plan("setup", f"VENV={tmp_path}")
    assert "setup.sh" not in plan("test", f"VENV={tmp_path}")
    newest = max((ROOT / "msg").iterdir(), key=lambda path: path.stat().st_mtime)
    before = newest.stat().st_mtime - 10
    os.utime(stamp, (before, before))
    assert "setup.sh" in plan("setup", f"VENV={tmp_path}")


def test_arguments_reach_the_demo_and_ros_stays_on_this_machine(tmp_path: Path) -> None:
    planned = plan("demo", f"VENV={tmp_path}", "ARGS=--episodes 3")
    (line,) = [line for line in planned.splitlines() if "wm-mpc demo" in line]
    assert line.endswith("wm-mpc demo --episodes 3")
    assert "ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST" in line and "ROS_DOMAIN_ID=" in line


@pytest.mark.parametrize("script", ["tools/setup.sh", ".ci/run"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_set_up_refuses_an_interpreter_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    env = {**os.environ, "PYTHON": str(old), "VENV": str(tmp_path / "venv")}
    done = subprocess.run([ROOT / "tools/setup.sh"], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "not a Python >= 3.10" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_ci_ends_with_the_closing_line_and_the_status_of_the_tests(tmp_path: Path) -> None:
    fake = tmp_path / "make"
    for code, closing in ((0, "12 passed, 1 skipped in 3.21s"), (2, "1 failed, 2 passed in 0.1s")):
        fake.write_text(f"#!/bin/sh\necho before\necho '{closing}'\necho after\nexit {code}\n")
        fake.chmod(0o755)
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run([ROOT / ".ci/run"], env=env, capture_output=True, text=True)
        assert done.returncode == code
        assert done.stdout.splitlines()[-1] == closing
