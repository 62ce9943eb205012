"""How a bag is played, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked
from wm_mpc.data.bags.clocks import read_ways

INPUTS = (
    "image",
    "image/compressed",
    "proprio",
    "goal_image",
    "goal_proprio",
    "e_stop",
)
"""What a controller listens to; what it says itself is not played."""


@dataclass(frozen=True)
class PlayConfig(Checked):
    """What is played, how fast, and what is compared.

    Attributes:
        topics: names, or endings of names, of the topics to play.
        command_topic: topic to compare.
        command_fields: fields of its type to compare; empty: the usual ones.
        rate: speed relative to the recording; 0: as fast as the answers come.
        compare: wait for a command at every recorded one and compare the two.
        wait: no commands were recorded: wait for one after every picture.
        tolerance: largest difference of a number, raw units, that counts as equal.
        timeout_s: [s] wait this long for a listener, and for every command.
        stamps: ``receive``: messages come when the recorder heard them; ``header``: when they were
            made, where they say so; ``auto``: receive, but for a bag whose messages were all
            received at once. ``TOPIC=word`` entries beside it, by commas, for single topics.
        settle_s: [s] where answers matter: given to nodes to take in the first clock, a goal, and
            each other.
    """

    topics: tuple[str, ...] = INPUTS
    command_topic: str = "command"
    command_fields: tuple[str, ...] = ()
    rate: Annotated[float, Ge(0.0), Le(1000.0)] = 1.0
    compare: bool = False
    wait: bool = False
    tolerance: Annotated[float, Ge(0.0), Le(1e6)] = 1e-5
    timeout_s: Annotated[float, Ge(0.1), Le(3600.0)] = 30.0
    stamps: str = "auto"
    settle_s: Annotated[float, Ge(0.0), Le(60.0)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        read_ways(self.stamps)
        if self.compare and self.wait:
            raise UserError("wait: has no meaning together with compare")


@dataclass
class PlayResult:
    """What came back.

    Attributes:
        played: messages published.
        commands: live commands that were waited for and came.
        missing: commands that did not come in time.
        differences: largest difference per compared command, raw units.
        left_out: messages whose stamps go astray, so that nobody knows when they were sent.
        notes: what was found and done about it, one line each.
    """

    played: int = 0
    commands: int = 0
    missing: int = 0
    differences: list[float] = field(default_factory=list)
    left_out: int = 0
    notes: list[str] = field(default_factory=list)

    def equal(self, tolerance: float) -> bool:
        """Whether every awaited command came and, where compared, equals the recorded one."""
        return not self.missing and all(d <= tolerance for d in self.differences)

    def line(self) -> str:
        """The result in one line."""
        text = f"{self.played} messages played, {self.commands} commands came back"
        if self.missing:
            text += f", {self.missing} did not"
        if self.differences:
            worst = int(np.argmax(self.differences))
            text += f"; largest difference {self.differences[worst]:.3g} (command {worst})"
        if self.left_out:
            text += f"; {self.left_out} left out: their stamps go astray"
        return "; ".join([text, *self.notes])
