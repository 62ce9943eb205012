"""Which fields of a configuration may change while a node runs.

The mark stands in the field's annotation beside its bounds::

    tolerance: Annotated[float, Ge(0.0), Live()] = 0.0
    rate_limit: Annotated[tuple[PositiveFloat, ...], Live("lower")] = ()

A configuration whose fields may all change says ``live: ClassVar[bool] = True``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["", "lower", "higher", "unconfigured"]
_WORDS = {
    "": "live", "lower": "live, downward", "higher": "live, upward",
    "unconfigured": "while unconfigured",
}  # fmt: skip


@dataclass(frozen=True)
class Live:
    """Mark of a field that may change while a node runs.

    Attributes:
        only: ``lower`` or ``higher``: a limit, which may become narrower than at the start of the
            process and never wider; ``unconfigured``: it changes only while the node is not
            configured; empty: whenever the node runs.
        zero_is_none: 0 too means that there is no limit.
    """

    only: Direction = ""
    zero_is_none: bool = False

    def __str__(self) -> str:
        return _WORDS[self.only]

    def refuses(self, value: Any, start: Any) -> str:
        """What is expected instead of a value; empty: it may be taken.

        Args:
            value: new value, inside its bounds; a tuple has one entry per dimension or for all.
            start: value at the start of the process.

        >>> Live("lower").refuses((0.5, 2.0), (1.0,)), Live("lower").refuses((0.5,), ())
        ('at most [1.0], as at the start,', '')
        >>> Live("lower", zero_is_none=True).refuses(0.0, 3.2)
        'at most 3.2, as at the start,'
        """
        if self.only not in ("lower", "higher") or value == start:
            return ""
        new, old = ([*part] if isinstance(part, tuple) else [part] for part in (value, start))
        count = max(len(new), len(old))
        wider = float.__gt__ if self.only == "lower" else float.__lt__
        pairs = zip(self._spread(new, count), self._spread(old, count), strict=False)
        if not any(wider(one, other) for one, other in pairs):
            return ""
        word = "at most" if self.only == "lower" else "at least"
        return f"{word} {old if isinstance(start, tuple) else start}, as at the start,"

    def _spread(self, values: list[float], count: int) -> list[float]:
        """One entry per dimension; infinite where there is no limit."""
        none = math.inf if self.only == "lower" else -math.inf
        wide = [none if self.zero_is_none and not v else float(v) for v in values] or [none]
        return wide * count if len(wide) == 1 else wide


@functools.cache
def live_fields(cls: type) -> dict[str, Live]:
    """Marks of a configuration dataclass by field name; fields that need a restart are left out.

    >>> from wm_mpc.control.safety import SafetyLimits
    >>> str(live_fields(SafetyLimits)["rate_limit"]), "ramp_s" in live_fields(SafetyLimits)
    ('live, downward', False)
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    every = Live() if getattr(cls, "live", False) else None
    found = {}
    for item in dataclasses.fields(cls):
        marks = getattr(hints[item.name], "__metadata__", ())
        mark = next((mark for mark in marks if isinstance(mark, Live)), every)
        if mark is not None:
            found[item.name] = mark
    return found


__all__ = ["Direction", "Live", "live_fields"]
