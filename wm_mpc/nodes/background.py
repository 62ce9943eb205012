"""Work of other threads, awaited by coroutines in the executor's thread without blocking it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.node import Node
from rclpy.task import Future

from wm_mpc.errors import UserError

Result = TypeVar("Result")


class Bell:
    """``await bell.next()`` returns when another thread rings.

    A service that awaits needs a callback group of its own: until it answers, nothing else of its
    group is heard.

    Args:
        node: node whose executor runs the coroutines.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._waiting: list[Future] = []

    def next(self) -> Future:
        """A future that the next ``ring`` completes."""
        future = Future(executor=self._node.executor)
        with self._lock:
            self._waiting.append(future)
        return future

    def ring(self) -> None:
        """Wake everyone who waits; any thread."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(None)
        executor = self._node.executor
        if waiting and executor is not None:
            # It looks at coroutines only when something wakes it.
            executor.wake()


class Background:
    """One piece of slow work at a time, in a thread of its own.

    Args:
        bell: rung when the work is done, and now and then besides.
    """

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._busy = False

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do ``work`` and return what it returns, or raise what it raises.

        Raises:
            UserError: other work is under way.
        """
        if self._busy:
            raise UserError("busy: another request of this kind is being served")
        self._busy = True
        outcome: dict[str, Any] = {}

        def serve() -> None:
            try:
                outcome["result"] = work()
            except Exception as error:  # handed to whoever awaits
                outcome["error"] = error
            self._bell.ring()

        threading.Thread(target=serve, name="background", daemon=True).start()
        try:
            while not outcome:
                await self._bell.next()
        finally:
            self._busy = False
        if "error" in outcome:
            raise outcome["error"]
        return outcome["result"]


__all__ = ["Background", "Bell"]
