"""The goal cost against its formula."""

from __future__ import annotations

import pytest
import torch

from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig

T, VISUAL, PROPRIO = 4, 3, 2


def data(tokens: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (tokens, VISUAL + PROPRIO) if tokens else (VISUAL + PROPRIO,)
    latents = torch.randn(2, T, *shape, generator=generator)
    actions = torch.randn(2, T, 6, generator=generator)
    return latents, actions, torch.randn(shape, generator=generator)


@pytest.mark.parametrize("tokens", [0, 7])
@pytest.mark.parametrize("mode", ["terminal", "running", "geometric"])
def test_cost_is_the_weighted_sum_of_its_terms(mode: str, tokens: int) -> None:
    config = ObjectiveConfig(mode, 2.0, 0.2, 0.5, 0.3, 0.7)
    latents, actions, goal = data(tokens)
    square = (latents - goal) ** 2
    frame = square[..., :VISUAL].mean(-1) + 0.5 * square[..., VISUAL:].mean(-1)
    frame = frame.mean(-1) if tokens else frame
    weights = {
        "terminal": [0.0, 0.0, 0.0, 1.0],
        "running": [0.2, 0.2, 0.2, 1],
        "geometric": [1 / 15, 2 / 15, 4 / 15, 8 / 15],
    }[mode]
    expected = frame @ torch.tensor(weights)
    expected = expected + 0.3 * (actions**2).mean((1, 2))
    expected = expected + 0.7 * ((actions[:, 1:] - actions[:, :-1]) ** 2).mean((1, 2))
    cost = GoalObjective(config, T, VISUAL, PROPRIO)(latents, actions, goal)
    torch.testing.assert_close(cost, expected)


def test_base_below_one_stresses_early_steps() -> None:
    early = ObjectiveConfig("geometric", base=0.5).time_weights(5)
    late = ObjectiveConfig("geometric", base=2.0).time_weights(5)
    torch.testing.assert_close(early, late.flip(0))
    assert early[0] > early[-1]
    assert early.sum() == pytest.approx(1)


def test_the_goal_itself_costs_nothing() -> None:
    _, actions, goal = data()
    objective = GoalObjective(ObjectiveConfig(), T, VISUAL, PROPRIO)
    assert not objective(goal.expand(2, T, -1), actions, goal).any()


def test_another_horizon_leaves_the_first_alone() -> None:
    objective = GoalObjective(ObjectiveConfig("geometric"), T, VISUAL, PROPRIO)
    other = objective.with_horizon(2)
    assert (other.horizon, len(other.time_weights)) == (2, 2)
    assert (objective.horizon, len(objective.time_weights)) == (T, T)
    assert other.time_weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "x"}, "mode: 'x'"),
        ({"base": 0.0}, "base: 0.0; more than 0"),
        ({"proprio_weight": -1.0}, "proprio_weight: -1.0; at least 0"),
        ({"smoothness_weight": float("nan")}, "smoothness_weight: nan; at least 0"),
    ],
)
def test_weights_out_of_bounds_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveConfig(**change)
