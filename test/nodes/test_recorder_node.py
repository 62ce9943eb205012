"""The recorder as a process of its own, with real publishers: ended, killed, out of disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray

from wm_mpc.data.bags import AlignConfig, ImportConfig, import_bags
from wm_mpc.data.bags.inspect import inspect_bag, recover_bag
from wm_mpc.data.bags.typelib import Decoder
from wm_mpc.data.store.store import Store
from wm_mpc.nodes.common.messages import array_to_joint_state, rgb_to_image, to_stamp

PERIOD = 0.05
_MAIN = "import sys; from wm_mpc.nodes.recording.recorder import main; sys.exit(main())"


class Robot:
    """Publishes a frame, joint states and a command per step; values tell the step."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.image = node.create_publisher(Image, "image", 10)
        self.proprio = node.create_publisher(JointState, "proprio", 10)
        self.command = node.create_publisher(Float64MultiArray, "command", 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.goal = node.create_publisher(Image, "goal_image", latched)
        self.goal.publish(rgb_to_image(np.full((8, 8, 3), 9, np.uint8), to_stamp(1.0)))

    def recorded(self) -> bool:
        """Tell whether somebody listens to everything."""
        publishers = (self.image, self.proprio, self.command, self.goal)
        return all(p.get_subscription_count() for p in publishers)

    def run(self, steps: int, first: int = 0) -> None:
        """Publish ``steps`` control steps in real time."""
        begin = time.monotonic()
        for k in range(first, first + steps):
            stamp = self.node.get_clock().now().to_msg()
            self.image.publish(rgb_to_image(np.full((32, 32, 3), k, np.uint8), stamp))
            self.proprio.publish(array_to_joint_state(np.array([k, -k]), ("x", "y"), stamp))
            self.command.publish(Float64MultiArray(data=[float(k)]))
            time.sleep(max(0.0, begin + (k - first + 1) * PERIOD - time.monotonic()))


@pytest.fixture
def robot(ros_domain: int) -> Iterator[Robot]:
    rclpy.init()
    node = Node("robot")
    yield Robot(node)
    node.destroy_node()
    rclpy.shutdown()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[list[subprocess.Popen]]:
    """Started recorders; whatever a test leaves running is killed."""
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def start(recorder: list[subprocess.Popen], out: Path, **parameters: object) -> subprocess.Popen:
    words = [f"out:={out}", *(f"{name}:={value}" for name, value in parameters.items())]
    arguments = [word for pair in words for word in ("-p", pair)]
    command = [sys.executable, "-c", _MAIN, "--ros-args", *arguments]
    recorder.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    return recorder[-1]


def wait_for(condition: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def stored(bag: Path, out: Path) -> tuple[object, Store]:
    reports, _ = import_bags(ImportConfig(AlignConfig(PERIOD)), [bag], out, progress=False)
    return reports[0], Store.open(out)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_recorded_bag_holds_what_was_published(
    tmp_path: Path, robot: Robot, recorder: list, storage: str
) -> None:
    process = start(recorder, tmp_path / "bag", storage=storage, split_s=1.0)
    wait_for(robot.recorded)
    robot.run(40)
    time.sleep(1.0)  # what is still on its way when the signal comes is nobody's
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0

    info = inspect_bag(tmp_path / "bag", read_all=True)
    assert info.problems == []
    assert len(info.files) >= 2
    assert {name: topic.messages for name, topic in info.topics.items()} == {
        "/image": 40,
        "/proprio": 40,
        "/command": 40,
        "/goal_image": 1,
    }
    with Reader(tmp_path / "bag") as reader:
        texts = {c.msgtype: c.msgdef.data for c in reader.connections}
        assert all(texts.values())
        frames = [
            Decoder({}).decode(c.msgtype, data)
            for c, _, data in reader.messages()
            if c.topic == "/image"
        ]
    np.testing.assert_array_equal([frame.data[0] for frame in frames], np.arange(40))
    report, store = stored(tmp_path / "bag", tmp_path / "store")
    # how even the steps are is the machine's business; what belongs together is not
    for trajectory in store:
        first = trajectory.images[:, 0, 0, 0]
        rows = trajectory.image_steps
        np.testing.assert_allclose(trajectory.proprio[rows, 0], first, atol=1e-4)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_killed_recorder_leaves_a_readable_bag(
    tmp_path: Path, robot: Robot, recorder: list, storage: str
) -> None:
    process = start(recorder, tmp_path / "bag", storage=storage, split_s=1.0, flush_s=0.1)
    wait_for(robot.recorded)
    robot.run(50)
    time.sleep(0.5)  # longer than flush_s: everything has left the process
    process.kill()
    process.wait(10)

    with Reader(tmp_path / "bag") as reader:  # finished splits: any tool
        finished = sum(c.topic == "/image" for c, _, _ in reader.messages())
    assert 20 <= finished < 50
    recover_bag(tmp_path / "bag", tmp_path / "sound")
    assert inspect_bag(tmp_path / "bag").problems != []
    assert inspect_bag(tmp_path / "sound", read_all=True).problems == []
    with Reader(tmp_path / "sound") as reader:
        assert sum(c.topic == "/image" for c, _, _ in reader.messages()) == 50
    report, store = stored(tmp_path / "bag", tmp_path / "store")
    assert report.exit_code == 3
    assert report.topics["image"].messages == 50


def test_full_disk_ends_the_recording_with_a_sound_bag(
    tmp_path: Path, robot: Robot, recorder: list
) -> None:
    process = start(recorder, tmp_path / "bag", min_free_mb=1e8)
    wait_for(robot.recorded)
    robot.run(40)
    assert process.wait(20) == 1
    assert "MB free on its disk; 100000000 MB expected" in process.stderr.read()
    assert inspect_bag(tmp_path / "bag", read_all=True).problems == []


def test_wrong_parameters_are_refused(tmp_path: Path, robot: Robot, recorder: list) -> None:
    process = start(recorder, tmp_path / "bag", split_s=-1.0)
    assert process.wait(20) == 2
    assert "split_s: -1.0; 0 to 1e+09 expected" in process.stderr.read()
    process = start(recorder, tmp_path, storage="mcap")
    assert process.wait(20) == 2
    assert f"out: {tmp_path} exists" in process.stderr.read()
