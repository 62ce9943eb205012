"""Moved windows are true motion: the simulator agrees."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sim_bridge.tasks import make_task
from wm_mpc.core.locations import ASSETS
from wm_mpc.models.world_model import WorldModel
from wm_mpc.tasks.registry import find_task
from wm_mpc.training.dynamics.symmetry import QuarterTurns, RigidMotions, symmetry

PRESET = find_task("pusht").preset
POINTS = np.array([(0, 0), (30, 0), (0, 30), (-30, 10), (10, 40), (20, -20)], float)
"""Body coordinates of ideal landmarks [px]; their mean is near the centre of gravity."""


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return WorldModel.load(ASSETS / "pusht")


def latents_of(model: WorldModel, states: np.ndarray) -> Tensor:
    """Latents ``(T, D)`` of true states ``(T, 7)``, with landmarks that do not err."""
    out = []
    for ax, ay, bx, by, angle, vx, vy in states:
        c, s = math.cos(angle), math.sin(angle)
        points = POINTS @ np.array([[c, s], [-s, c]]) + (bx, by)
        visual = torch.from_numpy(2 * points.reshape(-1) / 512 - 1)
        own = torch.tensor([ax, ay, vx, vy])
        out.append(torch.cat([
            (visual - model.visual_mean) / model.visual_std,
            (own - model.proprio_mean) / model.proprio_std,
        ]))  # fmt: skip
    return torch.stack(out).float()


def state_of(model: WorldModel, latent: Tensor) -> np.ndarray:
    """Inverse of ``latents_of`` for one latent."""
    visual = latent[:12] * model.visual_std + model.visual_mean
    points = (visual.double().numpy().reshape(-1, 2) + 1) * 256
    own = (latent[12:] * model.proprio_std + model.proprio_mean).numpy()
    angle = math.atan2(*(points[1] - points[0])[::-1])
    return np.array([*own[:2], *points[0], angle % (2 * math.pi), *own[2:]])


def pushes(model: WorldModel, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of two model steps in which the agent pushes; whether the block stays mid-table."""
    env = make_task("pusht")
    rng = np.random.default_rng(3)
    latents, actions, mid = [], [], []
    while len(latents) < count:
        block = rng.uniform(120, 390, 2)
        angle, side = rng.uniform(0, 2 * math.pi, 2)
        agent = block + 90 * np.array([math.cos(side), math.sin(side)])
        env.restore(np.array([*agent, *block, angle, 0, 0]))
        moves = (block - agent) / 300 + rng.normal(0, 0.1, (10, 2))
        states = np.array([env.snapshot(), *(env.advance(move) for move in moves)])
        pushed = np.hypot(*(states[-1] - states[0])[2:4])
        if pushed < 15:
            continue
        latents.append(latents_of(model, states[::5]))
        raw = torch.from_numpy(moves).float()
        actions.append(model.normalize_actions(raw))
        mid.append(bool((np.abs(states[:, 2:4] - 256) < 140).all()))
    return torch.stack(latents), torch.stack(actions), torch.tensor(mid)


def replayed(model: WorldModel, latents: Tensor, actions: Tensor) -> np.ndarray:
    """What the simulator does from the window's start with the window's actions."""
    env = make_task("pusht")
    env.restore(state_of(model, latents[0]))
    for action in model.denormalize_actions(actions).numpy():
        env._world.step(tuple(env.snapshot()[:2] + 100 * action))
    return env.snapshot()


def differences(model: WorldModel, latents: Tensor, actions: Tensor) -> np.ndarray:
    """Distance [px] of agent and block to where the window says that they end, per window."""
    return np.array([
        np.abs(replayed(model, z, a)[:4] - state_of(model, z[-1])[:4]).max()
        for z, a in zip(latents, actions, strict=True)
    ])  # fmt: skip


def motions(model: WorldModel) -> RigidMotions:
    found = symmetry(model, PRESET)
    assert isinstance(found, RigidMotions)
    return found


def test_moved_windows_are_what_the_simulator_does(model: WorldModel) -> None:
    latents, actions, mid = pushes(model, 60)
    moved, turned = motions(model)(latents, actions, torch.Generator().manual_seed(0))
    assert (moved - latents).abs().flatten(1).amax(1).median() > 0.3
    error = differences(model, moved, turned)
    # Contacts at a corner magnify rounding; without motion of the axes every window would fail.
    assert np.median(error) < 0.5
    assert (error < 5).mean() > 0.9
    assert mid.float().mean() > 0.3


def test_windows_near_a_border_are_turned_by_quarters_only(model: WorldModel) -> None:
    latents, actions, _ = pushes(model, 12)
    # to the border, without a change of orientation
    shift = torch.zeros(16)
    shift[0:12:2] = (-0.75 - latents[..., 0].min()) / 1.0
    border = latents + shift
    quarter = motions(model).turns(border, actions)
    moved = motions(model)(border, actions, torch.Generator().manual_seed(0))
    near = (border[..., :12] * model.visual_std + model.visual_mean).unflatten(-1, (6, 2))
    close = (near.mean(-2).abs() > motions(model).free).flatten(1).any(1)
    assert close.any()
    for now, expected in zip(moved, quarter, strict=True):
        assert torch.allclose(now[close], expected[close])


def test_motions_depend_on_the_generator_alone(model: WorldModel) -> None:
    latents, actions, _ = pushes(model, 8)
    first, again, other = (
        motions(model)(latents, actions, torch.Generator().manual_seed(seed))[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_four_quarter_turns_are_none(model: WorldModel) -> None:
    turns = motions(model).turns
    assert isinstance(turns, QuarterTurns)
    matrix, offset = turns.latent_maps[1]
    latents = torch.randn(5, 16)
    turned = latents
    for _ in range(4):
        turned = turned @ matrix + offset
    assert torch.allclose(turned, latents, atol=1e-4)
