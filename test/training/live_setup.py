"""A working folder of live fine-tuning that is quick enough for every test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from wall_data import wall_model, wall_trajectories

from wm_mpc.training.live import trainer as live
from wm_mpc.training.live.config import LiveConfig
from wm_mpc.training.live.intake import Keeper
from wm_mpc.training.live.trainer import LiveTrainer

CONFIG = LiveConfig(steps=60, batch=32, lr=5e-3, min_new_steps=10, hold_out=2)


class Setup:
    """A start model and a working folder that trajectories come into."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder, self.out = folder, folder / "out"
        self.start = wall_model(folder)
        self.config = replace(CONFIG, **changes)
        self.keeper = Keeper(self.out / live.TRAJECTORIES, self.start.config)
        self.next = 0

    def trainer(self) -> LiveTrainer:
        return LiveTrainer(self.folder / "model", self.out, self.config)

    def collect(self, count: int, shuffled: bool = False) -> None:
        self.next += 1
        for trajectory in wall_trajectories(count, 15, seed=self.next):
            if shuffled:
                np.random.default_rng(0).shuffle(trajectory.actions)
                trajectory.actions *= -1
            self.keeper.keep(trajectory)
