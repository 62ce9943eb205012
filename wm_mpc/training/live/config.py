"""Settings of learning while the robot runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from wm_mpc.core.fields import Checked


@dataclass(frozen=True)
class LiveConfig(Checked):
    """Rounds of live fine-tuning.

    Attributes:
        replay: store of expert trajectories mixed into every batch and validated on; empty: none.
        replay_episodes: episodes of it that are used, spread evenly; 0: all.
        replay_ratio: parts expert and parts corrected in every batch.
        adversarial: true: attack the inputs too (Adversarial World Modeling).
        steps: optimiser steps per round.
        batch: windows per step.
        lr: peak learning rate of a round.
        rollout: model steps predicted open loop in the loss.
        min_new_steps: model steps that must have come since the last round.
        limit_steps: model steps of corrected data kept for training, the oldest go first.
        hold_out: the last of every so many blocks of 5 trajectories is held out for validation.
        worse_corrected: largest error of a candidate on held-out corrected data, relative to the
            weights it started from.
        worse_expert: the same on held-out expert data, where a little may be given up.
        worse_expert_total: largest error on held-out expert data relative to the start model, so
            that what rounds give up does not add up.
        keep_trajectories: trajectories kept on disk, the oldest are deleted, but none that
            limit_steps has room for; 0: all are kept.
        keep_generations: newest generations kept on disk, beside the good one and its parent.
    """

    replay: str = ""
    replay_episodes: Annotated[int, Ge(0), Le(10**9)] = 300
    replay_ratio: tuple[Annotated[int, Ge(0), Le(1000)], ...] = (7, 3)
    adversarial: bool = False
    steps: Annotated[int, Ge(1), Le(10**7)] = 400
    batch: Annotated[int, Ge(1), Le(10**6)] = 256
    lr: Annotated[float, Ge(1e-8), Le(1.0)] = 5e-4
    rollout: Annotated[int, Ge(1), Le(100)] = 1
    min_new_steps: Annotated[int, Ge(1), Le(10**9)] = 100
    limit_steps: Annotated[int, Ge(1), Le(10**9)] = 20_000
    hold_out: Annotated[int, Ge(2), Le(1000)] = 5
    worse_corrected: Annotated[float, Ge(0.0), Le(1e6)] = 1.0
    worse_expert: Annotated[float, Ge(0.0), Le(1e6)] = 1.2
    worse_expert_total: Annotated[float, Ge(0.0), Le(1e6)] = 1.5
    keep_trajectories: Annotated[int, Ge(0), Le(10**9)] = 10_000
    keep_generations: Annotated[int, Ge(1), Le(10**6)] = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.replay_ratio) != 2 or sum(self.replay_ratio) < 1:
            raise ValueError(f"replay_ratio: {self.replay_ratio}; two numbers, not both 0")
