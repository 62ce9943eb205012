"""Temporary files of writers that ended are removed, those of running ones stay."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from wm_mpc.core.files import remove_leftovers


def leftover(folder: Path, pid: int) -> Path:
    path = folder / f".weights.safetensors.{socket.gethostname()}.{pid}.0123abcd.tmp"
    path.write_bytes(b"half")
    return path


def test_leftovers_of_the_dead_go_also_while_nobody_has_buried_them(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    # ended, but its parent has not asked for its code: the system still lists it
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    files = [leftover(tmp_path, pid) for pid in (gone.pid, dead.pid, os.getpid())]
    remove_leftovers(tmp_path)
    assert [path.exists() for path in files] == [False, False, True]
    dead.wait()
