"""Wall: nothing passes the wall but through the door; exact, seeded, drawn at any size."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sim_bridge.tasks.policies import make_policy
from sim_bridge.tasks.wall import WallEnv, is_free, move


@pytest.fixture
def env() -> WallEnv:
    """A fresh environment."""
    return WallEnv()


@pytest.mark.parametrize("seed", range(5))
def test_no_move_ends_in_a_wall_or_passes_through_it(seed: int) -> None:
    """Any move from free space ends in free space; rooms change only through the door."""
    rng = np.random.default_rng(seed)
    position, crossings = np.array([20.0, 30.0]), 0
    for _ in range(4000):
        step = rng.uniform(-3.6, 3.6, 2) + (0, 0.1 * (30 - position[1]))
        new = move(position, step)
        assert is_free(new)
        if (position[0] < 29) != (new[0] < 29):
            crossing = (
                position[1] + (29 - position[0]) / (new[0] - position[0]) * (new - position)[1]
            )
            assert 26 <= crossing <= 34
            crossings += 1
        position = new
    assert crossings > 5


@pytest.mark.parametrize("seed", range(3))
def test_moves_that_meet_nothing_are_exact(seed: int) -> None:
    """In the open the displacement is applied as it is."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        position, step = rng.uniform(10, 22, 2), rng.uniform(-3.6, 3.6, 2)
        np.testing.assert_array_equal(move(position, step), position + step)


@pytest.mark.parametrize(
    ("start", "step", "end"),
    [
        ((6, 20), (-3, 3), (4.5, 22)),  # border: back along its normal, no sliding
        ((58, 20), (4, 0), (59.5, 20)),
        ((20, 58), (2, 4), (21, 59.5)),
        ((28, 50), (2, 0), (28.5, 50)),  # left face of the wall
        ((36, 10), (-2, 2), (35.5, 11)),  # right face
        ((28, 30), (3, 0), (31, 30)),  # through the door
        ((32, 27), (0, -2), (32, 26.5)),  # side of the door
        ((32, 33), (1, 2), (32.5, 33.5)),
        ((5, 5), (-2, -2), (5, 5)),  # exactly into a corner: stays
        ((28, 25), (2, 2), (28, 25)),  # exactly onto the corner of the door: stays
    ],
)
def test_collisions(start: tuple, step: tuple, end: tuple) -> None:
    """Every kind of surface, by hand."""
    np.testing.assert_allclose(move(np.array(start, float), np.array(step, float)), end)


def test_actions_move_two_pixels_per_unit_and_are_clipped(env: WallEnv) -> None:
    """Displacement is twice the action, bounded at 1.8 per axis."""
    env.restore(np.array([15.0, 20.0]))
    np.testing.assert_allclose(env.advance(np.array([0.5, -1.0])), [16, 18])
    np.testing.assert_allclose(env.advance(np.array([9.0, -9.0])), [19.6, 14.4])
    with pytest.raises(ValueError, match="action"):
        env.advance(np.array([np.nan, 0]))


@pytest.mark.parametrize("bad", [(30.0, 50.0), (3.9, 30.0), (np.nan, 30.0), (20.0,), (32.0, 34.0)])
def test_bad_snapshots_are_refused(env: WallEnv, bad: tuple) -> None:
    """Walls, outside, NaN and wrong shapes raise and change nothing."""
    before = env.snapshot()
    with pytest.raises(ValueError, match="snapshot"):
        env.restore(np.array(bad))
    np.testing.assert_array_equal(env.snapshot(), before)


def test_seeded_and_exactly_restored(env: WallEnv) -> None:
    """Same seed, same run; a restored snapshot continues bit-equal."""
    other, runs = WallEnv(), []
    for e in (env, other):
        e.reset(seed=11)
        e.action_space.seed(2)
        runs.append([e.goal_state, *(e.advance(e.action_space.sample()) for _ in range(60))])
    np.testing.assert_array_equal(*runs)
    middle = runs[0][20]
    env.action_space.seed(2)
    actions = [env.action_space.sample() for _ in range(60)]
    env.restore(middle)
    for t in range(20, 60):
        np.testing.assert_array_equal(env.advance(actions[t]), runs[0][t + 1])


def test_start_and_goal_lie_in_opposite_rooms(env: WallEnv) -> None:
    """Always, in both directions, also when one of them is given."""
    left = 0
    for seed in range(60):
        obs, info = env.reset(seed=seed)
        assert (obs["state"][0] < 32) != (env.goal_state[0] < 32)
        assert is_free(env.goal_state) and not info["success"]
        left += obs["state"][0] < 32
    assert 15 < left < 45
    for name in ("start", "goal"):
        for x in (10.0, 50.0):
            obs, _ = env.reset(seed=1, options={name: np.array([x, 20.0])})
            assert (obs["state"][0] < 32) != (env.goal_state[0] < 32)
            given = obs["state"] if name == "start" else env.goal_state
            np.testing.assert_array_equal(given, [x, 20.0])


def test_success_is_a_distance_below_four_and_a_half(env: WallEnv) -> None:
    """The bound itself fails."""
    goal = np.array([20.0, 20.0])
    assert env.success(goal + (4.49, 0), goal) and not env.success(goal + (4.5, 0), goal)
    assert env.errors(goal + (3, 4), goal) == {"error": 5.0}


@pytest.mark.parametrize("size", [32, 65, 96, 224])
def test_picture(env: WallEnv, size: int) -> None:
    """The red dot's centroid is the position; walls are black; the door is open."""
    state = np.array([17.3, 41.8])
    picture = env.render_state(state, size).astype(float)
    assert picture.shape == (size, size, 3)
    red = picture[..., 0] - picture[..., 1]
    at = (np.arange(size) + 0.5) * 65 / size - 0.5
    centroid = [(red.sum(0) * at).sum() / red.sum(), (red.sum(1) * at).sum() / red.sum()]
    np.testing.assert_allclose(centroid, state, atol=0.05)

    def pixel(x: float, y: float) -> np.ndarray:
        return picture[int((y + 0.5) * size / 65), int((x + 0.5) * size / 65)]

    np.testing.assert_array_equal(pixel(32, 15), 0)
    np.testing.assert_array_equal(pixel(32, 30), 255)
    np.testing.assert_array_equal(pixel(50, 15), 255)
    assert picture[:, int(4.5 * size / 65)].mean() < 200


def test_gymnasium_accepts_the_environment() -> None:
    """The id resolves from a bare import string, and gymnasium's own checker passes."""
    env = gym.make("sim_bridge:wm_mpc/Wall-v0")
    check_env(env.unwrapped)


@pytest.mark.parametrize("name", ["waypoint", "random", "mixed", "box"])
def test_policies_explore_both_rooms(env: WallEnv, name: str) -> None:
    """Actions stay in bounds; the waypoint policies pass the door often."""
    crossed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        env.restore(env.draw_state(rng))
        policy = make_policy(env, name, rng)
        states = [env.snapshot()]
        for _ in range(100):
            action = policy.act(states[-1])
            assert action.dtype == np.float32 and env.action_space.contains(action)
            states.append(env.advance(action))
        sides = np.array(states)[:, 0] < 32
        crossed += sides.any() and not sides.all()
    assert crossed >= {"waypoint": 14, "mixed": 4, "random": 1, "box": 1}[name]
