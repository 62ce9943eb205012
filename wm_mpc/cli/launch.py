"""``wm-mpc launch``: start the nodes of a bringup as ``ros2 launch`` would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from annotated_types import Gt, Le

from wm_mpc.bringup import ros_env
from wm_mpc.bringup.description import Bringup, find, parse_arguments
from wm_mpc.bringup.start import processes, supervise
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked


@dataclass(frozen=True)
class Config(Checked):
    """Start the nodes of a bringup: TASK_sim, sim, ARM_sim, explore or robot."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """TASK_sim for a task of this package, sim for any other; planar_arm_sim, ur5e_sim,
    explore, robot."""

    arguments: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="KEY:=VALUE ...")
    ] = ()
    """Launch arguments; --show-args lists them."""

    show_args: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List the launch arguments and end."""

    grace_s: Annotated[float, Gt(0), Le(60)] = 5.0
    """[s] a node is given to end after each signal before a stronger one follows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        find(self.name)


def show_arguments(bringup: Bringup) -> str:
    """Text that ``--show-args`` prints."""
    lines = [f"{bringup.name}: {bringup.description}", "Arguments (key:=value):"]
    for argument in bringup.arguments:
        choices = [choice for choice in argument.choices if choice]
        allowed = f" One of {', '.join(choices)}." if choices else ""
        lines.append(f"  {argument.name}:={argument.default or repr('')}")
        lines.append(f"      {argument.description}{allowed}")
    return "\n".join(lines)


def run(config: Config) -> int:
    """Start, wait, end.

    Returns:
        0 after Ctrl-C or SIGTERM when every node ended in order, 1 when one had to be killed,
        otherwise the status of the required node that ended by itself.
    """
    bringup = find(config.name)
    if config.show_args:
        print(show_arguments(bringup))
        return 0
    given = parse_arguments(bringup, list(config.arguments))
    children = processes(config.name, given)
    if ros_env.rclpy_source() is None:
        raise UserError("rclpy: not found; source a ROS 2 setup file or pip install 'wm-mpc[ros]'")
    return supervise(children, config.grace_s)
