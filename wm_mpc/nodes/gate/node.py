"""``command_gate``: owns the command topic of a robot.

A process of its own between the controller and the robot, so that a controller that hangs,
crashes or is killed cannot keep the robot moving. One thread: messages, watchdogs and the ramp to
rest take turns, and none of them waits.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import sys
import time
import traceback
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Bool

from wm_mpc.control.gate import BEGIN_S, CommandGate, GateConfig, GateState
from wm_mpc.control.safety import CommandLimits, SafeCommand
from wm_mpc.core.clock import monotonic, stamp_seconds
from wm_mpc.core.errors import MessageError, UserError, one_line
from wm_mpc.core.scheduling import prefer
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.commands import CommandFormat, command_type
from wm_mpc.nodes.common.parameters import ParameterReader
from wm_mpc.nodes.gate.config import GateNodeConfig
from wm_mpc.nodes.gate.memory import StopMemory
from wm_mpc.nodes.gate.report import Report
from wm_mpc.nodes.gate.transit import Transit

ACKNOWLEDGED = Duration(nanoseconds=1_000_000)
SIM_POLL_S = 0.02
"""[s] of wall time between two looks at a simulated clock, which may run at any speed."""


class GateNode(Node):
    """See the module. Parameters are those of the configuration dataclasses read here."""

    def __init__(self) -> None:
        super().__init__("command_gate", automatically_declare_parameters_from_overrides=True)
        reader = ParameterReader(self)
        self.config = reader.read(GateNodeConfig())
        self.gate_config = reader.read(GateConfig())
        self.limits = reader.read(CommandLimits())
        reader.reject_unknown()
        self.simulated = self.get_parameter("use_sim_time").value
        path = self.config.e_stop_path(
            os.environ.get("ROS_DOMAIN_ID", "0"), self.get_fully_qualified_name()
        )
        self._memory = StopMemory(path, self.get_logger().error)
        self._format: CommandFormat | None = None
        dim = self._dim()
        if dim:
            self._open(dim)
        try:
            self.gate = CommandGate(
                self.limits,
                self.gate_config,
                dim,
                self.seconds if self.simulated else monotonic,
                held=self._memory.held,
            )
        except ValueError as error:
            raise UserError(f"parameter {error}") from None
        self._transit = Transit()
        self._told_pressed: bool | None = None
        self._status_at = self._look_at = -math.inf
        self._began = monotonic()
        self._rest_sent = self._rest_heard = self.limits.hold_at_rest
        kind = command_type(self.config.command_type)
        self._command = self.create_publisher(kind, "command", qos.COMMAND)
        self._stop_state = self.create_publisher(Bool, "e_stop_state", qos.LATCHED)
        self._report = Report(self)
        qos.hear_every(self, "e_stop", self._on_e_stop)
        self.create_subscription(kind, "command_request", self._on_request, qos.COMMAND)

    def _dim(self) -> int:
        """Action width, where the parameters tell it; 0: they do not."""
        limits = self.limits
        told = (limits.action_low, limits.action_high, limits.rate_limit, limits.rest)
        widths = [len(self.config.command_names), *(len(values) for values in told)]
        # one number may stand for all dimensions
        return self.config.action_dim or max([w for w in widths if w > 1], default=0)

    def _open(self, dim: int) -> None:
        self._format = CommandFormat(
            self.config.command_type, self.config.command_names, dim, self.gate_config.period_s
        )

    def seconds(self) -> float:
        """Node clock [s]."""
        return self.get_clock().now().nanoseconds * 1e-9

    def begin(self) -> None:
        """Say rest first, and what is remembered."""
        try:
            self.limits.require_for_hardware()
        except ValueError as error:
            self.get_logger().error(f"{error}; every request is refused")
        self._send(self.gate.begin())
        self._tell_pressed()

    # ---- inputs --------------------------------------------------------------------------------

    def _on_request(self, message: Any, info: dict) -> None:
        came, sender = info["received_timestamp"] or time.time_ns(), qos.sender_of(info)
        old = self._too_old(message, info, sender)
        if old:
            self.gate.refuse(old)
            self._tell()
            return
        if not self._robot_heard_rest():
            self.gate.refuse("gate: starting; the robot hears rest before anything else")
            return
        try:
            if self._format is None:
                self._open(self.config.action_dim or self._width(message))
            answer = self.gate.request(self._format.read(message), sender)
        except UserError as error:
            answer = self.gate.spoilt(str(error).replace("command", "command_request", 1))
        self._send(answer, came)

    def _robot_heard_rest(self) -> bool:
        """Whether the robot can be driven: rest is the first that it hears from a new gate.

        Commands do not wait for who connects later, and at first nobody is connected.
        """
        if not self._rest_heard:
            if not self._rest_sent and self._command.get_subscription_count():
                self._send(self.gate.begin())
                self._rest_sent = True
            acknowledged = self._rest_sent and self._command.wait_for_all_acked(ACKNOWLEDGED)
            self._rest_heard = acknowledged or monotonic() - self._began > BEGIN_S
        return self._rest_heard

    def _width(self, message: Any) -> int:
        if self.config.command_type == "float64_multi_array":
            return len(message.data)
        if not self.config.command_names:
            raise MessageError(f"command_names: none; needed for {self.config.command_type}")
        return len(self.config.command_names)

    def _too_old(self, message: Any, info: dict, sender: bytes) -> str:
        """Why a request is stale on arrival, or nothing."""
        patience = self.gate_config.patience_s
        age = self._transit.age(sender, info["source_timestamp"] * 1e-9, time.time())
        if age <= patience and hasattr(message, "header"):
            stamp = stamp_seconds(message.header.stamp)
            age = self.seconds() - stamp if stamp else 0.0
        if -patience <= age <= patience:
            return ""
        return f"command_request: {age:.3f} s old on arrival; at most {patience:g} s allowed"

    def _on_e_stop(self, engaged: bool, sender: bytes, sent: int) -> None:
        present = None
        if not engaged and self.gate.stop.reason:
            present = qos.publishers_of(self, "e_stop")
        self._send(self.gate.e_stop(engaged, sender, sent, present))
        self._tell_pressed()

    # ---- outputs -------------------------------------------------------------------------------

    def _send(self, answer: SafeCommand | None, came: int = 0) -> None:
        """Publish a command, then tell; ``came``: when its request did [ns, wall clock]."""
        if answer is None:
            return
        if answer.publish and self._format is not None:
            stamp = self.get_clock().now().to_msg()
            self._command.publish(self._format.build(answer.values, stamp))
            if came and self.gate.state is GateState.PASSING:
                self._report.latency(time.time_ns() - came)
        self._tell()

    def _tell(self) -> None:
        self._status_at = monotonic()
        self._report.status(self.gate, self.limits.dry_run)

    def _tell_pressed(self) -> None:
        """Tell late comers too whether the robot may not move, and remember it."""
        pressed = bool(self.gate.stop.reason)
        if pressed != self._told_pressed:
            self._told_pressed = pressed
            self._stop_state.publish(Bool(data=pressed))
            self._tell()
        self._memory.write(self.gate.stop.held)

    # ---- time ----------------------------------------------------------------------------------

    def wait_s(self) -> float:
        """Time until ``work`` is to be called, if nothing comes before [s]."""
        period = self.gate_config.period_s
        if self.simulated:
            return SIM_POLL_S
        now = monotonic()
        due = min(self.gate.due(), self._status_at + period)
        return min(max(due - now, 0.0), period)

    def work(self) -> None:
        """Do what is due."""
        self._send(self.gate.poll())
        now = monotonic()
        if now - self._status_at >= self.gate_config.period_s:
            self._tell()
        if now - self._look_at >= 1.0:
            self._look_at = now
            self._tell_pressed()
            others = self.count_publishers(self._command.topic_name) - 1
            if others:
                self.gate.note(f"command: {others} other publishers; the gate cannot answer for")
            self._report.diagnose(self.gate)

    def rest(self) -> None:
        """Bring the robot to rest and say so: the last thing the process does."""
        while True:
            answer = self.gate.halt()
            if answer is None:
                break
            self._send(answer)
            time.sleep(self.gate_config.period_s)
        self._command.wait_for_all_acked(Duration(seconds=0.2))


def main(args: list[str] | None = None) -> int:
    """Run the gate until SIGINT, SIGTERM or SIGHUP; then rest is said and the exit code is 0.

    Returns:
        2 when it cannot be built from its parameters.
    """
    done: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: done.append(1))
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = GateNode()
    except (ValueError, RuntimeError) as error:
        rclpy.try_shutdown()
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        return 2
    # The threads of the middleware too: a request waits for them first.
    prefer(node.config.nice, all_threads=True)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    node.begin()
    # What lives now lives long: the collector need not walk it while a command waits.
    gc.collect()
    gc.freeze()
    while not done:
        try:
            executor.spin_once(timeout_sec=node.wait_s())
            node.work()
        except ExternalShutdownException:
            break
        except Exception as error:  # the gate lives on, whatever came
            trace = traceback.format_exc()
            node.get_logger().error(f"callback failed: {one_line(error)}\n{trace}")
    node.rest()
    executor.shutdown(0.0)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
