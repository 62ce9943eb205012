"""A simulated arm in process: recordings by `explore`'s motion, goals, and trials.

    python tools/arm_bench.py record --arm planar_arm --minutes 5 --seed 0 --out data/arm5
    python tools/arm_bench.py trial --model models/arm --n 40 --delays 0 100 200 --report R.json

What drives is ``control.Controller``, as in ``wm-mpc eval``: a control step of the simulator is a
tick, and the planner has a number of iterations instead of a deadline, so that figures do not
depend on the machine. A goal is held when the tip was within the arm's tolerance of it for the
whole last second.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from sim_bridge.arms import make_arm
from sim_bridge.arms.base import Arm
from wm_mpc.control.engine import Engine, EngineConfig
from wm_mpc.core.channels import channels
from wm_mpc.core.provenance import write_report
from wm_mpc.core.stats import wilson
from wm_mpc.data.store.store import StoreSpec, StoreWriter
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.evaluation.episodes import Delayed, Episode, Policy
from wm_mpc.evaluation.loop import UNTIMED, ControllerPolicy, make_limits
from wm_mpc.models.world_model import WorldModel
from wm_mpc.nodes.explore.motion import Motion, MotionConfig
from wm_mpc.planners.budget import Budget
from wm_mpc.planners.objective import ObjectiveConfig
from wm_mpc.planners.registry import planner_config

PERIOD = 0.1
OBJECTIVE = ObjectiveConfig(running_weight=1.0, proprio_weight=1.0, action_weight=0.02)
"""That of config/planar_arm.yaml and config/robot.yaml."""


@dataclass(frozen=True)
class Record:
    """Record motion of `explore` into a store, joint velocities as commands."""

    out: Path
    arm: str = "planar_arm"
    minutes: float = 5.0
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """Drive a model to goals drawn from the workspace; one row per delay and compensation."""

    model: Path
    report: Path
    arm: str = "planar_arm"
    n: int = 40
    seed: int = 1
    seconds: float = 10.0
    goal: Literal["posture", "picture"] = "posture"
    delays: tuple[float, ...] = (0.0,)
    """[ms] by which commands take effect later than they are given."""
    predicted: tuple[float, ...] = (0.0,)
    """``delay_ms`` of the controller: 0 none, -1 measured; each with every delay."""
    starts: int = 4
    iterations: int = 20
    threads: int = 1


def observe(arm: Arm) -> np.ndarray:
    """Joint positions and velocities, float32 ``(2 J,)``."""
    return np.concatenate([arm.positions(), arm.velocities()]).astype(np.float32)


def record(arm: Arm, minutes: float, seed: int, out: Path) -> float:
    """Record into a new store; returns the share of the box that was visited."""
    joints = arm.spec.joints
    low, high = np.add(arm.spec.low, 0.1), np.subtract(arm.spec.high, 0.1)
    config = MotionConfig(
        tuple(low), tuple(high), (arm.spec.speed,) * len(joints), minutes, seed=seed
    )
    motion = Motion(config, arm.positions(), PERIOD)
    spec = StoreSpec(
        arm.spec.name, len(joints), 2 * len(joints), 0, PERIOD, arm.picture().shape[:2],
        channels("position", joints, "rad") + channels("velocity", joints, "rad/s"),
        channels("velocity", joints, "rad/s"),
    )  # fmt: skip
    with StoreWriter(out, spec) as writer:
        rows = [(observe(arm), arm.picture())]
        commands: list[np.ndarray] = []
        while not motion.done:
            commands.append(motion.step(arm.positions()))
            arm.step(commands[-1], PERIOD)
            rows.append((observe(arm), arm.picture()))
            if len(commands) == 300 or motion.done:
                writer.add(_trajectory(rows, commands, seed))
                rows, commands = rows[-1:], []
    return motion.coverage.share


def _trajectory(rows: list, commands: list, seed: int) -> Trajectory:
    count = len(rows)
    own, pictures = (np.stack(column) for column in zip(*rows, strict=True))
    return Trajectory(
        pictures, np.arange(count), np.array(commands, np.float32), own,
        np.arange(count) * PERIOD, meta={"source": "tools/arm_bench.py", "seed": seed},
    )  # fmt: skip


def draw_goals(arm: Arm, n: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of start and goal joints, ``start_distance`` of the tip apart."""
    rng = np.random.default_rng(seed)
    while n:
        start, goal = arm.draw(rng), arm.draw(rng)
        if np.linalg.norm(arm.tip(start) - arm.tip(goal)) >= arm.spec.start_distance:
            n -= 1
            yield start, goal


def make_policy(model: WorldModel, trial: Trial, delay_ms: float) -> ControllerPolicy:
    """The controller of one row."""
    options = planner_config("adam", starts=trial.starts, iterations=trial.iterations)
    config = EngineConfig(control_rate_hz=1 / PERIOD)
    engine = Engine.build(model, config, OBJECTIVE, options, UNTIMED)
    engine.budget = Budget(1.0, np.inf)
    limits = make_limits(1, config.horizon * model.config.frameskip, PERIOD)
    posture = trial.goal == "posture"
    return ControllerPolicy(engine, limits, 1, posture, time.monotonic, delay_ms)


def reach(
    arm: Arm, policy: Policy, start: np.ndarray, goal: np.ndarray, seed: int, seconds: float
) -> dict[str, Any]:
    """One goal; what became of it."""
    arm.place(start)
    posture = np.concatenate([goal, 0 * goal]).astype(np.float32)
    policy.reset({"image": arm.picture(goal), "proprio": posture}, seed, None)
    episode, away, given = Episode(seed), [], []
    while episode.steps < round(seconds / PERIOD):
        command = policy.act({"image": arm.picture(), "proprio": observe(arm)}, episode)
        arm.step(command, PERIOD)
        episode.steps += 1
        away.append(float(np.linalg.norm(arm.tip() - arm.tip(goal))))
        given.append(command)
    tolerance, last = arm.spec.tolerance, round(1 / PERIOD)
    jumps = np.abs(np.diff(np.array(given)[-2 * last :], axis=0)).max(1)
    return {
        "held": max(away[-last:]) < tolerance, "at_end": away[-1] < tolerance,
        "ever": min(away) < tolerance, "error": away[-1], "jump": float(jumps.mean()),
        "stopped": len(episode.stopped),
    }  # fmt: skip


def row(
    model: WorldModel, arm: Arm, trial: Trial, added_ms: float, delay_ms: float
) -> dict[str, Any]:
    """Run all goals of one row."""
    controller = make_policy(model, trial, delay_ms)
    steps = round(added_ms / 1e3 / PERIOD)
    joints = len(arm.spec.joints)
    policy = Delayed(controller, steps, joints) if steps else controller
    found = [
        reach(arm, policy, start, goal, 1009 * i + trial.seed, trial.seconds)
        for i, (start, goal) in enumerate(draw_goals(arm, trial.n, trial.seed))
    ]
    held = sum(one["held"] for one in found)
    errors = [one["error"] for one in found]
    known = controller.controller.delay.watch.delay_s
    return {
        "task": arm.spec.name, "planner": "adam", "model": model.hash, "mode": "mpc",
        "goal": trial.goal, "added_delay_ms": added_ms, "delay_ms": delay_ms,
        "measured_delay_ms": None if known is None else round(1e3 * known, 1),
        "n": trial.n, "seed": trial.seed, "success_rate": held / trial.n,
        "success_ci95": list(wilson(held, trial.n)), "held": held,
        "at_end": sum(one["at_end"] for one in found), "ever": sum(o["ever"] for o in found),
        "final_error": {
            "median": float(np.median(errors)), "p90": float(np.quantile(errors, 0.9)),
            "unit": "m",
        },
        "jump_at_rest": float(np.median([one["jump"] for one in found])) / arm.spec.speed,
        "stopped_ticks": sum(one["stopped"] for one in found),
        "held_by_goal": [int(one["held"]) for one in found],
    }  # fmt: skip


def line(found: dict[str, Any]) -> str:
    """A row for people."""
    low, high = found["success_ci95"]
    return (
        f"added {found['added_delay_ms']:g} ms, predicted {found['delay_ms']:g} (found "
        f"{found['measured_delay_ms']}): held {found['held']}/{found['n']} [{low:.0%}, "
        f"{high:.0%}], at end {found['at_end']}, ever {found['ever']}, error median "
        f"{1e3 * found['final_error']['median']:.1f} mm, jump {found['jump_at_rest']:.1%}, "
        f"stopped {found['stopped_ticks']}"
    )


def main(config: Record | Trial) -> None:
    """Do one of the two."""
    arm = make_arm(config.arm)
    if isinstance(config, Record):
        share = record(arm, config.minutes, config.seed, config.out)
        print(f"{config.out}: {config.minutes:g} min, {share:.0%} of the box's cells visited")
        return
    torch.set_num_threads(config.threads)
    model = WorldModel.load(config.model)
    rows = []
    for added in config.delays:
        for predicted in config.predicted:
            rows.append(row(model, arm, config, added, predicted))
            print(line(rows[-1]), flush=True)
    write_report(config.report, config.seed, rows, settings=dataclasses.asdict(config))


if __name__ == "__main__":
    main(tyro.cli(Record | Trial))
