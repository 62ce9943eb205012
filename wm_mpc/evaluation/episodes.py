"""One evaluation episode in the true simulator: a policy acts until success or the step budget.

Policies are the controller (``loop``) and the baselines it is compared with. None of them sees the
simulator's state.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from wm_mpc.core.errors import UserError
from wm_mpc.evaluation.kept import Frame


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
        tick_ms: picture in, command out, per planning tick [ms].
        plan_ms: planning alone [ms].
        transitions: model transitions per planning tick.
        iterations: optimiser iterations per planning tick.
        over_budget: ticks whose planning outlasted their budget.
        late: ticks whose planning missed its deadline, or that outlasted the control period.
        stopped: reason of every tick in which the controller brought the robot to rest.
        plan: ``(T, action_dim)`` raw actions that the controller now believes in, or None.
        frames: kept pictures, for a film strip; empty where none were wanted.
        goal: uint8 ``(H, W, 3)`` RGB picture of the goal, kept with them.
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
    stopped: list[str] = field(default_factory=list)
    plan: np.ndarray | None = None
    frames: list[Frame] = field(default_factory=list)
    goal: np.ndarray | None = None


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


class Delayed:
    """A policy whose actions take effect some control steps after they are chosen.

    Until then the robot gets the zero action.

    Args:
        policy: chooses.
        steps: control steps, at least 1.
        action_dim: width of an action.
    """

    def __init__(self, policy: Policy, steps: int, action_dim: int) -> None:
        self.policy, self.steps = policy, steps
        self.zero = np.zeros(action_dim, np.float32)
        self._waiting: deque[np.ndarray] = deque()

    def reset(self, goal: dict[str, Any], seed: int, replay: np.ndarray | None) -> None:
        """Begin an episode in which nothing is on its way."""
        self._waiting = deque([self.zero] * self.steps)
        self.policy.reset(goal, seed, replay)

    def act(self, observation: dict[str, Any], episode: Episode) -> np.ndarray:
        """The action whose time has come."""
        self._waiting.append(self.policy.act(observation, episode))
        return self._waiting.popleft()


def run_episode(
    env: Any, policy: Policy, seed: int, steps: int, options: dict[str, Any] | None = None,
    keep: int = 0,
) -> Episode:  # fmt: skip
    """Run one episode.

    Args:
        env: environment from ``gymnasium.make`` that keeps the tasks' contract.
        policy: chooses the actions.
        seed: of the environment's start and goal and of the policy's draws.
        steps: control-step budget.
        options: reset options, e.g. ``goal_offset``.
        keep: control steps between kept pictures; 0: none.
    """
    episode = Episode(seed)
    observation, info = env.reset(seed=seed, options=options)
    task = env.unwrapped
    goal = task.observe(task.goal_state)
    policy.reset(goal, seed, task.goal_actions)
    episode.goal = goal["image"] if keep else None
    episode.min_error = episode.final_error = info["error"]
    while episode.steps < steps:
        action = policy.act(observation, episode)
        if keep and episode.steps % keep == 0:
            _keep(episode, observation)
        observation, _, _, _, info = env.step(action)
        episode.steps += 1
        episode.final_error = info["error"]
        episode.min_error = min(episode.min_error, info["error"])
        episode.final_success = bool(info["success"])
        if episode.final_success:
            episode.success = True
            break
    if keep:
        _keep(episode, observation)
    episode.info = {k: float(v) for k, v in info.items() if np.isscalar(v)}
    return episode


def _keep(episode: Episode, observation: dict[str, Any]) -> None:
    image, proprio = observation["image"], observation["proprio"]
    episode.frames.append(Frame.keep(episode.steps, image, proprio, episode.plan))
