"""``wm-mpc train``: the encoder (``dino``), a task's world model, and what is added to one."""

from __future__ import annotations

import torch
from safetensors import SafetensorError

from wm_mpc.core.errors import UserError
from wm_mpc.core.files import disk_full, write_failure
from wm_mpc.data.formats import open_data
from wm_mpc.latents.expert import check_store, load_expert
from wm_mpc.latents.frames import FrameView, frame_latents, held_out_frames
from wm_mpc.models.identity import perception_hash
from wm_mpc.models.proposers import save_proposer
from wm_mpc.models.world_model import WorldModel
from wm_mpc.planners.subgoals import save_graph
from wm_mpc.training.dynamics.decoder import train_decoder
from wm_mpc.training.dynamics.proposals import train_proposer
from wm_mpc.training.dynamics.subgoals import build_graph, channel_scale, recorded_steps
from wm_mpc.training.dynamics.symmetry import task_symmetry
from wm_mpc.training.encoder.dino import train_dino
from wm_mpc.training.pipeline.config import (
    DecoderForModel,
    EncoderTraining,
    ProposalsForModel,
    SubgoalsForModel,
    WorldModelTraining,
    configs,
    configs_for,
)
from wm_mpc.training.pipeline.pipeline import train_world_model

__all__ = ["configs", "configs_for", "run"]

Addition = DecoderForModel | ProposalsForModel | SubgoalsForModel
"""What is added to a finished model."""


def run(config: EncoderTraining | Addition | WorldModelTraining) -> int:
    """Train what the configuration names; the exit code.

    Raises:
        UserError: what the configuration names cannot be trained or used, or the disk is full.
    """
    try:
        return train(config)
    except (OSError, SafetensorError) as error:
        if not disk_full(error):
            raise
        adds = isinstance(config, Addition)
        raise UserError(write_failure(config.model if adds else config.out, error)) from error


def train(config: EncoderTraining | Addition | WorldModelTraining) -> int:
    """Train by the kind of the configuration; the exit code."""
    if isinstance(config, DecoderForModel):
        return add_decoder(config)
    if isinstance(config, ProposalsForModel):
        return add_proposals(config)
    if isinstance(config, SubgoalsForModel):
        return add_subgoals(config)
    if isinstance(config, WorldModelTraining):
        train_world_model(config)
        return 0
    views = [FrameView(open_data(path).frames()) for path in config.data]
    facts = train_dino(views, config.out, config.dino)
    last = facts["history"][-1]
    print(
        f"encoder: {config.out} ({facts['steps']} steps, {facts['seconds']:.0f} s, "
        f"patch loss {last['patch_loss']:.2f}, effective rank {last['rank']:.1f})"
    )
    return 0


def add_decoder(config: DecoderForModel) -> int:
    """Train a decoder on the latents of some frames and save it beside the model.

    Raises:
        UserError: the store is of another interface than the model.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    model = WorldModel.load(config.model, device=config.device)
    store = open_data(config.data)
    check_store(model, store)
    frames = store.frames()
    ids = held_out_frames(frames, 1.0, config.frames, config.decoder.seed)
    latents = frame_latents(model, frames, ids, exact=True)
    decoder, facts = train_decoder(latents, frames, config.decoder, ids, config.device)
    decoder.save(config.model, model)
    print(
        f"{config.model}: decoder after {facts['steps']} steps, {facts['seconds']} s; "
        f"mean absolute error {facts['mean_absolute_error']} of 255"
    )
    return 0


def add_proposals(config: ProposalsForModel) -> int:
    """Train a proposer on the latents of a model and save it beside that."""
    if config.threads:
        torch.set_num_threads(config.threads)
    model = WorldModel.load(config.model)
    expert = load_expert(
        model, open_data(config.data), config.horizon, config.tokens, config.episodes
    )
    augment = task_symmetry(model) if config.augment else None
    network = train_proposer(
        config.kind, *expert.data.take(expert.train, config.horizon), config.steps,
        config.batch, width=config.width, seed=config.seed, augment=augment, progress=True,
    )  # fmt: skip
    latents, actions = expert.data.take(expert.held[:4000], config.horizon)
    with torch.no_grad():
        loss = network.loss(latents, actions, torch.Generator().manual_seed(config.seed))
    path = save_proposer(network, config.model, perception_hash(model))
    share = float(loss / actions.square().mean())
    print(f"{path}: explains {100 * (1 - share):.0f} % of held-out actions")
    return 0


def add_subgoals(config: SubgoalsForModel) -> int:
    """Join a store's frames to a graph and save it beside the model."""
    if config.threads:
        torch.set_num_threads(config.threads)
    model = WorldModel.load(config.model)
    latents, episodes = recorded_steps(
        model, open_data(config.data), config.frames, config.tokens
    )
    scale = channel_scale(model, latents, episodes)
    graph = build_graph(latents, episodes, scale, model.visual_dim, config.radius)
    path = save_graph(graph, config.model, perception_hash(model))
    edges = graph.edges.nnz / len(latents)
    print(f"{path}: {len(latents)} recorded latents, {edges:.1f} ways on from each")
    return 0
