"""What every simulated task offers: a gymnasium environment with exact snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


@dataclass(frozen=True)
class TaskSpec:
    """Constants of a task. Actions, proprioception and state are in the task's raw units.

    Attributes:
        name: short name used on the command line, e.g. ``pusht``.
        env_id: gymnasium id; ``gymnasium.make("sim_bridge:" + env_id)`` imports and registers it.
        control_period: seconds between two actions.
        frameskip: control steps per world-model step in the published set-ups.
        action_low, action_high: bounds per action dimension.
        proprio_names: joint names published for the position half; proprio is ``[positions,
            velocities]`` or positions only.
        proprio_dim, state_dim: widths.
        goal_offset: how many control steps ahead goals lie (published protocol).
        episode_steps: environment-step budget of an evaluation episode.
        error_unit: unit of ``errors()["error"]``, e.g. ``px`` or ``m``.
    """

    name: str
    env_id: str
    control_period: float
    frameskip: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    proprio_names: tuple[str, ...]
    proprio_dim: int
    state_dim: int
    goal_offset: int
    episode_steps: int
    error_unit: str

    @property
    def action_dim(self) -> int:
        """Number of raw action dimensions."""
        return len(self.action_low)


class TaskEnv(gym.Env):
    """Base of the task environments.

    Observations are ``{"image": uint8 (H, W, 3) RGB, "proprio": float32 (P,), "state": float64
    (S,)}``. ``reset(seed=..., options=...)`` draws a start and a goal; options: ``goal_offset``
    (control steps ahead, default ``spec_task.goal_offset``), ``start`` and ``goal`` (state vectors
    that replace the drawn ones), and what a task adds in ``reset_options``. ``step`` clips the
    action to its bounds and returns ``terminated`` on success, and ``errors(...)`` plus
    ``success`` in ``info``. The reward is ``-errors()["error"]``. The same seed and actions give
    bit-equal states.

    A task implements ``snapshot``, ``restore``, ``advance``, ``proprio``, ``render_state``,
    ``in_picture``, ``errors``, ``success`` and ``_draw_problem``.

    Attributes:
        spec_task: constants of the task.
        goal_state: state of the current goal, float64 ``(state_dim,)``.
        goal_actions: float32 ``(goal_offset, action_dim)`` that lead from the start to the goal,
            or None where the goal was not reached by a policy.
    """

    spec_task: TaskSpec
    goal_state: np.ndarray
    goal_actions: np.ndarray | None = None
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    reset_options: ClassVar[tuple[str, ...]] = ("goal_offset", "start", "goal")

    def __init__(self, image_size: int = 96, render_mode: str | None = "rgb_array") -> None:
        """Create the environment.

        Args:
            image_size: height and width of observation images [px], 16 to 2048.
            render_mode: ``rgb_array`` or None.

        Raises:
            ValueError: a value out of range.
        """
        if not 16 <= image_size <= 2048:
            raise ValueError(f"image_size: {image_size} px is outside [16, 2048]")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode: {render_mode!r}; 'rgb_array' or None expected")
        spec = self.spec_task
        self.image_size = image_size
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": round(1 / spec.control_period)}
        self.action_space = spaces.Box(
            np.float32(spec.action_low), np.float32(spec.action_high), dtype=np.float32
        )
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
                "proprio": spaces.Box(-np.inf, np.inf, (spec.proprio_dim,), np.float32),
                "state": spaces.Box(-np.inf, np.inf, (spec.state_dim,), np.float64),
            }
        )

    def snapshot(self) -> np.ndarray:
        """Return the whole simulator state, float64 ``(state_dim,)``."""
        raise NotImplementedError

    def restore(self, snapshot: np.ndarray) -> None:
        """Enter ``snapshot`` exactly: the same actions then give bit-equal states.

        Raises:
            ValueError: wrong shape or a non-finite entry; the simulator is left as it was.
        """
        raise NotImplementedError

    def advance(self, action: np.ndarray) -> np.ndarray:
        """Simulate one control step without rendering; the fast path of data collection.

        Args:
            action: ``(action_dim,)``, clipped to the bounds.

        Returns:
            The new snapshot.

        Raises:
            ValueError: wrong shape or a non-finite entry; the simulator is left as it was.
        """
        raise NotImplementedError

    def proprio(self, state: np.ndarray) -> np.ndarray:
        """Proprioception a robot would report in ``state``, float32 ``(proprio_dim,)``."""
        raise NotImplementedError

    def render_state(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """Picture of ``state``, uint8 ``(size, size, 3)`` RGB, without touching the simulation."""
        raise NotImplementedError

    def in_picture(self, state: np.ndarray) -> np.ndarray:
        """Where the picture of ``state`` shows the robot: x, y as fractions of its side, (2,)."""
        raise NotImplementedError

    def errors(self, state: np.ndarray, goal: np.ndarray) -> dict[str, float]:
        """Distances between two states; ``error`` is the headline, in ``error_unit``."""
        raise NotImplementedError

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        """The published success criterion of the task."""
        raise NotImplementedError

    def draw_state(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a start state from the published distribution, float64 ``(state_dim,)``."""
        raise NotImplementedError

    def _draw_problem(
        self, options: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Draw ``(start, goal, goal_actions)``; ``options`` are checked and complete."""
        raise NotImplementedError

    def observe(self, state: np.ndarray | None = None) -> dict[str, Any]:
        """Observation of ``state`` (default: the current one)."""
        state = self.snapshot() if state is None else state
        return {"image": self.render_state(state), "proprio": self.proprio(state), "state": state}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw a start and a goal (see the class) and go to the start.

        Raises:
            ValueError: an unknown option or a value out of range.
        """
        super().reset(seed=seed)
        checked = self._check_options(options or {})
        start, goal, self.goal_actions = self._draw_problem(checked)
        self.restore(start)
        self.goal_state = np.asarray(goal, np.float64).copy()
        return self.observe(), self._verdict(self.snapshot())

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step; see the class for what is returned."""
        state = self.advance(action)
        info = self._verdict(state)
        return self.observe(state), -info["error"], info["success"], False, info

    def render(self) -> np.ndarray | None:
        """Picture of the current state, uint8 ``(H, W, 3)``, or None without a render mode."""
        return None if self.render_mode is None else self.render_state(self.snapshot())

    def check_state(self, state: np.ndarray, name: str = "snapshot") -> np.ndarray:
        """Return ``state`` as a float64 ``(state_dim,)`` copy.

        Raises:
            ValueError: wrong shape or a non-finite entry.
        """
        value = np.array(state, np.float64)
        if value.shape != (self.spec_task.state_dim,):
            raise ValueError(
                f"{name}: shape {value.shape}; ({self.spec_task.state_dim},) expected"
            )
        if not np.isfinite(value).all():
            raise ValueError(f"{name}: entry {int(np.argmin(np.isfinite(value)))} is not finite")
        return value

    def check_action(self, action: np.ndarray) -> np.ndarray:
        """Return ``action`` as float64 ``(action_dim,)``, clipped to the bounds.

        Raises:
            ValueError: wrong shape or a non-finite entry.
        """
        value = np.asarray(action, np.float64)
        if value.shape != (self.spec_task.action_dim,):
            raise ValueError(
                f"action: shape {value.shape}; ({self.spec_task.action_dim},) expected"
            )
        if not np.isfinite(value).all():
            raise ValueError(f"action: entry {int(np.argmin(np.isfinite(value)))} is not finite")
        return np.clip(value, self.spec_task.action_low, self.spec_task.action_high)

    def _verdict(self, state: np.ndarray) -> dict[str, Any]:
        return {
            **self.errors(state, self.goal_state),
            "success": self.success(state, self.goal_state),
        }

    def _check_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(options) - set(self.reset_options))
        if unknown:
            raise ValueError(
                f"options: {unknown[0]!r} is unknown; one of {', '.join(self.reset_options)}"
            )
        checked = {"goal_offset": self.spec_task.goal_offset, **options}
        offset = checked["goal_offset"]
        if not 1 <= offset <= 1000 or int(offset) != offset:
            raise ValueError(f"goal_offset: {offset} is not a whole number within [1, 1000]")
        for name in ("start", "goal"):
            if checked.get(name) is not None:
                checked[name] = self.check_state(checked[name], name)
            else:
                checked.pop(name, None)
        return checked
