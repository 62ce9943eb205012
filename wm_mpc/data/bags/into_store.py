"""One bag's episodes on their way into a store: pictures fitted, statistics kept, resumable.

Resuming reads the bag again from its beginning but decodes no picture of an episode that is in the
store already, which makes the store of a resumed import equal to that of an uninterrupted one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_mpc.core.errors import DataError
from wm_mpc.data.bags.align import Episode
from wm_mpc.data.bags.checks import unit_doubts
from wm_mpc.data.bags.config import ImportConfig
from wm_mpc.data.bags.import_report import BagReport, RunningStatistics
from wm_mpc.data.bags.parts import BagParts
from wm_mpc.data.bags.pictures import fit_picture
from wm_mpc.data.bags.source import Bag
from wm_mpc.data.bags.topics import read_image
from wm_mpc.data.store.format import MANIFEST
from wm_mpc.data.store.store import (
    Store,
    StoreError,
    StoreSpec,
    StoreWriter,
    numbered_shards,
)
from wm_mpc.data.trajectory import Trajectory

VECTORS = ("actions", "proprio")


class BagEpisodes:
    """Takes what a bag holds, item by item.

    Args:
        config: of the import.
        bag: where the items come from.
        out: store to create or append to.
        statistics: of everything that is imported; grows.
        report: of the bag; grows.
        parts: of the bag.

    Attributes:
        spec: of a store that was there before; None: there was none.
        count: aligned episodes taken so far.

    Raises:
        DataError: the bag is in the store already, imported with other settings.
    """

    def __init__(
        self,
        config: ImportConfig,
        bag: Bag,
        out: Path,
        statistics: dict[str, RunningStatistics],
        report: BagReport,
        parts: BagParts,
    ) -> None:
        self.spec: StoreSpec | None = None
        self.count = 0
        self._config, self._bag, self._out = config, bag, out
        self._statistics, self._report, self._parts = statistics, report, parts
        self._id = f"{bag.fingerprint()}.{config.digest()}"
        self._writer: StoreWriter | None = None
        self._size, self._task = config.size, config.task
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._cameras: Counter[str] = Counter()
        self._known: set[str] = set()
        self._seen = {name: RunningStatistics() for name in VECTORS}
        if (out / MANIFEST).exists():
            self._look_at_store()

    def picture(self, message: Any) -> np.ndarray | None:
        """Decode and scale a chosen frame; None when it does not decode."""
        if f"e{self.count}" in self._known:
            return np.zeros((0, 0, 3), np.uint8)
        report = self._report.topics["image"]
        try:
            picture = read_image(message, report.msgtype, self._config.depth_range)
        except ValueError as error:
            report.drop(str(error))
            return None
        self._cameras[message.header.frame_id] += 1
        size = picture.shape[:2]
        self._sizes[size] += 1
        self._size = self._size or size
        return np.ascontiguousarray(fit_picture(picture, self._size, self._config.crop))

    def add(self, item: Episode | Trajectory) -> None:
        """Write what was found, unless an earlier run did."""
        if isinstance(item, Episode):
            ordinal = f"e{self.count}"
            self.count += 1
            if not item.images:
                self._report.counts["episodes without a readable frame"] += 1
                return
            trajectory = self._as_trajectory(item)
        else:
            ordinal = f"t{self._report.trajectories}"
            self._report.trajectories += 1
            trajectory = self._fitted(item)
        for name in VECTORS:
            self._seen[name].add(getattr(trajectory, name))
            self._statistics[name].add(getattr(trajectory, name))
        self._report.data_seconds += float(trajectory.stamps[-1] - trajectory.stamps[0])
        if ordinal in self._known:
            self._report.already += 1
            return
        trajectory.meta |= {
            "task": trajectory.meta.get("task") or self._task or "robot",
            "bag": self._bag.name,
            "bag_id": self._id,
            "bag_episode": ordinal,
        }
        try:
            self._open(trajectory).add(trajectory)
        except StoreError:
            raise
        except ValueError as error:
            self._report.problems.append(f"episode {ordinal} does not fit the store: {error}")

    def close(self) -> None:
        """Complete the store."""
        if self._writer is not None:
            self._writer.close()

    def take_back(self) -> None:
        """Remove what this bag left in the store."""
        if self._writer is not None:
            for file in numbered_shards(self._out, self._writer.writer_id).values():
                file.unlink()
            if self.spec is None and not list(self._out.glob("shard-*")):
                (self._out / MANIFEST).unlink(missing_ok=True)
        self._report.refused = True

    def doubts(self) -> Iterator[str]:
        """What speaks against the pictures and numbers that were taken, one line each."""
        yield from self._against_store()
        if len(self._sizes) > 1:
            seen = ", ".join(f"{w}x{h} ({n})" for (h, w), n in self._sizes.items())
            height, width = self._size or (0, 0)
            yield f"image: mixed sizes: {seen} frames; all were fitted to {width}x{height}"
        if len(self._cameras) > 1:
            seen = ", ".join(f"{name or '(none)'} ({n})" for name, n in self._cameras.items())
            yield f"image: frame_id changes: {seen} frames; several cameras on one topic?"

    def _look_at_store(self) -> None:
        """Learn from an existing store which episodes are there and how large its pictures are."""
        store = Store.open(self._out, skip_bad=True)
        self.spec = store.spec
        self._size = self._size or store.spec.image_size
        self._task = self._task or store.spec.task
        bag_id = self._id.partition(".")[0]
        for meta in store.metas():
            found = str(meta.get("bag_id", ""))
            if found == self._id:
                self._known.add(meta["bag_episode"])
            elif found.startswith(bag_id + "."):
                raise DataError(
                    f"{self._bag.path}: is in {self._out} already, imported with other settings; "
                    "choose another --out"
                )

    def _open(self, first: Trajectory) -> StoreWriter:
        """The store's writer; a new store takes its widths from the first trajectory."""
        if self._writer is None:
            proprio, action = self._parts.channels()
            width = first.proprio.shape[1], first.actions.shape[1]
            spec = StoreSpec(
                task=self._task or "robot",
                action_dim=first.actions.shape[1],
                proprio_dim=first.proprio.shape[1],
                state_dim=0 if first.state is None else first.state.shape[1],
                control_period=self._config.align.period_s,
                image_size=first.images.shape[1:3],
                proprio_channels=proprio if len(proprio) == width[0] else (),
                action_channels=action if len(action) == width[1] else (),
            )
            self._writer = StoreWriter(self._out, spec, writer_id=f"bag.{self._id}")
        return self._writer

    def _against_store(self) -> Iterator[str]:
        """Numbers that look like those of the store in another unit, one line each."""
        if self.spec is None or not self._out.exists():
            return
        others = {name: RunningStatistics() for name in VECTORS}
        for trajectory in Store.open(self._out, skip_bad=True):
            if trajectory.meta.get("bag_id") != self._id:
                for name in VECTORS:
                    others[name].add(getattr(trajectory, name))
        for name, other in others.items():
            yield from unit_doubts(name, self._seen[name], other)

    def _as_trajectory(self, episode: Episode) -> Trajectory:
        meta = dict(episode.meta)
        offset = float(meta.pop("stamp_offset", 0.0))
        states = self._parts.proprio
        if states is not None and episode.proprio:
            episode.proprio = [values[states.order] for values in episode.proprio]
        return Trajectory(
            images=np.stack(episode.images),
            image_steps=np.asarray(episode.image_steps, np.int64),
            actions=np.stack(episode.actions).astype(np.float32),
            proprio=(
                np.stack(episode.proprio).astype(np.float32)
                if episode.proprio
                else np.zeros((len(episode.stamps), 0), np.float32)
            ),
            stamps=np.asarray(episode.stamps, np.int64) / 1e9 - offset,
            state=np.stack(episode.states) if episode.states else None,
            meta={"source": "bag", "ended_by": episode.end} | meta,
        )

    def _fitted(self, trajectory: Trajectory) -> Trajectory:
        """A ready-made trajectory with pictures of the store's size."""
        self._size = self._size or trajectory.images.shape[1:3]
        if trajectory.images.shape[1:3] != self._size:
            crop = self._config.crop
            pictures = [fit_picture(p, self._size, crop) for p in trajectory.images]
            trajectory.images = np.stack(pictures)
        return trajectory
