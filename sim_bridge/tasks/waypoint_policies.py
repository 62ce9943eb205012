"""Behaviour policies for Wall and PointMaze: noisy ways through the door and round the corners."""

from __future__ import annotations

import math

import numpy as np

from sim_bridge.tasks.base import TaskSpec
from sim_bridge.tasks.walks import heading_vector, stride


class WallWaypoint:
    """Heads for random points of both rooms, through the door, with a noisy heading."""

    _DOOR_Y, _NEAR_LEFT, _NEAR_RIGHT, _MIDDLE = 30.0, 26.5, 37.5, 32.0

    def __init__(self, spec: TaskSpec, rng: np.random.Generator) -> None:
        """Create the policy for one trajectory; ``rng`` is owned by the caller."""
        self._rng = rng
        self._noise = float(rng.uniform(0.1, 0.6))
        self._target = self._draw_target()

    def act(self, state: np.ndarray) -> np.ndarray:
        """Action towards the next waypoint from ``state`` ``(2,)``."""
        if math.hypot(*(self._target - state)) < 2.5 or self._rng.random() < 0.01:
            self._target = self._draw_target()
        way = self._waypoint(state) - state
        heading = math.atan2(way[1], way[0]) + float(self._rng.normal(0.0, self._noise))
        return stride(self._rng) * heading_vector(heading)

    def _draw_target(self) -> np.ndarray:
        while True:
            target = self._rng.uniform((5.0, 5.0), (59.0, 59.0))
            if not self._NEAR_LEFT < target[0] < self._NEAR_RIGHT:
                return target

    def _waypoint(self, state: np.ndarray) -> np.ndarray:
        """The target, or the mouth of the door on this side, or the far mouth from within."""
        here_left, there_left = state[0] < self._MIDDLE, self._target[0] < self._MIDDLE
        inside = self._NEAR_LEFT - 1.0 < state[0] < self._NEAR_RIGHT + 1.0
        level = abs(state[1] - self._DOOR_Y) < 3.0
        if inside and level and here_left != there_left:
            return np.array([self._NEAR_LEFT if there_left else self._NEAR_RIGHT, self._DOOR_Y])
        if here_left != there_left:
            return np.array([self._NEAR_LEFT if here_left else self._NEAR_RIGHT, self._DOOR_Y])
        return self._target


class MazeWaypoint:
    """Drives the ball to random points of the U, round its corners, at random speed with noise."""

    _PERIOD_GAIN = 0.6  # action per m/s of missing velocity

    def __init__(self, spec: TaskSpec, rng: np.random.Generator) -> None:
        """Create the policy for one trajectory; ``rng`` is owned by the caller."""
        self._rng = rng
        self._noise = float(rng.choice([0.1, 0.3, 0.6]))
        self._choose_target()

    def act(self, state: np.ndarray) -> np.ndarray:
        """Action ``(2,)`` towards the next waypoint from ``state`` ``(x, y, vx, vy)``."""
        if math.hypot(*(self._target - state[:2])) < 0.2 or self._rng.random() < 0.02:
            self._choose_target()
        way = self._waypoint(state[:2]) - state[:2]
        distance = max(math.hypot(way[0], way[1]), 1e-9)
        wanted = way / distance * min(self._speed, 4.0 * distance)
        action = self._PERIOD_GAIN * (wanted - state[2:])
        action = action + self._noise * self._rng.standard_normal(2)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _choose_target(self) -> None:
        self._speed = float(self._rng.uniform(0.5, 5.0))
        y = self._rng.uniform(-1.3, 1.3)
        x = self._rng.uniform(0.7 if abs(y) < 0.7 else -1.3, 1.3)
        self._target = np.array([x, y])

    def _waypoint(self, position: np.ndarray) -> np.ndarray:
        """The target, or the corner that the way to it passes next."""
        here, there = _arm(position), _arm(self._target)
        if here == there:
            return self._target
        if position[0] <= 0.7:  # along this arm to its corner
            return np.array([1.0, float(here)])
        return self._target if there == 0 else np.array([1.0, float(there)])


def _arm(position: np.ndarray) -> int:
    """1 in the upper arm of the U, -1 in the lower, 0 in the column that joins them."""
    if position[0] > 0.7 and abs(position[1]) < 0.8:
        return 0
    return 1 if position[1] > 0 else -1
