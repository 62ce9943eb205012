"""The options of ``wm-mpc bag import``: those of the importer's settings, under flat names."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import field_docs, field_rules
from wm_mpc.data.bags.config import AlignConfig, ImportConfig
from wm_mpc.data.bags.settings import OPTIONS, settings_of
from wm_mpc.data.bags.topics import TopicConfig, read_mapping
from wm_mpc.data.store.store import Store

Bags = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="BAG ...")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
_DEFAULTS = {
    "size": "as recorded", "image_tolerance": "0.499 periods", "proprio_tolerance": "1 period",
    "command_tolerance": "1.5 periods", "depth_range": "depth is refused",
}  # fmt: skip
_WORDS = {"size": "[px] height and width of the stored pictures"}


def _said(config: type, words: str) -> type:
    """Dataclass of a configuration's options; None stands for what was not said."""
    hints, docs = typing.get_type_hints(config), field_docs(config)
    defaults = {item.name: item.default for item in dataclasses.fields(config)}
    rules = field_rules(config)
    fields = []
    for option, (owner, name) in OPTIONS.items():
        if owner is not config:
            continue
        # a choice is checked with the rest, so that one line says what is wrong with it
        hint: Any = str if typing.get_origin(hints[name]) is Literal else hints[name]
        hint = int if option == "size" else hint
        default = _DEFAULTS.get(option) or _shown(defaults[name])
        bounds = f" Range: {rules[name]}." if name in rules and rules[name].bounds else ""
        words = _WORDS.get(option) or docs[name].rstrip(".")
        help_ = f"{words} [{default}].{bounds}"
        kind = Annotated[hint | None, tyro.conf.arg(help=help_)]
        fields.append((option, kind, dataclasses.field(default=None)))
    return dataclasses.make_dataclass(
        config.__name__, fields, frozen=True, namespace={"__doc__": words}
    )


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    words = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return words or "none"


Topics = _said(TopicConfig, "Which topic is what.")
What = _said(ImportConfig, "What is done to every bag.")
Align = _said(AlignConfig, "How messages become steps.")
_GROUPS = ("topics", "what", "align")


@dataclass(frozen=True)
class Import:
    """Import bags, or LeRobot datasets, into a training store.

    What is not given is taken from --mapping, then from the defaults in brackets. The name of a
    topic without a leading slash fits the one topic that ends in it.
    """

    bags: Bags
    """rosbag2 folders, .mcap or .db3 files; or folders of LeRobot datasets."""

    out: Path
    """Store to create or append to."""

    mapping: Path | None = None
    """YAML file with any of rate and the grouped options below, underscores instead of dashes."""

    rate: float | None = None
    """[Hz] control rate; [that of the store, if it exists]."""

    topics: Annotated[Topics, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Topics)
    what: Annotated[What, tyro.conf.arg(name="")] = dataclasses.field(default_factory=What)
    align: Annotated[Align, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Align)

    report: Path | None = None
    """JSON report: what was used, what dropped and why, normalisation statistics."""

    strict: Flag = False
    """A bag that is not wholly sound leaves nothing in the store, and the exit code is 1."""

    quiet: Flag = False
    """No progress bar."""

    def options(self) -> dict[str, Any]:
        """Options given on the command line or, failing that, in the mapping file.

        Raises:
            UserError: the mapping is unreadable, or has a key that is no option.
        """
        names = ("rate", *OPTIONS)
        found = read_mapping(self.mapping) if self.mapping else {}
        unknown = sorted(set(found) - set(names))
        if unknown:
            known = ", ".join(names)
            raise UserError(f"mapping {self.mapping}: {unknown[0]!r} is none of {known}")
        said = {"rate": self.rate}
        for group in _GROUPS:
            said |= vars(getattr(self, group))
        return {
            name: value
            for name, value in (found | {k: v for k, v in said.items() if v is not None}).items()
            if value is not None
        }


def import_config(config: Import) -> ImportConfig:
    """Turn command-line options into the importer's configuration.

    Raises:
        UserError: an option is missing, of the wrong type or out of range.
    """
    options = config.options()
    if "rate" not in options and (config.out / "store.json").exists():
        options["rate"] = 1 / Store.open(config.out, skip_bad=True).spec.control_period
    return dataclasses.replace(settings_of(options), strict=config.strict)
