"""A simulated arm that waits, by its parameter file: explored into a rosbag2, tried on goals.

    python tools/arm_lab.py explore --params-file ur5e.yaml --minutes 30 --out rec
    wm-mpc bag import rec --out data/ur5e --rate 10 --proprio-topic joint_states
    wm-mpc train robot --data data/ur5e --out models/ur5e
    python tools/arm_lab.py trial --params-file ur5e.yaml --model models/ur5e --report R.json

Motion, limits, controller, joint states and camera are those of the nodes, on simulated time: a
recording takes as long as the physics and the pictures, and no figure depends on the machine.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from sim_bridge.arms.record import record
from sim_bridge.arms.stepped import SteppedArm
from sim_bridge.arms.trial import ArmTrial, ArmTrialConfig
from wm_mpc.bringup.description import node_parameters, params_path
from wm_mpc.control.safety import CommandLimits
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import known
from wm_mpc.core.provenance import write_report
from wm_mpc.models.world_model import WorldModel
from wm_mpc.nodes.explore.config import ExploreConfig
from wm_mpc.trials.robot_trial import summary


@dataclass(frozen=True)
class Explore:
    """Move the arm as ``explore_node`` does and record it.

    Attributes:
        params_file: of the arm; a bare name is looked up in config/.
        out: rosbag2 folder to create.
        minutes: of simulated time.
        seed: of the motion.
    """

    params_file: str
    out: Path
    minutes: float = 15.0
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """Give the arm goals and tell how many it reached and held.

    Attributes:
        params_file: of the arm; ``mpc_node``'s and ``command_gate``'s parameters count.
        model: world-model folder.
        report: JSON to write.
        n: goals.
        arm: seed, time, iterations of the planner.
        objective: weights instead of the parameter file's, as ``proprio_weight=3``.
        threads: CPU threads.
    """

    params_file: str
    model: Path
    report: Path
    n: int = 100
    arm: ArmTrialConfig = field(default_factory=ArmTrialConfig)
    objective: tuple[str, ...] = ()
    threads: int = 1


def robot_of(params_file: str) -> tuple[SteppedArm, dict[str, dict[str, Any]]]:
    """The arm of a parameter file, and the file's sections."""
    sections = node_parameters(params_path(params_file))
    arm, explore = sections.get("sim_arm", {}), sections.get("explore_node", {})
    if "arm" not in arm:
        raise UserError(f"params_file: {params_file}: no sim_arm, which could be moved")
    robot = SteppedArm(
        arm["arm"], explore["command_type"], explore.get("command_names", ()),
        int(arm.get("image_size", 96)),
    )  # fmt: skip
    return robot, sections


def explore(config: Explore) -> None:
    """Record."""
    robot, sections = robot_of(config.params_file)
    given = {"minutes": config.minutes, "seed": config.seed}
    motion = ExploreConfig(**known(ExploreConfig, sections["explore_node"]) | given)
    limits = CommandLimits(**known(CommandLimits, sections.get("command_gate", {})))
    share = record(robot, motion, limits, config.out)
    print(f"done: {share:.0%} of the box's cells visited; {config.out}")


def trial(config: Trial) -> None:
    """Pursue goals, write the report."""
    torch.set_num_threads(config.threads)
    robot, sections = robot_of(config.params_file)
    weights = dict(word.split("=", 1) for word in config.objective)
    sections["mpc_node"]["objective"] = sections["mpc_node"].get("objective", {}) | {
        name: float(value) for name, value in weights.items()
    }
    lab = ArmTrial(robot, WorldModel.load(config.model), sections, config.arm)
    rows = lab.run(config.n)
    found = {
        "task": robot.arm.spec.name, "planner": sections["mpc_node"].get("planner", "adam"),
        "model": lab.model.hash, "goal": "posture" if config.arm.posture else "picture",
        "objective": sections["mpc_node"]["objective"], **summary(rows),
        "stopped": sum(row["stopped"] for row in rows), "goals": rows,
    }  # fmt: skip
    largest = float(np.abs(lab.policy.filter.high).max())
    found["jump_at_rest_share"] = (found["jump_at_rest"] or 0.0) / largest
    write_report(config.report, config.arm.seed, [found], config=dataclasses.asdict(config.arm))
    low, high = found["success_ci95"]
    error = found["final_error"]
    print(
        f"held {found['success_rate']:.0%} of {found['n']} (95 % {low:.0%} to {high:.0%}), at the "
        f"end {found['at_end']}, ever {found['ever']}; tip at the end {error['median'] * 1e3:.1f} "
        f"mm (median), {error['p90'] * 1e3:.1f} (p90); jumps at rest "
        f"{found['jump_at_rest_share']:.1%} of the largest command; report {config.report}"
    )


def main(config: Explore | Trial) -> None:
    """Do one of the two."""
    if isinstance(config, Explore):
        explore(config)
    else:
        trial(config)


if __name__ == "__main__":
    main(tyro.cli(Explore | Trial))
