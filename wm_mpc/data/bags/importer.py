"""Bags into a training store: streaming, in bounded memory, resumable.

Resuming reads the bag again from its beginning but decodes no picture of an episode that is
already
in the store, which makes the store of a resumed import equal to that of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wm_mpc.core.errors import DataError
from wm_mpc.data.bags.align import AlignConfig, Aligner, Episode
from wm_mpc.data.bags.checks import find_borders, rate_misfit, unit_doubts
from wm_mpc.data.bags.clocks import read_ways
from wm_mpc.data.bags.command_plan import CommandPlan
from wm_mpc.data.bags.dated import DatedMessage, TimeLine
from wm_mpc.data.bags.import_report import BagReport, RunningStatistics, TopicReport
from wm_mpc.data.bags.parts import BagParts, described
from wm_mpc.data.bags.pictures import fit_picture
from wm_mpc.data.bags.source import Bag, UnusableBagError
from wm_mpc.data.bags.topics import TopicConfig, read_field, read_image
from wm_mpc.data.bags.typelib import Decoder
from wm_mpc.data.decoding import MessageError, message_to_trajectory
from wm_mpc.data.store.format import MANIFEST
from wm_mpc.data.store.store import (
    Store,
    StoreError,
    StoreSpec,
    StoreWriter,
    numbered_shards,
)
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
        stamps: ``auto``, ``header`` or ``recorder`` (``receive``): which clock dates a message;
            ``TOPIC=word`` entries beside it, by commas, for single topics. ``auto`` takes headers
            where they can be used together, see ``clocks``.
        rate_tolerance: [share of the period] a step differs from the period by at most this much,
            or its bag is refused with the rate that fits.
        strict: a bag that is not wholly sound leaves nothing in the store.
        types: folders with .msg files of types that a bag does not define.
        depth_range: [m] (near, far) by which depth pictures become grey; None: they are refused.
    """

    align: AlignConfig
    topics: TopicConfig = field(default_factory=TopicConfig)
    size: tuple[int, int] | None = None
    crop: bool = True
    task: str = ""
    stamps: str = "auto"
    rate_tolerance: float = 0.1
    strict: bool = False
    types: tuple[Path, ...] = ()
    depth_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.size is not None and not all(1 <= side <= 4096 for side in self.size):
            raise ValueError(f"size: {self.size}; 1 to 4096 px expected")
        read_ways(self.stamps)
        if not 0 < self.rate_tolerance < 0.5:
            raise ValueError(f"rate_tolerance: {self.rate_tolerance}; in (0, 0.5) expected")
        near, far = self.depth_range or (0.0, 1.0)
        if not 0 <= near < far < 1e4:
            raise ValueError(f"depth_range: {self.depth_range}; 0 <= near < far [m] expected")
        aligned = replace(self.align, step_tolerance=self.rate_tolerance)
        object.__setattr__(self, "align", aligned)

    def digest(self) -> str:
        """8 hex digits that change with any setting; episodes carry it."""
        settings = asdict(self)
        for name in ("strict", "types"):
            del settings[name]
        text = json.dumps(settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


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
        self._decoder = Decoder(bag.definitions, config.types)
        self._id = f"{bag.fingerprint()}.{config.digest()}"
        self._writer: StoreWriter | None = None
        self._size = config.size
        self._sizes: dict[tuple[int, int], int] = {}
        self._cameras: Counter[str] = Counter()
        self._task = config.task
        self._episodes = 0
        self._known: set[str] = set()
        self._spec: StoreSpec | None = None
        self._seen = {name: RunningStatistics() for name in ("actions", "proprio")}
        self._command_plan = CommandPlan()
        self._look_at_store()

    def run(self, progress: bool) -> BagReport:
        """Import and report."""
        started = time.perf_counter()
        config = self._config
        self._parts = BagParts(config.topics, self._bag, self._decoder)
        self._report.topics = self._parts.reports
        reorder_ns = round(config.align.reorder_s * 1e9)
        known, proprio_dim = ((), ()), None
        if self._spec:
            known = (self._spec.proprio_channels, self._spec.action_channels)
            proprio_dim = self._spec.proprio_dim
        with self._bar(progress, "reading clocks") as bar:
            self._parts.look(
                config.stamps, reorder_ns, known, proprio_dim, partial(_show, bar)
            )
        self._check_rate()
        self._report.borders = find_borders(self._parts)
        states = self._parts.proprio
        proprio = states.roles if states else ("proprio",)
        roles = ("image", *(proprio if "proprio" in self._report.topics else ()), "command")
        if "state" in self._report.topics:
            roles = (*roles, "state")
        self._aligner = Aligner(config.align, roles, keep_image=self._picture)
        try:
            with self._bar(progress, self._bag.name) as bar:
                for item in self._items(bar):
                    self._store(item)
        finally:
            if self._writer:
                self._writer.close()
        self._finish_report()
        if config.strict and self._report.problems:
            self._take_back()
        self._report.seconds = time.perf_counter() - started
        return self._report

    def _bar(self, progress: bool, words: str) -> tqdm:
        return tqdm(
            total=self._bag.size, unit="B", unit_scale=True, desc=words, disable=not progress
        )

    def _check_rate(self) -> None:
        """Refuse a camera whose frames cannot be one per step.

        Raises:
            UnusableBagError: with the rate found and the rates that fit.
        """
        clock, align = self._parts.clock("image"), self._config.align
        if clock is None or not clock.period_s or len(clock.stamps) < 5:
            return
        stride = self._parts.frame_stride or align.frame_stride
        words = rate_misfit(
            clock.period_s, align.period_s, stride, self._config.rate_tolerance
        )
        if words:
            raise UnusableBagError(f"image {self._report.topics['image'].topic}: {words}")

    def _take_back(self) -> None:
        """Remove what this bag left in the store."""
        if self._writer is not None:
            for file in numbered_shards(self._out, self._writer.writer_id).values():
                file.unlink()
            if self._spec is None and not list(self._out.glob("shard-*")):
                (self._out / MANIFEST).unlink(missing_ok=True)
        self._report.refused = True

    def _look_at_store(self) -> None:
        """Learn from an existing store which episodes are there and how large its pictures are."""
        if not (self._out / "store.json").exists():
            return
        store = Store.open(self._out, skip_bad=True)
        self._spec = store.spec
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
            "proprio": self._proprio,
            "command": self._commands,
            "goal": self._goal,
            "trajectories": self._trajectory,
        }
        self._goal_digest = b""
        self._marker_values: dict[str, Any] = {}
        for at, reason in self._report.borders:
            self._aligner.boundary(at, reason)
        segment = 0
        for message in self._messages():
            if message.segment != segment:
                segment = message.segment
                yield from self._aligner.restart("clock set back")
                self._command_plan.clear()
            yield from self._continue_plan(message.stamp)
            for part in roles[message.topic]:
                report = self._report.topics[part]
                report.messages += 1
                if message.stray:
                    self._drop(report, message.stray)
                    continue
                handler = self._marker if part.startswith("marker") else handlers.get(part)
                try:
                    decoded = self._decoder.decode(message.msgtype, message.data)
                    yield from (handler or self._sample)(part, message.stamp, decoded, message)
                except (DataError, MessageError) as error:
                    self._drop(report, str(error))
            _show(bar, message.position)
            bar.set_postfix_str(f"{self._episodes} episodes", refresh=False)
        yield from self._continue_plan(None)
        yield from self._aligner.finish()
        bar.update(bar.total - bar.n)

    def _messages(self) -> Iterator[DatedMessage]:
        """Messages of the parts in the order of time."""
        reports = self._parts.reports.items()
        loose = frozenset(r.topic for part, r in reports if part == "trajectories")

        def note() -> None:
            for _, report in reports:
                if report.topic in self._parts.times:
                    report.notes.append("sorted by time: the file is not in its order")

        line = TimeLine(self._parts.times, self._parts.clocks)
        yield from line.messages(self._bag, self._config.align.reorder_s, loose, note)

    def _continue_plan(self, until: int | None) -> Iterator[Episode]:
        for stamp, values in self._command_plan.due(until):
            yield from self._aligner.push("command", stamp, values)

    def _drop(self, report: TopicReport, reason: str) -> None:
        """Count a message that cannot be used; many different reasons become one."""
        known = reason in report.dropped or len(report.dropped) < 5
        report.dropped[reason if known else "other reasons"] += 1

    def _sample(
        self, part: str, stamp: int, decoded: Any, message: DatedMessage
    ) -> Iterator[Episode]:
        value = decoded if part == "image" else self._parts.vectors[part](decoded)
        yield from self._aligner.push(part, stamp, value)

    def _proprio(
        self, part: str, stamp: int, decoded: Any, message: DatedMessage
    ) -> Iterator[Episode]:
        if self._parts.proprio is None:
            yield from self._sample(part, stamp, decoded, message)
            return
        role, values = self._parts.proprio(decoded)
        yield from self._aligner.push(role, stamp, values)

    def _commands(
        self, part: str, stamp: int, decoded: Any, message: DatedMessage
    ) -> Iterator[Episode]:
        """Commands; those with several points are in force one after the other."""
        if self._parts.command is None:
            yield from self._sample(part, stamp, decoded, message)
            return
        points = self._parts.command(decoded)
        if self._command_plan.take(stamp, points, self._config.align.period_s):
            self._aligner.buffers[part].forget_from(stamp)
        yield from self._aligner.push(part, stamp, points[0][1])

    def _goal(
        self, part: str, stamp: int, decoded: Any, message: DatedMessage
    ) -> Iterator[Episode]:
        """Another goal picture begins another episode; the same one again does not."""
        digest = hashlib.sha256(bytes(decoded.data)).digest()
        if digest != self._goal_digest:
            self._goal_digest = digest
            self._aligner.boundary(stamp, "another goal")
        yield from ()

    def _marker(
        self, part: str, stamp: int, decoded: Any, message: DatedMessage
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
            meta = described(decoded.data)
        self._aligner.boundary(stamp, "marker", meta)
        yield from ()

    def _trajectory(
        self, part: str, stamp: int, decoded: Any, message: DatedMessage
    ) -> Iterator[Trajectory]:
        yield message_to_trajectory(decoded)

    def _picture(self, message: Any) -> np.ndarray | None:
        """Decode and scale a chosen frame; None when it does not decode."""
        if f"e{self._episodes}" in self._known:
            return np.zeros((0, 0, 3), np.uint8)
        report = self._report.topics["image"]
        try:
            picture = read_image(message, report.msgtype, self._config.depth_range)
        except MessageError as error:
            self._drop(report, str(error))
            return None
        self._cameras[message.header.frame_id] += 1
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
        for name, values in (("actions", trajectory.actions), ("proprio", trajectory.proprio)):
            self._seen[name].add(values)
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
        if self._spec is None or not self._out.exists():
            return
        store = Store.open(self._out, skip_bad=True)
        others = {"actions": RunningStatistics(), "proprio": RunningStatistics()}
        for trajectory in store:
            if trajectory.meta.get("bag_id") != self._id:
                others["actions"].add(trajectory.actions)
                others["proprio"].add(trajectory.proprio)
        for name, other in others.items():
            yield from unit_doubts(name, self._seen[name], other)

    def _as_trajectory(self, episode: Episode) -> Trajectory:
        meta = dict(episode.meta)
        offset = float(meta.pop("stamp_offset", 0.0))
        images = episode.images
        states = self._parts.proprio
        if states is not None and episode.proprio:
            episode.proprio = [values[states.order] for values in episode.proprio]
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
        for role, buffer in self._aligner.buffers.items():
            report.topics[role.split()[0]].dropped.update(buffer.dropped)
        report.counts.update(self._aligner.counts)
        report.problems.extend(self._against_store())
        report.gaps = [{"at_s": at / 1e9, "reason": why} for at, why in self._aligner.gaps]
        if len(self._sizes) > 1:
            seen = ", ".join(f"{w}x{h} ({n})" for (h, w), n in self._sizes.items())
            height, width = self._size or (0, 0)
            report.problems.append(
                f"image: mixed sizes: {seen} frames; all were fitted to {width}x{height}"
            )
        if len(self._cameras) > 1:
            seen = ", ".join(f"{name or '(none)'} ({n})" for name, n in self._cameras.items())
            report.problems.append(
                f"image: frame_id changes: {seen} frames; several cameras on one topic?"
            )
        report.judge()


def _show(bar: tqdm, position: int) -> None:
    """Move a bar on, now and then."""
    done = min(position, bar.total)
    if done - bar.n > 1 << 20:
        bar.update(done - bar.n)
