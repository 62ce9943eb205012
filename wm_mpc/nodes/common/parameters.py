"""ROS parameters generated from configuration dataclasses: names, defaults, words and ranges."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Rule, field_docs, field_rules
from wm_mpc.core.live import Live, live_fields

Config = TypeVar("Config")

# Declared by rclpy itself, or by tools that ROS users have.
RESERVED = ("use_sim_time", "start_type_description_service", "qos_overrides")
_LIMIT = 1e300
_WHOLE = 2**63 - 1


@dataclass(frozen=True)
class Place:
    """Where a parameter belongs.

    Attributes:
        prefix: of the names of its configuration.
        cls: its configuration.
        field: its field there.
        kind: type of the field.
        live: whether and how it may change while the node runs; None: it may not.
    """

    prefix: str
    cls: type
    field: str
    kind: Any
    live: Live | None


class ParameterReader:
    """Reads dataclasses from a node's parameters and knows which were asked for.

    Args:
        node: created with ``automatically_declare_parameters_from_overrides=True``, so that what
            the user set can be compared with what exists.
        live: somebody listens to changes of live fields, and refuses those of all others with a
            reason; else every parameter is read-only.
    """

    def __init__(self, node: Node, live: bool = False) -> None:
        self.node = node
        self.live = live
        self.places: dict[str, Place] = {}

    def read(self, defaults: Config, prefix: str = "") -> Config:
        """Declare one parameter per field and build the dataclass from their values.

        Args:
            defaults: instance whose fields are the defaults.
            prefix: put before each name, ``"objective."`` for example.

        Raises:
            UserError: a value of a wrong type or out of its bounds; one line with name and bound.
        """
        cls = type(defaults)
        hints = typing.get_type_hints(cls)
        words, rules, marks = field_docs(cls), field_rules(cls), live_fields(cls)
        values: dict[str, Any] = {}
        for item in dataclasses.fields(cls):
            field, kind = item.name, hints[item.name]
            kind = str if typing.get_origin(kind) is typing.Literal else kind
            place = Place(prefix, cls, field, kind, marks.get(field))
            values[field] = self._read_one(
                place,
                getattr(defaults, field),
                words.get(field, ""),
                rules.get(field),
            )
        try:
            return dataclasses.replace(defaults, **values)
        except ValueError as error:
            raise UserError(f"parameter {prefix}{error}") from None

    def reject_unknown(self) -> None:
        """Refuse parameters that nothing reads: a misspelt limit must not be a missing limit.

        Raises:
            UserError: the first unknown name, and the known ones like it.
        """
        names = self.node.list_parameters([], 0).names
        known = self.places.keys()
        for name in sorted(set(names) - known):
            if name.split(".")[0] not in RESERVED:
                near = difflib.get_close_matches(name, known, 3) or sorted(known)
                raise UserError(f"parameter {name}: unknown; {', '.join(near)} expected")

    def _read_one(
        self, place: Place, default: Any, words: str, rule: Rule | None
    ) -> Any:
        name, kind = place.prefix + place.field, place.kind
        self.places[name] = place
        value = default
        if self.node.has_parameter(name):
            value = convert(name, kind, self.node.get_parameter(name).value)
            self.node.undeclare_parameter(name)
        descriptor = ParameterDescriptor(
            description=words, read_only=not self.live, dynamic_typing=True
        )
        _add_range(descriptor, kind, rule)
        if self.live:
            change = str(place.live or "needs a restart")
            parts = (descriptor.additional_constraints, change)
            descriptor.additional_constraints = "; ".join(part for part in parts if part)
        try:
            self.node.declare_parameter(name, _plain(value), descriptor, ignore_override=True)
        except ParameterException:
            raise UserError(f"parameter {name}: {value}; {rule} expected") from None
        return value


def convert(name: str, kind: Any, value: Any) -> Any:
    """Value of a parameter in the field's own type; whole numbers may stand for real ones."""
    if typing.get_origin(kind) is tuple:
        entry = typing.get_args(kind)[0]
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise UserError(f"parameter {name}: {value!r}; a list expected")
        return tuple(convert(name, entry, part) for part in value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    expected = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    raise UserError(f"parameter {name}: {value!r}; {expected[kind]} expected")


def _plain(value: Any) -> Any:
    """What rclpy takes: lists for tuples."""
    return list(value) if isinstance(value, tuple) else value


def _add_range(descriptor: ParameterDescriptor, kind: Any, rule: Rule | None) -> None:
    if rule is None:
        return
    if rule.bounds is None or rule.many:
        each = "each entry " if rule.many else ""
        descriptor.additional_constraints = f"{each}{rule}"
        return
    low, high = rule.bounds.closed(whole=kind is int)
    if kind is float:
        low, high = max(-_LIMIT, low), min(_LIMIT, high)
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    else:
        low, high = int(max(-_WHOLE, low)), int(min(_WHOLE, high))
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]


__all__ = ["Place", "ParameterReader", "convert"]
