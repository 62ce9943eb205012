"""Workers that are killed: what they had is done again, or the command ends with one line."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from wm_mpc.core.errors import UserError
from wm_mpc.evaluation.jobs import _on_processes


def dies_once(folder: Path, name: str) -> list[str]:
    """A share whose worker is killed the first time that share ``b`` runs."""
    mark = folder / name
    if name == "b" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [f"{name}{i}" for i in range(2)]


def dies_always(folder: Path, name: str) -> list[str]:
    os.kill(os.getpid(), signal.SIGKILL)
    return [name]


def fails(folder: Path, name: str) -> list[str]:
    raise UserError(f"{name}: wrong")


def test_a_killed_worker_costs_time_and_no_episode(tmp_path: Path) -> None:
    jobs = [(tmp_path, name) for name in "abc"]
    found = list(_on_processes(2, jobs, dies_once))
    assert sorted(found) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert (tmp_path / "b").exists()


def test_workers_that_always_die_end_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="workers: 1 processes die again and again"):
        list(_on_processes(1, [(tmp_path, "a")], dies_always))


def test_what_is_wrong_in_a_worker_is_told_and_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a: wrong"):
        list(_on_processes(1, [(tmp_path, "a")], fails))
