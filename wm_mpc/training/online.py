"""Online World Modeling: learn from what the planner's own plans really do.

Plans leave the data that a model was trained on, and there it errs. So, as in dataset aggregation
(Ross et al. 2011) and arXiv 2512.09929: plan from expert starts to expert goals with the model as
it is, execute the plans in the true simulator from an exact snapshot of the start, and train on
what happened beside the expert data.

The released code of that paper joins the executed frames to the expert frames that precede the
start and cuts windows across the joint, which are no true motion; here windows begin at or after
the start, see ``corrected``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_mpc.data.trajectory import Trajectory
from wm_mpc.errors import UserError
from wm_mpc.eval_jobs import EvalSettings, make_env, make_objective, parse_options
from wm_mpc.objective import ObjectiveConfig
from wm_mpc.planners import PLANNERS, PlanRequest, make_planner, planner_config
from wm_mpc.training.expert import Expert, encode_pictures
from wm_mpc.world_model import WorldModel


@dataclass(frozen=True)
class OnlineConfig:
    """Plans to execute and how they are mixed with expert data.

    Attributes:
        rollouts: plans made and executed per round.
        every: optimiser steps between two rounds; the first comes before the first step.
        planner: registry name of the planner.
        options: fields of the planner's configuration, name=value.
        ratio: parts expert and parts corrected in every batch.
        limit: model steps of corrected data kept, the oldest go first; 0: all.
        far: share of the plans that pursue a random expert frame instead of a later frame of
            their own window, in [0, 1]: goals that the horizon does not reach, which closed loop
            control meets all the time.
        chain: plans executed one after another towards the same goal, each from where the last one
            ended: the states that closed-loop control gets itself into. ``rollouts`` counts plans.
        corrected: stores of trajectories from earlier runs, offline or live, to start with.
        objective: goal cost of the plans; best the one that the robot will plan with.
    """

    rollouts: int = 60
    every: int = 250
    planner: str = "adam"
    options: tuple[str, ...] = ()
    ratio: tuple[int, int] = (7, 3)
    limit: int = 0
    far: float = 0.0
    chain: int = 1
    corrected: tuple[Path, ...] = ()
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        for name in ("rollouts", "every", "chain"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)}; at least 1 expected")
        if self.planner not in PLANNERS:
            known = ", ".join(PLANNERS)
            raise UserError(f"planner: {self.planner!r} unknown; one of {known} expected")
        if min(self.ratio) < 0 or sum(self.ratio) < 1:
            raise UserError(f"ratio: {self.ratio}; two numbers >= 0, not both 0, expected")
        if self.limit < 0:
            raise UserError(f"limit: {self.limit}; at least 0 expected")
        if not 0 <= self.far <= 1:
            raise UserError(f"far: {self.far}; in [0, 1] expected")


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
    return make_env(EvalSettings(task, "none"), size).unwrapped


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


__all__ = ["Executed", "OnlineConfig", "execute", "plan_and_execute", "simulator"]
