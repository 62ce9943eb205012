"""A directory of recorded trajectories that trains without being loaded.

Layout: ``store.json`` (format, version, task, widths, control period, image size) and any number of
``shard-WRITER-NNNNN.safetensors``, each a few hundred whole episodes as concatenated arrays; lengths and metadata lie in
the header. A shard is written under a temporary name, flushed to disk and renamed, so a name that ends in
``.safetensors`` is complete; what a killed writer leaves behind is ignored, and removed by the next writer. Writers
with different ids may append at the same time. Reading maps the files into memory and copies nothing.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType

import numpy as np
import safetensors.numpy

from wm_mpc.data.trajectory import Trajectory

FORMAT, VERSION = "wm_mpc.store", 1
_MANIFEST = "store.json"
_DTYPES = {"U8": np.uint8, "I64": np.int64, "F32": np.float32, "F64": np.float64}
_ARRAYS = {
    "images": np.uint8,
    "image_steps": np.int64,
    "actions": np.float32,
    "proprio": np.float32,
    "stamps": np.float64,
    "state": np.float64,
}


class StoreError(ValueError):
    """A store or one of its shards is missing, damaged or of another kind; one line that names the file."""


@dataclass(frozen=True)
class StoreSpec:
    """What every trajectory of a store shares.

    Attributes:
        task: task or robot name.
        action_dim: raw action width, >= 1.
        proprio_dim: proprioception width, >= 0.
        state_dim: width of true simulator states; 0 where there are none.
        control_period: [s] between two actions, > 0.
        image_size: (height, width) of the images [px].
    """

    task: str
    action_dim: int
    proprio_dim: int
    state_dim: int
    control_period: float
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        """Check the fields; raises ValueError naming field, value and bound."""
        object.__setattr__(self, "image_size", tuple(int(v) for v in self.image_size))
        for name, low in (("action_dim", 1), ("proprio_dim", 0), ("state_dim", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name}: {getattr(self, name)} is below {low}")
        if not self.control_period > 0:
            raise ValueError(f"control_period: {self.control_period} s is not above 0")
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise ValueError(f"image_size: {self.image_size} is not (height, width) above 0")

    def check(self, trajectory: Trajectory) -> Trajectory:
        """Return ``trajectory`` validated against itself and this description.

        Raises:
            ValueError: one line naming the field.
        """
        trajectory.validate()
        state_dim = 0 if trajectory.state is None else trajectory.state.shape[-1]
        for name, found, expected in (
            ("images", tuple(trajectory.images.shape[1:3]), self.image_size),
            ("actions", trajectory.actions.shape[1:], (self.action_dim,)),
            ("proprio", trajectory.proprio.shape[1:], (self.proprio_dim,)),
            ("state", state_dim, self.state_dim),
        ):
            if found != expected:
                raise ValueError(f"{name}: size {found} per step; {expected} expected by the store")
        return trajectory


class StoreWriter:
    """Appends trajectories to a store; a context manager. ``close`` (or leaving the context) writes the last shard.

    Leaving the context on an exception also writes what is complete: whole trajectories are never half stored.
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
            writer_id: letters, digits and dots that tell this writer's shards from others'; default: random.

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
            _remove_leftovers(self.path)
        except OSError as error:
            raise _disk_error(self.path, error) from error
        numbers = (int(p.stem.rsplit("-", 1)[1]) for p in self._own_shards())
        self._next = max(numbers, default=-1) + 1

    def add(self, trajectory: Trajectory) -> None:
        """Queue one trajectory; writes a shard when enough has gathered.

        Raises:
            ValueError: it does not validate or fit the store; nothing is queued.
            StoreError: the disk is full or not writable; earlier shards are intact and the queue is kept.
        """
        self.spec.check(trajectory)
        self._pending.append(trajectory)
        self._pending_bytes += trajectory.images.nbytes + trajectory.actions.nbytes
        if self._pending_bytes >= self._shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write the queued trajectories as one shard; nothing happens when none are queued.

        Raises:
            StoreError: the disk is full or not writable; earlier shards are intact and the queue is kept.
        """
        if not self._pending:
            return
        name = f"shard-{self.writer_id}-{self._next:05d}.safetensors"
        payload = _encode(self._pending, self.spec)
        try:
            _write_atomically(self.path / name, payload)
        except OSError as error:
            raise _disk_error(self.path / name, error) from error
        self._next += 1
        self._pending, self._pending_bytes = [], 0

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

    def _own_shards(self) -> Iterator[Path]:
        return self.path.glob(f"shard-{self.writer_id}-[0-9]*.safetensors")

    def _join(self) -> None:
        """Write the manifest of a new store, or check that an existing one is of the same kind."""
        if (self.path / _MANIFEST).exists():
            found = _read_manifest(self.path)
            for field in fields(StoreSpec):
                mine, theirs = getattr(self.spec, field.name), getattr(found, field.name)
                if mine != theirs:
                    raise StoreError(
                        f"{self.path}: holds {field.name} {theirs}; {mine} cannot be appended"
                    )
            return
        manifest = {"format": FORMAT, "version": VERSION, **asdict(self.spec)}
        _write_atomically(self.path / _MANIFEST, json.dumps(manifest, indent=2).encode())


@dataclass(frozen=True)
class Frames:
    """All episodes of a store end to end, for fast random access in training.

    Attributes:
        images: one mapped uint8 ``(F_s, H, W, 3)`` per shard.
        image_shard, image_row: int ``(F,)``; global frame ``f`` is ``images[image_shard[f]][image_row[f]]``.
        image_step: int64 ``(F,)``, the control step within its episode.
        actions: float32 ``(sum T, action_dim)``.
        proprio: float32 ``(sum (T + 1), proprio_dim)``.
        state: float64 ``(sum (T + 1), state_dim)`` or None.
        length: int64 ``(E,)`` control steps per episode.
        frame_start, action_start, row_start: int64 ``(E + 1,)`` where episode ``e`` begins among the frames, the
            actions and the rows of ``proprio`` and ``state``; the last entry is the total.
    """

    images: list[np.ndarray]
    image_shard: np.ndarray
    image_row: np.ndarray
    image_step: np.ndarray
    actions: np.ndarray
    proprio: np.ndarray
    state: np.ndarray | None
    length: np.ndarray
    frame_start: np.ndarray
    action_start: np.ndarray
    row_start: np.ndarray

    def gather(self, frame_ids: np.ndarray) -> np.ndarray:
        """Copy frames out: int ``(...)`` global frame ids to uint8 ``(..., H, W, 3)``."""
        ids = np.asarray(frame_ids)
        flat = ids.reshape(-1)
        out = np.empty((len(flat), *self.images[0].shape[1:]), np.uint8)
        shards, rows = self.image_shard[flat], self.image_row[flat]
        for shard in np.unique(shards):
            where = np.flatnonzero(shards == shard)
            out[where] = self.images[shard][rows[where]]
        return out.reshape(*ids.shape, *out.shape[1:])


@dataclass(frozen=True)
class Windows:
    """Index arrays of ``N`` training windows of ``L`` model steps; ``k`` counts boundaries ``0..L``.

    Attributes:
        episode: int64 ``(N,)``.
        start: int64 ``(N,)`` first control step within the episode.
        frames: int64 ``(N, L + 1)`` global frame ids of the boundaries, for ``Frames.gather``.
        actions: int64 ``(N, L, frameskip)`` rows of ``Frames.actions``.
        rows: int64 ``(N, L + 1)`` rows of ``Frames.proprio`` and ``Frames.state`` at the boundaries.
    """

    episode: np.ndarray
    start: np.ndarray
    frames: np.ndarray
    actions: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.start)


class Store:
    """Read access to a store; see the module. ``store[i]`` is a Trajectory whose arrays are mapped, not loaded."""

    def __init__(
        self, path: Path, spec: StoreSpec, shards: list[_Shard], skipped: list[str]
    ) -> None:
        """Use ``Store.open``."""
        self.path = path
        self.spec = spec
        self.skipped = skipped
        self._shards = shards
        self._where = [(s, e) for s, shard in enumerate(shards) for e in range(len(shard.length))]

    @classmethod
    def open(cls, path: str | Path, skip_bad: bool = False) -> Store:
        """Open and validate the store at ``path``.

        Every header, every size and every number except the pixels is checked.

        Args:
            path: directory of the store.
            skip_bad: leave damaged shards out; ``store.skipped`` then says which and why, one line each.

        Raises:
            StoreError: no store, another format or version, or (without ``skip_bad``) a damaged shard.
        """
        path = Path(path)
        spec = _read_manifest(path)
        shards, skipped = [], []
        for file in sorted(path.glob("shard-*.safetensors")):
            try:
                shards.append(_Shard.open(file, spec))
            except StoreError as error:
                if not skip_bad:
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

        Raises:
            StoreError: the store is empty.
        """
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
        for name, value in (("length", length), ("frameskip", frameskip), ("stride", stride)):
            if value < 1:
                raise ValueError(f"{name}: {value} is below 1")
        frames = self.frames()
        offsets = np.arange(length + 1) * frameskip
        episode, start, ids = [], [], []
        for e, steps in enumerate(frames.length):
            if steps < offsets[-1]:
                continue
            first, last = frames.frame_start[e : e + 2]
            # Frame id at every control step, -1 where the step has no image.
            at_step = np.full(steps + 1, -1, np.int64)
            at_step[frames.image_step[first:last]] = np.arange(first, last)
            candidates = at_step[np.arange(steps + 1 - offsets[-1])[:, None] + offsets]
            begins = np.flatnonzero((candidates >= 0).all(1))[::stride]
            episode.append(np.full(len(begins), e))
            start.append(begins)
            ids.append(candidates[begins])
        if not sum(map(len, start)):
            raise ValueError(
                f"length: no episode of {self.path} has {length} model steps of {frameskip} "
                "control steps with an image at each boundary"
            )
        episode_ids, begin = np.concatenate(episode), np.concatenate(start)
        inner = np.arange(length * frameskip).reshape(length, frameskip)
        return Windows(
            episode=episode_ids,
            start=begin,
            frames=np.concatenate(ids),
            actions=(frames.action_start[episode_ids] + begin)[:, None, None] + inner,
            rows=(frames.row_start[episode_ids] + begin)[:, None] + offsets,
        )


@dataclass(frozen=True)
class _Shard:
    """One validated, mapped shard."""

    arrays: dict[str, np.ndarray]
    length: np.ndarray
    frame_count: np.ndarray
    metas: list[dict]

    @classmethod
    def open(cls, file: Path, spec: StoreSpec) -> _Shard:
        """Map ``file`` and check everything but the pixels; raises StoreError."""
        arrays, info = _map_shard(file)
        try:
            length = np.asarray(info["length"], np.int64)
            frame_count = np.asarray(info["frame_count"], np.int64)
            shard = cls(arrays, length, frame_count, list(info["meta"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{file}: header lacks or mangles {error}") from error
        missing = [n for n in _ARRAYS if n not in arrays and (n != "state" or spec.state_dim)]
        if missing:
            raise StoreError(f"{file}: array {missing[0]!r} is missing")
        rows = int((length + 1).sum())
        for name, expected in (
            ("images", int(frame_count.sum())),
            ("image_steps", int(frame_count.sum())),
            ("actions", int(length.sum())),
            ("proprio", rows),
            ("stamps", rows),
            *([("state", rows)] if spec.state_dim else []),
        ):
            if arrays[name].dtype != _ARRAYS[name]:
                raise StoreError(
                    f"{file}: {name} is {arrays[name].dtype}; {np.dtype(_ARRAYS[name])} expected"
                )
            if len(arrays[name]) != expected:
                raise StoreError(
                    f"{file}: {name} has {len(arrays[name])} rows; {expected} expected"
                )
        for e in range(len(length)):
            try:
                spec.check(shard.trajectory(e))
            except ValueError as error:
                raise StoreError(f"{file}: episode {e}: {error}") from error
        return shard

    def trajectory(self, episode: int) -> Trajectory:
        """Views of one episode."""
        steps = int(self.length[episode])
        begin = int(self.length[:episode].sum())
        frame = int(self.frame_count[:episode].sum())
        frames = slice(frame, frame + int(self.frame_count[episode]))
        rows = slice(begin + episode, begin + episode + steps + 1)
        state = self.arrays.get("state")
        return Trajectory(
            images=self.arrays["images"][frames],
            image_steps=self.arrays["image_steps"][frames],
            actions=self.arrays["actions"][begin : begin + steps],
            proprio=self.arrays["proprio"][rows],
            stamps=self.arrays["stamps"][rows],
            state=None if state is None else state[rows],
            meta=dict(self.metas[episode]),
        )


def _encode(trajectories: list[Trajectory], spec: StoreSpec) -> bytes:
    names = [n for n in _ARRAYS if n != "state" or spec.state_dim]
    arrays = {
        n: np.concatenate([np.asarray(getattr(t, n), _ARRAYS[n]) for t in trajectories])
        for n in names
    }
    info = {
        "length": [len(t) for t in trajectories],
        "frame_count": [len(t.images) for t in trajectories],
        "meta": [t.meta for t in trajectories],
    }
    metadata = {"format": FORMAT, "version": str(VERSION), "episodes": json.dumps(info)}
    return safetensors.numpy.save(arrays, metadata)


def _map_shard(file: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Map every array of a safetensors file and return it with the decoded episode table.

    Raises:
        StoreError: truncated, not a shard, or another version.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = int.from_bytes(stream.read(8), "little") if size >= 8 else size
        if 8 + prefix > size:
            raise StoreError(f"{file}: truncated: {size} bytes end inside the header")
        try:
            header = json.loads(stream.read(prefix))
            metadata = header.pop("__metadata__", {})
            found = metadata.get("format"), metadata.get("version")
        except (ValueError, AttributeError) as error:
            raise StoreError(f"{file}: the header is not JSON: {error}") from error
    if found != (FORMAT, str(VERSION)):
        raise StoreError(
            f"{file}: format {found[0]} version {found[1]}; {FORMAT} version {VERSION} expected"
        )
    arrays = {}
    try:
        end = max(entry["data_offsets"][1] for entry in header.values())
        if 8 + prefix + end != size:
            raise StoreError(f"{file}: truncated: {size} bytes; {8 + prefix + end} expected")
        for name, entry in header.items():
            shape = tuple(entry["shape"])
            if 0 in shape:
                arrays[name] = np.zeros(shape, _DTYPES[entry["dtype"]])
                continue
            begin = 8 + prefix + entry["data_offsets"][0]
            mapped = np.memmap(file, _DTYPES[entry["dtype"]], "r", begin, shape)
            arrays[name] = mapped.view(np.ndarray)  # plain views slice much faster
        return arrays, json.loads(metadata["episodes"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{file}: header lacks or mangles {error}") from error


def _read_manifest(path: Path) -> StoreSpec:
    file = path / _MANIFEST
    try:
        manifest = json.loads(file.read_text())
        found = manifest.pop("format"), manifest.pop("version")
    except FileNotFoundError:
        raise StoreError(f"{path}: no store here ({_MANIFEST} is missing)") from None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise StoreError(f"{file}: not a store manifest: {error}") from error
    if found != (FORMAT, VERSION):
        raise StoreError(
            f"{file}: format {found[0]} version {found[1]}; {FORMAT} version {VERSION} expected"
        )
    try:
        return StoreSpec(**manifest)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{file}: {error}") from error


def _write_atomically(target: Path, payload: bytes) -> None:
    """Write ``payload`` so that ``target`` either does not exist or is complete."""
    temporary = target.with_name(f".{target.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of writers on this host that no longer run."""
    for file in path.glob(".*.tmp"):
        host, pid = file.name[: -len(".tmp")].rsplit(".", 1)
        if host.endswith(f".{socket.gethostname()}") and pid.isdigit() and not _alive(int(pid)):
            file.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _disk_error(path: Path, error: OSError) -> StoreError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    reason = "the disk is full" if full else error.strerror or str(error)
    return StoreError(f"{path}: {reason}; shards written before are intact")
