"""Constants of the three tasks, importable without any simulator."""

from __future__ import annotations

from sim_bridge.tasks.base import TaskSpec

PUSHT = TaskSpec(
    name="pusht",
    env_id="wm_mpc/PushT-v0",
    control_period=0.1,
    frameskip=5,
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
    proprio_names=("agent_x", "agent_y"),
    proprio_dim=4,
    state_dim=7,
    goal_offset=25,
    episode_steps=50,
    error_unit="px",
)

WALL = TaskSpec(
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

POINT_MAZE = TaskSpec(
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

SPECS: dict[str, TaskSpec] = {spec.name: spec for spec in (PUSHT, WALL, POINT_MAZE)}
