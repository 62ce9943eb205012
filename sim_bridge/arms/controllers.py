"""What turns commands into joint motion, with the manners of ros2_control and MoveIt Servo.

Each controller answers one question: how fast shall the joints turn now? Commands it cannot use
are refused with one line, as the real ones do, and the motion under way goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Rates = Callable[[np.ndarray], np.ndarray]


class RefusedError(ValueError):
    """A command that a controller does not take; one line says why."""


class ForwardCommand:
    """``forward_command_controller`` on velocities: the last command holds until another comes.

    It has no timeout and no limits: who stops sending leaves the joints turning.

    Args:
        joints: number of joints.
    """

    def __init__(self, joints: int) -> None:
        self._rates = np.zeros(joints)

    def command(self, values: Sequence[float]) -> None:
        """Take velocities ``(J,)`` [rad/s].

        Raises:
            RefusedError: another number of values, or one that is not finite.
        """
        found = np.asarray(values, float)
        if found.shape != self._rates.shape:
            raise RefusedError(f"data: {found.size} values; {self._rates.size} expected")
        if not np.isfinite(found).all():
            raise RefusedError(f"data: {found.tolist()} is not finite")
        self._rates = found

    def rates(self, now: float, positions: np.ndarray, period: float) -> np.ndarray:
        """Joint velocities ``(J,)`` for the next ``period``."""
        return self._rates


class TwistServo:
    """MoveIt Servo on twists: a command older than ``timeout_s`` means halt.

    Args:
        joint_rates: joint velocities for a twist ``(6,)`` [m/s, rad/s].
        joints: number of joints.
        timeout_s: Servo's ``incoming_command_timeout`` [s].
    """

    def __init__(self, joint_rates: Rates, joints: int, timeout_s: float = 0.1) -> None:
        self._joint_rates, self._joints, self._timeout = joint_rates, joints, timeout_s
        self._twist, self._came = np.zeros(6), -np.inf

    def command(self, twist: Sequence[float], now: float) -> None:
        """Take a twist ``(6,)``: linear [m/s], angular [rad/s], in the base frame.

        Raises:
            RefusedError: a number that is not finite.
        """
        found = np.asarray(twist, float)
        if found.shape != (6,) or not np.isfinite(found).all():
            raise RefusedError(f"twist: {found.tolist()}; six finite numbers expected")
        self._twist, self._came = found, now

    def rates(self, now: float, positions: np.ndarray, period: float) -> np.ndarray:
        """Joint velocities ``(J,)`` for the next ``period``."""
        if now - self._came > self._timeout:
            return np.zeros(self._joints)
        return self._joint_rates(self._twist)


class TrajectoryController:
    """``joint_trajectory_controller`` on positions: follows the points in time, then holds.

    Between points positions are interpolated linearly, as that controller does when a trajectory
    has no velocities. A new trajectory begins at where the last one had got to.

    Args:
        joints: names of all joints.
        start: joint positions ``(J,)`` [rad] to hold at first.
    """

    def __init__(self, joints: Sequence[str], start: np.ndarray) -> None:
        self._joints = list(joints)
        self._times, self._points = np.zeros(1), np.array([start], float)

    def command(
        self,
        names: Sequence[str],
        points: Sequence[tuple[float, Sequence[float]]],
        begin: float,
        now: float,
    ) -> None:
        """Take a trajectory.

        Args:
            names: joints in the order of the positions; all of the arm's.
            points: pairs (time from the beginning [s], positions [rad]).
            begin: when the trajectory begins [s], on the clock of ``now``.
            now: the present time [s].

        Raises:
            RefusedError: unknown or missing joints, no points, positions that do not fit or are
                not finite, times that do not increase, or points that all lie in the past.
        """
        unknown = [name for name in names if name not in self._joints]
        if unknown:
            known = ", ".join(self._joints)
            raise RefusedError(f"joint_names: {unknown[0]!r} is unknown; {known} expected")
        if sorted(names) != sorted(self._joints):
            count = len(self._joints)
            raise RefusedError(f"joint_names: {len(names)} joints; all {count} expected")
        if not points:
            raise RefusedError("points: none; at least 1 expected")
        times = np.array([time for time, _ in points], float)
        for i, (_, positions) in enumerate(points):
            if len(positions) != len(names):
                raise RefusedError(
                    f"points[{i}].positions: {len(positions)} values; {len(names)} expected"
                )
            if not np.isfinite(np.asarray(positions, float)).all() or not np.isfinite(times[i]):
                raise RefusedError(f"points[{i}]: not finite")
        if np.any(np.diff(times) <= 0):
            late = int(np.argmax(np.diff(times) <= 0)) + 1
            raise RefusedError(
                f"points[{late}].time_from_start: {times[late]:g} s is not after the point before"
            )
        if begin + times[-1] < now:
            ago = now - begin - times[-1]
            raise RefusedError(f"points: the last one lies {ago:.3f} s in the past")
        order = [list(names).index(name) for name in self._joints]
        wanted = np.array([positions for _, positions in points], float)[:, order]
        here = self.desired(now)
        later = begin + times > now
        self._times = np.concatenate([[now], (begin + times)[later]])
        self._points = np.concatenate([[here], wanted[later]])

    def desired(self, at: float) -> np.ndarray:
        """Positions ``(J,)`` that the trajectory asks for at a time."""
        columns = self._points.T
        return np.array([np.interp(at, self._times, column) for column in columns])

    def rates(self, now: float, positions: np.ndarray, period: float) -> np.ndarray:
        """Joint velocities ``(J,)`` that lead there within the next ``period``."""
        return (self.desired(now + period) - positions) / period
