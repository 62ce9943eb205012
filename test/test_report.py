"""Reports say where their numbers come from, and are always valid JSON."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from wm_mpc import __version__
from wm_mpc.core import locations
from wm_mpc.core import provenance as report


def written(path: Path, **changes: object) -> dict:
    arguments = {"seed": 3, "results": [{"n": 1}]} | changes
    return json.loads(report.write_report(path, **arguments).read_text())


def test_a_report_has_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/wm-mpc", "eval"])
    read = written(tmp_path / "new" / "r.json", note="x")
    keys = ["command", "seed", "commit", "machine", "versions", "started", "results", "note"]
    assert list(read) == keys
    assert (read["command"], read["seed"], read["results"]) == ("wm-mpc eval", 3, [{"n": 1}])
    assert set(read["machine"]) == {"cpu", "cores", "gpu"}
    assert read["machine"]["cores"] >= 1 and read["machine"]["cpu"]
    assert read["versions"]["wm_mpc"] == __version__ and "torch" in read["versions"]
    assert datetime.fromisoformat(read["started"]).tzinfo is not None


def test_values_become_plain_json(tmp_path: Path) -> None:
    row = {
        "array": np.arange(3),
        "number": np.float32(0.5),
        "nan": float("nan"),
        "inf": [np.inf],
        "path": tmp_path,
        "flag": np.bool_(True),
    }
    (read,) = written(tmp_path / "r.json", results=[row])["results"]
    expected = {"array": [0, 1, 2], "number": 0.5, "nan": None, "inf": [None], "flag": True}
    assert read == {**expected, "path": str(tmp_path)}


def test_an_extra_key_cannot_replace_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'machine' is a key that every report has"):
        written(tmp_path / "r.json", machine="mine")


def test_a_failed_write_leaves_the_old_report(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    before = written(path)
    with pytest.raises(TypeError):
        written(path, results=[{"bad": object()}])
    assert json.loads(path.read_text()) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.json"]


def test_the_command_line_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/wm-mpc", "eval", "--report", "a b.json"])
    assert report.command_line() == "wm-mpc eval --report 'a b.json'"
    monkeypatch.setattr("sys.argv", ["/somewhere/wm_mpc/cli/__main__.py", "doctor"])
    assert report.command_line() == "wm-mpc doctor"


def test_commit_names_the_checkout_and_says_when_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    monkeypatch.setattr(locations, "IMPORT_ROOT", tmp_path)
    assert report.commit() is None
    (tmp_path / "package.xml").touch()
    subprocess.run([*git, "init", "-q"], check=True)
    assert report.commit() is None
    subprocess.run([*git, "add", "package.xml"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert report.commit() == head.strip()
    (tmp_path / "package.xml").write_text("changed")
    assert report.commit() == f"{head.strip()}-dirty"
