"""PointMaze medium: constants and policies of ``sim_bridge.tasks.point_maze_medium``."""

from __future__ import annotations

import dataclasses

import numpy as np

from sim_bridge.tasks.base import TaskSpec
from sim_bridge.tasks.grid_policy import GridWaypoint
from sim_bridge.tasks.maze_model import MEDIUM
from sim_bridge.tasks.simulation import Simulation, mixed
from sim_bridge.tasks.simulations import point_maze
from sim_bridge.tasks.walks import PiecewiseUniform, RandomWalk

SPEC = dataclasses.replace(
    point_maze.SPEC,
    name="point_maze_medium",
    env_id="wm_mpc/PointMazeMedium-v0",
    episode_steps=200,
)


def _waypoint(spec: TaskSpec, rng: np.random.Generator) -> GridWaypoint:
    return GridWaypoint(MEDIUM, rng)


def _walk(spec: TaskSpec, rng: np.random.Generator) -> RandomWalk:
    return RandomWalk(spec, rng, std=0.5, persistence=0.9)


SIMULATION = Simulation(
    spec=SPEC,
    environment="sim_bridge.tasks.point_maze_medium:MediumMazeEnv",
    policies={
        "mixed": mixed(_waypoint, _walk, PiecewiseUniform),
        "waypoint": _waypoint,
        "random": _walk,
        "box": PiecewiseUniform,
    },
)
