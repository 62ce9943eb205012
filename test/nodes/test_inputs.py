"""Publishers that do not fit are said by name on ``/diagnostics``, by real processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from helpers import tiny_checkpoint
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros import START_S, NodeProcess, Probe
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, String

from wm_mpc.msg import Plan, PlannerStatus, Trajectory
from wm_mpc.nodes.common.inputs import INPUTS, mismatch
from wm_mpc.nodes.common.qos import IMAGE, LATCHED

BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
VOLATILE = QoSProfile(depth=1, durability=DurabilityPolicy.VOLATILE)
WALL = {"task": "wall", "joint_names": ["'x'", "'y'"]}
BOX = {
    "command_names": ["shoulder", "elbow"], "low": [-1.0, -1.0], "high": [1.0, 1.0],
    "speed": [1.0, 1.0],
}  # fmt: skip
# Input -> a publisher that cannot be heard there: a type, where every quality of service is heard.
IMAGES = {"image": (CompressedImage, RELIABLE), "image/compressed": (Image, RELIABLE)}
NODES = {
    "mpc_node": (
        "wm_mpc.nodes.mpc.node", WALL,
        IMAGES | {
            "proprio": (String, RELIABLE), "goal_image": (Image, VOLATILE),
            "goal_proprio": (JointState, VOLATILE), "e_stop": (String, RELIABLE),
        },
    ),
    "command_gate": (
        "wm_mpc.nodes.gate.node",
        {"action_low": [-1.0, -1.0], "action_high": [1.0, 1.0], "rate_limit": [1.0, 1.0]},
        {"command_request": (Float64MultiArray, BEST_EFFORT), "e_stop": (String, RELIABLE)},
    ),
    "sim_arm": (
        "sim_bridge.arms.node", {"image_size": 32}, {"command": (Float64MultiArray, BEST_EFFORT)}
    ),
    "trainer_node": (
        "wm_mpc.nodes.trainer.node", WALL,
        IMAGES | {
            "proprio": (String, RELIABLE), "goal_image": (Image, VOLATILE),
            "command": (Float64MultiArray, BEST_EFFORT), "status": (PlannerStatus, BEST_EFFORT),
            "plan": (Plan, BEST_EFFORT), "corrected_trajectory": (Trajectory, BEST_EFFORT),
        },
    ),
    "explore_node": (
        "wm_mpc.nodes.explore.node",
        {
            "command_type": "twist_stamped", "command_names": ["linear.x"], "low": [-0.1],
            "high": [0.1], "speed": [0.1],
        },
        {"proprio": (String, RELIABLE), "tip_pose": (String, RELIABLE)},
    ),
    "view": (
        "wm_mpc.nodes.view.node", {"port": 0},
        IMAGES | {
            "goal_image": (Image, VOLATILE), "status": (String, RELIABLE),
            "plan": (String, RELIABLE), "gate_status": (String, RELIABLE),
            "task_state": (String, RELIABLE),
        },
    ),
    "markers": (
        "wm_mpc.nodes.markers.node", {},
        IMAGES | {
            "goal_image": (Image, VOLATILE), "status": (String, RELIABLE),
            "plan": (String, RELIABLE), "task_state": (String, RELIABLE),
            "tip_pose": (String, RELIABLE),
        },
    ),
}  # fmt: skip


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


@pytest.mark.parametrize("node", NODES)
def test_every_input_of_every_node_names_who_is_not_heard(
    probe: Probe,
    tmp_path: Path,
    ros_domain: int,
    node: str,
    record_property: Callable[[str, object], None],
) -> None:
    module, parameters, inputs = NODES[node]
    if node in ("mpc_node", "trainer_node"):
        size = {"proprio_dim": 2, "action_low": (-1.8, -1.8), "action_high": (1.8, 1.8)}
        model = tiny_checkpoint(tmp_path / "model", task="wall", **size)
        parameters = {**parameters, "model": model}
    if node == "trainer_node":
        parameters |= {"out": tmp_path / "live"}
    camera = Probe(ros_domain)
    process = NodeProcess(module, tmp_path / "out.txt", **parameters)
    try:
        probe.wait(lambda: entry(probe, node), START_S, "diagnostics")
        if "image" in inputs:
            # a camera may offer either; an active controller listens
            for offered in (BEST_EFFORT, RELIABLE):
                heard = camera.node.create_publisher(Image, "image", offered)
                probe.wait(heard.get_subscription_count, START_S, "a picture's listener")
        assert entry(probe, node).message == "every publisher is heard"
        for topic, (kind, offered) in inputs.items():
            probe.node.create_publisher(kind, topic, offered)
        began, expected = time.monotonic(), {f"/{topic}" for topic in inputs}
        told = probe.wait(
            lambda: (e := entry(probe, node)) and {v.key for v in e.values} == expected and e,
            10, f"a word of each of {expected}",
        )  # fmt: skip
        record_property("told_after_s", time.monotonic() - began)
        who = f"/{probe.node.get_name()} is not heard: "
        assert all(value.value.startswith(who) for value in told.values), told.values
    finally:
        camera.close()
        process.end()


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
