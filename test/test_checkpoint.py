"""Savers of model files on a disk that is full or read-only: one line, the old files intact."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import tiny_checkpoint, tiny_model

from wm_mpc.core.errors import CheckpointError
from wm_mpc.models.checkpoint import CONFIG_FILE, WEIGHTS_FILE, read_record, write_checkpoint
from wm_mpc.models.world_model import WorldModel
from wm_mpc.training.live.worker import PASSING


@pytest.fixture
def room() -> Iterator[int]:
    """Bytes that a file may grow to, which a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield 4096
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_weights_that_find_no_room(tmp_path: Path, room: int) -> None:
    state = {"w": torch.zeros(room)}
    with pytest.raises(CheckpointError, match=f"{tmp_path}: cannot be written: the disk is full"):
        write_checkpoint(tmp_path, state, {"config": {}, "encoder": {}})
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_finds_no_room_leaves_the_old_model(tmp_path: Path, room: int) -> None:
    write_checkpoint(tmp_path, {"w": torch.zeros(2)}, {"config": {}, "encoder": {}})
    before = (tmp_path / WEIGHTS_FILE).read_bytes()
    with pytest.raises(CheckpointError, match="the disk is full"):
        write_checkpoint(tmp_path, {"w": torch.ones(2)}, {"config": "x" * room, "encoder": {}})
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == before
    assert read_record(tmp_path)["config"] == {}
    assert sorted(file.name for file in tmp_path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


def test_a_model_that_finds_no_room(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = tiny_checkpoint(tmp_path / "model")
    known = WorldModel.load(folder).hash
    request.getfixturevalue("room")
    with pytest.raises(CheckpointError, match="the disk is full"):
        tiny_model(WorldModel.load(folder).encoder, seed=1).save(folder, encoder="encoder")
    assert WorldModel.load(folder).hash == known


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written: Not a directory"):
        write_checkpoint(tmp_path / "file" / "model", {"w": torch.zeros(2)}, {})


def test_who_retries_after_trouble_with_the_disk_can(tmp_path: Path, room: int) -> None:
    """Training beside a running robot waits for room where a command ends."""
    with pytest.raises(PASSING, match="the disk is full"):
        write_checkpoint(tmp_path, {"w": torch.zeros(room)}, {"config": {}, "encoder": {}})
