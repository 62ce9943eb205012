"""``wm-mpc explore``: move a robot for data, inside a box, through the command gate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

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
    itself; Ctrl-C brings the robot to rest. With ``bag`` a simulated arm is moved and recorded
    without ROS, as fast as the machine goes.

    Attributes:
        params_file: parameter file; a bare name is looked up in config/.
        minutes: length of the motion [min]; default: the parameter file's.
        seed: seed of the motion; default: the parameter file's.
        proprio_topic: joint state topic.
        command_topic: topic the robot listens to.
        namespace: ROS namespace.
        bag: rosbag2 folder to record the simulated arm of the section ``sim_arm`` into.
    """

    params_file: str = "robot.yaml"
    minutes: Annotated[float, Gt(0), Le(600)] | None = None
    seed: Seed | None = None
    proprio_topic: str = "joint_states"
    command_topic: str = "command"
    namespace: str = ""
    bag: Path | None = None


def run(config: Config) -> int:
    """Start, wait until the motion is over, end; 0 when the robot is back at its start."""
    if config.bag is not None:
        return run_simulated(config, config.bag)
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


def run_simulated(config: Config, bag: Path) -> int:
    """Explore the parameter file's simulated arm into a rosbag2."""
    from sim_bridge.arms.record import record
    from wm_mpc.bringup.description import node_parameters, params_path
    from wm_mpc.control.safety import CommandLimits
    from wm_mpc.nodes.explore.config import ExploreConfig

    sections = node_parameters(params_path(config.params_file))
    if "arm" not in sections.get("sim_arm", {}):
        raise UserError(f"params_file: {config.params_file}: no sim_arm, whose arm could be moved")
    explore = _known(ExploreConfig, sections.get("explore_node", {}))
    for name in ("minutes", "seed"):
        if getattr(config, name) is not None:
            explore[name] = getattr(config, name)
    limits = CommandLimits(**_known(CommandLimits, sections.get("command_gate", {})))
    arm = sections["sim_arm"]
    share = record(
        arm["arm"], ExploreConfig(**explore), limits, bag, int(arm.get("image_size", 96))
    )
    print(f"done: {share:.0%} of the box's cells visited; {bag}")
    return 0


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Those of a section's parameters that a configuration has, lists as tuples."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name in names
    }
