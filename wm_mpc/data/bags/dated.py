"""The messages of a bag with the stamps that count, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from wm_mpc.data.bags.parts import BagParts, merge_order
from wm_mpc.data.bags.source import Bag


class DatedMessage(NamedTuple):
    """One message that an import uses.

    Attributes:
        topic: name.
        msgtype: its type.
        data: CDR bytes.
        stamp: [ns] by the clock chosen for the topic.
        segment: number of times the clock had been set back before it.
        stray: why its stamp is not to be used; empty: it is.
        position: bytes of the bag read so far, for progress.
    """

    topic: str
    msgtype: str
    data: bytes | memoryview
    stamp: int
    segment: int
    stray: str
    position: int


def dated_messages(bag: Bag, parts: BagParts, reorder_s: float) -> Iterator[DatedMessage]:
    """Yield the messages of the topics that ``parts`` looked at.

    Files in the order of time, but for what the alignment sorts by itself, are read front to
    back. Others are read by place, in the order of time; what is unpacked for it is bounded.
    """
    loose = {r.topic for p, r in parts.reports.items() if p == "trajectories"}
    ordered = merge_order(parts.times, parts.clocks, round(reorder_s * 1e9), loose)
    if ordered is None:
        yield from _as_they_lie(bag, parts)
        return
    topics, rows = ordered
    for topic in topics:
        for report in parts.reports.values():
            if report.topic == topic:
                report.notes.append("sorted by time: the file is not in its order")
    position = done = 0
    with bag.reader() as read:
        for topic in topics:
            clock = parts.clocks[topic]
            for index in clock.dropped.nonzero()[0]:
                yield _message(parts, topic, int(index), b"", "stamp goes backward", 0)
        for number, index, _ in rows:
            topic = topics[number]
            data = read(parts.times[topic].where[index])
            done += 1
            position = bag.size * done // len(rows)
            yield _message(parts, topic, int(index), data, "", position)


def _as_they_lie(bag: Bag, parts: BagParts) -> Iterator[DatedMessage]:
    count = dict.fromkeys(parts.times, 0)
    for message in bag.messages():
        index = count.get(message.topic)
        if index is None or index >= len(parts.times[message.topic]):
            continue
        count[message.topic] = index + 1
        stray = "stamp goes backward" if parts.clocks[message.topic].dropped[index] else ""
        yield _message(parts, message.topic, index, message.data, stray, bag.position)


def _message(
    parts: BagParts, topic: str, index: int, data: bytes | memoryview, stray: str, position: int
) -> DatedMessage:
    clock = parts.clocks[topic]
    return DatedMessage(
        topic,
        parts.times[topic].msgtype,
        data,
        int(clock.stamps[index]),
        0 if stray else int(clock.segment[index]),
        stray,
        position,
    )
