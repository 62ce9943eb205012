"""Which clock dates a topic, and what that clock did: offsets, jumps, disorder, rate.

All of it is decided on the stamps of the whole bag, see ``survey``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wm_mpc.core.errors import DataError, UserError
from wm_mpc.data.bags.survey import TopicTimes

WAYS = ("auto", "header", "receive")
SAME_CLOCK_NS = 10**9
"""Headers further than this from the time of reception are of another clock."""
_JUMP_NS = 250_000_000
_EPOCH_NS = 10**18
"""Stamps after 2001 are of a real clock."""
_SHUFFLED = 3
"""More set-backs than this are pieces out of order and no clock."""


@dataclass
class Clock:
    """How one topic is dated.

    Attributes:
        source: ``header`` or ``recorder``.
        why: why not the header, one line; empty: nothing was wrong with it, or there is none.
        offset_s: [s] median of header less reception; None: no header.
        spread_s: [s] of that difference, from the 5th to the 95th percentile.
        period_s: [s] median time from one message to the next, by the chosen clock; None: fewer
            than three messages.
        stamps: ``(n,)`` [ns] in file order.
        dropped: ``(n,)`` bool, single stamps that go astray.
        segment: ``(n,)`` number of set-backs of the clock before the message.
        jumps: ``[(stamp [ns], seconds)]`` where header and recorder parted by that much.
    """

    source: str
    why: str = ""
    offset_s: float | None = None
    spread_s: float = 0.0
    period_s: float | None = None
    stamps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    dropped: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    segment: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    jumps: list[tuple[int, float]] = field(default_factory=list)

    def summary(self) -> str:
        """Clock, offset and rate for people."""
        words = [f"{self.source} stamps"]
        if self.offset_s is not None and abs(self.offset_s) >= 0.05:
            words.append(f"header {self.offset_s:+.3f} s from reception")
        if self.period_s:
            words.append(f"{1 / self.period_s:.2f} Hz")
        if self.why:
            words.append(self.why)
        return ", ".join(words)


def read_ways(text: str) -> tuple[str, dict[str, str]]:
    """Read ``--stamps``: one word for all, or ``TOPIC=WORD`` entries beside it, by commas.

    Returns:
        The word for all topics, and the words of single topics.

    Raises:
        UserError: another word.
    """
    general, single = "auto", {}
    for entry in filter(None, (word.strip() for word in text.split(","))):
        topic, sign, word = entry.rpartition("=")
        word = "receive" if word == "recorder" else word
        if word not in WAYS or (sign and not topic):
            raise UserError(
                f"stamps: {entry!r}; auto, header or recorder (receive) expected, or TOPIC=one"
            )
        if topic:
            single[topic] = word
        else:
            general = word
    return general, single


def choose_clocks(
    times: dict[str, TopicTimes], needed: set[str], stamps: str, reorder_ns: int
) -> dict[str, Clock]:
    """Decide per topic.

    Args:
        times: topic -> what was surveyed.
        needed: topics that are aligned with each other.
        stamps: see ``read_ways``.
        reorder_ns: disorder up to this is no jump.

    Raises:
        DataError: a topic is asked for by header and has none, or none of its clocks is usable.
    """
    general, single = read_ways(stamps)
    clocks = {topic: _look(topic, found) for topic, found in times.items()}
    asked = {
        topic: next((w for t, w in single.items() if topic == t or topic.endswith(f"/{t}")),
                    general)
        for topic in times
    }  # fmt: skip
    headers = {t for t, clock in clocks.items() if clock.source == "header"}
    common = _header_clock(clocks, needed & set(times), headers)
    for topic, clock in clocks.items():
        found, way = times[topic], asked[topic]
        if way == "header" and found.header_ns is None and topic in single:
            raise DataError(f"stamps: {topic} has no header; receive expected")
        if way == "receive" and found.header_ns is not None:
            clock.source, clock.why = "recorder", "as asked"
        elif way == "header" and found.header_ns is not None:
            clock.source, clock.why = "header", ""
        elif way == "auto" and clock.source == "header" and topic not in common:
            clock.source = "recorder"
            clock.why = clock.why or (
                f"its header is {_apart(clock.offset_s)} from reception and from other topics"
            )
        clock.stamps = found.log_ns if clock.source == "recorder" else found.header_ns
        if clock.source == "recorder" and topic in needed and _flat(found.log_ns):
            raise DataError(
                f"{topic}: the recorder's stamps are all equal and "
                f"{'its header is not usable' if clock.why else 'it has no header'}"
            )
        _examine(clock, found, reorder_ns)
    _agree_on_segments(clocks, times)
    return clocks


def _look(topic: str, times: TopicTimes) -> Clock:
    """Judge a topic's headers by themselves."""
    header, log = times.header_ns, times.log_ns
    if header is None or not len(header):
        return Clock("recorder")
    empty = np.count_nonzero(header == 0)
    if empty > len(header) / 2:
        return Clock("recorder", f"{empty} of {len(header)} headers are zero")
    offsets = (header - log)[header != 0] / 1e9
    low, middle, high = np.percentile(offsets, (5, 50, 95))
    clock = Clock("header", "", float(middle), float(high - low))
    if len(header) >= 5 and not _flat(log):
        by_log = header[np.argsort(log, kind="stable")]
        steps = np.diff(by_log)
        if len(np.unique(header)) < len(header) / 2:
            clock.source, clock.why = "recorder", "its header stands still"
        elif np.count_nonzero(steps < -SAME_CLOCK_NS) > len(steps) / 5:
            clock.source, clock.why = "recorder", "its header goes back and forth"
    if not _flat(log):
        clock.jumps = _offset_jumps(header, log)
    return clock


def _header_clock(clocks: dict[str, Clock], needed: set[str], headers: set[str]) -> set[str]:
    """Topics whose headers may be used together with what the others are dated by."""
    offsets = {t: clocks[t].offset_s for t in headers if clocks[t].offset_s is not None}
    inside = [offsets[t] for t in needed & set(offsets)]
    together = bool(inside) and max(inside) - min(inside) <= SAME_CLOCK_NS / 1e9
    if together and needed <= headers:
        middle = float(np.median(inside))
        return {t for t in offsets if abs(offsets[t] - middle) <= 1.0 or t not in needed}
    near = {t for t in offsets if abs(offsets[t]) <= SAME_CLOCK_NS / 1e9}
    # beside topics without a header, one that parts from the recorder's clock is of no use
    return {t for t in near if not clocks[t].jumps or t not in needed}


def _apart(seconds: float | None) -> str:
    seconds = seconds or 0.0
    return f"{seconds:+.3f} s" if abs(seconds) < 1e5 else "years"


def _flat(stamps: np.ndarray) -> bool:
    return len(stamps) > 2 and stamps.min() == stamps.max()


def _offset_jumps(header: np.ndarray, log: np.ndarray) -> list[tuple[int, float]]:
    """Where header and recorder part for good: one of the two clocks was set."""
    width = 5
    offsets = (header - log) / 1e9
    if len(offsets) < 4 * width:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(offsets, width)
    medians = np.median(windows, axis=1)
    change = medians[width:] - medians[:-width]
    limit = max(_JUMP_NS / 1e9, 10 * float(np.median(np.abs(np.diff(offsets)))))
    found, at = [], 0
    while at < len(change):
        if abs(change[at]) <= limit:
            at += 1
            continue
        end = at
        while end < len(change) and abs(change[end]) > limit:
            end += 1
        peak = at + int(np.argmax(np.abs(change[at:end])))
        # the step itself lies where single differences are largest
        around = slice(max(0, peak), min(len(offsets) - 1, peak + 2 * width))
        step = around.start + int(np.argmax(np.abs(np.diff(offsets)[around])))
        before, after = offsets[max(0, step - 24) : step + 1], offsets[step + 1 : step + 26]
        # a clock that was set stays set; a late delivery is made up for
        gap = max(np.min(after) - np.max(before), np.min(before) - np.max(after))
        if len(after) >= 2 * width and gap > limit / 2:
            found.append((step + 1, float(np.median(after) - np.median(before))))
        at = end + width
    return found[:20]


def _examine(clock: Clock, times: TopicTimes, reorder_ns: int) -> None:
    """Stray stamps, set-backs and rate of the chosen stamps."""
    stamps = clock.stamps
    clock.dropped = np.zeros(len(stamps), bool)
    if clock.source == "header":
        # zero is a time where clocks begin there, and nothing filled in elsewhere
        apart = np.abs(stamps - times.log_ns - (clock.offset_s or 0.0) * 1e9)
        clock.dropped |= (stamps == 0) & (apart > SAME_CLOCK_NS)
    clock.segment = np.zeros(len(stamps), np.int64)
    breaks = _set_backs(stamps, clock.dropped, reorder_ns)
    files = times.where[:, 0]
    # two files that were received at the same time of day were recorded beside each other
    breaks = [b for b in breaks if files[b] == files[b - 1] or not _at_once(times.log_ns, b)]
    if len(breaks) > _SHUFFLED:
        breaks = []
    elif breaks and _disjoint(stamps, clock.dropped, breaks):
        # at the border of two files the order of reading is wrong, not the clock
        breaks = [b for b in breaks if files[b] == files[b - 1]]
    for at in breaks:
        clock.segment[at:] += 1
    clock.jumps = [(int(stamps[i]), s) for i, s in clock.jumps if i < len(stamps)]
    kept = stamps[~clock.dropped]
    if len(kept) > 2:
        steps = np.diff(np.sort(kept))
        steps = steps[steps > 0]
        clock.period_s = float(np.median(steps)) / 1e9 if len(steps) else None


def _at_once(log_ns: np.ndarray, at: int) -> bool:
    """Whether the message at a file's begin was received, by a real clock, before another's end.

    In simulated time two runs begin at the same stamps, and must not be mixed.
    """
    return bool(_EPOCH_NS < log_ns[at] < log_ns[at - 1])


def _set_backs(stamps: np.ndarray, dropped: np.ndarray, reorder_ns: int) -> list[int]:
    """Places at which a clock was set back; single stray stamps are marked ``dropped`` instead."""
    breaks = []
    places = np.flatnonzero(~dropped)
    values = stamps[places]
    for k in np.flatnonzero(np.diff(values) < -reorder_ns):
        before = values[k - 1] if k else values[k]
        if k and values[k + 1] >= before - reorder_ns and values[k] > values[k + 1]:
            dropped[places[k]] = True  # one stamp far ahead
        elif k + 2 < len(values) and values[k + 2] >= values[k] - reorder_ns:
            dropped[places[k + 1]] = True  # one stamp far behind
        elif k + 2 == len(values):
            dropped[places[k + 1]] = True
        else:
            breaks.append(int(places[k + 1]))
    return breaks


def _disjoint(stamps: np.ndarray, dropped: np.ndarray, breaks: list[int]) -> bool:
    """Whether the pieces between set-backs cover different times."""
    edges = [0, *breaks, len(stamps)]
    spans = []
    for begin, end in zip(edges, edges[1:], strict=False):
        piece = stamps[begin:end][~dropped[begin:end]]
        if len(piece):
            spans.append((piece.min(), piece.max()))
    spans.sort()
    return all(a[1] < b[0] for a, b in zip(spans, spans[1:], strict=False))


def _agree_on_segments(clocks: dict[str, Clock], times: dict[str, TopicTimes]) -> None:
    """A topic that shows fewer set-backs than another takes that one's, by place in the file."""
    most = max(clocks, key=lambda t: clocks[t].segment.max(initial=0), default=None)
    if most is None or not clocks[most].segment.max(initial=0):
        return
    leader = clocks[most]
    at = np.flatnonzero(np.diff(leader.segment)) + 1
    ordinals = times[most].ordinal[at]
    for topic, clock in clocks.items():
        if clock.segment.max(initial=0) < leader.segment.max():
            clock.segment = np.searchsorted(ordinals, times[topic].ordinal, side="right")
