"""``wm-mpc bag``: rosbag2 files in and out.

Exit codes: 0 all was sound, 1 nothing was usable, 2 bad input, 3 the sound part was used and the
rest is told.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from wm_mpc.cli.bag_import import Bags, Flag, Import, import_config
from wm_mpc.core.errors import UserError
from wm_mpc.core.fields import Checked, NonNegativeFloat, NonNegativeInt
from wm_mpc.core.provenance import write_report
from wm_mpc.data.bags.export import ExportConfig, Exporter
from wm_mpc.data.bags.import_report import COMPLETE, FAILED, PARTIAL
from wm_mpc.data.bags.importer import import_bags
from wm_mpc.data.bags.inspect import inspect_bag, recover_bag
from wm_mpc.data.bags.writer import BagWriter, WriterConfig
from wm_mpc.data.lerobot_import import import_lerobot
from wm_mpc.data.lerobot_reader import is_lerobot
from wm_mpc.data.store.store import Store, StoreError
from wm_mpc.nodes.recording.playing import PlayConfig

_Bag = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BAG")]


@dataclass(frozen=True)
class Info:
    """Show what bags hold; put a damaged one right."""

    bags: Bags
    """rosbag2 folders, .mcap or .db3 files."""

    check: Flag = False
    """Read every message, rather than trust sound metadata."""

    recover: Path | None = None
    """Copy what is readable of one damaged bag into this new bag."""

    report: Path | None = None
    """JSON report."""


@dataclass(frozen=True)
class Export(Checked):
    """Write a store as a rosbag2, or in the LeRobot dataset layout."""

    store: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """Store to read."""

    out: Path
    """Bag or dataset folder to create."""

    format: Literal["rosbag2", "lerobot"] = "rosbag2"
    """rosbag2, or lerobot (needs the extra [lerobot])."""

    first: NonNegativeInt = 0
    """First episode."""

    episodes: NonNegativeInt = 0
    """How many episodes; 0: all."""

    bag: ExportConfig = field(default_factory=ExportConfig)
    writer: WriterConfig = field(default_factory=WriterConfig)

    video_fps: NonNegativeFloat = 0.0
    """[Hz] frame rate of lerobot videos; 0: the store's control rate."""

    lerobot_version: Literal["v3.0", "v2.1"] = "v3.0"
    """v3.0 or v2.1."""

    lerobot_pictures: Literal["video", "image"] = "video"
    """video (lossy), or image: PNG inside the tables."""


@dataclass(frozen=True)
class Record:
    """Record the controller's topics until Ctrl-C; needs rclpy."""

    out: str = ""
    """Bag to create; empty: the task and the time of day."""

    task: str = "robot"
    """Part of an unnamed bag's name."""

    topics: tuple[str, ...] = ()
    """Topics to record; none: those of mpc_node, sim_bridge and recorder_node's documentation."""

    duration: float = 0.0
    """[s] end after this time; 0: at Ctrl-C."""

    writer: WriterConfig = field(default_factory=WriterConfig)


@dataclass(frozen=True)
class Play:
    """Play a bag into running nodes under its own clock (/clock); needs rclpy.

    Messages go out in the order of time, wherever in the files they lie. With --compare every
    recorded command waits for the live one and is compared with it.
    """

    bag: _Bag
    """rosbag2 folder, .mcap or .db3 file."""

    play: Annotated[PlayConfig, tyro.conf.arg(name="")] = field(default_factory=PlayConfig)

    answers: Path | None = None
    """New bag for what was played together with the commands that came back."""

    report: Path | None = None
    """JSON report."""


def run_play(config: Play) -> int:
    """Play in this process; 1 when a command is missing or differs."""
    from wm_mpc.bringup.ros_env import prepare

    prepare()
    from wm_mpc.nodes.recording.player import play

    result = play(config.bag, config.play, answers=config.answers)
    print(result.line())
    if config.report:
        write_report(config.report, None, [vars(result)])
    return COMPLETE if result.equal(config.play.tolerance) else FAILED


def run_record(config: Record) -> int:
    """Record in this process."""
    from wm_mpc.bringup.ros_env import prepare

    prepare()
    from wm_mpc.nodes.recording.recorder import RecorderConfig, record

    settings = RecorderConfig(out=config.out, task=config.task, duration_s=config.duration)
    if config.topics:
        settings = dataclasses.replace(settings, topics=config.topics)
    return record(settings, config.writer)


def run_import(config: Import) -> int:
    """Import, print a report, return the exit code."""
    if not config.bags:
        raise UserError("bags: none given; at least 1 expected")
    datasets = [path for path in config.bags if is_lerobot(path)]
    if datasets:
        if len(datasets) != len(config.bags):
            raise UserError("bags: rosbag2 and LeRobot datasets; import them one kind at a time")
        return _import_lerobot(config)
    settings = import_config(config)
    reports, statistics = import_bags(settings, config.bags, config.out, not config.quiet)
    for report in reports:
        print("\n".join(report.lines()))
    if len(reports) > 1:
        print(f"{sum(r.usable for r in reports)} episodes from {len(reports)} bags")
    if config.report:
        write_report(
            config.report,
            None,
            [report.row() for report in reports],
            settings=dataclasses.asdict(settings),
            statistics=statistics,
        )
    codes = {report.exit_code for report in reports}
    if codes == {FAILED}:
        return FAILED
    return COMPLETE if codes == {COMPLETE} else PARTIAL


def _import_lerobot(config: Import) -> int:
    """LeRobot datasets; their features are named where bags have topics."""
    said = config.options()
    unused = sorted(set(said) - _FEATURES.keys() - {"size", "task"})
    if unused:
        raise UserError(f"{unused[0]}: no option of a LeRobot dataset, which says that itself")
    features = tuple(said.get(name, "") for name in _FEATURES)
    size = (said["size"], said["size"]) if "size" in said else None
    reports = [
        import_lerobot(
            path, config.out, said.get("task", ""), size, features, config.strict,
            progress=not config.quiet,
        )  # fmt: skip
        for path in config.bags
    ]
    for report in reports:
        print("\n".join(report.lines()))
    if config.report:
        write_report(
            config.report, None, [{**vars(r), "path": str(r.path)} for r in reports]
        )
    return PARTIAL if any(report.problems for report in reports) else COMPLETE


def run_info(config: Info) -> int:
    """Describe bags; 3 when one is damaged."""
    if config.recover:
        if len(config.bags) != 1:
            raise UserError(f"recover: {len(config.bags)} bags given; 1 expected")
        count = recover_bag(config.bags[0], config.recover)
        print(f"{count} messages copied to {config.recover}")
    infos = [inspect_bag(bag, config.check) for bag in config.bags]
    for info in infos:
        print("\n".join(info.lines()))
    if config.report:
        write_report(config.report, None, [info.row() for info in infos])
    return PARTIAL if any(info.problems for info in infos) else COMPLETE


def run_export(config: Export) -> int:
    """Export a store."""
    store = Store.open(config.store)
    last = config.first + config.episodes if config.episodes else len(store)
    if not config.first < last <= len(store):
        raise UserError(
            f"episodes: {config.first} to {last - 1}; {config.store} has 0 to {len(store) - 1}"
        )
    chosen = (store[i] for i in range(config.first, last))
    if config.format == "lerobot":
        from wm_mpc.data.lerobot import export_lerobot

        fps = config.video_fps or 1 / store.spec.control_period
        count = export_lerobot(
            chosen,
            config.out,
            fps,
            store.spec.task,
            version=config.lerobot_version,
            pictures=config.lerobot_pictures,
            channels=(store.spec.proprio_channels, store.spec.action_channels),
        )
    else:
        with BagWriter(config.out, config.writer) as writer:
            count = Exporter(writer, config.bag).write(chosen)
    print(f"{count} episodes written to {config.out}")
    return COMPLETE


_FEATURES = {"image_topic": "image", "proprio_topic": "state", "command_topic": "action"}
"""Option -> the feature of a LeRobot dataset that it names."""

_RUN: dict[type, Callable[[Any], int]] = {
    Record: run_record,
    Import: run_import,
    Info: run_info,
    Export: run_export,
    Play: run_play,
}
configs: dict[str, type] = {
    "record": Record,
    "import": Import,
    "info": Info,
    "export": Export,
    "play": Play,
}


def run(config: Any) -> int:
    """Run a sub-command; see the module for exit codes."""
    try:
        return _RUN[type(config)](config)
    except StoreError as error:
        raise UserError(str(error)) from error
