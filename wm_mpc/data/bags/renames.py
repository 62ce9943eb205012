"""Topics that go on under another name in the middle of a recording."""

from __future__ import annotations

from collections.abc import Iterator

from wm_mpc.data.bags.survey import Span, TopicTimes

_EARLY_NS = 10**9
"""A topic that ends this long before the others, or begins so long after them, lacks a part."""
_HANDOVER_NS = 10 * 10**9
_LEAST = 3


def renamed(
    part: str, topic: str, times: dict[str, TopicTimes], others: dict[str, Span]
) -> Iterator[str]:
    """Topics of the same type that begin where ``topic`` ends, or end where it begins.

    Args:
        part: that the topic plays, for messages.
        topic: that is read.
        times: topic -> what was surveyed, the recorder's clock among it.
        others: topics that are not read.
    """
    mine = times.get(topic)
    if mine is None or not len(mine):
        return
    first, last = int(mine.log_ns.min()), int(mine.log_ns.max())
    filled = [found.log_ns for found in times.values() if len(found)]
    begins_late = first - min(int(log.min()) for log in filled) > _EARLY_NS
    ends_early = max(int(log.max()) for log in filled) - last > _EARLY_NS
    for name, other in others.items():
        if other.msgtype != mine.msgtype or other.messages < _LEAST:
            continue
        if ends_early and -_EARLY_NS < other.first_ns - last < _HANDOVER_NS:
            yield (
                f"{part} {topic}: ends at {last / 1e9:.3f} s, where {name} of the same type "
                "begins; renamed while recording? only the former is read"
            )
        if begins_late and -_EARLY_NS < first - other.last_ns < _HANDOVER_NS:
            yield (
                f"{part} {topic}: begins at {first / 1e9:.3f} s, where {name} of the same type "
                "ends; renamed while recording? only the former is read"
            )
