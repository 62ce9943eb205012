"""A bag played into mpc_node gives the commands that were recorded from it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from helpers import TINY_IMAGE, tiny_checkpoint  # noqa: E402

from wm_mpc.data.bags import BagWriter, WriterConfig  # noqa: E402
from wm_mpc.data.bags.inspect import inspect_bag  # noqa: E402
from wm_mpc.nodes.player import PlayConfig, play  # noqa: E402

STEPS = 12
_MPC = "import sys; from wm_mpc.nodes.mpc_node import main; sys.exit(main())"
_RECORDER = "import sys; from wm_mpc.nodes.recorder_node import main; sys.exit(main())"


def camera_bag(path: Path) -> Path:
    """A goal picture, then frames and joint states at 10 Hz; no commands."""
    rng = np.random.default_rng(0)
    with BagWriter(path, WriterConfig(min_free_mb=0)) as writer:
        time_, header, image, joints = writer.types(
            "builtin_interfaces/msg/Time",
            "std_msgs/msg/Header",
            "sensor_msgs/msg/Image",
            "sensor_msgs/msg/JointState",
        )
        writer.add_topic("/image", "sensor_msgs/msg/Image")
        writer.add_topic("/goal_image", "sensor_msgs/msg/Image")
        writer.add_topic("/proprio", "sensor_msgs/msg/JointState")

        def picture(topic: str, stamp: int) -> None:
            data = rng.integers(0, 256, TINY_IMAGE * TINY_IMAGE * 3, np.uint8)
            head = header(time_(*divmod(stamp, 10**9)), "camera")
            message = image(head, TINY_IMAGE, TINY_IMAGE, "rgb8", 0, TINY_IMAGE * 3, data)
            writer.write(topic, stamp, writer.serialize(topic, message))

        start = 100 * 10**9
        picture("/goal_image", start)
        for k in range(STEPS):
            stamp = start + k * 10**8 + 10**6
            position = np.array([256.0 + k, 250.0 - k])
            velocity, empty = np.array([10.0, -10.0]), np.zeros(0)
            head = header(time_(*divmod(stamp, 10**9)), "")
            message = joints(head, ["x", "y"], position, velocity, empty)
            writer.write("/proprio", stamp, writer.serialize("/proprio", message))
            picture("/image", stamp)
    return path


class Nodes:
    """Child processes; ``start`` them, ``end`` them, nothing stays behind."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen] = []

    def start(self, code: str, **parameters: object) -> subprocess.Popen:
        """Start a node with ROS parameters."""
        words = [f"{key}:={value}" for key, value in parameters.items()]
        arguments = [word for pair in words for word in ("-p", pair)]
        process = subprocess.Popen([sys.executable, "-c", code, "--ros-args", *arguments])
        self.running.append(process)
        return process

    def end(self) -> None:
        """End everything in an orderly way, then by force."""
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(10 + os.getpid() % 90))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    started = Nodes()
    yield started
    started.end()


def mpc_node(nodes: Nodes, model: Path, **parameters: object) -> None:
    """A controller whose plans depend on nothing but its inputs: iterations end it, not time."""
    settings = {
        "use_sim_time": True,
        "model": model,
        "planner": "adam",
        "planner_options.iterations": 4,
        "budget_fraction": 1e5,
        "control_rate_hz": 10.0,
        "margin_s": 0.001,
        "compile": False,
        "seed": 3,
        "max_image_age_s": 10.0,
    }
    nodes.start(_MPC, **(settings | parameters))


def commands(path: Path) -> int:
    return inspect_bag(path, read_all=True).topics["/command"].messages


def test_played_bag_reproduces_the_commands(tmp_path: Path, nodes: Nodes) -> None:
    model = tiny_checkpoint(tmp_path / "model")
    bag = camera_bag(tmp_path / "camera")

    mpc_node(nodes, model)
    nodes.start(_RECORDER, out=tmp_path / "recorded", use_sim_time=True, scan_s=0.1)
    first = play(bag, PlayConfig(rate=0, wait=True, timeout_s=30), progress=False)
    assert (first.played, first.missing, first.commands) == (2 * STEPS + 1, 0, STEPS)
    time.sleep(1.0)
    nodes.end()
    assert commands(tmp_path / "recorded") >= STEPS

    mpc_node(nodes, model)
    again = play(
        tmp_path / "recorded", PlayConfig(rate=0, compare=True, timeout_s=30), progress=False
    )
    assert again.commands >= STEPS
    assert again.equal(1e-6), again.line()
    assert max(again.differences) <= 1e-6
    nodes.end()

    # the check can fail: another seed gives other commands
    mpc_node(nodes, model, seed=4)
    other = play(
        tmp_path / "recorded", PlayConfig(rate=0, compare=True, timeout_s=30), progress=False
    )
    assert not other.equal(1e-6)
