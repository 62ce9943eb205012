"""What the controller sees and what it is to reach, checked before anything is derived from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wm_mpc.core.errors import NotFiniteError

MIN_SIDE = 16
"""Smallest picture side [px] that is worth encoding."""


@dataclass(frozen=True)
class Observation:
    """What the robot saw and felt at one instant.

    Attributes:
        image: uint8 ``(H, W, 3)`` RGB.
        proprio: float32 ``(P,)`` raw units.
        stamp: [s] node clock.
    """

    image: np.ndarray
    proprio: np.ndarray
    stamp: float


@dataclass(frozen=True)
class Goal:
    """What it should see.

    Attributes:
        image: uint8 ``(H, W, 3)`` RGB.
        proprio: float32 ``(P,)`` raw units, or None: the picture alone decides.
        tolerance: latent distance at which it counts as reached; 0: the configured one.
    """

    image: np.ndarray
    proprio: np.ndarray | None
    tolerance: float


class InputCheck:
    """Checks pictures and proprioception; what passes is owned, contiguous and finite.

    Args:
        image_shape: [px] height and width of every picture; empty: any size.
        proprio_dim: width of the model's proprioception.
    """

    def __init__(self, image_shape: tuple[int, ...], proprio_dim: int) -> None:
        self.image_shape = image_shape
        self.proprio_dim = proprio_dim

    def observation(
        self, image: np.ndarray, proprio: np.ndarray | None, stamp: float
    ) -> Observation:
        """Check an observation; ``ValueError`` says what is wrong with it."""
        return Observation(self._image("image", image), self._proprio("proprio", proprio), stamp)

    def goal(self, image: np.ndarray, proprio: np.ndarray | None, tolerance: float) -> Goal:
        """Check a goal; ``ValueError`` says what is wrong with it."""
        image = self._image("goal_image", image)
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise ValueError(f"tolerance: {tolerance}; at least 0 expected")
        known = None if proprio is None else self._proprio("goal_proprio", proprio)
        return Goal(image, known, tolerance)

    def _image(self, field: str, image: np.ndarray) -> np.ndarray:
        shape = tuple(image.shape)
        if image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
            raise ValueError(f"{field}: {image.dtype} {shape}; uint8 (H, W, 3) expected")
        expected = self.image_shape
        if expected and shape[:2] != tuple(expected):
            size = f"{expected[0]} x {expected[1]} px"
            raise ValueError(f"{field}: {shape[0]} x {shape[1]} px; {size} expected")
        if min(shape[:2]) < MIN_SIDE:
            raise ValueError(
                f"{field}: {shape[0]} x {shape[1]} px; at least {MIN_SIDE} x {MIN_SIDE} expected"
            )
        # A writable, contiguous copy: what comes from a message is neither.
        return np.array(image, order="C")

    def _proprio(self, field: str, proprio: np.ndarray | None) -> np.ndarray:
        dim = self.proprio_dim
        if dim == 0:
            return np.zeros(0, np.float32)
        if proprio is None or np.shape(proprio) != (dim,):
            got = "none" if proprio is None else f"shape {np.shape(proprio)}"
            raise ValueError(f"{field}: {got}; ({dim},) expected")
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            array = np.array(proprio, np.float32)
        if not np.isfinite(array).all():
            raise NotFiniteError(f"{field}: {array.tolist()} is not finite")
        return array


__all__ = ["MIN_SIDE", "Goal", "InputCheck", "Observation"]
