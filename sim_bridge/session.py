"""Episodes of a simulated task, one after the other: seeds, steps, ends, and what-if rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim_bridge.tasks.base import TaskEnv
from wm_mpc.data.trajectory import Trajectory

MAX_ROLLOUT = 10_000


@dataclass(frozen=True)
class Frame:
    """The world after a control step.

    Attributes:
        seed: seed of the episode.
        episode: counts resets, from 1.
        step: control steps since the reset.
        image: uint8 ``(H, W, 3)`` RGB.
        proprio: float32 ``(P,)`` raw units.
        state: float64 ``(S,)`` snapshot.
        errors: all distances to the goal of the task; ``error`` is the headline one.
        success: the task's criterion holds.
        ended: the episode is over with this frame.
    """

    seed: int
    episode: int
    step: int
    image: np.ndarray
    proprio: np.ndarray
    state: np.ndarray
    errors: dict[str, float]
    success: bool
    ended: bool


class Session:
    """Runs episodes; the n-th one that is not asked for by seed has seed ``first_seed + n``.

    Args:
        env: the task.
        first_seed: seed of the first episode.
        episode_steps: control steps after which an episode ends; 0: only success ends it.
    """

    def __init__(self, env: TaskEnv, first_seed: int, episode_steps: int) -> None:
        self.env = env
        self.episode_steps = episode_steps
        self.episode = 0
        self.step = 0
        self.seed = first_seed
        self._next_seed = first_seed

    def reset(
        self,
        seed: int = -1,
        start: np.ndarray | None = None,
        goal: np.ndarray | None = None,
    ) -> Frame:
        """Begin an episode.

        Args:
            seed: draws start and goal; negative: the next of the running sequence.
            start: ``(S,)`` snapshot to start from; None: drawn.
            goal: ``(S,)`` snapshot to reach; None: drawn.

        Raises:
            ValueError: a state of a wrong shape or not finite; the running episode goes on.
        """
        if not -(2**31) < seed < 2**32:
            raise ValueError(f"seed: {seed}; at most {2**32 - 1} expected")
        chosen = self._next_seed if seed < 0 else seed
        options = {"start": start, "goal": goal}
        given = {name: value for name, value in options.items() if value is not None}
        observation, info = self.env.reset(seed=chosen, options=given)
        self.seed, self._next_seed = chosen, chosen + 1
        self.episode += 1
        self.step = 0
        return self._frame(observation, info)

    def advance(self, action: np.ndarray) -> Frame:
        """One control step of ``action`` ``(action_dim,)``, clipped to the task's bounds."""
        observation, _, _, _, info = self.env.step(action)
        self.step += 1
        return self._frame(observation, info)

    def goal(self) -> tuple[np.ndarray, np.ndarray]:
        """Picture uint8 ``(H, W, 3)`` and proprioception float32 ``(P,)`` at the goal."""
        state = self.env.goal_state
        return self.env.render_state(state), self.env.proprio(state)

    def _frame(self, observation: dict[str, Any], info: dict[str, Any]) -> Frame:
        success = bool(info["success"])
        errors = {name: float(value) for name, value in info.items() if name != "success"}
        late = 0 < self.episode_steps <= self.step
        return Frame(
            seed=self.seed,
            episode=self.episode,
            step=self.step,
            image=observation["image"],
            proprio=observation["proprio"],
            state=observation["state"],
            errors=errors,
            success=success,
            ended=success or late,
        )


def rollout(
    env: TaskEnv, snapshot: np.ndarray, actions: np.ndarray, frame_stride: int = 0
) -> Trajectory:
    """What actions really do from a state.

    Args:
        env: an environment whose own state does not matter; not that of a running episode.
        snapshot: ``(S,)`` start.
        actions: ``(T, action_dim)`` raw units, 1 to 10,000 steps, clipped to the task's bounds.
        frame_stride: a picture every so many steps and one at the end; 0: start and end only.

    Returns:
        ``T`` steps with true states; stamps begin at 0.

    Raises:
        ValueError: a wrong shape, a number that is not finite, too many steps.
    """
    steps = len(actions)
    if not 1 <= steps <= MAX_ROLLOUT:
        raise ValueError(f"actions: {steps} steps; 1 to {MAX_ROLLOUT} expected")
    if frame_stride < 0:
        raise ValueError(f"frame_stride: {frame_stride}; at least 0 expected")
    checked = np.array([env.check_action(action) for action in actions])
    env.restore(snapshot)
    states = np.array([env.snapshot(), *(env.advance(action) for action in checked)])
    shown = np.unique([*range(0, steps, frame_stride or steps), steps])
    return Trajectory(
        images=np.stack([env.render_state(states[step]) for step in shown]),
        image_steps=shown.astype(np.int64),
        actions=checked.astype(np.float32),
        proprio=np.stack([env.proprio(state) for state in states]),
        stamps=np.arange(steps + 1) * env.spec_task.control_period,
        state=states,
        meta={"task": env.spec_task.name, "source": "rollout", "policy": "", "seed": -1},
    ).validate()


__all__ = ["Frame", "Session", "rollout"]
