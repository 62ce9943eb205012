"""``command_gate`` as a process: what it does when the other side goes, and over any QoS."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros import NodeProcess, Probe
from std_msgs.msg import Bool, Float64MultiArray

from wm_mpc.control.gate import GateState
from wm_mpc.msg import GateStatus
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.messages import to_stamp

GATE = "wm_mpc.nodes.gate.node"
LIMITS = {"action_low": [-1.0, -1.0], "action_high": [1.0, 1.0]}
SOON_S = 20.0
WISH = [0.4, -0.4]


@pytest.fixture
def probe(ros_domain: int, request: pytest.FixtureRequest) -> Iterator[Probe]:
    probe = Probe(ros_domain)
    probe.listen(getattr(request, "param", Float64MultiArray), "command", qos.COMMAND)
    probe.listen(GateStatus, "gate_status")
    probe.listen(Bool, "e_stop_state", qos.LATCHED)
    yield probe
    probe.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    running: list[NodeProcess] = []

    def begin(**parameters: Any) -> NodeProcess:
        settings = {**LIMITS, "e_stop_file": tmp_path / "e_stop", **parameters}
        running.append(NodeProcess(GATE, tmp_path / f"{len(running)}.log", **settings))
        return running[-1]

    yield begin
    for process in running:
        if process.alive:
            process.kill()


class Asker:
    """A controller that wishes the same at 10 Hz."""

    def __init__(self, probe: Probe) -> None:
        self.wish = WISH
        self.out = probe.node.create_publisher(Float64MultiArray, "command_request", qos.COMMAND)
        self.timer = probe.node.create_timer(0.1, self.ask)

    def ask(self) -> None:
        self.out.publish(Float64MultiArray(data=self.wish))


def state(probe: Probe, wanted: GateState, words: str = "") -> Callable[[], Any]:
    def check() -> bool:
        status = probe.last("gate_status")
        return status is not None and status.state == wanted and words in status.reason

    return check


def still(probe: Probe, since: float) -> bool:
    commands = probe.since("command", since)
    return bool(commands) and not np.any([command.data for command in commands])


def test_requests_pass_and_silence_and_signals_end_in_rest(
    probe: Probe, start: Callable[..., NodeProcess]
) -> None:
    gate = start(ramp_s=0.1)
    probe.wait(lambda: probe.heard["command"], SOON_S, "the first rest")
    assert list(probe.last("command").data) == [0.0, 0.0]
    asker = Asker(probe)
    probe.wait(lambda: list(probe.last("command").data) == WISH, SOON_S, "passing")

    def told() -> Any:
        status = probe.last("gate_status")
        return status.passed > 3 and list(status.command) == WISH and status

    assert probe.wait(told, SOON_S, "told").latency_ms > 0

    asker.timer.cancel()
    probe.wait(state(probe, GateState.RESTING, "none for 0.2 s"), SOON_S, "rest by itself")
    probe.wait(lambda: still(probe, time.time() - 0.25), SOON_S, "rest said again")
    asker.timer.reset()
    probe.wait(lambda: list(probe.last("command").data) == WISH, SOON_S, "passing again")
    assert gate.end(signal.SIGTERM) == 0, gate.output
    probe.wait(lambda: list(probe.last("command").data) == [0.0, 0.0], SOON_S, "the last rest")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_end_in_rest_too(
    probe: Probe, start: Callable[..., NodeProcess], number: int
) -> None:
    gate = start()
    Asker(probe)
    probe.wait(
        lambda: probe.heard["command"] and list(probe.last("command").data) == WISH,
        SOON_S, "passing",
    )  # fmt: skip
    assert gate.end(number) == 0, gate.output
    probe.wait(lambda: list(probe.last("command").data) == [0.0, 0.0], SOON_S, "the last rest")


QOS = {
    "reliable": QoSProfile(depth=1),
    "best effort": QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
    "latched": qos.LATCHED,
    "latched best effort": QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    ),
}


def test_e_stop_is_heard_over_every_quality_of_service(
    probe: Probe, start: Callable[..., NodeProcess]
) -> None:
    gate = start()
    asker = Asker(probe)
    for name, profile in QOS.items():
        button = probe.node.create_publisher(Bool, "e_stop", profile)
        probe.wait(lambda: button.get_subscription_count() >= 1, SOON_S, name)  # noqa: B023
        asker.wish = WISH
        probe.wait(state(probe, GateState.PASSING), SOON_S, f"{name}: passing")
        button.publish(Bool(data=True))
        probe.wait(state(probe, GateState.E_STOP), SOON_S, name)
        since = time.time()
        probe.wait(lambda: len(probe.since("command", since)) > 3, SOON_S, name)  # noqa: B023
        assert still(probe, since), name
        button.publish(Bool(data=False))
        probe.wait(state(probe, GateState.E_STOP, "released"), SOON_S, f"{name}: released")
        asker.wish = [0.0, 0.0]
        probe.wait(state(probe, GateState.RESTING), SOON_S, f"{name}: rested")
        probe.node.destroy_publisher(button)
    assert gate.alive


# DDS loses the button, one time in eight, for a gate that comes after a kill -9: it stays stopped
@pytest.mark.flaky(reruns=3)
def test_a_pressed_e_stop_survives_the_gate(
    probe: Probe, start: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    """Also where the button spoke once, and is not one that repeats itself to late comers."""
    gate = start()
    asker = Asker(probe)
    button = probe.node.create_publisher(Bool, "e_stop", 1)
    probe.wait(state(probe, GateState.PASSING), SOON_S, "passing")
    button.publish(Bool(data=True))
    probe.wait(lambda: (tmp_path / "e_stop").exists(), SOON_S, "remembered")
    assert probe.wait(lambda: probe.last("e_stop_state"), SOON_S, "told").data
    gate.kill()
    since = time.time()
    gate = start()
    probe.wait(state(probe, GateState.E_STOP, "before the gate was started"), SOON_S, "still")
    probe.wait(lambda: len(probe.since("command", since)) > 5, SOON_S, "commands")
    assert still(probe, since)
    # the killed gate counts as a listener for seconds yet: push until the new one hears it
    pushing = probe.node.create_timer(0.5, lambda: button.publish(Bool(data=False)))
    probe.wait(state(probe, GateState.E_STOP, "released"), SOON_S, "released")
    pushing.cancel()
    assert not (tmp_path / "e_stop").exists()
    asker.wish = [0.0, 0.0]
    probe.wait(state(probe, GateState.RESTING), SOON_S, "rested")
    asker.wish = WISH
    probe.wait(state(probe, GateState.PASSING), SOON_S, "passing again")
    assert not probe.last("e_stop_state").data and gate.alive


@pytest.mark.parametrize("probe", [TwistStamped], indirect=True)
def test_a_second_publisher_is_refused_and_old_stamps_are_stale(
    probe: Probe, start: Callable[..., NodeProcess]
) -> None:
    gate = start(command_type="twist_stamped", command_names=["linear.x", "angular.z"])
    outs = [
        probe.node.create_publisher(TwistStamped, "command_request", qos.COMMAND) for _ in "ab"
    ]
    speeds, offsets = [0.5, -0.5], [0.0, 0.0]

    def ask(index: int) -> None:
        message = TwistStamped()
        message.header.stamp = to_stamp(time.time() + offsets[index])
        message.twist.linear.x = speeds[index]
        outs[index].publish(message)

    probe.node.create_timer(0.1, lambda: ask(0))

    def speed() -> float:
        return probe.last("command").twist.linear.x if probe.heard["command"] else 0.0

    probe.wait(lambda: speed() == 0.5, SOON_S, "passing")
    second = probe.node.create_timer(0.1, lambda: ask(1))
    probe.wait(state(probe, GateState.PASSING, "second publisher is refused"), SOON_S, "told")
    assert min(twist.twist.linear.x for _, twist in probe.heard["command"]) >= 0.0
    second.cancel()
    offsets[0] = -1.0
    probe.wait(state(probe, GateState.RESTING, "s old on arrival"), SOON_S, "stale")
    assert speed() == 0.0 and gate.alive


def test_bad_parameters_end_with_code_2_and_one_line(
    ros_domain: int, start: Callable[..., NodeProcess]
) -> None:
    for settings, words in (
        ({"max_request_age": 1.0}, "error: parameter max_request_age: unknown; max_request_age_s"),
        ({"action_low": [2.0, 2.0]}, "error: parameter action_low: [2.0, 2.0]; below [1.0, 1.0]"),
        ({"ramp_s": -1.0}, "error: parameter ramp_s: -1.0; 0 to 10 expected"),
    ):
        process = start(**settings)
        assert process.process.wait(SOON_S) == 2
        assert words in process.output and "Traceback" not in process.output, process.output


def test_the_process_is_small(probe: Probe, start: Callable[..., NodeProcess]) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs /proc")
    gate = start()
    Asker(probe)
    probe.wait(state(probe, GateState.PASSING), SOON_S, "passing")
    # The pages of libraries' files that are mapped at a time depend on how the system read them:
    # 72 to 87 MB resident for the same process. Its own memory and its share of the files do not.
    told = Path(f"/proc/{gate.process.pid}/smaps_rollup").read_text().splitlines()
    kilobytes = {line.split()[0]: int(line.split()[1]) for line in told[1:]}
    assert kilobytes["Pss:"] < 80_000, kilobytes
    assert kilobytes["Anonymous:"] < 45_000, kilobytes
