"""Parameters of ``explore_node``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, PositiveFloat, Seed, Share
from wm_mpc.nodes.explore.motion import MotionConfig


@dataclass(frozen=True)
class ExploreConfig(Checked):
    """Where and how a robot is moved for data.

    A coordinate is a joint where commands are joint velocities or positions. Where commands are
    twists it is a component of the tip's way, measured from where it starts: ``tip_pose`` tells
    it (ros2_control's pose_broadcaster, a UR's tcp_pose_broadcaster). Adding up commands would
    drift by decimetres within minutes.

    Attributes:
        command_type: float64_multi_array (joint velocities), joint_trajectory (joint positions)
            or twist_stamped.
        command_names: what each number of a command is: joints, or linear.x ... angular.z.
        joint_names: joints whose limits are watched; empty: as they come.
        low: lower end of the box, one number per coordinate: joint positions [rad, m], or ways of
            the tip from its start [m, rad].
        high: upper end of the box.
        speed: largest speed of each coordinate [rad/s, m/s].
        absolute: of twists: low and high are where ``tip_pose`` has the tip, not ways from where
            it starts; turns are ways still.
        joint_low: joints that get this low stop the motion; empty: no such limit.
        joint_high: joints that get this high stop the motion; empty: no such limit.
        control_rate_hz: [Hz] commands per second.
        minutes: [min] length of the motion, the way back to the start included.
        bout_s: [s] length of a bout of waypoints or of sines.
        wander: size of the random disturbance on top of the path, as a share of the speed.
        max_joint_age_s: [s] older joint states, or tip poses, stop the motion until new ones come.
        seed: of everything random.
    """

    command_type: str = "float64_multi_array"
    command_names: tuple[str, ...] = ()
    joint_names: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    speed: tuple[float, ...] = ()
    absolute: bool = False
    joint_low: tuple[float, ...] = ()
    joint_high: tuple[float, ...] = ()
    control_rate_hz: Annotated[float, Ge(1), Le(1000)] = 10.0
    minutes: Annotated[float, Gt(0), Le(600)] = 15.0
    bout_s: Annotated[float, Gt(1), Le(3600)] = 30.0
    wander: Share = 0.25
    max_joint_age_s: PositiveFloat = 0.3
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.joint_low) != len(self.joint_high):
            raise UserError(
                f"joint_low: {len(self.joint_low)} numbers; as many as joint_high, "
                f"{len(self.joint_high)}, expected"
            )

    def motion(self) -> MotionConfig:
        """The motion that this describes.

        Raises:
            UserError: no box or speed, or numbers that do not fit each other.
        """
        for name in ("low", "high", "speed"):
            if not getattr(self, name):
                raise UserError(
                    f"{name}: empty; one number per coordinate expected: nothing moves before "
                    "somebody said how far and how fast"
                )
        return MotionConfig(
            self.low, self.high, self.speed, self.minutes, self.bout_s, wander=self.wander,
            seed=self.seed,
        )  # fmt: skip


__all__ = ["ExploreConfig"]
