"""Bags into a training store: streaming, in bounded memory, resumable.

Resuming reads the bag again from its beginning but decodes no picture of an episode that is
already
in the store, which makes the store of a resumed import equal to that of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wm_mpc.core.errors import DataError
from wm_mpc.data.bags.align import AlignConfig, Aligner, Episode
from wm_mpc.data.bags.import_report import BagReport, RunningStatistics, TopicReport
from wm_mpc.data.bags.mcap_scan import RawMessage
from wm_mpc.data.bags.parts import BagParts
from wm_mpc.data.bags.pictures import fit_picture
from wm_mpc.data.bags.source import Bag, UnusableBagError
from wm_mpc.data.bags.topics import TopicConfig, read_field, read_image
from wm_mpc.data.bags.typelib import Decoder
from wm_mpc.data.decoding import MessageError, message_to_trajectory
from wm_mpc.data.store.store import Store, StoreError, StoreSpec, StoreWriter
from wm_mpc.data.trajectory import Trajectory


@dataclass(frozen=True)
class ImportConfig:
    """What an import does to every bag.

    Attributes:
        align: time alignment.
        topics: which topic is what.
        size: (height, width) of the stored pictures [px]; None: the store's, or the first frame's.
        crop: cut pictures to the wanted aspect around the centre before scaling; else stretch.
        task: task or robot name; empty: the existing store's, or ``robot``.
        stamps: ``auto``, ``header`` or ``recorder``: which clock dates a message. ``auto`` takes
            headers unless a needed topic has none while headers and recorder are over 1 s apart.
    """

    align: AlignConfig
    topics: TopicConfig = field(default_factory=TopicConfig)
    size: tuple[int, int] | None = None
    crop: bool = True
    task: str = ""
    stamps: str = "auto"

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.size is not None and not all(1 <= side <= 4096 for side in self.size):
            raise ValueError(f"size: {self.size}; 1 to 4096 px expected")
        if self.stamps not in ("auto", "header", "recorder"):
            raise ValueError(f"stamps: {self.stamps!r}; auto, header or recorder expected")

    def digest(self) -> str:
        """8 hex digits that change with any setting; episodes carry it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]


def import_bags(
    config: ImportConfig, bags: Sequence[Path], out: Path, progress: bool = True
) -> tuple[list[BagReport], dict[str, Any]]:
    """Import bags one after another into the store ``out``.

    Args:
        config: see there.
        bags: rosbag2 folders or storage files.
        out: store to create or append to.
        progress: draw a progress bar on stderr.

    Returns:
        One report per bag, and ``{"actions", "proprio"}``: normalisation statistics of what was
        imported (raw units; ``n``, ``mean``, ``std``, ``min``, ``max``).

    Raises:
        DataError: a bag was imported into ``out`` before, with other settings.
        StoreError: the store cannot be written, or holds data of another kind.
    """
    statistics = {"actions": RunningStatistics(), "proprio": RunningStatistics()}
    reports = []
    for path in bags:
        try:
            reports.append(_BagImport(config, Bag(path), out, statistics).run(progress))
        except UnusableBagError as error:
            reports.append(BagReport(bag=str(path), problems=[str(error)]))
        except DataError as error:
            if len(bags) == 1:
                raise
            reports.append(BagReport(bag=str(path), problems=[str(error)]))
    return reports, {name: value.row() for name, value in statistics.items()}


class _BagImport:
    """The import of one bag."""

    def __init__(
        self,
        config: ImportConfig,
        bag: Bag,
        out: Path,
        statistics: dict[str, RunningStatistics],
    ) -> None:
        self._config = config
        self._bag = bag
        self._out = out
        self._statistics = statistics
        self._report = BagReport(bag=str(bag.path), bytes_read=bag.size)
        self._decoder = Decoder(bag.definitions)
        self._id = f"{bag.fingerprint()}.{config.digest()}"
        self._writer: StoreWriter | None = None
        self._size = config.size
        self._sizes: dict[tuple[int, int], int] = {}
        self._task = config.task
        self._episodes = 0
        self._known: set[str] = set()
        self._look_at_store()

    def run(self, progress: bool) -> BagReport:
        """Import and report."""
        started = time.perf_counter()
        config = self._config
        self._parts = BagParts(config.topics, config.stamps, self._bag, self._decoder)
        self._report.topics = self._parts.reports
        self._aligner = Aligner(
            self._config.align,
            tuple(r for r in ("image", "proprio", "command", "state") if r in self._report.topics),
            keep_image=self._picture,
        )
        bar = tqdm(
            total=self._bag.size,
            unit="B",
            unit_scale=True,
            desc=self._bag.name,
            disable=not progress,
        )
        try:
            with bar:
                for item in self._items(bar):
                    self._store(item)
        finally:
            if self._writer:
                self._writer.close()
        self._finish_report()
        self._report.seconds = time.perf_counter() - started
        return self._report

    def _look_at_store(self) -> None:
        """Learn from an existing store which episodes are there and how large its pictures are."""
        if not (self._out / "store.json").exists():
            return
        store = Store.open(self._out, skip_bad=True)
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

    def _items(self, bar: tqdm) -> Iterator[Episode | Trajectory]:
        """Yield what the bag holds: aligned episodes and ready-made trajectories."""
        roles = self._parts.by_topic()
        handlers: dict[str, Callable[..., Iterator[Episode | Trajectory]]] = {
            "image": self._sample,
            "goal": self._goal,
            "trajectories": self._trajectory,
        }
        self._goal_digest = b""
        self._marker_values: dict[str, Any] = {}
        for message in self._bag.messages():
            for part in roles.get(message.topic, ()):
                report = self._report.topics[part]
                report.messages += 1
                handler = self._marker if part.startswith("marker") else handlers.get(part)
                try:
                    decoded = self._decoder.decode(message.msgtype, message.data)
                    stamp = self._parts.stamp(part, decoded, message.log_ns)
                    yield from (handler or self._sample)(part, stamp, decoded, message)
                except (DataError, MessageError) as error:
                    self._drop(report, str(error))
            if min(self._bag.position, bar.total) - bar.n > 1 << 20:
                bar.update(min(self._bag.position, bar.total) - bar.n)
                bar.set_postfix_str(f"{self._episodes} episodes", refresh=False)
        yield from self._aligner.finish()
        bar.update(bar.total - bar.n)

    def _drop(self, report: TopicReport, reason: str) -> None:
        """Count a message that cannot be used; many different reasons become one."""
        known = reason in report.dropped or len(report.dropped) < 5
        report.dropped[reason if known else "other reasons"] += 1

    def _sample(
        self, part: str, stamp: int, decoded: Any, message: RawMessage
    ) -> Iterator[Episode]:
        value = decoded if part == "image" else self._parts.vectors[part](decoded)
        yield from self._aligner.push(part, stamp, value)

    def _goal(self, part: str, stamp: int, decoded: Any, message: RawMessage) -> Iterator[Episode]:
        """Another goal picture begins another episode; the same one again does not."""
        digest = hashlib.sha256(bytes(decoded.data)).digest()
        if digest != self._goal_digest:
            self._goal_digest = digest
            self._aligner.boundary(stamp, "another goal")
        yield from ()

    def _marker(
        self, part: str, stamp: int, decoded: Any, message: RawMessage
    ) -> Iterator[Episode]:
        """A message, or the change of a field, begins another episode; JSON text describes it."""
        path = self._parts.markers[message.topic]
        meta: dict[str, Any] = {}
        if path:
            value = read_field(decoded, path)
            value = value.tolist() if isinstance(value, np.ndarray) else value
            if self._marker_values.get(message.topic) == value:
                return
            self._marker_values[message.topic] = value
        elif isinstance(getattr(decoded, "data", None), str):
            meta = _described(decoded.data)
        self._aligner.boundary(stamp, "marker", meta)
        yield from ()

    def _trajectory(
        self, part: str, stamp: int, decoded: Any, message: RawMessage
    ) -> Iterator[Trajectory]:
        yield message_to_trajectory(decoded)

    def _picture(self, message: Any) -> np.ndarray | None:
        """Decode and scale a chosen frame; None when it does not decode."""
        if f"e{self._episodes}" in self._known:
            return np.zeros((0, 0, 3), np.uint8)
        report = self._report.topics["image"]
        try:
            picture = read_image(message, report.msgtype)
        except MessageError as error:
            self._drop(report, str(error))
            return None
        size = picture.shape[:2]
        self._sizes[size] = self._sizes.get(size, 0) + 1
        self._size = self._size or size
        return np.ascontiguousarray(fit_picture(picture, self._size, self._config.crop))

    def _store(self, item: Episode | Trajectory) -> None:
        """Write what was found, unless an earlier run did."""
        if isinstance(item, Episode):
            ordinal = f"e{self._episodes}"
            self._episodes += 1
            if not item.images:
                self._report.counts["episodes without a readable frame"] += 1
                return
            trajectory = self._as_trajectory(item)
        else:
            ordinal = f"t{self._report.trajectories}"
            self._report.trajectories += 1
            trajectory = self._fitted(item)
        self._statistics["actions"].add(trajectory.actions)
        self._statistics["proprio"].add(trajectory.proprio)
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
            self._open_store(trajectory).add(trajectory)
        except StoreError:
            raise
        except ValueError as error:
            self._report.problems.append(f"episode {ordinal} does not fit the store: {error}")

    def _open_store(self, first: Trajectory) -> StoreWriter:
        """The store's writer; a new store takes its widths from the first trajectory."""
        if self._writer is None:
            spec = StoreSpec(
                task=self._task or "robot",
                action_dim=first.actions.shape[1],
                proprio_dim=first.proprio.shape[1],
                state_dim=0 if first.state is None else first.state.shape[1],
                control_period=self._config.align.period_s,
                image_size=first.images.shape[1:3],
            )
            self._writer = StoreWriter(self._out, spec, writer_id=f"bag.{self._id}")
        return self._writer

    def _as_trajectory(self, episode: Episode) -> Trajectory:
        meta = dict(episode.meta)
        offset = float(meta.pop("stamp_offset", 0.0))
        images = episode.images
        return Trajectory(
            images=np.stack(images),
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

    def _finish_report(self) -> None:
        report = self._report
        report.problems.extend(self._bag.problems + self._parts.problems)
        for part, buffer in self._aligner.buffers.items():
            report.topics[part].dropped.update(buffer.dropped)
        report.counts.update(self._aligner.counts)
        report.gaps = [{"at_s": at / 1e9, "reason": why} for at, why in self._aligner.gaps]
        if len(self._sizes) > 1:
            seen = ", ".join(f"{w}x{h} ({n})" for (h, w), n in self._sizes.items())
            height, width = self._size or (0, 0)
            report.problems.append(
                f"image: mixed sizes: {seen} frames; all were fitted to {width}x{height}"
            )
        report.judge()


def _described(text: str) -> dict[str, Any]:
    """Facts about an episode from a marker's JSON object; other text becomes ``marker``."""
    try:
        facts = json.loads(text)
    except ValueError:
        return {"marker": text}
    return facts if isinstance(facts, dict) else {"marker": text}
