"""Offers of a new model to the controller, and what becomes of them.

A model is *refused* when the controller compared it and found it worse, or took it back after it
drove; then it was a bad model. It was no bad model when nobody answered, when there is no running
model to compare it with, when the controller was started anew, or when somebody chose another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rclpy.client import Client

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.nodes.trainer.pending_call import PendingCall
from wm_mpc.srv import LoadModel

RETRY_S = 2.0
PATIENCE_S = 60.0
"""[s] Building an engine of a new shape, which is measured against CEM first, takes up to tens of
seconds on slow machines."""


class Offer:
    """One model at a time is offered; a newer one replaces an older one that still waits.

    Args:
        client: of ``load_model``.
        own: hashes of the start model and of what was made from it so far. Any other model that
            runs is somebody's choice, which offers must not undo.
        refused: called with ``refused=hash, reason=...`` when a model is refused or taken back.
        told: called with ``accepted``, ``rejected``, ``postponed``, ``paused`` or ``resumed``, and
            a line.
        clock: monotonic clock.
    """

    def __init__(
        self,
        client: Client,
        own: Iterable[str],
        refused: Callable[..., None],
        told: Callable[[str, str], None],
        clock: Clock = monotonic,
    ) -> None:
        self._client, self._refused, self._told, self._clock = client, refused, told, clock
        self._own = set(own)
        self._waiting: tuple[str, str] | None = None
        self._asked: tuple[str, str, PendingCall] | None = None
        self._accepted = self._path = ""
        self._drove = False
        self._running = self._foreign = ""
        self._ticks = 0
        self._anew = False
        self._retry_at = 0.0

    def make(self, digest: str, path: str) -> None:
        """Offer the model ``digest`` in folder ``path``."""
        self._own.add(digest)
        self._waiting, self._retry_at = (digest, path), 0.0

    @property
    def paused(self) -> str:
        """Why nothing is offered now, one line; empty: offers are made."""
        if not self._foreign:
            return ""
        return (
            f"model {self._foreign} runs, which is neither the start model nor made from it here"
        )

    # ---- asking ------------------------------------------------------------------------------

    def advance(self) -> None:
        """Ask when there is something to ask and somebody to ask; take in answers."""
        if self._asked is not None:
            digest, path, call = self._asked
            if call.done:
                self._asked = None
                self._answered(digest, path, call.answer)
            elif call.overdue:
                self._give_up(f"no answer within {PATIENCE_S:g} s")
            return
        if self._waiting is None or self.paused or self._clock() < self._retry_at:
            return
        self._retry_at = self._clock() + RETRY_S
        digest, path = self._waiting
        if digest == self._running:
            self._drives_already()
        elif self._client.service_is_ready():
            self._waiting = None
            request = LoadModel.Request(path=path)
            call = PendingCall(self._client, request, PATIENCE_S, self._clock)
            self._asked = digest, path, call

    def _answered(self, digest: str, path: str, answer: Any) -> None:
        if answer is None:
            self._put_off(digest, path, RETRY_S, "the request was cancelled")
        elif answer.success:
            self._accepted, self._path, self._drove = digest, path, False
            self._told("accepted", answer.message)
        elif answer.model_hash:
            self._refused(refused=digest, reason=answer.message)
            self._told("rejected", answer.message)
        else:
            # A controller without a model compared nothing: what failed may be its set-up.
            self._put_off(digest, path, PATIENCE_S, answer.message)

    def _give_up(self, reason: str) -> None:
        """Stop waiting for an answer, and ask again."""
        assert self._asked is not None
        digest, path, call = self._asked
        self._asked = None
        call.give_up()
        self._put_off(digest, path, RETRY_S, reason)

    def _put_off(self, digest: str, path: str, seconds: float, reason: str) -> None:
        """Offer a model again later, unless a newer one waits."""
        if self._waiting is None:
            self._waiting, self._retry_at = (digest, path), self._clock() + seconds
        self._told("postponed", f"model {digest}: {reason}")

    # ---- watching ----------------------------------------------------------------------------

    def seen(self, digest: str, ticks: int) -> None:
        """Note which model the controller runs; one that drove and was replaced is taken back.

        Args:
            digest: hash of the model in its status; empty: none, the controller does not tick.
            ticks: ticks in its status, which begin anew with the controller.
        """
        self._running = digest
        if not digest:
            # Whatever ticks next was activated anew, perhaps with the model of its parameters.
            self._anew = True
            return
        restarted, self._ticks = ticks < self._ticks, ticks
        self._anew = self._anew or restarted
        if self._chosen_by_others(digest):
            return
        if self._asked is not None:
            if restarted and digest != self._asked[0]:
                self._give_up("the controller was started anew")
            return
        self._compare(digest)

    def _chosen_by_others(self, digest: str) -> bool:
        """Whether a running model is none of ours: no rollback, and nothing to replace."""
        foreign = "" if digest in self._own else digest
        if foreign != self._foreign:
            self._foreign = foreign
            words = self.paused or f"model {digest} runs"
            self._told("paused" if foreign else "resumed", words)
        if foreign:
            # What follows it says nothing about the model that it replaced.
            self._anew = True
        return bool(foreign)

    def _compare(self, digest: str) -> None:
        """Compare what runs, which is ours, with what was accepted."""
        anew, self._anew = self._anew, False
        if self._waiting is not None and digest == self._waiting[0]:
            self._drives_already()
        elif digest == self._accepted:
            self._drove = True
        elif self._accepted and anew:
            # A new controller begins with the model of its parameters; it knows nothing of ours.
            if self._waiting is None:
                self.make(self._accepted, self._path)
            self._accepted, self._drove = "", False
        elif self._accepted and self._drove:
            taken, self._accepted = self._accepted, ""
            reason = f"model {taken} was taken back, {digest} runs"
            self._refused(refused=taken, reason=reason)
            self._told("rejected", reason)

    def _drives_already(self) -> None:
        """What was to be offered drives: of an earlier life, or its answer was lost."""
        assert self._waiting is not None
        (self._accepted, self._path), self._waiting, self._drove = self._waiting, None, True


__all__ = ["PATIENCE_S", "RETRY_S", "Offer"]
