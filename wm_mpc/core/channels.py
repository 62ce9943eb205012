"""What the numbers of a vector are: a name, a unit and a role for each.

A robot's joints, for example::

    joints = ("shoulder", "elbow")
    channels("position", joints, "rad") + channels("velocity", joints, "rad/s")
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from wm_mpc.core.fields import Checked


@dataclass(frozen=True)
class Channel(Checked):
    """One number of a vector.

    Attributes:
        name: of the joint or the field; empty: not known.
        unit: SI words such as ``rad``, ``m/s``; empty: not known.
        role: what the number says of ``name``. In an action it is what is commanded:
            ``position``, ``velocity`` and ``effort`` are targets, ``increment`` is added to the
            position; empty: not known.
    """

    name: str = ""
    unit: str = ""
    role: Literal["", "position", "velocity", "effort", "increment"] = ""

    def __str__(self) -> str:
        words = [self.name or "?", self.role, f"[{self.unit}]" if self.unit else ""]
        return " ".join(word for word in words if word)


def channels(role: str, names: Iterable[str], unit: str = "") -> tuple[Channel, ...]:
    """One channel per name, all of one role and unit."""
    return tuple(Channel(name, unit, role) for name in names)


def read_channels(rows: Iterable[Channel | dict[str, str]]) -> tuple[Channel, ...]:
    """Channels from what JSON keeps of them.

    Raises:
        ValueError: a field is unknown or out of its choices.
    """
    try:
        return tuple(row if isinstance(row, Channel) else Channel(**row) for row in rows)
    except TypeError as error:
        raise ValueError(f"channels: {error}") from None


def difference(mine: Sequence[Channel], theirs: Sequence[Channel]) -> str:
    """Why two vectors do not mean the same, one line; empty: nothing speaks against it.

    What is not known on one side is not compared.
    """
    if not mine or not theirs:
        return ""
    if len(mine) != len(theirs):
        return f"{len(mine)} numbers against {len(theirs)}"
    for place, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        for word in ("name", "role", "unit"):
            here, there = getattr(one, word), getattr(other, word)
            if here and there and here != there:
                return f"number {place} is {one}; {other} expected"
    return ""
