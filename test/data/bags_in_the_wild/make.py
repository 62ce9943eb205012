#!/usr/bin/env python3
"""Small bags as people really have them, each with what an import must make of it.

    python test/data/bags_in_the_wild/make.py --out bags        # writes all of them

A step ``k`` has a picture of colour ``k``, a joint at ``k`` and a command ``k``, so a store tells
whether it mixed anything up. ``CASES`` is read by ``test_bags_in_the_wild.py``.
"""

from __future__ import annotations

import argparse
import sqlite3
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bag_helpers import START, Tape, at, picture, tape

from wm_mpc.data.bags.mcap_scan import chunk_content
from wm_mpc.data.bags.zstandard import zstd

STEPS = 40
S = 10**9
CHOSEN = {"mcap": ".mcap", "sqlite3": ".db3"}


@dataclass(frozen=True)
class Case:
    """One kind of bag.

    Attributes:
        make: writes it; ``make(path, storage)``.
        words: options of ``bag import`` beside ``--rate 10``.
        code: exit code.
        said: what the report says.
        lengths: steps of the episodes; None: not compared.
        storages: in which it exists.
        second: another bag imported into the same store first.
        check: what else holds of the store.
        aligned: whether colour, joint and command of a step must agree.
    """

    make: Callable[[Path, str], None]
    words: tuple[str, ...] = ()
    code: int = 0
    said: tuple[str, ...] = ()
    lengths: tuple[int, ...] | None = (STEPS - 1,)
    storages: tuple[str, ...] = ("mcap", "sqlite3")
    second: Callable[[Path, str], None] | None = None
    check: Callable[[list], None] | None = None
    aligned: bool = True
    name: str = field(default="bag")


CASES: dict[str, Case] = {}


def case(**settings: Any) -> Callable:
    """Register the function below as the maker of a case, under its own name."""

    def register(function: Callable[[Tape], None]) -> Callable:
        def make(path: Path, storage: str) -> None:
            bag = tape(path, storage)
            function(bag)
            bag.writer.close()

        CASES[function.__name__] = Case(make, **settings)
        return function

    return register


def after(name: str, **settings: Any) -> Callable:
    """Register a function that changes the finished bag of another case."""

    def register(function: Callable[[Path, str], None]) -> Callable:
        def make(path: Path, storage: str) -> None:
            CASES[name].make(path, storage)
            function(path, storage)

        CASES[function.__name__] = Case(make, **settings)
        return function

    return register


def joints(bag: Tape, stamp: int, names: list[str], position: Any, velocity: Any = (),
           log: int | None = None) -> None:  # fmt: skip
    (kind,) = bag.writer.types("sensor_msgs/msg/JointState")
    arrays = [np.array(v, np.float64) for v in (position, velocity, ())]
    message = kind(bag.header(stamp), names, *arrays)
    bag.put("/proprio", "sensor_msgs/msg/JointState", stamp if log is None else log, message)


def trajectory(bag: Tape, stamp: int, names: list[str], points: list[tuple[float, list]]) -> None:
    kind, point, duration = bag.writer.types(
        "trajectory_msgs/msg/JointTrajectory", "trajectory_msgs/msg/JointTrajectoryPoint",
        "builtin_interfaces/msg/Duration",
    )  # fmt: skip
    none = np.zeros(0)
    made = [
        point(np.array(v, np.float64), none, none, none, duration(int(t), round(t % 1 * 1e9)))
        for t, v in points
    ]
    message = kind(bag.header(stamp), names, made)
    bag.put("/command", "trajectory_msgs/msg/JointTrajectory", stamp, message)


def step(bag: Tape, k: int, image: int = 0, proprio: int = 0, log: int = 0) -> None:
    """A step whose headers are off by so much [ns]; ``log`` moves everything's reception."""
    bag.image(at(k) + image, picture(k), log=at(k) + log)
    bag.proprio(at(k) + proprio, np.array([k, -k]), log=at(k) + log)
    bag.command(at(k) + log + 20_000_000, np.array([k, k / 2]))


# ---- order -----------------------------------------------------------------------------------


@case()
def plain(bag: Tape) -> None:
    bag.steps(range(STEPS))


@case(said=("sorted by time",))
def topic_by_topic(bag: Tape) -> None:
    for k in range(STEPS):
        bag.image(at(k), picture(k))
    for k in range(STEPS):
        bag.proprio(at(k), np.array([k, -k]))
    for k in range(STEPS):
        bag.command(at(k) + 20_000_000, np.array([k, k / 2]))


@case(said=("sorted by time",))
def topics_in_blocks(bag: Tape) -> None:
    for begin in range(0, STEPS, 10):
        block = range(begin, begin + 10)
        for k in block:
            bag.command(at(k) + 20_000_000, np.array([k, k / 2]))
        for k in block:
            bag.image(at(k), picture(k))
        for k in block:
            bag.proprio(at(k), np.array([k, -k]))


@case(said=("sorted by time",))
def pieces_shuffled(bag: Tape) -> None:
    for begin in (5, 0, 15, 10, 25, 20, 35, 30):
        bag.steps(range(begin, begin + 5))


def files_in_wrong_order(path: Path, storage: str) -> None:
    bag = tape(path, storage, split_s=1.0)
    bag.steps(range(STEPS))
    bag.writer.close()
    file = path / "metadata.yaml"
    document = yaml.safe_load(file.read_text())
    document["rosbag2_bagfile_information"]["relative_file_paths"].reverse()
    file.write_text(yaml.safe_dump(document))


CASES["files_in_wrong_order"] = Case(files_in_wrong_order, said=("sorted by time",))


@case(code=3, said=("stamp goes backward",))
def one_stamp_far_ahead(bag: Tape) -> None:
    for k in range(STEPS):
        bag.steps(range(k, k + 1))
        if k == 20:
            bag.proprio(at(k) + 500 * S, np.array([999, 999]), log=at(k) + 1)


# ---- rates -----------------------------------------------------------------------------------


def camera(rate: float) -> Callable[[Tape], None]:
    def make(bag: Tape) -> None:
        for n in range(round(4 * rate)):
            bag.image(START + round(n * S / rate), picture(round(n * 10 / rate)))
        for k in range(STEPS):
            bag.proprio(at(k), np.array([k, -k]))
            bag.command(at(k) + 20_000_000, np.array([k, k / 2]))

    make.__name__ = f"camera_{rate:g}_hz".replace(".", "_")
    return make


for _rate, _fits in ((12, "--rate 12"), (14.9, "--rate 14.9"), (7.5, "--rate 7.5")):
    case(code=1, said=(f"frames come at {_rate:.2f} Hz", _fits), lengths=())(camera(_rate))
case()(camera(30))
case(lengths=None, aligned=False)(camera(9.7))
case(code=1, said=("--frame-stride 5",), lengths=())(camera(2))
CASES["camera_2_hz_stride"] = Case(
    CASES["camera_2_hz"].make, ("--frame-stride", "5"), lengths=None, aligned=False
)
CASES["camera_12_hz_at_12"] = Case(
    CASES["camera_12_hz"].make, ("--rate", "12"), lengths=None, aligned=False
)


# ---- names -----------------------------------------------------------------------------------

ARM = ["shoulder", "elbow"]


@case()
def arm(bag: Tape) -> None:
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        joints(bag, at(k), ARM, [k, -k])
        trajectory(bag, at(k) + 20_000_000, ARM, [(0.1, [k, k / 2])])


def _by_name(stored: list) -> None:
    for found in stored:
        np.testing.assert_allclose(found.proprio[:, 1], -found.proprio[:, 0])
        np.testing.assert_allclose(found.actions[:, 1], found.actions[:, 0] / 2)


@case(second=CASES["arm"].make, said=("joints put in order",), lengths=(39, 39), check=_by_name)
def other_order_of_joints(bag: Tape) -> None:
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        joints(bag, at(k), ARM[::-1], [-k, k])
        trajectory(bag, at(k) + 20_000_000, ARM[::-1], [(0.1, [k / 2, k])])


@case(check=_by_name)
def order_changes_within(bag: Tape) -> None:
    for k in range(STEPS):
        turn = 1 if k % 2 == 0 else -1
        bag.image(at(k), picture(k))
        joints(bag, at(k), ARM[::turn], [k, -k][::turn])
        trajectory(bag, at(k) + 20_000_000, ARM[::turn], [(0.1, [k, k / 2][::turn])])


@case(second=CASES["arm"].make, code=1, said=("'shoulder' is in no message",), lengths=(39,))
def other_joints(bag: Tape) -> None:
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        joints(bag, at(k), ["left", "right"], [k, -k])
        trajectory(bag, at(k) + 20_000_000, ["left", "right"], [(0.1, [k, k])])


@case(said=("several points",))
def trajectories_of_five_points(bag: Tape) -> None:
    for k in range(STEPS):
        if k % 5 == 0:
            points = [((i + 1) * 0.1, [k + i, (k + i) / 2]) for i in range(5)]
            trajectory(bag, at(k) + 20_000_000, ARM, points)
        bag.image(at(k), picture(k))
        joints(bag, at(k), ARM, [k, -k])


def _gripper(stored: list) -> None:
    (found,) = stored
    assert found.proprio.shape[1] == 3
    np.testing.assert_allclose(found.proprio[:, 2], 2 * found.proprio[:, 0], atol=1e-3)


@case(said=("2 publishers of different joints",), check=_gripper, lengths=None)
def arm_and_gripper_on_one_topic(bag: Tape) -> None:
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        joints(bag, at(k), ARM, [k, -k])
        bag.command(at(k) + 20_000_000, np.array([k, k / 2]))
        for i in range(5):
            joints(bag, at(k + i / 5) + 1, ["gripper"], [2 * (k + i / 5)])


@case()
def velocity_is_nan(bag: Tape) -> None:
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        joints(bag, at(k), ARM, [k, -k], [np.nan, np.nan])
        bag.command(at(k) + 20_000_000, np.array([k, k / 2]))


@case()
def velocity_comes_and_goes(bag: Tape) -> None:
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        joints(bag, at(k), ARM, [k, -k], [0.0, 0.0] if k % 2 else [])
        bag.command(at(k) + 20_000_000, np.array([k, k / 2]))


def _velocity(stored: list) -> None:
    np.testing.assert_allclose(stored[0].proprio[:, 2:], 1.0)


@case(check=_velocity)
def velocity_is_there(bag: Tape) -> None:
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        joints(bag, at(k), ARM, [k, -k], [1.0, 1.0])
        bag.command(at(k) + 20_000_000, np.array([k, k / 2]))


@case(second=CASES["plain"].make, code=3, said=("degrees and radians mixed?",), aligned=False,
      lengths=(39, 39))  # fmt: skip
def degrees(bag: Tape) -> None:
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        bag.proprio(at(k), np.array([k, -k]) * 57.29578)
        bag.command(at(k) + 20_000_000, np.array([k, k / 2]))


def _turning(k: int) -> float:
    return float((0.2 * k + np.pi) % (2 * np.pi) - np.pi)


@case(code=3, lengths=None, aligned=False,
      said=("angles jump by a turn between two samples",))  # fmt: skip
def joint_that_turns(bag: Tape) -> None:
    """A joint that turns for ever, reported half a step beside the pictures."""
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        joints(bag, at(k - 0.5), ARM, [_turning(k), 0.0])
        bag.command(at(k) + 20_000_000, np.array([k, k / 2]))


def _never_between(stored: list) -> None:
    (found,) = stored
    assert np.abs(np.diff(found.proprio[:, 0])).max() > 6


CASES["joint_that_turns_nearest"] = Case(
    CASES["joint_that_turns"].make, ("--proprio-method", "nearest"), lengths=None, aligned=False,
    check=_never_between,
)  # fmt: skip


# ---- clocks ----------------------------------------------------------------------------------


@case(said=("years from reception",))
def camera_stamps_since_boot(bag: Tape) -> None:
    for k in range(STEPS):
        step(bag, k, image=77 * S - START)


@case(said=("headers are zero",))
def camera_stamps_nothing(bag: Tape) -> None:
    for k in range(STEPS):
        step(bag, k, image=-at(k))


@case(said=("+3.000 s from reception",))
def clocks_three_seconds_apart(bag: Tape) -> None:
    for k in range(STEPS):
        step(bag, k, image=3 * S)


@case(said=("stands still",))
def camera_header_stands_still(bag: Tape) -> None:
    for k in range(STEPS):
        step(bag, k, image=START - at(k))


@case()
def simulated_time_and_commands_without_header(bag: Tape) -> None:
    for k in range(STEPS):
        step(bag, k, image=-START, proprio=-START)


CASES["header_asked_for_one_topic"] = Case(
    CASES["clocks_three_seconds_apart"].make, ("--stamps", "auto,/image=receive"),
    said=("as asked",),
)  # fmt: skip
CASES["header_of_a_topic_without"] = Case(
    CASES["plain"].make, ("--stamps", "/command=header"), 1, ("/command has no header",), ()
)


@case(lengths=(19, 19), said=("1 ended: clock set back",))
def clock_set_back_two_seconds(bag: Tape) -> None:
    for k in range(STEPS):
        shift = 0 if k < 20 else -2 * S
        step(bag, k, image=shift, proprio=shift, log=shift)


@case(lengths=(19, 19))
def clock_set_ahead_a_minute(bag: Tape) -> None:
    for k in range(STEPS):
        shift = 0 if k < 20 else 60 * S
        step(bag, k, image=shift, proprio=shift, log=shift)


# ---- storage ---------------------------------------------------------------------------------


@after("plain", storages=("sqlite3",))
def sqlite_in_wal_mode(path: Path, storage: str) -> None:
    (file,) = path.glob("*.db3")
    base = sqlite3.connect(file)
    base.execute("PRAGMA journal_mode=WAL")
    base.close()


@after("sqlite_in_wal_mode", storages=("sqlite3",))
def empty_wal_left_by_a_reader(path: Path, storage: str) -> None:
    (file,) = path.glob("*.db3")
    Path(f"{file}-wal").touch()
    Path(f"{file}-shm").write_bytes(bytes(32768))


@after("plain", storages=("sqlite3",))
def wal_with_messages(path: Path, storage: str) -> None:
    """A recorder that was killed before its last messages came into the main file."""
    (file,) = path.glob("*.db3")
    base = sqlite3.connect(file, isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA wal_autocheckpoint=0")
    base.execute("UPDATE messages SET timestamp = timestamp WHERE id > 30")
    kept = [Path(f"{file}{end}").read_bytes() for end in ("", "-wal")]
    base.close()
    for end, data in zip(("", "-wal"), kept, strict=True):
        Path(f"{file}{end}").write_bytes(data)


@after("plain", code=3, said=("metadata.yaml is damaged",))
def metadata_cut_short(path: Path, storage: str) -> None:
    file = path / "metadata.yaml"
    text = file.read_text()
    file.write_text(text[: text.index("topics_with_message_count") + 60])


@after("plain", code=3, said=("no metadata.yaml",))
def no_metadata(path: Path, storage: str) -> None:
    (path / "metadata.yaml").unlink()


CASES["folder_with_odd_name"] = Case(CASES["plain"].make, name="a #1? %41&b=c")


def _old_schema(path: Path, storage: str, count: int) -> None:
    """As the first versions of rosbag2 wrote them, and as its own test resources are."""
    path.mkdir()
    file = path / "talker.db3"
    text = b"\0\1\0\0\x06\0\0\0Hello\0"
    base = sqlite3.connect(file)
    base.execute("PRAGMA journal_mode=WAL")
    base.executescript(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
        "serialization_format TEXT NOT NULL);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, "
        "timestamp INTEGER NOT NULL, data BLOB NOT NULL);"
        "INSERT INTO topics VALUES (1, '/topic', 'std_msgs/msg/String', 'cdr');"
    )
    rows = [(1, at(k), text) for k in range(count)]
    base.executemany("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)", rows)
    base.commit()
    base.close()
    topic = {"name": "/topic", "type": "std_msgs/msg/String", "serialization_format": "cdr"}
    info = {
        "version": 1, "storage_identifier": "sqlite3",
        "relative_file_paths": [f"{path.name}/talker.db3"],
        "duration": {"nanoseconds": max(0, count - 1) * S // 10},
        "starting_time": {"nanoseconds_since_epoch": START if count else 2**63 - 1},
        "message_count": count,
        "topics_with_message_count": [{"topic_metadata": topic, "message_count": count}],
    }  # fmt: skip
    (path / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": info}))


def talker_of_the_first_rosbag2(path: Path, storage: str) -> None:
    _old_schema(path, storage, 10)


CASES["talker_of_the_first_rosbag2"] = Case(
    talker_of_the_first_rosbag2, code=2, lengths=(), storages=("sqlite3",),
    said=("'image' is not in the bag; its topics are /topic (std_msgs/msg/String)",),
)  # fmt: skip


def empty_bag_of_the_first_rosbag2(path: Path, storage: str) -> None:
    _old_schema(path, storage, 0)


CASES["empty_bag_of_the_first_rosbag2"] = Case(
    empty_bag_of_the_first_rosbag2, code=2, lengths=(), storages=("sqlite3",),
    said=("'image' is not in the bag",),
)  # fmt: skip


@case(code=1, lengths=(), said=("image /image: no messages",))
def topics_without_messages(bag: Tape) -> None:
    for topic, kind in (
        ("/image", "sensor_msgs/msg/Image"), ("/proprio", "sensor_msgs/msg/JointState"),
        ("/command", "std_msgs/msg/Float64MultiArray"),
    ):  # fmt: skip
        bag.writer.add_topic(topic, kind)


# ---- types -----------------------------------------------------------------------------------


@after("plain", storages=("sqlite3",))
def no_definitions_as_in_humble(path: Path, storage: str) -> None:
    (file,) = path.glob("*.db3")
    with sqlite3.connect(file) as base:
        base.execute("DROP TABLE message_definitions")
    base.close()


def _register(bag: Tape, name: str, text: str) -> Any:
    from rosbags.typesys import get_types_from_msg

    store = bag.writer._types
    store.register(get_types_from_msg(text, name))
    return store.types[name]


@case()
def unknown_types_beside(bag: Tape) -> None:
    kind = _register(bag, "acme_msgs/msg/Secret", "float64 x\n")
    for k in range(STEPS):
        bag.steps(range(k, k + 1))
        bag.put("/secret", "acme_msgs/msg/Secret", at(k), kind(1.0))


def _ackermann(bag: Tape) -> None:
    drive = "ackermann_msgs/msg/AckermannDrive"
    words = "float32 steering_angle\nfloat32 steering_angle_velocity\nfloat32 speed\n"
    inner = _register(bag, drive, words + "float32 acceleration\nfloat32 jerk\n")
    outer = _register(
        bag, "ackermann_msgs/msg/AckermannDriveStamped",
        "std_msgs/Header header\nackermann_msgs/AckermannDrive drive\n",
    )  # fmt: skip
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        bag.proprio(at(k), np.array([k, -k]))
        message = outer(bag.header(at(k) + 20_000_000), inner(k / 2, 0.0, float(k), 0.0, 0.0))
        bag.put("/command", outer.__msgtype__, at(k) + 20_000_000, message)


@case()
def ackermann(bag: Tape) -> None:
    _ackermann(bag)


CASES["ackermann_by_fields"] = Case(
    CASES["ackermann"].make, ("--command-fields", "drive.speed", "drive.jerk")
)


@after("ackermann", storages=("sqlite3",), code=1, lengths=(), said=("--types FOLDER",))
def ackermann_without_definition(path: Path, storage: str) -> None:
    no_definitions_as_in_humble(path, storage)


# ---- pictures --------------------------------------------------------------------------------


def encoded(name: str, make: Callable[[int], tuple[np.ndarray, int]], **settings: Any) -> None:
    """A case whose camera sends ``make(k)``: bytes and step."""

    def write(bag: Tape) -> None:
        for k in range(STEPS):
            data, row = make(k)
            raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
            (kind,) = bag.writer.types("sensor_msgs/msg/Image")
            message = kind(bag.header(at(k)), 16, 16, name, 0, row, raw)
            bag.put("/image", "sensor_msgs/msg/Image", at(k), message)
            bag.proprio(at(k), np.array([k, -k]))
            bag.command(at(k) + 20_000_000, np.array([k, k / 2]))

    write.__name__ = f"camera_sends_{name.lower()}"
    case(**{"aligned": False, **settings})(write)


def grey(k: int) -> np.ndarray:
    return np.full((16, 16), 16 + 5 * k, np.uint8)


def _mono(stored: list) -> None:
    (found,) = stored
    levels = found.images[:, 8, 8].astype(int)
    assert np.all(np.diff(levels[:, 0]) > 0) and np.ptp(levels, axis=1).max() <= 1


def _pairs(k: int, luma_first: bool) -> tuple[np.ndarray, int]:
    chroma = np.full((16, 16), 128, np.uint8)
    order = (grey(k), chroma) if luma_first else (chroma, grey(k))
    return np.stack(order, 2), 32


def _planes(k: int) -> tuple[np.ndarray, int]:
    return np.concatenate([grey(k), np.full((8, 16), 128, np.uint8)]), 16


encoded("yuv422_yuy2", lambda k: _pairs(k, True), check=_mono)
encoded("uyvy", lambda k: _pairs(k, False), check=_mono)
encoded("nv12", _planes, check=_mono)
encoded("nv21", _planes, check=_mono)
encoded("bayer_rggb8", lambda k: (grey(k), 16), check=_mono)
encoded("bayer_gbrg16", lambda k: (grey(k).astype(np.uint16) << 8, 32), check=_mono)
encoded(
    "rgb8", lambda k: (np.pad(picture(k).reshape(16, 48), ((0, 0), (0, 16))), 64), aligned=True
)  # with rows that are padded
encoded("rgb16", lambda k: (np.stack([grey(k)] * 3, 2).astype(np.uint16) << 8, 96), check=_mono)
encoded(
    "16UC1", lambda k: (grey(k).astype(np.uint16) * 10, 32),
    code=1, lengths=(), said=("16UC1 is depth, not a picture",),
)  # fmt: skip
encoded(
    "32FC1", lambda k: (grey(k).astype(np.float32), 64),
    code=1, lengths=(), said=("--depth-range NEAR FAR",),
)  # fmt: skip
CASES["depth_by_range"] = Case(
    CASES["camera_sends_16uc1"].make, ("--depth-range", "0.1", "3.0"), aligned=False
)


def compressed(name: str, form: str, make: Callable[[int], bytes], **settings: Any) -> None:
    """A case whose camera sends CompressedImage."""

    def write(bag: Tape) -> None:
        (kind,) = bag.writer.types("sensor_msgs/msg/CompressedImage")
        for k in range(STEPS):
            data = np.frombuffer(make(k), np.uint8)
            message = kind(bag.header(at(k)), form, data)
            bag.put("/image/compressed", "sensor_msgs/msg/CompressedImage", at(k), message)
            bag.proprio(at(k), np.array([k, -k]))
            bag.command(at(k) + 20_000_000, np.array([k, k / 2]))

    write.__name__ = f"compressed_{name}"
    case(**{"aligned": False, **settings})(write)


def _png(k: int) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(picture(k), cv2.COLOR_RGB2BGR))[1].tobytes()


compressed("png", "bgr8; png compressed bgr8", _png, aligned=True)
compressed("jpeg", "rgb8; jpeg compressed bgr8",
           lambda k: cv2.imencode(".jpg", grey(k))[1].tobytes(), check=_mono)  # fmt: skip
compressed("h264", "h264", lambda k: b"\0\0\0\1" + bytes([k]) * 50, code=1, lengths=(),
           said=("h264 has no whole pictures",))  # fmt: skip
compressed("depth", "16UC1; compressedDepth png", lambda k: bytes(12) + _png(k), code=1,
           lengths=(), said=("compressedDepth is depth",))  # fmt: skip
compressed("cut_short", "jpeg",
           lambda k: _png(k)[: -30 if k == 7 else None], code=3, lengths=(39,),
           said=("the end of the picture is missing",))  # fmt: skip

# ---- storage: files, versions, compressions ----------------------------------------------------


def _split(path: Path, storage: str, numbers: tuple[range, range]) -> None:
    """Two files, each with its own steps."""
    bag = tape(path, storage, split_s=1e6)
    bag.steps(numbers[0])
    bag.writer._close_split()
    bag.writer._open_split()
    bag.steps(numbers[1])
    bag.writer.close()


def files_that_overlap_in_time(path: Path, storage: str) -> None:
    """Files put together: every other step lies in the other one."""
    _split(path, storage, (range(0, STEPS, 2), range(1, STEPS, 2)))


CASES["files_that_overlap_in_time"] = Case(files_that_overlap_in_time, said=("sorted by time",))


def files_of_two_recorders(path: Path, storage: str) -> None:
    """One recorded the camera, the other one the rest."""
    bag = tape(path, storage, split_s=1e6)
    for k in range(STEPS):
        bag.image(at(k), picture(k))
    bag.writer._close_split()
    bag.writer._open_split()
    for k in range(STEPS):
        bag.proprio(at(k), np.array([k, -k]))
        bag.command(at(k) + 20_000_000, np.array([k, k / 2]))
    bag.writer.close()


CASES["files_of_two_recorders"] = Case(files_of_two_recorders, said=("sorted by time",))


def files_of_two_simulations(path: Path, storage: str) -> None:
    """Both begin at zero: two episodes, never one."""
    bag = tape(path, storage, split_s=1e6)
    for run in range(2):
        for k in range(STEPS):
            stamp = round((k + run / 2) * 0.1 * S) + 1
            bag.image(stamp, picture(k))
            bag.proprio(stamp, np.array([k, -k]))
            bag.command(stamp + 20_000_000, np.array([k, k / 2]))
        if not run:
            bag.writer._close_split()
            bag.writer._open_split()
    bag.writer.close()


CASES["files_of_two_simulations"] = Case(
    files_of_two_simulations, lengths=(STEPS - 1, STEPS - 1), said=("ended: clock set back",)
)


@case(code=3, lengths=(39, 40), said=("no frames 1 times",))
def camera_stalls_for_seconds(bag: Tape) -> None:
    bag.steps(range(120), skip_images=tuple(range(40, 79)))


@after("plain")
def whole_file_compressed(path: Path, storage: str) -> None:
    """``--compression-mode file``."""
    (file,) = path.glob(f"*{CHOSEN[storage]}")
    packed = file.with_name(file.name + ".zstd")
    packed.write_bytes(zstd.compress(file.read_bytes()))
    file.unlink()
    _edit_metadata(
        path, relative_file_paths=[packed.name], compression_format="zstd",
        compression_mode="FILE",
    )  # fmt: skip


def messages_compressed(path: Path, storage: str) -> None:
    """``--compression-mode message``; chunks of mcap."""
    bag = tape(path, storage, compress=True)
    bag.steps(range(STEPS))
    bag.writer.close()


CASES["messages_compressed"] = Case(messages_compressed)


def _edit_metadata(path: Path, **changes: Any) -> dict[str, Any]:
    file = path / "metadata.yaml"
    document = yaml.safe_load(file.read_text())
    info = document["rosbag2_bagfile_information"]
    info |= changes
    file.write_text(yaml.safe_dump(document))
    return info


@after("plain")
def metadata_of_version_4(path: Path, storage: str) -> None:
    """Foxy to Galactic: no hashes, qualities of service as text, no files."""
    info = _edit_metadata(path)
    topics = info["topics_with_message_count"]
    for entry in topics:
        entry["topic_metadata"].pop("type_description_hash", None)
        entry["topic_metadata"]["offered_qos_profiles"] = ""
    for name in ("files", "custom_data", "ros_distro"):
        info.pop(name, None)
    _edit_metadata(path, version=4, topics_with_message_count=topics)
    document = {"rosbag2_bagfile_information": info | {"version": 4}}
    (path / "metadata.yaml").write_text(yaml.safe_dump(document))


@after("plain")
def metadata_of_version_9(path: Path, storage: str) -> None:
    """Jazzy and later: qualities of service as a list."""
    info = _edit_metadata(path)
    topics = info["topics_with_message_count"]
    for entry in topics:
        entry["topic_metadata"] |= {
            "offered_qos_profiles": [{"history": "keep_last", "depth": 1}],
            "type_description_hash": "RIHS01_" + 64 * "0",
        }
    _edit_metadata(path, version=9, topics_with_message_count=topics, ros_distro="rolling")


@after("plain", code=3, said=("metadata.yaml counts 500 messages; 120 are in the files",))
def metadata_counts_more(path: Path, storage: str) -> None:
    _edit_metadata(path, message_count=500)


@after("plain", code=3, said=("metadata.yaml is damaged",))
def metadata_is_nonsense(path: Path, storage: str) -> None:
    (path / "metadata.yaml").write_text("[" * 3000)


@after("plain", storages=("mcap",))
def without_chunks(path: Path, storage: str) -> None:
    """As written by rosbag2's preset ``fastwrite``."""
    (file,) = path.glob("*.mcap")
    data, at = file.read_bytes(), 8
    parts = [data[:8]]
    while at + 9 <= len(data) - 8:
        opcode, size = struct.unpack_from("<BQ", data, at)
        body = data[at + 9 : at + 9 + size]
        if opcode == 6:
            content, _ = chunk_content(memoryview(body))
            parts.append(bytes(content))
        elif opcode in (1, 0x0F):
            parts.append(data[at : at + 9 + size])
        at += 9 + size
    parts += [struct.pack("<BQQQI", 2, 20, 0, 0, 0), data[:8]]
    file.write_bytes(b"".join(parts))


@after("plain", storages=("mcap",), code=1, lengths=(), said=("is encoded as 'ros'",))
def messages_of_another_system(path: Path, storage: str) -> None:
    """An mcap file that ROS 2 did not write."""
    (file,) = path.glob("*.mcap")
    data = file.read_bytes().replace(b"\3\0\0\0cdr", b"\3\0\0\0ros")
    file.write_bytes(_without_checksums(data))
    (path / "metadata.yaml").unlink()


def _without_checksums(data: bytes) -> bytes:
    """The chunks of an mcap file say no checksum."""
    changed, at = bytearray(data), 8
    while at + 9 <= len(data) - 8:
        opcode, size = struct.unpack_from("<BQ", data, at)
        if opcode == 6:
            changed[at + 33 : at + 37] = bytes(4)
        at += 9 + size
    return bytes(changed)


@after("plain", storages=("sqlite3",), code=1, lengths=(), said=("is encoded as 'protobuf'",))
def rows_of_another_system(path: Path, storage: str) -> None:
    (file,) = path.glob("*.db3")
    with sqlite3.connect(file) as base:
        base.execute("UPDATE topics SET serialization_format = 'protobuf'")
    base.close()


@after("plain", storages=("sqlite3",), code=3, lengths=None, aligned=False,
       said=("unknown topics, or have no stamp",))  # fmt: skip
def rows_without_a_topic(path: Path, storage: str) -> None:
    (file,) = path.glob("*.db3")
    with sqlite3.connect(file) as base:
        base.execute("UPDATE messages SET topic_id = 99 WHERE id = 60")
    base.close()


# ---- topics ------------------------------------------------------------------------------------


@case(code=3, lengths=(19,), said=("where /front/image of the same type begins",))
def camera_renamed_in_mid_bag(bag: Tape) -> None:
    for k in range(STEPS):
        stamp = at(k)
        if k < 20:
            bag.image(stamp, picture(k))
        else:
            (kind,) = bag.writer.types("sensor_msgs/msg/Image")
            message = kind(bag.header(stamp), 16, 16, "rgb8", 0, 48, picture(k).reshape(-1))
            bag.put("/front/image", "sensor_msgs/msg/Image", stamp, message)
        bag.proprio(stamp, np.array([k, -k]))
        bag.command(stamp + 20_000_000, np.array([k, k / 2]))


@case(code=3, lengths=(19,), said=("image: ends 2.0 s before proprio and command",))
def camera_dies_in_mid_bag(bag: Tape) -> None:
    bag.steps(range(STEPS), skip_images=tuple(range(20, STEPS)))


def _camera(bag: Tape, topic: str, k: int, name: str, colour: int) -> None:
    (kind,) = bag.writer.types("sensor_msgs/msg/Image")
    head = bag.header(at(k))
    head.frame_id = name
    message = kind(head, 16, 16, "rgb8", 0, 48, picture(colour).reshape(-1))
    bag.put(topic, "sensor_msgs/msg/Image", at(k), message)


@case(code=2, lengths=(), said=("fits /left/image, /right/image; say which",))
def two_cameras(bag: Tape) -> None:
    for k in range(STEPS):
        _camera(bag, "/left/image", k, "left", k)
        _camera(bag, "/right/image", k, "right", 200)
        bag.proprio(at(k), np.array([k, -k]))
        bag.command(at(k) + 20_000_000, np.array([k, k / 2]))


CASES["two_cameras_one_asked_for"] = Case(
    CASES["two_cameras"].make, ("--image-topic", "left/image")
)


@case(code=3, lengths=None, aligned=False,
      said=("frame_id changes: left (", "several cameras on one topic?"))  # fmt: skip
def two_cameras_on_one_topic(bag: Tape) -> None:
    for k in range(STEPS):
        _camera(bag, "/image", k, "right" if k % 2 else "left", k)
        bag.proprio(at(k), np.array([k, -k]))
        bag.command(at(k) + 20_000_000, np.array([k, k / 2]))


@case(code=3, said=("duplicate stamp",))
def everything_recorded_twice(bag: Tape) -> None:
    for k in range(STEPS):
        bag.steps(range(k, k + 1))
        bag.steps(range(k, k + 1))


# ---- stamps ------------------------------------------------------------------------------------


def _stamp(bag: Tape, k: int, seconds: int, nanoseconds: int) -> None:
    """Joint states whose header says anything, received in time."""
    (kind,) = bag.writer.types("sensor_msgs/msg/JointState")
    head = bag.header(at(k))
    head.stamp.sec, head.stamp.nanosec = seconds, nanoseconds
    empty = np.zeros(0)
    message = kind(head, ["q0", "q1"], np.array([k, -k], float), empty, empty)
    bag.put("/proprio", "sensor_msgs/msg/JointState", at(k), message)


def one_strange_stamp(seconds: int, nanoseconds: int) -> Callable[[Tape], None]:
    def make(bag: Tape) -> None:
        for k in range(STEPS):
            bag.image(at(k), picture(k))
            if k == 20:
                _stamp(bag, k, seconds, nanoseconds)
            else:
                bag.proprio(at(k), np.array([k, -k]))
            bag.command(at(k) + 20_000_000, np.array([k, k / 2]))

    return make


for _name, _sec, _nanosec in (
    ("stamp_of_the_largest_numbers", 2**31 - 1, 2**32 - 1),
    ("stamp_of_the_smallest_number", -(2**31), 0),
    ("stamp_of_too_many_nanoseconds", START // S, 4_000_000_000),
):
    _make = one_strange_stamp(_sec, _nanosec)
    _make.__name__ = _name
    case(code=3, lengths=None, said=("not used",))(_make)


@case()
def time_before_zero(bag: Tape) -> None:
    """A simulation that begins at minus two seconds; commands have no header."""
    for k in range(STEPS):
        step(bag, k, image=-START - 2 * S, proprio=-START - 2 * S)


@after("plain", storages=("sqlite3",))
def received_before_zero(path: Path, storage: str) -> None:
    (file,) = path.glob("*.db3")
    with sqlite3.connect(file) as base:
        base.execute(f"UPDATE messages SET timestamp = timestamp - {START + 2 * S}")
    base.close()


# ---- neighbours ------------------------------------------------------------------------------


@case(code=3, lengths=(15, 14), said=("frames without command",))
def controller_idle_in_between(bag: Tape) -> None:
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        bag.proprio(at(k), np.array([k, -k]))
        if k < 15 or k >= 25:
            bag.command(at(k) + 20_000_000, np.array([k, k / 2]))


@case(lengths=(19,), said=("frames before the first command", "frames after the last command"))
def camera_runs_longer_than_the_controller(bag: Tape) -> None:
    for k in range(STEPS):
        bag.image(at(k), picture(k))
        bag.proprio(at(k), np.array([k, -k]))
        if 12 <= k < 31:
            bag.command(at(k) + 20_000_000, np.array([k, k / 2]))


CASES["strict_refuses"] = Case(
    CASES["one_stamp_far_ahead"].make, ("--strict",), 1, ("nothing of it is stored",), ()
)
CASES["strict_takes_what_is_sound"] = Case(CASES["topic_by_topic"].make, ("--strict",))


def main() -> None:
    """Write every bag."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True)
    for name, found in CASES.items():
        for storage in found.storages:
            found.make(out / f"{name}.{storage}", storage)
    print(f"{sum(len(c.storages) for c in CASES.values())} bags of {len(CASES)} kinds in {out}")


if __name__ == "__main__":
    main()
