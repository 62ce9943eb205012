"""Parameters that change while a node runs: each checked, all of one call or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter

from wm_mpc.core.errors import UserError, one_line
from wm_mpc.core.fields import field_rules
from wm_mpc.nodes.common.parameters import RESERVED, ParameterReader, Place, convert

Config = TypeVar("Config")
Take = Callable[[Mapping[type, Any]], object]
"""Told the configurations that changed, by their classes; ``ValueError`` says why not."""


class LiveParameters:
    """Answers ``ros2 param set`` and the parameter services.

    A value is checked as at the start: type, bounds, what fields demand of one another. Fields
    without a mark (``wm_mpc.core.live``) are refused, with the reason that they need a restart.

    Args:
        reader: what was read at the start; it was built with ``live=True``.
        configs: the configurations read, one of each class.
        take: uses configurations that changed, all at once.
        unconfigured: whether nothing was built from them yet, or no more.

    Attributes:
        at_start: configurations at the start, which limits may not exceed; the owner may replace
            what stands for a default by what it means.
    """

    def __init__(
        self, reader: ParameterReader, configs: list[Any], take: Take,
        unconfigured: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._reader, self._node = reader, reader.node
        self._places = reader.places
        self._take, self._unconfigured = take, unconfigured
        self._now: dict[type, Any] = {type(config): config for config in configs}
        self.at_start = dict(self._now)
        reader.node.add_on_set_parameters_callback(self._on_set)

    def replace(self, prefix: str, config: Any) -> None:
        """Offer the parameters of another configuration in place of those under a prefix."""
        for name in [name for name, place in self._places.items() if place.prefix == prefix]:
            cls = self._places.pop(name).cls
            self._now.pop(cls, None)
            self._node.undeclare_parameter(name)
        self._now[type(config)] = self.at_start[type(config)] = config
        self._reader.read(config, prefix)

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            changed = self._changed(parameters)
            if changed:
                self._take(changed)
            self._now |= changed
        except ValueError as error:
            return SetParametersResult(successful=False, reason=one_line(error))
        except Exception as error:  # whatever a value leads to, the node goes on with the old one
            reason = f"{type(error).__name__}: {one_line(error)}"
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _changed(self, parameters: list[Parameter]) -> dict[type, Any]:
        """Configurations after a change.

        Raises:
            UserError: one line with the parameter's name and what is expected.
        """
        values: dict[type, dict[str, Any]] = {}
        for parameter in parameters:
            name = parameter.name
            if name.split(".")[0] in RESERVED[1:]:
                continue
            place = self._places.get(name)
            if place is None:  # use_sim_time
                self._refuse(name, parameter.value, self._node.get_parameter(name).value)
                continue
            value = convert(name, place.kind, parameter.value)
            if value == getattr(self._now[place.cls], place.field):
                continue
            self._check(name, place, value)
            values.setdefault(place.cls, {})[place.field] = value
        changed = {}
        for cls, fields in values.items():
            try:
                changed[cls] = dataclasses.replace(self._now[cls], **fields)
            except ValueError as error:
                prefix = next(p.prefix for p in self._places.values() if p.cls is cls)
                raise UserError(f"parameter {prefix}{error}") from None
        return changed

    def _refuse(self, name: str, value: Any, now: Any, how: str = "set it and restart") -> None:
        if value != now:
            raise UserError(
                f"parameter {name}: cannot change while the node runs; {how} "
                f"{self._node.get_name()}"
            )

    def _check(self, name: str, place: Place, value: Any) -> None:
        now = getattr(self._now[place.cls], place.field)
        if place.live is None:
            self._refuse(name, value, now)
            return
        if place.live.only == "unconfigured" and not self._unconfigured():
            self._refuse(name, value, now, "clean up (lifecycle) or restart")
        rule = field_rules(place.cls).get(place.field)
        if rule is not None and rule.refuses(value):
            raise UserError(f"parameter {name}: {value}; {rule} expected")
        words = place.live.refuses(value, getattr(self.at_start[place.cls], place.field))
        if words:
            raise UserError(f"parameter {name}: {value}; {words} expected; wider needs a restart")


__all__ = ["LiveParameters", "Take"]
