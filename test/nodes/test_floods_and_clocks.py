"""mpc_node over DDS: inputs that flood, clocks that do not run, cameras that count otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_checkpoint
from ros import START_S, NodeProcess, Probe
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray
from test_integration import FAST, JOINTS, MPC, SOON_S, FakeRobot, in_state

from wm_mpc.control.tick import State
from wm_mpc.msg import PlannerStatus
from wm_mpc.nodes.common.messages import rgb_to_image, to_stamp


@pytest.fixture
def probe(ros_domain: int) -> Iterator[Probe]:
    probe = Probe(ros_domain)
    probe.listen(PlannerStatus, "status")
    probe.listen(Float64MultiArray, "command")
    yield probe
    probe.close()


@pytest.fixture
def mpc(probe: Probe, tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    running: list[NodeProcess] = []

    def start(**changes: Any) -> NodeProcess:
        model = tiny_checkpoint(tmp_path / "model")
        running.append(NodeProcess(MPC, tmp_path / "mpc.log", model=model, **FAST | changes))
        return running[-1]

    yield start
    for process in running:
        if process.alive:
            process.kill()


@pytest.fixture
def robot(probe: Probe) -> Iterator[FakeRobot]:
    robot = FakeRobot(probe)
    yield robot
    robot.close()


def pour(publish: Callable[[], object], rate: float, seconds: float) -> int:
    """Call ``publish`` at ``rate`` [Hz]; returns how often."""
    count, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        publish()
        count += 1
        time.sleep(max(0.0, began + count / rate - time.monotonic()))
    return count


def test_floods_of_joints_and_pictures_do_not_starve_the_planner(
    probe: Probe, robot: FakeRobot, mpc: Callable[..., NodeProcess]
) -> None:
    mpc()
    robot.set_goal()
    probe.wait(in_state(probe, State.RUNNING), START_S, "running")

    def joints() -> None:
        message = JointState(name=JOINTS, position=robot.position, velocity=[0.0, 0.0])
        message.header.stamp = to_stamp(time.time())
        robot.proprio_out.publish(message)

    def picture() -> None:
        robot.image_out.publish(rgb_to_image(robot.picture, to_stamp(time.time())))

    since = time.time()
    floods = [
        threading.Thread(target=pour, args=(joints, 1000.0, 3.0)),
        threading.Thread(target=pour, args=(picture, 500.0, 3.0)),
    ]
    for flood in floods:
        flood.start()
    for flood in floods:
        flood.join()
    told = probe.since("status", since)
    planned = [status for status in told if status.iterations > 0]
    assert len(planned) >= 10 and probe.last("status").state == State.RUNNING
    starved = [status.reason for status in told if "nothing evaluated" in status.reason]
    assert len(starved) <= 1, starved


def test_a_clock_that_does_not_run_is_named_with_what_to_do(
    probe: Probe, robot: FakeRobot, mpc: Callable[..., NodeProcess]
) -> None:
    process = mpc(use_sim_time=True)
    words = "clock: use_sim_time is true, but nothing came on /clock: start what publishes it"
    probe.wait(in_state(probe, State.SAFE_STOP, words), START_S, "what is wrong")
    assert "use_sim_time to false" in probe.last("status").reason
    assert process.alive and not any(any(m.data) for m in probe.since("command", 0.0))


def test_a_camera_that_counts_since_boot_is_named_and_arrival_helps(
    probe: Probe, robot: FakeRobot, mpc: Callable[..., NodeProcess]
) -> None:
    began = time.time() - 50.0

    def since_boot(image: Image) -> None:
        image.header.stamp = to_stamp(time.time() - began)

    robot.spoil = since_boot
    process = mpc()
    robot.set_goal()
    words = "camera clock and node clock differ by"
    probe.wait(in_state(probe, State.SAFE_STOP, words), START_S, "what is wrong")
    assert "set stamp_source to arrival" in probe.last("status").reason
    process.kill()

    mpc(stamp_source="arrival")
    since = time.time()
    robot.set_goal()
    probe.wait(
        lambda: any(m.state == State.RUNNING for m in probe.since("status", since)),
        START_S, "driving by arrival",
    )  # fmt: skip
    assert probe.wait(lambda: any(map(lambda m: any(m.data), probe.since("command", since))),
                      SOON_S, "commands")  # fmt: skip
