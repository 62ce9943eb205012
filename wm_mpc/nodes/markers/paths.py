"""Where a plan leads, in space: by a task's simulation, or by adding up the tip's velocities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wm_mpc.tasks.environments import make_env
from wm_mpc.viz.scene import foresee

AXES = ("linear.x", "linear.y", "linear.z")


class SimulatedPath:
    """Plays plans in a task's simulation, which knows what the robot will do.

    Args:
        task: task by name, or module:TASK.

    Raises:
        UserError: no such task.
    """

    def __init__(self, task: str) -> None:
        self._task = make_env(task).unwrapped
        self.width = self._task.spec_task.action_dim

    def path(self, state: Sequence[float], actions: np.ndarray) -> np.ndarray:
        """Path ``(T + 1, 2)`` in the picture, fractions of its side.

        Raises:
            ValueError: the state is not one of this task.
        """
        return foresee(self._task, np.asarray(state, np.float64), actions).path

    def place(self, state: Sequence[float]) -> np.ndarray:
        """Where the picture of a state shows the robot, ``(2,)``."""
        return self._task.in_picture(self._task.check_state(np.asarray(state, np.float64)))


def in_plane(places: Any, size_m: float) -> np.ndarray:
    """Places in a picture ``(..., 2)`` as points ``(..., 3)`` [m]: x right, y up, z 0."""
    places = np.asarray(places, np.float64)
    up = np.stack([places[..., 0], 1 - places[..., 1], np.zeros(places.shape[:-1])], -1)
    return up * size_m


def tip_path(
    tip: Sequence[float], actions: np.ndarray, names: Sequence[str], period_s: float
) -> np.ndarray:
    """Path ``(T + 1, 3)`` [m] of a tip that follows its commanded velocities.

    Args:
        tip: where it is, ``(3,)`` [m].
        actions: ``(T, action_dim)``; those that ``names`` calls linear.* are [m/s].
        names: one per action dimension.
        period_s: [s] each row holds.
    """
    speeds = np.zeros((len(actions), 3))
    for j, name in enumerate(names):
        if name in AXES:
            speeds[:, AXES.index(name)] = actions[:, j]
    ways = np.cumsum(speeds * period_s, axis=0)
    return np.asarray(tip, np.float64) + np.concatenate([np.zeros((1, 3)), ways])


__all__ = ["AXES", "SimulatedPath", "in_plane", "tip_path"]
