"""The first look at a bag: when every message of the wanted topics was made, and where it lies.

Order in a file is not time, headers are not always stamps, and rates are what they are. All of it
is measured on the whole bag before anything is imported. Some forty bytes are kept per message.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm_mpc.core.errors import DataError
from wm_mpc.data.bags.mcap_scan import RawMessage
from wm_mpc.data.bags.source import Bag
from wm_mpc.data.bags.typelib import Decoder

SAMPLES = 300
"""Messages of a topic that are decoded for their names."""
_HEADER = "std_msgs/msg/Header"


@dataclass
class TopicTimes:
    """Messages of one topic in file order; arrays of one length.

    Attributes:
        header_ns: header stamps, 0 where nobody filled one in; None: the type has no header.
        log_ns: the recorder's clock.
        ordinal: place among all messages of the bag that were looked at.
        where: ``(n, 3)`` file, and the two numbers by which its reader finds the message again.
        samples: the first messages, decoded, where they were asked for.
    """

    msgtype: str
    header_ns: np.ndarray | None
    log_ns: np.ndarray
    ordinal: np.ndarray
    where: np.ndarray
    samples: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.log_ns)


@dataclass
class Span:
    """What is known of a topic that nobody asked for: recorder's clock [ns], messages."""

    msgtype: str
    first_ns: int
    last_ns: int
    messages: int = 0


class _Column:
    """One topic while it is read."""

    def __init__(self, msgtype: str, has_header: bool) -> None:
        self.msgtype = msgtype
        self.has_header = has_header
        self.header, self.log, self.ordinal, self.where = (array("q") for _ in range(4))
        self.samples: list[Any] = []

    def done(self) -> TopicTimes:
        """As numpy arrays."""
        log, ordinal, where = (
            np.frombuffer(column, np.int64) if len(column) else np.zeros(0, np.int64)
            for column in (self.log, self.ordinal, self.where)
        )
        header = None
        if self.has_header:
            header = np.frombuffer(self.header, np.int64) if len(log) else log
        return TopicTimes(
            self.msgtype, header, log, ordinal, where.reshape(-1, 3), self.samples
        )


def survey(
    bag: Bag,
    topics: Iterable[str],
    decoder: Decoder,
    decoded: Iterable[str] = (),
    progress: Callable[[int], None] = lambda position: None,
    others: dict[str, Span] | None = None,
    seen: Mapping[str, Callable[[Any], None]] | None = None,
) -> dict[str, TopicTimes]:
    """Read stamps and places of every message of ``topics``.

    Args:
        bag: read once, front to back.
        topics: which.
        decoder: of the bag.
        decoded: topics whose first messages are decoded and kept as samples.
        progress: told the position in the bag now and then.
        others: filled with the topics that are not among ``topics``.
        seen: topic -> what is shown every message of it, decoded.
    """
    wanted, sampled, seen = set(topics), set(decoded), seen or {}
    others = {} if others is None else others
    columns: dict[str, _Column] = {}
    for ordinal, message in enumerate(bag.messages()):
        if message.topic not in wanted:
            _extend(others, message)
            continue
        column = columns.get(message.topic)
        if column is None:
            has_header = begins_with_header(decoder, message.msgtype)
            column = columns[message.topic] = _Column(message.msgtype, has_header)
        column.log.append(_int64(message.log_ns))
        column.ordinal.append(ordinal)
        column.where.extend((bag.file_index, *message.where))
        if column.has_header:
            column.header.append(peek_stamp(message.data))
        sample = message.topic in sampled and len(column.samples) < SAMPLES
        if sample or message.topic in seen:
            try:
                value = decoder.decode(message.msgtype, message.data)
            except DataError:
                continue
            if sample:
                column.samples.append(value)
            if message.topic in seen:
                seen[message.topic](value)
        if not ordinal % 1024:
            progress(bag.position)
    return {topic: column.done() for topic, column in columns.items()}


def _extend(others: dict[str, Span], message: RawMessage) -> None:
    stamp = _int64(message.log_ns)
    span = others.get(message.topic)
    if span is None:
        span = others[message.topic] = Span(message.msgtype, stamp, stamp)
    span.first_ns, span.last_ns = min(span.first_ns, stamp), max(span.last_ns, stamp)
    span.messages += 1


def begins_with_header(decoder: Decoder, msgtype: str) -> bool:
    """Whether a type's first field is a std_msgs/Header; False where the type is not known."""
    try:
        _, fields = decoder.types(msgtype).fielddefs[msgtype]
    except (DataError, KeyError):
        return False
    if not fields:
        return False
    kind, name = fields[0][1]
    return kind.name == "NAME" and name == _HEADER


def peek_stamp(data: bytes | memoryview) -> int:
    """Header stamp [ns] of the CDR bytes of a message that begins with one; 0: none."""
    if len(data) < 12:
        return 0
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return seconds * 10**9 + nanoseconds


def _int64(value: int) -> int:
    """A damaged file holds any number: those beyond 63 bits become the largest."""
    return max(-(2**63), min(value, 2**63 - 1))
