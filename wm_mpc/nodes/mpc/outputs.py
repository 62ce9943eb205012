"""Everything ``mpc_node`` publishes: command, plan, status, diagnostics."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode

from wm_mpc.control.deadlines import MissLog
from wm_mpc.control.safety import Motion, SafeCommand
from wm_mpc.control.tick import State, TickResult
from wm_mpc.core.clock import monotonic
from wm_mpc.msg import Plan as PlanMessage
from wm_mpc.msg import PlannerStatus
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.common.background import Bell
from wm_mpc.nodes.common.inputs import inputs_status
from wm_mpc.nodes.common.messages import CommandFormat
from wm_mpc.nodes.mpc.search import SearchTeller
from wm_mpc.nodes.mpc.telemetry import (
    Complaints,
    Telemetry,
    blank_status,
    deadlines,
    diagnostics,
    plan_message,
)


class Outputs:
    """Publishers and the last thing said. Status and diagnostics are there in every state.

    Args:
        node: owner of the topics.
        bell: rung once per tick, and once per second without ticks.
        dry_run: told in every status.
    """

    def __init__(self, node: LifecycleNode, bell: Bell, dry_run: bool) -> None:
        self._node = node
        self._bell = bell
        self._dry_run = dry_run
        self._complain = Complaints(node.get_logger().error)
        self._motion = Motion.REST
        self._telemetry, self._misses = Telemetry(dry_run), MissLog()
        self._status = node.create_publisher(PlannerStatus, "status", qos.EVENT)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", qos.EVENT)
        self.last_result = TickResult(State.UNCONFIGURED, "")
        self.last_status = PlannerStatus()
        self.novelty_limit = 0.0

    def open(self, command_format: CommandFormat) -> None:
        """Create the publishers that need a model; they are mute until the node is active."""
        create = self._node.create_lifecycle_publisher
        self._format = command_format
        self._command = create(command_format.type, "command", qos.COMMAND)
        self._plan = create(PlanMessage, "plan", qos.EVENT)
        self._search = SearchTeller(self._plan.publish)

    def begin(self) -> None:
        """Count ticks from here."""
        self._telemetry, self._misses = Telemetry(self._dry_run), MissLog()

    def flush(self) -> None:
        """Wait a moment until the last command arrived."""
        self._command.wait_for_all_acked(Duration(seconds=0.2))

    def close(self) -> None:
        """Undo ``open``."""
        self._node.destroy_lifecycle_publisher(self._command)
        self._node.destroy_lifecycle_publisher(self._plan)

    def tick(self, result: TickResult, safe: SafeCommand, send: bool, started: float) -> None:
        """Publish one tick; in the control thread. See ``wm_mpc.nodes.mpc.loop.Publish``."""
        stamp = self._node.get_clock().now().to_msg()
        if send:
            self._command.publish(self._format.build(safe.values, stamp))
        tick_s = monotonic() - started
        plan = plan_message(result, stamp)
        if plan is not None:
            self._search.take(plan, result)
        status = self._telemetry.status(result, tick_s, stamp)
        status.novelty_limit = self.novelty_limit
        self._misses.add(status.ticks, result, tick_s)
        self._status.publish(status)
        self.last_result, self.last_status, self._motion = result, status, safe.motion
        if result.state in (State.SAFE_STOP, State.E_STOP):
            self._complain("state", f"{result.state.name}: {result.reason}")
        self._bell.ring()

    def afterwards(self, until: float) -> None:
        """Publish what can wait for the command; in the control thread.

        Args:
            until: instant at which it should be done [s], monotonic clock.
        """
        self._search.tell(until)

    def idle(self, state: State, reason: str) -> None:
        """Publish a status where no tick does."""
        stamp = self._node.get_clock().now().to_msg()
        self.last_result = TickResult(state, reason)
        self.last_status = blank_status(state, reason, self._dry_run, stamp)
        self._status.publish(self.last_status)
        self._bell.ring()

    def diagnose(self) -> None:
        """Summarise the last status on ``/diagnostics``, and tell the misses since last time."""
        name, motion = self._node.get_name(), self._motion.value
        array = diagnostics(name, self.last_status, motion)
        array.status.append(deadlines(name, self._misses.values()))
        array.status.append(inputs_status(self._node))
        self._diagnostics.publish(array)


__all__ = ["Outputs"]
