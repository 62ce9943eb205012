"""The demo's running nodes, and who watches them: waits, and notices when one dies."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from wm_mpc.bringup.supervisor import Supervisor, describe
from wm_mpc.control.tick import State

if TYPE_CHECKING:
    from wm_mpc.trials.observer import Observer
    from wm_mpc.trials.window import LiveView

START_S = 300.0
"""[s] the nodes may take to load, compile and calibrate."""
WARM_TICKS = 5
"""Planning ticks before the first episode, which nobody counts."""
_POLL_S = 0.02


class DemoError(RuntimeError):
    """The demo cannot go on; the sentence says why."""


class NodeLog:
    """Sink of the nodes' output: a file, and the last lines for a message.

    Args:
        stream: takes every line.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._last: dict[str, deque[str]] = {}

    def __call__(self, name: str, line: str) -> None:
        """Take one line; from several threads."""
        with self._lock:
            self._stream.write(f"[{name}] {line}\n")
            self._stream.flush()
            self._last.setdefault(name, deque(maxlen=5)).append(line)
        if name == "view" and line.startswith("view: http"):
            print(f"live page: {line.removeprefix('view: ')}", flush=True)

    def last(self, name: str) -> str:
        """Last lines of a node, for people."""
        with self._lock:
            return "\n".join(f"  [{name}] {line}" for line in self._last.get(name, ()))


class Stage:
    """See the module.

    Args:
        supervisor: of the nodes.
        observer: of the topics.
        log: the nodes' output.
        interrupted: signals that this process received.
        view: window, or None.
        end: instant at which the time is up (``time.monotonic``).
    """

    def __init__(
        self,
        supervisor: Supervisor,
        observer: Observer,
        log: NodeLog,
        interrupted: list,
        view: LiveView | None,
        end: float,
    ) -> None:
        self.supervisor, self.observer, self.log = supervisor, observer, log
        self.interrupted, self.view, self.end = interrupted, view, end

    def wait(self, condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
        """Wait until ``condition`` is true; returns its value.

        Raises:
            DemoError: a node died or gave up, or time is up.
            KeyboardInterrupt: a signal asked this process to end.
        """
        end = min(self.end, time.monotonic() + timeout_s)
        while True:
            value = condition()
            if value:
                return value
            self._check(end, timeout_s, what)
            if self.view is not None:
                self.view.update(self.observer)
            time.sleep(_POLL_S)

    def _check(self, end: float, timeout_s: float, what: str) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        for name, code in self.supervisor.poll().items():
            if code is not None:
                time.sleep(0.2)  # its last words
                raise DemoError(f"{name} ended {describe(code)}\n{self.log.last(name)}")
        status = self.observer.status
        if status is not None and status.state == State.FAULT:
            raise DemoError(f"mpc_node: FAULT: {status.reason}")
        if time.monotonic() >= end:
            reason = f"; mpc_node says: {status.reason}" if status and status.reason else ""
            if end == self.end:
                raise DemoError(f"timeout: {what} when the time was up{reason}")
            raise DemoError(f"{what} not within {timeout_s:.0f} s{reason}")

    def warm_up(self) -> None:
        """Wait until both nodes work."""
        ready = self.observer.ready_to_begin
        self.wait(ready, START_S, "sim_bridge: service reset")
        self.wait(self._planning, START_S, "mpc_node: first plans")

    def _planning(self) -> bool:
        status = self.observer.status
        return status is not None and status.state == State.RUNNING and status.ticks >= WARM_TICKS

    def episode(self, seed: int, steps: int, period: float, tell: Callable[[Any], None]) -> None:
        """Run one episode; the observer has it afterwards.

        Raises:
            DemoError: see ``wait``; also when the controller never planned.
        """
        answer = self.observer.begin(seed)
        self.wait(answer.done, 15.0, "sim_bridge: answer to reset")
        if not answer.result().success:
            raise DemoError(f"sim_bridge: reset: {answer.result().message}")

        def over() -> bool:
            moment = self.observer.newest()
            if moment is None:
                return False
            tell(moment)
            return moment.success or moment.step >= steps

        self.wait(over, 3 * steps * period + 10.0, "sim_bridge: end of the episode")
        recording = self.observer.recording()
        if not recording.thinking():
            reason = self.observer.status.reason or "no reason given"
            raise DemoError(f"mpc_node: no plan in a whole episode: {reason}")


__all__ = ["START_S", "DemoError", "NodeLog", "Stage"]
