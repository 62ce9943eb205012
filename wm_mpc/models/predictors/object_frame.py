r"""The frame of the object: what pushing looks like does not depend on where it happens.

A latent of landmarks says where an object is and how it is turned. A predictor in the camera's
frame has to learn every push once per place and orientation; in the frame of the object it learns
it once. With the landmarks' centre :math:`c`, their heading :math:`e` (a unit vector) and the
rotation :math:`R = [e, Je]`, the predictor sees :math:`R^\top (p - c)` for every point,
:math:`R^\top v` for every velocity and action, and :math:`c, e` themselves, because borders stay
where they are. What it predicts is turned back by :math:`R`.

The heading is the least-squares rotation of the landmarks against their mean shape (full
Procrustes analysis; Kendall 1984): with points as complex numbers it is
:math:`\sum_k \bar v_k (p_k - c)`, where the mean shape :math:`v` is the first eigenvector of the
points' covariance. It is linear in the latent, so that one matrix yields relative points, centre
and heading at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ObjectFrame(nn.Module):
    """Turns latents and actions into the object's frame and predicted changes back.

    All numbers are buffers that travel with the weights; ``fit`` sets them.

    Args:
        width: ``D``, latent width: pairs (x, y) of landmarks, then of the robot's position and
            velocity.
        action_width: ``A``, pairs (x, y).

    Raises:
        ValueError: an odd width.
    """

    EXTRAS = 4
    """Features beside the latent's: centre (2) and heading (2)."""

    def __init__(self, width: int, action_width: int) -> None:
        super().__init__()
        for name, value in (("width", width), ("action_width", action_width)):
            if value % 2:
                raise ValueError(f"{name}: {value}; pairs (x, y) expected")
        self.register_buffer("matrix", torch.zeros(width, width + self.EXTRAS))
        self.register_buffer("offset", torch.zeros(width + self.EXTRAS))
        self.register_buffer("action_scale", torch.ones(action_width))
        self.register_buffer("action_offset", torch.zeros(action_width))
        self.register_buffer("change_scale", torch.ones(width))

    def fit(
        self,
        latents: Tensor,
        points: int,
        scale: Tensor,
        offset: Tensor,
        moves: Tensor,
        action_mean: Tensor,
        action_std: Tensor,
    ) -> None:
        """Set the frame from data.

        Args:
            latents: normalised latents ``(N, D)``.
            points: ``K``, the landmarks at the head of a latent, at least 2.
            scale: ``(D,)``, see ``offset``.
            offset: ``(D,)``; ``latent * scale + offset`` are coordinates in one unit, with their
                origin where the borders are symmetric.
            moves: ``(D / 2,)``, 1 for pairs that are positions, 0 for velocities.
            action_mean: ``(A,)``, see ``action_std``.
            action_std: ``(A,)``; ``action * action_std + action_mean`` are displacements.

        Raises:
            ValueError: fewer than 2 landmarks, which have no heading.
        """
        if points < 2:
            raise ValueError(f"points: {points}; at least 2 landmarks have a heading")
        width = len(scale)
        raw = latents.double() * scale.double() + offset.double()
        pairs = raw.unflatten(-1, (-1, 2))
        marks = pairs[:, :points]
        shape = mean_shape(marks - marks.mean(1, keepdim=True))
        # columns of the raw map: relative pairs, centre, heading
        centre = torch.zeros(width, 2, dtype=torch.float64)
        centre[0 : 2 * points : 2, 0] = centre[1 : 2 * points : 2, 1] = 1.0 / points
        heading = torch.zeros(width, 2, dtype=torch.float64)
        heading[0 : 2 * points : 2, 0] = heading[1 : 2 * points : 2, 1] = shape[:, 0]
        heading[1 : 2 * points : 2, 0] = shape[:, 1]
        heading[0 : 2 * points : 2, 1] = -shape[:, 1]
        relative = torch.eye(width, dtype=torch.float64)
        relative -= torch.cat([centre * m for m in moves.double()], 1)
        # features of unit size, x and y alike so that a rotation stays one
        where = (raw @ relative).unflatten(-1, (-1, 2))
        sizes = where.square().mean((0, 2)).sqrt()
        sizes[:points] = where[:, :points].square().mean().sqrt()
        relative /= sizes.clamp(min=1e-6).repeat_interleave(2)
        centre /= (raw @ centre).square().mean().sqrt().clamp(min=1e-6)
        whole = torch.cat([relative, centre, heading], 1)
        self.matrix.copy_(scale.double()[:, None] * whole)
        self.offset.copy_(offset.double() @ whole)
        size = (action_std.square() + action_mean.square()).mean().sqrt()
        self.action_scale.copy_(action_std / size)
        self.action_offset.copy_(action_mean / size)
        mean = scale.unflatten(-1, (-1, 2)).mean(1).repeat_interleave(2)
        self.change_scale.copy_(mean / scale)

    def enter(self, latents: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Features in the object's frame, and its heading.

        ``(..., D), (..., A) -> (..., D + 4 + A), (..., 2)``.
        """
        width = latents.shape[-1]
        seen = latents @ self.matrix + self.offset
        heading = nn.functional.normalize(seen[..., width + 2 :], dim=-1, eps=1e-6)
        own = turned(seen[..., :width], heading, inverse=True)
        moved = turned(actions * self.action_scale + self.action_offset, heading, inverse=True)
        return torch.cat([own, seen[..., width : width + 2], heading, moved], -1), heading

    def leave(self, change: Tensor, heading: Tensor) -> Tensor:
        """Change of the latent: ``(..., D)`` in the object's frame, ``(..., 2) -> (..., D)``."""
        return turned(change, heading) * self.change_scale


def turned(values: Tensor, heading: Tensor, inverse: bool = False) -> Tensor:
    """Rotate pairs ``(..., 2 P)`` by the angle of a unit vector ``(..., 2)``, or back."""
    x, y = values[..., 0::2], values[..., 1::2]
    cos, sin = heading[..., :1], heading[..., 1:]
    if inverse:
        sin = -sin
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1).flatten(-2)


def mean_shape(points: Tensor) -> Tensor:
    """Mean shape of centred point sets up to rotation.

    Args:
        points: ``(N, K, 2)``, each set centred.

    Returns:
        Unit vector ``(K, 2)``, float64.
    """
    numbers = torch.view_as_complex(points.double().contiguous())
    _, vectors = torch.linalg.eigh(numbers.T @ numbers.conj() / len(numbers))
    shape = vectors[:, -1]
    # an eigenvector has no phase of its own; this one makes the choice repeatable
    first = shape[shape.abs().argmax()]
    return torch.view_as_real((shape * first.conj() / first.abs()).contiguous())


__all__ = ["ObjectFrame", "mean_shape", "turned"]
