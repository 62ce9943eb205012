"""Collecting: the same data for any number of workers, resumable after any death."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sim_bridge.collect import Config, collect, generate
from wm_mpc.cli.main import main
from wm_mpc.core.errors import UserError
from wm_mpc.data.store.store import Store, StoreError

SMALL = {"episode_steps": 6, "image_size": 16, "workers": 1}


def content(path: Path) -> dict[int, tuple[np.ndarray, ...]]:
    """Arrays per episode index."""
    return {
        t.meta["episode"]: (t.images, t.image_steps, t.actions, t.proprio, t.stamps, t.state)
        for t in Store.open(path)
    }


def assert_same(a: dict, b: dict) -> None:
    """Bit-equal content."""
    assert sorted(a) == sorted(b)
    for key in a:
        for x, y in zip(a[key], b[key], strict=True):
            np.testing.assert_array_equal(x, y)


def test_workers_do_not_change_the_data(tmp_path: Path) -> None:
    """One and two processes write bit-equal episodes, in the same order."""
    for workers in (1, 2):
        config = Config("pusht", tmp_path / str(workers), 7, 3, **{**SMALL, "workers": workers})
        report = collect(config, progress=False)
        assert (report.episodes, report.steps, report.frames) == (7, 42, 49)
    assert_same(content(tmp_path / "1"), content(tmp_path / "2"))
    assert [m["episode"] for m in Store.open(tmp_path / "2").metas()] == list(range(7))
    for mine, stored in zip(
        generate("pusht", 7, 3, 6, 1, 16), Store.open(tmp_path / "1"), strict=True
    ):
        np.testing.assert_array_equal(mine.state, stored.state)
        np.testing.assert_array_equal(mine.images, stored.images)


def test_seeds_differ(tmp_path: Path) -> None:
    """Other seeds and other episodes give other trajectories."""
    starts = [t.state[0] for seed in (0, 1) for t in generate("pusht", 4, seed, 2, 1, 16)]
    assert len({s.tobytes() for s in starts}) == 8


def test_frame_stride(tmp_path: Path) -> None:
    """Images every few control steps show the states at those steps."""
    dense, sparse = (next(generate("pusht", [5], 0, 10, k, 32)) for k in (1, 4))
    np.testing.assert_array_equal(sparse.image_steps, [0, 4, 8])
    np.testing.assert_array_equal(sparse.images, dense.images[[0, 4, 8]])
    np.testing.assert_array_equal(sparse.state, dense.state)


def test_resume_adds_exactly_what_is_missing(tmp_path: Path) -> None:
    """A store that lost shards, or that is to grow, is completed to the uninterrupted result."""
    whole = Config("pusht", tmp_path / "whole", 20, 1, **SMALL)
    collect(whole, progress=False)
    collect(Config("pusht", tmp_path / "part", 8, 1, **SMALL), progress=False)
    sorted((tmp_path / "part").glob("shard-*"))[2].unlink()
    again = Config("pusht", tmp_path / "part", 20, 1, resume=True, **SMALL)
    report = collect(again, progress=False)
    assert report.already_there == 7 and report.episodes == 13
    assert_same(content(tmp_path / "whole"), content(tmp_path / "part"))
    assert collect(again, progress=False).episodes == 0


def test_refusals(tmp_path: Path) -> None:
    """Bad configuration, mixing and overwriting are refused with the field's name."""
    for field, value in (
        ("task", "chess"),
        ("policy", "clever"),
        ("episodes", 0),
        ("image_size", 5),
        ("frame_stride", 51),
        ("workers", -1),
    ):
        with pytest.raises(ValueError, match=field):
            Config(**{"task": "pusht", "out": tmp_path, field: value})
    collect(Config("pusht", tmp_path, 2, **SMALL), progress=False)
    with pytest.raises(UserError, match="--resume"):
        collect(Config("pusht", tmp_path, 2, **SMALL), progress=False)
    with pytest.raises(ValueError, match="policy"):
        collect(Config("pusht", tmp_path, 2, policy="random", resume=True, **SMALL), False)
    with pytest.raises(StoreError, match="image_size"):
        collect(Config("pusht", tmp_path, 2, seed=5, **{**SMALL, "image_size": 24}), False)
    collect(Config("pusht", tmp_path, 2, seed=5, policy="random", **SMALL), False)
    assert len(Store.open(tmp_path)) == 4


@pytest.mark.parametrize("task", ["pusht", "wall", "point_maze"])
def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture, task: str) -> None:
    """`wm-mpc collect TASK` fills a store, reports, and refuses to overwrite in one line."""
    words = ["collect", task, "--episodes", "2", "--episode-steps", "3", "--image-size", "32"]
    words += ["--workers", "1", "--out", str(tmp_path / "s"), "--report", str(tmp_path / "r.json")]
    assert main(words) == 0
    row = json.loads((tmp_path / "r.json").read_text())["results"][0]
    assert (row["task"], row["episodes"], row["frames"]) == (task, 2, 8)
    store = Store.open(tmp_path / "s")
    assert len(store) == 2 and store.spec.task == task
    capsys.readouterr()
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("wm-mpc: error: out: ")
    assert main(["collect", task, "--episodes", "0", "--out", str(tmp_path / "s")]) == 2
    assert "episodes: 0; 1 to 10000000 expected" in capsys.readouterr().err


def processes_below(pid: int) -> list[int]:
    """Ids of all living descendants of ``pid``."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            fields = stat[stat.rindex(")") + 2 :].split()
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found, frontier = [], [pid]
    while frontier:
        frontier = [child for child, parent in parents.items() if parent in frontier]
        found += frontier
    return found


@pytest.mark.flaky(reruns=1)
@pytest.mark.parametrize("victim", ["collector", "worker"])
def test_killed_collection_loses_nothing_written(tmp_path: Path, victim: str) -> None:
    """SIGKILL in the middle: the store opens, no process stays behind, resume completes it."""
    script = f"""
from pathlib import Path
from sim_bridge.collect import Config, collect
if __name__ == "__main__":
    collect(Config("pusht", Path({str(tmp_path / "s")!r}), 400, 2, episode_steps=60,
                          image_size=96, workers=2, resume=True), progress=False)
"""
    main = tmp_path / "main.py"
    main.write_text(script)
    run = subprocess.Popen([sys.executable, str(main)], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "s").glob("shard-*"))) < 2:
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.02)
        children = processes_below(run.pid)
        # The last started descendant is a worker (the first may be the resource tracker).
        os.kill(run.pid if victim == "collector" else max(children), signal.SIGKILL)
        _, errors = run.communicate(timeout=60)
        assert run.returncode != 0
        if victim == "worker":
            assert "run again with --resume" in errors.splitlines()[-1]
        while set(children) & set(processes_below(1)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        run.kill()
        run.communicate()
    kept = content(tmp_path / "s")
    assert 0 < len(kept) < 400
    config = Config(
        "pusht", tmp_path / "s", len(kept) + 3, 2, episode_steps=60, workers=1, resume=True
    )
    collect(config, progress=False)
    after = content(tmp_path / "s")
    assert set(range(len(kept) + 3)) <= set(after)
    assert_same(kept, {key: after[key] for key in kept})
    assert not list((tmp_path / "s").glob(".*.tmp"))
