"""``wm-mpc explore``: move a robot for data, inside a box, through the command gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le

from wm_mpc.bringup import ros_env
from wm_mpc.bringup.start import processes, supervise
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, Seed


@dataclass(frozen=True)
class Config(Checked):
    """Move a robot for data: random paths and sums of sines inside a box, back to the start.

    Box, speeds and topics are those of the section ``explore_node`` of the parameter file. It
    says how long it takes, tells every ten seconds how much of the box was visited, and ends by
    itself; Ctrl-C brings the robot to rest.

    Attributes:
        params_file: parameter file; a bare name is looked up in config/.
        minutes: length of the motion [min]; default: the parameter file's.
        seed: seed of the motion; default: the parameter file's.
        proprio_topic: joint state topic.
        command_topic: topic the robot listens to.
        namespace: ROS namespace.
    """

    params_file: str = "robot.yaml"
    minutes: Annotated[float, Gt(0), Le(600)] | None = None
    seed: Seed | None = None
    proprio_topic: str = "joint_states"
    command_topic: str = "command"
    namespace: str = ""


def run(config: Config) -> int:
    """Start, wait until the motion is over, end; 0 when the robot is back at its start."""
    given = {
        "params_file": config.params_file, "namespace": config.namespace,
        "proprio_topic": config.proprio_topic, "command_topic": config.command_topic,
        "minutes": "" if config.minutes is None else str(config.minutes),
        "seed": "" if config.seed is None else str(config.seed),
    }  # fmt: skip
    children = processes("explore", given)
    if ros_env.rclpy_source() is None:
        raise UserError("rclpy: not found; source a ROS 2 setup file or pip install 'wm-mpc[ros]'")
    return supervise(children, finishes="explore_node")
