"""PointMaze medium: the ball of PointMaze in gymnasium-robotics' PointMaze_Medium, 20 Hz.

Motion, bounds and success are those of :mod:`sim_bridge.tasks.point_maze`. Start and goal are
drawn as gymnasium-robotics draws them: free cells, 0.25 m of noise around their middles, the ball
at rest; never solved at the start. Ways are up to 13 m long and lead round dead ends: most goals
are far beyond the horizon of a short planner.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sim_bridge.tasks.maze_model import MEDIUM, Maze
from sim_bridge.tasks.point_maze import PointMazeEnv
from sim_bridge.tasks.simulations.point_maze_medium import SPEC

_NOISE = 0.25


class MediumMazeEnv(PointMazeEnv):
    """PointMaze medium as a task; see the module. State and proprioception as in PointMaze."""

    spec_task = SPEC
    maze: ClassVar[Maze] = MEDIUM

    def draw_state(self, rng: np.random.Generator) -> np.ndarray:
        """gymnasium-robotics' distribution: a free cell, noise around its middle, at rest."""
        cells = self.maze.free_cells()
        middle = self.maze.middle(*cells[int(rng.integers(len(cells)))])
        return np.array([*(middle + rng.uniform(-_NOISE, _NOISE, 2)), 0.0, 0.0])
