"""ROS messages to arrays and back; reading that needs no ROS lies in ``wm_mpc.data.decoding``.

Messages that cannot be used raise ``MessageError``: one line with field, value and bound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image, JointState

from wm_mpc.core.clock import stamp_seconds
from wm_mpc.core.errors import MessageError
from wm_mpc.data.decoding import (
    compressed_to_rgb,
    image_to_rgb,
    joint_state_to_array,
    message_to_trajectory,
)
from wm_mpc.data.encodings import ENCODINGS
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.nodes.common.commands import (
    COMMAND_KINDS,
    TWIST_FIELDS,
    CommandFormat,
    command_type,
)

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


COMMAND_TYPES = {kind: command_type(kind) for kind in COMMAND_KINDS}
"""Message type of each kind of command."""


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
