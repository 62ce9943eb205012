"""The topics of one bag that an import uses: which, of what type, dated by which clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from wm_mpc.core.channels import Channel
from wm_mpc.core.errors import DataError
from wm_mpc.data.bags.clocks import Clock, choose_clocks
from wm_mpc.data.bags.import_report import TopicReport
from wm_mpc.data.bags.joints import JOINT_STATE, PARTS, JointCommands, JointStates
from wm_mpc.data.bags.joints import TRAJECTORY as JOINT_TRAJECTORY
from wm_mpc.data.bags.renames import renamed
from wm_mpc.data.bags.source import Bag, UnusableBagError
from wm_mpc.data.bags.survey import Span, TopicTimes, survey
from wm_mpc.data.bags.topics import (
    COMPRESSED,
    IMAGE,
    TRAJECTORY,
    TopicConfig,
    VectorReader,
    find_topic,
)
from wm_mpc.data.bags.typelib import Decoder
from wm_mpc.data.bags.unused import TWISTS, Spread, choose

NEEDED = ("image", "proprio", "command")
"""Parts that are aligned with each other and so need stamps of one clock."""

_TYPES = {
    "image": (IMAGE, COMPRESSED),
    "goal": (IMAGE, COMPRESSED),
    "trajectories": (TRAJECTORY,),
}
_TWIST_UNITS = {"linear": "m/s", "angular": "rad/s"}
_ACKERMANN = {
    "speed": ("m/s", "velocity"),
    "steering_angle": ("rad", "position"),
    "acceleration": ("m/s^2", ""),
    "jerk": ("m/s^3", ""),
    "steering_angle_velocity": ("rad/s", "velocity"),
}


class BagParts:
    """What a bag offers of what an import wants.

    Args:
        config: the mapping.
        bag: the bag; ``look`` reads it once.
        decoder: of the bag.

    Attributes:
        reports: part -> report of its topic; markers are parts named ``marker TOPIC``.
        vectors: part -> reader of its numbers.
        proprio: reader of joint states, where proprioception is those.
        command: reader of commands that name joints, where they do.
        markers: topic -> field whose change is a mark; empty: every message is one.
        times, clocks: topic -> what ``look`` found.
        frame_stride: what the first marker tells of it, or None.
        problems: what was left out, one line each.

    Raises:
        DataError: a required topic is not there, or its name fits several.
        UnusableBagError: a required topic is of a type that cannot be used.
    """

    def __init__(self, config: TopicConfig, bag: Bag, decoder: Decoder) -> None:
        self.reports: dict[str, TopicReport] = {}
        self.vectors: dict[str, VectorReader] = {}
        self.proprio: JointStates | None = None
        self.command: JointCommands | None = None
        self.markers: dict[str, str] = {}
        self.times: dict[str, TopicTimes] = {}
        self.clocks: dict[str, Clock] = {}
        self.frame_stride: int | None = None
        self.problems: list[str] = []
        self._config = config
        self._bag = bag
        self._decoder = decoder
        self._find(bag.list_topics())

    def by_topic(self) -> dict[str, list[str]]:
        """Topic -> the parts it plays."""
        roles: dict[str, list[str]] = {}
        for part, report in self.reports.items():
            roles.setdefault(report.topic, []).append(part)
        return roles

    def clock(self, part: str) -> Clock | None:
        """Clock of a part's topic; None where it has no messages."""
        report = self.reports.get(part)
        return self.clocks.get(report.topic) if report else None

    def look(
        self,
        stamps: str,
        reorder_ns: int,
        known: tuple[tuple[Channel, ...], tuple[Channel, ...]],
        proprio_dim: int | None,
        progress: Callable[[int], None],
    ) -> None:
        """Read the bag's stamps, choose clocks and make the readers.

        Args:
            stamps: see ``clocks.read_ways``.
            reorder_ns: [ns] disorder up to this is usual.
            known: channels of proprioception and action of the store, empty where not known.
            proprio_dim: width of the store's proprioception; None: a new store.
            progress: told the position in the bag.

        Raises:
            UnusableBagError: clocks or names of the bag are not usable.
        """
        roles = self.by_topic()
        sampled = [t for t, p in roles.items() if {"proprio", "command"} & set(p)]
        sampled += self.markers
        others: dict[str, Span] = {}
        spread = self._spread()
        self.times = survey(
            self._bag, roles, self._decoder, sampled, progress, others,
            {self.reports["command"].topic: spread} if spread else None,
        )  # fmt: skip
        needed = {self.reports[p].topic for p in NEEDED if p in self.reports}
        try:
            self.clocks = choose_clocks(self.times, needed, stamps, reorder_ns)
            self._read_proprio(known[0], proprio_dim)
            self._read_commands(known[1])
            if spread:
                self._leave_out(spread, known[1])
        except DataError as error:
            raise UnusableBagError(str(error)) from None
        self._read_marker()
        self.problems.extend(
            line for part in NEEDED if part in self.reports
            for line in renamed(part, self.reports[part].topic, self.times, others)
        )  # fmt: skip
        for report in self.reports.values():
            clock = self.clocks.get(report.topic)
            if clock is not None:
                report.take_clock(clock)

    def channels(self) -> tuple[tuple[Channel, ...], tuple[Channel, ...]]:
        """What the numbers of proprioception and of actions are, as far as the bag tells."""
        config = self._config
        proprio: tuple[Channel, ...] = ()
        if self.proprio is not None:
            proprio = self.proprio.channels
        elif "proprio" in self.vectors:
            proprio = _of_fields(self.vectors["proprio"], config.proprio_unit, "")
        if self.command is not None:
            role = config.command_role or self.command.part
            names = self.command.joints
            return proprio, tuple(Channel(n, config.command_unit, role) for n in names)
        if "command" not in self.vectors:
            return proprio, ()
        reader = self.vectors["command"]
        return proprio, _of_fields(reader, config.command_unit, config.command_role)

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

    def _samples(self, part: str) -> list[Any]:
        report = self.reports.get(part)
        found = self.times.get(report.topic) if report else None
        return found.samples if found else []

    def _read_proprio(self, known: tuple[Channel, ...], dim: int | None) -> None:
        report, fields = self.reports.get("proprio"), self._config.proprio_fields
        if report is None or report.msgtype != JOINT_STATE or not set(fields) <= set(PARTS):
            return
        wanted = self._config.joints or _joints_of(known)
        parts = fields or tuple(dict.fromkeys(c.role for c in known if c.role))
        samples = self._samples("proprio")
        if not parts and dim is not None and samples:
            count = len(wanted) or len({n for s in samples for n in s.name})
            parts = ("position", "velocity") if dim == 2 * count else ("position",)
        self.proprio = JointStates(samples, wanted, parts, self._config.proprio_unit)
        first = next((tuple(s.name) for s in samples if len(s.name)), ())
        names = tuple(dict.fromkeys(c.name for c in self.proprio.channels))
        if len(self.proprio.roles) > 1:
            report.notes.append(f"{len(self.proprio.roles)} publishers of different joints")
        elif first and set(first) == set(names) and first != names:
            report.notes.append(f"joints put in order: {', '.join(names)}")

    def _read_commands(self, known: tuple[Channel, ...]) -> None:
        report = self.reports["command"]
        named = report.msgtype in (JOINT_STATE, JOINT_TRAJECTORY)
        if not named or self._config.command_fields:
            return
        wanted = self._config.command_joints or tuple(c.name for c in known if c.name)
        samples = self._samples("command")
        self.command = JointCommands(report.msgtype, samples, wanted)
        if report.msgtype == JOINT_TRAJECTORY and any(len(s.points) > 1 for s in samples):
            report.notes.append("several points: the one in force at the time is read")

    def _spread(self) -> Spread | None:
        """Of commands that are twists of which nobody said what is used."""
        report = self.reports["command"]
        if report.msgtype not in TWISTS or self._config.command_fields:
            return None
        return Spread(report.msgtype)

    def _leave_out(self, spread: Spread, known: tuple[Channel, ...]) -> None:
        fields, note, problem = choose(spread, known)
        report = self.reports["command"]
        self.vectors["command"] = VectorReader("command", report.msgtype, fields)
        report.notes.extend(filter(None, [note]))
        self.problems.extend(filter(None, [problem]))

    def _read_marker(self) -> None:
        for topic, path in self.markers.items():
            if path:
                continue
            for sample in self.times[topic].samples if topic in self.times else ():
                stride = described(str(getattr(sample, "data", ""))).get("frame_stride")
                if isinstance(stride, int) and stride >= 1:
                    self.frame_stride = stride
                    return


def described(text: str) -> dict[str, Any]:
    """Facts about an episode from a marker's JSON object; other text becomes ``marker``."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return {"marker": text}
    return facts if isinstance(facts, dict) else {"marker": text}


def _joints_of(known: tuple[Channel, ...]) -> tuple[str, ...]:
    """Joint names of a store's proprioception, each once."""
    names = tuple(dict.fromkeys(channel.name for channel in known))
    return names if all(names) else ()


def _of_fields(reader: VectorReader, unit: str, role: str) -> tuple[Channel, ...]:
    """Channels of what is read by field paths, one number each; empty where widths are open."""
    if not reader.dim or reader.dim != len(reader.paths):
        names: list[str] = [""] * (reader.dim or 0) if role or unit else []
        return tuple(Channel(name, unit, role) for name in names)
    found = []
    for path in reader.paths:
        words = path.split(".")
        its_unit, its_role = unit, role
        if len(words) > 1 and words[-2] in _TWIST_UNITS:
            its_unit, its_role = unit or _TWIST_UNITS[words[-2]], role or "velocity"
        elif words[-1] in _ACKERMANN:
            default_unit, default_role = _ACKERMANN[words[-1]]
            its_unit, its_role = unit or default_unit, role or default_role
        elif len(words) > 1 and words[-2] == "position":
            its_unit, its_role = unit or "m", role or "position"
        found.append(Channel(path, its_unit, its_role))
    return tuple(found)


def merge_order(
    times: dict[str, TopicTimes], clocks: dict[str, Clock], reorder_ns: int, loose: frozenset[str]
) -> tuple[list[str], np.ndarray] | None:
    """Order of all messages by time, where the order in the files is not it.

    Args:
        times: of the topics.
        clocks: of the topics.
        reorder_ns: [ns] disorder up to this is left to the alignment.
        loose: topics whose order among the others means nothing.

    Returns:
        None when the files' own order will do; else the topics, and ``(n, 3)`` rows of topic
        number, message number within it, and segment.
    """
    topics = [topic for topic in times if len(times[topic])]
    rows, stamps, ordinals = [], [], []
    for number, topic in enumerate(topics):
        clock = clocks[topic]
        kept = np.flatnonzero(~clock.dropped)
        rows.append(np.stack([np.full(len(kept), number), kept, clock.segment[kept]], 1))
        stamps.append(clock.stamps[kept])
        ordinals.append(times[topic].ordinal[kept])
    if not topics:
        return None
    table, stamp, ordinal = np.concatenate(rows), np.concatenate(stamps), np.concatenate(ordinals)
    strict = ~np.isin(table[:, 0], [i for i, t in enumerate(topics) if t in loose])
    by_file = np.argsort(ordinal[strict], kind="stable")
    seen = stamp[strict][by_file]
    behind = (np.maximum.accumulate(seen) - seen).max(initial=0)
    if behind <= reorder_ns and not table[:, 2].any():
        return None
    return topics, table[np.lexsort((ordinal, stamp, table[:, 2]))]
