"""PointMaze: gymnasium-robotics' PointMaze_UMaze at 20 Hz, as d4rl and DINO-WM define the task.

A force-driven ball (gear 100, damping 1, velocity clipped to 5 m/s before every 10 ms step) in a
U-shaped maze; five physics steps per action. Start and goal are drawn from d4rl's regions, mapped
to this maze's coordinates (within 0.3 m of the corridors' centre lines, velocity within 5.23 m/s);
success within 0.5 m, whatever the velocity (DINO-WM, arXiv:2411.04983).

Snapshots. Position and velocity are the whole state: every control step forgets the contact
solver's warm start, all that MuJoCo would carry over otherwise. The motion equals that of
gymnasium-robotics to the solver's tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from sim_bridge.tasks.base import TaskEnv
from sim_bridge.tasks.maze_model import UMAZE, Maze, build_model
from sim_bridge.tasks.simulations.point_maze import SPEC

SUBSTEPS = 5
"""Physics steps of 10 ms per control step."""
MAX_VELOCITY = 5.0
"""Velocity bound before each physics step [m/s]."""
TOLERANCE = 0.5
"""Success bound [m]."""

_CORRIDOR, _HALF_WIDTH, _DRAWN_VELOCITY = 1.0, 0.3, 5.23


class PointMazeEnv(TaskEnv):
    """PointMaze as a task; see the module. State and proprioception are ``(x, y, vx, vy)``."""

    spec_task = SPEC
    maze: ClassVar[Maze] = UMAZE

    def __init__(self, image_size: int = 96, render_mode: str | None = "rgb_array") -> None:
        """Create the environment; arguments as in ``TaskEnv``. Nothing is rendered yet."""
        import mujoco

        super().__init__(image_size, render_mode)
        self._mujoco = mujoco
        self._model = build_model(self.maze)
        self._data = mujoco.MjData(self._model)
        self._state = np.array([*self.maze.shown, 0.0, 0.0])
        self.goal_state = self._state.copy()

    def snapshot(self) -> np.ndarray:
        """Return the whole simulator state, float64 ``(4,)``."""
        return self._state.copy()

    def restore(self, snapshot: np.ndarray) -> None:
        """Put the ball into ``snapshot`` exactly; raises ValueError where that is in a wall."""
        self._state = self.check_state(snapshot)

    def check_state(self, state: np.ndarray, name: str = "snapshot") -> np.ndarray:
        """As ``TaskEnv.check_state``; positions in a wall or outside the maze raise too."""
        value = super().check_state(state, name)
        if not self.maze.is_free(*self.maze.cell_of(value[0], value[1])):
            raise ValueError(f"{name}: {value[:2].tolist()} m lies in a wall or outside the maze")
        return value

    def advance(self, action: np.ndarray) -> np.ndarray:
        """One control step of the force ``action`` (2,)."""
        data, model, step = self._data, self._model, self._mujoco.mj_step
        data.ctrl[:] = self.check_action(action)
        data.qpos[:] = self._state[:2]
        data.qvel[:] = self._state[2:]
        data.qacc_warmstart[:] = 0.0
        for _ in range(SUBSTEPS):
            np.clip(data.qvel, -MAX_VELOCITY, MAX_VELOCITY, out=data.qvel)
            step(model, data)
        self._state = np.concatenate([data.qpos, data.qvel])
        return self._state.copy()

    def proprio(self, state: np.ndarray) -> np.ndarray:
        """Position [m] and velocity [m/s], float32 ``(4,)``."""
        return np.asarray(state, np.float32).copy()

    def render_state(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """View from above; see ``TaskEnv``. Raises RuntimeError where OpenGL is missing."""
        from sim_bridge.tasks.maze_render import render_maze

        return render_maze(np.asarray(state, np.float64)[:2], size or self.image_size, self.maze)

    def in_picture(self, state: np.ndarray) -> np.ndarray:
        """Centre of the ball; see ``TaskEnv``."""
        x, y = np.asarray(state, np.float64)[:2]
        return np.array([0.5 + x / self.maze.view, 0.5 - y / self.maze.view])

    def errors(self, state: np.ndarray, goal: np.ndarray) -> dict[str, float]:
        """Distance of the positions [m]."""
        diff = np.asarray(state, np.float64) - np.asarray(goal, np.float64)
        return {"error": math.hypot(diff[0], diff[1])}

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        """Distance below 0.5 m; the velocity does not count."""
        return self.errors(state, goal)["error"] < TOLERANCE

    def draw_state(self, rng: np.random.Generator) -> np.ndarray:
        """d4rl's start distribution: uniform along y, then across the corridors met there."""
        reach = _CORRIDOR + _HALF_WIDTH
        y = rng.uniform(-reach, reach)
        in_arm = abs(y) >= _CORRIDOR - _HALF_WIDTH
        x = rng.uniform(-reach if in_arm else _CORRIDOR - _HALF_WIDTH, reach)
        return np.array([x, y, *rng.uniform(-_DRAWN_VELOCITY, _DRAWN_VELOCITY, 2)])

    def _draw_problem(
        self, options: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        start, goal = self.draw_state(self.np_random), self.draw_state(self.np_random)
        while self.success(options.get("start", start), options.get("goal", goal)):
            start, goal = self.draw_state(self.np_random), self.draw_state(self.np_random)
            if "start" in options and "goal" in options:
                break
        return options.get("start", start), options.get("goal", goal), None
