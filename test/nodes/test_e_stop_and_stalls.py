"""mpc_node over DDS: the e-stop through every quality of service, a process that is stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_checkpoint
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros import START_S, NodeProcess, Probe
from std_msgs.msg import Bool, Float64MultiArray
from test_integration import FAST, MPC, SOON_S, FakeRobot, in_state, is_zero

from wm_mpc.control.tick import State
from wm_mpc.msg import PlannerStatus
from wm_mpc.nodes.common import qos
from wm_mpc.srv import LoadModel


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
        parameters = {"model": model, **FAST, **changes}
        running.append(NodeProcess(MPC, tmp_path / f"{len(running)}.log", **parameters))
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


def change(probe: Probe, number: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=number))
    return probe.call(ChangeState, "mpc_node/change_state", request).success


def test_the_e_stop_is_heard_however_it_is_sent_and_outlives_a_deactivation(
    probe: Probe, robot: FakeRobot, mpc: Callable[..., NodeProcess]
) -> None:
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    button = probe.node.create_publisher(Bool, "e_stop", latched)
    button.publish(Bool(data=True))  # pressed before the node starts
    robot.set_goal()
    mpc()
    probe.wait(in_state(probe, State.E_STOP, "latched"), START_S, "pressed before the start")
    assert all(map(is_zero, probe.since("command", 0.0)))

    button.publish(Bool(data=False))
    robot.set_goal()
    probe.wait(in_state(probe, State.RUNNING), SOON_S, "a goal after it was let go")

    button.publish(Bool(data=True))
    probe.wait(in_state(probe, State.E_STOP), SOON_S, "pressed while it drives")
    assert change(probe, Transition.TRANSITION_DEACTIVATE)
    button.publish(Bool(data=False))
    time.sleep(0.5)
    since = time.time()
    assert change(probe, Transition.TRANSITION_ACTIVATE)
    time.sleep(2.0)  # the old goal, which is latched, comes again
    assert in_state(probe, State.E_STOP, "latched")()
    assert all(map(is_zero, probe.since("command", since)))
    robot.set_goal()
    probe.wait(in_state(probe, State.RUNNING), SOON_S, "a new goal")

    quick = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    other = probe.node.create_publisher(Bool, "e_stop", quick)
    time.sleep(1.0)
    other.publish(Bool(data=True))
    probe.wait(in_state(probe, State.E_STOP), SOON_S, "best effort")


def test_a_process_that_was_stopped_plans_in_full_again(
    probe: Probe, robot: FakeRobot, mpc: Callable[..., NodeProcess]
) -> None:
    process = mpc()
    robot.set_goal()
    probe.wait(in_state(probe, State.RUNNING), START_S, "running")
    for _ in range(5):
        process.process.send_signal(signal.SIGSTOP)
        time.sleep(2.0)
        process.process.send_signal(signal.SIGCONT)
        since = time.time()
        probe.wait(
            lambda since=since: [
                status for status in probe.since("status", since)
                if status.state == State.RUNNING and status.iterations > 1
            ],
            SOON_S,
            "planning again",
        )  # fmt: skip
    assert process.end(signal.SIGHUP) == 0
    assert is_zero(probe.last("command"))


def test_a_second_model_is_answered_busy_and_nobody_waits(
    probe: Probe, robot: FakeRobot, mpc: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    mpc()
    probe.wait(in_state(probe, State.IDLE), START_S, "idle")
    client = probe.node.create_client(LoadModel, "load_model", qos_profile=qos.MANY_CALLS)
    assert client.wait_for_service(SOON_S)
    request = LoadModel.Request(path=str(tmp_path / "model"))
    futures = [client.call_async(request) for _ in range(20)]
    answers = [probe.result(future, START_S, "an answer") for future in futures]
    assert sum(answer.success for answer in answers) >= 1
    assert sum("busy with" in answer.message for answer in answers) >= 10
    nobody = probe.call(LoadModel, "load_model", LoadModel.Request(path="~nosuchuser"))
    assert not nobody.success and "no such user" in nobody.message
