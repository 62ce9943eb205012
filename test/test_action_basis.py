"""How a model step describes its commands."""

from __future__ import annotations

import pytest
import torch

from wm_mpc.models.action_basis import action_basis, knots_of
from wm_mpc.models.config import WorldModelConfig
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.starts import shift_plan

KINDS = [("raw", 0), ("held", 0), ("blocks", 2), ("spline", 3)]


def model(kind: str, knots: int) -> WorldModel:
    config = WorldModelConfig(
        "arm", 2, 2, 4, 0.1, (-1.0, -2.0), (1.0, 2.0), visual_dim=3,
        action_basis=kind, action_knots=knots, predictor_args={"width": 8, "depth": 1},
    )  # fmt: skip
    return WorldModel(config, None, num_tokens=4, channels=6)


@pytest.mark.parametrize(("kind", "knots"), KINDS)
def test_a_plan_survives_the_way_to_commands_and_back(kind: str, knots: int) -> None:
    arm = model(kind, knots)
    arm.action_mean.copy_(torch.tensor([0.3, -0.2]))
    plan = torch.randn(3, arm.action_width)
    raw = arm.denormalize_actions(plan)
    assert raw.shape == (12, 2)
    assert torch.allclose(arm.normalize_actions(raw), plan, atol=1e-5)


@pytest.mark.parametrize(("kind", "knots"), KINDS)
def test_bounds_on_coefficients_are_bounds_on_commands(kind: str, knots: int) -> None:
    arm = model(kind, knots)
    low, high = arm.action_bounds()
    drawn = low + (high - low) * torch.rand(50, 3, arm.action_width)
    raw = arm.denormalize_actions(drawn)
    limit = torch.tensor([1.0, 2.0]) + 1e-5
    assert (raw.abs() <= limit).all()
    assert arm.denormalize_actions(high[None]).allclose(torch.tensor([1.0, 2.0]).expand(4, 2))


def test_held_commands_are_equal_and_recorded_ones_become_their_mean() -> None:
    arm = model("held", 0)
    raw = torch.arange(8.0).view(4, 2)
    assert torch.allclose(arm.normalize_actions(raw), torch.tensor([[3.0, 4.0]]), atol=1e-5)
    assert arm.denormalize_actions(torch.tensor([[0.5, -0.5]])).tolist() == [[0.5, -0.5]] * 4


@pytest.mark.parametrize(("kind", "knots"), KINDS)
def test_a_constant_plan_stays_constant_when_time_passes(kind: str, knots: int) -> None:
    arm = model(kind, knots)
    plan = arm.normalize_actions(torch.tensor([0.4, -0.7]).expand(12, 2))
    for elapsed in (0.0, 0.1, 0.17, 0.4, 3.0):
        moved = shift_plan(plan, elapsed, 0.1, 4, 2, tail="last", basis=arm.plan_basis)
        assert torch.allclose(moved, plan, atol=1e-5)


def test_whole_model_steps_shift_by_whole_rows() -> None:
    arm = model("held", 0)
    plan = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    moved = shift_plan(plan, 0.4, 0.1, 4, 2, basis=arm.plan_basis)
    assert torch.allclose(moved, torch.tensor([[3.0, 4.0], [5.0, 6.0], [0.0, 0.0]]), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "knots", "said"),
    [("held", 2, "action_knots: 2; 0 expected"), ("blocks", 3, "a divisor of frameskip"),
     ("spline", 1, r"in \[2, 4\] expected"), ("cubic", 0, "action_basis: 'cubic'")],
)  # fmt: skip
def test_what_cannot_be_is_named(kind: str, knots: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        knots_of(kind, 4, knots)


def test_rows_of_a_basis_sum_to_one() -> None:
    for kind, knots in KINDS:
        assert torch.allclose(action_basis(kind, 4, knots).sum(1), torch.ones(4))
