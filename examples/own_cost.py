"""A cost of your own: reach the goal, and keep away from a place on the way.

    python examples/own_cost.py

A cost gets what the model predicts, ``(B, T, *L)``, the actions, and the goal's latent, and
returns one number per plan. Gradient planners need it differentiable. A class of your own is
evaluated by autograd (``compile=False``), several times slower than the package's own cost.
"""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
from torch import Tensor

from wm_mpc import Controller, Engine, WorldModel, make_planner
from wm_mpc.control.controller import ControllerConfig
from wm_mpc.control.engine import EngineConfig
from wm_mpc.control.safety import SafetyLimits
from wm_mpc.core.locations import ASSETS
from wm_mpc.evaluation.loop import UNTIMED
from wm_mpc.planners.budget import Budget
from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig
from wm_mpc.planners.registry import planner_config

START, GOAL, PLACE, RADIUS = (14.0, 12.0), (14.0, 52.0), (12.0, 32.0), 8.0
"""[px] in Wall's left room: straight on lies a place to go round."""


class KeepAway(GoalObjective):
    """Goal cost, and a charge for a predicted way that leads through ``PLACE``."""

    weight = 100.0

    def watch(self, model: WorldModel) -> KeepAway:
        """Remember what turns a latent's proprioception into pixels; ``here`` is the robot's."""
        self.mean, self.std = model.proprio_mean, model.proprio_std
        self.here = torch.zeros(2)
        return self

    def __call__(self, latents: Tensor, actions: Tensor, goal: Tensor) -> Tensor:
        """``(B, T, D), (B, T, A), (D,) -> (B,)``."""
        after = latents[..., self.visual_dim :] * self.std + self.mean
        before = torch.cat([self.here.expand(len(after), 1, 2), after[:, :-1]], 1)
        # A model step may be longer than the place is wide: look at points in between as well.
        share = torch.linspace(0, 1, 5)[:, None, None, None]
        away = (torch.lerp(before, after, share) - torch.tensor(PLACE)).norm(dim=-1)
        near = (1 - away / RADIUS).clamp(min=0).square().sum((0, 2))
        return super().__call__(latents, actions, goal) + self.weight * near


def drive(own: bool) -> tuple[np.ndarray, bool]:
    """One episode; the way ``(T, 2)`` [px], and whether the goal was reached."""
    robot = gymnasium.make("sim_bridge:wm_mpc/Wall-v0", image_size=96).unwrapped
    seen, _ = robot.reset(seed=1, options={"start": np.array(START), "goal": np.array(GOAL)})
    model = WorldModel.load(ASSETS / "wall")
    config = EngineConfig(control_rate_hz=1 / model.config.control_period)
    sizes = (config.horizon, model.visual_dim, model.proprio_width)
    cost = KeepAway(ObjectiveConfig(), *sizes).watch(model) if own else (
        GoalObjective(ObjectiveConfig(), *sizes)
    )  # fmt: skip
    options = planner_config("adam", iterations=20)
    planner = make_planner("adam", model, cost, options, compile=False)
    engine = Engine(model, planner, cost, UNTIMED, config)
    engine.budget = Budget(1.0, math.inf)  # a simulator waits; on a robot leave this line out
    controller = Controller(engine, ControllerConfig(), SafetyLimits())
    controller.set_goal(robot.observe(robot.goal_state)["image"], np.float32(GOAL))
    way, now, info = [seen["proprio"]], 0.0, {"success": False}
    for _ in range(60):
        controller.observe(seen["image"], seen["proprio"], stamp=now)
        cost.here = torch.from_numpy(seen["proprio"])
        command = controller.tick(now).command
        seen, _, done, _, info = robot.step(np.zeros(2) if command is None else command)
        way.append(seen["proprio"])
        now += config.period_s
        if done:
            break
    return np.array(way), bool(info["success"])


def main() -> None:
    """Drive with and without the charge."""
    torch.set_num_threads(1)
    for name, own in (("goal cost", False), ("with the charge", True)):
        way, success = drive(own)
        nearest = np.linalg.norm(way - np.array(PLACE), axis=1).min()
        print(f"{name}: nearest {nearest:.1f} px, goal {'reached' if success else 'missed'}")


if __name__ == "__main__":
    main()
