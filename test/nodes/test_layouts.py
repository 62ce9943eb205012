"""Layouts for RViz, Foxglove and PlotJuggler show what a recorded run holds; plans are drawn."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, ReliabilityPolicy
from rclpy.qos import qos_check_compatible as compatible
from ros import START_S, NodeProcess, Probe
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import Image
from test_view_running import command
from visualization_msgs.msg import Marker, MarkerArray

from sim_bridge.tasks import make_task
from wm_mpc.data.bags.typelib import Decoder
from wm_mpc.data.decoding import image_to_rgb
from wm_mpc.msg import Plan, PlannerStatus
from wm_mpc.nodes.common.messages import rgb_to_image, to_stamp
from wm_mpc.viz.plan_picture import PlanShown, plan_picture
from wm_mpc.viz.scene import PLAN

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = ROOT / "config" / "layouts"
RECORDED = (
    "image", "goal_image", "proprio", "command", "plan", "status", "gate_status", "task_state",
    "plan_markers", "plan_image", "/diagnostics",
)  # fmt: skip
SHOWS = {
    "Image": "sensor_msgs/msg/Image", "MarkerArray": "visualization_msgs/msg/MarkerArray",
    "3D": "visualization_msgs/msg/MarkerArray",
    "DiagnosticSummary": "diagnostic_msgs/msg/DiagnosticArray",
}  # fmt: skip
"""What a display or a panel can show."""


@dataclass
class Topic:
    """What a recording holds of a topic."""

    kind: str
    offered: list[QoSProfile]
    messages: list[Any]


def read(bag: Path) -> dict[str, Topic]:
    """Every topic of a recording, its messages decoded."""
    decoder, found = Decoder({}), {}
    with Reader(bag) as reader:
        for c in reader.connections:
            offered = [
                QoSProfile(
                    depth=1, reliability=ReliabilityPolicy(q.reliability.value),
                    durability=DurabilityPolicy(q.durability.value),
                )
                for q in c.ext.offered_qos_profiles
            ]  # fmt: skip
            found[c.topic] = Topic(c.msgtype, offered, [])
        for c, _, data in reader.messages():
            found[c.topic].messages.append(decoder.decode(c.msgtype, data))
    return found


def shown_by_rviz(there: dict[str, Topic], layout: dict[str, Any]) -> Iterator[str]:
    """What the displays of a configuration cannot show, one line each."""
    manager = layout["Visualization Manager"]
    for display in manager["Displays"]:
        if "Topic" not in display:
            continue
        wanted, name = display["Topic"], display["Topic"]["Value"]
        kind = display["Class"].split("/")[1]
        if name not in there or there[name].kind != SHOWS[kind]:
            yield f"{display['Name']}: {name} is no {SHOWS[kind]}"
            continue
        asked = QoSProfile(
            depth=wanted["Depth"],
            reliability=ReliabilityPolicy[wanted["Reliability Policy"].upper().replace(" ", "_")],
            durability=DurabilityPolicy[wanted["Durability Policy"].upper().replace(" ", "_")],
        )
        assert there[name].offered
        if any(compatible(o, asked)[0] == QoSCompatibility.ERROR for o in there[name].offered):
            yield f"{display['Name']}: {name} is offered with another quality of service"
    frame = manager["Global Options"]["Fixed Frame"]
    for message in there["/plan_markers"].messages:
        if any(marker.header.frame_id != frame for marker in message.markers):
            yield f"markers lie in another frame than {frame}"
            return


def shown_by_foxglove(there: dict[str, Topic], layout: dict[str, Any]) -> Iterator[str]:
    """What the panels of a layout cannot show, one line each."""
    panels = layout["configById"]
    if sorted(leaves(layout["layout"])) != sorted(panels):
        yield "panels that are configured and panels that are laid out differ"
    for panel, config in panels.items():
        kind = panel.partition("!")[0]
        topics = [config.get("topicToRender"), config.get("imageMode", {}).get("imageTopic")]
        for name in (*filter(None, topics), *config.get("topics", {})):
            if name not in there or there[name].kind != SHOWS[kind]:
                yield f"{panel}: {name} is no {SHOWS[kind]}"
        if kind == "RawMessages" and config["topicPath"] not in there:
            yield f"{panel}: {config['topicPath']} is not there"
        for path in config.get("paths", []):
            topic, _, field = path["value"].partition(".")
            if not numeric(there, topic, field):
                yield f"{panel}: {path['value']} is no number"


def leaves(tree: Any) -> list[str]:
    """Panels of a layout."""
    if isinstance(tree, str):
        return [tree]
    return leaves(tree["first"]) + leaves(tree["second"])


def shown_by_plotjuggler(there: dict[str, Topic], layout: ElementTree.Element) -> Iterator[str]:
    """Curves of a layout that are no numbers of the recording, one line each."""
    for area in layout.iter("DockSplitter"):
        if int(area.get("count")) != len(area) or len(area.get("sizes").split(";")) != len(area):
            yield f"{area.get('count')} areas told, {len(area)} there"
    for curve in layout.iter("curve"):
        _, topic, *field = curve.get("name").split("/")
        if not numeric(there, f"/{topic}", ".".join(field)):
            yield f"{curve.get('name')} is no number"


def numeric(there: dict[str, Topic], topic: str, path: str) -> bool:
    """Whether some message of the topic has a number there: ``field.field[0]``."""
    for value in there[topic].messages if topic in there else ():
        for name, index in re.findall(r"(\w+)(?:\[(\d+)\])?", path):
            value = getattr(value, name, None)
            if index:
                there_is = value is not None and len(value) > int(index)
                value = value[int(index)] if there_is else None
        if isinstance(value, int | float | np.number) and not isinstance(value, bool):
            return True
    return False


@pytest.fixture
def probe(ros_domain: int) -> Iterator[Probe]:
    made = Probe(ros_domain)
    made.listen(MarkerArray, "plan_markers")
    made.listen(Image, "plan_image")
    yield made
    made.close()


def test_layouts_show_what_a_recorded_run_holds(tmp_path: Path, probe: Probe) -> None:
    bag, params = tmp_path / "bag", tmp_path / "wall.yaml"
    text = (ROOT / "config" / "wall.yaml").read_text()
    for node, line in (
        ("recorder_node", f"topics: [{', '.join(RECORDED)}]"),
        ("command_gate", f"e_stop_file: {tmp_path / 'e_stop'}"),
    ):
        head = f"/**/{node}:\n  ros__parameters:\n"
        assert head in text
        text = text.replace(head, f"{head}    {line}\n")
    params.write_text(text)
    words = [f"params_file:={params}", "record:=true", f"bag:={bag}", "markers:=true"]
    with command(tmp_path / "launch.log", "launch", "wall_sim", *words):
        probe.wait(lambda: len(probe.heard["plan_image"]) >= 20, START_S, "plans drawn")
        listeners = probe.node.get_subscriptions_info_by_topic("/e_stop")
    there = read(bag)
    assert {f"/{name.strip('/')}" for name in RECORDED} <= set(there)
    rviz = yaml.safe_load((LAYOUTS / "wm_mpc.rviz").read_text())
    foxglove = json.loads((LAYOUTS / "foxglove.json").read_text())
    plotjuggler = ElementTree.parse(LAYOUTS / "plotjuggler.xml").getroot()
    assert list(shown_by_rviz(there, rviz)) == []
    assert list(shown_by_foxglove(there, foxglove)) == []
    assert list(shown_by_plotjuggler(there, plotjuggler)) == []
    buttons = [c for name, c in foxglove["configById"].items() if name.startswith("Publish!")]
    assert [json.loads(c["value"]) for c in buttons] == [{"data": True}, {"data": False}]
    assert {c["topicName"] for c in buttons} == {"/e_stop"}
    assert {c["datatype"] for c in buttons} == {i.topic_type for i in listeners}
    # a field, a topic and a quality of service that are not there are noticed
    foxglove["configById"]["Plot!tick"]["paths"][0]["value"] = "/status.tock_ms"
    assert len(list(shown_by_foxglove(there, foxglove))) == 1
    plotjuggler.find(".//curve").set("name", "/state/tick_ms")
    assert len(list(shown_by_plotjuggler(there, plotjuggler))) == 1
    displays = [d for d in rviz["Visualization Manager"]["Displays"] if "Topic" in d]
    displays[0]["Topic"]["Durability Policy"] = "Transient Local"
    assert len(list(shown_by_rviz(there, rviz))) == 1
    check_what_was_drawn(there)


def check_what_was_drawn(there: dict[str, Topic]) -> None:
    """The path begins where some recorded state has the robot; the picture shows the camera's."""
    task = make_task("wall")
    states = [task.in_picture(np.array(s.state)) for s in there["/task_state"].messages]
    for array in there["/plan_markers"].messages:
        spaces = {marker.ns: marker for marker in array.markers}
        assert {"plan", "steps", "robot", "goal", "state"} <= set(spaces)
        first = spaces["plan"].points[0]
        away = [abs(first.x - x) + abs(1 - first.y - y) for x, y in states]
        assert min(away) < 1e-6
        assert len(spaces["steps"].points) == len(spaces["plan"].points) - 1
        assert spaces["state"].text.split("\n")[1].startswith("adam, cost ")
    picture = image_to_rgb(there["/plan_image"].messages[-1])
    goal = image_to_rgb(there["/goal_image"].messages[-1])
    assert picture.shape == (296, 752, 3)
    column = picture[48:288, 256:496]
    assert np.abs(column[::5, ::5].astype(int) - goal[::2, ::2][:48, :48]).mean() < 12


def test_a_tip_goes_where_its_velocities_lead_and_a_joint_plan_is_a_chart(
    tmp_path: Path, probe: Probe
) -> None:
    names = ["linear.x", "linear.z", "angular.z"]
    process = NodeProcess(
        "wm_mpc.nodes.markers.node", tmp_path / "out.txt", command_names=names, candidates=1
    )
    try:
        plans = probe.node.create_publisher(Plan, "plan", 1)
        tips = probe.node.create_publisher(PoseStamped, "tip_pose", 1)
        cameras = probe.node.create_publisher(Image, "image", 1)
        told = probe.node.create_publisher(PlannerStatus, "status", 1)
        for heard in (plans, tips, cameras, told):
            probe.wait(heard.get_subscription_count, START_S, "the node")
        actions = [0.1, 0.0, 9.0, 0.1, -0.2, 9.0]
        plan = Plan(planner="cem", horizon=2, action_dim=3, dt=0.5, actions=actions, cost=0.25)
        plan.candidates, plan.candidate_costs = 2, [1.0, 2.0]
        plan.candidate_actions = [0.2] * 6 + [0.3] * 6
        drawn = joints_first(probe, plans, plan)
        assert {m.ns for m in drawn} == {"actions", "state"}
        assert sum(m.ns == "actions" for m in drawn) == 3
        tip = PoseStamped()
        tip.header.frame_id, tip.pose.position.z = "base_link", 1.0
        grey = np.full((48, 64, 3), 90, np.uint8)

        def in_space() -> Any:
            tips.publish(tip)
            cameras.publish(rgb_to_image(grey, to_stamp(1.0)))
            told.publish(PlannerStatus(state=PlannerStatus.SAFE_STOP, reason="image: too old"))
            plans.publish(plan)
            found = probe.last("plan_markers").markers
            spaces = {m.ns for m in found}
            return {m.ns: m for m in found} if "plan" in spaces else None

        spaces = probe.wait(in_space, 30, "a path in space")
        assert spaces["plan"].header.frame_id == "base_link"
        points = [(p.x, p.y, p.z) for p in spaces["plan"].points]
        np.testing.assert_allclose(points, [(0, 0, 1), (0.05, 0, 1), (0.1, 0, 0.9)], atol=1e-6)
        assert spaces["candidates"].type == Marker.LINE_LIST
        assert len(spaces["candidates"].points) == 4  # one candidate of two steps
        text = probe.wait(
            lambda: in_space() and next(
                (m.text for m in probe.last("plan_markers").markers if "SAFE" in m.text), None
            ), 30, "the state",
        )  # fmt: skip
        assert text.startswith("SAFE_STOP: image: too old\ncem, cost 0.25")
    finally:
        assert process.end() == 0
    assert "Traceback" not in process.output


def joints_first(probe: Probe, plans: Any, plan: Plan) -> list[Any]:
    """Markers of a plan before any tip pose came; one that does not fit is told and left out."""
    broken = Plan(planner="cem", horizon=3, action_dim=3, dt=0.5, actions=[1.0])

    def drawn() -> Any:
        plans.publish(broken)
        plans.publish(plan)
        return probe.last("plan_markers")

    return probe.wait(drawn, 30, "markers").markers


def test_a_picture_of_a_plan_has_one_size_and_shows_its_path() -> None:
    shown = PlanShown(np.array([[0.0, 1.0], [np.nan, -1.0]]), np.zeros((2, 2, 2)), 0.1)
    nothing = plan_picture(None, None, None)
    camera = np.zeros((50, 100, 3), np.uint8)
    path = np.array([[0.1, 0.5], [0.9, 0.5]])
    drawn = plan_picture(camera, camera, shown, ("RUNNING", "adam …"), path=path)
    assert drawn.shape == nothing.shape == (296, 752, 3)
    orange = np.all(drawn == PLAN, axis=-1)
    rows, columns = np.nonzero(orange)
    assert 48 + 50 < rows.min() and rows.max() < 48 + 70  # half the height of 100 x 50 in 240 px
    assert columns.min() == pytest.approx(8 + 24, abs=4) and columns.max() < 8 + 240
