"""Node tests need rclpy and the generated interfaces; the core's tests do not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from ros_domain import reserved_domain

from wm_mpc.bringup.ros_env import prepare

prepare()
collect_ignore_glob = [] if importlib.util.find_spec("rclpy") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes in real time on a shared machine: what fails runs once more, and is named."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture
def ros_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A domain of this test's own, on this machine only, with its logs in the test's folder."""
    with reserved_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
        yield domain
