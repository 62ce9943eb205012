"""The newest image and the proprioception that belongs to it, handed from one thread to another.

There is no queue: an image nobody took is replaced by the next one.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Any

import numpy as np

HISTORY = 64


class Mailbox:
    """Thread safe; one thread puts, another takes.

    Args:
        needs_proprio: whether an image is complete only with proprioception as young as itself.
    """

    def __init__(self, needs_proprio: bool) -> None:
        self.needs_proprio = needs_proprio
        self._condition = threading.Condition()
        self._image: tuple[float, Any] | None = None
        self._proprio: deque[tuple[float, np.ndarray]] = deque(maxlen=HISTORY)
        self._news = False
        self._urgent = False

    def put_image(self, stamp: float, message: Any) -> None:
        """Replace the image that waits.

        Args:
            stamp: [s] node clock.
            message: undecoded.
        """
        with self._condition:
            self._image = (stamp, message)
            self._tell()

    def put_proprio(self, stamp: float, values: np.ndarray) -> None:
        """Add a sample; a clock that jumped back by more than a second drops the older ones.

        Args:
            stamp: [s] node clock.
            values: ``(P,)`` raw units.
        """
        with self._condition:
            if self._proprio and stamp < self._proprio[-1][0] - 1.0:
                self._proprio.clear()
            self._proprio.append((stamp, values))
            self._tell()

    def urge(self) -> None:
        """Wake the taker at once."""
        with self._condition:
            self._urgent = True
            self._tell()

    def clear(self) -> None:
        """Forget everything."""
        with self._condition:
            self._image = None
            self._proprio.clear()

    @property
    def complete(self) -> bool:
        """Whether an image waits and what belongs to it is there."""
        image = self._image
        if image is None or not self.needs_proprio:
            return image is not None
        newest = max((sample[0] for sample in self._proprio), default=-math.inf)
        return newest >= image[0] - 1e-6

    def wait(self, seconds: float) -> bool:
        """Wait until something came since the last call, at most ``seconds``.

        Returns:
            Whether a step was urged.
        """
        with self._condition:
            if not self._news:
                self._condition.wait(seconds)
            urgent = self._urgent
            self._news = self._urgent = False
            return urgent

    def take(self) -> tuple[float, Any, np.ndarray | None, float] | None:
        """Take the image.

        Returns:
            Stamp [s], message, the proprioception nearest to it in time (None without any) and
            how far away that is [s]; or None when no image waits.
        """
        with self._condition:
            if self._image is None:
                return None
            (stamp, message), self._image = self._image, None
            if not self._proprio:
                return stamp, message, None, math.inf
            near = min(self._proprio, key=lambda sample: abs(sample[0] - stamp))
            return stamp, message, near[1], abs(near[0] - stamp)

    def _tell(self) -> None:
        # A flag beside the notification: news that come while nobody waits must not be slept over.
        self._news = True
        self._condition.notify()


__all__ = ["Mailbox"]
