"""PointMaze: a ball under force rolls round the corners of a U."""

from __future__ import annotations

import math

from wm_mpc.tasks.presets import TaskPreset
from wm_mpc.tasks.quantities import Quantity
from wm_mpc.tasks.task import Task

INF = math.inf

TASK = Task(
    name="point_maze",
    title="PointMaze",
    simulation="sim_bridge.tasks.simulations.point_maze:SIMULATION",
    preset=TaskPreset(
        4, (-1.0, -1.0), (1.0, 1.0), 5, 0.05, (1.0, 1.0, 0.0, 0.0), 1, False, None, 256, depth=3
    ),
    quantities=(Quantity("position", "m", (0, 1), ((0, INF), (0, 0.25), (0.25, 1), (1, INF))),),
)
