"""What an import used, what it dropped, and why: for the terminal, for JSON, for the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm_mpc.data.bags.clocks import Clock

COMPLETE, FAILED, PARTIAL = 0, 1, 3
"""Exit codes: all was sound; nothing was usable; the sound part was imported, the rest is told."""


LOST = (
    "frames without proprio", "frames without command", "frames without state",
    "steps in episodes too short",
)  # fmt: skip
"""Counts of what nobody asked to lose."""


@dataclass
class TopicReport:
    """One topic's part in an import.

    Attributes:
        topic, msgtype: as in the bag.
        messages: how many there were.
        dropped: reason -> how many of them were not used.
        clock: where stamps came from: ``header`` or ``recorder``.
        rate_hz: [Hz] by that clock, median; None: too few messages.
        offset_s: [s] median of header less reception; None: no header.
        notes: what else was found or done, one line each.
    """

    topic: str
    msgtype: str
    messages: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    clock: str = ""
    rate_hz: float | None = None
    offset_s: float | None = None
    notes: list[str] = field(default_factory=list)

    def take_clock(self, clock: Clock) -> None:
        """Note how the topic is dated."""
        self.clock, self.offset_s = clock.source, clock.offset_s
        self.rate_hz = 1 / clock.period_s if clock.period_s else None
        if clock.why:
            self.notes.append(clock.why)
        for at, seconds in clock.jumps:
            self.notes.append(
                f"its header and the recorder's clock part by {seconds:+.3f} s at {at / 1e9:.3f} s"
            )

    def drop(self, reason: str) -> None:
        """Count a message that cannot be used; many different reasons become one."""
        known = reason in self.dropped or len(self.dropped) < 5
        self.dropped[reason if known else "other reasons"] += 1

    def line(self, part: str) -> str:
        """The topic in one line for people."""
        words = [f"{self.messages} messages", f"{self.clock or 'no'} stamps"]
        if self.rate_hz:
            words.append(f"{self.rate_hz:.2f} Hz")
        if self.offset_s is not None and abs(self.offset_s) >= 0.05:
            words.append(f"header {self.offset_s:+.3f} s from reception")
        lost = sum(self.dropped.values())
        words.append(f"{lost} dropped" if lost else "none dropped")
        return f"  {part:<12} {self.topic} [{self.msgtype}] {', '.join(words + self.notes)}"


@dataclass
class BagReport:
    """What became of one bag.

    Attributes:
        bag: its path.
        topics: part -> report.
        counts: steps, frames and episodes, by what became of them.
        problems: one line each; empty when all was sound.
        gaps: up to 50 of ``{"at_s", "reason"}``.
        bytes_read: size of its files.
        data_seconds: recorded time that went into the store [s].
        seconds: wall time of the import [s].
        already: episodes that an earlier run had imported.
        trajectories: ready-made trajectories taken over.
        borders: ``(stamp [ns], reason)`` where a clock was set and an episode had to end.
        refused: the import is strict and found problems: nothing is in the store.
    """

    bag: str
    topics: dict[str, TopicReport] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    bytes_read: int = 0
    data_seconds: float = 0.0
    seconds: float = 0.0
    already: int = 0
    trajectories: int = 0
    borders: list[tuple[int, str]] = field(default_factory=list)
    refused: bool = False

    @property
    def usable(self) -> int:
        """Episodes and trajectories that are in the store."""
        return self.counts["episodes"] + self.trajectories

    @property
    def exit_code(self) -> int:
        """One of COMPLETE, FAILED, PARTIAL."""
        if self.refused or not self.usable:
            return FAILED
        return PARTIAL if self.problems else COMPLETE

    def judge(self) -> None:
        """Turn counts that mean lost data into problems. Called once, at the end of the bag."""
        for part, topic in self.topics.items():
            if not topic.messages and not part.startswith("marker"):
                self.problems.append(f"{part} {topic.topic}: no messages")
            for reason, count in topic.dropped.items():
                share = count / max(1, topic.messages)
                self.problems.append(
                    f"{part} {topic.topic}: {count} of {topic.messages} messages ({share:.1%}) "
                    f"not used: {reason}"
                )
        if lost := sum(self.counts[name] for name in LOST):
            why = ", ".join(f"{self.counts[n]} {n}" for n in LOST if self.counts[n])
            total = self.topics["image"].messages if "image" in self.topics else lost
            self.problems.append(
                f"image: {lost} of {total} frames inside the time that all topics cover are not "
                f"in an episode: {why}"
            )
        if gaps := self.counts["ended: image gap"]:
            self.problems.append(
                f"image: no frames {gaps} times for longer than the episodes go without, while "
                "the rest was recorded"
            )
        frames, missing = self.counts["frames"], self.counts["missing frames"]
        if missing:
            self.problems.append(
                f"image: {missing} of {frames + missing} frames "
                f"({missing / (frames + missing):.1%}) "
                "are missing: dropped while recording"
            )
        if not self.usable:
            why = "; ".join(f"{n} {what}" for what, n in sorted(self.counts.items()) if n)
            if (
                self.counts["steps after the last frame"]
                > self.counts["steps in episodes too short"]
            ):
                why += "; if frames are rarer than steps, say how much by --frame-stride"
            self.problems.append(f"no episode could be made ({why or 'no messages'})")

    def lines(self) -> Iterator[str]:
        """The report for people."""
        verdict = {COMPLETE: "complete", FAILED: "nothing usable", PARTIAL: "partly usable"}
        yield f"{self.bag}: {verdict[self.exit_code]}"
        for part, topic in self.topics.items():
            yield topic.line(part)
        yield (
            f"  {self.counts['episodes']} episodes, {self.counts['steps']} steps, "
            f"{self.counts['frames']} frames, {self.trajectories} ready-made trajectories, "
            f"{self.data_seconds:.1f} s of data in {self.seconds:.1f} s"
        )
        if self.already:
            yield f"  {self.already} of these were in the store from an earlier run"
        shown = ("episodes", "steps", "frames", "missing frames")
        for what, count in sorted(self.counts.items()):
            if count and what not in shown:
                yield f"  {count} {what}"
        for at, reason in self.borders:
            yield f"  at {at / 1e9:.3f} s: {reason}; an episode ends there"
        for problem in self.problems:
            yield f"  ! {problem}"
        if self.refused:
            yield "  nothing of it is stored: --strict"

    def row(self) -> dict[str, Any]:
        """The report as a row of a JSON report."""
        return {
            "bag": self.bag,
            "exit_code": self.exit_code,
            "topics": {part: vars(topic) for part, topic in self.topics.items()},
            "counts": dict(self.counts),
            "problems": self.problems,
            "gaps": self.gaps,
            "borders": [{"at_s": at / 1e9, "reason": why} for at, why in self.borders],
            "refused": self.refused,
            "bytes_read": self.bytes_read,
            "data_seconds": self.data_seconds,
            "seconds": self.seconds,
            "already": self.already,
            "trajectories": self.trajectories,
            "realtime_factor": self.data_seconds / self.seconds if self.seconds else None,
        }


class RunningStatistics:
    """Mean, deviation, range of vectors that come batch by batch (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._squares = np.zeros(0)
        self._low = self._high = np.zeros(0)

    def add(self, rows: np.ndarray) -> None:
        """Take in a batch ``(n, dim)``."""
        rows = np.asarray(rows, np.float64)
        if not len(rows):
            return
        mean, squares = rows.mean(0), ((rows - rows.mean(0)) ** 2).sum(0)
        if not self.count:
            self._mean, self._squares = mean, squares
            self._low, self._high = rows.min(0), rows.max(0)
        else:
            total = self.count + len(rows)
            delta = mean - self._mean
            self._squares = self._squares + squares + delta**2 * self.count * len(rows) / total
            self._mean = self._mean + delta * len(rows) / total
            self._low = np.minimum(self._low, rows.min(0))
            self._high = np.maximum(self._high, rows.max(0))
        self.count += len(rows)

    def row(self) -> dict[str, Any]:
        """``n``, ``mean``, ``std`` (population), ``min``, ``max``: lists, one entry each."""
        return {
            "n": self.count,
            "mean": self._mean.tolist(),
            "std": np.sqrt(self._squares / max(1, self.count)).tolist(),
            "min": self._low.tolist(),
            "max": self._high.tolist(),
        }
