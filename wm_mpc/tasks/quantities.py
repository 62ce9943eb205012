"""Distances that recorded simulator state tells, for validation and never for training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quantity:
    """A true distance between two states.

    Attributes:
        name: what it is called in reports.
        unit: ``px``, ``m`` or ``rad``.
        columns: entries of the state; Euclidean distance over them.
        ranges: (low, high) of the true distance; a rank correlation is reported for each.
        angle: the single column is an angle; the distance is the shorter way round.
        match: entries of the state in which a pair must nearly agree to be compared; none: every
            pair counts.
        within: how nearly, in their unit.
    """

    name: str
    unit: str
    columns: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]
    angle: bool = False
    match: tuple[int, ...] = ()
    within: float = 0.0

    def distance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """True distances of states ``(M, S), (M, S) -> (M,)``."""
        difference = first[:, list(self.columns)] - second[:, list(self.columns)]
        if self.angle:
            turned = np.abs(difference[:, 0]) % (2 * math.pi)
            return np.minimum(turned, 2 * math.pi - turned)
        return np.linalg.norm(difference, axis=1)
