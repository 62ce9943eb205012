"""Angles that wrap: from one sample to the next a whole turn, which is none."""

from __future__ import annotations

import math

import numpy as np

_TURN = 2 * math.pi
_NEAR = 0.5
"""[rad] A joint moves less than this between two samples."""


class Wraps:
    """Counts jumps of joint positions from one end of a turn to the other.

    Interpolation between two such samples gives angles where the joint never was.

    >>> wraps = Wraps()
    >>> for angle in (3.0, 3.1, -3.1, -3.0):
    ...     wraps.see("proprio", np.array([angle, 0.5]))
    >>> wraps.count
    1

    Attributes:
        count: jumps seen.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last: dict[str, np.ndarray] = {}

    def see(self, role: str, positions: np.ndarray) -> None:
        """Take in the next sample of a publisher, ``(joints,)`` [rad]."""
        last, self._last[role] = self._last.get(role), positions
        if last is None or len(last) != len(positions):
            return
        far = np.abs(positions - last) > _TURN - _NEAR
        if not far.any():
            return
        low, high = np.minimum(last, positions)[far], np.maximum(last, positions)[far]
        around_pi = (np.abs(low + math.pi) < _NEAR) & (np.abs(high - math.pi) < _NEAR)
        around_zero = (np.abs(low) < _NEAR) & (np.abs(high - _TURN) < _NEAR)
        self.count += int(np.count_nonzero(around_pi | around_zero))

    def words(self) -> str:
        """What was seen, one line; empty: nothing."""
        if not self.count:
            return ""
        return (
            f"proprio: angles jump by a turn between two samples, {self.count} times; linear "
            "interpolation bends what lies between: --proprio-method nearest"
        )
