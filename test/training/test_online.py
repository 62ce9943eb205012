"""What plans do is simulated exactly, from exactly the expert's state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from wall_data import wall_model, wall_store

from wm_mpc.core.errors import UserError
from wm_mpc.evaluation.rollouts import Executed, execute, plan_and_execute, simulator
from wm_mpc.latents.expert import Expert, load_expert
from wm_mpc.latents.replay import trajectory_chains
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.finetune.online import OnlineConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> WorldModel:
    return wall_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def expert(model: WorldModel, tmp_path_factory: pytest.TempPathFactory) -> Expert:
    store = wall_store(tmp_path_factory.mktemp("store"))
    return load_expert(model, store, 2, progress=False)


def test_expert_windows_pair_states_latents_and_actions(model: WorldModel, expert: Expert) -> None:
    ids = expert.train[:6]
    for step in (0, 2):
        # wall shows its state to the robot: it is the proprioception
        own = expert.latents(ids, step)[:, model.visual_dim :] * 16 + 32
        torch.testing.assert_close(own, torch.from_numpy(expert.states(ids, step)).float())
    env = simulator("wall", model)
    for i, window in enumerate(ids):
        raw = model.denormalize_actions(expert.data.actions[window]).numpy()
        again = execute(env, expert.states(ids)[i], raw, 5)
        # commands are kept in single precision
        np.testing.assert_allclose(again.state[-1], expert.states(ids, 2)[i], atol=1e-3)


def test_executing_recorded_actions_again_gives_equal_states(model: WorldModel) -> None:
    env = simulator("wall", model)
    actions = np.random.default_rng(1).uniform(-3, 3, (10, 2))
    first = execute(env, np.array([16.0, 30.0]), actions, 5)
    env.restore(np.array([50.0, 50.0]))
    second = execute(env, first.state[0], first.actions, 5)
    np.testing.assert_allclose(first.state, second.state, atol=1e-5)
    assert first.image_steps.tolist() == [0, 5, 10]
    assert np.abs(first.actions).max() <= np.float32(1.8)
    assert (first.images == second.images).all()


def test_plans_start_at_the_expert_and_predictions_are_the_models(
    model: WorldModel, expert: Expert
) -> None:
    ids = expert.train[:3]
    env = simulator("wall", model)
    options = ("iterations=3", "starts=2")
    done = list(plan_and_execute(model, env, expert, ids, 2, options=options, seed=4))
    again = list(plan_and_execute(model, env, expert, ids, 2, options=options, seed=4))
    for i, (executed, same) in enumerate(zip(done, again, strict=True)):
        trajectory = executed.trajectory
        np.testing.assert_array_equal(trajectory.state[0], expert.states(ids)[i])
        np.testing.assert_array_equal(trajectory.actions, same.trajectory.actions)
        ((latents, actions),) = trajectory_chains(model, trajectory)
        torch.testing.assert_close(latents[0], expert.latents(ids, 0)[i], atol=2e-2, rtol=0)
        predicted = model.rollout(latents[None, 0], actions[None])[0]
        torch.testing.assert_close(predicted, executed.predicted, atol=5e-2, rtol=0)


def test_far_goals_replace_the_windows_own(model: WorldModel, expert: Expert) -> None:
    env, ids = simulator("wall", model), expert.train[:4]
    options = ("iterations=3", "starts=2")

    def plans(far: float) -> list[np.ndarray]:
        done = plan_and_execute(model, env, expert, ids, 2, options=options, seed=4, far=far)
        return [executed.trajectory.actions for executed in done]

    own, far = plans(0.0), plans(1.0)
    assert sum(not np.array_equal(a, b) for a, b in zip(own, far, strict=True)) >= 3
    assert all(np.array_equal(a, b) for a, b in zip(far, plans(1.0), strict=True))


def test_a_chain_of_plans_goes_on_where_the_last_one_ended(
    model: WorldModel, expert: Expert
) -> None:
    env, ids = simulator("wall", model), expert.train[:2]
    options = ("iterations=3", "starts=2")

    def runs(chain: int) -> list[Executed]:
        found = plan_and_execute(
            model, env, expert, ids, 2, options=options, seed=4, chain=chain
        )
        return list(found)

    linked = runs(3)
    assert len(linked) == 6
    for i in (0, 3):
        for before, after in zip(linked[i : i + 2], linked[i + 1 : i + 3], strict=True):
            np.testing.assert_array_equal(before.trajectory.state[-1], after.trajectory.state[0])
    assert [done.trajectory.meta["link"] for done in linked] == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(
        linked[0].trajectory.actions, runs(1)[0].trajectory.actions
    )


def test_a_store_without_states_is_refused(expert: Expert) -> None:
    blind = replace(expert, frames=replace(expert.frames, state=None))
    with pytest.raises(UserError, match="no simulator states"):
        blind.states(expert.train[:1])


def test_a_store_of_another_robot_is_refused(model: WorldModel, tmp_path: Path) -> None:
    store = wall_store(tmp_path / "store", episodes=2)
    other = wall_model(tmp_path, proprio_dim=3)
    with pytest.raises(UserError, match="proprio_dim 2; the model expects 3"):
        load_expert(other, store, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rollouts": 0}, "rollouts: 0"),
        ({"planner": "best"}, "planner: 'best' unknown"),
        ({"ratio": (0, 0)}, "ratio"),
        ({"limit": -1}, "limit: -1"),
        ({"far": 1.5}, "far: 1.5"),
    ],
)
def test_bad_settings(settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        OnlineConfig(**settings)
