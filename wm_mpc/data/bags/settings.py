"""The words of ``wm-mpc bag import`` and of its mapping file, as the importer's settings."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wm_mpc.core.errors import DataError, UserError
from wm_mpc.data.bags.config import AlignConfig, ImportConfig
from wm_mpc.data.bags.parts import BagParts
from wm_mpc.data.bags.source import Bag
from wm_mpc.data.bags.topics import TopicConfig
from wm_mpc.data.bags.typelib import Decoder

CONFIGS = (TopicConfig, ImportConfig, AlignConfig)
_TOPICS = ("image", "proprio", "command", "state", "goal", "marker", "trajectories")
_NO_OPTIONS = ("align", "topics", "strict", "period_s", "step_tolerance")


def option_of(field: str) -> str:
    """Name of a field as an option: ``image`` -> ``image_topic``; units are left out.

    Empty for what is no option of its own.
    """
    if field in _NO_OPTIONS:
        return ""
    return f"{field}_topic" if field in _TOPICS else field.removesuffix("_s")


OPTIONS: dict[str, tuple[type, str]] = {
    option_of(item.name): (config, item.name)
    for config in CONFIGS
    for item in dataclasses.fields(config)
    if option_of(item.name)
}
"""Option -> the configuration and the field that it sets. ``rate`` comes on top of them."""


def settings_of(options: dict[str, Any], bags: Sequence[Path] = ()) -> ImportConfig:
    """Turn options into settings.

    Args:
        options: by the names of the command line, underscores for dashes; ``rate`` [Hz] may be
            missing where ``bags`` are given: then it is the camera's.
        bags: whose camera tells the rate.

    Raises:
        UserError: an option is unknown, missing, of the wrong type or out of range.
    """
    options = dict(options)
    rate = options.pop("rate", None)
    groups: dict[type, dict[str, Any]] = {config: {} for config in CONFIGS}
    for option, value in options.items():
        if option not in OPTIONS:
            raise UserError(f"{option}: no option of bag import")
        config, field = OPTIONS[option]
        groups[config][field] = _of_kind(option, value, typing.get_type_hints(config)[field])
    size = groups[ImportConfig].pop("size", None)
    topics = TopicConfig(**groups[TopicConfig])
    if rate is None and bags:
        rate = camera_rate(bags[0], topics)
    if rate is None:
        raise UserError("rate: missing; the control rate [Hz], e.g. --rate 10")
    if not isinstance(rate, (int, float)) or not 0 < rate <= 1000:
        raise UserError(f"rate: {rate!r}; more than 0 and at most 1000 Hz expected")
    return ImportConfig(
        align=AlignConfig(period_s=1 / rate, **groups[AlignConfig]),
        topics=topics,
        size=None if size is None else (size, size),
        **groups[ImportConfig],
    )


def _of_kind(option: str, value: Any, hint: Any) -> Any:
    """A value from a mapping file as the field wants it; numbers are judged by the field.

    Raises:
        UserError: text where a list is wanted, or the other way round.
    """
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{option}: {value!r}; a list expected")
        entry = typing.get_args(hint)[0]
        return tuple(Path(str(part)) if entry is Path else part for part in value)
    if hint in (str, bool) and not isinstance(value, hint):
        kind = "text" if hint is str else "true or false"
        raise UserError(f"{option}: {value!r}; {kind} expected")
    return value


def camera_rate(path: Path, topics: TopicConfig) -> float:
    """Rate of a bag's camera [Hz], rounded where a round number is as good.

    Raises:
        DataError: no camera, or too few frames to tell.
    """
    bag = Bag(path)
    parts = BagParts(topics, bag, Decoder(bag.definitions))
    parts.look("auto", 250_000_000, ((), ()), None, lambda position: None)
    clock = parts.clock("image")
    if clock is None or not clock.period_s:
        raise DataError(f"{path}: too few frames to tell a rate; give rate in {path.name}.yaml")
    rate = 1 / clock.period_s * (parts.frame_stride or 1)
    for digits in (0, 1, 2):
        if abs(round(rate, digits) - rate) < 0.02 * rate and round(rate, digits) > 0:
            return round(rate, digits)
    return rate
