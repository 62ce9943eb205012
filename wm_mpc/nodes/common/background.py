"""Work of other threads, awaited by coroutines in the executor's thread without blocking it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.node import Node
from rclpy.task import Future

Result = TypeVar("Result")


class Bell:
    """``await bell.next()`` returns when another thread rings, or a little later.

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


async def in_background(bell: Bell, work: Callable[[], Result]) -> Result:
    """Do slow work in a thread of its own; the executor goes on meanwhile.

    Args:
        bell: rung when the work is done.
        work: what to do; returns what this returns, raises what this raises.
    """
    outcome: dict[str, Any] = {}

    def serve() -> None:
        try:
            outcome["result"] = work()
        except Exception as error:  # handed to whoever awaits
            outcome["error"] = error
        bell.ring()

    threading.Thread(target=serve, name="background", daemon=True).start()
    while not outcome:
        await bell.next()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


__all__ = ["Bell", "in_background"]
