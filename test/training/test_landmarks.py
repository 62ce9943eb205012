"""Landmarks: targets are where the warp put them, and a projector learns to find them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from training_data import dot_picture

from wm_mpc.core.errors import UserError
from wm_mpc.models.projectors import KeypointPool
from wm_mpc.tasks.robot_disc import RobotDisc
from wm_mpc.training.projector.landmarks import (
    LandmarkConfig,
    Reference,
    compose,
    farthest_points,
    find_reference,
    train_landmarks,
)

SIZE = 64
ROBOT = RobotDisc(0, 1, 1 / SIZE, 0.0, 1 / SIZE, 0.0, 5 / SIZE)
CONFIG = LandmarkConfig(landmarks=4, compositions=8, steps=5, batch=4, robot=ROBOT)


def scene(x: float, y: float, angle: float, robot: tuple[float, float] | None) -> np.ndarray:
    """A blue L at (x, y) [px], turned by ``angle``, and the robot, a green disc."""
    picture = np.full((SIZE, SIZE, 3), 230, np.uint8)
    corners = np.array([[-8, -8], [8, -8], [8, -3], [-3, -3], [-3, 8], [-8, 8]], np.float64)
    c, s = math.cos(angle), math.sin(angle)
    turned = corners @ np.array([[c, s], [-s, c]]) + [x, y]
    cv2.fillPoly(picture, [np.round(turned * 16).astype(np.int32)], (40, 40, 200), shift=4)
    if robot is not None:
        centre = (round(robot[0] * 16), round(robot[1] * 16))
        cv2.circle(picture, centre, 5 * 16, (30, 160, 30), -1, shift=4)
    return picture


@pytest.fixture(scope="module")
def frames() -> tuple[np.ndarray, np.ndarray]:
    """Pictures and proprioception (the robot's place [px]) of 60 random scenes."""
    rng = np.random.default_rng(0)
    robots = rng.uniform(6, SIZE - 6, (60, 2))
    images = [scene(*rng.uniform(4, SIZE - 4, 2), rng.uniform(0, 7), tuple(r)) for r in robots]
    return np.stack(images), robots.astype(np.float32)


@pytest.fixture(scope="module")
def reference(frames: tuple[np.ndarray, np.ndarray]) -> Reference:
    return find_reference(*frames, CONFIG)


def test_the_background_is_what_stays(reference: Reference) -> None:
    assert (np.abs(reference.background.astype(int) - 230) <= 1).mean() > 0.98


def test_the_reference_shows_the_object_alone(
    reference: Reference, frames: tuple[np.ndarray, np.ndarray]
) -> None:
    alpha = reference.opacity
    assert alpha.min() == 0 and alpha.max() == 1
    # an L of 16 x 16 px less 11 x 11, and the pixels that its edge cuts
    assert 0.8 * 135 < reference.area < 1.4 * 135
    robot = ROBOT.mask(frames[1][reference.index], SIZE, grow=1.5)
    assert alpha[robot].max() == 0
    blue = reference.cutout[alpha == 1].mean(0)
    assert np.abs(blue - [40, 40, 200]).max() < 15


def test_the_reference_put_back_is_the_picture(
    reference: Reference, frames: tuple[np.ndarray, np.ndarray]
) -> None:
    alpha = reference.opacity[..., None]
    put = reference.background * (1 - alpha) + reference.cutout
    picture = frames[0][reference.index].astype(np.float32)
    own = ~ROBOT.mask(frames[1][reference.index], SIZE, grow=1.5)
    assert np.abs(put - picture)[own].mean() < 1.0


def test_landmarks_lie_on_the_object_and_apart(reference: Reference) -> None:
    for x, y in reference.points:
        assert reference.opacity[int(y), int(x)] > 0
    gaps = np.linalg.norm(reference.points[:, None] - reference.points, axis=-1)
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() > 4


def test_farthest_points_spread() -> None:
    line = np.stack([np.arange(11.0), np.zeros(11)], 1)
    assert sorted(farthest_points(line, line.mean(0), 3)[:, 0].tolist()) == [0, 5, 10]
    assert farthest_points(line, line.mean(0), 1).tolist() == [[5, 0]]


@pytest.mark.parametrize("rotate", [True, False])
def test_targets_are_where_the_object_was_pasted(
    rotate: bool, frames: tuple[np.ndarray, np.ndarray], reference: Reference
) -> None:
    config = dataclasses.replace(CONFIG, robot=None, rotate=rotate)
    rng = np.random.default_rng(1)
    turned = []
    for _ in range(20):
        picture, points = compose(reference, *frames, config, rng)
        assert picture.shape == (SIZE, SIZE, 3) and points.shape == (4, 2)
        pixels = (points + 1) * SIZE / 2
        inside = ((pixels > 1) & (pixels < SIZE - 1)).all(1)
        for x, y in pixels[inside]:
            around = picture[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2]
            assert around[..., 0].min() < 150, "no blue at the landmark"
        # the shape is rigid: only scaled by three per cent
        first = np.linalg.norm(np.diff(pixels, axis=0), axis=1)
        rest = np.linalg.norm(np.diff(reference.points, axis=0), axis=1)
        assert np.abs(first / rest - 1).max() < 0.031
        direction = pixels[1] - pixels[0]
        turned.append(math.atan2(direction[1], direction[0]))
    assert (np.ptp(turned) > 1) == rotate


def test_the_robot_is_pasted_over_the_object(
    frames: tuple[np.ndarray, np.ndarray], reference: Reference
) -> None:
    rng = np.random.default_rng(2)
    pictures = np.stack([compose(reference, *frames, CONFIG, rng)[0] for _ in range(40)])
    green = (pictures[..., 1] > 120) & (pictures[..., 0] < 90) & (pictures[..., 2] < 90)
    shown = green.sum((1, 2))
    assert 0.8 < (shown > 20).mean() <= 1.0
    assert shown.max() < 2 * 79  # one robot, not also that of the reference frame


def test_the_same_seed_composes_the_same(
    frames: tuple[np.ndarray, np.ndarray], reference: Reference
) -> None:
    both = [compose(reference, *frames, CONFIG, np.random.default_rng(5)) for _ in range(2)]
    assert np.array_equal(both[0][0], both[1][0]) and np.array_equal(both[0][1], both[1][1])


def test_a_robot_is_where_proprioception_says() -> None:
    mask = RobotDisc(1, 0, 2 / SIZE, 0.25, 1 / SIZE, 0.0, 5 / SIZE).mask(
        np.array([20.0, 8.0]), SIZE
    )
    ys, xs = np.nonzero(mask)
    assert abs(xs.mean() - 32) < 0.6 and abs(ys.mean() - 20) < 0.6
    assert abs(mask.sum() - math.pi * 25) < 12


def test_still_pictures_have_no_object() -> None:
    still = np.repeat(dot_picture(0.5, 0.5, SIZE)[None], 20, 0)
    with pytest.raises(UserError, match="no object stands clear .* in 20 frames"):
        find_reference(still, np.zeros((20, 2)), dataclasses.replace(CONFIG, robot=None))


def test_an_object_always_under_the_robot_is_not_taken() -> None:
    places = np.random.default_rng(0).uniform(10, SIZE - 10, (30, 2))
    images = np.stack([scene(x, y, 0.0, (x, y)) for x, y in places])
    with pytest.raises(UserError, match="no object stands clear"):
        find_reference(images, places, CONFIG)


def test_a_projector_learns_to_find_a_token() -> None:
    torch.manual_seed(0)
    grid, count = 4, 512
    places = torch.randint(grid, (count, 2))
    tokens = 0.3 * torch.randn(count, grid, grid, 8)
    tokens[torch.arange(count), places[:, 1], places[:, 0], 0] += 6
    targets = ((places + 0.5) / grid * 2 - 1)[:, None]
    config = dataclasses.replace(CONFIG, steps=150, batch=64, lr=1e-2)
    projector = KeypointPool(grid * grid, 8, 2, heads=4, features=2, hidden=32)
    facts = train_landmarks(projector, tokens.flatten(1, 2).half(), targets, config, False)
    assert facts["median_error"] < 0.08 and facts["steps"] == 150


@pytest.mark.parametrize(
    ("change", "message"),
    [({"landmarks": 0}, "landmarks: 0; at least 1"), ({"steps": 0}, "steps: 0; at least 1")],
)
def test_settings_name_field_value_and_bound(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LandmarkConfig(**change)


def test_a_robot_has_a_size() -> None:
    with pytest.raises(UserError, match=r"radius: 0; in \(0, 1\)"):
        RobotDisc(0, 1, 1, 0, 1, 0, 0)
