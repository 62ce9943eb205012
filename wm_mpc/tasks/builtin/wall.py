"""Wall: a dot goes through a door."""

from __future__ import annotations

import math

from wm_mpc.tasks.presets import TaskPreset
from wm_mpc.tasks.quantities import Quantity
from wm_mpc.tasks.task import Task

INF = math.inf

TASK = Task(
    name="wall",
    title="Wall",
    simulation="sim_bridge.tasks.simulations.wall:SIMULATION",
    preset=TaskPreset(
        2, (-1.8, -1.8), (1.8, 1.8), 5, 0.1, (1.0, 1.0), 1, False, None, 256, depth=3
    ),
    quantities=(Quantity("position", "px", (0, 1), ((0, INF), (0, 5), (5, 10), (10, INF))),),
)
