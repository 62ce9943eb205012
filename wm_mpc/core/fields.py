"""Configuration dataclasses that know their own bounds and words.

The same declaration validates a value, becomes a ROS parameter's range and description, and is
what a user reads.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from typing import Any


def bounded(default: Any, low: float = -math.inf, high: float = math.inf) -> Any:
    """Declare a dataclass field whose value (or every value of a tuple) lies in ``[low, high]``.

    Args:
        default: default value, a number or a tuple of numbers.
        low: inclusive lower bound.
        high: inclusive upper bound.
    """
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def field_range(item: dataclasses.Field) -> tuple[float, float] | None:
    """Bounds declared by ``bounded``, or None."""
    return item.metadata.get("range")


def check_bounds(config: Any) -> None:
    """Check every bounded field of a dataclass instance.

    Raises:
        ValueError: one line naming field, value and bound; what is not finite is out of bounds.
    """
    for item in dataclasses.fields(config):
        limits = field_range(item)
        if limits is None:
            continue
        value = getattr(config, item.name)
        for entry in value if isinstance(value, tuple) else (value,):
            if not (math.isfinite(entry) and limits[0] <= entry <= limits[1]):
                raise ValueError(f"{item.name}: {value}; {limits[0]:g} to {limits[1]:g} expected")


def field_docs(cls: type) -> dict[str, str]:
    """Describe each field in the words of the class docstring's ``Attributes`` section.

    >>> from wm_mpc.control.safety import SafetyLimits
    >>> field_docs(SafetyLimits)["dry_run"]
    'true: compute and report commands, publish none.'
    """
    doc = inspect.getdoc(cls) or ""
    section = doc.partition("Attributes:\n")[2]
    words: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        head = re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)
        if head:
            names = head[1].split(", ")
            words.update(dict.fromkeys(names, head[2].strip()))
        elif line.strip():
            words.update({name: f"{words[name]} {line.strip()}" for name in names})
    return words
