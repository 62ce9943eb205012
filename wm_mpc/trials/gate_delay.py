"""How long a command is on its way: over DDS, and through the safety gate.

``command_gate`` runs as a process of its own, started as every bringup does; this process asks it
for commands as a controller does, and hears them as a robot does. A request's way is told in two
parts that add up to it, by the stamp that the middleware gives the command on its departure:
*gate*, from asking to that stamp (to the gate's process, and what it does there), and *wire*, from
that stamp to this process (one hop of DDS between two processes). All clocks are this machine's.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Float64MultiArray

from wm_mpc.bringup.start import processes
from wm_mpc.bringup.supervisor import Supervisor, describe
from wm_mpc.core.errors import UserError
from wm_mpc.core.stats import summary_ms
from wm_mpc.msg import GateStatus
from wm_mpc.nodes.common import qos

GATE = "command_gate"
START_S = 60.0
"""[s] the gate may take to start."""
WARM_S = 3.0
"""[s] of requests that nobody counts."""
LATE_S = 1.0
"""[s] that the last command is waited for."""


class Asker:
    """Asks a running gate for commands; between construction and ``close`` it listens in a thread.

    Every request asks for another value, by which its command is known again.
    """

    def __init__(self) -> None:
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("asker", context=self._context)
        # first number of a request -> nanoseconds of the wall clock
        self._sent: dict[float, int] = {}
        self._echoed: dict[float, int] = {}
        self._left: dict[float, int] = {}
        self._came: dict[float, int] = {}
        self._inside_ms: dict[float, float] = {}
        listen = self._node.create_subscription
        listen(Float64MultiArray, "command_request", self._on_request, qos.COMMAND)
        listen(Float64MultiArray, "command", self._on_command, qos.COMMAND)
        listen(GateStatus, "gate_status", self._on_status, qos.EVENT)
        self._out = self._node.create_publisher(Float64MultiArray, "command_request", qos.COMMAND)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="asker", daemon=True)
        self._thread.start()

    def connected(self) -> bool:
        """Whether the gate hears this process, and is heard."""
        # the echo is one subscription, the gate's the other
        heard = self._out.get_subscription_count() >= 2
        return heard and self._node.count_publishers("command") > 0

    def ask(self, seconds: float, rate_hz: float) -> dict[str, Any]:
        """Send requests for a while, one every period.

        Args:
            seconds: after ``WARM_S``, which nobody counts.
            rate_hz: requests per second.

        Returns:
            ``requests``, how many ``passed``, and p50, p95, p99, max and n [ms] of ``through_ms``
            (request to command), its parts ``gate_ms`` and ``wire_ms``, ``inside_ms`` (of the
            gate's callback, as ``gate_status`` tells it), ``hop_ms`` (the request, from this
            process to itself) and ``extra_ms`` (``through_ms`` less ``hop_ms``).
        """
        begun = due = time.monotonic()
        counted, first = begun + WARM_S, 0
        while (now := time.monotonic()) < counted + seconds:
            value = 1e-7 * (len(self._sent) + 1)
            first = first or (len(self._sent) if now >= counted else 0)
            self._sent[value] = time.time_ns()
            self._out.publish(Float64MultiArray(data=[value, 0.1]))
            due += 1 / rate_hz
            time.sleep(max(0.0, due - time.monotonic()))
        asked = list(self._sent)[first:]
        self._await(asked[-1])
        passed = [value for value in asked if value in self._came and value in self._echoed]
        return {"requests": len(asked), "passed": len(passed), **self._times(passed)}

    def _await(self, last: float) -> None:
        end = time.monotonic() + LATE_S
        while last not in self._came and time.monotonic() < end:
            time.sleep(0.01)

    def _times(self, passed: list[float]) -> dict[str, Any]:
        def between(begun: dict[float, int], ended: dict[float, int]) -> list[float]:
            return [(ended[v] - begun[v]) / 1e6 for v in passed if v in begun and v in ended]

        through, hop = between(self._sent, self._came), between(self._sent, self._echoed)
        times = {
            "through_ms": through,
            "gate_ms": between(self._sent, self._left),
            "wire_ms": between(self._left, self._came),
            "inside_ms": [self._inside_ms[v] for v in passed if v in self._inside_ms],
            "hop_ms": hop,
            "extra_ms": [a - b for a, b in zip(through, hop, strict=True)],
        }
        return {name: summary_ms(values) for name, values in times.items()}

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        self._executor.shutdown(2.0)
        self._thread.join(2.0)
        self._node.destroy_node()
        self._context.try_shutdown()

    # ---- in the executor's thread --------------------------------------------------------------

    def _spin(self) -> None:
        while not self._closing.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.2)
            except ExternalShutdownException:
                return

    def _on_request(self, message: Float64MultiArray) -> None:
        self._echoed.setdefault(message.data[0], time.time_ns())

    def _on_command(self, message: Float64MultiArray, info: dict) -> None:
        now, value = time.time_ns(), message.data[0]
        self._came.setdefault(value, now)
        if info["source_timestamp"]:  # not every middleware tells
            self._left.setdefault(value, info["source_timestamp"])

    def _on_status(self, message: GateStatus) -> None:
        if message.state == GateStatus.PASSING and message.command:
            self._inside_ms.setdefault(message.command[0], message.latency_ms)


@contextmanager
def running_gate() -> Iterator[tuple[int, Asker]]:
    """A gate in a process of its own and who asks it, in the ROS domain of the environment.

    Yields:
        The gate's process id, and the asker.

    Raises:
        UserError: the gate ended, or did not answer in time.
    """
    said: deque[str] = deque(maxlen=1)
    with tempfile.TemporaryDirectory(prefix="wm_mpc_gate_") as folder:
        overrides = {GATE: {"e_stop_file": str(Path(folder) / "e_stop")}}
        gate = [p for p in processes("wall_sim", {}, overrides) if p.name == GATE]
        asker = Asker()
        try:
            with Supervisor(gate, lambda _name, line: said.append(line)) as nodes:

                def alive() -> None:
                    code = nodes.poll()[GATE]
                    if code is not None:
                        raise UserError(f"{GATE}: ended {describe(code)}: {' '.join(said)}")

                _wait(asker.connected, alive)
                yield nodes.pid(GATE), asker
                alive()
        finally:
            asker.close()


def _wait(condition: Callable[[], bool], alive: Callable[[], None]) -> None:
    end = time.monotonic() + START_S
    while not condition():
        alive()
        if time.monotonic() > end:
            raise UserError(f"{GATE}: not heard within {START_S:g} s")
        time.sleep(0.05)


def measure_gate_delay(seconds: float, rate_hz: float) -> dict[str, Any]:
    """What ``Asker.ask`` returns of a gate that runs for this only, and the machine's load."""
    with running_gate() as (_, asker):
        found = asker.ask(seconds, rate_hz)
    if not found["passed"]:
        raise UserError(f"{GATE}: none of {found['requests']} requests passed")
    return {"rate_hz": rate_hz, "seconds": seconds, **found, "load_average": os.getloadavg()[0]}


__all__ = ["Asker", "measure_gate_delay", "running_gate"]
