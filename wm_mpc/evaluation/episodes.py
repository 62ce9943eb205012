"""One evaluation episode in the true simulator: a policy acts until success or the step budget.

Policies are the model-predictive loop and the baselines it is compared with. None of them sees the
simulator's state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.errors import UserError
from wm_mpc.models.proposers import Proposer
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners import Plan, Planner, PlanRequest
from wm_mpc.planners.budget import Budget
from wm_mpc.planners.starts import shift_plan, shift_states


@dataclass
class Episode:
    """What one episode gave.

    Attributes:
        seed: seed of the environment's reset.
        success: the task's criterion held after some control step.
        final_success: it held after the last one.
        steps: control steps taken; success ends an episode.
        final_error, min_error: headline error at the end and at its lowest, in the task's unit.
        info: the last step's info (all of the task's errors).
        tick_ms: encoding and planning per planning tick [ms].
        plan_ms: planning alone [ms].
        transitions: model transitions per planning tick.
        iterations: optimiser iterations per planning tick.
        over_budget: ticks whose planning outlasted their budget.
        late: ticks that outlasted the control period.
    """

    seed: int
    success: bool = False
    final_success: bool = False
    steps: int = 0
    final_error: float = float("nan")
    min_error: float = float("nan")
    info: dict[str, Any] = field(default_factory=dict)
    tick_ms: list[float] = field(default_factory=list)
    plan_ms: list[float] = field(default_factory=list)
    transitions: list[int] = field(default_factory=list)
    iterations: list[int] = field(default_factory=list)
    over_budget: int = 0
    late: int = 0


class Policy(Protocol):
    """Chooses raw actions in one episode."""

    def reset(self, goal: dict[str, Any], seed: int, replay: np.ndarray | None) -> None:
        """Begin an episode; ``replay`` are actions known to reach the goal, or None."""
        ...

    def act(self, observation: dict[str, Any], episode: Episode) -> np.ndarray:
        """Raw action ``(action_dim,)``; notes its costs in ``episode``."""
        ...


class ConstantPolicy:
    """Do nothing: the zero action at every step."""

    def __init__(self, action_dim: int) -> None:
        self.action = np.zeros(action_dim, np.float32)

    def reset(self, goal: dict[str, Any], seed: int, replay: np.ndarray | None) -> None:
        """Nothing to forget."""

    def act(self, observation: dict[str, Any], episode: Episode) -> np.ndarray:
        """Zero action."""
        return self.action


class RandomPolicy:
    """Uniform random actions within the bounds."""

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self.low, self.high = low, high
        self.rng = np.random.default_rng(0)

    def reset(self, goal: dict[str, Any], seed: int, replay: np.ndarray | None) -> None:
        """Seed the draws."""
        self.rng = np.random.default_rng(seed)

    def act(self, observation: dict[str, Any], episode: Episode) -> np.ndarray:
        """Draw an action."""
        return self.rng.uniform(self.low, self.high).astype(np.float32)


class ReplayPolicy:
    """Replay the actions that produced the goal: shows that the goals can be reached."""

    def __init__(self, action_dim: int) -> None:
        self.zero = np.zeros(action_dim, np.float32)
        self.actions: np.ndarray = np.zeros((0, action_dim), np.float32)

    def reset(self, goal: dict[str, Any], seed: int, replay: np.ndarray | None) -> None:
        """Take the goal's actions.

        Raises:
            UserError: the task knows no actions that lead to its goals.
        """
        if replay is None:
            raise UserError("planner: 'replay' needs a task that knows actions to its goals")
        self.actions = replay

    def act(self, observation: dict[str, Any], episode: Episode) -> np.ndarray:
        """Next recorded action."""
        return self.actions[episode.steps] if episode.steps < len(self.actions) else self.zero


class PlanningPolicy:
    """Receding horizon: encode, plan, execute ``replan_every`` control steps, plan again.

    Args:
        model: world model with an encoder.
        planner: planner on that model.
        replan_every: control steps between two plans; 0 plans once and executes the whole plan
            (open loop).
        budget: planning time per tick, or None for no deadline.
        clock: monotonic clock of deadlines and timings, the planner's.
        proposer: learned guess of the plan, one more start of every search; None: none.
    """

    def __init__(
        self,
        model: WorldModel,
        planner: Planner,
        replan_every: int,
        budget: Budget | None = None,
        clock: Clock = monotonic,
        proposer: Proposer | None = None,
    ) -> None:
        self.proposer = proposer
        self.model, self.planner, self.clock = model, planner, clock
        self.replan_every, self.budget = replan_every, budget
        self.device = model.action_mean.device
        self.goal: Tensor | None = None
        self.plan: Plan | None = None
        self.commands = np.zeros((0, model.config.action_dim), np.float32)
        self.still = np.zeros(model.config.action_dim, np.float32)
        self.planned_at = 0
        self.seed = 0

    def reset(self, goal: dict[str, Any], seed: int, replay: np.ndarray | None) -> None:
        """Encode the goal and forget the last plan."""
        self.goal = self.encode(goal)
        self.plan, self.seed = None, seed

    def encode(self, observation: dict[str, Any]) -> Tensor:
        """Latent ``L`` of an observation."""
        image = torch.from_numpy(np.ascontiguousarray(observation["image"]))[None]
        proprio = torch.from_numpy(np.asarray(observation["proprio"], np.float32))[None]
        with torch.inference_mode():
            latent = self.model.encode(image.to(self.device), proprio.to(self.device))[0]
        return latent.clone()

    def act(self, observation: dict[str, Any], episode: Episode) -> np.ndarray:
        """Command of this control step; plans first when it is time."""
        since = episode.steps - self.planned_at
        if self.plan is None or (self.replan_every and since >= self.replan_every):
            self.replan(observation, episode, since)
            since = 0
        # An open-loop plan that has run out holds still, which is the zero action of all tasks.
        return self.commands[since] if since < len(self.commands) else self.still

    def replan(self, observation: dict[str, Any], episode: Episode, since: int) -> None:
        """Plan from the observation, warm-started by the last plan ``since`` control steps ago."""
        started = self.clock()
        latent = self.encode(observation)
        warm, states = self.shifted(since)
        deadline = None if self.budget is None else self.budget.deadline(self.clock())
        guess = None
        if self.proposer is not None:
            guess = self.proposer.propose(self.model, latent, self.goal)
        self.plan = self.planner.plan(
            PlanRequest(
                latent,
                self.goal,
                warm,
                guess,
                states,
                deadline,
                seed=self.seed * 1009 + episode.steps,
            )
        )
        raw = self.model.denormalize_actions(self.plan.actions)
        self.commands = raw.cpu().numpy().astype(np.float32)
        self.planned_at = episode.steps
        tick = self.clock() - started
        episode.tick_ms.append(tick * 1e3)
        episode.plan_ms.append(self.plan.wall_s * 1e3)
        episode.transitions.append(self.plan.transitions)
        episode.iterations.append(self.plan.iterations)
        episode.over_budget += self.budget is not None and self.plan.wall_s > self.budget.seconds
        episode.late += tick > self.model.config.control_period

    def shifted(self, since: int) -> tuple[Tensor | None, Tensor | None]:
        """Warm start and virtual states after ``since`` control steps."""
        if self.plan is None or self.goal is None:
            return None, None
        config = self.model.config
        elapsed, period = since * config.control_period, config.control_period
        warm = shift_plan(self.plan.actions, elapsed, period, config.frameskip, config.action_dim)
        states = self.plan.virtual_states
        if states is not None:
            states = shift_states(states, elapsed, period * config.frameskip, self.goal)
        return warm, states


def run_episode(
    env: Any, policy: Policy, seed: int, steps: int, options: dict[str, Any] | None = None
) -> Episode:
    """Run one episode.

    Args:
        env: environment from ``gymnasium.make`` that keeps the tasks' contract.
        policy: chooses the actions.
        seed: of the environment's start and goal and of the policy's draws.
        steps: control-step budget.
        options: reset options, e.g. ``goal_offset``.
    """
    episode = Episode(seed)
    observation, info = env.reset(seed=seed, options=options)
    task = env.unwrapped
    policy.reset(task.observe(task.goal_state), seed, task.goal_actions)
    episode.min_error = episode.final_error = info["error"]
    while episode.steps < steps:
        action = policy.act(observation, episode)
        observation, _, _, _, info = env.step(action)
        episode.steps += 1
        episode.final_error = info["error"]
        episode.min_error = min(episode.min_error, info["error"])
        episode.final_success = bool(info["success"])
        if episode.final_success:
            episode.success = True
            break
    episode.info = {k: float(v) for k, v in info.items() if np.isscalar(v)}
    return episode
