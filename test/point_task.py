"""A point in the plane with exactly known dynamics: the tasks' contract without a simulator."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from sim_bridge.tasks.base import TaskEnv, TaskSpec

ENV_ID = "wm_mpc_test/Point-v0"
SPEED = 0.2

SPEC = TaskSpec(
    name="point", env_id=ENV_ID, control_period=0.1, frameskip=2,
    action_low=(-1.0, -1.0), action_high=(1.0, 1.0), proprio_names=("x", "y"),
    proprio_dim=2, state_dim=2, goal_offset=10, episode_steps=20, error_unit="m",
)  # fmt: skip


class PointEnv(TaskEnv):
    """Moves by ``SPEED`` times the action; the goal is where a constant action leads."""

    spec_task = SPEC

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state = np.zeros(2)
        self.goal_state = np.zeros(2)

    def snapshot(self) -> np.ndarray:
        return self.state.copy()

    def restore(self, snapshot: np.ndarray) -> None:
        self.state = self.check_state(snapshot)

    def advance(self, action: np.ndarray) -> np.ndarray:
        self.state = self.state + SPEED * self.check_action(action)
        return self.state.copy()

    def proprio(self, state: np.ndarray) -> np.ndarray:
        return np.asarray(state, np.float32)

    def render_state(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        return np.zeros((size or self.image_size,) * 2 + (3,), np.uint8)

    def errors(self, state: np.ndarray, goal: np.ndarray) -> dict[str, float]:
        return {"error": float(np.linalg.norm(np.subtract(state, goal)))}

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        return self.errors(state, goal)["error"] < 0.15

    def _draw_problem(
        self, options: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        angle = self.np_random.uniform(0, 2 * np.pi)
        action = 0.6 * np.array([np.cos(angle), np.sin(angle)], np.float32)
        actions = np.tile(action, (int(options["goal_offset"]), 1))
        return np.zeros(2), SPEED * actions.sum(0), actions


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, PointEnv)


class PointModel:
    """The true dynamics as a world model: one idle visual channel, and the position."""

    latent_shape = (3,)
    action_width = 4
    visual_dim, proprio_width = 1, 2
    encoder = goal_weights = proprio_reader = plan_basis = None
    hash = "0123456789ab"

    def __init__(self) -> None:
        self.action_mean = torch.zeros(2)
        self.config = SimpleNamespace(
            frameskip=2, control_period=0.1, action_dim=2, proprio_dim=2,
            action_low=(-1.0, -1.0), action_high=(1.0, 1.0),
        )  # fmt: skip
        self.encoded = 0

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def action_bounds(self) -> tuple[Tensor, Tensor]:
        return -torch.ones(4), torch.ones(4)

    def encode(self, images: Tensor, proprio: Tensor) -> Tensor:
        self.encoded += 1
        return torch.cat([torch.zeros(len(proprio), 1), proprio], -1)

    def normalize_actions(self, raw: Tensor) -> Tensor:
        return raw.unflatten(-2, (-1, 2)).flatten(-2)

    def denormalize_actions(self, actions: Tensor) -> Tensor:
        return actions.unflatten(-1, (2, 2)).flatten(-3, -2)

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        moved = SPEED * action.unflatten(-1, (2, 2)).sum(-2)
        return latent + torch.nn.functional.pad(moved, (1, 0))

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        steps = []
        for action in actions.unbind(1):
            latent = self.step(latent, action)
            steps.append(latent)
        return torch.stack(steps, 1)
