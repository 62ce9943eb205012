"""Gymnasium environments of the tasks, by name."""

from __future__ import annotations

from typing import Any

from wm_mpc.tasks.registry import find_task


def check_environment(task: str) -> None:
    """Check that ``make_env`` knows a name; no simulator is imported.

    Raises:
        UserError: neither a task nor a gymnasium id.
    """
    if "/" not in task:
        find_task(task)


def make_env(task: str, image_size: int | None = None) -> Any:
    """Build a task's environment, named or by gymnasium id; the step budget is the caller's."""
    import gymnasium

    size = {} if image_size is None else {"image_size": image_size}
    name = task if "/" in task else find_task(task).simulator().register()
    return gymnasium.make(name, disable_env_checker=True, max_episode_steps=10**9, **size)
