"""A trial of a real or simulated robot: goals one after another, judged by its own reports.

A goal counts as *held* when the robot is there at the end of its time and was so for the last
second, as *at the end* when it is there then, and as *ever* when it was there at any time. Where
it is, its joint states tell, or the latent distance that the controller reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt

from wm_mpc.core.clock import monotonic
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked
from wm_mpc.core.stats import wilson
from wm_mpc.data.goals import RobotGoal
from wm_mpc.msg import Plan
from wm_mpc.trials.robot_watch import RobotWatch

LOOK_S = 0.05
PICTURE_S = 0.1
"""[s] Between two pictures that are kept of an attempt."""


@dataclass(frozen=True)
class TrialConfig(Checked):
    """How a goal is judged.

    Attributes:
        seconds: [s] time per goal.
        hold: [s] how long the robot must have been there at the end.
        joint_tolerance: largest distance of a joint from its goal [rad, m]; 0: the latent
            distance decides.
        latent_tolerance: latent distance that counts as there; only with joint_tolerance 0.
        least_distance: goals whose joints all lie nearer than this at the start are skipped
            [rad, m]: they would be reached by standing still.
        posture: give the controller the posture of the goal too; false: the picture alone.
    """

    seconds: Annotated[float, Gt(0)] = 12.0
    hold: Annotated[float, Ge(0)] = 1.0
    joint_tolerance: Annotated[float, Ge(0)] = 0.05
    latent_tolerance: Annotated[float, Ge(0)] = 0.0
    least_distance: Annotated[float, Ge(0)] = 0.3
    posture: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.joint_tolerance and not self.latent_tolerance:
            raise UserError("joint_tolerance: 0; more than 0 expected, or a latent_tolerance")
        if self.hold >= self.seconds:
            bound = f"less than seconds, {self.seconds:g}, expected"
            raise UserError(f"hold: {self.hold:g} s; {bound}")


@dataclass
class Attempt:
    """What became of one goal.

    Attributes:
        number: of the goal in its folder.
        times: [s] since the goal was told.
        distances: largest joint distance, or latent distance, at these times.
        images: a picture about every tenth of a second, for the film.
        plans: the newest plan at each of the pictures, where it tells imagined latents (see
            ``publish_search``); else None.
        commands: pairs (time, values) that left for the robot.
        foreseen: in a dry run: first command, and cost that the plan promises.
    """

    number: int
    times: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    commands: list[tuple[float, np.ndarray]] = field(default_factory=list)
    foreseen: dict[str, Any] = field(default_factory=dict)
    plans: list[Plan | None] = field(default_factory=list)

    def judged(self, tolerance: float, hold: float) -> dict[str, Any]:
        """Row of the report."""
        times, there = np.array(self.times), np.array(self.distances) <= tolerance
        last = times >= times[-1] - hold
        ever = np.flatnonzero(there)
        return {
            "goal": self.number,
            "held": bool(there[last].all()),
            "at_end": bool(there[-1]),
            "ever": bool(len(ever)),
            "first_s": float(times[ever[0]]) if len(ever) else None,
            "start_distance": float(self.distances[0]),
            "end_distance": float(self.distances[-1]),
            "jump_at_rest": self.jump(times[-1] - hold),
            **self.foreseen,
        }

    def jump(self, since: float) -> float | None:
        """Mean largest change from one command to the next, from a time on."""
        values = [value for when, value in self.commands if when >= since]
        if len(values) < 2:
            return None
        return float(np.abs(np.diff(np.array(values), axis=0)).max(1).mean())


def run_trial(
    watch: RobotWatch,
    goals: Sequence[RobotGoal],
    config: TrialConfig,
    tell: Callable[[str], None] = print,
) -> list[Attempt]:
    """Pursue goals one after another; the robot goes on from where the last one left it.

    Raises:
        UserError: the controller is not there, a goal does not fit the robot, or none is far.
    """
    watch.wait_for("image", "joints", "status")
    attempts = []
    for number, goal in enumerate(goals):
        if config.joint_tolerance and goal.names != watch.names:
            raise UserError(
                f"goal {number}: joints {', '.join(goal.names) or 'none'}; the robot tells "
                f"{', '.join(watch.names)}"
            )
        if config.joint_tolerance and _away(watch, goal) < config.least_distance:
            tell(f"goal {number}: nearer than {config.least_distance:g}, skipped")
            continue
        attempt = pursue(watch, number, goal, config)
        row = attempt.judged(config.joint_tolerance or config.latent_tolerance, config.hold)
        attempts.append(attempt)
        said = "held" if row["held"] else "reached, not held" if row["ever"] else "not reached"
        tell(f"goal {number}: {said}, {row['start_distance']:.3f} -> {row['end_distance']:.3f}")
    if not attempts:
        raise UserError(f"goals: all {len(goals)} nearer than {config.least_distance:g}")
    return attempts


def pursue(watch: RobotWatch, number: int, goal: RobotGoal, config: TrialConfig) -> Attempt:
    """Pursue one goal for its time."""
    attempt = Attempt(number)
    watch.commands.clear()
    watch.plan = None
    watch.pursue(goal, config.posture)
    begun = monotonic()
    pictured = -1.0
    while (now := monotonic() - begun) < config.seconds:
        if config.joint_tolerance:
            distance = _away(watch, goal)
        else:
            distance = float(watch.status.latent_distance)
        attempt.times.append(now)
        attempt.distances.append(distance)
        if now - pictured >= PICTURE_S:
            attempt.images.append(watch.image)
            plan = watch.plan
            attempt.plans.append(plan if plan is not None and len(plan.imagined) else None)
            pictured = now
        time.sleep(LOOK_S)
    attempt.commands = [(when - begun, value) for when, value in list(watch.commands)]
    status, plan = watch.status, watch.plan
    if status.dry_run and plan is not None:
        actions = np.array(plan.actions).reshape(-1, plan.action_dim)
        attempt.foreseen = {
            "dry_run": True,
            "command": actions[0].tolist(),
            "planned_sum": (actions.sum(0) * plan.dt).tolist(),
            "cost": float(plan.cost),
        }
    return attempt


def _away(watch: RobotWatch, goal: RobotGoal) -> float:
    """Largest distance of a joint from where the goal has it."""
    return float(np.abs(watch.joints[1] - np.array(goal.positions)).max())


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts and 95 % Wilson intervals over attempts."""
    n = len(rows)
    held = sum(row["held"] for row in rows)
    ends = np.array([row["end_distance"] for row in rows])
    first = [row["first_s"] for row in rows if row["first_s"] is not None]
    jumps = [row["jump_at_rest"] for row in rows if row["jump_at_rest"] is not None]
    low, high = wilson(held, n)
    return {
        "n": n,
        "success_rate": held / n,
        "success_ci95": [low, high],
        "at_end": sum(row["at_end"] for row in rows),
        "ever": sum(row["ever"] for row in rows),
        "final_error": {"median": float(np.median(ends)), "p90": float(np.quantile(ends, 0.9))},
        "first_s": float(np.median(first)) if first else None,
        "jump_at_rest": float(np.median(jumps)) if jumps else None,
    }
