"""Small worlds to train on, made without a simulator."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from wm_mpc.data.store.store import StoreSpec, StoreWriter
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.latents.windows import LatentWindows
from wm_mpc.models.world_model import WorldModel


def linear_windows(model: WorldModel, episodes: int = 20, steps: int = 6) -> LatentWindows:
    """Windows of a latent that moves by a fixed linear map of the action, for ``(D,)`` latents."""
    generator = torch.Generator().manual_seed(0)
    width = model.latent_shape[-1]
    push = 0.3 * torch.randn(model.action_width, width, generator=generator)
    actions = torch.randn(episodes, steps, model.action_width, generator=generator)
    start = torch.randn(episodes, 1, width, generator=generator)
    latents = torch.cat([start, start + (actions @ push).cumsum(1)], 1)
    frames = torch.arange(episodes * (steps + 1)).view(episodes, steps + 1)
    return LatentWindows(
        latents.flatten(0, 1), frames, actions, torch.arange(episodes), held_out=0.2
    )


def dot_picture(x: float, y: float, size: int) -> np.ndarray:
    """A red dot of a tenth of the side at (x, y) in [0, 1] on a grey checkerboard."""
    rows, columns = np.mgrid[:size, :size]
    board = 150 + 40 * ((rows // 4 + columns // 4) % 2)
    picture = np.repeat(board[..., None], 3, -1).astype(np.uint8)
    centre = (round(x * size * 16), round(y * size * 16))
    cv2.circle(picture, centre, round(0.1 * size * 16), (220, 30, 30), -1, shift=4)
    return picture


def dot_store(
    path: Path, episodes: int = 12, steps: int = 30, size: int = 32, seed: int = 0
) -> Path:
    """A store of a dot that moves by its action: Wall's interface, 65 px wide, state = proprio."""
    spec = StoreSpec("wall", 2, 2, 2, 0.1, (size, size))
    rng = np.random.default_rng(seed)
    with StoreWriter(path, spec, writer_id="1") as writer:
        for _ in range(episodes):
            position = rng.uniform(10, 55, 2)
            states, actions = [position], []
            for _ in range(steps):
                action = rng.uniform(-1.8, 1.8, 2)
                position = np.clip(position + 2 * action, 6, 59)
                states.append(position)
                actions.append(action)
            state = np.array(states)
            writer.add(
                Trajectory(
                    images=np.stack([dot_picture(*(s / 65), size) for s in state]),
                    image_steps=np.arange(steps + 1),
                    actions=np.array(actions, np.float32),
                    proprio=state.astype(np.float32),
                    stamps=np.arange(steps + 1) * 0.1,
                    state=state,
                )
            )
    return path


def equal_states(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """True when two state dicts are bit-equal."""
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) for key, value in first.items()
    )
