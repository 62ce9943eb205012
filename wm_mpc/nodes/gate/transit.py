"""How long messages were on their way, by clocks that need not agree."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable


class Transit:
    """Age of messages on arrival, above that of the fastest of the last ones.

    Sender and receiver may be machines whose clocks differ; a constant difference cancels out.
    What lay in a queue while this process stood still arrives old.

    Args:
        window: messages remembered per sender.

    >>> transit = Transit()
    >>> [transit.age("a", sent, came) for sent, came in ((10.0, 95.0), (11.0, 96.5), (12, 97.0))]
    [0.0, 0.5, 0.0]
    """

    def __init__(self, window: int = 100) -> None:
        self._window = window
        self._sender: Hashable = None
        self._delays: deque[float] = deque(maxlen=window)

    def age(self, sender: Hashable, sent: float, came: float) -> float:
        """Age of a message [s].

        Args:
            sender: whose clock told when it was sent; a new one begins anew.
            sent: [s] by that clock.
            came: [s] by this machine's.
        """
        if sender != self._sender:
            self._sender, self._delays = sender, deque(maxlen=self._window)
        self._delays.append(came - sent)
        return self._delays[-1] - min(self._delays)


__all__ = ["Transit"]
