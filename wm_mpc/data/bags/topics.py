"""Which topic of a bag plays which part, and how its messages become numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from wm_mpc.core.errors import DataError, MessageError, UserError
from wm_mpc.core.fields import Checked
from wm_mpc.data.decoding import compressed_to_rgb, image_to_rgb, joint_state_to_array

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
TRAJECTORY = "wm_mpc/msg/Trajectory"
_XYZ, _XYZW = ("x", "y", "z"), ("x", "y", "z", "w")
_TWIST = tuple(f"{part}.{axis}" for part in ("linear", "angular") for axis in _XYZ)
_POSE = (*(f"position.{a}" for a in _XYZ), *(f"orientation.{a}" for a in _XYZW))
FIELDS: dict[str, tuple[str, ...]] = {
    "sensor_msgs/msg/JointState": ("position", "velocity"),
    "std_msgs/msg/Float64MultiArray": ("data",),
    "std_msgs/msg/Float32MultiArray": ("data",),
    "trajectory_msgs/msg/JointTrajectory": ("points.0.positions",),
    "geometry_msgs/msg/Twist": _TWIST,
    "geometry_msgs/msg/TwistStamped": tuple(f"twist.{name}" for name in _TWIST),
    "geometry_msgs/msg/PoseStamped": tuple(f"pose.{name}" for name in _POSE),
    "ackermann_msgs/msg/AckermannDriveStamped": ("drive.speed", "drive.steering_angle"),
    "ackermann_msgs/msg/AckermannDrive": ("speed", "steering_angle"),
    "std_msgs/msg/Float64": ("data",),
    "std_msgs/msg/Float32": ("data",),
    "control_msgs/msg/JointJog": ("velocities",),
    "geometry_msgs/msg/PointStamped": ("point.x", "point.y", "point.z"),
    "nav_msgs/msg/Odometry": (
        *(f"pose.pose.{name}" for name in _POSE),
        *(f"twist.twist.{name}" for name in _TWIST),
    ),
    "wm_mpc/msg/TaskState": ("state",),
}
"""Numbers that are read off a type when nothing else is asked for, in this order."""


@dataclass(frozen=True)
class TopicConfig(Checked):
    """Topics by part. A name without a leading slash fits the one topic that ends in it.

    Attributes:
        image: sensor_msgs/Image or CompressedImage; ``NAME/compressed`` is found too. Required.
        proprio: joint states or any message with numbers; empty: there is none.
        command: what the robot was told; any message with numbers. Required.
        state: true simulator state, where there is one; used when the bag has it.
        goal: goal pictures: another picture begins another episode; used when the bag has it.
        marker: messages that begin another episode, or a field whose change does
            (``TOPIC:FIELD``), separated by commas; used when the bag has them.
        trajectories: ready-made wm_mpc/Trajectory messages; used when the bag has them.
        proprio_fields: fields to read, dotted, in order, e.g. ``pose.position.x``; empty: those
            of FIELDS.
        command_fields: likewise.
        joints: joint names in the order wanted; empty: the store's, or as in the first message.
        command_joints: likewise for commands that name joints.
        proprio_unit, command_unit: unit of positions and of commands, where the type does not
            say; kept in the store and compared with it.
        command_role: what a command says: ``position``, ``velocity``, ``effort``, ``increment``;
            empty: what its type says.
    """

    image: str = "image"
    proprio: str = "proprio"
    command: str = "command"
    state: str = "task_state"
    goal: str = "goal_image"
    marker: str = "episode,task_state:episode"
    trajectories: str = "corrected_trajectory"
    proprio_fields: tuple[str, ...] = ()
    command_fields: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    command_joints: tuple[str, ...] = ()
    proprio_unit: str = ""
    command_unit: str = ""
    command_role: Literal["", "position", "velocity", "effort", "increment"] = ""

    def __post_init__(self) -> None:
        """Refuse a mapping without the two parts that nothing works without."""
        super().__post_init__()
        for name in ("image", "command"):
            if not getattr(self, name):
                raise UserError(f"{name}: empty; a topic name expected")


def read_mapping(path: Path) -> dict[str, Any]:
    """Read the YAML file of ``--mapping``: keys and values as the options of the command line.

    Raises:
        UserError: unreadable, or a key that is no option.
    """
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"mapping {path}: {error}") from None
    if not isinstance(mapping, dict):
        raise UserError(f"mapping {path}: key: value lines expected")
    return {
        str(key): tuple(value) if isinstance(value, list) else value
        for key, value in mapping.items()
    }


def find_topic(topics: Mapping[str, str], name: str, part: str, required: bool) -> str | None:
    """Find the topic that plays a part.

    Args:
        topics: the bag's topics with their types.
        name: full name, or an ending.
        part: for messages.
        required: whether its absence is an error.

    Raises:
        DataError: required but absent, or an ending that fits several topics.
    """
    for exact in (name, f"/{name}"):
        if exact in topics:
            return exact
    tails = (f"/{name}", f"/{name}/compressed") if part == "image" else (f"/{name}",)
    found = sorted(t for t in topics if t.endswith(tails))
    raw = [t for t in found if not t.endswith("/compressed")]
    found = raw if len(raw) == 1 else found
    if len(found) > 1:
        raise DataError(f"{part}_topic: {name!r} fits {', '.join(found)}; say which")
    if not found and required:
        there = ", ".join(f"{t} ({m})" for t, m in sorted(topics.items())) or "none"
        raise DataError(f"{part}_topic: {name!r} is not in the bag; its topics are {there}")
    return found[0] if found else None


def read_field(message: Any, path: str) -> Any:
    """Follow a dotted path; a number indexes a list: ``points.0.positions``.

    Raises:
        MessageError: no such field or entry.
    """
    value = message
    for word in path.split("."):
        try:
            value = value[int(word)] if word.isdigit() else getattr(value, word)
        except (AttributeError, IndexError, TypeError):
            raise MessageError(f"{path}: the message has no {word!r}") from None
    return value


class VectorReader:
    """Reads the same numbers off every message of a topic, float64 ``(dim,)``.

    Args:
        part: for messages.
        msgtype: type of the topic.
        paths: fields; empty: those of FIELDS.
        joints: for joint states: names in the order wanted.

    Raises:
        DataError: it is not known which fields of ``msgtype`` hold the numbers.
    """

    def __init__(
        self, part: str, msgtype: str, paths: tuple[str, ...], joints: tuple[str, ...] = ()
    ) -> None:
        if not paths and msgtype not in FIELDS:
            raise DataError(
                f"{part}_topic: type {msgtype} is not known; name its fields by {part}_fields"
            )
        self.paths = paths or FIELDS[msgtype]
        self.dim: int | None = None
        self._part = part
        self._by_joint = msgtype == "sensor_msgs/msg/JointState" and not paths
        self._joints = joints

    def __call__(self, message: Any) -> np.ndarray:
        """Read one message.

        Raises:
            MessageError: a field is missing, the width changed, or a number is not finite.
        """
        if self._by_joint:
            self._joints = self._joints or tuple(message.name)
            if self.dim is None:
                count = len(self._joints) or len(message.position)
                self.dim = count * (2 if len(message.velocity) else 1)
            values = joint_state_to_array(message, self._joints, self.dim, self._part)
            return values.astype(np.float64)
        parts = [np.ravel(read_field(message, path)) for path in self.paths]
        try:
            values = np.concatenate(parts).astype(np.float64)
        except (TypeError, ValueError):
            raise MessageError(f"{self._part}: {', '.join(self.paths)} are not numbers") from None
        if self.dim is None and len(values):
            self.dim = len(values)
        if len(values) != self.dim:
            raise MessageError(f"{self._part}: {len(values)} numbers; {self.dim or 1} expected")
        if not np.isfinite(values).all():
            raise MessageError(f"{self._part}: a number is not finite")
        return values


def read_image(
    message: Any, msgtype: str, depth_range: tuple[float, float] | None = None
) -> np.ndarray:
    """Decode either image type to uint8 ``(H, W, 3)`` RGB; depth by ``depth_range`` [m].

    Raises:
        MessageError: it does not decode.
    """
    if msgtype == COMPRESSED:
        return compressed_to_rgb(message, depth_range=depth_range)
    return image_to_rgb(message, depth_range=depth_range)


def header_ns(message: Any) -> int | None:
    """Header stamp [ns], or None where there is no header or nobody filled it in."""
    header = getattr(message, "header", None)
    if header is None:
        return None
    return header.stamp.sec * 10**9 + header.stamp.nanosec or None
