"""Declared bounds in ``--help``: each option's help ends with what its annotation demands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from wm_mpc.core.fields import Checked, Rule, field_rules


def registry() -> ConstructorRegistry:
    """What ``tyro.cli`` needs to show the bounds of every ``Checked`` dataclass it meets."""
    made = ConstructorRegistry()
    asking: list[type] = []

    @made.struct_rule
    def with_bounds(info: StructTypeInfo) -> StructConstructorSpec | None:
        """Tyro's own reading of the class, with bounds after each field's help."""
        cls = info.type
        if not (isinstance(cls, type) and issubclass(cls, Checked)) or cls in asking:
            return None
        asking.append(cls)
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            asking.remove(cls)
        if not isinstance(spec, StructConstructorSpec):
            return None
        rules = field_rules(cls)
        fields = tuple(_told(item, rules.get(item.name)) for item in spec.fields)
        return dataclasses.replace(spec, fields=fields)

    return made


def _told(item: StructFieldSpec, rule: Rule | None) -> StructFieldSpec:
    """The field with its bounds in its help; tyro itself shows the words of a choice."""
    if rule is None or rule.bounds is None:
        return item
    return dataclasses.replace(item, helptext=_appended(item.helptext, f"Range: {rule}."))


def _appended(help_: str | Callable[[], str | None] | None, words: str) -> Callable[[], str]:
    def tell() -> str:
        before = (help_() if callable(help_) else help_) or ""
        return f"{before.rstrip()} {words}".strip()

    return tell
