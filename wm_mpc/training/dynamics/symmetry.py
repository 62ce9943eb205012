"""Motions of the workspace that change nothing, as affine maps of latents and actions.

Seen from above, a square table with a fixed camera looks and behaves the same after a quarter
turn. With landmark latents the turn is an exact affine map, so every recorded window stands for
four without encoding a single further picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from wm_mpc.core.errors import UserError
from wm_mpc.models.world_model import WorldModel
from wm_mpc.tasks.presets import TaskPreset
from wm_mpc.tasks.registry import known_task
from wm_mpc.tasks.robot_disc import RobotDisc


def picture_units(model: WorldModel, robot: RobotDisc) -> tuple[Tensor, Tensor, Tensor]:
    """Bring landmarks and robot into one unit: half the picture's side, from its middle.

    Args:
        model: world model with landmark latents and proprioception (x, y) or (x, y, vx, vy).
        robot: where the robot's position appears in the picture; of equal scale in x and y.

    Returns:
        Scale and offset ``(D,)`` of ``latent * scale + offset``, and per pair (x, y) of it 1
        where it is a position, 0 where it is a velocity, ``(D / 2,)``.

    Raises:
        ValueError: unequal scales, under which a turn is none.
    """
    if not math.isclose(robot.x_scale, robot.y_scale):
        raise ValueError(f"robot: scales {robot.x_scale} and {robot.y_scale}; equal expected")
    visual, unit = model.visual_dim, 2 * robot.x_scale
    scale = torch.cat([model.visual_std.cpu(), unit * model.proprio_std.cpu()]).float()
    offset = torch.cat([model.visual_mean.cpu(), unit * model.proprio_mean.cpu()]).float()
    offset[visual : visual + 2] += 2 * torch.tensor([robot.x_offset, robot.y_offset]) - 1
    moves = torch.ones(len(scale) // 2)
    if model.config.proprio_dim == 4:
        moves[-1] = 0.0
    return scale, offset, moves


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

    def __call__(
        self, latents: Tensor, actions: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Turn a quarter of the batch ``(B, T, D), (B, U, A)`` by each angle; same shapes."""
        turned_latents, turned_actions = [], []
        for k, (some, moves) in enumerate(zip(latents.chunk(4), actions.chunk(4), strict=True)):
            matrix, offset = self.latent_maps[k]
            turned_latents.append(some @ matrix + offset)
            matrix, offset = self.action_maps[k]
            turned_actions.append(moves @ matrix + offset)
        return torch.cat(turned_latents), torch.cat(turned_actions)


class RigidMotions:
    """Quarter turns of the whole workspace, and any rigid motion of what is far from its borders.

    Pushing on a table does not depend on where on the table it happens, nor on its orientation,
    as long as nothing touches a border. So a window whose object keeps clear of the border is
    turned by a random angle and shifted to a random place that is clear of it too. With landmark
    latents both are exact affine maps.

    Args:
        model: world model with landmark latents and proprioception (x, y) or (x, y, vx, vy);
            actions are displacements or velocities in the plane.
        robot: where the robot's position appears in the picture; of equal scale in x and y.
        turns: quarter turns of the workspace, done first.
        clearance: largest distance from the mean of the landmarks to a point of the object, as a
            fraction of the picture's side.
        border: width of the strip along the picture's sides that the object cannot enter, as a
            fraction of the side.
    """

    def __init__(
        self,
        model: WorldModel,
        robot: RobotDisc,
        turns: QuarterTurns,
        clearance: float,
        border: float,
    ) -> None:
        self.turns = turns
        # landmarks and robot in one unit: half the picture's side, from its middle
        self.free = 1.0 - 2.0 * (border + clearance)
        if not self.free > 0:
            raise ValueError(f"clearance: {clearance} and border {border} leave no room")
        self.scale, self.offset, moves = picture_units(model, robot)
        self.points, self.width = model.visual_dim // 2, len(self.scale)
        self.shifted = moves[:, None]
        self.action_mean, self.action_std = model.action_mean.cpu(), model.action_std.cpu()

    def __call__(
        self, latents: Tensor, actions: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Move a batch ``(B, T, D), (B, U, A)``; same shapes."""
        latents, actions = self.turns(latents, actions, generator)
        batch = len(latents)
        pairs = (latents * self.scale + self.offset).unflatten(-1, (-1, 2))
        centre = pairs[:, :, : self.points].mean(2)
        angle = 2 * math.pi * torch.rand(batch, generator=generator)
        turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], -1)
        turn = turn.unflatten(-1, (2, 2))  # row vectors: (x, y) @ turn
        about = centre[:, :1, None] * self.shifted
        moved = torch.einsum("btkx,bxy->btky", pairs - about, turn)
        path = moved[:, :, : self.points].mean(2)
        low, high = -self.free - path.amin(1), self.free - path.amax(1)
        shift = low + torch.rand(batch, 2, generator=generator) * (high - low)
        moved = moved + shift[:, None, None] * self.shifted
        robot = moved[:, :, self.points]
        fits = (
            (centre.abs() <= self.free).flatten(1).all(1)
            & (low <= high).all(1)
            & (robot.abs() <= 1.0).flatten(1).all(1)
        )
        moved = (moved.flatten(2) - self.offset) / self.scale
        raw = actions.unflatten(-1, (-1, 2)) * self.action_std + self.action_mean
        raw = torch.einsum("bukx,bxy->buky", raw, turn)
        turned = ((raw - self.action_mean) / self.action_std).flatten(2)
        latents = torch.where(fits[:, None, None], moved, latents)
        return latents, torch.where(fits[:, None, None], turned, actions)


def _quarter(matrix: Tensor, pairs: Sequence[tuple[int, int]]) -> None:
    """Write a quarter turn of every pair into an identity, for row vectors: (x, y) -> (-y, x)."""
    for x, y in pairs:
        matrix[x, x] = matrix[y, y] = 0.0
        matrix[y, x], matrix[x, y] = -1.0, 1.0


def symmetry(model: WorldModel, preset: TaskPreset) -> QuarterTurns | RigidMotions | None:
    """Motions of the task's workspace that change nothing, where it has them."""
    if preset.turn_centre is None:
        return None
    velocities = [(2, 3)] if preset.proprio_dim == 4 else []
    turns = QuarterTurns(model, [(0, 1)], velocities, preset.turn_centre, [(0, 1)])
    if preset.clearance is None or preset.robot is None:
        return turns
    return RigidMotions(model, preset.robot, turns, preset.clearance, preset.border)


def task_symmetry(model: WorldModel) -> QuarterTurns | RigidMotions:
    """Motions of the workspace of a model's task that change nothing.

    Raises:
        UserError: the task has none, or the latents are no landmarks.
    """
    task = model.config.task
    known = known_task(task)
    preset = known.preset if known is not None else None
    found = None
    if preset is not None and model.visual_dim == 2 * preset.landmarks:
        found = symmetry(model, preset)
    if found is None:
        raise UserError(f"augment: no symmetry is known for {task} and these latents")
    return found
