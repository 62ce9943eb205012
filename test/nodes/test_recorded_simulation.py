"""A simulated robot, driven and recorded over ROS, becomes training data that obey the simulator.

The simulator itself is the judge: put into the recorded state of a step and given the recorded
action, it must reach the recorded state of the next step, and draw the recorded picture.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Float64MultiArray

from sim_bridge.tasks import make_task
from wm_mpc.data.bags import AlignConfig, ImportConfig, import_bags
from wm_mpc.data.store.store import Store
from wm_mpc.nodes.common import qos

SIZE, EPISODE, FRAMES = 32, 25, 65
_NODE = "import sys; from {} import main; sys.exit(main())"


@pytest.fixture
def nodes(ros_domain: int) -> Iterator[list[subprocess.Popen]]:
    running: list[subprocess.Popen] = []
    rclpy.init()
    yield running
    rclpy.try_shutdown()
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def start(nodes: list[subprocess.Popen], module: str, **parameters: object) -> subprocess.Popen:
    words = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
    command = [sys.executable, "-c", _NODE.format(module), "--ros-args", *words]
    nodes.append(subprocess.Popen(command))
    return nodes[-1]


class Driver(Node):
    """Answers every picture with a random command that single precision holds exactly."""

    def __init__(self, dim: int) -> None:
        super().__init__("driver")
        self.frames = 0
        self.rng = np.random.default_rng(0)
        self.dim = dim
        self.out = self.create_publisher(Float64MultiArray, "command", qos.COMMAND)
        self.create_subscription(Image, "image", self.answer, qos.COMMAND)

    def answer(self, _message: Image) -> None:
        """One command per picture."""
        self.frames += 1
        action = self.rng.uniform(-1, 1, self.dim).astype(np.float32)
        self.out.publish(Float64MultiArray(data=action.astype(float).tolist()))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_imported_steps_obey_the_simulator(
    tmp_path: Path, nodes: list[subprocess.Popen], storage: str
) -> None:
    recorder = start(
        nodes, "wm_mpc.nodes.recording.recorder", out=tmp_path / "bag", storage=storage, scan_s=0.1
    )
    time.sleep(2.0)
    start(nodes, "sim_bridge.node", task="wall", image_size=SIZE, episode_steps=EPISODE)
    env = make_task("wall", image_size=SIZE)
    driver = Driver(env.spec_task.action_dim)
    executor = SingleThreadedExecutor()
    executor.add_node(driver)
    deadline = time.monotonic() + 60
    while driver.frames < FRAMES and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.1)
    assert driver.frames == FRAMES
    time.sleep(0.5)
    recorder.terminate()
    assert recorder.wait(20) == 0
    executor.shutdown()
    driver.destroy_node()

    config = ImportConfig(AlignConfig(env.spec_task.control_period), task="wall")
    (report,), _ = import_bags(config, [tmp_path / "bag"], tmp_path / "store", progress=False)

    store = Store.open(tmp_path / "store")
    assert len(store) >= 2, list(report.lines())
    assert report.counts["steps"] >= 0.6 * FRAMES, list(report.lines())
    checked = wrong = 0
    for episode in store:
        framed = set(episode.image_steps.tolist())
        for k in range(len(episode)):
            # between frames, of which a busy machine may lose some, values are interpolated
            if {k, k + 1} <= framed:
                env.restore(episode.state[k])
                reached = env.advance(episode.actions[k])
                checked += 1
                wrong += not np.array_equal(reached, episode.state[k + 1])
        for picture, k in zip(episode.images, episode.image_steps, strict=True):
            np.testing.assert_array_equal(picture, env.render_state(episode.state[k]))
            np.testing.assert_array_equal(episode.proprio[k], env.proprio(episode.state[k]))
    # a step that this machine was late for may have been driven by the command before
    assert checked >= 0.5 * FRAMES
    assert wrong <= 0.1 * checked, (wrong, checked)
