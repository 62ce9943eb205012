"""Label-free landmarks: where an object is *and how it is turned*, from one reference picture.

Reconstruction, slowness, contrastive and equivariance losses all leave the orientation of an
object out of the latent for thousands of steps, although the frozen tokens hold it
(docs/world_model.md has the experiments). So the pose is made the training signal itself: the
foreground of one reference frame is cut out against the static background, pasted at random poses,
and the projector regresses where fixed points of the cut-out went. The targets are known because
the warp was ours; no human and no simulator labels anything. The latent is then a set of image
points that move rigidly with the object: its Euclidean distance grows with both displacement and
rotation, which is what a goal cost needs.

The robot's own body is told apart by proprioception (``RobotDisc``): it is cut away from the
reference and pasted at random, so that the landmarks ignore it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm
from tyro.conf import Suppress

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import (
    Checked,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from wm_mpc.core.opencv import cv2
from wm_mpc.core.precision import fast_bf16
from wm_mpc.data.store.windows import Frames
from wm_mpc.latents.encode import encode_images, sample_ids
from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.world_model import WorldModel
from wm_mpc.tasks.robot_disc import RobotDisc
from wm_mpc.training.optimise.loop import Schedule, fit
from wm_mpc.training.projector.losses import Regression


@dataclass(frozen=True)
class LandmarkConfig(Checked):
    """How the projector is taught.

    Attributes:
        landmarks: image points per object, >= 1; the visual latent has two numbers per point.
        rotate: paste at random orientations; off for objects that look alike from all sides.
        compositions: synthetic pictures.
        steps: optimiser steps.
        batch: pictures per step.
        lr: peak learning rate (cosine, 50 steps warm-up).
        contrast: foreground threshold, summed absolute difference of the channels to the
            background, 0 to 765.
        robot: the robot's silhouette when it is not the object itself; None otherwise.
        seed: seed of everything.
    """

    landmarks: PositiveInt = 6
    rotate: bool = True
    compositions: PositiveInt = 24000
    steps: PositiveInt = 4000
    batch: PositiveInt = 192
    lr: PositiveFloat = 3e-3
    contrast: NonNegativeFloat = 60
    robot: Suppress[RobotDisc | None] = None
    seed: Suppress[NonNegativeInt] = 0


@dataclass(frozen=True)
class Reference:
    """The cut-out object.

    Attributes:
        background: uint8 ``(S, S, 3)``, median of many frames.
        cutout: float32 ``(S, S, 3)``, the object's colour times its opacity.
        opacity: float32 ``(S, S)``, 0 outside the object, 1 inside, in between along its edge.
        points: float64 ``(K, 2)`` landmark positions [px], pixel centres at .5.
        centre: float64 ``(2,)`` centroid of the object [px].
        index: which of the given frames was chosen.
        area: pixels of the object.
    """

    background: np.ndarray
    cutout: np.ndarray
    opacity: np.ndarray
    points: np.ndarray
    centre: np.ndarray
    index: int
    area: int


def find_reference(images: np.ndarray, proprio: np.ndarray, config: LandmarkConfig) -> Reference:
    """Pick the frame that shows most of the object, away from the border and from the robot.

    Args:
        images: uint8 ``(F, S, S, 3)`` frames of a static camera, some hundreds or more.
        proprio: raw proprioception ``(F, P)``.
        config: thresholds and robot silhouette.

    Raises:
        UserError: nothing moves in the pictures, or the object is always covered or cut off.
    """
    size = images.shape[1]
    background = np.median(images[:: max(1, len(images) // 600)], 0).astype(np.uint8)
    border = max(2, size // 16)
    best: tuple[int, int, np.ndarray] | None = None
    for i, image in enumerate(images):
        mask = np.abs(image.astype(np.int16) - background).sum(-1) > config.contrast
        if config.robot is not None:
            near = config.robot.mask(proprio[i], size, grow=size / 12)
            mask &= ~config.robot.mask(proprio[i], size, grow=1.5)
            if (mask & near).any():
                continue
        ys, xs = np.nonzero(mask)
        if (
            not len(xs)
            or min(xs.min(), ys.min(), size - 1 - xs.max(), size - 1 - ys.max()) < border
        ):
            continue
        if best is None or len(xs) > best[0]:
            best = (len(xs), i, mask)
    if best is None:
        raise UserError(
            f"images: no object stands clear of border and robot in {len(images)} frames "
            f"(contrast {config.contrast})"
        )
    area, index, mask = best
    ys, xs = np.nonzero(mask)
    pixels = np.stack([xs + 0.5, ys + 0.5], 1)
    centre = pixels.mean(0)
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    residual = (images[index].astype(np.float32) - background) * grown[..., None]
    strength = np.abs(residual).sum(-1)
    opacity = np.minimum(strength / np.quantile(strength[mask], 0.9), 1.0).astype(np.float32)
    cutout = opacity[..., None] * background + residual
    points = farthest_points(pixels, centre, config.landmarks)
    return Reference(background, cutout, opacity, points, centre, index, area)


def farthest_points(pixels: np.ndarray, centre: np.ndarray, count: int) -> np.ndarray:
    """Spread ``count`` points over ``pixels`` ``(M, 2)``, farthest first.

    A single point is the centre itself.
    """
    if count == 1:
        return centre[None].copy()
    chosen = [int(((pixels - centre) ** 2).sum(1).argmax())]
    distance = ((pixels - pixels[chosen[0]]) ** 2).sum(1)
    for _ in range(count - 1):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((pixels - pixels[chosen[-1]]) ** 2).sum(1))
    return pixels[chosen]


def compose(
    reference: Reference,
    images: np.ndarray,
    proprio: np.ndarray,
    config: LandmarkConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """One synthetic picture and where the landmarks are in it.

    Returns:
        uint8 ``(S, S, 3)`` and float32 ``(K, 2)`` in [-1, 1] across the picture (outside for
        points beyond the border).
    """
    size = reference.background.shape[0]
    turn = rng.uniform(0, 2 * math.pi) if config.rotate else 0.0
    target = rng.uniform(0.08 * size, 0.92 * size, 2)
    c, s = math.cos(turn), math.sin(turn)
    rotation = rng.uniform(0.97, 1.03) * np.array([[c, -s], [s, c]])
    shift = target - rotation @ reference.centre
    # OpenCV counts from pixel centres at 0, our coordinates from pixel centres at .5.
    warp = np.concatenate([rotation, (shift + rotation @ [0.5, 0.5] - 0.5)[:, None]], 1)
    how = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
    opacity = cv2.warpAffine(reference.opacity, warp, (size, size), flags=how)[..., None]
    picture = reference.background * (1 - opacity)
    picture += cv2.warpAffine(reference.cutout, warp, (size, size), flags=how)
    if config.robot is not None and rng.random() < 0.95:
        j = int(rng.integers(len(images)))
        here = config.robot.centre(proprio[j], size)
        there = robot_place(opacity[..., 0], config.robot.radius * size, rng)
        move = np.array([[1.0, 0.0, there[0] - here[0]], [0.0, 1.0, there[1] - here[1]]])
        disc = config.robot.mask(proprio[j], size).astype(np.float32)
        pasted = cv2.warpAffine(images[j] * disc[..., None], move, (size, size))
        picture = picture * (1 - cv2.warpAffine(disc, move, (size, size))[..., None]) + pasted
    points = (reference.points @ rotation.T + shift) / (size / 2) - 1
    return np.clip(picture, 0, 255).astype(np.uint8), points.astype(np.float32)


def robot_place(opacity: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Where to paste the robot: two times in three touching the object, else anywhere outside it.

    Contact is where the landmarks matter most, and where the robot hides the object's outline.

    Args:
        opacity: the object in the picture, ``(S, S)`` in [0, 1].
        radius: of the robot [px].
        rng: source of randomness.

    Returns:
        Centre [px], float64 ``(2,)``.
    """
    gap = cv2.distanceTransform((opacity < 0.5).astype(np.uint8), cv2.DIST_L2, 3) - radius
    close = rng.random() < 2 / 3
    allowed = np.flatnonzero((gap > -1.0) & (gap < 1.5) if close else gap > -1.0)
    if not len(allowed):
        return rng.uniform(0, opacity.shape[0], 2)
    row, column = divmod(int(allowed[rng.integers(len(allowed))]), opacity.shape[1])
    return np.array([column, row]) + rng.random(2)


def compose_tokens(
    encoder: DinoEncoder,
    reference: Reference,
    images: np.ndarray,
    proprio: np.ndarray,
    config: LandmarkConfig,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """Encode ``config.compositions`` pictures ``M``.

    Returns:
        Tokens float16 ``(M, N, C)`` and landmark targets float32 ``(M, K, 2)``.
    """
    rng = np.random.default_rng(config.seed)
    total, batch = config.compositions, 128
    tokens = np.empty((total, encoder.num_tokens, encoder.dim), np.float16)
    targets = np.empty((total, config.landmarks, 2), np.float32)
    for start in tqdm(
        range(0, total, batch), desc="compositions", disable=not progress, mininterval=2.0
    ):
        stop = min(start + batch, total)
        pairs = [compose(reference, images, proprio, config, rng) for _ in range(start, stop)]
        tokens[start:stop] = encode_images(encoder, np.stack([picture for picture, _ in pairs]))
        targets[start:stop] = np.stack([points for _, points in pairs])
    return torch.from_numpy(tokens), torch.from_numpy(targets)


def train_landmarks(
    projector: nn.Module,
    tokens: Tensor,
    targets: Tensor,
    config: LandmarkConfig,
    progress: bool = True,
) -> dict:
    """Regress the landmarks from the tokens of the compositions.

    Args:
        projector: ``(B, N, C) -> (B, 2 K)``, trained in place.
        tokens: from ``compose_tokens``; the last twentieth is held out.
        targets: where the landmarks are, from ``compose_tokens``.
        config: schedule.
        progress: show a progress bar.

    Returns:
        Facts: steps, seconds, held-out median error in fractions of the image side.
    """
    train = len(tokens) - max(1, len(tokens) // 20)
    device = next(projector.parameters()).device

    def draw(generator: torch.Generator, part: slice) -> tuple[Tensor, ...]:
        ids = torch.randint(train, (config.batch,), generator=generator)
        return tokens[ids].to(device).float(), targets[ids].to(device).flatten(1)

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / config.steps))

    done = fit(
        Regression(projector), {"projector": projector}, draw,
        Schedule(
            config.steps, config.lr, bf16=fast_bf16(device.type), seed=config.seed,
            scheduler=lambda optimizer: LambdaLR(optimizer, rate),
        ),
        key={}, name="landmarks", alone=True, progress=progress,
    )  # fmt: skip
    with torch.no_grad():
        found = torch.cat(
            [projector(part.to(device).float()).cpu() for part in tokens[train:].split(256)]
        )
    error = (found.unflatten(-1, (-1, 2)) - targets[train:]).norm(dim=-1) / 2
    return {
        "steps": config.steps,
        "seconds": round(done.elapsed, 1),
        "median_error": float(error.median()),
        "p90_error": float(error.quantile(0.9)),
    }


def teach_landmarks(
    model: WorldModel,
    frames: Frames,
    own: np.ndarray,
    config: LandmarkConfig,
    candidates: int = 4000,
) -> dict:
    """Train the projector on compositions of one reference frame.

    Returns the facts of the stage.
    """
    assert model.encoder is not None
    ids = sample_ids(len(own), candidates, config.seed)
    images = frames.gather(ids)
    reference = find_reference(images, own[ids], config)
    tokens, targets = compose_tokens(model.encoder, reference, images, own[ids], config)
    facts = train_landmarks(model.projector, tokens, targets, config)
    return facts | {
        "reference_frame": int(ids[reference.index]),
        "reference_pixels": reference.area,
    }
