"""``wm-mpc goal``: goals of a robot, snapped from its camera or taken from a recording."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wm_mpc.core.fields import Checked, PositiveFloat, PositiveInt, Seed


@dataclass(frozen=True)
class Snap(Checked):
    """Keep what the camera shows now, and the posture, as a goal; needs rclpy.

    Attributes:
        out: folder of goals; one is added.
        image_topic: camera.
        proprio_topic: joint states.
        joints: joint names in the order wanted; none: as they come.
        timeout: [s] how long to wait for a picture and a joint state.
    """

    out: Path
    image_topic: str = "image"
    proprio_topic: str = "joint_states"
    joints: tuple[str, ...] = ()
    timeout: PositiveFloat = 30.0


@dataclass(frozen=True)
class FromBag(Checked):
    """Take goals from random moments of a recording.

    Attributes:
        bag: rosbag2 folder, .mcap or .db3 file.
        out: folder of goals; they are added.
        n: how many.
        seed: of the choice.
        image_topic: camera, by full name or ending.
        proprio_topic: joint states, likewise.
        joints: joint names in the order wanted; none: as they come.
    """

    bag: Annotated[Path, tyro.conf.Positional]
    out: Path
    n: PositiveInt = 20
    seed: Seed = 0
    image_topic: str = "image"
    proprio_topic: str = "joint_states"
    joints: tuple[str, ...] = ()


configs: dict[str, type] = {"snap": Snap, "from-bag": FromBag}


def run(config: Snap | FromBag) -> int:
    """Write goals into a folder and say where; the exit code."""
    from wm_mpc.data.goals import goals_of_bag, save_goal

    if isinstance(config, FromBag):
        goals = goals_of_bag(
            config.bag, config.n, config.seed, config.image_topic, config.proprio_topic,
            config.joints,
        )  # fmt: skip
    else:
        from wm_mpc.bringup.ros_env import prepare

        prepare()
        from wm_mpc.trials.robot_watch import RobotWatch, Topics

        topics = Topics(config.image_topic, config.proprio_topic)
        watch = RobotWatch(topics, config.joints, node_name="goal_snap")
        try:
            watch.wait_for("image", "joints", timeout_s=config.timeout)
            goals = [watch.snap()]
        finally:
            watch.close()
    paths = [save_goal(config.out, goal) for goal in goals]
    print(f"{len(paths)} goals in {config.out}: {paths[0].name} to {paths[-1].name}")
    return 0
