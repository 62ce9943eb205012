"""Joins the frames of a store to the graph that ``planners/subgoals`` finds ways in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wm_mpc.core.errors import UserError
from wm_mpc.data.store.store import Store
from wm_mpc.latents.expert import check_store
from wm_mpc.latents.frames import frame_latents
from wm_mpc.latents.tokens import cache_tokens
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.subgoals import STITCH, SubgoalGraph

NEIGHBOURS = 12
"""Nodes that a node is joined to beside the next of its episode."""


def recorded_steps(
    model: WorldModel, store: Store, most: int, tokens: Path | None = None
) -> tuple[Tensor, np.ndarray]:
    """Latents of frames that lie a model step apart, and their episodes.

    Args:
        model: world model of compact latents, with its encoder.
        store: trajectories of the model's task.
        most: at most so many frames, of whole episodes spread evenly over the store.
        tokens: folder of the store's token cache, filled where it is not complete; None: encode.

    Returns:
        ``(N, D)`` and int ``(N,)``.

    Raises:
        UserError: latents of patch tokens, another robot's store, or no two frames a step apart.
    """
    check_store(model, store)
    if len(model.latent_shape) != 1:
        raise UserError(f"model: latents of shape {model.latent_shape}; compact ones expected")
    frames = store.frames()
    episode = np.repeat(np.arange(len(frames.length)), np.diff(frames.frame_start))
    steps = np.flatnonzero(frames.image_step % model.config.frameskip == 0)
    if len(steps) > most:
        share = max(1, int(len(frames.length) * most / len(steps)))
        chosen = np.linspace(0, len(frames.length) - 1, share).astype(np.int64)
        steps = steps[np.isin(episode[steps], chosen)]
    episode, step = episode[steps], frames.image_step[steps] // model.config.frameskip
    if not ((np.diff(episode) == 0) & (np.diff(step) == 1)).any():
        raise UserError("data: no two pictures lie one model step apart")
    # A gap within an episode begins another one.
    gap = np.concatenate([[True], (np.diff(episode) != 0) | (np.diff(step) != 1)])
    assert model.encoder is not None
    cached = None if tokens is None else cache_tokens(model.encoder, frames, tokens)
    latents = frame_latents(model, frames, steps, cached, progress=True)
    return latents, np.cumsum(gap)


def channel_scale(model: WorldModel, latents: Tensor, episodes: np.ndarray) -> Tensor:
    """What a channel counts per model step: the inverse of what its part moves in a fast one.

    Args:
        model: world model; proprioception counts by its ``goal_weights``.
        latents: ``(N, D)``, successive frames a model step apart.
        episodes: episode of each, ``(N,)``.

    Returns:
        ``(D,)``.
    """
    same = torch.from_numpy(episodes[1:] == episodes[:-1])
    moved = latents.diff(dim=0)[same]
    split = model.visual_dim
    weights = model.goal_weights
    proprio = torch.ones(model.proprio_width) if weights is None else (weights > 0).float()
    scale = torch.ones(latents.shape[1])
    scale[split:] = proprio
    for part in (slice(0, split), slice(split, None)):
        size = (moved[:, part] * scale[part]).norm(dim=1)
        fast = float(size.quantile(0.9)) if size.numel() else 0.0
        scale[part] *= 1.0 / fast if fast > 0 else 0.0
    return scale


def build_graph(
    latents: Tensor,
    episodes: np.ndarray,
    scale: Tensor,
    visual_dim: int,
    radius: float = 1.0,
) -> SubgoalGraph:
    """Join recorded latents.

    Args:
        latents: ``(N, D)``, episode after episode, successive frames a model step apart.
        episodes: episode of each, ``(N,)``.
        scale: ``channel_scale``.
        visual_dim: visual channels, the first ones.
        radius: [model steps] see ``SubgoalGraph``.
    """
    from scipy.sparse import coo_matrix
    from scipy.spatial import cKDTree

    count = len(latents)
    scaled = (latents * scale).numpy()
    here = np.flatnonzero(episodes[1:] == episodes[:-1])
    rows, columns, steps = [here], [here + 1], [np.ones(len(here))]
    tree = cKDTree(scaled)
    apart, near = tree.query(scaled, min(NEIGHBOURS + 1, count), distance_upper_bound=radius)
    apart, near = np.atleast_2d(apart)[:, 1:], np.atleast_2d(near)[:, 1:]
    found = np.isfinite(apart)
    rows.append(np.repeat(np.arange(count), found.sum(1)))
    columns.append(near[found])
    steps.append(STITCH * apart[found] + 1e-6)
    row, column, step = (np.concatenate(part) for part in (rows, columns, steps))
    # A pair that is both recorded and near keeps the quicker of the two.
    order = np.lexsort((step, column, row))
    row, column, step = row[order], column[order], step[order]
    first = np.concatenate([[True], (np.diff(row) != 0) | (np.diff(column) != 0)])
    edges = coo_matrix((step[first], (row[first], column[first])), (count, count)).tocsr()
    return SubgoalGraph(latents, scale, visual_dim, edges, radius)
