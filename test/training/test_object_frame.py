"""The object's frame: what is predicted there does not depend on where the object is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_model
from torch import Tensor

from wm_mpc.core.errors import UserError
from wm_mpc.models.predictors.object_frame import ObjectFrame, mean_shape
from wm_mpc.models.world_model import WorldModel
from wm_mpc.tasks.registry import find_task
from wm_mpc.training.dynamics.symmetry import picture_units
from wm_mpc.training.pipeline.stages import fit_object_frame

POINTS = torch.tensor([(-40.0, 5), (35, 0), (0, 30), (-30, 10), (10, 40), (25, -45)])
POINTS -= POINTS.mean(0)
"""Body coordinates of ideal landmarks [px]."""


def poses(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Angles ``(N,)``, latents' pairs ``(N, 8, 2)`` [px and px/s]: block, agent, its velocity."""
    rng = np.random.default_rng(0)
    angle = torch.from_numpy(rng.uniform(-math.pi, math.pi, count)).float()
    c, s = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([c, s], -1), torch.stack([-s, c], -1)], 1)
    marks = POINTS @ turn + torch.from_numpy(rng.uniform(150, 360, (count, 1, 2))).float()
    agent = torch.from_numpy(rng.uniform(30, 480, (count, 1, 2))).float()
    speed = torch.from_numpy(rng.normal(0, 60, (count, 1, 2))).float()
    return angle, torch.cat([marks, agent, speed], 1), turn


def latents_of(model: WorldModel, pairs: Tensor) -> Tensor:
    """Normalised latents ``(N, 16)`` of ``poses``' pairs."""
    visual = (pairs[:, :6].flatten(1) / 256 - 1 - model.visual_mean) / model.visual_std
    own = (pairs[:, 6:].flatten(1) - model.proprio_mean) / model.proprio_std
    return torch.cat([visual, own], -1)


@pytest.fixture
def model() -> WorldModel:
    framed = {"width": 16, "depth": 1, "object_frame": True}
    model = tiny_model(None, visual_dim=12, predictor_args=framed)
    model.visual_std.fill_(0.4)
    model.visual_mean.copy_(torch.linspace(-0.1, 0.1, 12))
    model.proprio_std.copy_(torch.tensor([110.0, 90.0, 50.0, 60.0]))
    model.action_mean.copy_(torch.tensor([0.02, -0.01]))
    model.action_std.copy_(torch.tensor([0.3, 0.25]))
    fit_object_frame(model, find_task("pusht").preset, latents_of(model, poses(500)[1]), 0)
    return model


def frame_of(model: WorldModel) -> ObjectFrame:
    frame = model.predictor.frame
    assert isinstance(frame, ObjectFrame)
    return frame


def test_the_heading_turns_with_the_object(model: WorldModel) -> None:
    angle, pairs, _ = poses(50)
    _, heading = frame_of(model).enter(latents_of(model, pairs), torch.zeros(50, 10))
    found = torch.atan2(heading[:, 1], heading[:, 0])
    apart = torch.remainder(found - angle - (found - angle)[0] + math.pi, 2 * math.pi) - math.pi
    assert apart.abs().max() < 1e-3


def test_one_object_moved_gives_the_same_features_but_for_its_place(model: WorldModel) -> None:
    _, pairs, turn = poses(50)
    # the first scene, seen at the other places and orientations
    body = (pairs[:1] - pairs[:1, :6].mean(1, keepdim=True) * moving()) @ turn[:1].mT
    scenes = body @ turn + pairs[:, :6].mean(1, keepdim=True) * moving()
    raw = torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(1)) * 0.2
    actions = model.normalize_actions((raw @ turn[:1].mT) @ turn)[:, 0]
    features, heading = frame_of(model).enter(latents_of(model, scenes), actions)
    place = slice(16, 20)
    same = torch.cat([features[:, :16], features[:, 20:]], 1)
    torch.testing.assert_close(same, same[:1].expand_as(same), rtol=1e-3, atol=1e-4)
    assert (features[:, place].std(0) > 0.1).all()
    # and what is predicted there comes out as one motion, turned to where the object is
    change = frame_of(model).leave(torch.randn(16).expand(50, 16), heading)
    scale, _, _ = picture_units(model, find_task("pusht").preset.robot)
    moved = (change * scale).unflatten(-1, (8, 2))
    back = moved @ turn.mT
    torch.testing.assert_close(back, back[:1].expand_as(back), rtol=1e-3, atol=1e-4)


def moving() -> Tensor:
    """1 for the pairs that are positions."""
    return torch.tensor([1.0] * 7 + [0.0])[:, None]


def test_features_have_unit_size(model: WorldModel) -> None:
    _, pairs, _ = poses(400)
    features, _ = frame_of(model).enter(latents_of(model, pairs), torch.randn(400, 10))
    for part in (slice(0, 12), slice(12, 14), slice(14, 16), slice(16, 18), slice(20, 30)):
        assert 0.7 < features[:, part].square().mean().sqrt() < 1.4


def test_the_mean_shape_forgets_orientation() -> None:
    _, pairs, _ = poses(200)
    marks = pairs[:, :6] - pairs[:, :6].mean(1, keepdim=True)
    shape = mean_shape(marks)
    expected = torch.view_as_complex(POINTS.double())
    along = (torch.view_as_complex(shape).conj() @ expected).abs() / expected.norm()
    assert float(along) == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(shape, mean_shape(marks))


def test_what_has_no_heading_is_refused(model: WorldModel) -> None:
    frame = frame_of(model)
    with pytest.raises(ValueError, match="points: 1; at least 2"):
        frame.fit(
            torch.randn(9, 16), 1, torch.ones(16), torch.zeros(16), torch.ones(8),
            torch.zeros(10), torch.ones(10),
        )  # fmt: skip
    with pytest.raises(UserError, match="frame: object; pusht has no landmarks"):
        fit_object_frame(model, find_task("wall").preset, torch.randn(9, 16), 0)
    with pytest.raises(ValueError, match="width: 7; pairs"):
        ObjectFrame(7, 10)
    with pytest.raises(ValueError, match="action_width: 3; pairs"):
        ObjectFrame(16, 3)


def test_the_frame_travels_with_the_weights(model: WorldModel, tmp_path: Path) -> None:
    model.save(tmp_path, encoder="")
    again = WorldModel.load(tmp_path, with_encoder=False)
    latent, action = torch.randn(3, 16), torch.randn(3, 10)
    assert torch.equal(model.step(latent, action), again.step(latent, action))
