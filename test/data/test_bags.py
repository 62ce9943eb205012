"""Bags of every kind, sound and damaged, into the store and back."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_helpers import PERIOD, at, bring_in, picture, tape, trajectories
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from wm_mpc.core.errors import DataError, UserError
from wm_mpc.data.bags import (
    AlignConfig,
    Bag,
    BagWriter,
    ExportConfig,
    Exporter,
    ImportConfig,
    TopicConfig,
    WriterConfig,
    import_bags,
)
from wm_mpc.data.bags.import_report import COMPLETE, FAILED, PARTIAL
from wm_mpc.data.bags.inspect import inspect_bag, recover_bag
from wm_mpc.data.bags.writer import DiskSpaceError
from wm_mpc.data.bags.zstandard import zstd
from wm_mpc.data.store.store import Store, StoreSpec, StoreWriter
from wm_mpc.data.trajectory import Trajectory

STORAGES = ("mcap", "sqlite3")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("image_format", ["raw", "png"])
def test_round_trip_equals_the_store_written_directly(
    tmp_path: Path, storage: str, compress: bool, image_format: str
) -> None:
    episodes = trajectories()
    spec = StoreSpec("synthetic", 2, 4, 3, PERIOD, (16, 16))
    with StoreWriter(tmp_path / "direct", spec) as direct:
        for episode in episodes:
            direct.add(episode)
    layout = WriterConfig(storage=storage, compress=compress, split_s=1.5, min_free_mb=0)
    config = ExportConfig(image_format=image_format, joints=("x", "y"))
    with BagWriter(tmp_path / "bag", layout) as writer:
        assert Exporter(writer, config).write(Store.open(tmp_path / "direct")) == len(episodes)

    report, stored = bring_in(tmp_path / "bag", tmp_path / "store")

    assert report.exit_code == COMPLETE, report.problems
    assert len(stored) == len(episodes)
    for found, expected in zip(stored, Store.open(tmp_path / "direct"), strict=True):
        for name in ("images", "image_steps", "actions", "proprio", "state"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        np.testing.assert_allclose(found.stamps, expected.stamps, rtol=0, atol=1e-3)
        for name in ("task", "seed", "policy"):
            assert found.meta[name] == expected.meta[name]


@pytest.mark.parametrize(
    ("command_type", "axes"),
    [
        ("float64_multi_array", ()),
        ("twist_stamped", ("twist.linear.x", "twist.angular.z")),
        ("joint_trajectory", ()),
    ],
)
def test_commands_of_every_type_come_back(
    tmp_path: Path, command_type: str, axes: tuple[str, ...]
) -> None:
    episodes = trajectories(1)
    config = ExportConfig(command_type=command_type)
    with BagWriter(tmp_path / "bag", WriterConfig(min_free_mb=0)) as writer:
        Exporter(writer, config).write(episodes)
    topics = TopicConfig(command_fields=axes)
    _, stored = bring_in(tmp_path / "bag", tmp_path / "store", topics=topics)
    np.testing.assert_array_equal(stored[0].actions, episodes[0].actions)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_describes_itself(tmp_path: Path, storage: str) -> None:
    """The definitions in the bag alone, given to another program, decode our own types."""
    with BagWriter(tmp_path / "bag", WriterConfig(storage=storage, min_free_mb=0)) as writer:
        Exporter(writer).write(trajectories(1))
    foreign = get_typestore(Stores.EMPTY)
    with Reader(tmp_path / "bag") as reader:
        for connection in reader.connections:
            types = get_types_from_msg(connection.msgdef.data, connection.msgtype)
            foreign.register({k: v for k, v in types.items() if k not in foreign.fielddefs})
        states = [
            foreign.deserialize_cdr(data, connection.msgtype).state
            for connection, _, data in reader.messages()
            if connection.topic == "/task_state"
        ]
    np.testing.assert_array_equal(states, trajectories(1)[0].state)


def test_splits_are_one_bag_to_other_readers(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag", split_s=1.0)
    bag.steps(range(35))
    bag.writer.close()
    files = sorted(path.name for path in (tmp_path / "bag").iterdir())
    assert files == [*(f"bag_{i}.mcap" for i in range(4)), "metadata.yaml"]
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == 3 * 35
        stamps = [stamp for _, stamp, _ in reader.messages()]
    assert stamps == sorted(stamps)
    report, stored = bring_in(tmp_path / "bag", tmp_path / "store")
    assert (report.exit_code, len(stored), len(stored[0])) == (COMPLETE, 1, 34)


def test_steps_keep_their_frame_proprioception_and_command(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    bag.steps(range(30))
    bag.writer.close()
    _, (found,) = bring_in(tmp_path / "bag", tmp_path / "store")
    steps = np.arange(30)
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], steps)
    np.testing.assert_array_equal(found.proprio, np.stack([steps, -steps], 1))
    np.testing.assert_array_equal(found.actions[:, 0], steps[:-1])
    np.testing.assert_allclose(found.stamps, [at(k) / 1e9 for k in steps], atol=1e-6)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.9])
def test_truncated_bag_gives_its_beginning(tmp_path: Path, storage: str, kept: float) -> None:
    bag = tape(tmp_path / "bag", storage)
    bag.steps(range(200))
    bag.writer.close()
    (file,) = (p for p in (tmp_path / "bag").iterdir() if p.suffix in (".mcap", ".db3"))
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])

    report, stored = bring_in(tmp_path / "bag", tmp_path / "store")

    assert report.exit_code == PARTIAL
    assert any(file.name in p and ("truncated" in p or "damaged" in p) for p in report.problems)
    found = stored[0]
    assert 0.5 * kept * 200 < len(found) <= 199
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], np.arange(len(found.images)))
    recovered = recover_bag(tmp_path / "bag", tmp_path / "recovered")
    with Reader(tmp_path / "recovered") as reader:
        assert reader.message_count == recovered
    again, repaired = bring_in(tmp_path / "recovered", tmp_path / "store2")
    assert (again.problems, len(repaired[0])) == ([], len(found))


def test_truncated_compressed_chunk_is_used_up_to_the_cut(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag", compress=True)
    rng = np.random.default_rng(0)
    for k in range(100):
        bag.image(at(k), rng.integers(0, 256, (32, 32, 3), np.uint8))
        bag.proprio(at(k), np.array([k]))
        bag.command(at(k), np.array([k]))
    bag.writer.close()
    file = tmp_path / "bag" / "bag_0.mcap"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    report, stored = bring_in(tmp_path / "bag", tmp_path / "store")
    assert report.exit_code == PARTIAL
    assert 30 <= len(stored[0]) <= 60


@pytest.mark.parametrize("part", ["image", "command", "proprio"])
def test_missing_topic_is_named_with_what_is_there(tmp_path: Path, part: str) -> None:
    bag = tape(tmp_path / "bag")
    bag.steps(range(10))
    bag.writer.close()
    with pytest.raises(DataError, match=rf"{part}_topic: 'else' is not in the bag; .*/image"):
        bring_in(tmp_path / "bag", tmp_path / "store", topics=TopicConfig(**{part: "else"}))


def test_topic_without_messages_is_told(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    bag.writer.add_topic("/command", "std_msgs/msg/Float64MultiArray")
    for k in range(10):
        bag.image(at(k), picture(k))
        bag.proprio(at(k), np.array([k]))
    bag.writer.close()
    report, stored = bring_in(tmp_path / "bag", tmp_path / "store")
    assert (report.exit_code, stored) == (FAILED, [])
    assert "command /command: no messages" in report.problems


def test_wrong_type_is_told(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    bag.steps(range(10))
    bag.writer.close()
    topics = TopicConfig(image="proprio")
    report, _ = bring_in(tmp_path / "bag", tmp_path / "store", topics=topics)
    assert report.exit_code == FAILED
    assert "image_topic: /proprio is sensor_msgs/msg/JointState" in report.problems[0]
    report, _ = bring_in(tmp_path / "bag", tmp_path / "store", topics=TopicConfig(command="image"))
    assert "command_topic: type sensor_msgs/msg/Image is not known" in report.problems[0]


def test_duplicated_and_backward_stamps_are_left_out(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    for k in range(40):
        bag.steps(range(k, k + 1))
        if k % 10 == 5:
            bag.image(at(k), picture(999), log=at(k) + 1000)
            bag.proprio(at(k) - 3 * 10**9, np.array([1e6, 1e6]), log=at(k) + 2000)
    bag.writer.close()
    report, (found,) = bring_in(tmp_path / "bag", tmp_path / "store")
    assert report.exit_code == PARTIAL
    assert any("image" in p and "duplicate stamp" in p and "4 of 44" in p for p in report.problems)
    assert any("proprio" in p and "stamp goes backward" in p for p in report.problems)
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], np.arange(40))
    np.testing.assert_array_equal(found.proprio[:, 0], np.arange(40))


def test_slightly_disordered_stamps_are_sorted(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    for k in range(0, 40, 2):
        for j in (k + 1, k):
            bag.steps(range(j, j + 1))
    bag.writer.close()
    report, (found,) = bring_in(tmp_path / "bag", tmp_path / "store")
    assert report.exit_code == COMPLETE, report.problems
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], np.arange(40))
    np.testing.assert_array_equal(found.actions[:, 0], np.arange(39))


def test_clock_set_back_splits_the_episode(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    bag.steps(range(600, 630))
    bag.steps(range(30))
    bag.writer.close()
    report, (before, after) = bring_in(tmp_path / "bag", tmp_path / "store")
    assert report.counts["ended: clock set back"] == 1
    np.testing.assert_array_equal(before.actions[:, 0], np.arange(600, 629))
    assert after.stamps[-1] == pytest.approx(at(29) / 1e9)
    assert len(after) >= 25


def test_mixed_image_sizes_are_fitted_and_told(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    for k in range(20):
        bag.image(at(k), picture(k, (16, 16) if k < 12 else (32, 48)))
        bag.proprio(at(k), np.array([k]))
        bag.command(at(k), np.array([k]))
    bag.writer.close()
    report, (found,) = bring_in(tmp_path / "bag", tmp_path / "store")
    assert report.exit_code == PARTIAL
    assert "mixed sizes: 16x16 (12), 48x32 (8) frames; all were fitted to 16x16" in str(
        report.problems
    )
    assert found.images.shape == (20, 16, 16, 3)
    _, (small,) = bring_in(tmp_path / "bag", tmp_path / "small", size=(8, 8))
    assert small.images.shape == (20, 8, 8, 3)
    np.testing.assert_array_equal(small.images[:, 4, 4, 0], np.arange(20))


@pytest.mark.parametrize("storage", STORAGES)
def test_zero_length_bags_are_told(tmp_path: Path, storage: str) -> None:
    bag = tape(tmp_path / "bag", storage)
    bag.writer.close()
    report, _ = bring_in(tmp_path / "bag", tmp_path / "store")
    assert report.exit_code == FAILED
    assert "it holds no messages" in report.problems[0]
    suffix = {"mcap": "mcap", "sqlite3": "db3"}[storage]
    (tmp_path / f"empty.{suffix}").touch()
    report, _ = bring_in(tmp_path / f"empty.{suffix}", tmp_path / "store")
    assert report.exit_code == FAILED
    assert "it is empty" in report.problems[0]


def test_unknown_compression_of_a_bag_is_told(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    bag.steps(range(10))
    bag.writer.close()
    path = tmp_path / "bag" / "metadata.yaml"
    document = yaml.safe_load(path.read_text())
    info = document["rosbag2_bagfile_information"]
    info |= {"compression_format": "brotli", "compression_mode": "FILE"}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(DataError, match="compression_format 'brotli' is unknown"):
        bring_in(tmp_path / "bag", tmp_path / "store")


def test_unknown_compression_of_a_chunk_costs_that_chunk(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag", compress=True, flush_s=0)
    bag.steps(range(60))
    bag.writer.close()
    file = tmp_path / "bag" / "bag_0.mcap"
    data = file.read_bytes()
    middle = data.index(b"\x04\x00\x00\x00zstd", data.index(b"zstd") + len(data) // 4)
    file.write_bytes(data[:middle] + b"\x04\x00\x00\x00lzma" + data[middle + 8 :])
    report, stored = bring_in(tmp_path / "bag", tmp_path / "store")
    assert report.exit_code == PARTIAL
    assert any("1 chunks are compressed by 'lzma'" in p for p in report.problems)
    assert sum(len(t) for t in stored) >= 55


@pytest.mark.parametrize("mode", ["file", "message"])
@pytest.mark.parametrize("storage", STORAGES)
def test_bags_compressed_by_ros2_bag_record(tmp_path: Path, storage: str, mode: str) -> None:
    bag = tape(tmp_path / "bag", storage)
    bag.steps(range(20))
    bag.writer.close()
    (file,) = (p for p in (tmp_path / "bag").iterdir() if p.suffix in (".mcap", ".db3"))
    info = {"compression_format": "zstd", "compression_mode": mode.upper()}
    if mode == "file":
        packed = file.with_name(file.name + ".zstd")
        packed.write_bytes(zstd.compress(file.read_bytes()))
        file.unlink()
        info["relative_file_paths"] = [packed.name]
    elif storage == "sqlite3":
        with sqlite3.connect(file) as base:
            rows = base.execute("SELECT id, data FROM messages").fetchall()
            for key, data in rows:
                base.execute(
                    "UPDATE messages SET data = ? WHERE id = ?", (zstd.compress(data), key)
                )
    else:
        with Reader(tmp_path / "bag") as reader:
            copy = BagWriter(tmp_path / "copy", WriterConfig(min_free_mb=0))
            for connection, stamp, data in reader.messages():
                copy.add_topic(connection.topic, connection.msgtype)
                copy.write(connection.topic, stamp, zstd.compress(bytes(data)))
            copy.close()
        shutil.copy(tmp_path / "copy" / "copy_0.mcap", file)
    path = tmp_path / "bag" / "metadata.yaml"
    document = yaml.safe_load(path.read_text())
    document["rosbag2_bagfile_information"] |= info
    path.write_text(yaml.safe_dump(document))
    report, (found,) = bring_in(tmp_path / "bag", tmp_path / "store")
    assert report.exit_code == COMPLETE, report.problems
    assert len(found) == 19


def test_ten_percent_dropped_frames_cost_only_those_frames(tmp_path: Path) -> None:
    lost = tuple(int(k) for k in np.random.default_rng(1).choice(range(1, 199), 20, replace=False))
    bag = tape(tmp_path / "bag")
    bag.steps(range(200), skip_images=lost)
    bag.writer.close()
    report, (found,) = bring_in(tmp_path / "bag", tmp_path / "store")
    assert report.exit_code == PARTIAL
    assert any("20 of 200 frames (10.0%) are missing" in p for p in report.problems)
    kept = [k for k in range(200) if k not in lost]
    np.testing.assert_array_equal(found.image_steps, kept)
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], kept)
    np.testing.assert_array_equal(found.actions[:, 0], np.arange(199))


@pytest.mark.parametrize("told_by", ["marker", "option"])
def test_frames_that_are_rarer_than_steps(tmp_path: Path, told_by: str) -> None:
    episodes = trajectories(2, steps=20)
    for episode in episodes:
        episode.images, episode.image_steps = episode.images[::5], episode.image_steps[::5]
        episode.meta |= {"frame_stride": 5} if told_by == "marker" else {}
    with BagWriter(tmp_path / "bag", WriterConfig(min_free_mb=0)) as writer:
        Exporter(writer).write(episodes)
    stride = 5 if told_by == "option" else 1
    align = AlignConfig(PERIOD, frame_stride=stride)
    report, stored = bring_in(tmp_path / "bag", tmp_path / "store", align=align)
    assert report.exit_code == COMPLETE, report.problems
    for found, expected in zip(stored, episodes, strict=True):
        np.testing.assert_array_equal(found.image_steps, expected.image_steps)
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.actions, expected.actions)
    if told_by == "option":
        report, stored = bring_in(tmp_path / "bag", tmp_path / "unaware")
        assert (report.exit_code, stored) == (FAILED, [])
        assert "--frame-stride" in report.problems[-1]


def test_undecodable_messages_are_counted(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    for k in range(30):
        broken = {"step": 1} if k == 7 else {"encoding": "yuv9"} if k == 9 else {}
        bag.image(at(k), picture(k), **broken)
        bag.proprio(at(k), np.array([np.nan if k == 20 else k]))
        bag.command(at(k), np.array([k]))
    bag.writer.close()
    report, (found,) = bring_in(tmp_path / "bag", tmp_path / "store")
    assert report.exit_code == PARTIAL
    told = "\n".join(report.problems)
    assert "image.step: 1" in told and "'yuv9'" in told and "nan at joint" in told
    np.testing.assert_array_equal(found.image_steps, [k for k in range(30) if k not in (7, 9)])
    assert found.proprio[20, 0] == pytest.approx(20)  # between its neighbours


def test_missing_split_and_missing_metadata(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag", split_s=2.0)
    bag.steps(range(60))
    bag.writer.close()
    (tmp_path / "bag" / "bag_1.mcap").unlink()
    report, stored = bring_in(tmp_path / "bag", tmp_path / "store")
    assert report.exit_code == PARTIAL
    assert any("bag_1.mcap of metadata.yaml is missing" in p for p in report.problems)
    assert [len(t) for t in stored] == [19, 19]
    (tmp_path / "bag" / "metadata.yaml").unlink()
    assert any("no metadata.yaml" in p for p in inspect_bag(tmp_path / "bag").problems)
    report, stored = bring_in(tmp_path / "bag", tmp_path / "store2")
    assert [len(t) for t in stored] == [19, 19]


def test_recorder_and_header_clocks_far_apart(tmp_path: Path) -> None:
    """Headers in simulated time, commands without header: only the recorder's clock is common."""
    bag = tape(tmp_path / "bag")
    for k in range(20):
        bag.image(round(k * PERIOD * 1e9), picture(k), log=at(k))
        bag.proprio(round(k * PERIOD * 1e9), np.array([k]), log=at(k))
        bag.command(at(k), np.array([k]))
    bag.writer.close()
    report, (found,) = bring_in(tmp_path / "bag", tmp_path / "store")
    assert {topic.clock for topic in report.topics.values()} == {"recorder"}
    np.testing.assert_array_equal(found.actions[:, 0], np.arange(19))
    assert found.stamps[0] == pytest.approx(at(0) / 1e9)


def test_resumed_import_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BagWriter(tmp_path / "bag", WriterConfig(min_free_mb=0)) as writer:
        Exporter(writer).write(trajectories(6))
    _, whole = bring_in(tmp_path / "bag", tmp_path / "whole")

    class KilledError(Exception):
        pass

    added: list[Trajectory] = []
    add = StoreWriter.add

    def add_some(self: StoreWriter, trajectory: Trajectory) -> None:
        if len(added) == 3:
            raise KilledError
        added.append(trajectory)
        add(self, trajectory)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(StoreWriter, "add", add_some)
        bring_in(tmp_path / "bag", tmp_path / "parts")
    report, parts = bring_in(tmp_path / "bag", tmp_path / "parts")
    assert (report.already, len(parts)) == (3, 6)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.actions, other.actions)
        assert one.meta == other.meta
    report, parts = bring_in(tmp_path / "bag", tmp_path / "parts")
    assert (report.exit_code, report.already, len(parts)) == (COMPLETE, 6, 6)


def test_other_settings_never_mix_into_one_store(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    bag.steps(range(20))
    bag.writer.close()
    bring_in(tmp_path / "bag", tmp_path / "store")
    with pytest.raises(DataError, match="imported with other settings"):
        align = AlignConfig(PERIOD, command_phase=0.0)
        bring_in(tmp_path / "bag", tmp_path / "store", align=align)


def test_goals_and_markers_begin_episodes(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    (text,) = bag.writer.types("std_msgs/msg/String")
    for k in range(60):
        if k in (0, 20):
            goal = text(data=json.dumps({"seed": k, "stamp_offset": 5.0}))
            bag.put("/episode", "std_msgs/msg/String", at(k), goal)
        if k in (0, 20, 40):
            message = bag.writer.types("sensor_msgs/msg/Image")[0](
                bag.header(at(k)), 1, 1, "rgb8", 0, 3, picture(k // 40, (1, 1)).reshape(-1)
            )
            bag.put("/goal_image", "sensor_msgs/msg/Image", at(k), message)
        bag.steps(range(k, k + 1))
    bag.writer.close()
    _, stored = bring_in(tmp_path / "bag", tmp_path / "store")
    # the same goal picture again is no boundary, the marker at 20 is, another goal at 40 is
    assert [len(t) for t in stored] == [19, 19, 19]
    assert [t.meta.get("seed") for t in stored] == [0, 20, None]
    assert stored[1].stamps[0] == pytest.approx(at(20) / 1e9 - 5)
    assert [t.meta["ended_by"] for t in stored] == ["marker", "another goal", "end of bag"]


def test_statistics_are_those_of_the_stored_actions(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag", WriterConfig(min_free_mb=0)) as writer:
        Exporter(writer).write(trajectories(4))
    _, statistics = import_bags(
        ImportConfig(AlignConfig(PERIOD)), [tmp_path / "bag"], tmp_path / "store", progress=False
    )
    actions = np.concatenate([t.actions for t in Store.open(tmp_path / "store")])
    assert statistics["actions"]["n"] == len(actions)
    for name, value in (
        ("mean", actions.mean(0)),
        ("std", actions.std(0)),
        ("min", actions.min(0)),
    ):
        np.testing.assert_allclose(statistics["actions"][name], value, rtol=1e-5)


def test_memory_does_not_grow_with_the_bag(tmp_path: Path) -> None:
    import tracemalloc

    rng = np.random.default_rng(0)
    peaks = []
    for steps in (300, 1200):
        bag = tape(tmp_path / f"bag{steps}")
        frame = rng.integers(0, 256, (64, 64, 3), np.uint8)
        for k in range(steps):
            bag.image(at(k), frame)
            bag.proprio(at(k), np.array([k]))
            bag.command(at(k), np.array([k]))
        bag.writer.close()
        align = AlignConfig(PERIOD, max_steps=50)
        tracemalloc.start()
        bring_in(tmp_path / f"bag{steps}", tmp_path / f"store{steps}", align=align, size=(8, 8))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    raw = 1200 * 64 * 64 * 3
    assert peaks[1] < 1.3 * peaks[0] < raw


def test_disk_guard_closes_a_sound_bag(tmp_path: Path) -> None:
    seconds = iter(range(1000))
    config = WriterConfig(min_free_mb=1e9)
    writer = BagWriter(tmp_path / "bag", config, clock=lambda: next(seconds) * 0.3)
    writer.add_topic("/a", "std_msgs/msg/String")
    (text,) = writer.types("std_msgs/msg/String")
    with pytest.raises(DiskSpaceError, match="MB free on its disk; 1000000000 MB expected"):
        for k in range(100):
            writer.write("/a", k, writer.serialize("/a", text(data="x")))
    with Reader(tmp_path / "bag") as reader:
        assert 0 < reader.message_count == writer.counts["/a"]


def test_a_bag_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(UserError, match="exists"):
        BagWriter(tmp_path / "bag", WriterConfig())


def test_not_a_bag(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        DataError, match="rosbag2 folder or a .mcap or .db3 file expected|expected a"
    ):
        Bag(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="no .mcap or .db3 file inside"):
        Bag(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        Bag(tmp_path / "nowhere")


def test_paths_of_files_work_like_folders(tmp_path: Path) -> None:
    bag = tape(tmp_path / "bag")
    bag.steps(range(20))
    bag.writer.close()
    _, (found,) = bring_in(Path(tmp_path / "bag" / "bag_0.mcap"), tmp_path / "store")
    assert len(found) == 19
