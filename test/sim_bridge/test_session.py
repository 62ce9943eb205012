import numpy as np
import pytest

from sim_bridge.session import Session, rollout
from sim_bridge.tasks import make_task

ZERO = np.zeros(2)


@pytest.fixture
def session() -> Session:
    return Session(make_task("pusht", image_size=32), first_seed=7, episode_steps=5)


def test_seeds_follow_each_other_and_a_given_one_moves_the_sequence(session: Session) -> None:
    seeds = [session.reset(seed).seed for seed in (-1, -1, 40, -1)]
    assert seeds == [7, 8, 40, 41] and session.episode == 4


def test_the_same_seed_is_the_same_episode(session: Session) -> None:
    runs = []
    for _ in range(2):
        frames = [session.reset(3), *(session.advance(np.array([0.3, -0.2])) for _ in range(3))]
        runs.append((frames, session.env.goal_state.copy()))
    for one, other in zip(runs[0][0], runs[1][0], strict=True):
        assert np.array_equal(one.state, other.state) and np.array_equal(one.image, other.image)
    assert np.array_equal(runs[0][1], runs[1][1])


def test_an_episode_ends_after_its_steps(session: Session) -> None:
    session.reset()
    assert [session.advance(ZERO).ended for _ in range(5)] == [False] * 4 + [True]


def test_without_a_bound_only_success_ends_an_episode() -> None:
    session = Session(make_task("pusht", image_size=32), 0, episode_steps=0)
    start = np.array([100.0, 100.0, 300.0, 300.0, 1.0, 0.0, 0.0])
    assert not session.reset(start=start, goal=start + [60, 0, 0, 0, 0, 0, 0]).ended
    assert not any(session.advance(ZERO).ended for _ in range(8))
    frame = session.reset(start=start, goal=start)
    assert frame.success and frame.ended


def test_the_goal_is_what_the_camera_would_show_there(session: Session) -> None:
    session.reset(1)
    image, proprio = session.goal()
    goal = session.env.goal_state
    frame = session.reset(2, start=goal, goal=goal)
    assert np.array_equal(frame.image, image) and np.array_equal(frame.proprio, proprio)


@pytest.mark.parametrize("bad", [{"seed": 2**40}, {"start": ZERO}, {"goal": np.full(7, np.nan)}])
def test_bad_resets_leave_the_episode_alone(session: Session, bad: dict) -> None:
    session.reset()
    before = session.env.snapshot()
    with pytest.raises(ValueError, match=next(iter(bad))):
        session.reset(**bad)
    assert np.array_equal(session.env.snapshot(), before) and session.episode == 1


def test_a_rollout_is_what_the_episode_does(session: Session) -> None:
    start = session.reset(5).state
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)
    states = [start, *(session.advance(action).state for action in actions)]
    trajectory = rollout(make_task("pusht", image_size=32), start, actions)
    assert np.array_equal(trajectory.state, states)
    assert trajectory.image_steps.tolist() == [0, 5]


@pytest.mark.parametrize(
    ("stride", "steps"), [(0, [0, 7]), (3, [0, 3, 6, 7]), (7, [0, 7]), (99, [0, 7])]
)
def test_pictures_come_as_often_as_asked(session: Session, stride: int, steps: list[int]) -> None:
    start = session.reset().state
    trajectory = rollout(session.env, start, np.zeros((7, 2)), stride)
    assert trajectory.image_steps.tolist() == steps and len(trajectory.images) == len(steps)


@pytest.mark.parametrize(
    ("actions", "stride", "error"),
    [(np.zeros((0, 2)), 0, "actions: 0 steps"), (np.zeros((1, 3)), 0, "action: shape"),
     (np.full((1, 2), np.nan), 0, "not finite"), (np.zeros((1, 2)), -1, "frame_stride: -1")],
)  # fmt: skip
def test_bad_rollouts_are_refused(
    session: Session, actions: np.ndarray, stride: int, error: str
) -> None:
    start = session.reset().state
    with pytest.raises(ValueError, match=error):
        rollout(session.env, start, actions, stride)
