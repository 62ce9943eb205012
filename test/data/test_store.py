"""Stores: what goes in comes out; damage is named; nothing written is lost."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wm_mpc.core import files
from wm_mpc.data.store.store import Store, StoreError, StoreSpec, StoreWriter, numbered_shards
from wm_mpc.data.trajectory import Trajectory

SPEC = StoreSpec("toy", 2, 3, 4, 0.1, (6, 5))


def toy(
    seed: int, steps: int | None = None, stride: int = 1, spec: StoreSpec = SPEC
) -> Trajectory:
    """A random trajectory that fits ``spec``."""
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(3, 20)) if steps is None else steps
    at = np.arange(0, steps + 1, stride)
    return Trajectory(
        images=rng.integers(0, 256, (len(at), *spec.image_size, 3), np.uint8),
        image_steps=at,
        actions=rng.standard_normal((steps, spec.action_dim)).astype(np.float32),
        proprio=rng.standard_normal((steps + 1, spec.proprio_dim)).astype(np.float32),
        stamps=np.arange(steps + 1) * 0.1 + rng.random(),
        state=rng.standard_normal((steps + 1, spec.state_dim)) if spec.state_dim else None,
        meta={"seed": seed, "note": "ü"},
    )


def assert_same(a: Trajectory, b: Trajectory) -> None:
    """All fields equal, types included."""
    for name in ("images", "image_steps", "actions", "proprio", "stamps", "state"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        if x is not None:
            assert np.asarray(x).dtype == np.asarray(y).dtype, name
            np.testing.assert_array_equal(x, y, err_msg=name)
    assert a.meta == b.meta


def shards(path: Path) -> list[Path]:
    """Shard files in order."""
    return sorted(path.glob("shard-*.safetensors"))


@pytest.mark.parametrize("shard_bytes", [1, 4000, 2**26])
@pytest.mark.parametrize("state_dim", [0, 4])
def test_round_trip(tmp_path: Path, shard_bytes: int, state_dim: int) -> None:
    """Any split into shards gives back every episode exactly, mapped rather than loaded."""
    spec = StoreSpec("toy", 2, 3, state_dim, 0.1, (6, 5))
    episodes = [toy(i, stride=1 + i % 3, spec=spec) for i in range(23)]
    with StoreWriter(tmp_path / "s", spec, shard_bytes, writer_id="a") as writer:
        for episode in episodes:
            writer.add(episode)
    store = Store.open(tmp_path / "s")
    assert store.spec == spec and len(store) == 23 and not store.skipped
    assert store.num_steps == sum(map(len, episodes))
    assert store.num_frames == sum(len(e.images) for e in episodes)
    for mine, stored in zip(episodes, store, strict=True):
        assert_same(mine, stored)
    assert isinstance(store[0].images.base.base, np.memmap) or store[0].images.base is not None
    assert not store[0].images.flags.owndata and not store[0].images.flags.writeable
    assert store.metas() == [e.meta for e in episodes]


def test_episodes_without_images_are_kept(tmp_path: Path) -> None:
    """A shard whose episodes have no images at all still opens."""
    bare = toy(0)
    bare.images, bare.image_steps = bare.images[:0], bare.image_steps[:0]
    with StoreWriter(tmp_path, SPEC) as writer:
        writer.add(bare)
    assert_same(Store.open(tmp_path)[0], bare)


def test_several_writers_append(tmp_path: Path) -> None:
    """Writers append concurrently; one that comes back continues its numbers."""

    def work(writer_id: str) -> None:
        with StoreWriter(tmp_path, SPEC, 1, writer_id) as writer:
            for i in range(10):
                writer.add(toy(ord(writer_id) * 100 + i))

    threads = [threading.Thread(target=work, args=(w,)) for w in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work("a")
    seeds = sorted(meta["seed"] for meta in Store.open(tmp_path).metas())
    assert len(shards(tmp_path)) == 40
    assert seeds == sorted([ord(w) * 100 + i for w in "abca" for i in range(10)])


def test_windows_match_the_episodes(tmp_path: Path) -> None:
    """Every window points at its own episode's images, actions and rows, and none is forgotten."""
    episodes = [toy(i, steps=5 + 3 * i, stride=(1, 2, 5)[i % 3]) for i in range(9)]
    with StoreWriter(tmp_path, SPEC, 3000, "a") as writer:
        for episode in episodes:
            writer.add(episode)
    store = Store.open(tmp_path)
    frames, windows = store.frames(), store.windows(2, 5)
    images = frames.gather(windows.frames)
    found = set()
    for i in range(len(windows)):
        episode, start = episodes[windows.episode[i]], int(windows.start[i])
        steps = start + np.array([0, 5, 10])
        found.add((int(windows.episode[i]), start))
        rows = [list(episode.image_steps).index(s) for s in steps]
        np.testing.assert_array_equal(images[i], episode.images[rows])
        np.testing.assert_array_equal(
            frames.actions[windows.actions[i]].reshape(10, 2), episode.actions[start : start + 10]
        )
        np.testing.assert_array_equal(frames.proprio[windows.rows[i]], episode.proprio[steps])
        np.testing.assert_array_equal(frames.state[windows.rows[i]], episode.state[steps])
    expected = {
        (e, s)
        for e, episode in enumerate(episodes)
        for s in range(len(episode) - 9)
        if {s, s + 5, s + 10} <= set(episode.image_steps.tolist())
    }
    assert found == expected and len(windows) == len(expected)
    assert len(store.windows(2, 5, stride=3)) < len(windows)
    with pytest.raises(ValueError, match="length"):
        store.windows(1000, 5)
    with pytest.raises(ValueError, match="frameskip"):
        store.windows(2, 0)


@pytest.mark.parametrize(
    ("field", "damage"),
    [
        ("actions", lambda t: t.actions.__setitem__((2, 0), np.nan)),
        ("proprio", lambda t: t.proprio.__setitem__((1, 1), np.inf)),
        ("state", lambda t: t.state.__setitem__((0, 0), np.nan)),
        ("stamps", lambda t: t.stamps.__setitem__(2, 0.0)),
        ("images", lambda t: setattr(t, "images", t.images[:, :4])),
        ("actions", lambda t: setattr(t, "actions", t.actions[:, :1])),
        ("state", lambda t: setattr(t, "state", None)),
    ],
)
def test_bad_trajectories_are_refused_on_writing(
    tmp_path: Path, field: str, damage: Callable
) -> None:
    """The error names the field, and the trajectory is not stored."""
    with StoreWriter(tmp_path, SPEC) as writer:
        writer.add(toy(0))
        bad = toy(1)
        damage(bad)
        with pytest.raises(ValueError, match=field):
            writer.add(bad)
    assert [m["seed"] for m in Store.open(tmp_path).metas()] == [0]


@pytest.fixture
def three_shards(tmp_path: Path) -> Path:
    """A store of three one-episode shards."""
    with StoreWriter(tmp_path, SPEC, 1, "w") as writer:
        for i in range(3):
            writer.add(toy(i))
    return tmp_path


def rewrite_header(file: Path, change: Callable[[dict], object]) -> None:
    """Apply ``change`` to the JSON header of a shard and put it back."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + data[8 + size :])


def poison(file: Path) -> None:
    """Put a NaN into the stored actions."""
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[:8], "little")
    begin = 8 + size + json.loads(data[8 : 8 + size])["actions"]["data_offsets"][0]
    data[begin : begin + 4] = np.float32(np.nan).tobytes()
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("match", "damage"),
    [
        ("truncated", lambda f: os.truncate(f, f.stat().st_size - 10)),
        ("truncated", lambda f: os.truncate(f, 100)),
        ("truncated", lambda f: os.truncate(f, 3)),
        ("truncated", lambda f: os.truncate(f, 0)),
        ("truncated", lambda f: f.write_bytes(f.read_bytes() + b"xx")),
        ("JSON", lambda f: f.write_bytes(b"\x10" + b"\0" * 7 + b"not json at all!")),
        (
            "version 9",
            lambda f: rewrite_header(f, lambda h: h["__metadata__"].update(version="9")),
        ),
        ("format None", lambda f: rewrite_header(f, lambda h: h.pop("__metadata__"))),
        ("'proprio' is missing", lambda f: rewrite_header(f, lambda h: h.pop("proprio"))),
        ("episodes", lambda f: rewrite_header(f, lambda h: h["__metadata__"].pop("episodes"))),
        (
            "rows; . expected",
            lambda f: rewrite_header(
                f,
                lambda h: h["__metadata__"].update(
                    episodes=json.dumps({"length": [1], "frame_count": [1], "meta": [{}]})
                ),
            ),
        ),
        ("episode 0: actions: not finite", poison),
    ],
)
def test_damaged_shards_are_named_or_skipped(
    three_shards: Path, match: str, damage: Callable
) -> None:
    """Opening names file and fault; with skip_bad the other shards remain readable."""
    victim = shards(three_shards)[1]
    damage(victim)
    with pytest.raises(StoreError, match=match) as error:
        Store.open(three_shards)
    assert victim.name in str(error.value) and "\n" not in str(error.value)
    store = Store.open(three_shards, skip_bad=True)
    assert [m["seed"] for m in store.metas()] == [0, 2]
    assert len(store.skipped) == 1 and victim.name in store.skipped[0]
    assert_same(store[1], toy(2))


def test_wrong_manifests_are_refused(tmp_path: Path, three_shards: Path) -> None:
    """No store, another version, another kind: one clear line each."""
    with pytest.raises(StoreError, match="no store here"):
        Store.open(tmp_path / "nothing")
    manifest = three_shards / "store.json"
    good = manifest.read_text()
    for text, match in (
        (good.replace('"version": 1', '"version": 2'), "version 2"),
        ("{", "manifest"),
        ("[]", "manifest"),
        (good.replace('"action_dim": 2', '"action_dim": 0'), "action_dim"),
        (good.replace('"action_dim": 2', '"action_dims": 2'), "action_dims"),
    ):
        manifest.write_text(text)
        with pytest.raises(StoreError, match=match):
            Store.open(three_shards)
    manifest.write_text(good)
    other = StoreSpec("toy", 2, 3, 4, 0.2, (6, 5))
    with pytest.raises(StoreError, match="control_period"):
        StoreWriter(three_shards, other)
    assert len(Store.open(three_shards)) == 3


def test_full_disk(three_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed write says so, keeps earlier shards and the queue, and leaves no debris."""
    writer = StoreWriter(three_shards, SPEC, writer_id="x")
    writer.add(toy(7))

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(StoreError, match="disk is full"):
            writer.flush()
    assert len(Store.open(three_shards)) == 3
    assert not list(three_shards.glob(".*.tmp"))
    writer.close()
    assert_same(Store.open(three_shards)[3], toy(7))


def test_file_size_limit_acts_as_a_full_disk(three_shards: Path) -> None:
    """The kernel itself refuses the write: a limit on file size, lower than the shard."""
    writer = StoreWriter(three_shards, SPEC, writer_id="x")
    writer.add(toy(7, steps=200))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StoreError, match="disk is full"):
            writer.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert len(Store.open(three_shards)) == 3 and not list(three_shards.glob(".*.tmp"))


def test_a_shard_is_one_map_and_a_system_that_maps_no_more_is_named(
    three_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with skip_bad: what could not be mapped is not damaged, and must not go missing."""
    maps, left = np.memmap, iter(range(2))

    def scarce(*args: object, **more: object) -> np.ndarray:
        if next(left, None) is None:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return maps(*args, **more)

    monkeypatch.setattr(np, "memmap", scarce)
    victim = shards(three_shards)[2]
    for skip_bad in (False, True):
        left = iter(range(2))
        with pytest.raises(StoreError, match=f"{victim.name}: cannot be mapped: .*too many"):
            Store.open(three_shards, skip_bad=skip_bad)
    left = iter(range(3))
    assert_same(Store.open(three_shards)[2], toy(2))


def test_shards_of_a_writer_by_number(tmp_path: Path) -> None:
    """Numbers, not names, give the order; other files do not count."""
    writer = StoreWriter(tmp_path, SPEC, writer_id="w")
    assert writer.write(toy(0)) == tmp_path / "shard-w-00000.safetensors" and writer.next == 1
    writer._next = 99_999
    for seed in (1, 2):
        writer.write(toy(seed))
    StoreWriter(tmp_path, SPEC, writer_id="v").write(toy(3))
    (tmp_path / "shard-w-x.safetensors").touch()
    found = numbered_shards(tmp_path, "w")
    assert list(found) == [0, 99_999, 100_000]
    assert found[100_000].name == "shard-w-100000.safetensors"
    assert StoreWriter(tmp_path, SPEC, writer_id="w").next == 100_001
    with pytest.raises(ValueError, match="actions"):
        writer.write(toy(4, spec=StoreSpec("toy", 1, 3, 4, 0.1, (6, 5))))
    assert writer.next == 100_001
    with pytest.raises(StoreError, match="nothing: No such"):
        numbered_shards(tmp_path / "nothing", "w")


def test_killed_writer(three_shards: Path) -> None:
    """SIGKILL in mid-write leaves a readable store; the next writer removes the debris."""
    script = f"""
import os, sys, time
sys.path.insert(0, {os.path.dirname(__file__)!r})
from wm_mpc.core import files
from test_store import *
def hang(fd):
    print("writing", flush=True)
    time.sleep(60)
files.os.fsync = hang
writer = StoreWriter({str(three_shards)!r}, SPEC, writer_id="k")
writer.add(toy(9))
writer.flush()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        assert len(list(three_shards.glob(".*.tmp"))) == 1
        StoreWriter(three_shards, SPEC, writer_id="other").close()
        assert len(list(three_shards.glob(".*.tmp"))) == 1, "a living writer's file was removed"
        process.kill()
    assert len(Store.open(three_shards)) == 3
    StoreWriter(three_shards, SPEC, writer_id="k").close()
    assert not list(three_shards.glob(".*.tmp"))


def test_bad_arguments(tmp_path: Path) -> None:
    """Configuration errors name field and value."""
    with pytest.raises(ValueError, match="action_dim: 0"):
        StoreSpec("toy", 0, 3, 4, 0.1, (6, 5))
    with pytest.raises(ValueError, match="control_period"):
        StoreSpec("toy", 1, 3, 4, 0.0, (6, 5))
    with pytest.raises(ValueError, match="writer_id"):
        StoreWriter(tmp_path, SPEC, writer_id="../x")
    with pytest.raises(ValueError, match="shard_bytes"):
        StoreWriter(tmp_path, SPEC, shard_bytes=0)
    StoreWriter(tmp_path, SPEC).close()
    with pytest.raises(StoreError, match="no episodes"):
        Store.open(tmp_path).frames()
