"""Start the nodes of a bringup where no ``ros2`` command exists.

The same nodes, parameters and remappings as ``ros2 launch wm_mpc NAME.launch.py``. Output is
labelled by node; Ctrl-C ends every node; the exit code is not 0 when a required node ends by
itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

import tyro

from wm_mpc import ros_env
from wm_mpc.bringup import Bringup, ResolvedNode, find, parse_arguments, resolve
from wm_mpc.errors import UserError
from wm_mpc.locations import executable_path
from wm_mpc.processes import Printer, Process, Supervisor


@dataclass(frozen=True)
class Config:
    """Start the nodes of a bringup: pusht_sim, point_maze_sim, wall_sim or robot."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """pusht_sim, point_maze_sim, wall_sim or robot."""

    arguments: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="KEY:=VALUE ...")
    ] = ()
    """Launch arguments; --show-args lists them."""

    show_args: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List the launch arguments and end."""

    grace_s: float = 5.0
    """[s] a node is given to end after each signal before a stronger one follows."""

    def __post_init__(self) -> None:
        """Check values that tyro cannot."""
        find(self.name)
        if not 0 < self.grace_s <= 60:
            raise ValueError(f"grace_s: {self.grace_s}; a value in (0, 60] expected")


def show_arguments(bringup: Bringup) -> str:
    """Text that ``--show-args`` prints."""
    lines = [f"{bringup.name}: {bringup.description}", "Arguments (key:=value):"]
    for argument in bringup.arguments:
        choices = [choice for choice in argument.choices if choice]
        allowed = f" One of {', '.join(choices)}." if choices else ""
        lines.append(f"  {argument.name}:={argument.default or repr('')}")
        lines.append(f"      {argument.description}{allowed}")
    return "\n".join(lines)


def command_line(node: ResolvedNode) -> tuple[str, ...]:
    """Command that starts a node: the executable's interpreter is this one."""
    words = [sys.executable, str(executable_path(node.executable)), "--ros-args"]
    words += ["-r", f"__node:={node.name}"]
    if node.namespace:
        words += ["-r", f"__ns:=/{node.namespace.strip('/')}"]
    for source, target in node.remappings:
        words += ["-r", f"{source}:={target}"]
    words += ["--params-file", str(node.params_file)]
    for name, value in node.overrides.items():
        # JSON is YAML with unambiguous types: the text "12" stays text
        words += ["-p", f"{name}:={json.dumps(value)}"]
    return (*words, "--log-level", node.log_level)


def processes(
    name: str,
    arguments: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Process]:
    """Processes of a bringup, ready for a :class:`~wm_mpc.processes.Supervisor`.

    Args:
        name: bringup, e.g. ``pusht_sim``.
        arguments: launch argument -> text.
        overrides: node -> parameter -> value, for parameters that no launch argument sets.

    Raises:
        UserError: unknown bringup, bad argument, or a node that is not installed.
    """
    env = dict(ros_env.prepare(dict(os.environ)))
    more = overrides or {}
    nodes = [
        replace(node, overrides={**node.overrides, **more.get(node.name, {})})
        for node in resolve(find(name), arguments or {})
    ]
    return [Process(node.name, command_line(node), node.required, env) for node in nodes]


@contextmanager
def signals_stop(supervisor: Supervisor) -> Iterator[list[signal.Signals]]:
    """Make SIGINT and SIGTERM end ``supervisor.wait``; yields the list of those received."""
    received: list[signal.Signals] = []

    def note(number: int, _frame: object) -> None:
        received.append(signal.Signals(number))
        supervisor.request_stop()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(config: Config) -> int:
    """Start, wait, end.

    Returns:
        0 after Ctrl-C or SIGTERM when every node ended in order, 1 when one had to be killed,
        otherwise the status of the required node that ended by itself.
    """
    bringup = find(config.name)
    if config.show_args:
        print(show_arguments(bringup))
        return 0
    given = parse_arguments(bringup, list(config.arguments))
    children = processes(config.name, given)
    if ros_env.rclpy_source() is None:
        raise UserError("rclpy: not found; source a ROS 2 setup file or pip install 'wm-mpc[ros]'")
    return supervise(children, config.grace_s)


def supervise(children: list[Process], grace_s: float = 5.0) -> int:
    """Run processes until one that is required ends or a signal arrives; see :func:`run`."""
    printer = Printer()
    supervisor = Supervisor(children, printer, grace_s)
    with signals_stop(supervisor) as received:
        with supervisor:
            for child in children:
                printer("launch", f"{child.name}: process {supervisor.pid(child.name)}")
            status = supervisor.wait()
            if not received and status:
                printer("launch", "a required node ended: ending the others")
            killed = supervisor.stop(received[0] if received else signal.SIGINT)
    return status or (1 if killed else 0)


__all__ = ["Config", "processes", "run", "show_arguments", "supervise"]
