"""The words of ``wm-mpc bag import`` and of its mapping file, as the importer's settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wm_mpc.core.errors import DataError, UserError
from wm_mpc.data.bags.align import AlignConfig
from wm_mpc.data.bags.importer import ImportConfig
from wm_mpc.data.bags.parts import BagParts
from wm_mpc.data.bags.source import Bag
from wm_mpc.data.bags.topics import TopicConfig
from wm_mpc.data.bags.typelib import Decoder

_ALIASES = {
    "image_tolerance": "image_tolerance_s",
    "proprio_tolerance": "proprio_tolerance_s",
    "command_tolerance": "command_tolerance_s",
}


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
    groups: dict[type, dict[str, Any]] = {AlignConfig: {}, TopicConfig: {}, ImportConfig: {}}
    for option, value in options.items():
        name = _ALIASES.get(option, option.removesuffix("_topic"))
        kinds = [k for k in groups if name in {f.name for f in dataclasses.fields(k)}]
        if not kinds:
            raise UserError(f"{option}: no option of bag import")
        for kind in kinds:
            groups[kind][name] = value
    size = groups[ImportConfig].pop("size", None)
    if "types" in groups[ImportConfig]:
        groups[ImportConfig]["types"] = tuple(Path(p) for p in groups[ImportConfig]["types"])
    try:
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
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None


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
