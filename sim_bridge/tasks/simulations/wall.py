"""Wall: constants and behaviour policies; ``sim_bridge.tasks.wall`` simulates it."""

from __future__ import annotations

from sim_bridge.tasks.base import TaskSpec
from sim_bridge.tasks.simulation import Simulation, mixed
from sim_bridge.tasks.walks import HeadingWalk, PiecewiseUniform
from sim_bridge.tasks.waypoint_policies import WallWaypoint

SPEC = TaskSpec(
    name="wall",
    env_id="wm_mpc/Wall-v0",
    control_period=0.1,
    frameskip=5,
    action_low=(-1.8, -1.8),
    action_high=(1.8, 1.8),
    proprio_names=("x", "y"),
    proprio_dim=2,
    state_dim=2,
    goal_offset=25,
    episode_steps=100,
    error_unit="px",
)

SIMULATION = Simulation(
    spec=SPEC,
    environment="sim_bridge.tasks.wall:WallEnv",
    policies={
        "mixed": mixed(WallWaypoint, HeadingWalk, PiecewiseUniform),
        "waypoint": WallWaypoint,
        "random": HeadingWalk,
        "box": PiecewiseUniform,
    },
)
