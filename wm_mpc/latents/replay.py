"""Corrected data: what plans really did, as latents, and batches that mix it with expert data.

A *chain* is a run of frames of one trajectory, each one model step after the one before. Windows
are cut within chains only, so that every window is one piece of true motion: none straddles the
joint between two trajectories, or between expert frames and what followed a plan.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from wm_mpc.core.errors import UserError
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.latents.encode import encode_pictures
from wm_mpc.latents.windows import Augmentation, Batch, LatentWindows
from wm_mpc.models.world_model import WorldModel


def chains(image_steps: np.ndarray, frameskip: int) -> list[np.ndarray]:
    """Frame indices of the chains of a trajectory, every frame in exactly one chain.

    Args:
        image_steps: int ``(F,)`` control steps that have a frame, increasing.
        frameskip: control steps per model step.

    >>> [c.tolist() for c in chains(np.array([0, 1, 2, 3, 4, 6, 7]), 2)]
    [[0, 2, 4, 5], [1, 3], [6]]
    """
    frame_at = {int(step): frame for frame, step in enumerate(image_steps)}
    found = []
    for step in frame_at:
        if step - frameskip in frame_at:
            continue
        chain = []
        while step in frame_at:
            chain.append(frame_at[step])
            step += frameskip
        found.append(np.array(chain))
    return found


def trajectory_chains(model: WorldModel, trajectory: Trajectory) -> list[tuple[Tensor, Tensor]]:
    """Latents ``(K + 1, *L)`` and model actions ``(K, A)`` of every chain of at least one step."""
    frameskip = model.config.frameskip
    runs = [c for c in chains(trajectory.image_steps, frameskip) if len(c) > 1]
    if not runs:
        return []
    own = np.asarray(trajectory.proprio[trajectory.image_steps], np.float32)
    latents = encode_pictures(model, np.array(trajectory.images), own)
    actions = torch.from_numpy(np.array(trajectory.actions, np.float32))
    found = []
    for run in runs:
        first = int(trajectory.image_steps[run[0]])
        raw = actions[first : first + frameskip * (len(run) - 1)].to(model.action_mean.device)
        found.append((latents[torch.from_numpy(run)], model.normalize_actions(raw).cpu()))
    return found


class LatentBuffer:
    """Chains of latents end to end.

    Args:
        limit: model steps kept; the oldest chains go first; 0: no limit.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self._chains: deque[tuple[Tensor, Tensor]] = deque()
        self._steps = 0
        self._flat: tuple[Tensor, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        """Model steps in all chains."""
        return self._steps

    def add(self, latents: Tensor, actions: Tensor) -> None:
        """Append a chain.

        Args:
            latents: ``(K + 1, *L)``.
            actions: model actions ``(K, A)``, ``K >= 1``.

        Raises:
            ValueError: the counts do not fit, or a number is not finite.
        """
        if len(actions) < 1 or len(latents) != len(actions) + 1:
            raise ValueError(f"actions: {len(actions)} for {len(latents)} latents; one less")
        if not (torch.isfinite(latents).all() and torch.isfinite(actions).all()):
            raise ValueError("latents: a number is not finite")
        self._chains.append((latents, actions))
        self._steps += len(actions)
        while self.limit and self._steps > self.limit and len(self._chains) > 1:
            self._steps -= len(self._chains.popleft()[1])
        self._flat = None

    @property
    def longest(self) -> int:
        """Model steps of the longest chain; 0 without any."""
        return max((len(actions) for _, actions in self._chains), default=0)

    def starts(self, length: int) -> Tensor:
        """Rows from which ``length`` model steps follow within one chain."""
        if not self._chains:
            return torch.zeros(0, dtype=torch.long)
        return torch.where(self._rows()[2] >= length)[0]

    def windows(self, rows: Tensor, length: int) -> Batch:
        """Windows that begin at ``rows`` ``(B,)``."""
        latents, actions, _ = self._rows()
        steps = rows[:, None] + torch.arange(length)
        return latents[rows], actions[steps], latents[steps + 1]

    def draw(self, count: int, length: int, generator: torch.Generator) -> Batch:
        """Random windows of ``length`` model steps.

        Raises:
            UserError: no chain is that long.
        """
        rows = self.starts(length)
        if not len(rows):
            raise UserError(f"rollout: {length} model steps; no corrected trajectory is that long")
        return self.windows(rows[torch.randint(len(rows), (count,), generator=generator)], length)

    def _rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, actions and steps left, one row per frame; last frames have no action."""
        if self._flat is None:
            latents = torch.cat([c[0] for c in self._chains])
            padded = [torch.cat([a, torch.zeros_like(a[:1])]) for _, a in self._chains]
            left = [torch.arange(len(a), -1, -1) for _, a in self._chains]
            self._flat = latents, torch.cat(padded), torch.cat(left)
        return self._flat


class Replay:
    """Draws batches of expert and corrected windows in a stated ratio.

    Args:
        expert: expert windows, or None.
        ids: those of them to draw from.
        corrected: corrected windows, or None; while no chain is long enough, batches are expert
            only.
        ratio: parts expert, parts corrected: ``(7, 3)``.
        batch: windows per batch.
        augment: see ``train_dynamics``; None: windows as they are.
        device: where batches go; None: they stay where the windows are.

    Attributes:
        length: model steps of the windows drawn next.
    """

    def __init__(
        self,
        expert: LatentWindows | None,
        ids: Tensor | None,
        corrected: LatentBuffer | None,
        ratio: tuple[int, int],
        batch: int,
        length: int = 1,
        augment: Augmentation | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.expert, self.ids, self.corrected = expert, ids, corrected
        self.augment, self.device = augment, device
        self.ratio, self.batch, self.length = ratio, batch, length

    def shares(self) -> tuple[int, int]:
        """Windows of a batch that are expert and corrected."""
        if self.expert is None:
            return 0, self.batch
        if self.corrected is None or self.corrected.longest < self.length:
            return self.batch, 0
        corrected = round(self.batch * self.ratio[1] / sum(self.ratio))
        return self.batch - corrected, corrected

    def __call__(self, generator: torch.Generator, part: slice = slice(None)) -> Batch:
        """One batch, or the part of it that ``part`` names."""
        expert, corrected = self.shares()
        pieces = []
        if expert:
            assert self.expert is not None and self.ids is not None
            drawn = torch.randint(len(self.ids), (expert,), generator=generator)
            pieces.append(self.expert.batch(self.ids[drawn], self.length))
        if corrected:
            assert self.corrected is not None
            pieces.append(self.corrected.draw(corrected, self.length, generator))
        start, actions, targets = (torch.cat(values) for values in zip(*pieces, strict=True))
        if self.augment is not None:
            latents = torch.cat([start[:, None], targets], 1)
            latents, actions = self.augment(latents, actions, generator)
            start, targets = latents[:, 0], latents[:, 1:]
        # Windows are cut where they lie, in the larger memory; only the batch travels.
        start, actions, targets = (v[part].to(self.device) for v in (start, actions, targets))
        return start, actions, targets


__all__ = ["LatentBuffer", "Replay", "chains", "trajectory_chains"]
