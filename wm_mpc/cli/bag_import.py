"""The options of ``wm-mpc bag import``, and what they mean to the importer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from wm_mpc.core.errors import UserError
from wm_mpc.data.bags.importer import ImportConfig
from wm_mpc.data.bags.settings import settings_of
from wm_mpc.data.bags.topics import read_mapping
from wm_mpc.data.store.store import Store

Bags = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="BAG ...")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Import:
    """Import bags into a training store.

    What is not given is taken from --mapping, then from the defaults in brackets.
    """

    bags: Bags
    """rosbag2 folders, .mcap or .db3 files."""

    out: Path
    """Store to create or append to."""

    mapping: Path | None = None
    """YAML file with any of the options below (underscores instead of dashes)."""

    rate: float | None = None
    """[Hz] control rate; [that of the store, if it exists]."""

    image_topic: str | None = None
    """Image or CompressedImage; a name without a leading slash fits the one topic ending in it
    [image]."""

    proprio_topic: str | None = None
    """JointState or any message with numbers; '' when there is none [proprio]."""

    command_topic: str | None = None
    """Any message with numbers [command]."""

    state_topic: str | None = None
    """True simulator state, where recorded [task_state]."""

    goal_topic: str | None = None
    """Goal pictures; another picture begins another episode [goal_image]."""

    marker_topic: str | None = None
    """TOPIC or TOPIC:FIELD, comma-separated; each message, or change of the field, begins another
    episode [episode,task_state:episode]."""

    trajectories_topic: str | None = None
    """Ready-made wm_mpc/Trajectory messages [corrected_trajectory]."""

    proprio_fields: tuple[str, ...] | None = None
    """Fields to read, in order, e.g. pose.position.x pose.position.y."""

    command_fields: tuple[str, ...] | None = None
    """Fields to read, in order, e.g. twist.linear.x twist.angular.z."""

    joints: tuple[str, ...] | None = None
    """Joint names in the order wanted [the store's, or as in the first message]."""

    command_joints: tuple[str, ...] | None = None
    """Likewise of commands that name joints [the store's, or as in the first message]."""

    proprio_unit: str | None = None
    """Unit of positions, e.g. rad; kept in the store and compared with it [not told]."""

    command_unit: str | None = None
    """Unit of commands, likewise [what the type says]."""

    command_role: str | None = None
    """What a command is: position, velocity, effort, increment [what the type says]."""

    size: int | None = None
    """[px] height and width of the stored pictures [as recorded]."""

    crop: bool | None = None
    """Cut pictures to a square around the centre before scaling, else stretch [yes]."""

    task: str | None = None
    """Task or robot name of the store [the store's, or robot]."""

    depth_range: tuple[float, float] | None = None
    """[m] NEAR FAR: depth pictures become grey by this range [depth is refused]."""

    types: tuple[Path, ...] | None = None
    """Folders with PACKAGE/msg/NAME.msg of types that a bag does not define."""

    stamps: str | None = None
    """auto, header or receive (the recorder's): the clock that dates messages; single topics by
    TOPIC=header, after commas, e.g. auto,/camera/image=receive [auto]."""

    rate_tolerance: float | None = None
    """Share of the control period by which a step may differ from it; a bag that cannot keep it
    is refused with the rate that fits [0.1]."""

    image_tolerance: float | None = None
    """[s] a frame this near to a step belongs to it [0.499 periods]."""

    proprio_method: str | None = None
    """linear, nearest or zoh [linear]."""

    proprio_tolerance: float | None = None
    """[s] how far samples may lie from their step [1 period]."""

    command_method: str | None = None
    """zoh, nearest or linear [zoh]."""

    command_phase: float | None = None
    """[0, 1) part of the step at which its command is read [0.9]."""

    command_tolerance: float | None = None
    """[s] how long a command is held [1.5 periods]."""

    frame_stride: int | None = None
    """Steps from one frame to the next, where frames are rarer than steps [1, or the marker's]."""

    max_missing: int | None = None
    """Expected frames in a row that may be missing before the episode ends [3]."""

    min_steps: int | None = None
    """Shorter episodes are dropped [5]."""

    max_steps: int | None = None
    """Longer episodes are cut; bounds the memory [1000]."""

    report: Path | None = None
    """JSON report: what was used, what dropped and why, normalisation statistics."""

    strict: Flag = False
    """A bag that is not wholly sound leaves nothing in the store, and the exit code is 1."""

    quiet: Flag = False
    """No progress bar."""


def _options(config: Import) -> dict[str, Any]:
    """Options given on the command line or, failing that, in the mapping file."""
    names = [f.name for f in dataclasses.fields(Import)]
    names = names[names.index("rate") : names.index("report")]
    mapping = read_mapping(config.mapping) if config.mapping else {}
    unknown = sorted(set(mapping) - set(names))
    if unknown:
        raise UserError(f"mapping {config.mapping}: {unknown[0]!r} is none of {', '.join(names)}")
    given = {name: getattr(config, name) for name in names}
    return {
        name: mapping.get(name) if value is None else value
        for name, value in given.items()
        if value is not None or mapping.get(name) is not None
    }


def import_config(config: Import) -> ImportConfig:
    """Turn command-line options into the importer's configuration.

    Raises:
        UserError: an option is missing, of the wrong type or out of range.
    """
    options = _options(config)
    rate = options.pop("rate", None)
    if rate is None and (config.out / "store.json").exists():
        rate = 1 / Store.open(config.out, skip_bad=True).spec.control_period
    if rate is not None:
        options["rate"] = rate
    return dataclasses.replace(settings_of(options), strict=config.strict)
