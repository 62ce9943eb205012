"""What a bag holds, and a sound copy of a damaged one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from wm_mpc.core.errors import DataError
from wm_mpc.data.bags.source import Bag
from wm_mpc.data.bags.typelib import Decoder
from wm_mpc.data.bags.writer import BagWriter, WriterConfig


@dataclass
class TopicInfo:
    """One topic: type, number of messages, and where known its first and last stamp [ns]."""

    msgtype: str
    messages: int = 0
    first_ns: int | None = None
    last_ns: int | None = None

    def rate_hz(self) -> float | None:
        """Mean rate, or None where stamps are not known or all equal."""
        if self.first_ns is None or self.last_ns is None or self.last_ns == self.first_ns:
            return None
        return (self.messages - 1) / (self.last_ns - self.first_ns) * 1e9


@dataclass
class BagInfo:
    """A bag's content.

    Attributes:
        path, storage, files, size: where and what.
        topics: topic -> what is there.
        first_ns, last_ns: recorder's clock; None in an empty bag.
        counted: messages were read rather than looked up in the metadata.
        problems: damage, one line each.
    """

    path: Path
    storage: str
    files: list[str]
    size: int
    topics: dict[str, TopicInfo] = field(default_factory=dict)
    first_ns: int | None = None
    last_ns: int | None = None
    counted: bool = True
    problems: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The content for people."""
        yield f"{self.path}: {self.storage}, {len(self.files)} file(s), {self.size / 1e6:.1f} MB"
        if self.first_ns is not None and self.last_ns is not None:
            span = (self.last_ns - self.first_ns) / 1e9
            yield f"  {span:.2f} s from {self.first_ns / 1e9:.3f} to {self.last_ns / 1e9:.3f} s"
        width = max(map(len, self.topics), default=0)
        for name, topic in sorted(self.topics.items()):
            rate = topic.rate_hz()
            hertz = f", {rate:.1f} Hz" if rate else ""
            yield f"  {name:<{width}}  {topic.msgtype}  {topic.messages} messages{hertz}"
        for problem in self.problems:
            yield f"  ! {problem}"

    def row(self) -> dict:
        """The content as a row of a JSON report."""
        return {
            **vars(self),
            "topics": {k: {**vars(v), "rate_hz": v.rate_hz()} for k, v in self.topics.items()},
        }


def inspect_bag(path: Path, read_all: bool = False) -> BagInfo:
    """Describe a bag.

    Args:
        path: rosbag2 folder or storage file.
        read_all: read every message even where sound metadata tell the counts.

    Raises:
        DataError: there is nothing that could be a bag.
    """
    bag = Bag(path)
    storage = "/".join(sorted({file.storage for file in bag.files}))
    names = [file.path.name for file in bag.files]
    info = BagInfo(path=path, storage=storage, files=names, size=bag.size)
    if bag.metadata and not bag.problems and not read_all:
        _from_metadata(info, bag.metadata)
    else:
        for message in bag.messages():
            _count(info, message.topic, message.msgtype, message.log_ns)
        for name, msgtype in bag.topics.items():
            info.topics.setdefault(name, TopicInfo(msgtype))
    info.problems = bag.problems
    return info


def recover_bag(
    path: Path,
    out: Path,
    config: WriterConfig | None = None,
    on_loss: Callable[[str], None] = print,
) -> int:
    """Copy what is readable of a damaged bag into a sound one; the original stays as it is.

    Args:
        path: the damaged bag.
        out: folder to create.
        config: layout of the copy; default: the original's storage.
        on_loss: told once about every topic that cannot be copied.

    Returns:
        Number of messages copied.

    Raises:
        DataError: there is nothing that could be a bag, or not one message is readable.
        UserError: ``out`` exists.
    """
    bag = Bag(path)
    decoder = Decoder(bag.definitions)
    config = config or WriterConfig(storage=bag.files[0].storage, min_free_mb=0)
    count = 0
    messages = bag.messages()
    first = next(messages, None)
    if first is None:
        raise DataError(f"bag {path}: no readable message ({'; '.join(bag.problems) or 'empty'})")
    with BagWriter(out, config) as writer:
        left: set[str] = set()
        for message in chain([first], messages):
            topic, msgtype = message.topic, message.msgtype
            if topic in left:
                continue
            if topic not in writer.counts:
                try:
                    writer.add_topic(topic, msgtype, decoder.types(msgtype))
                except DataError as error:
                    left.add(topic)
                    on_loss(f"{topic}: left out: {error}")
                    continue
            writer.write(topic, message.log_ns, message.data)
            count += 1
    return count


def _from_metadata(info: BagInfo, metadata: dict) -> None:
    info.counted = False
    for entry in metadata["topics_with_message_count"]:
        topic = entry["topic_metadata"]
        info.topics[topic["name"]] = TopicInfo(topic["type"], entry["message_count"])
    if metadata["message_count"]:
        info.first_ns = metadata["starting_time"]["nanoseconds_since_epoch"]
        info.last_ns = info.first_ns + metadata["duration"]["nanoseconds"]


def _count(info: BagInfo, name: str, msgtype: str, stamp: int) -> None:
    topic = info.topics.setdefault(name, TopicInfo(msgtype))
    topic.messages += 1
    for item in (topic, info):
        item.first_ns = stamp if item.first_ns is None else min(item.first_ns, stamp)
        item.last_ns = stamp if item.last_ns is None else max(item.last_ns, stamp)
