"""Node tests need rclpy and the generated interfaces; the core's tests do not."""

from __future__ import annotations

import fcntl
import importlib.util
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wm_mpc.bringup.ros_env import prepare

prepare()
collect_ignore_glob = [] if importlib.util.find_spec("rclpy") else ["test_*.py"]
_counter = itertools.count()


@pytest.fixture
def ros_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A domain of this test's own, on this machine only, with its logs in the test's folder."""
    with _reserved_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
        yield domain


@contextmanager
def _reserved_domain() -> Iterator[int]:
    """A domain that no other test run on this machine uses at the same time."""
    for attempt in range(100):
        domain = 1 + (os.getpid() * 7 + next(_counter) + attempt) % 100
        path = Path(tempfile.gettempdir()) / f"wm_mpc_ros_domain_{os.getuid()}_{domain}.lock"
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield domain
            return
    raise RuntimeError("all ROS domains are in use")
