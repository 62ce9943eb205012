"""Simulated arms, reached only by what a real arm offers: controllers, joint states, a camera.

Calls: wm_mpc.core. Called by: launch files, tests, examples.
Words: *arm* (physics and camera), *controller* (what turns commands into joint motion, as the
controllers of ros2_control do), *tip* (the point that reaches).
"""

from __future__ import annotations

from dataclasses import dataclass

from sim_bridge.arms.base import Arm


@dataclass(frozen=True)
class ArmEntry:
    """A known arm: ``module:class``, and whether its controller takes twists of the tip."""

    where: str
    takes_twists: bool = False


ARMS: dict[str, ArmEntry] = {
    "planar_arm": ArmEntry("sim_bridge.arms.planar:PlanarArm"),
    "ur5e": ArmEntry("sim_bridge.arms.ur5e:Ur5e", takes_twists=True),
}


def make_arm(name: str, image_size: int = 96) -> Arm:
    """Build an arm with a camera of so many pixels.

    Raises:
        KeyError: no arm of that name.
    """
    import importlib

    module, _, cls = ARMS[name].where.partition(":")
    return getattr(importlib.import_module(module), cls)(image_size)
