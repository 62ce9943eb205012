"""PointMaze: constants and behaviour policies; ``sim_bridge.tasks.point_maze`` simulates it."""

from __future__ import annotations

import numpy as np

from sim_bridge.tasks.base import TaskSpec
from sim_bridge.tasks.simulation import Simulation, mixed
from sim_bridge.tasks.walks import PiecewiseUniform, RandomWalk
from sim_bridge.tasks.waypoint_policies import MazeWaypoint

SPEC = TaskSpec(
    name="point_maze",
    env_id="wm_mpc/PointMaze-v0",
    control_period=0.05,
    frameskip=5,
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
    proprio_names=("ball_x", "ball_y"),
    proprio_dim=4,
    state_dim=4,
    goal_offset=25,
    episode_steps=100,
    error_unit="m",
)


def _walk(spec: TaskSpec, rng: np.random.Generator) -> RandomWalk:
    return RandomWalk(spec, rng, std=0.5, persistence=0.9)


SIMULATION = Simulation(
    spec=SPEC,
    environment="sim_bridge.tasks.point_maze:PointMazeEnv",
    policies={
        "mixed": mixed(MazeWaypoint, _walk, PiecewiseUniform),
        "waypoint": MazeWaypoint,
        "random": _walk,
        "box": PiecewiseUniform,
    },
)
