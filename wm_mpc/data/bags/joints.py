"""Messages that name their joints: states of several publishers, commands of several points.

What is read is found by name; the order in a message means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wm_mpc.core.channels import Channel, channels
from wm_mpc.core.errors import DataError, MessageError
from wm_mpc.data.decoding import joint_state_to_array

JOINT_STATE = "sensor_msgs/msg/JointState"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
PARTS = ("position", "velocity", "effort")


class JointStates:
    """Reads the joint states of one topic, whoever publishes them.

    Messages that name different joints are of different publishers; each publisher has a role of
    its own, in whose time its numbers are interpolated. Velocities are read where every sampled
    message has them.

    Args:
        samples: the first messages.
        wanted: joints in the order wanted; empty: as they come.
        parts: of PARTS; empty: positions, and velocities where they are there.
        unit: of positions.

    Attributes:
        roles: one per publisher; the first is ``proprio``.
        order: ``(dim,)`` places of the numbers wanted in what the roles give one after another.
        channels: of the numbers wanted.

    Raises:
        DataError: a wanted joint is in no message, or a part is missing that was asked for.
    """

    def __init__(
        self,
        samples: Sequence[Any],
        wanted: tuple[str, ...] = (),
        parts: tuple[str, ...] = (),
        unit: str = "",
    ) -> None:
        sets: dict[frozenset[str], tuple[str, ...]] = {}
        for sample in samples:
            if len(sample.name):
                sets.setdefault(frozenset(sample.name), tuple(sample.name))
        self._groups = self._split(sets, wanted)
        joints = wanted or tuple(name for group in self._groups for name in group)
        missing = [name for name in joints if not any(name in g for g in self._groups)]
        if samples and sets and missing:
            known = ", ".join(dict.fromkeys(name for names in sets.values() for name in names))
            raise DataError(f"joints: {missing[0]!r} is in no message; there are {known}")
        self._count = len(samples[0].position) if samples and not sets else 0
        self.parts = parts or self._found_parts(samples)
        self._check(samples)
        self.roles = tuple(f"proprio {i}" if i else "proprio" for i in range(len(self._groups)))
        self.roles = self.roles or ("proprio",)
        self.channels = self._channels(joints, unit)
        self.order = self._order(joints)

    def __call__(self, message: Any) -> tuple[str, np.ndarray]:
        """Role and numbers, float64, of one message.

        Raises:
            MessageError: no publisher names these joints, or a number is missing or not finite.
        """
        if not self._groups:
            return "proprio", self._read(message, ())
        names = set(message.name)
        for role, group in zip(self.roles, self._groups, strict=True):
            if names.issuperset(group):
                return role, self._read(message, group)
        missing = next((n for n in self._groups[0] if n not in names), "")
        raise MessageError(f"proprio.name: {missing!r} is missing")

    def _read(self, message: Any, group: tuple[str, ...]) -> np.ndarray:
        if self.parts in (("position",), ("position", "velocity")):
            count = len(group) or self._count
            values = joint_state_to_array(message, group, count * len(self.parts), "proprio")
            return values.astype(np.float64)
        index = [list(message.name).index(n) for n in group] or list(range(self._count))
        found = []
        for part in self.parts:
            values = getattr(message, part)
            if max(index, default=-1) >= len(values):
                raise MessageError(f"proprio.{part}: {len(values)} values")
            found.append(np.asarray(values, np.float64)[index])
        numbers = np.concatenate(found)
        if not np.isfinite(numbers).all():
            raise MessageError("proprio: a number is not finite")
        return numbers

    def _split(
        self, sets: dict[frozenset[str], tuple[str, ...]], wanted: tuple[str, ...]
    ) -> list[tuple[str, ...]]:
        """Joints per publisher, each joint once; whoever names most comes first."""
        groups: list[tuple[str, ...]] = []
        taken: set[str] = set()
        seen = list(sets.values())
        biggest_first = sorted(seen, key=lambda names: -len(names))
        for names in biggest_first:
            mine = tuple(n for n in names if n not in taken and (not wanted or n in wanted))
            taken.update(mine)
            if mine:
                groups.append(mine)
        place = {name: i for i, names in enumerate(seen) for name in names}
        return sorted(groups, key=lambda group: min(place[name] for name in group))

    def _found_parts(self, samples: Sequence[Any]) -> tuple[str, ...]:
        whole = samples and all(self._has(sample, "velocity") for sample in samples)
        return ("position", "velocity") if whole else ("position",)

    def _has(self, sample: Any, part: str) -> bool:
        values = getattr(sample, part)
        names = list(sample.name) or list(range(self._count))
        mine = {n for group in self._groups for n in group} or set(names)
        index = [i for i, name in enumerate(names) if name in mine]
        return all(i < len(values) and math.isfinite(values[i]) for i in index)

    def _check(self, samples: Sequence[Any]) -> None:
        for part in self.parts[1:]:
            if samples and not any(self._has(sample, part) for sample in samples):
                raise DataError(
                    f"proprio: no message has a finite {part} for its joints, and the store or "
                    "--proprio-fields asks for it"
                )

    def _channels(self, joints: tuple[str, ...], unit: str) -> tuple[Channel, ...]:
        if not joints:
            return ()
        units = {"position": unit, "velocity": f"{unit}/s" if unit else "", "effort": ""}
        return tuple(c for part in self.parts for c in channels(part, joints, units[part]))

    def _order(self, joints: tuple[str, ...]) -> np.ndarray:
        if not self._groups:
            return np.arange(self._count * len(self.parts))
        places = {}
        at = 0
        for group in self._groups:
            for part in self.parts:
                for name in group:
                    places[part, name] = at
                    at += 1
        return np.array([places[part, name] for part in self.parts for name in joints], np.int64)


class JointCommands:
    """Reads commands that name joints: JointTrajectory, or JointState as a command.

    Args:
        msgtype: of the topic.
        samples: the first messages.
        wanted: joints in the order wanted; empty: as in the first message.

    Attributes:
        part: ``position``, ``velocity`` or ``effort``: what is commanded.
        joints: in the order of what is read; empty where messages name none.
    """

    def __init__(
        self, msgtype: str, samples: Sequence[Any], wanted: tuple[str, ...] = ()
    ) -> None:
        self._trajectory = msgtype == TRAJECTORY
        self.part = "position"
        self.joints = wanted
        for sample in samples:
            entries = list(sample.points) if self._trajectory else [sample]
            filled = [p for p in PARTS if entries and len(getattr(entries[0], self._field(p)))]
            if filled:
                self.part = filled[0]
                self.joints = wanted or tuple(self._names(sample))
                break

    def __call__(self, message: Any) -> list[tuple[int, np.ndarray]]:
        """Commands of one message: ``(reached after [ns], numbers float64)``, in order.

        Raises:
            MessageError: a joint or its number is missing, or not finite.
        """
        entries = list(message.points) if self._trajectory else [message]
        if not entries:
            raise MessageError("command.points: none; at least 1 expected")
        names = self._names(message)
        if self.joints and names:
            known = {name: i for i, name in enumerate(names)}
            missing = [name for name in self.joints if name not in known]
            if missing:
                raise MessageError(f"command: joint {missing[0]!r} is missing")
            index = [known[name] for name in self.joints]
        else:
            index = list(range(len(getattr(entries[0], self._field(self.part)))))
        found = []
        for entry in entries:
            values = np.asarray(getattr(entry, self._field(self.part)), np.float64)
            if not index or max(index) >= len(values):
                raise MessageError(f"command.{self._field(self.part)}: {len(values)} values")
            if not np.isfinite(values[index]).all():
                raise MessageError("command: a number is not finite")
            after = entry.time_from_start if self._trajectory else None
            when = after.sec * 10**9 + after.nanosec if after is not None else 0
            found.append((when, values[index]))
        return found

    def _field(self, part: str) -> str:
        if not self._trajectory:
            return part
        return {"position": "positions", "velocity": "velocities", "effort": "effort"}[part]

    def _names(self, message: Any) -> list[str]:
        return list(message.joint_names if self._trajectory else message.name)
