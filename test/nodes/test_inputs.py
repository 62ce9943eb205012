"""Publishers that do not fit are said by name on ``/diagnostics``, by real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros import NodeProcess, Probe
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64MultiArray

from wm_mpc.nodes.common.inputs import INPUTS, mismatch
from wm_mpc.nodes.common.qos import IMAGE, LATCHED

BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


@pytest.fixture
def probe(ros_domain: int) -> Iterator[Probe]:
    made = Probe(ros_domain)
    made.listen(DiagnosticArray, "/diagnostics")
    yield made
    made.close()


def entry(probe: Probe, node: str) -> object:
    array = [a for a in probe.since("/diagnostics", 0) for s in a.status if node in s.name]
    found = [s for a in array for s in a.status if s.name == node + INPUTS]
    return found[-1] if found else None


def test_a_mismatch_is_told_in_words() -> None:
    assert mismatch(BEST_EFFORT, RELIABLE) == (
        "offers reliability best_effort; reliable expected"
    )
    volatile = QoSProfile(depth=1, durability=DurabilityPolicy.VOLATILE)
    assert mismatch(volatile, LATCHED) == (
        "offers durability volatile; transient_local expected"
    )
    for offered in (BEST_EFFORT, RELIABLE, LATCHED):
        assert not mismatch(offered, IMAGE)


def test_a_command_that_the_simulator_cannot_hear_is_named(
    probe: Probe, tmp_path: Path
) -> None:
    process = NodeProcess("sim_bridge.node", tmp_path / "out.txt", task="wall", auto_reset=False)
    try:
        probe.wait(lambda: entry(probe, "sim_bridge"), 60, "diagnostics")
        assert entry(probe, "sim_bridge").message == "every publisher is heard"
        probe.node.create_publisher(Float64MultiArray, "command", BEST_EFFORT)
        began = time.monotonic()
        told = probe.wait(
            lambda: (e := entry(probe, "sim_bridge")) and e.values and e, 10, "a word"
        )
        assert told.values[0].key == "/command"
        name = probe.node.get_name()
        expected = f"/{name} is not heard: offers reliability best_effort; reliable expected"
        assert told.values[0].value == expected
        assert time.monotonic() - began < 10
    finally:
        process.end()


def test_the_recorder_hears_who_comes_later_and_offers_less(
    probe: Probe, tmp_path: Path, ros_domain: int
) -> None:
    stranger = Probe(ros_domain)
    process = NodeProcess(
        "wm_mpc.nodes.recording.recorder", tmp_path / "out.txt", out=str(tmp_path / "bag")
    )
    try:
        first = probe.node.create_publisher(Image, "image", RELIABLE)
        probe.wait(lambda: first.get_subscription_count(), 60, "the recorder")
        second = probe.node.create_publisher(Image, "image", BEST_EFFORT)
        probe.wait(lambda: second.get_subscription_count(), 10, "the recorder again")
        stranger.node.create_publisher(CompressedImage, "image", RELIABLE)
        told = probe.wait(
            lambda: (e := entry(probe, "recorder_node")) and e.values and e, 10, "a word"
        )
        assert "publishes sensor_msgs/msg/CompressedImage" in told.values[0].value
    finally:
        stranger.close()
        process.end()
