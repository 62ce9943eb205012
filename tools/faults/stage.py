"""Nodes in processes of their own, the robot, and everything that was heard of them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Bool, Float64MultiArray

from tools.faults.robot import PERIOD_S, TIMEOUT_S, Robot
from wm_mpc.bringup.start import processes
from wm_mpc.control.gate import GateState
from wm_mpc.control.tick import State
from wm_mpc.core.locations import IMPORT_ROOT
from wm_mpc.msg import GateStatus, PlannerStatus
from wm_mpc.nodes.common import qos

FAULTY = Path(__file__).with_name("faulty_node.py")
START_S = 120.0
MOVING = 1e-9


@dataclass
class Heard:
    """A message and when it came [s, monotonic clock]."""

    when: float
    message: Any


class Child:
    """A process, and its output in a file."""

    def __init__(self, command: Iterable[str], env: dict[str, str], log: Path) -> None:
        self.log, self.mark = log, 0
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                env=env,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    @property
    def output(self) -> str:
        """What it wrote."""
        return self.log.read_text(errors="replace")

    @property
    def news(self) -> str:
        """What it wrote since the row began."""
        return self.output[self.mark :]

    def send(self, number: int) -> None:
        """Send a signal, if there is anybody to get it."""
        if self.alive:
            self.process.send_signal(number)

    def wait(self, timeout_s: float = 15.0) -> int | None:
        """Exit code; None when it does not end."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it without warning."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGKILL)
        self.wait()


class Stage:
    """See the module.

    Args:
        folder: logs and state files.
        domain: ROS domain of its own.
        now: clock of the robot's stamps.
    """

    def __init__(
        self, folder: Path, domain: int, now: Callable[[], float] = time.time
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.domain = folder, domain
        self.children: dict[str, Child] = {}
        self.heard: dict[str, list[Heard]] = {n: [] for n in ("command", "gate", "mpc", "diag")}
        self.overrides: dict[str, dict[str, Any]] = {}
        self.arguments: dict[str, str] = {}
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        os.environ["ROS_LOG_DIR"] = str(folder / "ros")
        self.context = Context()
        self.context.init(domain_id=domain)
        self.node = Node("harness", context=self.context, start_parameter_services=False)
        self.robot = Robot(self.node, now)
        listen = self.node.create_subscription
        listen(Float64MultiArray, "command", self._on_command, qos.COMMAND)
        listen(GateStatus, "gate_status", lambda m: self._note("gate", m), qos.EVENT)
        listen(PlannerStatus, "status", lambda m: self._note("mpc", m), qos.EVENT)
        listen(DiagnosticArray, "/diagnostics", lambda m: self._note("diag", m), qos.EVENT)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._over.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.05)
            except Exception as error:  # a publisher was destroyed while it was waited for
                print(f"harness: {error}")

    def _note(self, name: str, message: Any) -> None:
        self.heard[name].append(Heard(time.monotonic(), message))

    def _on_command(self, message: Float64MultiArray) -> None:
        self._note("command", message)
        self.robot.hear(np.array(message.data))

    # ---- processes -----------------------------------------------------------------------------

    def start(
        self,
        name: str,
        label: str = "",
        faulty: bool = False,
        prefix: Iterable[str] = (),
        env: dict[str, str] | None = None,
        more: Iterable[str] = (),
    ) -> Child:
        """Start a node as ``wm-mpc launch wall_sim`` starts it.

        Args:
            name: of the node.
            label: key among ``children``; empty: the name.
            faulty: the planner that fails on demand.
            prefix: words before the command.
            env: variables to add; None as a value: to remove.
            more: words after the command.
        """
        own = {
            "command_gate": {"ramp_s": PERIOD_S, "e_stop_file": str(self.folder / "e_stop")},
            "mpc_node": {"ramp_s": PERIOD_S},
            "trainer_node": {"out": str(self.folder / "live")},
            "recorder_node": {"out": str(self.folder / f"bag{len(self.children)}")},
        }
        for node, values in self.overrides.items():
            own.setdefault(node, {}).update(values)
        if faulty:
            own["mpc_node"]["planner"] = "faulty"
        given = {"online_finetune": "true", "record": "true", "log_level": "warn"}
        given |= self.arguments
        (spec,) = [p for p in processes("wall_sim", given, own) if p.name == name]
        command = list(spec.command)
        if faulty:
            command[1] = str(FAULTY)
        environment = {
            **os.environ, **spec.env, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
            "WM_MPC_FAULT": str(self.fault), "PYTHONPATH": str(IMPORT_ROOT), **(env or {}),
        }  # fmt: skip
        label = label or name
        child = Child([*prefix, *command, *more], environment, self.folder / f"{label}.log")
        self.children[label] = child
        return child

    @property
    def fault(self) -> Path:
        """File that tells the faulty planner what to do."""
        return self.folder / "fault"

    def close(self) -> None:
        """End everything."""
        for child in self.children.values():
            child.kill()
        self.robot.close()
        self._over.set()
        self._thread.join(2.0)
        self._executor.shutdown(1.0)
        self.node.destroy_node()
        self.context.try_shutdown()

    # ---- what was heard ------------------------------------------------------------------------

    def wait(self, condition: Callable[[], Any], timeout_s: float) -> Any:
        """Value of the condition, as soon as it is true, or at the end."""
        end = time.monotonic() + timeout_s
        while not (value := condition()) and time.monotonic() < end:
            time.sleep(0.01)
        return value

    def last(self, name: str) -> Any:
        """Newest message, or None."""
        return self.heard[name][-1].message if self.heard[name] else None

    def commands(self, since: float, until: float = np.inf) -> list[tuple[float, np.ndarray]]:
        """What reached the robot."""
        return [
            (heard.when, np.array(heard.message.data))
            for heard in list(self.heard["command"])
            if since <= heard.when <= until
        ]

    def driving(self) -> bool:
        """Whether requests pass and the robot moves, for half a second now."""
        now = time.monotonic()
        commands = self.commands(now - 0.5)
        moving = sum(np.abs(values).max() > MOVING for _, values in commands)
        gate = self.last("gate")
        return moving >= 3 and gate is not None and gate.state == GateState.PASSING

    def drive(self, timeout_s: float = START_S) -> bool:
        """Wait until it drives."""
        return bool(self.wait(self.driving, timeout_s))

    def begin_row(self) -> None:
        """What was written until now belongs to earlier rows."""
        for child in self.children.values():
            child.mark = len(child.output)

    def sound(self) -> bool:
        """Whether every process lives and the robot drives: fit for the next row."""
        return all(child.alive for child in self.children.values()) and self.drive(5.0)

    def states(self, since: float) -> set[str]:
        """States of the controller that were told."""
        return {
            State(heard.message.state).name
            for heard in list(self.heard["mpc"])
            if heard.when >= since
        }

    def said(self, since: float) -> str:
        """First complaint on /diagnostics, or else in a status."""
        for heard in list(self.heard["diag"]):
            for status in heard.message.status if heard.when >= since else ():
                level = status.level[0] if isinstance(status.level, bytes) else status.level
                if level > 0 and "deadlines" not in status.name:
                    return f"{status.name.partition(':')[0]}: {status.message}"
        for name in ("gate", "mpc"):
            for heard in list(self.heard[name]):
                if heard.when >= since and heard.message.reason:
                    return f"{name}: {heard.message.reason}"
        return ""

    def publisher(self, kind: type, topic: str, profile: QoSProfile | int = 10) -> Any:
        """A publisher that somebody already hears."""
        # One that does not fit every subscription is meant.
        quiet = PublisherEventCallbacks(use_default_callbacks=False)
        out = self.node.create_publisher(kind, topic, profile, event_callbacks=quiet)
        self.wait(lambda: out.get_subscription_count() > 0, 10.0)
        time.sleep(0.3)
        return out

    def button(self, profile: QoSProfile | int = 10) -> Any:
        """An emergency stop."""
        return self.publisher(Bool, "e_stop", profile)


def periods_to_safe(stage: Stage, since: float, wait_s: float) -> float:
    """Control periods from ``since`` until the robot stands and keeps standing for a second.

    Rest that is said counts from when it came; silence from the robot's own timeout on.

    Returns:
        inf: it was still driven after ``wait_s``.
    """
    end = max(since + wait_s, time.monotonic() + 1.5)
    while time.monotonic() < end:
        moving = [w for w, values in stage.commands(-np.inf) if np.abs(values).max() > MOVING]
        last = moving[-1] if moving else -np.inf
        if time.monotonic() - max(last, since) >= 1.0:
            rest = [w for w, _ in stage.commands(last) if w > last]
            safe = min(rest[0] if rest else np.inf, last + TIMEOUT_S)
            return max(0.0, (safe - since) / PERIOD_S)
        time.sleep(0.05)
    return np.inf


def stale_after(stage: Stage, since: float, limit: float, until: float = np.inf) -> int:
    """Commands that moved the robot later than ``limit`` periods after ``since``."""
    late = stage.commands(since + limit * PERIOD_S, until)
    return sum(np.abs(values).max() > MOVING for _, values in late)


__all__ = ["Child", "Heard", "Stage", "periods_to_safe", "stale_after"]
