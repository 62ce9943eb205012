"""What is kept of a running episode, for people to look at afterwards."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Frame:
    """A moment of an episode.

    Attributes:
        step: control steps since the start.
        picture: bytes of the camera picture, uint8 RGB, deflated.
        shape: ``(H, W, 3)``.
        proprio: ``(P,)`` raw units, or None.
        plan: ``(T, action_dim)`` raw control-step actions that the controller believed in after
            it saw this picture, or None.
    """

    step: int
    picture: bytes
    shape: tuple[int, ...]
    proprio: np.ndarray | None = None
    plan: np.ndarray | None = None

    @classmethod
    def keep(
        cls, step: int, image: np.ndarray, proprio: Any = None, plan: np.ndarray | None = None
    ) -> Frame:
        """Pack a uint8 ``(H, W, 3)`` RGB picture and copies of what belongs to it."""
        packed = zlib.compress(np.ascontiguousarray(image, np.uint8).tobytes(), 1)
        return cls(
            step, packed, image.shape, None if proprio is None else np.array(proprio, np.float32),
            None if plan is None else np.array(plan, np.float32),
        )  # fmt: skip

    @property
    def image(self) -> np.ndarray:
        """uint8 ``(H, W, 3)`` RGB."""
        flat = np.frombuffer(zlib.decompress(self.picture), np.uint8)
        return flat.reshape(self.shape).copy()


__all__ = ["Frame"]
