"""Commands to a robot as messages: one format for whoever sends, passes on or hears them.

Imports no more than the type in use: the command gate has little memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from std_msgs.msg import Float64MultiArray, MultiArrayDimension

from wm_mpc.core.errors import MessageError, UserError

TWIST_FIELDS = ("linear.x", "linear.y", "linear.z", "angular.x", "angular.y", "angular.z")
COMMAND_KINDS = ("float64_multi_array", "twist_stamped", "joint_trajectory")


def command_type(kind: str) -> type:
    """Message type of a kind of command.

    Args:
        kind: one of :data:`COMMAND_KINDS`.
    """
    if kind == "twist_stamped":
        from geometry_msgs.msg import TwistStamped

        return TwistStamped
    if kind == "joint_trajectory":
        from trajectory_msgs.msg import JointTrajectory

        return JointTrajectory
    return Float64MultiArray


class CommandFormat:
    """Commands as messages of one type, and back.

    - ``float64_multi_array``: numbers in the order of the action, as forward_command_controller
      takes them.
    - ``twist_stamped``: velocities [m/s, rad/s]; ``names`` says which of :data:`TWIST_FIELDS` each
      number is.
    - ``joint_trajectory``: one point, positions of the joints ``names``, to be reached one control
      period from now.

    Args:
        kind: one of :data:`COMMAND_KINDS`.
        names: one per action dimension; may be empty for ``float64_multi_array``.
        dim: action width.
        period: control period [s].

    Raises:
        UserError: unknown type, or names that do not fit.
    """

    def __init__(self, kind: str, names: tuple[str, ...], dim: int, period: float) -> None:
        if kind not in COMMAND_KINDS:
            known = ", ".join(COMMAND_KINDS)
            raise UserError(f"command_type: {kind!r} unknown; one of {known} expected")
        needed = names or kind != "float64_multi_array"
        if needed and len(names) != dim:
            raise UserError(f"command_names: {len(names)} names; {dim} expected for {kind}")
        if kind == "twist_stamped" and not set(names) <= set(TWIST_FIELDS):
            known = ", ".join(TWIST_FIELDS)
            raise UserError(f"command_names: {list(names)}; of {known} expected")
        self.kind, self.names, self.dim, self.period = kind, names, dim, period
        self.type = command_type(kind)
        self._point: Any = None
        if kind == "joint_trajectory":
            from trajectory_msgs.msg import JointTrajectoryPoint

            self._point = JointTrajectoryPoint

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
        point = self._point(positions=numbers)
        nanoseconds = round(self.period * 1e9)
        point.time_from_start = Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        message.joint_names, message.points = list(self.names), [point]
        return message

    def read(self, message: Any) -> np.ndarray:
        """Values of a message, float64 ``(dim,)``, finite.

        Raises:
            MessageError: wrong width, other joints, or a number that is not finite.
        """
        if self.kind == "twist_stamped":
            parts = (name.partition(".") for name in self.names)
            values = [getattr(getattr(message.twist, group), axis) for group, _, axis in parts]
        elif self.kind == "joint_trajectory":
            if not message.points:
                raise MessageError("command.points: none; 1 expected")
            values = self._in_order(message.joint_names, message.points[0].positions)
        else:
            values = message.data
        if len(values) != self.dim:
            raise MessageError(f"command: {len(values)} values; {self.dim} expected")
        array = np.asarray(values, dtype=np.float64)
        if not np.isfinite(array).all():
            raise MessageError(f"command: {array.tolist()} is not finite")
        return array

    def _in_order(self, joints: Sequence[str], positions: Sequence[float]) -> Sequence[float]:
        """Positions in the order of ``names``; joints without names come in that order."""
        if not joints or tuple(joints) == self.names:
            return positions
        if sorted(joints) != sorted(self.names) or len(positions) != len(joints):
            raise MessageError(
                f"command.joint_names: {list(joints)} with {len(positions)} positions; "
                f"{list(self.names)} expected"
            )
        return [positions[list(joints).index(name)] for name in self.names]


__all__ = ["COMMAND_KINDS", "TWIST_FIELDS", "CommandFormat", "command_type"]
