"""A directory of recorded trajectories that trains without being loaded.

Layout: ``store.json`` (format, version, task, widths, control period, image size) and any number
of ``shard-WRITER-NNNNN.safetensors``, each a few hundred whole episodes as concatenated arrays;
lengths and metadata lie in the header. A shard is written under a temporary name, flushed to disk
and renamed, so a name that ends in ``.safetensors`` is complete; what a killed writer leaves
behind is ignored, and removed by the next writer. Writers with different ids may append at the
same time. Reading maps the files into memory and copies nothing.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import TracebackType

import numpy as np

from wm_mpc.core.channels import difference
from wm_mpc.core.files import remove_leftovers, write_atomically
from wm_mpc.data.store.format import (
    MANIFEST,
    StoreError,
    StoreSpec,
    disk_error,
    read_manifest,
    write_manifest,
)
from wm_mpc.data.store.shard import MappingError, Shard, encode_shard
from wm_mpc.data.store.windows import Frames, Windows, find_windows
from wm_mpc.data.trajectory import Trajectory

__all__ = [
    "Frames",
    "Store",
    "StoreError",
    "StoreSpec",
    "StoreWriter",
    "Windows",
    "numbered_shards",
]


class StoreWriter:
    """Appends trajectories to a store; leaving the context, or ``close``, writes the last shard.

    Leaving the context on an exception also writes what is complete: whole trajectories are never
    half stored.
    """

    def __init__(
        self,
        path: str | Path,
        spec: StoreSpec,
        shard_bytes: int = 64 * 2**20,
        writer_id: str | None = None,
    ) -> None:
        """Open ``path`` for appending, creating it where needed.

        Args:
            path: directory of the store.
            spec: what the trajectories share; must equal that of an existing store.
            shard_bytes: a shard is written once its arrays reach this size.
            writer_id: letters, digits and dots that tell this writer's shards from others';
                default: random.

        Raises:
            StoreError: ``path`` holds a store of another kind or version, or cannot be written.
        """
        if shard_bytes < 1:
            raise ValueError(f"shard_bytes: {shard_bytes} is below 1")
        self.path = Path(path)
        self.spec = spec
        self.writer_id = writer_id or secrets.token_hex(4)
        if not self.writer_id.replace(".", "").isalnum():
            raise ValueError(f"writer_id: {writer_id!r}; letters, digits and dots expected")
        self._shard_bytes = shard_bytes
        self._pending: list[Trajectory] = []
        self._pending_bytes = 0
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._join()
            remove_leftovers(self.path)
        except OSError as error:
            raise disk_error(self.path, error) from error
        self._next = max(numbered_shards(self.path, self.writer_id), default=-1) + 1

    @property
    def next(self) -> int:
        """Number of the shard that is written next; grows by one per shard, from 0."""
        return self._next

    def add(self, trajectory: Trajectory) -> None:
        """Queue one trajectory; writes a shard when enough has gathered.

        Raises:
            ValueError: it does not validate or fit the store; nothing is queued.
            StoreError: the disk is full or not writable; earlier shards are intact and the queue
                is kept.
        """
        self.spec.check(trajectory)
        self._pending.append(trajectory)
        self._pending_bytes += trajectory.images.nbytes + trajectory.actions.nbytes
        if self._pending_bytes >= self._shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write the queued trajectories as one shard; nothing happens when none are queued.

        Raises:
            StoreError: the disk is full or not writable; earlier shards are intact and the queue
                is kept.
        """
        if self._pending:
            self._write(self._pending)
            self._pending, self._pending_bytes = [], 0

    def write(self, trajectory: Trajectory) -> Path:
        """Write one trajectory as a shard of its own; nothing is queued.

        Returns:
            The file.

        Raises:
            ValueError: it does not validate or fit the store; nothing is written.
            StoreError: the disk is full or not writable; earlier shards are intact.
        """
        return self._write([self.spec.check(trajectory)])

    def _write(self, trajectories: list[Trajectory]) -> Path:
        file = self.path / f"shard-{self.writer_id}-{self._next:05d}.safetensors"
        payload = encode_shard(trajectories, self.spec)
        try:
            write_atomically(file, payload)
        except OSError as error:
            raise disk_error(file, error) from error
        self._next += 1
        return file

    def close(self) -> None:
        """Write what is queued."""
        self.flush()

    def __enter__(self) -> StoreWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is queued, unless the context ended because writing failed."""
        if not isinstance(error, StoreError):
            self.close()

    def _join(self) -> None:
        """Write the manifest of a new store, or check that an existing one is of the same kind."""
        if (self.path / MANIFEST).exists():
            found = read_manifest(self.path)
            for field in fields(StoreSpec):
                mine, theirs = getattr(self.spec, field.name), getattr(found, field.name)
                if field.name.endswith("_channels"):
                    if why := difference(mine, theirs):
                        raise StoreError(f"{self.path}: {field.name}: {why}; not appended")
                elif mine != theirs:
                    raise StoreError(
                        f"{self.path}: holds {field.name} {theirs}; {mine} cannot be appended"
                    )
            return
        write_manifest(self.path, self.spec)


def numbered_shards(path: Path, writer_id: str) -> dict[int, Path]:
    """Shards of one writer by number, in the order in which they were written.

    Raises:
        StoreError: the directory cannot be read.
    """
    start, end = f"shard-{writer_id}-", ".safetensors"
    try:
        names = os.listdir(path)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error
    found = {}
    for name in names:
        number = name[len(start) : -len(end)]
        if name.startswith(start) and name.endswith(end) and number.isdecimal():
            found[int(number)] = path / name
    return dict(sorted(found.items()))


class Store:
    """Read access to a store; ``store[i]`` is a Trajectory whose arrays are mapped, not loaded."""

    def __init__(
        self, path: Path, spec: StoreSpec, shards: list[Shard], skipped: list[str]
    ) -> None:
        """Use ``Store.open``."""
        self.path = path
        self.spec = spec
        self.skipped = skipped
        self._shards = shards
        self._frames: Frames | None = None
        self._where = [(s, e) for s, shard in enumerate(shards) for e in range(len(shard.length))]

    @classmethod
    def open(cls, path: str | Path, skip_bad: bool = False) -> Store:
        """Open and validate the store at ``path``.

        Every header, every size and every number except the pixels is checked.

        Args:
            path: directory of the store.
            skip_bad: leave damaged shards out; ``store.skipped`` then says which and why, one line
                each.

        Raises:
            StoreError: no store, another format or version, more shards than the system maps, or
                (without ``skip_bad``) a damaged shard.
        """
        path = Path(path)
        spec = read_manifest(path)
        shards, skipped = [], []
        for file in sorted(path.glob("shard-*.safetensors")):
            try:
                shards.append(Shard.open(file, spec))
            except StoreError as error:
                # A store of which the rest is not mapped would look like a small, sound one.
                if not skip_bad or isinstance(error, MappingError):
                    raise
                skipped.append(str(error))
        return cls(path, spec, shards, skipped)

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self._where)

    def __getitem__(self, index: int) -> Trajectory:
        """Episode ``index``."""
        shard, episode = self._where[index]
        return self._shards[shard].trajectory(episode)

    def __iter__(self) -> Iterator[Trajectory]:
        """All episodes in order."""
        return (self[i] for i in range(len(self)))

    @property
    def num_steps(self) -> int:
        """Control steps in all episodes."""
        return sum(int(shard.length.sum()) for shard in self._shards)

    @property
    def num_frames(self) -> int:
        """Images in all episodes."""
        return sum(int(shard.frame_count.sum()) for shard in self._shards)

    def metas(self) -> list[dict]:
        """``meta`` of every episode, without touching its arrays."""
        return [meta for shard in self._shards for meta in shard.metas]

    def frames(self) -> Frames:
        """All episodes end to end; images stay mapped, the small arrays are copied into memory.

        They are put together once, however often they are asked for.

        Raises:
            StoreError: the store is empty.
        """
        if self._frames is None:
            self._frames = self._joined()
        return self._frames

    def _joined(self) -> Frames:
        if not len(self):
            raise StoreError(f"{self.path}: no episodes")
        shards = self._shards

        def joined(name: str) -> np.ndarray:
            return np.concatenate([shard.arrays[name] for shard in shards])

        def starts(counts: np.ndarray) -> np.ndarray:
            return np.concatenate([[0], np.cumsum(counts)])

        length = np.concatenate([shard.length for shard in shards])
        per_shard = [len(shard.arrays["images"]) for shard in shards]
        return Frames(
            images=[shard.arrays["images"] for shard in shards],
            image_shard=np.repeat(np.arange(len(shards)), per_shard),
            image_row=np.concatenate([np.arange(n) for n in per_shard]),
            image_step=joined("image_steps"),
            actions=joined("actions"),
            proprio=joined("proprio"),
            state=joined("state") if self.spec.state_dim else None,
            length=length,
            frame_start=starts(np.concatenate([shard.frame_count for shard in shards])),
            action_start=starts(length),
            row_start=starts(length + 1),
        )

    def windows(self, length: int, frameskip: int, stride: int = 1) -> Windows:
        """All windows of ``length`` model steps whose ``length + 1`` boundary steps have images.

        Args:
            length: model steps per window, >= 1.
            frameskip: control steps per model step, >= 1.
            stride: take every ``stride``-th window start that qualifies, per episode.

        Raises:
            ValueError: an argument is out of range, or no window qualifies.
        """
        return find_windows(self.frames(), length, frameskip, stride)
