"""A simulated arm that waits: its controller, joint states and camera on simulated time.

``sim_arm`` runs the same arm and controllers in real time over ROS and waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sim_bridge.arms import make_arm
from sim_bridge.arms.controllers import ForwardCommand, TwistServo
from wm_mpc.core.errors import UserError

SUBSTEP_S = 0.02
"""Between two commands to the joints, and between two joint states, as ``sim_arm`` has it."""
_AXES = ("linear.x", "linear.y", "linear.z")


class SteppedArm:
    """An arm under joint velocities or twists of its tip.

    Args:
        name: planar_arm or ur5e.
        command_type: float64_multi_array (joint velocities) or twist_stamped.
        command_names: which part of a twist each number is; with joint velocities nothing.
        image_size: side of the pictures [px].

    Attributes:
        arm: physics and camera.
        now: simulated time [s].

    Raises:
        UserError: commands that the arm does not take.
    """

    def __init__(
        self, name: str, command_type: str, command_names: Sequence[str] = (), image_size: int = 96
    ) -> None:
        self.arm = make_arm(name, image_size)
        self.now = 0.0
        self.twists = command_type == "twist_stamped"
        if command_type not in ("twist_stamped", "float64_multi_array"):
            raise UserError(f"command_type: {command_type}; velocities or twists expected here")
        self.axes = [_AXES.index(part) for part in command_names if part in _AXES]
        if self.twists and (not self.axes or len(self.axes) != len(command_names)):
            given = ", ".join(command_names) or "none"
            raise UserError(f"command_names: {given}; of {', '.join(_AXES)} expected here")
        joints = len(self.arm.spec.joints)
        self._servo = TwistServo(self.arm.joint_rates, joints) if self.twists else None
        self._forward = ForwardCommand(joints)

    def place(self, joints: np.ndarray) -> None:
        """Stand still at joint positions ``(J,)`` [rad]."""
        self.arm.place(joints)
        self._forward.command(np.zeros(len(joints)))

    def state(self) -> np.ndarray:
        """Joint positions and velocities ``(2 J,)``."""
        return np.concatenate([self.arm.positions(), self.arm.velocities()])

    def step(
        self, command: np.ndarray, seconds: float, heard: Callable[[], None] | None = None
    ) -> None:
        """Hold a command, ``heard`` being called whenever joint states would be told."""
        if self._servo is not None:
            self._servo.command(self.twist(command), self.now)
        else:
            self._forward.command(command)
        controller = self._servo or self._forward
        for _ in range(round(seconds / SUBSTEP_S)):
            rates = controller.rates(self.now, self.arm.positions(), SUBSTEP_S)
            self.arm.step(rates, SUBSTEP_S)
            self.now += SUBSTEP_S
            if heard is not None:
                heard()

    def twist(self, command: np.ndarray) -> np.ndarray:
        """All six parts of the twist that a command is [m/s, rad/s]."""
        values = np.zeros(6)
        values[self.axes] = command
        return values
