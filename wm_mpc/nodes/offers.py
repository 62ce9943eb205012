"""Offers of a new model to the controller, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.client import Client
from rclpy.task import Future

from wm_mpc.budget import Clock, monotonic
from wm_mpc.srv import LoadModel

RETRY_S = 2.0


class Offer:
    """One model at a time is offered; a newer one replaces an older one that still waits.

    Args:
        client: of ``load_model``.
        refused: called with ``refused=hash, reason=...`` when a model is refused or taken back.
        told: called with ``accepted`` or ``rejected`` and a line.
        clock: monotonic clock.
    """

    def __init__(
        self,
        client: Client,
        refused: Callable[..., None],
        told: Callable[[str, str], None],
        clock: Clock = monotonic,
    ) -> None:
        self._client, self._refused, self._told, self._clock = client, refused, told, clock
        self._waiting: tuple[str, str] | None = None
        self._asked: tuple[str, str, Future] | None = None
        self._accepted = self._path = ""
        self._drove = False
        self._running = ""
        self._ticks = 0
        self._retry_at = 0.0

    def make(self, digest: str, path: str) -> None:
        """Offer the model ``digest`` in folder ``path``."""
        self._waiting, self._retry_at = (digest, path), 0.0

    def advance(self) -> None:
        """Ask when there is something to ask and somebody to ask; take in answers."""
        if self._asked is not None:
            digest, path, future = self._asked
            if future.done():
                self._asked = None
                self._answered(digest, path, future.result())
            return
        if self._waiting is None or self._clock() < self._retry_at:
            return
        self._retry_at = self._clock() + RETRY_S
        digest, path = self._waiting
        if digest == self._running:
            self._waiting, self._accepted, self._path, self._drove = None, digest, path, True
        elif self._client.service_is_ready():
            self._waiting = None
            self._asked = digest, path, self._client.call_async(LoadModel.Request(path=path))

    def _answered(self, digest: str, path: str, answer: Any) -> None:
        if answer is None or not answer.success:
            reason = "no answer" if answer is None else answer.message
            self._refused(refused=digest, reason=reason)
            self._told("rejected", reason)
            return
        self._accepted, self._path, self._drove = digest, path, False
        self._told("accepted", answer.message)

    def seen(self, digest: str, ticks: int) -> None:
        """Note which model the controller runs; one that drove and was replaced is taken back.

        Args:
            digest: hash of the model in its status; empty: none.
            ticks: ticks in its status, which begin anew with the controller.
        """
        restarted, self._ticks = ticks < self._ticks, ticks
        self._running = digest
        if not self._accepted or not digest or self._asked is not None:
            return
        if digest == self._accepted:
            self._drove = True
        elif restarted:
            # A new controller begins with the model of its parameters; it knows nothing of ours.
            self.make(self._accepted, self._path)
            self._accepted, self._drove = "", False
        elif self._drove:
            taken, self._accepted = self._accepted, ""
            reason = f"model {taken} was taken back, {digest} runs"
            self._refused(refused=taken, reason=reason)
            self._told("rejected", reason)


__all__ = ["Offer"]
