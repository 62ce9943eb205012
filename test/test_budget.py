"""Clocks, the CEM reference and the budget of a tick."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from fake_clock import FakeClock
from torch import Tensor

from wm_mpc.planners.budget import Budget, CemReference
from wm_mpc.planners.objective import GoalObjective, ObjectiveConfig
from wm_mpc.planners.reference import ReferenceMeter


class SlowModel:
    """Each step takes a time proportional to its batch, the very first call an hour more."""

    latent_shape = (2,)
    action_width = 2

    def __init__(self, clock: FakeClock, step_s: float) -> None:
        self.clock, self.step_s, self.warm = clock, step_s, False

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        self.clock.advance(self.step_s * len(latent) + (0 if self.warm else 3600))
        self.warm = True
        return latent + action

    def rollout(self, latent: Tensor, actions: Tensor) -> Tensor:
        return latent[:, None] + actions.cumsum(1)


def calibrate(step_s: float, horizon: int = 5, **settings: float) -> CemReference:
    clock = FakeClock()
    objective = GoalObjective(ObjectiveConfig(), horizon, 1, 1)
    return CemReference.calibrate(SlowModel(clock, step_s), objective, clock, **settings)


def test_reference_times_a_whole_plan_without_the_warm_up() -> None:
    reference = calibrate(1e-6)
    assert reference.transitions == 300 * 30 * 5
    # The plan's own cost, and five transitions for the latents it returns.
    assert reference.seconds == pytest.approx(45_005e-6)
    assert not reference.scaled
    assert reference.threads == torch.get_num_threads()


def test_reference_has_horizon_five_whatever_the_planners_have() -> None:
    assert calibrate(1e-6, horizon=16).seconds == pytest.approx(calibrate(1e-6).seconds)


def test_a_slow_model_is_timed_on_part_of_the_iterations_and_says_so() -> None:
    reference = calibrate(1e-2, max_seconds=60.0, repeats=1)
    assert reference.scaled
    assert reference.measured_iterations < 30
    assert reference.seconds == pytest.approx(450, rel=0.01)
    assert reference.as_dict()["scaled"] is True


def test_calibration_needs_a_repeat() -> None:
    with pytest.raises(ValueError, match="repeats: 0; at least 1"):
        calibrate(1e-6, repeats=0)


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [
        (Budget(0.1, 0.2), 0.02),
        (Budget(0.1, 0.2, 0.1, 0.03), 0.02),
        (Budget(0.1, 2.0, 0.1, 0.03), 0.07),
        (Budget(1.0, math.inf, 0.1), 0.1),
    ],
)
def test_budget_is_the_smaller_of_share_and_period(budget: Budget, seconds: float) -> None:
    assert budget.seconds == pytest.approx(seconds)
    assert budget.deadline(7.0) == pytest.approx(7 + seconds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0), "fraction: 0.0; more than 0"),
        ((0.1, math.nan), "reference_s: nan; more than 0"),
        ((0.1, 1.0, -1.0), "period_s: -1.0; more than 0"),
        ((0.1, 1.0, 0.1, 0.1), "margin_s: 0.1 s; 0 to below the period 0.1 s"),
    ],
)
def test_budget_bounds_are_named(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budget(*arguments)


def test_a_fake_clock_never_goes_back() -> None:
    with pytest.raises(ValueError, match="seconds: -1 is negative"):
        FakeClock().advance(-1)


def test_a_reference_measured_on_a_busy_machine_is_corrected_by_a_few_iterations() -> None:
    clock = FakeClock()
    model = SlowModel(clock, 1e-6)
    objective = GoalObjective(ObjectiveConfig(), 5, 1, 1)
    true = CemReference.calibrate(model, objective, clock)
    busy = dataclasses.replace(true, seconds=5 * true.seconds)
    meter = ReferenceMeter(model, objective, busy, clock)
    assert 1 <= meter.iterations < 30
    found = meter.better(busy)
    assert true.seconds <= found.seconds < 1.5 * true.seconds
    assert found.measured_iterations == meter.iterations and found.scaled
    model.step_s = 1e-3  # and now it is busy again
    assert meter.better(found) is found
