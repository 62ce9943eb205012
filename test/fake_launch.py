"""The part of ROS 2 ``launch`` and ``launch_ros`` that the launch files use.

``launch`` comes with ROS distributions only. Signatures follow launch 3.7 and launch_ros 0.28; a
keyword that those do not have is refused here as there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest


@dataclass
class LaunchContext:
    launch_configurations: dict[str, str] = field(default_factory=dict)
    is_shutdown: bool = False


@dataclass
class LaunchDescription:
    entities: list[Any]


class DeclareLaunchArgument:
    def __init__(
        self,
        name: str,
        *,
        default_value: str | None = None,
        description: str | None = None,
        choices: list[str] | None = None,
    ) -> None:
        if choices is not None and default_value not in choices:
            raise RuntimeError(f"{name}: default {default_value!r} is not among {choices}")
        self.name, self.default_value = name, default_value
        self.description, self.choices = description, choices


class OpaqueFunction:
    def __init__(
        self, *, function: Callable[..., Any], args: Iterable[Any] = (), kwargs: Any = None
    ) -> None:
        self.function, self.args, self.kwargs = function, tuple(args), kwargs or {}

    def execute(self, context: LaunchContext) -> list[Any] | None:
        return self.function(context, *self.args, **self.kwargs)


@dataclass
class Shutdown:
    reason: str


class LaunchConfiguration:
    def __init__(self, variable_name: str) -> None:
        self.variable_name = variable_name

    def perform(self, context: LaunchContext) -> str:
        return context.launch_configurations[self.variable_name]


class Node:
    def __init__(
        self,
        *,
        executable: str,
        package: str,
        name: str | None = None,
        namespace: str | None = None,
        parameters: list[Any] | None = None,
        remappings: list[tuple[str, str]] | None = None,
        ros_arguments: list[str] | None = None,
        output: str = "log",
        emulate_tty: bool = False,
        on_exit: Callable[..., Any] | None = None,
    ) -> None:
        for entry in parameters or []:
            assert isinstance(entry, (str, dict)) and entry, f"parameters: {entry!r}"
        self.package, self.executable, self.name = package, executable, name
        self.namespace, self.parameters = namespace, parameters or []
        self.remappings, self.ros_arguments = remappings or [], ros_arguments or []
        self.output, self.on_exit = output, on_exit


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fakes where ``import launch`` and ``import launch_ros`` find them."""
    contents = {
        "launch": {"LaunchContext": LaunchContext, "LaunchDescription": LaunchDescription},
        "launch.actions": {
            "DeclareLaunchArgument": DeclareLaunchArgument,
            "OpaqueFunction": OpaqueFunction,
            "Shutdown": Shutdown,
        },
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node},
    }
    for name, members in contents.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "wm_mpc.bringup.launch_adapter", raising=False)
