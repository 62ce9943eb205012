"""PointMaze: gymnasium-robotics' motion, exact snapshots, pictures that match MuJoCo's."""

import os
import subprocess
import sys

import cv2
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sim_bridge.tasks import maze_render
from sim_bridge.tasks.maze_render import render_maze, render_with_mujoco
from sim_bridge.tasks.point_maze import PointMazeEnv
from sim_bridge.tasks.policies import make_policy


@pytest.fixture(scope="module")
def env() -> PointMazeEnv:
    """One environment for the module; every test puts it where it needs it."""
    return PointMazeEnv()


def drive(env: PointMazeEnv, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """States ``(steps + 1, 4)`` and actions ``(steps, 2)`` of piecewise constant random force."""
    rng = np.random.default_rng(seed)
    env.restore(env.draw_state(rng))
    states, actions = [env.snapshot()], []
    for t in range(steps):
        actions.append(rng.uniform(-1.2, 1.2, 2) if t % 6 == 0 else actions[-1])
        states.append(env.advance(actions[-1]))
    return np.array(states), np.array(actions)


def test_motion_is_that_of_gymnasium_robotics(env: PointMazeEnv) -> None:
    """Five of its steps from the same state end in the same state, walls included."""
    import gymnasium_robotics

    gym.register_envs(gymnasium_robotics)
    other = gym.make("PointMaze_UMaze-v3").unwrapped
    other.reset(seed=0)
    point, bounced = other.point_env, 0
    for seed in range(8):
        states, actions = drive(env, seed, 40)
        for t, action in enumerate(actions):
            point.set_state(states[t, :2].copy(), states[t, 2:].copy())
            for _ in range(5):
                point.step(action)
            mine = states[t + 1]
            theirs = np.concatenate([point.data.qpos, point.data.qvel])
            np.testing.assert_allclose(mine, theirs, atol=1e-6)
            bounced += np.any(mine[2:] * states[t, 2:] < 0) and np.abs(mine[2:]).max() > 1
    assert bounced > 5


@pytest.mark.parametrize("seed", range(4))
def test_restore_is_exact(env: PointMazeEnv, seed: int) -> None:
    """Any snapshot, restored into another environment, continues bit-equal."""
    states, actions = drive(env, seed, 60)
    other = PointMazeEnv()
    drive(other, 77, 5)
    for begin in (5, 31):
        other.restore(states[begin])
        np.testing.assert_array_equal(other.snapshot(), states[begin])
        for t in range(begin, 60):
            np.testing.assert_array_equal(other.advance(actions[t]), states[t + 1])


def test_seeded() -> None:
    """Same seed, same problem and run."""
    runs = []
    for _ in range(2):
        env = PointMazeEnv(image_size=32)
        obs, _ = env.reset(seed=5)
        env.action_space.seed(3)
        runs.append([env.goal_state, obs["state"]])
        runs[-1] += [env.advance(env.action_space.sample()) for _ in range(40)]
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize("bad", [(0, 0, 0, 0), (9, 0, 0, 0), (1, np.nan, 0, 0), (1, 0)])
def test_bad_snapshots_are_refused(env: PointMazeEnv, bad: tuple) -> None:
    """Walls, outside, NaN and wrong shapes raise and change nothing."""
    before = env.snapshot()
    with pytest.raises(ValueError, match="snapshot"):
        env.restore(np.array(bad, float))
    np.testing.assert_array_equal(env.snapshot(), before)
    with pytest.raises(ValueError, match="action"):
        env.advance(np.array([0.0, np.inf]))


def test_problems(env: PointMazeEnv) -> None:
    """Starts and goals cover all corridors and never begin solved; velocity does not count."""
    places = []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        state = env.check_state(env.draw_state(rng))
        assert np.abs(state[:2]).max() <= 1.3 and np.abs(state[2:]).max() <= 5.23
        places.append(state[:2])
    places = np.array(places)
    assert (places[:, 1] > 0.7).sum() > 8 and (places[:, 1] < -0.7).sum() > 8
    assert (places[:, 0] < -0.7).sum() > 3 and (np.abs(places[:, 1]) < 0.7).sum() > 8
    for seed in range(10):
        _, info = env.reset(seed=seed)
        assert not info["success"] and info["error"] >= 0.5
    goal = np.array([1.0, 0.0, 0.0, 0.0])
    assert env.success(goal + (0.3, 0.39, 4, -4), goal)
    assert not env.success(goal + (0.3, 0.4, 0, 0), goal)


@pytest.mark.parametrize("size", [64, 96])
def test_pictures_match_mujoco(env: PointMazeEnv, size: int) -> None:
    """Composited pictures equal MuJoCo's own, averaged from a finer one, at walls too."""
    rng = np.random.default_rng(0)
    positions = np.array(
        [env.draw_state(rng)[:2] for _ in range(8)]
        + [(1.4, 0), (-1.4, 1.4), (0.55, 0.55), (0.6, 0.45), (-1, -0.6)]
    )
    fine = render_with_mujoco(positions, 4 * size).astype(np.float32)
    empty = render_with_mujoco(np.array([(-1.0, 0.0)]), 4 * size)[0]
    empty = cv2.resize(empty, (size, size), interpolation=cv2.INTER_AREA).astype(int)
    for position, picture in zip(positions, fine, strict=True):
        theirs = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
        mine = render_maze(position, size)
        assert np.abs(mine - theirs).mean() < 0.2
        mask, their_mask = (np.abs(p - empty).sum(-1) > 30 for p in (mine, theirs))
        assert (mask & their_mask).sum() / (mask | their_mask).sum() > 0.85
        rows, columns = np.nonzero(np.abs(mine - empty).sum(-1) > 90)
        if np.abs(position).max() < 1.2 and np.abs(position - (0.55, 0.5)).max() > 0.3:
            centre = np.array([columns.mean() + 0.5, size - rows.mean() - 0.5])
            np.testing.assert_allclose(centre * 3.6 / size - 1.8, position, atol=0.04)


def test_pictures_show_motion_below_a_pixel() -> None:
    """A hundredth of the maze's width less than a pixel still changes the picture."""
    assert (render_maze(np.array([1.0, 0.0]), 64) != render_maze(np.array([1.01, 0.0]), 64)).any()


def test_osmesa_works_too_and_nothing_working_names_the_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MUJOCO_GL is honoured; where no backend works the error says what to install."""
    position = np.array([(1.0, 0.3)])
    pictures = {}
    for backend in ("egl", "osmesa"):
        monkeypatch.setenv("MUJOCO_GL", backend)
        try:
            pictures[backend] = render_with_mujoco(position, 64)[0].astype(int)
        except RuntimeError as error:
            assert "apt-get install" in str(error) and backend in str(error)
    assert pictures, "neither EGL nor OSMesa works on this machine"
    if len(pictures) == 2:
        assert np.abs(pictures["egl"] - pictures["osmesa"]).mean() < 1.0
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(RuntimeError, match=r"libegl1.*libosmesa6.*glfw"):
        render_with_mujoco(position, 64)


def test_a_hanging_or_missing_driver_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """EGL that hangs falls back to OSMesa; the answer of the first that works is taken."""
    real, tried = subprocess.run, []

    def run(command: list, env: dict, **kwargs: object) -> subprocess.CompletedProcess:
        tried.append(env["MUJOCO_GL"])
        if env["MUJOCO_GL"] == "egl":
            raise subprocess.TimeoutExpired(command, 1)
        return real([sys.executable, "-c", "raise SystemExit('no driver')"], env=env, **kwargs)

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(maze_render.subprocess, "run", run)
    with pytest.raises(RuntimeError, match="egl: no answer.*osmesa: no driver"):
        render_with_mujoco(np.zeros((1, 2)), 64)
    assert tried == ["egl", "osmesa"]


def test_importing_tasks_loads_no_simulator() -> None:
    """Push-T and Wall never import mujoco; listing tasks imports neither simulator."""
    script = (
        "import sys, sim_bridge.tasks; assert not {'mujoco', 'pymunk'} & set(sys.modules);"
        "import gymnasium; gymnasium.make('wm_mpc/PushT-v0').reset(seed=0);"
        "gymnasium.make('wm_mpc/Wall-v0').reset(seed=0); assert 'mujoco' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_gymnasium_accepts_the_environment() -> None:
    """The id resolves from a bare import string, and gymnasium's own checker passes."""
    env = gym.make("sim_bridge:wm_mpc/PointMaze-v0", image_size=32)
    assert env.unwrapped.metadata["render_fps"] == 20
    check_env(env.unwrapped)


@pytest.mark.parametrize("name", ["waypoint", "random", "mixed"])
def test_policies_explore(env: PointMazeEnv, name: str) -> None:
    """Actions stay in bounds; waypoints lead from arm to arm."""
    changed = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        env.restore(env.draw_state(rng))
        policy = make_policy(env, name, rng)
        states = [env.snapshot()]
        for _ in range(150):
            action = policy.act(states[-1])
            assert action.dtype == np.float32 and env.action_space.contains(action)
            states.append(env.advance(action))
        y = np.array(states)[:, 1]
        changed += y.max() > 0.8 and y.min() < -0.8
    assert changed >= {"waypoint": 8, "mixed": 4, "random": 0}[name]
