"""PointMaze medium: gymnasium-robotics' walls, long ways, and a policy that finds them."""

from __future__ import annotations

import numpy as np
import pytest

from sim_bridge.tasks.grid_policy import ways_to
from sim_bridge.tasks.maze_model import MEDIUM
from sim_bridge.tasks.point_maze_medium import MediumMazeEnv
from sim_bridge.tasks.policies import make_policy


@pytest.fixture(scope="module")
def env() -> MediumMazeEnv:
    return MediumMazeEnv(image_size=48)


def test_the_walls_are_the_originals() -> None:
    maps = pytest.importorskip("gymnasium_robotics.envs.maze.maps")
    assert [list(row) for row in MEDIUM.cells] == maps.MEDIUM_MAZE


def test_every_free_cell_is_reached_from_every_other() -> None:
    cells = MEDIUM.free_cells()
    assert len(cells) == 26
    for target in cells:
        assert set(ways_to(MEDIUM, target)) == set(cells) - {target}


def test_walls_stop_the_ball_where_the_map_has_them(env: MediumMazeEnv) -> None:
    """Pushed to the right in every free cell, it stays out of the walls."""
    for cell in MEDIUM.free_cells():
        env.restore(np.array([*MEDIUM.middle(*cell), 0.0, 0.0]))
        for _ in range(6):
            x, y = env.advance(np.array([1.0, 0.0], np.float32))[:2]
        right = cell
        while MEDIUM.is_free(right[0], right[1] + 1):
            right = (right[0], right[1] + 1)
        assert MEDIUM.is_free(*MEDIUM.cell_of(x, y))
        assert x < MEDIUM.middle(*right)[0] + 0.5


def test_problems_begin_unsolved_in_free_cells(env: MediumMazeEnv) -> None:
    apart = []
    for seed in range(30):
        _, info = env.reset(seed=seed)
        state = env.snapshot()
        assert not env.success(state, env.goal_state)
        assert MEDIUM.is_free(*MEDIUM.cell_of(*env.goal_state[:2]))
        assert not state[2:].any()
        apart.append(env.errors(state, env.goal_state)["error"])
    assert max(apart) > 5


def test_the_picture_shows_ball_and_walls(env: MediumMazeEnv) -> None:
    state = np.array([*MEDIUM.middle(1, 1), 0.0, 0.0])
    picture = env.render_state(state)
    column, row = (env.in_picture(state) * 48).astype(int)
    red, green, blue = picture[row, column].astype(int)
    assert green > red and green > blue  # the ball
    other = env.in_picture(np.array([*MEDIUM.middle(0, 4), 0.0, 0.0]))
    red, green, blue = picture[int(max(other[1], 0) * 48), int(other[0] * 48)].astype(int)
    assert red > green > blue  # a wall


def test_waypoints_lead_through_the_maze(env: MediumMazeEnv) -> None:
    visited = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        env.restore(env.draw_state(rng))
        policy = make_policy(env, "waypoint", rng)
        cells = set()
        for _ in range(250):
            state = env.advance(policy.act(env.snapshot()))
            cells.add(MEDIUM.cell_of(state[0], state[1]))
        visited.append(len(cells))
    assert min(visited) >= 8
