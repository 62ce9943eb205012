"""The messages of a bag with the stamps that count, in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from wm_mpc.data.bags.clocks import Clock
from wm_mpc.data.bags.parts import merge_order
from wm_mpc.data.bags.source import Bag
from wm_mpc.data.bags.survey import TopicTimes


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


@dataclass(frozen=True)
class TimeLine:
    """When every message of some topics was made, and where it lies.

    Attributes:
        times: topic -> what was surveyed.
        clocks: topic -> how it is dated.
    """

    times: dict[str, TopicTimes]
    clocks: dict[str, Clock]

    def messages(
        self,
        bag: Bag,
        reorder_s: float,
        loose: frozenset[str] = frozenset(),
        on_sorted: Callable[[], None] = lambda: None,
    ) -> Iterator[DatedMessage]:
        """Yield the messages of a bag's topics in the order of time.

        Files that are in that order are read front to back. Others are read by place; what is
        unpacked for it is bounded.

        Args:
            bag: that was surveyed.
            reorder_s: [s] disorder up to this is left as it is.
            loose: topics whose order among the others means nothing.
            on_sorted: called first where the files' order is not that of time.
        """
        ordered = merge_order(self.times, self.clocks, round(reorder_s * 1e9), loose)
        if ordered is None:
            yield from _as_they_lie(bag, self)
            return
        on_sorted()
        topics, rows = ordered
        with bag.reader() as read:
            for topic in topics:
                for index in self.clocks[topic].dropped.nonzero()[0]:
                    yield _message(self, topic, int(index), b"", "stamp goes backward", 0)
            for done, (number, index, _) in enumerate(rows, 1):
                topic = topics[number]
                data = read(self.times[topic].where[index])
                yield _message(self, topic, int(index), data, "", bag.size * done // len(rows))


def _as_they_lie(bag: Bag, line: TimeLine) -> Iterator[DatedMessage]:
    count = dict.fromkeys(line.times, 0)
    for message in bag.messages():
        index = count.get(message.topic)
        if index is None or index >= len(line.times[message.topic]):
            continue
        count[message.topic] = index + 1
        stray = "stamp goes backward" if line.clocks[message.topic].dropped[index] else ""
        yield _message(line, message.topic, index, message.data, stray, bag.position)


def _message(
    line: TimeLine, topic: str, index: int, data: bytes | memoryview, stray: str, position: int
) -> DatedMessage:
    clock = line.clocks[topic]
    return DatedMessage(
        topic,
        line.times[topic].msgtype,
        data,
        int(clock.stamps[index]),
        0 if stray else int(clock.segment[index]),
        stray,
        position,
    )
