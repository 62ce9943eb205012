"""Clocks are injected: deadlines are measured on a monotonic one and tested without sleeping."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Clock(Protocol):
    """A monotonic clock: returns seconds, never goes back.

    Injected, so that deadline logic is tested without sleeping.
    """

    def __call__(self) -> float:
        """Return the current instant [s]; only differences mean anything."""
        ...


def stamp_seconds(stamp: Any) -> float:
    """Seconds of a ROS stamp: of whatever clock it was made by."""
    return stamp.sec + stamp.nanosec * 1e-9


monotonic: Clock = time.perf_counter


def device_clock(device: torch.device) -> Clock:
    """Monotonic clock whose readings include all work handed to ``device`` so far.

    A GPU works on while Python goes ahead: without waiting, the time of one stage would show in
    the next one.
    """
    if device.type != "cuda":
        return monotonic
    # only here: the command gate reads clocks, and has no room for torch
    import torch

    def read() -> float:
        torch.cuda.synchronize(device)
        return monotonic()

    return read
