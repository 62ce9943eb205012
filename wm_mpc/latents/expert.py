"""Expert data of a store as latents: all episodes, or some spread evenly over the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wm_mpc.core.errors import UserError
from wm_mpc.data.store.store import Store
from wm_mpc.data.store.windows import Frames, Windows
from wm_mpc.latents.frames import frame_latents
from wm_mpc.latents.tokens import cache_tokens
from wm_mpc.latents.windows import LatentWindows
from wm_mpc.models.world_model import WorldModel, WorldModelConfig


@dataclass(frozen=True)
class Expert:
    """Latent windows and where they come from.

    Attributes:
        frames: episodes of the store end to end.
        windows: index arrays of the windows, in the order of ``data``.
        data: the windows as latents; its frame ids count the frames that were encoded.
        train: window ids to learn from.
        held: window ids of held-out episodes.
    """

    frames: Frames
    windows: Windows
    data: LatentWindows
    train: Tensor
    held: Tensor

    def states(self, ids: Tensor, step: int = 0) -> np.ndarray:
        """True states at model step ``step`` of windows ``(N,)``, float64 ``(N, S)``.

        Raises:
            UserError: the store holds no states.
        """
        if self.frames.state is None:
            raise UserError("data: the store holds no simulator states; collect it with wm-mpc")
        return self.frames.state[self.windows.rows[ids.numpy(), step]]

    def latents(self, ids: Tensor, step: int) -> Tensor:
        """Latents at model step ``step`` of windows ``(N,)``: ``(N, *L)``."""
        return self.data.latents[self.data.frames[ids, step]]


def load_expert(
    model: WorldModel,
    store: Store,
    length: int,
    tokens: Path | None = None,
    episodes: int = 0,
    held_out: float = 0.05,
    progress: bool = True,
) -> Expert:
    """Windows of ``length`` model steps.

    Args:
        model: world model; with its encoder where tokens are to be computed.
        store: trajectories of the model's task.
        length: model steps per window.
        tokens: folder of the store's token cache, filled where it is not complete; None: encode
            the frames of the chosen episodes and keep nothing.
        episodes: so many episodes, spread evenly over the store; 0: all.
        held_out: share of the episodes that is held out, in (0, 0.5].
        progress: show progress bars.

    Raises:
        UserError: the store does not fit the model, or has no window of that length.
    """
    check_store(model, store)
    frames = store.frames()
    try:
        windows = store.windows(length, model.config.frameskip)
    except ValueError as error:
        raise UserError(str(error)) from error
    if episodes:
        chosen = np.linspace(0, len(store) - 1, min(episodes, len(store))).astype(np.int64)
        windows = windows.subset(np.isin(windows.episode, chosen))
    used, places = np.unique(windows.frames, return_inverse=True)
    if model.encoder is None:
        raise UserError("model: no encoder; expert frames cannot be encoded")
    cached = None
    if tokens is not None:
        cached = cache_tokens(model.encoder, frames, tokens, progress=progress)
    latents = frame_latents(model, frames, used, cached, progress=progress)
    renumbered = replace(windows, frames=places.reshape(windows.frames.shape))
    data = LatentWindows.build(model, latents, frames, renumbered)
    # Numbered from 0 without holes, so that the held-out share counts the chosen episodes.
    _, numbers = np.unique(windows.episode, return_inverse=True)
    data = replace(data, episode=torch.from_numpy(numbers.reshape(-1)))
    train, held = data.split(held_out)
    if not len(train):
        raise UserError(f"data: {len(store)} episodes; at least 2 with windows expected")
    return Expert(frames, windows, data, train, held)


def check_store(model: WorldModel, store: Store) -> None:
    """Refuse a store of another robot.

    Raises:
        UserError: naming field, value and what the model expects.
    """
    check_interface(model.config, store, "the model")


def check_interface(config: WorldModelConfig, store: Store, who: str) -> None:
    """Refuse a store whose robot is not the one that ``config`` describes.

    Args:
        config: interface of a task.
        store: recorded trajectories.
        who: expects this, for the message.

    Raises:
        UserError: naming field, value and what is expected.
    """
    for name in ("action_dim", "proprio_dim"):
        found, wanted = getattr(store.spec, name), getattr(config, name)
        if found != wanted:
            raise UserError(f"data: {store.path}: {name} {found}; {who} expects {wanted}")
    found, wanted = store.spec.control_period, config.control_period
    if abs(found / wanted - 1) > 0.01:
        raise UserError(
            f"data: {store.path}: control_period {found:g} s; {who} expects {wanted:g} s"
        )


__all__ = ["Expert", "check_interface", "check_store", "load_expert"]
