"""The token cache: equal to encoding, resumed, never of another encoder or store."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_encoder
from training_data import dot_store

from wm_mpc.core import files
from wm_mpc.core.errors import DataError
from wm_mpc.core.files import locked
from wm_mpc.data.store.store import Store
from wm_mpc.data.store.windows import Frames
from wm_mpc.latents import tokens as module
from wm_mpc.latents.encode import encode_images
from wm_mpc.latents.tokens import (
    LOCK,
    PROGRESS,
    TOKENS,
    cache_tokens,
    read_tokens,
    store_digest,
)
from wm_mpc.models.encoder import DinoEncoder
from wm_mpc.models.identity import fingerprint


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[DinoEncoder, Frames]:
    folder = tmp_path_factory.mktemp("tokens")
    frames = Store.open(dot_store(folder / "store", episodes=4, steps=9)).frames()
    return tiny_encoder(folder / "encoder"), frames


def cache(world: tuple[DinoEncoder, Frames], folder: Path, **arguments: Any) -> np.ndarray:
    return cache_tokens(*world, folder, **{"batch": 7, "progress": False} | arguments)


def test_every_frame_is_encoded_in_order(world: tuple, tmp_path: Path) -> None:
    encoder, frames = world
    found = cache(world, tmp_path)
    assert found.shape == (40, 16, 16) and found.dtype == np.float16
    expected = encode_images(encoder, frames.gather(np.arange(40)))
    assert np.abs(found - expected.astype(np.float32)).max() < 0.02
    assert isinstance(found, np.memmap)


def test_half_precision_is_close_to_full(world: tuple) -> None:
    import torch

    encoder, frames = world
    images = frames.gather(np.arange(5))
    full = encoder(torch.from_numpy(images)).numpy()
    assert np.abs(encode_images(encoder, images) - full).max() < 0.05 * np.abs(full).max()


def test_an_interrupted_cache_goes_on(
    world: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.array(cache(world, tmp_path / "whole"))
    calls: list[int] = []

    def encode(encoder: DinoEncoder, images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode_images(encoder, images)

    monkeypatch.setattr(module, "encode_images", encode)
    monkeypatch.setattr(module, "FLUSH_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        cache(world, tmp_path / "part")
    assert json.loads((tmp_path / "part" / PROGRESS).read_text())["done"] == 14
    calls[:] = [0] * 10
    resumed = cache(world, tmp_path / "part")
    assert sum(calls[10:]) == 40 - 14
    assert np.array_equal(resumed, whole)


def test_a_finished_cache_is_only_opened(
    world: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = np.array(cache(world, tmp_path))
    monkeypatch.setattr(module, "encode_images", lambda *_: pytest.fail("encoded again"))
    assert np.array_equal(cache(world, tmp_path), first)


def test_another_encoder_makes_a_new_cache_where_it_may(world: tuple, tmp_path: Path) -> None:
    first = np.array(cache(world, tmp_path / "cache"))
    other = tiny_encoder(tmp_path / "other", seed=1)
    assert fingerprint(other) != fingerprint(world[0])
    again = cache((other, world[1]), tmp_path / "cache", replace=True)
    assert not np.array_equal(first, again)
    assert np.array_equal(again, cache((other, world[1]), tmp_path / "fresh"))


def other_frames(folder: Path, **changes: Any) -> Frames:
    """A store of the same sizes as ``world``'s."""
    return Store.open(
        dot_store(folder, **{"episodes": 4, "steps": 9, "seed": 1} | changes)
    ).frames()


def forget_store(folder: Path) -> None:
    """Make a record what it was before caches named their store."""
    record = json.loads((folder / PROGRESS).read_text())
    del record["store"]
    (folder / PROGRESS).write_text(json.dumps(record) + "\n")


def test_another_store_of_the_same_size_makes_a_new_cache(
    world: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = np.array(cache(world, tmp_path / "cache"))
    other = (world[0], other_frames(tmp_path / "store"))
    again = cache(other, tmp_path / "cache", replace=True)
    assert again.shape == first.shape
    assert "of another store; tokens are computed anew" in capsys.readouterr().out
    assert np.array_equal(again, cache(other, tmp_path / "fresh"))


@pytest.mark.parametrize("name", ["actions", "proprio", "image_step"])
def test_the_digest_covers_every_number(name: str, world: tuple) -> None:
    frames = world[1]
    values = getattr(frames, name).copy()
    values[-1] += 1
    assert store_digest(dataclasses.replace(frames, **{name: values})) != store_digest(frames)


def test_the_digest_covers_pixels(world: tuple, tmp_path: Path) -> None:
    frames = world[1]
    small = other_frames(tmp_path / "small", seed=0, size=24)
    assert np.array_equal(small.actions, frames.actions)
    assert store_digest(small) != store_digest(frames)
    assert store_digest(other_frames(tmp_path / "same", seed=0)) == store_digest(frames)


@pytest.mark.parametrize("done", [40, 17])
def test_a_cache_that_names_no_store_is_adopted_when_its_tokens_agree(
    done: int,
    world: tuple,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = np.array(cache(world, tmp_path))
    forget_store(tmp_path)
    record = json.loads((tmp_path / PROGRESS).read_text()) | {"done": done}
    (tmp_path / PROGRESS).write_text(json.dumps(record))
    seen: list[int] = []

    def encode(encoder: DinoEncoder, images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return encode_images(encoder, images)

    monkeypatch.setattr(module, "encode_images", encode)
    assert np.allclose(cache(world, tmp_path), first, atol=0.02)
    assert sum(seen) == min(done, module.SPOT_CHECKS) + 40 - done
    assert "of this store" in capsys.readouterr().out
    record = json.loads((tmp_path / PROGRESS).read_text())
    assert record["store"] == store_digest(world[1]) and record["done"] == 40


def test_a_cache_that_names_no_store_is_not_trusted(
    world: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache(world, tmp_path / "cache")
    forget_store(tmp_path / "cache")
    other = (world[0], other_frames(tmp_path / "store"))
    again = cache(other, tmp_path / "cache", replace=True)
    assert "of another store; tokens are computed anew" in capsys.readouterr().out
    assert np.array_equal(again, cache(other, tmp_path / "fresh"))


def content(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in (TOKENS, PROGRESS)]


@pytest.mark.parametrize("done", [40, 17])
@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("encoder", "of another encoder"),
        (
            "image size",
            r"of shape \[40, 16, 16\], where \[40, 36, 16\] is expected \(another image size\)",
        ),
        ("longer store", r"of shape \[40, 16, 16\], where \[50, 16, 16\] is expected"),
        ("store", "of another store"),
        ("unnamed store", "of another store"),
    ],
)
def test_a_cache_of_other_content_is_refused_and_left(
    other: str, reason: str, done: int, world: tuple, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    cache(world, folder)
    record = json.loads((folder / PROGRESS).read_text()) | {"done": done}
    (folder / PROGRESS).write_text(json.dumps(record))
    encoder, frames = world
    if other == "encoder":
        encoder = tiny_encoder(tmp_path / "other", seed=1)
    elif other == "image size":
        tiny_encoder(tmp_path / "same")
        encoder = DinoEncoder.load(tmp_path / "same", 48)
    else:
        frames = other_frames(tmp_path / "store", episodes=5 if other == "longer store" else 4)
    if other == "unnamed store":
        forget_store(folder)
    before = content(folder)
    with pytest.raises(DataError, match=f"^{folder}: holds tokens {reason}; delete"):
        cache((encoder, frames), folder)
    assert content(folder) == before


def test_damaged_tokens_of_another_encoder_are_no_loss(
    world: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = np.array(cache(world, tmp_path / "cache"))
    other = (tiny_encoder(tmp_path / "other", seed=1), world[1])
    cache(other, tmp_path / "damaged")
    os.truncate(tmp_path / "damaged" / TOKENS, 1000)
    assert np.array_equal(cache(world, tmp_path / "damaged"), first)
    assert "damaged; tokens are computed anew" in capsys.readouterr().out


def test_one_foreign_frame_is_seen(world: tuple, tmp_path: Path) -> None:
    first = np.array(cache(world, tmp_path))
    forget_store(tmp_path)
    tokens = np.load(tmp_path / TOKENS, mmap_mode="r+")
    tokens[0] = first[20]
    tokens.flush()
    assert np.array_equal(cache(world, tmp_path, replace=True), first)


@pytest.mark.parametrize("text", ["", '{"encoder": "76b3', "[]", "\udcff"])
def test_an_unreadable_record_makes_a_new_cache(text: str, world: tuple, tmp_path: Path) -> None:
    first = np.array(cache(world, tmp_path))
    (tmp_path / PROGRESS).write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / TOKENS).write_bytes(b"")
    assert np.array_equal(cache(world, tmp_path), first)


@pytest.mark.parametrize("damage", ["shape", "kind", "cut short", "missing"])
def test_tokens_that_do_not_fit_their_record_are_made_anew(
    damage: str, world: tuple, tmp_path: Path
) -> None:
    first = np.array(cache(world, tmp_path))
    file = tmp_path / TOKENS
    if damage == "missing":
        file.unlink()
    elif damage == "cut short":
        os.truncate(file, file.stat().st_size - 1)
    else:
        np.save(file, first[:, :4] if damage == "shape" else first.astype(np.float32))
    assert np.array_equal(cache(world, tmp_path), first)


def test_no_record_vouches_for_a_cache_in_the_making(
    world: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache(world, tmp_path)
    kept = np.array(first)
    other = tiny_encoder(tmp_path / "other", seed=1)

    def killed(*_: Any) -> None:
        assert (tmp_path / TOKENS).is_file() and not (tmp_path / PROGRESS).exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "encode_images", killed)
    with pytest.raises(KeyboardInterrupt):
        cache((other, world[1]), tmp_path, replace=True)
    # whoever has the old tokens open keeps them
    assert np.array_equal(first, kept)
    monkeypatch.undo()
    assert np.array_equal(cache(world, tmp_path), kept)


def test_the_record_is_whole_or_not_there(
    world: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        cache(world, tmp_path)
    assert not (tmp_path / PROGRESS).exists()


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 8 KiB, which a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line(world: tuple, tmp_path: Path, small_disk: None) -> None:
    with pytest.raises(DataError, match=f"{tmp_path}: cannot be written: the disk is full"):
        cache(world, tmp_path)
    assert not (tmp_path / TOKENS).exists()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve room")
def test_room_is_reserved_before_the_first_token(
    world: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(module, "encode_images", lambda *_: pytest.fail("encoded"))
    with pytest.raises(DataError, match="the disk is full"):
        cache(world, tmp_path)
    assert not (tmp_path / TOKENS).exists()


def test_a_file_system_that_cannot_reserve_serves_as_well(
    world: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    assert len(cache(world, tmp_path)) == 40


def test_a_second_run_waits_for_the_first_and_uses_its_tokens(
    world: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    calls: list[str] = []
    halfway, go_on, waiting = threading.Event(), threading.Event(), threading.Event()
    flock = files.fcntl.flock

    def encode(encoder: DinoEncoder, images: np.ndarray) -> np.ndarray:
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            halfway.set()
            assert go_on.wait(60)
        return encode_images(encoder, images)

    def blocking(stream: Any, how: int) -> None:
        if how == files.fcntl.LOCK_EX:
            waiting.set()
        flock(stream, how)

    monkeypatch.setattr(module, "encode_images", encode)
    monkeypatch.setattr(files.fcntl, "flock", blocking)
    found: dict[str, np.ndarray] = {}

    def run(name: str) -> None:
        found[name] = np.array(cache(world, tmp_path))

    threads = [threading.Thread(target=run, args=(name,), name=name) for name in ("a", "b")]
    threads[0].start()
    assert halfway.wait(60)
    threads[1].start()
    assert waiting.wait(60)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert calls == ["a"] * 6
    assert np.array_equal(found["a"], found["b"]) and np.abs(found["b"]).min(2).max() > 0
    told = f"{tmp_path}: another process makes tokens there; waiting for it"
    assert capsys.readouterr().out.count(told) == 1


def test_the_claim_ends_with_its_process(world: tuple, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom wm_mpc.core.files import locked\n"
        "with locked(Path(sys.argv[1]), ''):\n    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / LOCK)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    with other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with (tmp_path / LOCK).open("a") as stream, pytest.raises(BlockingIOError):
            files.fcntl.flock(stream, files.fcntl.LOCK_EX | files.fcntl.LOCK_NB)
        other.kill()
    assert len(cache(world, tmp_path)) == 40


def test_an_error_lets_go(world: tuple, tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), locked(tmp_path / LOCK, "waiting"):
        raise KeyboardInterrupt
    with (tmp_path / LOCK).open("a") as stream:
        files.fcntl.flock(stream, files.fcntl.LOCK_EX | files.fcntl.LOCK_NB)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EIO])
def test_a_file_system_that_cannot_lock(
    number: int, world: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "flock", unsupported)
    if number == errno.EIO:
        with pytest.raises(DataError, match=os.strerror(number)):
            cache(world, tmp_path)
    else:
        assert len(cache(world, tmp_path)) == 40


def test_a_finished_cache_that_cannot_be_written_serves(world: tuple, tmp_path: Path) -> None:
    first = np.array(cache(world, tmp_path))
    # opening a folder for writing fails for every user, as a file without rights does not
    (tmp_path / LOCK).unlink()
    (tmp_path / LOCK).mkdir()
    assert np.array_equal(cache(world, tmp_path), first)


def test_further_processes_only_read(world: tuple, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path}: no complete tokens"):
        read_tokens(*world, tmp_path)
    first = np.array(cache(world, tmp_path))
    assert np.array_equal(read_tokens(*world, tmp_path), first)
    before = content(tmp_path)
    with pytest.raises(DataError, match="no complete tokens of this encoder and store"):
        read_tokens(world[0], other_frames(tmp_path / "store"), tmp_path)
    assert content(tmp_path) == before
    record = json.loads((tmp_path / PROGRESS).read_text())
    (tmp_path / PROGRESS).write_text(json.dumps(record | {"done": 39}))
    with pytest.raises(DataError, match="no complete tokens"):
        read_tokens(*world, tmp_path)
