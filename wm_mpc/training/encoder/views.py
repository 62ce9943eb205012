"""Views and masks of pictures for self-supervised pre-training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_views(
    images: Tensor, size: int, scale: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Random resized, flipped, quarter-turned and recoloured views.

    uint8 ``(B, H, W, 3)`` -> ``(B, 3, size, size)`` in 0..1.
    """
    b = images.shape[0]
    x = images.permute(0, 3, 1, 2).float() / 255.0

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator).to(x.device)

    side = uniform(*scale, b).sqrt()
    stretch = uniform(-0.1, 0.1, b).exp()
    half_w, half_h = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    centre_x, centre_y = uniform(-1, 1, b) * (1 - half_w), uniform(-1, 1, b) * (1 - half_h)
    angle = torch.randint(0, 4, (b,), generator=generator).to(x.device) * (math.pi / 2)
    flip = torch.where(uniform(0, 1, b) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([cos * half_w * flip, -sin * half_h, centre_x], -1),
            torch.stack([sin * half_w * flip, cos * half_h, centre_y], -1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [b, 3, size, size], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    brightness, contrast = uniform(0.8, 1.2, b, 1, 1, 1), uniform(0.8, 1.2, b, 1, 1, 1)
    tint = uniform(0.9, 1.1, b, 3, 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((x - mean) * contrast + mean * brightness).mul(tint).clamp(0, 1)


def salient_patches(pixels: Tensor, patch: int) -> Tensor:
    """Patches with structure, ``(B, 3, S, S) -> (B, N)`` bool.

    Their pixel spread is at least a fifth of the picture's largest.
    """
    spread = F.unfold(pixels.mean(1, keepdim=True), patch, stride=patch).std(1)
    return spread > 0.2 * spread.amax(1, keepdim=True)


def block_mask(salient: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Masked patches in rectangles, bool ``(B, N)``.

    Every second picture stays unmasked, as in iBOT.

    Rectangles are centred on salient patches: robot pictures are mostly background, and guessing
    background teaches nothing.
    """
    batch, tokens = salient.shape
    grid = round(tokens**0.5)
    mask = torch.zeros(batch, grid, grid, dtype=torch.bool)
    centres = torch.multinomial(salient.float() + 1e-3, 4, replacement=True, generator=generator)
    half = 0.5 + torch.rand(batch, 4, 2, generator=generator) * grid / 5
    goal = ratio * tokens * torch.rand(batch, generator=generator)
    axis = torch.arange(grid)
    rows, columns = centres // grid, centres % grid
    for i in range(4):
        inside = ((axis - rows[:, i, None]).abs() <= half[:, i, :1])[:, :, None] & (
            (axis - columns[:, i, None]).abs() <= half[:, i, 1:]
        )[:, None, :]
        grow = (mask.sum((1, 2)) < goal) | (mask.sum((1, 2)) == 0)
        mask |= inside & grow[:, None, None]
    mask[1::2] = False
    return mask.flatten(1)
