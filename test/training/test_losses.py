"""Losses on latents: zero where they should be, and pulling the right way."""

from __future__ import annotations

import pytest
import torch

from wm_mpc.training.projector.losses import (
    InverseDynamics,
    covariance_loss,
    curvature,
    variance_loss,
)


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
def test_a_straight_line_has_no_curvature(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    start, step = torch.randn(2, 1, *shape), torch.randn(2, 1, *shape)
    # at any speed: only the direction counts
    times = torch.tensor([0.0, 1.0, 3.0, 3.5]).view(1, 4, *[1] * len(shape))
    assert curvature(start + times * step) == pytest.approx(0, abs=1e-5)


def test_turning_back_is_the_worst() -> None:
    there = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]])
    assert curvature(there) == pytest.approx(2)
    corner = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])
    assert curvature(corner) == pytest.approx(1)


def test_standing_still_does_not_count() -> None:
    moving = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    still = torch.zeros(3, 2)
    both = torch.stack([moving, still]).requires_grad_()
    value = curvature(both)
    assert float(value.detach()) == pytest.approx(1)
    value.backward()
    assert torch.isfinite(both.grad).all()


def test_curvature_is_minimised_by_straightening() -> None:
    torch.manual_seed(0)
    path = torch.randn(1, 6, 2, requires_grad=True)
    before = float(curvature(path).detach())
    optimizer = torch.optim.Adam([path], 0.1)
    for _ in range(80):
        optimizer.zero_grad()
        curvature(path).backward()
        optimizer.step()
    assert float(curvature(path).detach()) < 0.5 * before


def test_variance_guards_each_channel() -> None:
    torch.manual_seed(0)
    wide = 2 * torch.randn(500, 4)
    assert variance_loss(wide) == 0
    wide[:, 1] = 3.0
    assert variance_loss(wide) == pytest.approx(0.25, abs=0.01)


def test_covariance_sees_copies_only() -> None:
    torch.manual_seed(0)
    apart = torch.randn(20_000, 2)
    assert covariance_loss(apart) < 1e-3
    copied = apart[:, :1].repeat(1, 2)
    # two off-diagonal entries of one, per two channels
    assert covariance_loss(copied) == pytest.approx(1, rel=0.05)
    assert covariance_loss(copied + 7) == pytest.approx(float(covariance_loss(copied)), rel=1e-3)


def test_the_action_can_be_told_from_what_it_did() -> None:
    torch.manual_seed(0)
    head = InverseDynamics(3, 2, hidden=32)
    push = torch.randn(2, 3)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(150):
        before, action = torch.randn(64, 3), torch.randn(64, 2)
        loss = (head(before, before + action @ push) - action).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3  # of a variance of one
