"""Executes plans in the true simulator: what really happens when a plan is followed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_mpc.data.trajectory import Trajectory
from wm_mpc.evaluation.settings import parse_options
from wm_mpc.latents.encode import encode_pictures
from wm_mpc.latents.expert import Expert
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import PlanRequest
from wm_mpc.planners.objective import ObjectiveConfig, make_objective
from wm_mpc.planners.registry import make_planner, planner_config
from wm_mpc.tasks.environments import make_env


@dataclass(frozen=True)
class Executed:
    """A plan and what it did.

    Attributes:
        trajectory: what happened, a picture every model step.
        predicted: latents the model expected, ``(K, *L)``.
    """

    trajectory: Trajectory
    predicted: Tensor


def simulator(task: str, model: WorldModel) -> Any:
    """Environment of a task, reached by its gymnasium id, with pictures of the encoder's size."""
    size = model.encoder.image_size if model.encoder is not None else None
    return make_env(task, size).unwrapped


def execute(
    env: Any, state: np.ndarray, actions: np.ndarray, frameskip: int, **meta: Any
) -> Trajectory:
    """What actions really do from an exact snapshot.

    Args:
        env: task environment (``snapshot``, ``restore``, ``advance``, ``render_state``).
        state: ``(S,)`` snapshot.
        actions: ``(T, action_dim)`` raw units, clipped to the task's bounds.
        frameskip: control steps between two pictures; divides ``T``.
        meta: facts kept with the trajectory.

    Returns:
        Trajectory of ``T`` steps with true states.
    """
    env.restore(state)
    checked = np.array([env.check_action(action) for action in actions])
    states = np.array([env.snapshot(), *(env.advance(action) for action in checked)])
    shown = np.arange(0, len(checked) + 1, frameskip)
    return Trajectory(
        images=np.stack([env.render_state(states[step]) for step in shown]),
        image_steps=shown,
        actions=checked.astype(np.float32),
        proprio=np.stack([env.proprio(s) for s in states]),
        stamps=np.arange(len(checked) + 1) * env.spec_task.control_period,
        state=states,
        meta={"task": env.spec_task.name, "source": "rollout", **meta},
    ).validate()


def plan_and_execute(
    model: WorldModel,
    env: Any,
    expert: Expert,
    ids: Tensor,
    distance: int,
    planner: str = "adam",
    options: tuple[str, ...] = (),
    seed: int = 0,
    far: float = 0.0,
    cost: ObjectiveConfig | None = None,
    chain: int = 1,
) -> Iterator[Executed]:
    """Plan from the starts of expert windows to their later frames, and execute the plans.

    Args:
        model: world model; its weights as they are now.
        env: from ``simulator``.
        expert: windows of at least ``distance`` model steps.
        ids: ``(N,)`` windows.
        distance: model steps from start to goal, and horizon of the plans.
        planner: registry name.
        options: fields of the planner's configuration, ``name=value``.
        seed: of the planner's draws.
        far: share of the plans whose goal is a random expert frame, see ``OnlineConfig``.
        cost: goal cost of the plans; default: the default one.
        chain: plans per start, see ``OnlineConfig``.
    """
    objective = make_objective(model, cost or ObjectiveConfig(), distance)
    config = planner_config(planner, **parse_options(planner, options))
    search = make_planner(planner, model, objective, config)
    device = model.action_mean.device
    starts, goals = (expert.latents(ids, step).to(device) for step in (0, distance))
    if far:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.rand(len(ids), generator=generator) < far
        anywhere = expert.train[torch.randint(len(expert.train), ids.shape, generator=generator)]
        goals[chosen] = expert.latents(anywhere[chosen], 0).to(device)
    for i, state in enumerate(expert.states(ids)):
        start = starts[i]
        for link in range(chain):
            plan = search.plan(PlanRequest(start, goals[i], seed=seed * 1009 + i * chain + link))
            raw = model.denormalize_actions(plan.actions).cpu().numpy()
            trajectory = execute(
                env, state, raw, model.config.frameskip,
                policy=planner, seed=seed, window=int(ids[i]), link=link, model=model.hash,
            )  # fmt: skip
            with torch.no_grad():
                predicted = model.rollout(start[None], plan.actions[None])[0]
            yield Executed(trajectory, predicted.cpu())
            if link + 1 < chain:
                state = trajectory.state[-1]
                start = encode_pictures(
                    model, trajectory.images[-1:], trajectory.proprio[-1:]
                )[0].to(device)
