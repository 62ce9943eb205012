"""Index arrays over a store's episodes laid end to end: what training draws its batches from."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Frames:
    """All episodes of a store end to end, for fast random access in training.

    Attributes:
        images: one mapped uint8 ``(F_s, H, W, 3)`` per shard.
        image_shard, image_row: int ``(F,)``; global frame ``f`` is
            ``images[image_shard[f]][image_row[f]]``.
        image_step: int64 ``(F,)``, the control step within its episode.
        actions: float32 ``(sum T, action_dim)``.
        proprio: float32 ``(sum (T + 1), proprio_dim)``.
        state: float64 ``(sum (T + 1), state_dim)`` or None.
        length: int64 ``(E,)`` control steps per episode.
        frame_start, action_start, row_start: int64 ``(E + 1,)`` where episode ``e`` begins among
            the frames, the actions and the rows of ``proprio`` and ``state``; the last entry is
            the total.
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
    """Index arrays of ``N`` training windows of ``L`` model steps (``L + 1`` boundaries).

    Attributes:
        episode: int64 ``(N,)``.
        start: int64 ``(N,)`` first control step within the episode.
        frames: int64 ``(N, L + 1)`` global frame ids of the boundaries, for ``Frames.gather``.
        actions: int64 ``(N, L, frameskip)`` rows of ``Frames.actions``.
        rows: int64 ``(N, L + 1)`` rows of ``Frames.proprio`` and ``Frames.state`` at the
            boundaries.
    """

    episode: np.ndarray
    start: np.ndarray
    frames: np.ndarray
    actions: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.start)

    def subset(self, keep: np.ndarray) -> Windows:
        """The windows for which ``keep`` ``(N,)`` is true."""
        return Windows(*(getattr(self, item.name)[keep] for item in fields(self)))


def find_windows(frames: Frames, length: int, frameskip: int, stride: int = 1) -> Windows:
    """All windows of ``length`` model steps whose ``length + 1`` boundary steps have images.

    Args:
        frames: episodes end to end.
        length: model steps per window, >= 1.
        frameskip: control steps per model step, >= 1.
        stride: take every ``stride``-th window start that qualifies, per episode.

    Raises:
        ValueError: an argument is out of range, or no window qualifies.
    """
    for name, value in (("length", length), ("frameskip", frameskip), ("stride", stride)):
        if value < 1:
            raise ValueError(f"{name}: {value} is below 1")
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
            f"length: no episode has {length} model steps of {frameskip} "
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
