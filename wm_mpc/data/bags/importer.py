"""Bags into a training store: streaming, in bounded memory, resumable."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from wm_mpc.core.errors import DataError, MessageError
from wm_mpc.data.bags.align import Aligner, Episode
from wm_mpc.data.bags.checks import camera_ends_early, find_borders, rate_misfit
from wm_mpc.data.bags.command_plan import CommandPlan
from wm_mpc.data.bags.config import ImportConfig
from wm_mpc.data.bags.dated import DatedMessage, TimeLine
from wm_mpc.data.bags.import_report import BagReport, RunningStatistics
from wm_mpc.data.bags.into_store import BagEpisodes
from wm_mpc.data.bags.parts import BagParts, described
from wm_mpc.data.bags.source import Bag, UnusableBagError
from wm_mpc.data.bags.topics import read_field
from wm_mpc.data.bags.typelib import Decoder
from wm_mpc.data.bags.wraps import Wraps
from wm_mpc.data.decoding import message_to_trajectory
from wm_mpc.data.trajectory import Trajectory


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
        self._report = BagReport(bag=str(bag.path), bytes_read=bag.size)
        self._decoder = Decoder(bag.definitions, config.types)
        self._parts = BagParts(config.topics, bag, self._decoder)
        self._report.topics = self._parts.reports
        self._episodes = BagEpisodes(config, bag, out, statistics, self._report, self._parts)
        self._command_plan = CommandPlan()
        self._wraps = Wraps()
        self._goal_digest = b""
        self._marker_values: dict[str, Any] = {}

    def run(self, progress: bool) -> BagReport:
        """Import and report."""
        started = time.perf_counter()
        config, episodes = self._config, self._episodes
        self._look(progress)
        self._check_rate()
        self._report.borders = find_borders(self._parts)
        self._aligner = Aligner(config.align, self._roles(), keep_image=episodes.picture)
        try:
            with self._bar(progress, self._bag.name) as bar:
                for item in self._items(bar):
                    episodes.add(item)
        finally:
            episodes.close()
        self._finish_report()
        if config.strict and self._report.problems:
            episodes.take_back()
        self._report.seconds = time.perf_counter() - started
        return self._report

    def _look(self, progress: bool) -> None:
        """Read the clocks, against what the store holds."""
        spec = self._episodes.spec
        known = (spec.proprio_channels, spec.action_channels) if spec else ((), ())
        reorder_ns = round(self._config.align.reorder_s * 1e9)
        with self._bar(progress, "reading clocks") as bar:
            self._parts.look(
                self._config.stamps, reorder_ns, known, spec.proprio_dim if spec else None,
                partial(_show, bar),
            )  # fmt: skip

    def _roles(self) -> tuple[str, ...]:
        """What is aligned; several publishers of joint states are a role each."""
        states, topics = self._parts.proprio, self._report.topics
        proprio = states.roles if states else ("proprio",)
        roles = ("image", *(proprio if "proprio" in topics else ()), "command")
        return (*roles, "state") if "state" in topics else roles

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
                    report.drop(message.stray)
                    continue
                handler = self._marker if part.startswith("marker") else handlers.get(part)
                try:
                    decoded = self._decoder.decode(message.msgtype, message.data)
                    yield from (handler or self._sample)(part, message.stamp, decoded, message)
                except (DataError, MessageError) as error:
                    report.drop(str(error))
            _show(bar, message.position)
            bar.set_postfix_str(f"{self._episodes.count} episodes", refresh=False)
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
        states = self._parts.proprio
        role, values = states(decoded)
        if states.parts[0] == "position" and self._config.align.proprio_method == "linear":
            self._wraps.see(role, values[: len(values) // len(states.parts)])
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

    def _finish_report(self) -> None:
        report = self._report
        report.problems.extend(self._bag.problems + self._parts.problems)
        for role, buffer in self._aligner.buffers.items():
            report.topics[role.split()[0]].dropped.update(buffer.dropped)
        report.counts.update(self._aligner.counts)
        report.problems.extend(self._episodes.doubts())
        early = camera_ends_early(self._parts, self._config.align)
        report.problems.extend(words for words in (early, self._wraps.words()) if words)
        report.gaps = [{"at_s": at / 1e9, "reason": why} for at, why in self._aligner.gaps]
        report.judge()


def _show(bar: tqdm, position: int) -> None:
    """Move a bar on, now and then."""
    done = min(position, bar.total)
    if done - bar.n > 1 << 20:
        bar.update(done - bar.n)
