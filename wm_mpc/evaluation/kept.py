"""What is kept of a running episode, for people to look at afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np


@dataclass(frozen=True)
class Frame:
    """A moment of an episode.

    Attributes:
        step: control steps since the start.
        picture: PNG of the camera picture, RGB.
        proprio: ``(P,)`` raw units, or None.
        plan: ``(T, action_dim)`` raw control-step actions that the controller believed in after
            it saw this picture, or None.
    """

    step: int
    picture: bytes
    proprio: np.ndarray | None = None
    plan: np.ndarray | None = None

    @classmethod
    def keep(
        cls, step: int, image: np.ndarray, proprio: Any = None, plan: np.ndarray | None = None
    ) -> Frame:
        """Pack a uint8 ``(H, W, 3)`` RGB picture and copies of what belongs to it."""
        _, packed = cv2.imencode(".png", image[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
        return cls(
            step, packed.tobytes(), None if proprio is None else np.array(proprio, np.float32),
            None if plan is None else np.array(plan, np.float32),
        )  # fmt: skip

    @property
    def image(self) -> np.ndarray:
        """uint8 ``(H, W, 3)`` RGB."""
        found = cv2.imdecode(np.frombuffer(self.picture, np.uint8), cv2.IMREAD_COLOR)
        return np.ascontiguousarray(found[:, :, ::-1])


__all__ = ["Frame"]
