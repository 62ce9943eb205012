"""Intake of live fine-tuning: what really happened, safely on disk before anything else.

Trajectories come whole (a simulator's answer, a recorder) or are pieced together from camera,
proprioception and command topics by the same alignment that imports bags.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from wm_mpc.core.errors import UserError
from wm_mpc.data.bags.align import Aligner
from wm_mpc.data.bags.align import Episode as AlignedEpisode
from wm_mpc.data.bags.config import AlignConfig
from wm_mpc.data.store.format import MANIFEST, StoreSpec, read_manifest
from wm_mpc.data.store.store import StoreError, StoreWriter, numbered_shards
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.models.world_model import WorldModelConfig

WRITER = "live"
"""One writer, whose shards are numbered: the order of the store is the order of arrival."""

WAITING_BYTES = 64 * 2**20
"""[B] of trajectories that wait in memory for a full disk; the oldest beyond it are dropped."""


class Keeper:
    """Appends trajectories to a store, each flushed to disk before ``keep`` returns.

    Simulator states are dropped: no training input. While the disk is full the newest trajectories
    wait in memory.

    Args:
        folder: of the store.
        model: interface that trajectories must fit.
        limit: trajectories kept on disk, the oldest are deleted; 0: no limit. Training deletes
            what it has no room for, so this is for when it does not run.

    Attributes:
        count: trajectories kept so far, those that were deleted since included.
        dropped: trajectories that were lost because the disk was full.

    Raises:
        StoreError: the folder holds a store of another kind, or cannot be written.
    """

    def __init__(self, folder: Path, model: WorldModelConfig, limit: int = 0) -> None:
        self.folder, self.model, self.limit = folder, model, limit
        self.dropped = 0
        self._spec: StoreSpec | None = None
        self._writer: StoreWriter | None = None
        self._waiting: deque[Trajectory] = deque()
        self._files: deque[Path] = deque()
        if (folder / MANIFEST).is_file():
            self._spec = read_manifest(folder)
            self._writer = StoreWriter(folder, self._spec, writer_id=WRITER)
            self._files.extend(numbered_shards(folder, WRITER).values())

    @property
    def count(self) -> int:
        """See the class."""
        return self._writer.next if self._writer is not None else 0

    @property
    def waiting(self) -> int:
        """Trajectories that wait in memory for the disk."""
        return len(self._waiting)

    def keep(self, trajectory: Trajectory) -> None:
        """Check and store a trajectory, after those that wait for the disk.

        Raises:
            UserError: it does not fit, or is shorter than a model step; nothing is stored.
            StoreError: the disk is full; it waits in memory, and older ones may be dropped.
        """
        model = self.model
        task = trajectory.meta.get("task", "")
        if task and task != model.task:
            raise UserError(f"task: {task!r}; {model.task!r} expected")
        if len(trajectory) < model.frameskip:
            steps = f"{len(trajectory)} steps; at least {model.frameskip} expected"
            raise UserError(f"actions: {steps}")
        spec = self._spec or StoreSpec(
            model.task, model.action_dim, model.proprio_dim, 0, model.control_period,
            trajectory.images.shape[1:3],
        )  # fmt: skip
        trajectory.state = None
        try:
            spec.check(trajectory)
        except ValueError as error:
            raise UserError(str(error)) from error
        self._spec = spec
        self._waiting.append(trajectory)
        try:
            self._flush()
        except StoreError as error:
            self._shorten()
            words = f"{self.waiting} trajectories wait in memory, {self.dropped} were dropped"
            raise StoreError(f"{error}; {words}") from error
        while self.limit and len(self._files) > self.limit:
            # What cannot be deleted is no reason to refuse what can be kept.
            with suppress(OSError):
                self._files.popleft().unlink(missing_ok=True)

    def flush(self) -> None:
        """Try again to write what waits.

        Raises:
            StoreError: the disk is still full; it goes on waiting.
        """
        if self._waiting:
            self._flush()

    def _flush(self) -> None:
        """Write what waits, a shard each: the first that fails costs no more than itself."""
        assert self._spec is not None
        if self._writer is None:
            self._writer = StoreWriter(self.folder, self._spec, writer_id=WRITER)
        while self._waiting:
            self._files.append(self._writer.write(self._waiting[0]))
            self._waiting.popleft()

    def _shorten(self) -> None:
        size = sum(_bytes(trajectory) for trajectory in self._waiting)
        while size > WAITING_BYTES:
            size -= _bytes(self._waiting.popleft())
            self.dropped += 1


def _bytes(trajectory: Trajectory) -> int:
    return trajectory.images.nbytes + trajectory.actions.nbytes + trajectory.proprio.nbytes


class Assembler:
    """Pieces trajectories together from what a robot's topics said.

    Args:
        model: interface; gives control period and widths.
        max_steps: control steps after which a trajectory is cut, so that it can be learned from;
            the last observation also begins the next one.
    """

    def __init__(self, model: WorldModelConfig, max_steps: int) -> None:
        self.model = model
        # A step without its picture may be part of a trajectory; windows avoid it by themselves.
        config = AlignConfig(
            model.control_period, max_missing=0, min_steps=model.frameskip, max_steps=max_steps
        )
        roles = ("image", "proprio", "command") if model.proprio_dim else ("image", "command")
        self._aligner = Aligner(config, roles)

    def push(self, role: str, stamp: float, value: Any) -> Iterator[Trajectory]:
        """Take in a sample.

        Args:
            role: ``image`` (uint8 ``(H, W, 3)``), ``proprio`` ``(P,)`` or ``command``
                ``(action_dim,)``, raw units.
            stamp: [s] node clock.
            value: the sample.

        Yields:
            Trajectories that it completes.
        """
        for episode in self._aligner.push(role, round(stamp * 1e9), value):
            yield self._made(episode)

    def cut(self, stamp: float, reason: str) -> None:
        """End the running trajectory at ``stamp`` [s]: the world was changed, not moved."""
        self._aligner.boundary(round(stamp * 1e9), reason)

    def finish(self) -> Iterator[Trajectory]:
        """What the samples at hand still give."""
        for episode in self._aligner.finish("end"):
            yield self._made(episode)

    def _made(self, episode: AlignedEpisode) -> Trajectory:
        empty = np.zeros((len(episode.stamps), 0), np.float32)
        # A picture per model step is what training reads; the others would only fill the disk.
        shown = [i for i, s in enumerate(episode.image_steps) if s % self.model.frameskip == 0]
        return Trajectory(
            images=np.stack([episode.images[i] for i in shown]),
            image_steps=np.array([episode.image_steps[i] for i in shown], np.int64),
            actions=np.stack(episode.actions).astype(np.float32),
            proprio=np.stack(episode.proprio).astype(np.float32) if episode.proprio else empty,
            stamps=np.asarray(episode.stamps, np.int64) / 1e9,
            meta={"task": self.model.task, "source": "robot", "ended_by": episode.end},
        )


__all__ = ["Assembler", "Keeper"]
