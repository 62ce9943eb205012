"""Wall: a dot must pass the door to reach the other room; DINO-WM's environment, own code.

Definition: Zhou et al. 2024, "DINO-WM", arXiv:2411.04983. World of 65 x 65 px with borders at 4
and 60, a wall from x = 29 to 35 and a door in it from y = 26 to 34. First-order motion: position
+ 2 px x action. Start and goal lie in opposite rooms; success within 4.5 px.

One deliberate simplification: a move that meets a border, the wall or a side of the door ends at
the meeting point, pushed back 0.5 px along that surface's normal (no sliding). DINO-WM also shifts
the point by 0.5 px along the surface.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim_bridge.tasks.base import TaskEnv
from sim_bridge.tasks.simulations.wall import SPEC

WORLD = 65.0
"""Width and height of the world [px]."""
LOW, HIGH = 4.0, 60.0
"""Borders [px]."""
WALL_LEFT, WALL_RIGHT = 29.0, 35.0
"""Faces of the wall, x [px]."""
DOOR_LOW, DOOR_HIGH = 26.0, 34.0
"""Sides of the door, y [px]."""
ACTION_SCALE = 2.0
"""Displacement for an action of 1 [px]."""
TOLERANCE = 4.5
"""Success bound [px]."""

_PUSH_BACK = 0.5
_DOT_STD = 1.7
_LEFT_ROOM, _RIGHT_ROOM, _ROWS = (7.4, 25.6), (38.4, 56.6), (7.4, 56.6)
# Surfaces as (axis of the normal, position on it, extent along the other axis).
_SURFACES = (
    (0, LOW, LOW, HIGH),
    (0, HIGH, LOW, HIGH),
    (1, LOW, LOW, HIGH),
    (1, HIGH, LOW, HIGH),
    (0, WALL_LEFT, LOW, DOOR_LOW),
    (0, WALL_LEFT, DOOR_HIGH, HIGH),
    (0, WALL_RIGHT, LOW, DOOR_LOW),
    (0, WALL_RIGHT, DOOR_HIGH, HIGH),
    (1, DOOR_LOW, WALL_LEFT, WALL_RIGHT),
    (1, DOOR_HIGH, WALL_LEFT, WALL_RIGHT),
)


def move(position: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Move a point through the world.

    Args:
        position: ``(2,)`` [px] in free space.
        displacement: ``(2,)`` [px].

    Returns:
        The new position ``(2,)`` [px], in free space; see the module for collisions.
    """
    start, step = position.tolist(), displacement.tolist()
    first, hit = 1.0, None
    for axis, at, low, high in _SURFACES:
        if step[axis] == 0.0:
            continue
        fraction = (at - start[axis]) / step[axis]
        across = start[1 - axis] + fraction * step[1 - axis]
        if 0.0 <= fraction <= first and low <= across <= high:
            first, hit = fraction, (axis, at)
    end = [start[0] + first * step[0], start[1] + first * step[1]]
    if hit is not None:
        axis, at = hit
        end[axis] = at - math.copysign(_PUSH_BACK, step[axis])
        if not is_free(end):  # met two surfaces at once, exactly in their corner
            return position.copy()
    return np.array(end)


def is_free(position: Sequence[float] | np.ndarray) -> bool:
    """Whether ``(2,)`` lies strictly within the borders and outside the wall."""
    x, y = float(position[0]), float(position[1])
    if not (LOW < x < HIGH and LOW < y < HIGH):
        return False
    return not WALL_LEFT <= x <= WALL_RIGHT or DOOR_LOW < y < DOOR_HIGH


class WallEnv(TaskEnv):
    """Wall as a task; see the module. State and proprioception are ``(x, y)`` [px]."""

    spec_task = SPEC

    def __init__(self, image_size: int = 96, render_mode: str | None = "rgb_array") -> None:
        """Create the environment; arguments as in ``TaskEnv``."""
        super().__init__(image_size, render_mode)
        self._position = np.array([16.5, 30.0])
        self.goal_state = self._position.copy()

    def snapshot(self) -> np.ndarray:
        """Return the whole simulator state, float64 ``(2,)``."""
        return self._position.copy()

    def restore(self, snapshot: np.ndarray) -> None:
        """Go to ``snapshot``; raises ValueError where that is not free space."""
        self._position = self.check_state(snapshot)

    def check_state(self, state: np.ndarray, name: str = "snapshot") -> np.ndarray:
        """As ``TaskEnv.check_state``; positions in a wall or outside the borders raise too."""
        value = super().check_state(state, name)
        if not is_free(value):
            raise ValueError(f"{name}: {value.tolist()} px lies in a wall or outside the borders")
        return value

    def advance(self, action: np.ndarray) -> np.ndarray:
        """One control step of ``action`` (2,)."""
        self._position = move(self._position, ACTION_SCALE * self.check_action(action))
        return self._position.copy()

    def proprio(self, state: np.ndarray) -> np.ndarray:
        """Position [px], float32 ``(2,)``."""
        return np.asarray(state, np.float32).copy()

    def render_state(self, state: np.ndarray, size: int | None = None) -> np.ndarray:
        """Red dot on white, walls black; see ``TaskEnv``."""
        size = size or self.image_size
        cover = _wall_cover(size)
        centres = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(WORLD / size) - 0.5
        along = np.exp(-0.5 * ((centres - np.float32(state[0])) / _DOT_STD) ** 2)
        down = np.exp(-0.5 * ((centres - np.float32(state[1])) / _DOT_STD) ** 2)
        picture = np.empty((size, size, 3), np.float32)
        picture[..., 0] = cover
        picture[..., 1] = picture[..., 2] = cover * (1.0 - np.outer(down, along))
        return (255.0 * picture + 0.5).astype(np.uint8)

    def in_picture(self, state: np.ndarray) -> np.ndarray:
        """Centre of the dot; see ``TaskEnv``."""
        return (np.asarray(state, np.float64)[:2] + 0.5) / WORLD

    def errors(self, state: np.ndarray, goal: np.ndarray) -> dict[str, float]:
        """Distance [px]."""
        diff = np.asarray(state, np.float64) - np.asarray(goal, np.float64)
        return {"error": math.hypot(diff[0], diff[1])}

    def success(self, state: np.ndarray, goal: np.ndarray) -> bool:
        """Distance below 4.5 px."""
        return self.errors(state, goal)["error"] < TOLERANCE

    def draw_state(self, rng: np.random.Generator) -> np.ndarray:
        """Uniform in either room."""
        room = (_LEFT_ROOM, _RIGHT_ROOM)[int(rng.integers(2))]
        return _draw_in(room, rng)

    def _draw_problem(
        self, options: Mapping[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Start and goal in opposite rooms, also when one of the two is given."""
        given = options.get("start", options.get("goal"))
        rng = self.np_random
        if given is None:
            given_left = bool(rng.integers(2))
        else:
            given_left = bool(given[0] < (WALL_LEFT + WALL_RIGHT) / 2)
        start_left = given_left if "start" in options or "goal" not in options else not given_left
        rooms = (_LEFT_ROOM, _RIGHT_ROOM) if start_left else (_RIGHT_ROOM, _LEFT_ROOM)
        start, goal = (_draw_in(room, rng) for room in rooms)
        return options.get("start", start), options.get("goal", goal), None


def _draw_in(room: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    return np.array([rng.uniform(*room), rng.uniform(*_ROWS)])


@functools.lru_cache(maxsize=8)
def _wall_cover(size: int) -> np.ndarray:
    """Fraction of each pixel that is not wall, float32 ``(size, size)``."""
    edges = np.arange(size + 1) * (WORLD / size) - 0.5

    def covered(low: float, high: float) -> np.ndarray:
        inside = np.clip(edges, low, high)
        return np.diff(inside) / np.diff(edges)

    line = np.maximum(covered(LOW - 0.5, LOW + 0.5), covered(HIGH - 0.5, HIGH + 0.5))
    span = covered(LOW - 0.5, HIGH + 0.5)
    borders = np.maximum(np.outer(line, span), np.outer(span, line))
    shut = covered(LOW, HIGH) - covered(DOOR_LOW, DOOR_HIGH)
    wall = np.outer(shut, covered(WALL_LEFT, WALL_RIGHT))
    return (1.0 - np.maximum(borders, wall)).astype(np.float32)
