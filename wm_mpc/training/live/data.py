"""Corrected data of live fine-tuning: a growing store of trajectories as latents, bounded.

Every trajectory is a shard of its own, and its number is the shard's. Files are opened one at a
time, copied from and released, and only the newest ones that ``limit_steps`` has room for: neither
memory, nor memory maps, nor the time of a restart grow with the age of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from wm_mpc.core.errors import one_line
from wm_mpc.data.store.format import read_manifest
from wm_mpc.data.store.shard import MappingError, Shard
from wm_mpc.data.store.store import StoreError, StoreSpec, numbered_shards
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.latents.replay import LatentBuffer, chains, trajectory_chains
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.live.intake import WRITER

if TYPE_CHECKING:
    from wm_mpc.training.live.config import LiveConfig

BLOCK = 5
"""Trajectories that follow each other and are held out together."""

TRAIN, HELD, UNUSED = "train", "held", "unused"


def role(number: int, hold_out: int) -> str:
    """What the trajectory of this number is for; always the same, also after a restart.

    The last of every ``hold_out`` blocks is held out. What a plan would do is asked for more often
    than its answer is long, so trajectories overlap their neighbours: the one before and the one
    after a held-out block are near copies of held-out data and nothing is learned from them.

    >>> "".join(role(number, 2)[0] for number in range(22))
    'ttttuhhhhhutttuhhhhhut'
    """
    place, first = number % (hold_out * BLOCK), (hold_out - 1) * BLOCK
    if place >= first:
        return HELD
    return UNUSED if place == first - 1 or (place == 0 and number) else TRAIN


@dataclass(frozen=True)
class Size:
    """Model steps of a trajectory: as time goes by, and in all its chains."""

    time: int
    chains: int


class LiveData:
    """Takes in what others add to a folder.

    Args:
        folder: of the store, written by ``Keeper``.
        model: its encoder and projector are used, which training does not change.
        config: rounds.

    Attributes:
        train: what is learned from, at most ``limit_steps`` model steps.
        held: what candidates are judged on; as much of the recent past as ``train``.
        seen: trajectories below this number were taken in.
        skipped: trajectories that were damaged or could not be encoded.
        notes: lines about them that nobody has read yet.
    """

    def __init__(self, folder: Path, model: WorldModel, config: LiveConfig) -> None:
        self.folder, self.model, self.config = folder, model, config
        limits = config.limit_steps, max(1, config.limit_steps // (config.hold_out - 1))
        self.train, self.held = LatentBuffer(limits[0]), LatentBuffer(limits[1])
        self.seen = 0
        self.skipped = 0
        self.notes: list[str] = []
        self._files: dict[int, Path] = {}
        self._sizes: dict[int, Size] = {}
        self._bad: set[int] = set()
        self._names: set[str] = set()
        self._spec: StoreSpec | None = None

    @property
    def total(self) -> int:
        """Trajectories that ever came, those that were deleted since included."""
        return max([self.seen, *(number + 1 for number in self._files)])

    @property
    def waiting(self) -> int:
        """Trajectories that were not taken in yet."""
        return sum(number >= self.seen for number in self._files)

    @property
    def enough(self) -> bool:
        """Whether there is something to learn from, and something to be judged on."""
        found = {role(number, self.config.hold_out) for number in self._files}
        return {TRAIN, HELD} <= found

    def look(self) -> bool:
        """Note which files there are; returns whether any is new. Opens none."""
        if not self.folder.is_dir():
            return False
        # Called all the time: parsing thousands of names each time would cost a third of a core.
        names = set(os.listdir(self.folder))
        if names == self._names:
            return False
        self._names = names
        found = numbered_shards(self.folder, WRITER)
        for number in self._bad:
            found.pop(number, None)
        new = bool(found.keys() - self._files.keys())
        self._files = found
        return new

    def steps_since(self, used: int) -> int:
        """Model steps of the trajectories from number ``used`` on."""
        fresh = [number for number in self._files if number >= used]
        return sum(self._size(number).time for number in fresh)

    def take(self, until: int) -> None:
        """Encode what is below number ``until``, but nothing that would be forgotten at once."""
        first = max(self.seen, self._first_needed(until))
        for number in [n for n in self._files if first <= n < until]:
            purpose = role(number, self.config.hold_out)
            if purpose != UNUSED:
                self._encode(number, self.held if purpose == HELD else self.train)
            # Trouble that passes ends this loop; the next one must not take these in again.
            self.seen = number + 1
        self.seen = max(self.seen, until)

    def prune(self) -> None:
        """Delete the oldest files beyond ``keep_trajectories`` that no buffer has room for."""
        keep = self.config.keep_trajectories
        if not keep or len(self._files) <= keep:
            return
        needed = self._first_needed(self.seen)
        try:
            for number in [n for n in list(self._files)[:-keep] if n < needed]:
                self._files[number].unlink(missing_ok=True)
                del self._files[number]
                self._sizes.pop(number, None)
        except OSError as error:
            # Nothing that is needed is lost; after the next round it is tried again.
            self.notes.append(f"old trajectories cannot be deleted: {one_line(error)}")

    def _first_needed(self, until: int) -> int:
        """Lowest number that is still in a buffer once all below ``until`` were added."""
        room = {TRAIN: self.train.limit, HELD: self.held.limit}
        first = until
        for number in [n for n in reversed(self._files) if n < until]:
            if max(room.values()) < 0:
                break
            first = number
            purpose = role(number, self.config.hold_out)
            if purpose in room:
                room[purpose] -= self._size(number).chains
        return first

    def _size(self, number: int) -> Size:
        if number not in self._sizes:
            skip = self.model.config.frameskip
            time = steps = 0
            for trajectory in self._open(number):
                time += len(trajectory) // skip
                steps += sum(len(run) - 1 for run in chains(trajectory.image_steps, skip))
            self._sizes[number] = Size(time, steps)
        return self._sizes[number]

    def _encode(self, number: int, buffer: LatentBuffer) -> None:
        try:
            found = [
                chain
                for trajectory in self._open(number)
                for chain in trajectory_chains(self.model, trajectory)
            ]
            for latents, actions in found:
                buffer.add(latents, actions)
        except (MappingError, torch.cuda.OutOfMemoryError):
            raise  # says nothing about the trajectory
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            self._skip(number, error)

    def _open(self, number: int) -> Iterator[Trajectory]:
        """Trajectories of one file; its map ends with the last reference to them."""
        file = self._files.get(number)
        if file is None:
            return
        if self._spec is None:
            with disk_trouble():
                self._spec = read_manifest(self.folder)
        try:
            with disk_trouble():
                shard = Shard.open(file, self._spec)
        except MappingError:
            raise
        except StoreError as error:
            self._skip(number, error)
            return
        for episode in range(len(shard.length)):
            yield shard.trajectory(episode)

    def _skip(self, number: int, error: Exception) -> None:
        self._bad.add(number)
        self._files.pop(number, None)
        self.skipped += 1
        self.notes.append(
            f"trajectory {number} is skipped, {self.skipped} so far: {one_line(error)}"
        )


@contextmanager
def disk_trouble() -> Iterator[None]:
    """Raise the ``OSError`` behind a ``StoreError``: the disk, not what is on it; that passes."""
    try:
        yield
    except StoreError as error:
        cause = error.__cause__
        passes = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
        if passes and not isinstance(error, MappingError):
            raise cause from error
        raise


__all__ = ["BLOCK", "HELD", "TRAIN", "UNUSED", "LiveData", "role"]
