"""The ROS interfaces: they build, import, and have the fields that users rely on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
msg = pytest.importorskip("wm_mpc.msg", reason="the ROS interfaces are not built")

from wm_mpc import action, srv  # noqa: E402

FILES = sorted(ROOT.glob("msg/*.msg")) + sorted(ROOT.glob("srv/*.srv"))
FILES += sorted(ROOT.glob("action/*.action"))
DECLARATION = re.compile(r"^(?P<type>[\w/]+(?:\[\d*\])?) (?P<name>\w+)(?P<value>=\S+)?")


def parts(file: Path) -> list[dict[str, str]]:
    """Field name -> type, for every part of an interface file; constants are left out."""
    sections: list[dict[str, str]] = [{}]
    for line in file.read_text().splitlines():
        if line == "---":
            sections.append({})
        elif (match := DECLARATION.match(line)) and not match["value"]:
            sections[-1][match["name"]] = match["type"]
    return sections


def generated(file: Path) -> list[type]:
    if file.suffix == ".msg":
        return [getattr(msg, file.stem)]
    if file.suffix == ".srv":
        found = getattr(srv, file.stem)
        return [found.Request, found.Response]
    found = getattr(action, file.stem)
    return [found.Goal, found.Result, found.Feedback]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_built_is_what_is_written(file: Path) -> None:
    types, sections = generated(file), parts(file)
    assert len(types) == len(sections)
    for kind, section in zip(types, sections, strict=True):
        fields = kind.get_fields_and_field_types()
        assert list(fields) == list(section)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_number_says_its_unit_or_shape(file: Path) -> None:
    for line in file.read_text().splitlines():
        match = DECLARATION.match(line)
        if not match or match["value"]:
            continue
        if match["name"].endswith(("_ms", "_s", "_dim")) or "bool" in match["type"]:
            continue
        if match["type"].startswith(("float", "int", "uint")):
            assert "#" in line, f"{file.name}: {match['name']} has no comment"
        if match["type"].startswith("float") and match["type"].endswith("[]"):
            shape = re.search(r"\([\w +]+,?\)|row-major|one per name", line)
            assert shape, f"{file.name}: {match['name']} has no shape"


def test_states_of_the_controller_differ() -> None:
    names = ("UNCONFIGURED", "IDLE", "RUNNING", "REACHED", "SAFE_STOP", "E_STOP", "FAULT")
    assert [getattr(msg.PlannerStatus, name) for name in names] == list(range(7))


def test_a_status_is_its_own_type_in_the_action_feedback() -> None:
    feedback = action.ReachGoal.Feedback(status=msg.PlannerStatus(state=2, tick_ms=1.5))
    assert (feedback.status.state, feedback.status.tick_ms) == (2, 1.5)


def test_wrong_types_are_refused() -> None:
    with pytest.raises((AssertionError, TypeError)):
        msg.Plan(dt="0.1", check_fields=True)


def test_serialisation_keeps_every_value() -> None:
    serialization = pytest.importorskip("rclpy.serialization")
    from sensor_msgs.msg import Image

    image = Image(height=1, width=2, encoding="rgb8", step=6, data=bytes(range(6)))
    sent = msg.Trajectory(task="pusht", images=[image], image_steps=[0], actions=[0.5, 1.0])
    sent.action_dim, sent.stamps, sent.seed = 2, [0.0, 0.1], -1
    back = serialization.deserialize_message(
        serialization.serialize_message(sent), msg.Trajectory
    )
    assert back == sent and bytes(back.images[0].data) == bytes(range(6))
