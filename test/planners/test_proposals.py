"""Shifting plans by elapsed time, and the batch of starts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from wm_mpc.planners.gradient import entropy_gradient
from wm_mpc.planners.starts import shift_plan, shift_states, start_batch

PERIOD, FRAMESKIP, DIM, STEPS = 0.1, 5, 2, 4


def ramp() -> Tensor:
    """A plan whose raw command ``i`` is ``(i, 10 i)``."""
    index = torch.arange(STEPS * FRAMESKIP, dtype=torch.float32)
    return torch.stack([index, 10 * index], -1).view(STEPS, FRAMESKIP * DIM)


def shifted(elapsed: float, tail: str = "zeros") -> Tensor:
    return shift_plan(ramp(), elapsed, PERIOD, FRAMESKIP, DIM, tail).view(-1, DIM)


@pytest.mark.parametrize("periods", [0.0, 0.25, 1.0, 1.5, 5.0, 7.9, 19.0])
def test_commands_move_by_the_elapsed_periods(periods: float) -> None:
    rows = shifted(periods * PERIOD)
    inside = STEPS * FRAMESKIP - math.ceil(periods)
    expected = torch.arange(STEPS * FRAMESKIP) + periods
    torch.testing.assert_close(rows[: inside - 1, 0], expected[: inside - 1])
    torch.testing.assert_close(rows[:, 1], 10 * rows[:, 0])


def test_no_time_leaves_the_plan() -> None:
    assert torch.equal(shift_plan(ramp(), 0.0, PERIOD, FRAMESKIP, DIM), ramp())


def test_a_model_step_moves_rows() -> None:
    moved = shift_plan(ramp(), FRAMESKIP * PERIOD, PERIOD, FRAMESKIP, DIM)
    torch.testing.assert_close(moved[:-1], ramp()[1:])
    assert not moved[-1].any()


@pytest.mark.parametrize("elapsed", [2.0, 2.05, 3.7, 1e6])
def test_beyond_the_end_only_the_tail_is_left(elapsed: float) -> None:
    assert not shifted(elapsed).any()
    assert (shifted(elapsed, "last") == ramp().view(-1, DIM)[-1]).all()


def test_the_tail_follows_the_last_command() -> None:
    assert not shifted(0.3)[-3:].any()
    assert (shifted(0.3, "last")[-3:] == ramp().view(-1, DIM)[-1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elapsed_s": -0.1}, "elapsed_s: -0.1 s"),
        ({"elapsed_s": math.nan}, "elapsed_s: nan s"),
        ({"control_period": 0.0}, "control_period: 0.0 s"),
        ({"frameskip": 4}, "actions: width 10; 4 x 2"),
        ({"tail": "x"}, "tail: 'x'"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], message: str) -> None:
    arguments = {
        "elapsed_s": 0.1,
        "control_period": PERIOD,
        "frameskip": FRAMESKIP,
        "action_dim": DIM,
    }
    with pytest.raises(ValueError, match=message):
        shift_plan(ramp(), **(arguments | change))


def test_states_move_towards_the_goal() -> None:
    states = torch.tensor([[1.0], [2.0], [3.0]])  # after model steps 1, 2, 3 of 4
    moved = shift_states(states, 0.25, 0.5, torch.tensor([4.0]))
    torch.testing.assert_close(moved, torch.tensor([[1.5], [2.5], [3.5]]))
    late = shift_states(states, 9.0, 0.5, torch.tensor([4.0]))
    assert torch.equal(late, torch.full((3, 1), 4.0))
    assert shift_states(states[:0], 0.5, 0.5, torch.tensor([4.0])).shape == (0, 1)


def starts(count: int, warm: Tensor | None, proposals: Tensor | None, init: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return start_batch(count, (2, 3), warm, proposals, init, 1.0, 0.1, generator)


def test_the_warm_start_is_first_and_proposals_follow() -> None:
    warm, given = torch.full((2, 3), 5.0), torch.full((2, 2, 3), 7.0)
    rows = starts(8, warm, given, "random")
    assert torch.equal(rows[0], warm)
    assert torch.equal(rows[1:3], given)
    # Of the five rows left, every second one stays near the warm start.
    assert (rows[3::2] - warm).abs().max() < 0.6
    assert rows[4::2].abs().max() < 4
    assert len(torch.unique(rows.flatten(1), dim=0)) == 7


def test_persistent_starts_hold_one_direction_over_the_plan() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = start_batch(64, (5, 10), None, None, "random", 1.0, 0.1, generator, 1.0, 2)
    steps = rows[1:].reshape(63, 25, 2)
    assert torch.equal(steps, steps[:, :1].expand_as(steps))
    assert 0.7 < float(steps.std()) < 1.3
    warm = torch.zeros(5, 10)
    rows = start_batch(64, (5, 10), warm, None, "random", 1.0, 0.1, generator, 0.9, 2)
    far, near = rows[2::2].reshape(-1, 25, 2), rows[1::2].reshape(-1, 25, 2)
    assert far.mean(1).std() > 0.6 and near.mean(1).std() < 0.1


def test_more_proposals_than_starts_are_dropped() -> None:
    rows = starts(2, torch.zeros(2, 3), torch.full((5, 2, 3), 7.0), "random")
    assert rows.shape == (2, 2, 3)
    assert (rows[1] == 7).all()


def test_without_a_warm_start_several_starts_include_zero() -> None:
    assert not starts(3, None, None, "random")[0].any()
    assert starts(1, None, None, "random").any()
    assert not starts(1, None, None, "zero").any()


def test_entropy_gradient_is_that_of_the_nearest_neighbour_estimate(double: None) -> None:
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    flat = x.flatten(1)
    distances = (flat[:, None] - flat[None]).square().sum(-1) + torch.eye(5) * 1e9
    entropy = 0.5 * distances.min(1).values.log().mean()
    (expected,) = torch.autograd.grad(entropy, x)
    torch.testing.assert_close(entropy_gradient(x.detach()), expected)


def test_entropy_gradient_of_coinciding_plans_is_finite() -> None:
    assert torch.isfinite(entropy_gradient(torch.zeros(4, 2, 3))).all()
