"""Settings of learning while the robot runs."""

from __future__ import annotations

from dataclasses import dataclass

from wm_mpc.core.fields import bounded, check_bounds


@dataclass(frozen=True)
class LiveConfig:
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
    replay_episodes: int = bounded(300, 0, 10**9)
    replay_ratio: tuple[int, ...] = bounded((7, 3), 0, 1000)
    adversarial: bool = False
    steps: int = bounded(400, 1, 10**7)
    batch: int = bounded(256, 1, 10**6)
    lr: float = bounded(5e-4, 1e-8, 1.0)
    rollout: int = bounded(1, 1, 100)
    min_new_steps: int = bounded(100, 1, 10**9)
    limit_steps: int = bounded(20_000, 1, 10**9)
    hold_out: int = bounded(5, 2, 1000)
    worse_corrected: float = bounded(1.0, 0.0, 1e6)
    worse_expert: float = bounded(1.2, 0.0, 1e6)
    worse_expert_total: float = bounded(1.5, 0.0, 1e6)
    keep_trajectories: int = bounded(10_000, 0, 10**9)
    keep_generations: int = bounded(20, 1, 10**6)

    def __post_init__(self) -> None:
        check_bounds(self)
        if len(self.replay_ratio) != 2 or sum(self.replay_ratio) < 1:
            raise ValueError(f"replay_ratio: {self.replay_ratio}; two numbers, not both 0")
