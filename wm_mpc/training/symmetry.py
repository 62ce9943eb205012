"""Quarter turns of a square workspace, as affine maps of latents and actions.

Seen from above, a square table with a fixed camera looks and behaves the same after a quarter
turn. With landmark latents the turn is an exact affine map, so every recorded window stands for
four without encoding a single further picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wm_mpc.world_model import WorldModel


class QuarterTurns:
    """Random quarter turns of training windows.

    Args:
        model: world model with landmark latents and plain proprioception; its normalisation is
            folded in.
        proprio_points: index pairs (x, y) of raw proprioception that are positions in the
            picture's plane.
        proprio_vectors: index pairs that are velocities in that plane.
        centre: raw coordinates of the point the workspace turns about.
        action_vectors: index pairs of a raw action that are displacements in that plane.
    """

    def __init__(
        self,
        model: WorldModel,
        proprio_points: Sequence[tuple[int, int]],
        proprio_vectors: Sequence[tuple[int, int]],
        centre: tuple[float, float],
        action_vectors: Sequence[tuple[int, int]],
    ) -> None:
        visual, width = model.visual_dim, model.latent_shape[-1]
        pairs = [(i, i + 1) for i in range(0, visual, 2)]
        turn = torch.eye(width, dtype=torch.float64)
        about = torch.zeros(width, dtype=torch.float64)
        for x, y in proprio_points:
            about[visual + x], about[visual + y] = centre
        for group in (proprio_points, proprio_vectors):
            pairs += [(visual + x, visual + y) for x, y in group]
        _quarter(turn, pairs)
        mean = torch.cat([model.visual_mean, model.proprio_mean]).double().cpu()
        std = torch.cat([model.visual_std, model.proprio_std]).double().cpu()
        action_turn = torch.eye(model.config.action_dim, dtype=torch.float64)
        _quarter(action_turn, action_vectors)
        a_mean, a_std = model.action_mean.double().cpu(), model.action_std.double().cpu()
        self.latent_maps, self.action_maps = [], []
        for k in range(4):
            power = torch.linalg.matrix_power(turn, k)
            # normalised -> raw -> turned about the centre -> normalised
            matrix = std[:, None] * power / std
            offset = ((mean - about) @ power + about - mean) / std
            self.latent_maps.append((matrix.float(), offset.float()))
            power = torch.linalg.matrix_power(action_turn, k)
            matrix, offset = a_std[:, None] * power / a_std, (a_mean @ power - a_mean) / a_std
            steps = model.config.frameskip
            whole = torch.block_diag(*[matrix] * steps)
            self.action_maps.append((whole.float(), offset.repeat(steps).float()))

    def __call__(self, latents: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Turn a quarter of the batch ``(B, T, D), (B, U, A)`` by each angle; same shapes."""
        turned_latents, turned_actions = [], []
        for k, (some, moves) in enumerate(zip(latents.chunk(4), actions.chunk(4), strict=True)):
            matrix, offset = self.latent_maps[k]
            turned_latents.append(some @ matrix + offset)
            matrix, offset = self.action_maps[k]
            turned_actions.append(moves @ matrix + offset)
        return torch.cat(turned_latents), torch.cat(turned_actions)


def _quarter(matrix: Tensor, pairs: Sequence[tuple[int, int]]) -> None:
    """Write a quarter turn of every pair into an identity, for row vectors: (x, y) -> (-y, x)."""
    for x, y in pairs:
        matrix[x, x] = matrix[y, y] = 0.0
        matrix[y, x], matrix[x, y] = -1.0, 1.0
