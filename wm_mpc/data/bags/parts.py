"""The topics of one bag that an import uses: which, of what type, dated by which clock."""

from __future__ import annotations

from typing import Any

from wm_mpc.core.errors import DataError
from wm_mpc.data.bags.import_report import TopicReport
from wm_mpc.data.bags.source import Bag, UnusableBagError
from wm_mpc.data.bags.topics import (
    COMPRESSED,
    IMAGE,
    TRAJECTORY,
    TopicConfig,
    VectorReader,
    find_topic,
    header_ns,
)
from wm_mpc.data.bags.typelib import Decoder

NEEDED = ("image", "proprio", "command")
"""Parts that are aligned with each other and so need stamps of one clock."""

_PROBE_LIMIT = 20_000
_CLOCK_TOLERANCE_NS = 10**9
_TYPES = {
    "image": (IMAGE, COMPRESSED),
    "goal": (IMAGE, COMPRESSED),
    "trajectories": (TRAJECTORY,),
}


class BagParts:
    """What a bag offers of what an import wants.

    Args:
        config: the mapping.
        stamps: ``auto``, ``header`` or ``recorder``.
        bag: its beginning is read to compare clocks.
        decoder: of the bag.

    Attributes:
        reports: part -> report of its topic; markers are parts named ``marker TOPIC``.
        vectors: part -> reader of its numbers.
        markers: topic -> field whose change is a mark; empty: every message is one.
        problems: what was left out, one line each.

    Raises:
        DataError: a required topic is not there, or its name fits several.
        UnusableBagError: a required topic is of a type that cannot be used.
    """

    def __init__(self, config: TopicConfig, stamps: str, bag: Bag, decoder: Decoder) -> None:
        self.reports: dict[str, TopicReport] = {}
        self.vectors: dict[str, VectorReader] = {}
        self.markers: dict[str, str] = {}
        self.problems: list[str] = []
        self._config = config
        self._find(bag.list_topics())
        self._choose_clocks(stamps, bag, decoder)

    def by_topic(self) -> dict[str, list[str]]:
        """Topic -> the parts it plays."""
        roles: dict[str, list[str]] = {}
        for part, report in self.reports.items():
            roles.setdefault(report.topic, []).append(part)
        return roles

    def stamp(self, part: str, message: Any, log_ns: int) -> int:
        """Stamp [ns] of a message, by the clock chosen for its part; the report tells which."""
        report = self.reports[part]
        stamp = header_ns(message) if part in self._by_header else None
        report.clock = "recorder" if stamp is None else "header"
        return log_ns if stamp is None else stamp

    def _find(self, there: dict[str, str]) -> None:
        for part, required in (
            ("image", True),
            ("command", True),
            ("proprio", True),
            ("state", False),
            ("goal", False),
            ("trajectories", False),
        ):
            name = getattr(self._config, part)
            topic = find_topic(there, name, part, required) if name else None
            if topic:
                self._add(part, topic, there[topic], required)
        for entry in filter(None, self._config.marker.split(",")):
            name, _, path = entry.strip().partition(":")
            topic = find_topic(there, name, "marker", required=False)
            if topic:
                self.markers[topic] = path
                self.reports[f"marker {topic}"] = TopicReport(topic, there[topic])

    def _add(self, part: str, topic: str, msgtype: str, required: bool) -> None:
        expected = _TYPES.get(part)
        if expected and msgtype not in expected:
            message = f"{part}_topic: {topic} is {msgtype}; {' or '.join(expected)} expected"
            if required:
                raise UnusableBagError(message)
            self.problems.append(message + "; left out")
            return
        if not expected:
            fields = getattr(self._config, f"{part}_fields", ())
            joints = self._config.joints if part == "proprio" else ()
            try:
                self.vectors[part] = VectorReader(part, msgtype, fields, joints)
            except DataError as error:
                raise UnusableBagError(str(error)) from None
        self.reports[part] = TopicReport(topic, msgtype)

    def _choose_clocks(self, stamps: str, bag: Bag, decoder: Decoder) -> None:
        """Decide per topic whether header or recorder dates its messages."""
        offsets: dict[str, int | None] = {}
        needed = {report.topic: p for p, report in self.reports.items() if p in NEEDED}
        for count, message in enumerate(bag.messages()):
            part = needed.get(message.topic)
            if part and part not in offsets:
                try:
                    decoded = decoder.decode(message.msgtype, message.data)
                except DataError:
                    continue
                stamp = header_ns(decoded)
                if stamp is not None or not hasattr(decoded, "header"):
                    offsets[part] = None if stamp is None else stamp - message.log_ns
            if len(offsets) == len(needed) or count > _PROBE_LIMIT:
                break
        apart = any(abs(o) > _CLOCK_TOLERANCE_NS for o in offsets.values() if o is not None)
        mixed = any(o is None for o in offsets.values())
        headers = stamps == "header" or (stamps == "auto" and not (apart and mixed))
        self._by_header = {
            part for part in self.reports if headers and offsets.get(part, 0) is not None
        }
