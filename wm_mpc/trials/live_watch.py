"""A node that counts episodes, model changes and deadline misses of a running bringup."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from wm_mpc.control.deadlines import Tally
from wm_mpc.control.tick import State
from wm_mpc.msg import PlannerStatus, TaskState
from wm_mpc.nodes.common import qos
from wm_mpc.nodes.mpc.telemetry import DEADLINES
from wm_mpc.srv import LoadModel


class LiveWatch:
    """Watches from a thread of its own, between construction and ``close``.

    Attributes:
        episodes: whether each complete episode since ``begin`` succeeded, in order.
        changes: ``(instant [s], from, to)`` of every change of the model, by hash.
        episodes_at_changes: how many episodes were complete at each of them.
        ticks: instant [s] of every tick since ``begin``, and whether it missed its deadline.
        stopped: those of them in which the controller did not run.
        tally: ticks and misses by what went on around them, as the controller tells.
        model_hash: of the model that runs.
    """

    def __init__(self) -> None:
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("live_watch", context=self._context)
        self.model_hash = ""
        self._state = State.UNCONFIGURED
        self._clear()
        self.node.create_subscription(TaskState, "task_state", self._on_state, qos.EVENT)
        self.node.create_subscription(PlannerStatus, "status", self._on_status, qos.EVENT)
        self.node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.EVENT
        )
        self._load = self.node.create_client(LoadModel, "load_model")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="watch", daemon=True)
        self._thread.start()

    def _clear(self) -> None:
        self.episodes: list[bool] = []
        self.changes: list[tuple[float, str, str]] = []
        self.episodes_at_changes: list[int] = []
        self.ticks: list[tuple[float, bool]] = []
        self.stopped = 0
        self.tally = Tally()
        # The episode that runs now was not seen from its start.
        self._episode: int | None = None
        self._skip, self._success = True, False

    def begin(self) -> None:
        """Count from here."""
        self._clear()

    def running(self) -> bool:
        """Whether the controller plans."""
        return self._state is State.RUNNING

    @property
    def changes_back(self) -> int:
        """Changes to a model that drove before."""
        seen, count = set(), 0
        for _, before, after in self.changes:
            seen.add(before)
            count += after in seen
        return count

    def misses(self, seconds: float) -> dict[str, int]:
        """Ticks and deadline misses, within ``seconds`` of a change of the model and elsewhere."""
        moments = [when for when, _, _ in self.changes]
        near = [miss for at, miss in self.ticks if any(abs(at - m) <= seconds for m in moments)]
        total = sum(miss for _, miss in self.ticks)
        return {
            "ticks_near_changes": len(near), "misses_near_changes": sum(near),
            "ticks_elsewhere": len(self.ticks) - len(near),
            "misses_elsewhere": total - sum(near),
        }  # fmt: skip

    def load(self, folder: Path) -> Future:
        """Ask the controller to load a model; the future of its answer."""
        return self._load.call_async(LoadModel.Request(path=str(folder)))

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        self._executor.shutdown(2.0)
        self._thread.join(2.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    # ---- in the executor's thread ------------------------------------------------------------

    def _spin(self) -> None:
        while not self._closing.is_set():
            try:
                self._executor.spin_once(timeout_sec=0.2)
            except ExternalShutdownException:
                return

    def _on_state(self, message: TaskState) -> None:
        if self._episode is not None and message.episode != self._episode:
            if not self._skip:
                self.episodes.append(self._success)
            self._skip, self._success = False, False
        self._episode = message.episode
        self._success = self._success or message.success

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for entry in message.status:
            if entry.name.endswith(DEADLINES):
                self.tally.hear({value.key: value.value for value in entry.values})

    def _on_status(self, message: PlannerStatus) -> None:
        now = time.monotonic()
        self._state = State(message.state)
        self.ticks.append((now, message.deadline_missed))
        self.stopped += self._state is not State.RUNNING
        if message.model_hash != self.model_hash:
            if self.model_hash:
                self.changes.append((now, self.model_hash, message.model_hash))
                self.episodes_at_changes.append(len(self.episodes))
            self.model_hash = message.model_hash


__all__ = ["LiveWatch"]
