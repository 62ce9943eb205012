"""``sim_bridge`` with a task that no file of this package knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_task import own_package
from ros import START_S, NodeProcess, Probe
from sensor_msgs.msg import Image, JointState

from wm_mpc.msg import TaskState


def test_the_bridge_runs_a_task_of_another_package(
    ros_domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(own_package(tmp_path / "site")))
    probe = Probe(ros_domain)
    for kind, topic in ((Image, "image"), (JointState, "proprio"), (TaskState, "task_state")):
        probe.listen(kind, topic)
    log = tmp_path / "sim.log"
    sim = NodeProcess("sim_bridge.node", log, task="slider", image_size=32)
    try:
        probe.wait(lambda: all(map(probe.last, ("image", "proprio", "task_state"))), START_S, "it")
    finally:
        probe.close()
    assert sim.end() == 0, sim.output
    assert (probe.last("image").height, probe.last("image").width) == (32, 32)
    assert list(probe.last("proprio").name) == ["x", "y"]
    assert len(probe.last("task_state").state) == 2
