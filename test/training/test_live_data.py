"""Corrected data of live fine-tuning are bounded, and the same after a restart."""

from __future__ import annotations

import errno
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from live_setup import Setup
from wall_data import wall_trajectories

from wm_mpc.core import files
from wm_mpc.core.errors import UserError
from wm_mpc.data.store import format as store_format
from wm_mpc.data.store.shard import Shard
from wm_mpc.data.store.store import MappingError, Store, StoreError, numbered_shards
from wm_mpc.latents.replay import LatentBuffer
from wm_mpc.training.live import data as live_data
from wm_mpc.training.live import intake
from wm_mpc.training.live import trainer as live
from wm_mpc.training.live.data import HELD, TRAIN, LiveData, role
from wm_mpc.training.live.intake import WRITER, Keeper


def data(setup: Setup) -> LiveData:
    found = LiveData(setup.out / live.TRAJECTORIES, setup.start, setup.config)
    found.look()
    return found


def same(a: LatentBuffer, b: LatentBuffer) -> bool:
    rows = a.starts(1)
    if len(a) != len(b) or not torch.equal(rows, b.starts(1)):
        return False
    pairs = zip(a.windows(rows, 1), b.windows(rows, 1), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("hold_out", [2, 3, 5])
def test_nothing_is_learned_from_a_neighbour_of_what_is_held_out(hold_out: int) -> None:
    roles = [role(number, hold_out) for number in range(300)]
    apart = {(TRAIN, HELD), (HELD, TRAIN)}
    assert not apart & set(zip(roles, roles[1:], strict=False))
    assert roles.count(HELD) == 300 // hold_out
    assert roles.count(TRAIN) >= 300 - 300 // hold_out * 7 // 5


def test_a_restart_opens_only_what_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path, limit_steps=12)
    grown = data(setup)
    for _ in range(40):
        setup.collect(1)
        grown.look()
        grown.take(grown.total)
    opened: list[str] = []
    open_shard = Shard.open

    def counted(file: Path, spec: store_format.StoreSpec) -> Shard:
        opened.append(file.name)
        return open_shard(file, spec)

    monkeypatch.setattr(live_data.Shard, "open", counted)
    again = data(setup)
    assert not opened and again.waiting == 40
    again.take(40)
    assert again.waiting == 0 and again.seen == 40
    assert same(again.train, grown.train) and same(again.held, grown.held)
    # four of three steps each fill a buffer, within two periods of ten
    assert len(set(opened)) <= 20
    opened.clear()
    setup.collect(2)
    again.look()
    again.take(42)
    # number 40 is next to a held-out block
    assert set(opened) == {"shard-live-00041.safetensors"}, "old ones are not opened again"


def test_old_files_are_deleted_but_none_that_is_used(tmp_path: Path) -> None:
    setup = Setup(tmp_path, limit_steps=12, keep_trajectories=25)
    setup.collect(60)
    found = data(setup)
    found.take(60)
    found.prune()
    left = numbered_shards(found.folder, WRITER)
    assert list(left) == list(range(35, 60))
    setup.config = replace(setup.config, keep_trajectories=1)
    tight = data(setup)
    tight.take(60)
    assert same(tight.train, found.train) and same(tight.held, found.held)
    tight.prune()
    left = numbered_shards(found.folder, WRITER)
    assert 1 < len(left) < 25
    last = data(setup)
    last.take(60)
    assert same(last.train, found.train) and same(last.held, found.held)
    setup.keeper = Keeper(found.folder, setup.start.config)
    setup.collect(1)
    assert max(numbered_shards(found.folder, WRITER)) == 60 and setup.keeper.count == 61
    setup.config = replace(setup.config, keep_trajectories=0)
    everything = data(setup)
    everything.take(61)
    everything.prune()
    assert len(numbered_shards(found.folder, WRITER)) == len(left) + 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_file_stays_mapped(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    setup.collect(12)
    found = data(setup)
    assert found.steps_since(0) == 36
    found.take(12)
    maps = Path("/proc/self/maps").read_text()
    assert len(found.train) and str(found.folder) not in maps
    store = Store.open(found.folder)
    assert Path("/proc/self/maps").read_text().count(str(found.folder)) == len(store) == 12


def test_what_is_damaged_or_cannot_be_encoded_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path)
    setup.collect(8)
    folder = setup.out / live.TRAJECTORIES
    (folder / "shard-live-00001.safetensors").write_bytes(b"nothing")
    encode, calls = live_data.trajectory_chains, iter(range(100))

    def fails_once(*arguments: object) -> object:
        if next(calls) == 1:
            raise RuntimeError("shapes do not fit\nmore")
        return encode(*arguments)

    monkeypatch.setattr(live_data, "trajectory_chains", fails_once)
    trainer = setup.trainer()
    assert trainer.ready() and trainer.round().path is not None
    assert trainer.data.skipped == 2
    notes = [note for note in trainer.notes() if "trajectory" in note]
    assert notes[0].startswith("trajectory 1 is skipped, 1 so far: ") and "truncated" in notes[0]
    assert notes[1] == "trajectory 2 is skipped, 2 so far: shapes do not fit"
    assert trainer.look() == 0 and trainer.notes() == []


@pytest.mark.parametrize("kind", [MappingError("too many maps"), OSError(errno.EIO, "I/O error")])
def test_trouble_that_passes_neither_doubles_nor_loses_what_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Exception
) -> None:
    setup = Setup(tmp_path)
    setup.collect(12)
    whole, troubled = data(setup), data(setup)
    whole.take(12)
    open_shard, calls = Shard.open, iter(range(100))

    def once(file: Path, spec: store_format.StoreSpec) -> Shard:
        if next(calls) == 5:
            if isinstance(kind, MappingError):
                raise kind
            raise StoreError(f"{file}: cannot be mapped") from kind
        return open_shard(file, spec)

    # sizes are known before, so that only taking in opens files
    troubled._first_needed(12)
    monkeypatch.setattr(live_data.Shard, "open", once)
    with pytest.raises(type(kind)):
        troubled.take(12)
    assert troubled.skipped == 0 and 0 < troubled.seen < 12
    troubled.take(12)
    assert same(troubled.train, whole.train) and same(troubled.held, whole.held)


# ---- the keeper --------------------------------------------------------------------------------


def full(fd: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_while_the_disk_is_full_the_newest_wait_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path)
    setup.collect(2)
    arriving = wall_trajectories(8, 15, seed=5)
    size = arriving[0].images.nbytes + arriving[0].actions.nbytes + arriving[0].proprio.nbytes
    monkeypatch.setattr(intake, "WAITING_BYTES", 3 * size)
    encoded: list[int] = []
    encode = intake.StoreWriter.write

    def counted(writer: intake.StoreWriter, trajectory: live_data.Trajectory) -> Path:
        encoded.append(trajectory.meta["episode"])
        return encode(writer, trajectory)

    monkeypatch.setattr(intake.StoreWriter, "write", counted)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        for number, trajectory in enumerate(arriving[:7]):
            with pytest.raises(StoreError, match="disk is full") as error:
                setup.keeper.keep(trajectory)
            assert setup.keeper.waiting == min(number + 1, 3)
    assert "3 trajectories wait in memory, 4 were dropped" in str(error.value)
    assert len(encoded) == 7, "a failure costs one trajectory's encoding, not the whole queue's"
    assert (setup.keeper.count, setup.keeper.dropped) == (2, 4)
    setup.keeper.keep(arriving[7])
    assert setup.keeper.waiting == 0 and setup.keeper.count == 6
    stored = Store.open(setup.keeper.folder)
    assert [t.meta["episode"] for t in stored] == [0, 1, 4, 5, 6, 7]
    assert len(numbered_shards(setup.keeper.folder, WRITER)) == 6, "a shard each"


def test_a_disk_that_is_full_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path)
    good, other = wall_trajectories(2)
    other.images = other.images[:, :16]
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(StoreError, match="1 trajectories wait"):
            setup.keeper.keep(good)
        with pytest.raises(UserError, match="images: size"):
            setup.keeper.keep(other)
        with pytest.raises(StoreError, match="disk is full"):
            setup.keeper.flush()
    assert setup.keeper.count == 0 and setup.keeper.waiting == 1
    setup.keeper.flush()
    assert setup.keeper.count == 1 and setup.keeper.waiting == 0
    setup.collect(1)
    assert setup.keeper.count == 2 and len(Store.open(setup.keeper.folder)) == 2


def test_the_keeper_counts_names_and_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path)
    setup.collect(3)

    def refuse(*arguments: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(live_data.Shard, "open", refuse)
    assert Keeper(setup.keeper.folder, setup.start.config).count == 3


@pytest.mark.parametrize(("limit", "left"), [(0, range(6)), (4, range(2, 6))])
def test_a_keeper_with_a_limit_deletes_the_oldest(tmp_path: Path, limit: int, left: range) -> None:
    setup = Setup(tmp_path)
    setup.collect(3)
    setup.keeper = Keeper(setup.keeper.folder, setup.start.config, limit)
    setup.collect(3)
    assert list(numbered_shards(setup.keeper.folder, WRITER)) == list(left)
    assert setup.keeper.count == 6
