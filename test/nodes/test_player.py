"""A bag played into mpc_node gives the commands that were recorded from it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY_IMAGE, tiny_checkpoint
from rclpy.qos import QoSProfile
from ros import Probe
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState

from wm_mpc.core.errors import UserError
from wm_mpc.data.bags import BagWriter, WriterConfig
from wm_mpc.data.bags.inspect import inspect_bag
from wm_mpc.nodes.recording.player import play
from wm_mpc.nodes.recording.playing import PlayConfig, PlayResult

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from bag_helpers import START, Tape, at, picture, tape

STEPS, PERIOD = 12, 2.0  # [s] long, so that no planner runs out of time on a busy machine
_MPC = "import sys; from wm_mpc.nodes.mpc.node import main; sys.exit(main())"


def camera_bag(path: Path) -> Path:
    """A goal picture, then one frame and joint state a period; no commands."""
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
            stamp = start + round(k * PERIOD * 1e9) + 10**6
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
def nodes(ros_domain: int) -> Iterator[Nodes]:
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
        "control_rate_hz": 1 / PERIOD,
        "margin_s": 0.001,
        "compile": False,
        "seed": 3,
        "max_image_age_s": 10 * PERIOD,
    }
    nodes.start(_MPC, **(settings | parameters))


def test_played_bag_reproduces_the_commands(tmp_path: Path, nodes: Nodes) -> None:
    model = tiny_checkpoint(tmp_path / "model", control_period=PERIOD)
    bag, recorded = camera_bag(tmp_path / "camera"), tmp_path / "recorded"
    patient = {"rate": 0, "timeout_s": 120, "settle_s": 3.0}

    mpc_node(nodes, model)
    first = play(bag, PlayConfig(wait=True, **patient), progress=False, answers=recorded)
    assert (first.played, first.missing, first.commands) == (2 * STEPS + 1, 0, STEPS)
    nodes.end()
    topics = inspect_bag(recorded, read_all=True).topics
    assert (topics["/command"].messages, topics["/image"].messages) == (STEPS, STEPS)

    mpc_node(nodes, model)
    again = play(recorded, PlayConfig(compare=True, **patient), progress=False)
    assert (again.commands, again.missing) == (STEPS, 0)
    assert again.equal(1e-6), again.line()


@pytest.mark.parametrize(
    ("result", "equal"),
    [
        (PlayResult(5, 2, 0, [0.0, 1e-6]), True),
        (PlayResult(5, 2, 0, [0.0, 2e-5]), False),
        (PlayResult(5, 2, 1, [0.0, 0.0]), False),
        (PlayResult(5, 2, 0, [0.0, float("nan")]), False),
    ],
)
def test_what_counts_as_equal(result: PlayResult, equal: bool) -> None:
    assert result.equal(1e-5) is equal
    assert ("did not" in result.line()) is bool(result.missing)


def test_nobody_listens(tmp_path: Path, ros_domain: int) -> None:
    with pytest.raises(UserError, match="nobody listens to /image after 0.2 s"):
        play(camera_bag(tmp_path / "camera"), PlayConfig(timeout_s=0.2), progress=False)
    with pytest.raises(UserError, match="answers: wait or compare expected"):
        play(tmp_path / "camera", PlayConfig(), progress=False, answers=tmp_path / "out")


def by_topic(bag: Tape, order: list[int]) -> None:
    """As converters write: topic by topic."""
    for k in order:
        bag.image(at(k), picture(k))
    for k in order:
        bag.proprio(at(k), np.array([k, -k]))


def in_pieces(bag: Tape, order: list[int]) -> None:
    """As merged files lie: later pieces before earlier ones."""
    for begin in (10, 0, 30, 20, 35, 25, 15, 5):
        for k in order[begin : begin + 5]:
            bag.proprio(at(k), np.array([k, -k]))
            bag.image(at(k), picture(k))


def received_at_once(bag: Tape, order: list[int]) -> None:
    """As other programs convert: only headers tell the time."""
    for k in reversed(order):
        bag.image(at(k), picture(k), log=START)
        bag.proprio(at(k), np.array([k, -k]), log=START)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("write", [by_topic, in_pieces, received_at_once])
def test_a_bag_is_played_in_the_order_of_time(
    tmp_path: Path, ros_domain: int, write: Callable[[Tape, list[int]], None], storage: str
) -> None:
    bag = tape(tmp_path / "bag", storage)
    write(bag, list(range(40)))
    bag.writer.close()
    probe = Probe(ros_domain)
    try:
        for kind, topic in ((Image, "image"), (JointState, "proprio"), (Clock, "/clock")):
            probe.listen(kind, topic, QoSProfile(depth=200))
        result = play(tmp_path / "bag", PlayConfig(rate=4, settle_s=0.5), progress=False)
        probe.wait(lambda: len(probe.heard["image"]) == 40, 10, "every picture")
        probe.wait(lambda: len(probe.heard["proprio"]) == 40, 10, "every joint state")
    finally:
        probe.close()
    assert result.played == 80 and "sorted by time" in result.line()
    pictures = [(came, m.data[0]) for came, m in probe.heard["image"]]
    joints = [(came, m.position[0]) for came, m in probe.heard["proprio"]]
    assert [k for _, k in pictures] == [k for _, k in joints] == list(range(40))
    # of one step within the time of a few: not one topic after the other
    assert all(abs(a - b) < 0.7 for (a, _), (b, _) in zip(pictures, joints, strict=True))
    shown = [m.clock.sec * 10**9 + m.clock.nanosec for _, m in probe.heard["/clock"]]
    assert shown == sorted(shown) and (shown[0], shown[-1]) == (at(0), at(39))


def test_a_clock_that_was_set_back_goes_back_at_the_recorded_pace(
    tmp_path: Path, ros_domain: int
) -> None:
    bag = tape(tmp_path / "bag")
    bag.steps(range(20))
    bag.steps(range(-100, -80))
    bag.writer.close()
    probe = Probe(ros_domain)
    try:
        probe.listen(Image, "image", QoSProfile(depth=200))
        probe.listen(Clock, "/clock", QoSProfile(depth=200))
        result = play(tmp_path / "bag", PlayConfig(rate=4, settle_s=0.5), progress=False)
        probe.wait(lambda: len(probe.heard["image"]) == 40, 10, "every picture")
    finally:
        probe.close()
    assert "the clock was set back" in result.line()
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec
              for _, m in probe.heard["image"]]  # fmt: skip
    assert stamps == [at(k) for k in [*range(20), *range(-100, -80)]]
    shown = [m.clock.sec * 10**9 + m.clock.nanosec for _, m in probe.heard["/clock"]]
    assert at(-100) in shown and shown.index(at(-100)) > shown.index(at(19))
    came = [when for when, _ in probe.heard["image"]]
    assert came[-1] - came[20] > 0.3  # 1.9 s at four times the pace; not all at once
