"""Gymnasium environments of the tasks, by name."""

from __future__ import annotations

from typing import Any

TASK_IDS = {
    "pusht": "sim_bridge:wm_mpc/PushT-v0",
    "point_maze": "sim_bridge:wm_mpc/PointMaze-v0",
    "wall": "sim_bridge:wm_mpc/Wall-v0",
}


def make_env(task: str, image_size: int | None = None) -> Any:
    """Build a task's environment, named or by gymnasium id; the step budget is the caller's."""
    import gymnasium

    size = {} if image_size is None else {"image_size": image_size}
    name = TASK_IDS.get(task, task)
    return gymnasium.make(name, disable_env_checker=True, max_episode_steps=10**9, **size)
