"""What every simulated arm offers: physics that runs on held joint commands, and a camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class ArmSpec:
    """Constants of an arm.

    Attributes:
        name: what it is called on the command line.
        joints: joint names, in the order of every array of joints.
        low, high: joint limits [rad].
        speed: largest joint speed [rad/s].
        reach: distance from the base to the outstretched tip [m].
        tolerance: distance of the tip from its goal that counts as reached [m].
        start_distance: least distance of the tip from its goal at the start of a trial [m].
    """

    name: str
    joints: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    speed: float
    reach: float
    tolerance: float
    start_distance: float


class Arm(Protocol):
    """Physics of an arm whose joints follow velocities, with a camera.

    Nothing here is a snapshot that a controller could use: ``place`` is the person who carries
    the robot somewhere before a trial.
    """

    spec: ArmSpec

    def place(self, joints: np.ndarray) -> None:
        """Stand still at joint positions ``(J,)`` [rad]."""

    def step(self, velocities: np.ndarray, seconds: float) -> None:
        """Let physics run with joint velocities ``(J,)`` [rad/s] held."""

    def positions(self) -> np.ndarray:
        """Joint positions ``(J,)`` [rad]."""

    def velocities(self) -> np.ndarray:
        """Joint velocities ``(J,)`` [rad/s]."""

    def tip(self, joints: np.ndarray | None = None) -> np.ndarray:
        """Where the tip is, or would be at ``joints``: ``(3,)`` [m]. For judging only."""

    def picture(self, joints: np.ndarray | None = None) -> np.ndarray:
        """What the camera sees, or would see at ``joints``: uint8 ``(S, S, 3)`` RGB."""

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Joint positions somewhere in the workspace, ``(J,)`` [rad]."""
