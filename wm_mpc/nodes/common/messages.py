"""ROS messages to arrays and back; reading that needs no ROS lies in ``wm_mpc.data.decoding``.

Messages that cannot be used raise ``MessageError``: one line with field, value and bound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from wm_mpc.core.errors import UserError
from wm_mpc.data.decoding import (
    ENCODINGS,
    MessageError,
    compressed_to_rgb,
    image_to_rgb,
    joint_state_to_array,
    message_to_trajectory,
    stamp_seconds,
)
from wm_mpc.data.trajectory import Trajectory

__all__ = [
    "COMMAND_TYPES",
    "ENCODINGS",
    "TWIST_FIELDS",
    "CommandFormat",
    "MessageError",
    "array_to_joint_state",
    "compressed_to_rgb",
    "image_to_rgb",
    "joint_state_to_array",
    "message_to_trajectory",
    "rgb_to_image",
    "stamp_seconds",
    "to_stamp",
    "trajectory_to_message",
]

TWIST_FIELDS = ("linear.x", "linear.y", "linear.z", "angular.x", "angular.y", "angular.z")


# ---- time --------------------------------------------------------------------------------------


def to_stamp(seconds: float) -> Time:
    """Stamp of ``seconds`` of the node clock."""
    nanoseconds = round(seconds * 1e9)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


# ---- images ------------------------------------------------------------------------------------


def rgb_to_image(rgb: np.ndarray, stamp: Time, frame_id: str = "camera") -> Image:
    """Build an ``rgb8`` message of a uint8 ``(H, W, 3)`` picture."""
    message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding="rgb8")
    message.header.stamp, message.header.frame_id = stamp, frame_id
    message.step = rgb.shape[1] * 3
    message.data = rgb.tobytes()
    return message


# ---- proprioception ----------------------------------------------------------------------------


def array_to_joint_state(values: np.ndarray, names: tuple[str, ...], stamp: Time) -> JointState:
    """Build a joint state of ``[positions, velocities]`` or positions only."""
    message = JointState(name=list(names), position=values[: len(names)].tolist())
    message.header.stamp = stamp
    message.velocity = values[len(names) :].tolist()
    return message


# ---- commands ----------------------------------------------------------------------------------


COMMAND_TYPES: dict[str, type] = {
    "float64_multi_array": Float64MultiArray,
    "twist_stamped": TwistStamped,
    "joint_trajectory": JointTrajectory,
}


class CommandFormat:
    """Commands as messages of one type, and back.

    - ``float64_multi_array``: numbers in the order of the action, as forward_command_controller
      takes them.
    - ``twist_stamped``: velocities [m/s, rad/s]; ``names`` says which of :data:`TWIST_FIELDS` each
      number is.
    - ``joint_trajectory``: one point, positions of the joints ``names``, to be reached one control
      period from now.

    Args:
        kind: key of :data:`COMMAND_TYPES`.
        names: one per action dimension; may be empty for ``float64_multi_array``.
        dim: action width.
        period: control period [s].

    Raises:
        UserError: unknown type, or names that do not fit.
    """

    def __init__(self, kind: str, names: tuple[str, ...], dim: int, period: float) -> None:
        if kind not in COMMAND_TYPES:
            known = ", ".join(COMMAND_TYPES)
            raise UserError(f"command_type: {kind!r} unknown; one of {known} expected")
        needed = names or kind != "float64_multi_array"
        if needed and len(names) != dim:
            raise UserError(f"command_names: {len(names)} names; {dim} expected for {kind}")
        if kind == "twist_stamped" and not set(names) <= set(TWIST_FIELDS):
            known = ", ".join(TWIST_FIELDS)
            raise UserError(f"command_names: {list(names)}; of {known} expected")
        self.kind, self.names, self.dim, self.period = kind, names, dim, period
        self.type = COMMAND_TYPES[kind]

    def build(self, values: np.ndarray, stamp: Time) -> Any:
        """Message of ``values`` ``(dim,)``."""
        numbers = np.asarray(values, np.float64).tolist()
        message = self.type()
        if self.kind == "float64_multi_array":
            label = ",".join(self.names) or "action"
            layout = MultiArrayDimension(label=label, size=self.dim, stride=self.dim)
            message.data, message.layout.dim = numbers, [layout]
            return message
        message.header.stamp = stamp
        if self.kind == "twist_stamped":
            for name, value in zip(self.names, numbers, strict=True):
                group, _, axis = name.partition(".")
                setattr(getattr(message.twist, group), axis, value)
            return message
        point = JointTrajectoryPoint(positions=numbers)
        nanoseconds = round(self.period * 1e9)
        point.time_from_start = Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        message.joint_names, message.points = list(self.names), [point]
        return message

    def read(self, message: Any) -> np.ndarray:
        """Values of a message, float64 ``(dim,)``, finite.

        Raises:
            MessageError: wrong width or a number that is not finite.
        """
        if self.kind == "twist_stamped":
            parts = (name.partition(".") for name in self.names)
            values = [getattr(getattr(message.twist, group), axis) for group, _, axis in parts]
        elif self.kind == "joint_trajectory":
            if not message.points:
                raise MessageError("command.points: none; 1 expected")
            values = message.points[0].positions
        else:
            values = message.data
        if len(values) != self.dim:
            raise MessageError(f"command: {len(values)} values; {self.dim} expected")
        array = np.asarray(values, dtype=np.float64)
        if not np.isfinite(array).all():
            raise MessageError(f"command: {array.tolist()} is not finite")
        return array


# ---- trajectories ------------------------------------------------------------------------------


def trajectory_to_message(trajectory: Trajectory, stamp: Time) -> Any:
    """Build a ``wm_mpc/msg/Trajectory``; ``meta`` fills task, source, policy and seed."""
    from wm_mpc.msg import Trajectory as TrajectoryMessage

    meta = trajectory.meta
    message = TrajectoryMessage(
        task=str(meta.get("task", "")),
        source=str(meta.get("source", "")),
        policy=str(meta.get("policy", "")),
        seed=int(meta.get("seed", -1)),
        action_dim=trajectory.actions.shape[1],
        proprio_dim=trajectory.proprio.shape[1],
        state_dim=0 if trajectory.state is None else trajectory.state.shape[1],
    )
    message.header.stamp = stamp
    message.images = [rgb_to_image(image, stamp) for image in trajectory.images]
    message.image_steps = _packed("q", trajectory.image_steps, np.int64)
    message.actions = _packed("f", trajectory.actions, np.float32)
    message.proprio = _packed("f", trajectory.proprio, np.float32)
    message.stamps = _packed("d", trajectory.stamps, np.float64)
    if trajectory.state is not None:
        message.state = _packed("d", trajectory.state, np.float64)
    return message


def _packed(code: str, values: np.ndarray, dtype: type) -> Any:
    """An ``array.array``: the sequence type that message setters take without copying per item."""
    import array

    return array.array(code, np.ascontiguousarray(values, dtype).tobytes())
