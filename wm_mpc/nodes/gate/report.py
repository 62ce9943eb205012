"""What the gate tells: ``gate_status``, and one line on ``/diagnostics``."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from wm_mpc.control.gate import CommandGate, GateState
from wm_mpc.msg import GateStatus
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.inputs import inputs_status

WINDOW = 1000
"""Requests over which latency is judged."""

_LEVELS = {
    GateState.E_STOP: DiagnosticStatus.ERROR,
    GateState.RAMPING: DiagnosticStatus.WARN,
    GateState.RESTING: DiagnosticStatus.WARN,
}


class Report:
    """Publishers of what the gate does.

    Args:
        node: owner of the topics.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._status = node.create_publisher(GateStatus, "gate_status", qos.EVENT)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", qos.EVENT)
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._p99 = math.nan

    def latency(self, nanoseconds: int) -> None:
        """Note what one request waited for."""
        self._latencies.append(nanoseconds * 1e-6)

    def status(self, gate: CommandGate, dry_run: bool) -> None:
        """Publish what was done last."""
        counts, command = gate.counts, gate.command
        message = GateStatus(
            state=int(gate.state),
            reason=gate.told(),
            limited=command is not None and command.limited,
            command=[] if command is None else command.values.tolist(),
            request_age_s=gate.request_age_s,
            latency_ms=self._latencies[-1] if self._latencies else math.nan,
            latency_p99_ms=self._p99,
            passed=counts.passed,
            limited_count=counts.limited,
            refused=counts.refused,
            stops=counts.stops,
            e_stop=gate.state is GateState.E_STOP,
            dry_run=dry_run,
        )
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._status.publish(message)

    def diagnose(self, gate: CommandGate) -> None:
        """Publish a summary; once per second is enough."""
        if self._latencies:
            self._p99 = float(np.percentile(np.array(self._latencies), 99))
        reason = gate.told()
        level = _LEVELS.get(gate.state, DiagnosticStatus.OK) if reason else DiagnosticStatus.OK
        if reason and level == DiagnosticStatus.OK:
            level = DiagnosticStatus.WARN
        values = {
            "state": gate.state.name,
            "request age [s]": f"{gate.request_age_s:.3f}",
            "latency p99 [ms]": f"{self._p99:.3f}",
            "stops": str(gate.counts.stops),
            "refused": str(gate.counts.refused),
        }
        status = DiagnosticStatus(
            level=level,
            name=f"{self._node.get_name()}: commands",
            message=f"{gate.state.name}: {reason}" if reason else gate.state.name,
            hardware_id="",
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status, inputs_status(self._node)])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(array)


__all__ = ["Report"]
