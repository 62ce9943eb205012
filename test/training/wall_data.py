"""Wall trajectories and a tiny model of that task, quick enough for every test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers import tiny_config, tiny_encoder, tiny_model

from sim_bridge.collect import generate
from wm_mpc.data.store.store import Store, StoreSpec, StoreWriter
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.models.world_model import WorldModel

SIDE = 32
WALL = {
    "task": "wall", "proprio_dim": 2, "action_low": (-1.8, -1.8), "action_high": (1.8, 1.8),
}  # fmt: skip


def wall_trajectories(episodes: int = 8, steps: int = 15, seed: int = 0) -> list[Trajectory]:
    return list(generate("wall", episodes, seed, steps, 5, SIDE))


def wall_store(folder: Path, episodes: int = 8, steps: int = 15, seed: int = 0) -> Store:
    spec = StoreSpec("wall", 2, 2, 2, 0.1, (SIDE, SIDE))
    with StoreWriter(folder, spec) as writer:
        for trajectory in wall_trajectories(episodes, steps, seed):
            writer.add(trajectory)
    return Store.open(folder)


def wall_model(folder: Path, seed: int = 0, **changes: Any) -> WorldModel:
    """A saved, untrained model; positions are in px."""
    settings = {**WALL, "predictor_args": {"width": 32, "depth": 1}, **changes}
    assert tiny_config(**settings)
    model = tiny_model(tiny_encoder(folder / "encoder"), seed, **settings)
    model.proprio_mean.fill_(32.0)
    model.proprio_std.fill_(16.0)
    model.action_std.fill_(1.0)
    for parameter in model.predictor.net[-1].parameters():
        parameter.data.mul_(0.1)
    model.save(folder / "model", encoder="../encoder")
    return model
