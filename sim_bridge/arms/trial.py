"""A trial of a simulated arm that waits for every command: no ROS, the same controller.

Starts and goals are drawn by seed. A goal counts as *held* when the tip is within the arm's
tolerance at the end and was so for the last second: as ``robot_trial``, but judged by where the
tip truly is. Iterations per tick are fixed instead of timed, so that a busy machine changes
nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt

from sim_bridge.arms.stepped import SteppedArm
from wm_mpc.control.engine import Engine, EngineConfig
from wm_mpc.core.clock import monotonic
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeInt, PositiveInt, known
from wm_mpc.data.goals import RobotGoal
from wm_mpc.evaluation.episodes import Episode
from wm_mpc.evaluation.loop import UNTIMED, ControllerPolicy, make_limits
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.budget import Budget
from wm_mpc.planners.objective import ObjectiveConfig
from wm_mpc.planners.registry import planner_config
from wm_mpc.trials.robot_trial import Attempt

SEARCHES = ("adam", "gd")
"""Planners with several starts."""


@dataclass(frozen=True)
class ArmTrialConfig(Checked):
    """How a simulated arm is tried.

    Attributes:
        seed: of starts, goals and every draw of the planner.
        seconds: [s] time per goal.
        hold: [s] how long the tip must have been there at the end.
        posture: tell the controller the goal's posture beside its picture.
        iterations: optimiser iterations per tick.
        starts: plans that are improved at once, of adam and gd.
        delay_steps: control steps from a command to its effect.
    """

    seed: NonNegativeInt = 1
    seconds: Annotated[float, Gt(0)] = 10.0
    hold: Annotated[float, Ge(0)] = 1.0
    posture: bool = True
    iterations: PositiveInt = 20
    starts: PositiveInt = 4
    delay_steps: NonNegativeInt = 0


@dataclass
class ArmTrial:
    """An arm, its controller, and how they are tried.

    Args:
        robot: the arm.
        model: world model of its recordings.
        sections: a parameter file's sections; ``mpc_node`` and ``command_gate`` are used.
        config: starts, goals and time.
    """

    robot: SteppedArm
    model: WorldModel
    sections: Mapping[str, Mapping[str, Any]]
    config: ArmTrialConfig = field(default_factory=ArmTrialConfig)

    def __post_init__(self) -> None:
        """Build planner and controller.

        Raises:
            UserError: a model of another robot, or parameters that do not fit it.
        """
        cfg, about = self.model.config, self.sections.get("mpc_node", {})
        width, joints = len(self.robot.state()), len(self.robot.arm.spec.joints)
        actions = len(self.robot.axes) if self.robot.twists else joints
        if (cfg.proprio_dim, cfg.action_dim) != (width, actions):
            raise UserError(
                f"model: {cfg.proprio_dim} numbers of proprioception and {cfg.action_dim} of "
                f"action; {width} and {actions} expected of {self.robot.arm.spec.name}"
            )
        name = about.get("planner", "adam")
        options = {"iterations": self.config.iterations}
        if name in SEARCHES:
            options["starts"] = self.config.starts
        settings = EngineConfig(
            **known(EngineConfig, about) | {"planner": name, "budget_fraction": 1.0}
        )
        try:
            engine = Engine.build(
                self.model, settings, ObjectiveConfig(**about.get("objective", {})),
                planner_config(name, **options), UNTIMED,
            )  # fmt: skip
        except ValueError as error:
            raise UserError(str(error)) from error
        engine.budget = Budget(1.0, math.inf)
        period, horizon = cfg.control_period, settings.horizon * cfg.frameskip
        gate = self.sections.get("command_gate", {})
        allowed = {
            key: tuple(gate[key])
            for key in ("action_low", "action_high", "rate_limit")
            if gate.get(key)
        }
        limits = dataclasses.replace(make_limits(1, horizon, period), **allowed)
        self.policy = ControllerPolicy(engine, limits, 1, self.config.posture, monotonic)

    def run(self, goals: int, tell: Callable[[str], None] = print) -> list[dict[str, Any]]:
        """Pursue so many goals, each from a start of its own; the rows of the report."""
        rng = np.random.default_rng(self.config.seed)
        rows = []
        for number in range(goals):
            start, goal = self.draw(rng)
            row = self.pursue(number, start, goal)
            rows.append(row)
            said = "held" if row["held"] else "reached, not held" if row["ever"] else "not reached"
            tell(
                f"goal {number}: {said}, {row['start_distance'] * 1e3:.0f} -> "
                f"{row['end_distance'] * 1e3:.1f} mm; held {sum(r['held'] for r in rows)} of "
                f"{number + 1}"
            )
        return rows

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Joint positions to start from and to reach, far enough apart."""
        arm = self.robot.arm
        while True:
            goal, start = arm.draw(rng), arm.draw(rng)
            away = np.linalg.norm(arm.tip(goal) - arm.tip(start))
            if away >= arm.spec.start_distance:
                return start, goal

    def goal_of(self, joints: np.ndarray) -> RobotGoal:
        """What the robot would show and tell there."""
        arm = self.robot.arm
        return RobotGoal(arm.picture(joints), arm.spec.joints, tuple(map(float, joints)), "drawn")

    def pursue(self, number: int, start: np.ndarray, goal: np.ndarray) -> dict[str, Any]:
        """Carry the arm to ``start`` and let it go for ``goal``; both ``(J,)`` [rad]."""
        arm, policy, config = self.robot.arm, self.policy, self.config
        wanted, target = self.goal_of(goal), arm.tip(goal)
        self.robot.place(start)
        still = np.zeros(len(goal))
        proprio = np.concatenate([goal, still]).astype(np.float32)
        policy.reset(
            {"image": wanted.image, "proprio": proprio}, config.seed * 100_003 + number, None
        )
        episode, attempt = Episode(number), Attempt(number)
        waiting = [np.zeros(self.model.config.action_dim)] * config.delay_steps
        period = self.model.config.control_period
        for step in range(round(config.seconds / period) + 1):
            attempt.times.append(step * period)
            attempt.distances.append(float(np.linalg.norm(arm.tip() - target)))
            seen = {"image": arm.picture(), "proprio": self.robot.state().astype(np.float32)}
            command = policy.act(seen, episode)
            attempt.commands.append((step * period, command))
            waiting.append(command)
            self.robot.step(waiting.pop(0), period)
            episode.steps += 1
        row = attempt.judged(arm.spec.tolerance, config.hold)
        return row | {"stopped": len(episode.stopped), "reason": (episode.stopped or [""])[-1]}
