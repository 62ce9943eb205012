"""PointMaze medium: the same ball in a larger maze, whose goals lie beyond a plan's horizon."""

from __future__ import annotations

import dataclasses

from wm_mpc.tasks.builtin import point_maze

TASK = dataclasses.replace(
    point_maze.TASK,
    name="point_maze_medium",
    title="PointMaze medium",
    simulation="sim_bridge.tasks.simulations.point_maze_medium:SIMULATION",
)
