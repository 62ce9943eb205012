"""Configuration dataclasses that know their own bounds and words.

A bound stands in the field's annotation, in the words of ``annotated_types``::

    @dataclass(frozen=True)
    class Config(Checked):
        steps: PositiveInt = 100
        rate: Annotated[float, Gt(0), Le(1)] = 0.5
        kind: Literal["mlp", "gru"] = "mlp"
        gains: tuple[Annotated[float, Ge(0)], ...] = ()

The same declaration validates a value, becomes a ROS parameter's range and description, stands in
``--help`` and in the parameter reference.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import re
import types
import typing
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt, Predicate, Unit

from wm_mpc.core.errors import UserError

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Seed = Annotated[int, Ge(0), Le(2**31 - 1)]
IsFinite = Predicate(math.isfinite)
"""Any number but infinity and NaN: ``Annotated[float, IsFinite]``."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """An interval of numbers. What is not a number lies outside of each.

    Infinity lies inside only where it is a closed bound: ``Gt(0), Le(math.inf)``.

    >>> str(Bounds(0, 1)), str(Bounds(low=1)), str(Bounds(0, 0.5, open_low=True))
    ('0 to 1', 'at least 1', 'in (0, 0.5]')
    >>> 0.5 in Bounds(0, 0.5), 0.5 in Bounds(0, 0.5, open_high=True)
    (True, False)

    Attributes:
        low: lower bound, -infinity for none.
        high: upper bound, infinity for none.
        open_low: true: the lower bound itself lies outside.
        open_high: true: the upper bound itself lies outside.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, numbers.Real) or math.isnan(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return bool(above and below)

    def __str__(self) -> str:
        low, high = _number(self.low), _number(self.high)
        if math.isinf(self.low) and math.isinf(self.high):
            return "finite" if self.open_high else "a number"
        if math.isinf(self.high):
            return f"more than {low}" if self.open_low else f"at least {low}"
        if math.isinf(self.low):
            return f"less than {high}" if self.open_high else f"at most {high}"
        if self.open_low or self.open_high:
            return f"in {'[('[self.open_low]}{low}, {high}{'])'[self.open_high]}"
        return f"{low} to {high}"

    def closed(self, whole: bool = False) -> tuple[float, float]:
        """The smallest and largest number inside, as ROS states ranges: both bounds inclusive.

        Args:
            whole: among whole numbers.
        """
        low, high = self.low, self.high
        if self.open_low and math.isfinite(low):
            low = math.floor(low) + 1 if whole else math.nextafter(low, math.inf)
        if self.open_high and math.isfinite(high):
            high = math.ceil(high) - 1 if whole else math.nextafter(high, -math.inf)
        return low, high


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a field's annotation demands of its value, or of every entry of a tuple.

    Attributes:
        bounds: interval of a number; None: not declared.
        choices: words of a ``Literal``; empty: not declared.
        many: the field is a tuple; the rule is one of its entries.
        unit: what the number counts, shown behind the value in errors; empty: not declared.
    """

    bounds: Bounds | None = None
    choices: tuple[Any, ...] = ()
    many: bool = False
    unit: str = ""

    def __str__(self) -> str:
        if self.bounds is not None:
            return str(self.bounds)
        return " or ".join(str(word) for word in self.choices if word != "")

    def refuses(self, value: Any) -> bool:
        """Whether a field's value breaks the rule; None, where a field may be None, does not."""
        if value is None:
            return False
        for entry in value if self.many else (value,):
            if self.bounds is not None and entry not in self.bounds:
                return True
            if self.choices and entry not in self.choices:
                return True
        return False


class Checked:
    """Base of a configuration dataclass: construction checks what the annotations declare.

    A dataclass with checks of its own, across fields, calls ``super().__post_init__()`` first.

    Raises:
        UserError: one line naming field, value and bound.
    """

    section: ClassVar[str] = ""
    """Put before a field's name in errors, ``"validation."`` for example."""

    def __post_init__(self) -> None:
        for name, rule in field_rules(type(self)).items():
            value = getattr(self, name)
            if rule.refuses(value):
                raise UserError(f"{self.section}{name}: {_refusal(value, rule)}")


@functools.cache
def field_rules(cls: type) -> dict[str, Rule]:
    """Rules that the annotations of a dataclass declare, by field name.

    >>> from wm_mpc.control.safety import SafetyLimits
    >>> str(field_rules(SafetyLimits)["ramp_s"])
    '0 to 10'
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    found = {item.name: _rule(hints[item.name]) for item in dataclasses.fields(cls)}
    return {name: rule for name, rule in found.items() if rule is not None}


def one_of(config: Any, name: str, known: typing.Iterable[str]) -> None:
    """Check a field against a registry, whose words are known only where the program runs.

    Raises:
        UserError: one line naming field, value and what is known.
    """
    value, words = getattr(config, name), list(known)
    if value not in words:
        raise UserError(f"{name}: {value!r} unknown; one of {', '.join(words)} expected")


def known(cls: type, values: typing.Mapping[str, Any]) -> dict[str, Any]:
    """Those of a section's values that a configuration has, lists as tuples."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name in names
    }


def _rule(hint: Any) -> Rule | None:
    """Rule of an annotation; None where it declares none."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        bounds = _bounds(args[1:])
        unit = next((mark.unit for mark in args[1:] if isinstance(mark, Unit)), "")
        return Rule(bounds=bounds, unit=unit) if bounds else _rule(args[0])
    if origin is Literal:
        return Rule(choices=args)
    if origin in (typing.Union, types.UnionType):
        rules = [_rule(arg) for arg in args if arg is not type(None)]
        return rules[0] if len(rules) == 1 else None
    if origin is tuple:
        entry = _rule(args[0]) if args else None
        return dataclasses.replace(entry, many=True) if entry else None
    return None


def _bounds(metadata: typing.Iterable[Any]) -> Bounds | None:
    """Interval that the metadata of an ``Annotated`` tells; None where it tells none."""
    flat: list[Any] = []
    for mark in metadata:
        flat.extend(mark) if isinstance(mark, GroupedMetadata) else flat.append(mark)
    told: dict[str, Any] = {}
    for mark in flat:
        if isinstance(mark, (Ge, Gt)):
            opened = isinstance(mark, Gt)
            told |= {"low": mark.gt if opened else mark.ge, "open_low": opened}
        elif isinstance(mark, (Le, Lt)):
            opened = isinstance(mark, Lt)
            told |= {"high": mark.lt if opened else mark.le, "open_high": opened}
    if not told and IsFinite not in flat:
        return None
    return Bounds(**{"open_low": "low" not in told, "open_high": "high" not in told} | told)


def _refusal(value: Any, rule: Rule) -> str:
    shown = repr(value) if isinstance(value, str) else f"{value} {rule.unit}".rstrip()
    words = str(rule)
    if words == "finite":
        words = "a finite number"
    elif isinstance(value, float) and math.isinf(value) and math.isinf(rule.bounds.high):
        words += ", finite,"
    return f"{shown}; {words} expected"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def field_docs(cls: type) -> dict[str, str]:
    """Describe each field in the words of the class docstring's ``Attributes`` section.

    A class that inherits fields inherits their words.

    >>> from wm_mpc.control.safety import SafetyLimits
    >>> field_docs(SafetyLimits)["dry_run"]
    'true: compute and report commands, publish none.'
    """
    words: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        words.update(_own_docs(base))
    return words


def _own_docs(cls: type) -> dict[str, str]:
    doc = inspect.cleandoc(cls.__doc__ or "")
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
