"""Slow work beside a control loop: in pieces, each begun when a tick has just ended.

Python runs one thread at a time and a tick calls hundreds of small operations, each of which lets
go of the interpreter: beside a thread that computes all the time, a tick takes twice as long.
Pieces that are shorter than the pause between two ticks cost it nothing. A lower priority of the
working thread would not help: preempted while it holds the interpreter, it stops the tick too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PIECE_S = 0.01
"""[s] A piece of work whose length can be chosen is given this much."""

Pause = Callable[[], object]
"""Called between two pieces of work; returns when the next one may begin."""


class Gaps:
    """The pauses between the ticks of one loop; thread safe.

    Args:
        patience_s: [s] after which a piece begins although no tick ended: the loop may stand
            still.
    """

    def __init__(self, patience_s: float = 0.5) -> None:
        self._patience_s = patience_s
        self._condition = threading.Condition()
        self._ended = 0
        self._working = 0

    def tick_ended(self) -> None:
        """Begin a pause; for the thread that ticks."""
        with self._condition:
            self._ended += 1
            self._condition.notify_all()

    def wait(self) -> bool:
        """Wait for the next pause; for the thread that works.

        Returns:
            Whether a tick ended; False: patience did.
        """
        with self._condition:
            seen = self._ended
            return self._condition.wait_for(lambda: self._ended > seen, self._patience_s)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Mark the time from the first piece to the last."""
        with self._condition:
            self._working += 1
        try:
            yield
        finally:
            with self._condition:
                self._working -= 1

    @property
    def working(self) -> bool:
        """Whether work is under way, pauses between its pieces included."""
        return self._working > 0


def no_pause() -> None:
    """Nobody is disturbed: work goes on at once."""


__all__ = ["PIECE_S", "Gaps", "Pause", "no_pause"]
