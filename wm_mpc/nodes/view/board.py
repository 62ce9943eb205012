"""What the page shows right now: written by the node's thread, read by the server's.

Everything is kept as the newest message alone, so that a slow browser costs memory no one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from wm_mpc.core.opencv import cv2


class Shot(NamedTuple):
    """A picture that may become a goal.

    Attributes:
        number: counts the pictures kept, from 1; those of a recording count down from -1.
        stamp: [s] of its header.
        image: uint8 ``(H, W, 3)`` RGB.
        proprio: ``(P,)`` at that time, or None.
    """

    number: int
    stamp: float
    image: np.ndarray
    proprio: np.ndarray | None


class Board:
    """The newest of everything.

    Args:
        quality: JPEG quality of the pictures, in percent.
        keep_s: [s] of pictures that can be picked as a goal, two a second.
    """

    KEPT_EVERY_S = 0.5

    def __init__(self, quality: int, keep_s: float) -> None:
        self._quality = quality
        self._lock = threading.Lock()
        self._words: dict[str, Any] = {}
        self._pictures: dict[str, tuple[int, np.ndarray]] = {}
        self._encoded: dict[str, tuple[int, bytes]] = {}
        self._shots: deque[Shot] = deque(maxlen=max(1, round(keep_s / self.KEPT_EVERY_S)))
        self._recorded: list[Shot] = []
        self._count = 0
        self.wake: Callable[[], None] = lambda: None
        """Called, from the node's thread, after each new camera picture."""

    def tell(self, name: str, words: Any) -> None:
        """Replace one part of the state."""
        with self._lock:
            self._words[name] = words

    def words(self) -> dict[str, Any]:
        """All parts of the state."""
        with self._lock:
            return dict(self._words)

    def show(self, name: str, image: np.ndarray) -> None:
        """Replace a picture: ``camera``, ``goal``, or ``imagined`` (a strip)."""
        with self._lock:
            number = self._pictures[name][0] + 1 if name in self._pictures else 1
            self._pictures[name] = (number, image)
        if name == "camera":
            self.wake()

    def keep(self, stamp: float, image: np.ndarray, proprio: np.ndarray | None) -> None:
        """Keep a camera picture for goals, when the last kept one is old enough."""
        with self._lock:
            if self._shots and abs(stamp - self._shots[-1].stamp) < self.KEPT_EVERY_S:
                return
            self._count += 1
            self._shots.append(Shot(self._count, stamp, image, proprio))

    def shots(self) -> list[Shot]:
        """Pictures kept, oldest first."""
        with self._lock:
            return list(self._shots)

    def offer(self, pictures: Sequence[tuple[float, np.ndarray]]) -> None:
        """Offer pictures of a recording, (stamp, picture) in order, as goals."""
        shots = [Shot(-k, stamp, image, None) for k, (stamp, image) in enumerate(pictures, 1)]
        with self._lock:
            self._recorded = shots

    def recorded(self) -> list[Shot]:
        """Pictures of a recording that can be picked as goals, in order."""
        with self._lock:
            return list(self._recorded)

    def find(self, number: int) -> Shot | None:
        """A picture that is still kept, by its number."""
        every = [*self.shots(), *self.recorded()]
        return next((shot for shot in every if shot.number == number), None)

    def numbers(self) -> dict[str, int]:
        """Name -> how many pictures of it came so far."""
        with self._lock:
            return {name: number for name, (number, _) in self._pictures.items()}

    def jpeg(self, name: str) -> tuple[int, bytes]:
        """A picture's number and its JPEG, encoded once however many browsers look.

        Raises:
            KeyError: no such picture yet.
        """
        with self._lock:
            number, image = self._pictures[name]
            if name in self._encoded and self._encoded[name][0] == number:
                return self._encoded[name]
        encoded = (number, self.encode(image))
        with self._lock:
            self._encoded[name] = encoded
        return encoded

    def encode(self, image: np.ndarray) -> bytes:
        """JPEG of an RGB picture."""
        options = [cv2.IMWRITE_JPEG_QUALITY, self._quality]
        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
        return data.tobytes()


__all__ = ["Board", "Shot"]
