"""Real node processes, and a probe in the test's process that talks to them over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

ROOT = Path(__file__).parents[2]
START_S = 120.0
"""Loading torch and transformers alone takes long on a busy machine."""


class NodeProcess:
    """A node in a process of its own.

    Args:
        module: run with ``python -m``.
        log: file for its output.
        remap: topic -> its new name.
        parameters: ROS parameters.
    """

    def __init__(
        self, module: str, log: Path, remap: dict[str, str] | None = None, **parameters: Any
    ) -> None:
        self.log = log
        words = [f"{name}:={_text(value)}" for name, value in parameters.items()]
        arguments = [part for word in words for part in ("-p", word)]
        for topic, name in (remap or {}).items():
            arguments += ["-r", f"{topic}:={name}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "--ros-args", *arguments],
                stdout=out, stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def output(self) -> str:
        return self.log.read_text()

    def kill(self) -> float:
        """End it without warning; returns when that was, node clock [s]."""
        self.process.kill()
        when = time.time()
        self.process.wait(10)
        return when

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; returns the exit code."""
        if self.alive:
            self.process.send_signal(number)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class Probe:
    """A node that hears topics, sends messages and calls services.

    Args:
        domain: ROS domain.
        args: of the context, as on a node's command line.
    """

    def __init__(self, domain: int, args: list[str] | None = None) -> None:
        self.context = Context()
        rclpy.init(args=args, context=self.context, domain_id=domain)
        self.node = Node("probe", context=self.context)
        self.heard: dict[str, list[tuple[float, Any]]] = defaultdict(list)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def listen(self, kind: type, topic: str, qos: Any = 10) -> None:
        """Keep everything that comes on ``topic``, with the time it came [s]."""
        self.node.create_subscription(
            kind, topic, lambda message: self.heard[topic].append((time.time(), message)), qos
        )

    def last(self, topic: str) -> Any:
        """Newest message, or None."""
        return self.heard[topic][-1][1] if self.heard[topic] else None

    def since(self, topic: str, when: float, until: float = float("inf")) -> list[Any]:
        """Messages that came within ``[when, until]``."""
        return [message for came, message in list(self.heard[topic]) if when <= came <= until]

    def wait(self, condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
        """Wait until ``condition`` is true; returns its value."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.02)
        raise AssertionError(f"{what}: not within {timeout_s} s")

    def call(self, kind: type, service: str, request: Any, timeout_s: float = 30.0) -> Any:
        """Call a service and wait for the answer."""
        client = self.node.create_client(kind, service)
        assert client.wait_for_service(timeout_s), f"{service}: not there"
        return self.result(client.call_async(request), timeout_s, service)

    def result(self, future: Any, timeout_s: float, what: str) -> Any:
        """Wait for a future."""
        self.wait(future.done, timeout_s, what)
        return future.result()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self.node.destroy_node()
        self._executor.shutdown()
        self.context.try_shutdown()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text(part) for part in value) + "]"
    return str(value)
