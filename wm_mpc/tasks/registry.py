"""Tasks by name: those in ``builtin``, those that installed packages declare, and ``module:TASK``.

A package declares a task as an entry point::

    [project.entry-points."wm_mpc.tasks"]
    my_task = "my_package.my_task:TASK"
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points

from wm_mpc.core.errors import UserError
from wm_mpc.tasks import builtin
from wm_mpc.tasks.task import Task, load

GROUP = "wm_mpc.tasks"

# what this process has already loaded, by name and by module:ATTRIBUTE
_LOADED: dict[str, Task] = {}


def task_names() -> tuple[str, ...]:
    """Names of every task that needs no ``module:``; none is imported."""
    return tuple(dict.fromkeys([*_builtin_names(), *_declared()]))


def find_task(name: str) -> Task:
    """Look up a task.

    Args:
        name: a name of ``task_names``, or ``module:ATTRIBUTE`` of a ``Task``.

    Raises:
        UserError: nothing of that name, or what is there is no ``Task`` of that name.
    """
    if name not in _LOADED:
        task = _load(name)
        if not isinstance(task, Task):
            raise UserError(f"task: {name!r} is a {type(task).__name__}; a Task expected")
        if ":" not in name and task.name != name:
            raise UserError(f"task: {name!r} calls itself {task.name!r}; one name expected")
        if ":" in name and task.name in _builtin_names():
            raise UserError(f"task: {name!r} calls itself {task.name!r}, as another task does")
        _LOADED[name] = _LOADED[task.name] = task
    return _LOADED[name]


def known_task(name: str) -> Task | None:
    """The task of that name, or None: models and stores may be of a robot or of other machines."""
    known = name in _LOADED or name in task_names()
    return find_task(name) if known else None


def _load(name: str) -> Task:
    if ":" in name:
        return load(name)
    if name in _builtin_names():
        return importlib.import_module(f"{builtin.__name__}.{name}").TASK
    declared = _declared()
    if name in declared:
        return load(declared[name].value)
    raise UserError(
        f"task: {name!r} unknown; one of {', '.join(task_names())}, or module:TASK expected"
    )


def _builtin_names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(builtin.__path__)]


def _declared() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
