"""The life of a node's process: start, spin, and an orderly end on SIGINT, SIGTERM and SIGHUP.

The main thread only waits for signals; one thread runs the executor. rclpy's own signal handlers
would tear the context down before a node could publish its last command, so they stay off.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Protocol

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from wm_mpc.core.errors import one_line
from wm_mpc.nodes.common.intake import wake_in

JOIN_S = 1.0
"""A callback that runs longer than this after the signal [s] is not waited for."""


class ServedNode(Protocol):
    """What a node must offer beside being a ``Node``.

    It may have an attribute ``failed``: once true, the process ends with code 1; and one
    ``finished``: once true, it ends with code 0. It may have a method ``come_to_rest``, for any
    thread: called when a callback hangs and ``stop`` cannot run.
    """

    def start(self) -> None:
        """Begin; runs in the executor's thread once it spins."""
        ...

    def stop(self) -> None:
        """Come to rest and free everything; runs after the executor stopped."""
        ...


def run_node(create: Callable[[], Node], args: list[str] | None = None) -> int:
    """Run one node until a signal comes.

    Args:
        create: builds the node; it is a ``ServedNode``.
        args: command line; default: the process's.

    Returns:
        Exit code: 0 after a signal, 1 when the node failed for good, 2 when it cannot be built
        from its parameters.
    """
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: done.set())
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # the command line or a parameter file does not parse
        return _refuse(error)
    try:
        node = create()
    except ValueError as error:
        rclpy.try_shutdown()
        return _refuse(error)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor, node, done), name="io", daemon=True)
    executor.create_task(node.start)
    thread.start()
    while not done.wait(0.2) and not _ended(node):
        pass
    done.set()
    executor.shutdown(JOIN_S)
    thread.join(JOIN_S)
    if thread.is_alive():
        # Still loading or compiling, or a callback hangs: waiting for it serves nobody.
        getattr(node, "come_to_rest", lambda: None)()
        _leave(int(getattr(node, "failed", False)))
    node.stop()
    node.destroy_node()
    rclpy.try_shutdown()
    return int(getattr(node, "failed", False))


def _ended(node: Node) -> bool:
    return getattr(node, "failed", False) or getattr(node, "finished", False)


def _refuse(error: Exception) -> int:
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
    return 2


def _spin(executor: SingleThreadedExecutor, node: Node, done: threading.Event) -> None:
    """Spin; a callback that raises is told, and the node lives on."""
    while not done.is_set():
        try:
            executor.spin_once(timeout_sec=wake_in(node))
        except ExternalShutdownException:
            done.set()
        except Exception as error:
            if done.is_set():
                return
            trace = traceback.format_exc()
            node.get_logger().error(f"callback failed: {one_line(error)}\n{trace}")


def _leave(code: int) -> None:
    """End now, without the interpreter waiting for threads in compiled code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


__all__ = ["ServedNode", "run_node"]
