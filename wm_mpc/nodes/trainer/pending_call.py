"""A request to a service, which may never be answered."""

from __future__ import annotations

from typing import Any

from rclpy.client import Client

from wm_mpc.core.clock import Clock, monotonic


class PendingCall:
    """One request, from the moment it is sent.

    A server that dies after it took a request never answers it, and no error says so: whoever
    asks must lose patience at some point, or would wait for ever.

    Args:
        client: of the service; only used from the thread that spins its node.
        request: what is asked.
        patience_s: [s] after which the call is overdue.
        clock: monotonic clock.
    """

    def __init__(
        self, client: Client, request: Any, patience_s: float, clock: Clock = monotonic
    ) -> None:
        self._client, self._clock = client, clock
        self._until = clock() + patience_s
        self._future = client.call_async(request)

    @property
    def done(self) -> bool:
        """Whether the answer has come."""
        return self._future.done()

    @property
    def overdue(self) -> bool:
        """Whether patience has run out without an answer."""
        return not self.done and self._clock() >= self._until

    @property
    def answer(self) -> Any:
        """The response; None before it has come."""
        return self._future.result() if self.done else None

    def give_up(self) -> None:
        """Forget the request; an answer that comes after all is dropped."""
        self._client.remove_pending_request(self._future)


__all__ = ["PendingCall"]
