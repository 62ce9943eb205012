"""A store as a rosbag2 that Foxglove and ``ros2 bag play`` show, and that imports back unchanged.

The episodes follow each other on one time line. A message on ``episode`` opens each with its facts
as JSON, among them ``stamp_offset``: what was added to the episode's own stamps [s].
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

import numpy as np
from annotated_types import Gt, Unit

from wm_mpc.core.fields import Checked
from wm_mpc.core.opencv import cv2
from wm_mpc.data.bags.writer import BagWriter
from wm_mpc.data.trajectory import Trajectory

_COMMANDS = {
    "float64_multi_array": "std_msgs/msg/Float64MultiArray",
    "twist_stamped": "geometry_msgs/msg/TwistStamped",
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
}
_Axis = Literal["linear.x", "linear.y", "linear.z", "angular.x", "angular.y", "angular.z"]


@dataclass(frozen=True)
class ExportConfig(Checked):
    """Topics and types of an exported bag.

    Attributes:
        image_format: ``raw``, or ``png`` (lossless) or ``jpeg`` on ``image/compressed``.
        command_type: ``float64_multi_array``, ``twist_stamped`` or ``joint_trajectory``.
        twist_axes: for twist_stamped: which axis each action is, e.g. ``linear.x``.
        joints: names for joint states and trajectories; twice as many numbers are positions and
            velocities; empty: ``q0``, ``q1``, ... and positions only.
        namespace: put before every topic.
        start_s: [s] stamp of the first step; nan: the first episode's own.
        pause_s: [s] between episodes whose own stamps overlap.
    """

    image_format: Literal["raw", "png", "jpeg"] = "raw"
    command_type: Literal["float64_multi_array", "twist_stamped", "joint_trajectory"] = (
        "float64_multi_array"
    )
    twist_axes: tuple[_Axis, ...] = ("linear.x", "angular.z")
    joints: tuple[str, ...] = ()
    namespace: str = ""
    start_s: float = float("nan")
    pause_s: Annotated[float, Gt(0), Unit("s")] = 2.0


@dataclass
class Exporter:
    """Writes trajectories into a bag, one after another.

    Args:
        writer: an open bag.
        config: topics and types.
    """

    writer: BagWriter
    config: ExportConfig = field(default_factory=ExportConfig)

    def __post_init__(self) -> None:
        """Look up the message classes."""
        compressed = self.config.image_format != "raw"
        kind = "CompressedImage" if compressed else "Image"
        self._topics = {
            "image": ("image/compressed" if compressed else "image", f"sensor_msgs/msg/{kind}"),
            "proprio": ("proprio", "sensor_msgs/msg/JointState"),
            "command": ("command", _COMMANDS[self.config.command_type]),
            "episode": ("episode", "std_msgs/msg/String"),
            "state": ("task_state", "wm_mpc/msg/TaskState"),
        }
        (self._time, self._header) = self.writer.types(
            "builtin_interfaces/msg/Time", "std_msgs/msg/Header"
        )
        self._end: float | None = None
        self._count = 0

    def write(self, trajectories: Iterable[Trajectory]) -> int:
        """Append trajectories; return how many."""
        for trajectory in trajectories:
            self._episode(trajectory)
        return self._count

    def _episode(self, trajectory: Trajectory) -> None:
        offset = self._offset(trajectory)
        self._count += 1
        stamps = trajectory.stamps + offset
        facts = {**trajectory.meta, "stamp_offset": offset, "steps": len(trajectory)}
        self._put("episode", stamps[0], data=json.dumps(facts))
        frames = dict(zip(trajectory.image_steps.tolist(), trajectory.images, strict=True))
        for step, stamp in enumerate(stamps):
            if step in frames:
                self._image(stamp, frames[step])
            if trajectory.proprio.shape[1]:
                self._proprio(stamp, trajectory.proprio[step])
            if trajectory.state is not None:
                self._state(stamp, step, trajectory)
            if step < len(trajectory):
                self._command(stamp, trajectory.actions[step], stamps[step + 1] - stamp)
        self._end = float(stamps[-1])

    def _offset(self, trajectory: Trajectory) -> float:
        """Seconds to add to the episode's stamps: none where they follow the one before."""
        first = float(trajectory.stamps[0])
        if self._end is None:
            return 0.0 if np.isnan(self.config.start_s) else self.config.start_s - first
        return 0.0 if first > self._end else self._end + self.config.pause_s - first

    def _put(self, part: str, stamp: float, **fields: Any) -> None:
        name, msgtype = self._topics[part]
        topic = f"{self.config.namespace.rstrip('/')}/{name}"
        self.writer.add_topic(topic, msgtype)
        (kind,) = self.writer.types(msgtype)
        data = self.writer.serialize(topic, kind(**fields))
        self.writer.write(topic, round(stamp * 1e9), data)

    def _stamped(self, stamp: float, frame_id: str = "") -> Any:
        nanoseconds = round(stamp * 1e9)
        time = self._time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        return self._header(stamp=time, frame_id=frame_id)

    def _image(self, stamp: float, picture: np.ndarray) -> None:
        header = self._stamped(stamp, "camera")
        if self.config.image_format == "raw":
            height, width = picture.shape[:2]
            self._put(
                "image",
                stamp,
                header=header,
                height=height,
                width=width,
                encoding="rgb8",
                is_bigendian=0,
                step=width * 3,
                data=np.ascontiguousarray(picture).reshape(-1),
            )
            return
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(f".{self.config.image_format}", bgr)
        self._put(
            "image", stamp, header=header, format=self.config.image_format, data=data.reshape(-1)
        )

    def _proprio(self, stamp: float, values: np.ndarray) -> None:
        values = values.astype(np.float64)
        names = self.config.joints or tuple(f"q{i}" for i in range(len(values)))
        self._put(
            "proprio",
            stamp,
            header=self._stamped(stamp),
            name=list(names),
            position=values[: len(names)],
            velocity=values[len(names) :],
            effort=np.zeros(0),
        )

    def _command(self, stamp: float, action: np.ndarray, period: float) -> None:
        values = action.astype(np.float64)
        if self.config.command_type == "float64_multi_array":
            dimension, layout = self.writer.types(
                "std_msgs/msg/MultiArrayDimension", "std_msgs/msg/MultiArrayLayout"
            )
            size = len(values)
            dim = [dimension(label="action", size=size, stride=size)]
            self._put("command", stamp, layout=layout(dim=dim, data_offset=0), data=values)
        elif self.config.command_type == "twist_stamped":
            vector, twist = self.writer.types(
                "geometry_msgs/msg/Vector3", "geometry_msgs/msg/Twist"
            )
            axes = dict.fromkeys(get_args(_Axis), 0.0)
            axes |= dict(zip(self.config.twist_axes, values.tolist(), strict=True))
            linear, angular = (
                vector(*(axes[f"{part}.{axis}"] for axis in "xyz"))
                for part in ("linear", "angular")
            )
            header = self._stamped(stamp)
            self._put("command", stamp, header=header, twist=twist(linear=linear, angular=angular))
        else:
            point, duration = self.writer.types(
                "trajectory_msgs/msg/JointTrajectoryPoint", "builtin_interfaces/msg/Duration"
            )
            empty = np.zeros(0)
            reach = duration(sec=int(period), nanosec=int(period % 1 * 1e9))
            names = self.config.joints or tuple(f"q{i}" for i in range(len(values)))
            points = [point(values, empty, empty, empty, reach)]
            header = self._stamped(stamp)
            self._put("command", stamp, header=header, joint_names=list(names), points=points)

    def _state(self, stamp: float, step: int, trajectory: Trajectory) -> None:
        meta = trajectory.meta
        self._put(
            "state",
            stamp,
            header=self._stamped(stamp),
            task=str(meta.get("task", "")),
            seed=int(meta.get("seed", -1)),
            episode=self._count,
            step=step,
            state=trajectory.state[step].astype(np.float64),
            goal_state=np.zeros(0),
            error=float("nan"),
            error_unit="",
            success=False,
            error_names=[],
            error_values=np.zeros(0),
        )
