"""One shard of a store: encoding episodes into safetensors, mapping and validating them."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from wm_mpc.data.store.format import FORMAT, VERSION, StoreError, StoreSpec
from wm_mpc.data.trajectory import Trajectory

_DTYPES = {"U8": np.uint8, "I64": np.int64, "F32": np.float32, "F64": np.float64}
_ARRAYS = {
    "images": np.uint8,
    "image_steps": np.int64,
    "actions": np.float32,
    "proprio": np.float32,
    "stamps": np.float64,
    "state": np.float64,
}


class MappingError(StoreError):
    """The system maps no more files for this process; the shard itself may be sound."""


def encode_shard(trajectories: list[Trajectory], spec: StoreSpec) -> bytes:
    """Content of a shard file with these trajectories, which fit ``spec``."""
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


@dataclass(frozen=True)
class Shard:
    """One validated, mapped shard.

    Attributes:
        arrays: mapped arrays by name, all episodes end to end.
        length: int64 ``(E,)`` control steps per episode.
        frame_count: int64 ``(E,)`` images per episode.
        metas: ``meta`` of every episode.
    """

    arrays: dict[str, np.ndarray]
    length: np.ndarray
    frame_count: np.ndarray
    metas: list[dict]

    @classmethod
    def open(cls, file: Path, spec: StoreSpec) -> Shard:
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


def _map_shard(file: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Map every array of a safetensors file and return it with the decoded episode table.

    Raises:
        StoreError: truncated, not a shard, another version, or it cannot be read.
        MappingError: the system maps no more files.
    """
    try:
        return _read(file)
    except OSError as error:
        reason = f"{file}: cannot be mapped: {error.strerror or error}"
        if error.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE):
            raise MappingError(f"{reason}; too many shards are open, or memory is full") from error
        raise StoreError(reason) from error


def _read(file: Path) -> tuple[dict[str, np.ndarray], dict]:
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
        # One map per file: each holds a file handle, of which a process may have 1024 or so.
        content = np.memmap(file, np.uint8, "r")
        end = max(entry["data_offsets"][1] for entry in header.values())
        if 8 + prefix + end != size:
            raise StoreError(f"{file}: truncated: {size} bytes; {8 + prefix + end} expected")
        for name, entry in header.items():
            shape = tuple(entry["shape"])
            if 0 in shape:
                arrays[name] = np.zeros(shape, _DTYPES[entry["dtype"]])
                continue
            begin = 8 + prefix + entry["data_offsets"][0]
            # plain arrays slice much faster than numpy's own memmap
            arrays[name] = np.ndarray(shape, _DTYPES[entry["dtype"]], content, begin)
        return arrays, json.loads(metadata["episodes"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{file}: header lacks or mangles {error}") from error
