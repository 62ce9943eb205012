"""Push-T: push a T-shaped block to a pose."""

from __future__ import annotations

import math

from wm_mpc.tasks.presets import TaskPreset
from wm_mpc.tasks.quantities import Quantity
from wm_mpc.tasks.robot_disc import RobotDisc
from wm_mpc.tasks.task import Task

INF = math.inf

TASK = Task(
    name="pusht",
    title="Push-T",
    simulation="sim_bridge.tasks.simulations.pusht:SIMULATION",
    # The camera shows the 512 px arena; the agent is a disc of radius 15 px at proprio[0:2].
    preset=TaskPreset(
        4,
        (-1.0, -1.0),
        (1.0, 1.0),
        5,
        0.1,
        (1.0, 1.0, 0.0, 0.0),
        6,
        True,
        RobotDisc(0, 1, 1 / 512, 0.0, 1 / 512, 0.0, 15 / 512),
        384,
        (256.0, 256.0),
        clearance=90 / 512,
        border=6 / 512,
        depth=3,
        object_frame=True,
    ),
    quantities=(
        Quantity(
            "block position", "px", (2, 3), ((0, INF), (0, 10), (10, INF), (10, 50), (50, INF))
        ),
        Quantity(
            "block angle", "rad", (4,), ((0, INF), (0.35, INF)), True, match=(2, 3), within=15.0
        ),
        Quantity("agent position", "px", (0, 1), ((0, INF), (10, INF))),
    ),
)
