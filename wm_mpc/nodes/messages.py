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
    "ENCODINGS",
    "TWIST_FIELDS",
    "MessageError",
    "array_to_joint_state",
    "command_to_array",
    "compressed_to_rgb",
    "float64_multi_array",
    "image_to_rgb",
    "joint_state_to_array",
    "joint_trajectory",
    "message_to_trajectory",
    "rgb_to_image",
    "stamp_seconds",
    "to_stamp",
    "trajectory_to_message",
    "twist_stamped",
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


def float64_multi_array(values: np.ndarray, names: tuple[str, ...]) -> Float64MultiArray:
    """Numbers in the order of the action, as forward_command_controller takes them."""
    message = Float64MultiArray(data=np.asarray(values, np.float64).tolist())
    size = len(message.data)
    label = ",".join(names) or "action"
    message.layout.dim = [MultiArrayDimension(label=label, size=size, stride=size)]
    return message


def twist_stamped(values: np.ndarray, stamp: Time, names: tuple[str, ...]) -> TwistStamped:
    """Velocities [m/s, rad/s]; ``names`` says which of :data:`TWIST_FIELDS` each one is."""
    message = TwistStamped()
    message.header.stamp = stamp
    for name, value in zip(names, values, strict=True):
        group, _, axis = name.partition(".")
        setattr(getattr(message.twist, group), axis, float(value))
    return message


def joint_trajectory(
    values: np.ndarray, stamp: Time, names: tuple[str, ...], period: float
) -> JointTrajectory:
    """One point: joint positions to be reached one control period from now."""
    point = JointTrajectoryPoint(positions=np.asarray(values, np.float64).tolist())
    point.time_from_start = Duration(sec=int(period), nanosec=int(period % 1 * 1e9))
    message = JointTrajectory(joint_names=list(names), points=[point])
    message.header.stamp = stamp
    return message


def command_to_array(message: Any, names: tuple[str, ...], dim: int) -> np.ndarray:
    """Read any of the three command types back.

    Args:
        message: Float64MultiArray, TwistStamped or JointTrajectory (its first point).
        names: as given when it was built.
        dim: action width.

    Returns:
        float64 ``(dim,)``, finite.

    Raises:
        MessageError: wrong width or a number that is not finite.
    """
    if isinstance(message, TwistStamped):
        parts = (name.partition(".") for name in names)
        values = [getattr(getattr(message.twist, group), axis) for group, _, axis in parts]
    elif isinstance(message, JointTrajectory):
        if not message.points:
            raise MessageError("command.points: none; 1 expected")
        values = message.points[0].positions
    else:
        values = message.data
    if len(values) != dim:
        raise MessageError(f"command: {len(values)} values; {dim} expected")
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
