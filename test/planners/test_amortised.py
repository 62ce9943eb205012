"""Learned proposals on dynamics whose inverse is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dynamics import ACTION, HORIZON, LATENT, AnalyticDynamics, make_objective

from wm_mpc.core.errors import CheckpointError
from wm_mpc.models.proposers import (
    PROPOSERS,
    InitNetwork,
    InverseDynamics,
    Proposer,
    load_proposer,
    save_proposer,
)
from wm_mpc.planners import PlanRequest
from wm_mpc.planners.registry import make_planner, planner_config
from wm_mpc.training.dynamics.proposals import train_proposer


def windows(count: int = 2048) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(count, LATENT, generator=generator)
    # One action per window, repeated: the goal then determines it.
    action = torch.randn(count, 1, ACTION, generator=generator).clamp(-0.8, 0.8)
    actions = action.expand(-1, HORIZON, -1)
    with torch.no_grad():
        later = AnalyticDynamics().rollout(latent, actions)
    return torch.cat([latent[:, None], later], 1), actions


@pytest.fixture(scope="module", params=PROPOSERS)
def trained(request: pytest.FixtureRequest) -> Proposer:
    return train_proposer(request.param, *windows(), steps=300, batch=128, width=48, seed=1)


def test_proposals_beat_standing_still(trained: Proposer) -> None:
    model, objective = AnalyticDynamics(), make_objective()
    latents, actions = windows(64)
    for i in range(8):
        start, goal = latents[i, 0], latents[i, -1]
        proposed = trained.propose(model, start, goal)
        plans = HORIZON if trained.__class__ is InverseDynamics else 1
        assert proposed.shape == (plans, HORIZON, ACTION)
        both = torch.cat([proposed[:1], torch.zeros_like(proposed[:1])])
        costs = objective(model.rollout(start.expand(2, -1), both), both, goal)
        if actions[i].abs().mean() > 0.2:
            assert costs[0] < 0.5 * costs[1]


def test_a_proposal_saves_iterations(trained: Proposer) -> None:
    model, objective = AnalyticDynamics(), make_objective(running_weight=0.1)
    latents, _ = windows(16)
    planner = make_planner("adam", model, objective, planner_config("adam", iterations=2))
    without, given = 0.0, 0.0
    for i in range(16):
        start, goal = latents[i, 0], latents[i, -1]
        without += planner.plan(PlanRequest(start, goal)).cost
        proposals = trained.propose(model, start, goal)
        given += planner.plan(PlanRequest(start, goal, proposals=proposals)).cost
    assert given < 0.5 * without


def test_files_belong_to_their_latents(trained: Proposer, tmp_path: Path) -> None:
    path = save_proposer(trained, tmp_path, "abc")
    again = load_proposer(path, (LATENT,), ACTION, "abc")
    latents, _ = windows(1)
    arguments = (AnalyticDynamics(), latents[0, 0], latents[0, -1])
    assert torch.equal(again.propose(*arguments), trained.propose(*arguments))
    with pytest.raises(CheckpointError, match="made for latents abc, not xyz"):
        load_proposer(path, (LATENT,), ACTION, "xyz")
    with pytest.raises(CheckpointError, match="not a usable proposer"):
        load_proposer(path, (LATENT + 1,), ACTION, "abc")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a usable proposer"):
        load_proposer(path, (LATENT,), ACTION, "abc")


@pytest.mark.parametrize("kind", PROPOSERS)
def test_token_latents_work(kind: str) -> None:
    network = PROPOSERS[kind]((16, 5), ACTION, HORIZON, 8)
    loss = network.loss(
        torch.randn(3, HORIZON + 1, 16, 5), torch.randn(3, HORIZON, ACTION), torch.Generator()
    )
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_same_seed_same_weights_and_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two = (train_proposer("init", *windows(32), steps=3, width=8) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_bad_arguments_are_named() -> None:
    latents, actions = windows(4)
    with pytest.raises(ValueError, match="kind: 'x'; one of init, inverse"):
        train_proposer("x", latents, actions)
    with pytest.raises(ValueError, match=r"latents: \(4, 4\) frames for actions \(4, 4\)"):
        train_proposer("init", latents[:, 1:], actions)
    with pytest.raises(ValueError, match="latent_shape: 15 tokens"):
        InitNetwork((15, 4), ACTION, HORIZON)
