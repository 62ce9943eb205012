"""Node tests need rclpy and the generated interfaces; the core's tests do not."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wm_mpc.ros_env import prepare

prepare()
collect_ignore_glob = [] if importlib.util.find_spec("rclpy") else ["test_*.py"]
_counter = itertools.count()


@pytest.fixture
def ros_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A domain of this test's own, on this machine only, with its logs in the test's folder."""
    domain = 1 + (os.getpid() * 7 + next(_counter)) % 100
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    yield domain
