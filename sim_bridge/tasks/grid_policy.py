"""Behaviour policy for mazes of square cells: to random places, from cell to cell, with noise."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from sim_bridge.tasks.maze_model import Maze

Cell = tuple[int, int]

_REACH = 0.3  # how far from a cell's middle targets lie [m]
_GAIN = 0.6  # action per m/s of missing velocity
_SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))


class GridWaypoint:
    """Drives the ball to random places by the shortest way, at random speed, with noise."""

    def __init__(self, maze: Maze, rng: np.random.Generator) -> None:
        """Create the policy for one trajectory; ``rng`` is owned by the caller."""
        self._maze, self._rng = maze, rng
        self._noise = float(rng.choice([0.1, 0.3, 0.6]))
        self._choose_target()

    def act(self, state: np.ndarray) -> np.ndarray:
        """Action ``(2,)`` towards the next cell of the way from ``state`` ``(x, y, vx, vy)``."""
        if math.hypot(*(self._target - state[:2])) < 0.2 or self._rng.random() < 0.01:
            self._choose_target()
        way = self._waypoint(state[:2]) - state[:2]
        distance = max(math.hypot(way[0], way[1]), 1e-9)
        wanted = way / distance * min(self._speed, 4.0 * distance)
        action = _GAIN * (wanted - state[2:])
        action = action + self._noise * self._rng.standard_normal(2)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _choose_target(self) -> None:
        self._speed = float(self._rng.uniform(0.5, 5.0))
        cells = self._maze.free_cells()
        cell = cells[int(self._rng.integers(len(cells)))]
        self._target = np.array(self._maze.middle(*cell)) + self._rng.uniform(-_REACH, _REACH, 2)
        self._next = ways_to(self._maze, cell)

    def _waypoint(self, position: np.ndarray) -> np.ndarray:
        """The target, or the middle of the cell that the way to it passes next."""
        following = self._next.get(self._maze.cell_of(position[0], position[1]))
        return self._target if following is None else np.array(self._maze.middle(*following))


def ways_to(maze: Maze, target: Cell) -> dict[Cell, Cell]:
    """The next cell on the shortest way to ``target``, from every cell that reaches it."""
    following: dict[Cell, Cell] = {}
    seen, queue = {target}, deque([target])
    while queue:
        row, column = queue.popleft()
        for down, right in _SIDES:
            cell = (row + down, column + right)
            if maze.is_free(*cell) and cell not in seen:
                seen.add(cell)
                following[cell] = (row, column)
                queue.append(cell)
    return following
