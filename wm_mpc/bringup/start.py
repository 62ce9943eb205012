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
from dataclasses import replace
from typing import Any

from wm_mpc.bringup import ros_env
from wm_mpc.bringup.description import ResolvedNode, find, resolve
from wm_mpc.bringup.supervisor import Printer, Process, Supervisor
from wm_mpc.core.locations import executable_path


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
    if node.enclave:
        words += ["--enclave", node.enclave]
    return (*words, "--log-level", node.log_level)


def processes(
    name: str,
    arguments: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Process]:
    """Processes of a bringup, ready for a :class:`~wm_mpc.bringup.supervisor.Supervisor`.

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


def supervise(children: list[Process], grace_s: float = 5.0, finishes: str = "") -> int:
    """Run processes until one that is required ends or a signal arrives; see :func:`run`.

    Args:
        children: what to run.
        grace_s: [s] a process is given to end after each signal.
        finishes: name of a required process that is meant to end by itself, with code 0.
    """
    printer = Printer()
    supervisor = Supervisor(children, printer, grace_s)
    with signals_stop(supervisor) as received:
        with supervisor:
            for child in children:
                printer("launch", f"{child.name}: process {supervisor.pid(child.name)}")
            status = supervisor.wait()
            if finishes and supervisor.poll()[finishes] == 0:
                status = 0
            if not received and status:
                printer("launch", "a required node ended: ending the others")
            killed = supervisor.stop(received[0] if received else signal.SIGINT)
    return status or (1 if killed else 0)


__all__ = ["processes", "supervise"]
