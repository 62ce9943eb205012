"""Notices a robot that is seen while its commands are not heard."""

from __future__ import annotations

import math

from wm_mpc.control.tick import State
from wm_mpc.core.clock import Clock, monotonic

SILENT_S = 5.0
"""[s] Images come and commands do not for this long: something is wrong."""

_QUIET = (State.UNCONFIGURED, State.IDLE, State.FAULT)
"""States in which no command is to be expected."""


class CommandWatch:
    """Tells silence that nobody meant, such as a topic of another type, from a robot at rest.

    Args:
        clock: monotonic clock.
    """

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._image_at = -math.inf
        self._since = clock()

    def image(self) -> None:
        """Note an image."""
        now = self._clock()
        if now - self._image_at > SILENT_S:
            self._since = now
        self._image_at = now

    def command(self) -> None:
        """Note a command."""
        self._since = self._clock()

    def status(self, state: State) -> None:
        """Note what the controller does: without a goal it commands nothing."""
        if state in _QUIET:
            self._since = self._clock()

    def silent_s(self) -> float:
        """For how long commands have been missing while images came [s]; 0.0: all is well."""
        now = self._clock()
        silent = now - self._since
        seen = now - self._image_at <= SILENT_S
        return silent if seen and silent >= SILENT_S else 0.0


__all__ = ["SILENT_S", "CommandWatch"]
