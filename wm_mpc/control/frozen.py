"""A camera that shows the same picture with fresh stamps while the robot moves."""

from __future__ import annotations

import numpy as np

BLOCKED = 5.0
"""A robot that does not move either may be blocked: then the time allowed is so much longer."""
STIR = 0.01
"""Share of its range that a command must differ from rest by, and of its usual spread that a joint
must move by, to count as moving."""


class FrozenWatch:
    """Counts the time of identical pictures under moving commands.

    A simulator without noise shows identical pictures while nothing moves. So only time counts in
    which a command that left asked for motion; where joints are felt and stood still too, five
    times as much is allowed. Once tripped it stays so until the picture changes; where the joints
    stood still, so that the robot may have been blocked, until another goal too.

    Args:
        limit_s: [s] allowed; 0: no end.
        span: range of each command.
        rest: command at which the robot stands still; None: to repeat the last one.
        spread: usual spread of each number of proprioception; empty: none is felt.
    """

    def __init__(
        self, limit_s: float, span: np.ndarray, rest: np.ndarray | None, spread: np.ndarray
    ) -> None:
        self.limit_s = limit_s
        self._span = span
        self._rest = rest
        self._spread = spread
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._image: np.ndarray | None = None
        self._still_s = self._stamp = 0.0
        self._command: np.ndarray | None = None
        self._moving = self._tripped = self._blocked = False

    def another_goal(self) -> None:
        """A way may be free that was not: where joints stood still, time counts anew."""
        if self._blocked:
            self._still_s, self._tripped = 0.0, False

    def see(self, image: np.ndarray, proprio: np.ndarray, stamp: float) -> str:
        """Take a new observation; says what is wrong, or nothing.

        Args:
            image: uint8 ``(H, W, 3)``.
            proprio: ``(P,)`` raw units.
            stamp: [s] node clock.
        """
        if not self.limit_s:
            return ""
        if self._image is None or not np.array_equal(image, self._image):
            self._image, self._proprio = image, proprio
            self._still_s, self._tripped = 0.0, False
            self._blocked = proprio.size > 0 and self._spread.size > 0
        elif self._moving:
            self._still_s += max(0.0, stamp - self._stamp)
        self._stamp = stamp
        moved = np.abs(proprio - self._proprio) > STIR * self._spread
        self._blocked = self._blocked and not moved.any()
        allowed = self.limit_s * (BLOCKED if self._blocked else 1.0)
        self._tripped = self._tripped or self._still_s > allowed
        if not self._tripped:
            return ""
        return f"image: the same for {self._still_s:.1f} s while the robot was to move; frozen"

    def commanded(self, command: np.ndarray | None) -> None:
        """Note what left for the robot, after every limit; None: rest."""
        before, self._command = self._command, command
        base = before if self._rest is None else self._rest
        self._moving = (
            command is not None
            and base is not None
            and bool(np.any(np.abs(command - base) > STIR * self._span))
        )


__all__ = ["FrozenWatch"]
