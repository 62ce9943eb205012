"""The LeRobot layout, read back by what its published description says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_helpers import trajectories

from wm_mpc.cli.main import main
from wm_mpc.core.errors import UserError
from wm_mpc.data.bags import BagWriter, Exporter, WriterConfig
from wm_mpc.data.formats import open_data
from wm_mpc.data.lerobot import export_lerobot
from wm_mpc.data.store.store import Store, StoreSpec, StoreWriter
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.data.video import VideoFile

parquet = pytest.importorskip("pyarrow.parquet")


def smooth(episodes: list[Trajectory]) -> list[Trajectory]:
    """Pictures that a video encoder keeps: flat colours that change from step to step."""
    for episode in episodes:
        for k in range(len(episode.images)):
            episode.images[k] = (20 * k % 256, 128, 255 - 20 * k % 256)
    return episodes


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[Path, list[Trajectory]]:
    episodes = smooth(trajectories(3, steps=12))
    episodes[1].image_steps = episodes[1].image_steps[::2]
    episodes[1].images = episodes[1].images[::2]
    export_lerobot(iter(episodes), tmp_path / "set", 10.0, "push", version="v2.1")
    return tmp_path / "set", episodes


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tables_hold_the_numbers(dataset: tuple[Path, list[Trajectory]]) -> None:
    root, episodes = dataset
    info = json.loads((root / "meta/info.json").read_text())
    first = 0
    for index, episode in enumerate(episodes):
        path = root / info["data_path"].format(episode_chunk=0, episode_index=index)
        table = parquet.read_table(path)
        assert set(table.column_names) == set(info["features"]) - {"observation.image"}
        state = np.stack(table["observation.state"].to_numpy(zero_copy_only=False))
        action = np.stack(table["action"].to_numpy(zero_copy_only=False))
        np.testing.assert_array_equal(state, episode.proprio[:-1])
        np.testing.assert_array_equal(action, episode.actions)
        stamps = table["timestamp"].to_numpy()
        np.testing.assert_allclose(np.diff(stamps), 0.1, atol=1e-4)  # lerobot's own tolerance
        np.testing.assert_array_equal(table["index"].to_numpy(), first + np.arange(len(episode)))
        assert set(table["episode_index"].to_pylist()) == {index}
        for key, feature in info["features"].items():
            if feature["dtype"] != "video":
                kind = table.schema.field(key).type
                size = getattr(kind, "list_size", 1)
                value = kind.value_type if size > 1 else kind
                assert (value.to_pandas_dtype()().dtype, [size]) == (
                    np.dtype(feature["dtype"]), feature["shape"],
                )  # fmt: skip
        first += len(episode)
    assert info["total_frames"] == first
    assert info["total_videos"] == info["total_episodes"] == 3
    assert info["splits"] == {"train": "0:3"}


def test_videos_show_the_newest_frame_of_each_row(
    dataset: tuple[Path, list[Trajectory]],
) -> None:
    root, episodes = dataset
    info = json.loads((root / "meta/info.json").read_text())
    for index, episode in enumerate(episodes):
        path = info["video_path"].format(
            episode_chunk=0, episode_index=index, video_key="observation.image"
        )
        video = cv2.VideoCapture(str(root / path))
        assert video.get(cv2.CAP_PROP_FPS) == 10
        frames = []
        while (read := video.read())[0]:
            frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
        assert len(frames) == len(episode)
        for row, frame in enumerate(frames):
            newest = episode.images[episode.image_steps <= row][-1]
            assert abs(frame.astype(int) - newest).mean() < 6, (index, row)


def test_meta_describes_episodes_tasks_and_statistics(
    dataset: tuple[Path, list[Trajectory]],
) -> None:
    root, episodes = dataset
    assert lines(root / "meta/tasks.jsonl") == [{"task_index": 0, "task": "synthetic"}]
    assert [row["length"] for row in lines(root / "meta/episodes.jsonl")] == [12, 12, 12]
    for row, episode in zip(lines(root / "meta/episodes_stats.jsonl"), episodes, strict=True):
        stats = row["stats"]
        np.testing.assert_allclose(stats["action"]["mean"], episode.actions.mean(0), rtol=1e-5)
        np.testing.assert_allclose(stats["action"]["std"], episode.actions.std(0), rtol=1e-5)
        assert np.shape(stats["observation.image"]["mean"]) == (3, 1, 1)
        assert 0 <= np.min(stats["observation.image"]["min"])
        assert np.max(stats["observation.image"]["max"]) <= 1
        assert stats["timestamp"]["count"] == [12]


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="video_fps: 9.5; a whole number"):
        export_lerobot(trajectories(1), tmp_path / "a", 9.5, "push")
    with pytest.raises(UserError, match="exists"):
        export_lerobot(trajectories(1), tmp_path, 10, "push")
    with pytest.raises(UserError, match="none to export"):
        export_lerobot([], tmp_path / "b", 10, "push")


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("pictures", ["video", "image"])
def test_both_versions_come_back(
    tmp_path: Path, version: str, pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    episodes = smooth(trajectories(3, steps=12))
    export_lerobot(
        iter(episodes), tmp_path / "set", 10.0, "push", version=version, pictures=pictures
    )
    assert main(["bag", "import", str(tmp_path / "set"), "--out", str(tmp_path / "store")]) == 0
    assert "set: 100%" in capsys.readouterr().err  # how far it is
    stored = list(Store.open(tmp_path / "store"))
    assert [len(t) for t in stored] == [11, 11, 11]
    for found, expected in zip(stored, episodes, strict=True):
        np.testing.assert_array_equal(found.actions, expected.actions[:11])
        np.testing.assert_array_equal(found.proprio, expected.proprio[:12])
        worst = np.abs(found.images.astype(int) - expected.images[:12]).max()
        assert worst <= (0 if pictures == "image" else 12)


def test_v3_as_published(tmp_path: Path) -> None:
    """Files, columns and keys of codebase_version v3.0."""
    episodes = smooth(trajectories(3, steps=12))
    root = tmp_path / "set"
    export_lerobot(iter(episodes), root, 10.0, "push")
    files = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    assert files == [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        "videos/observation.image/chunk-000/file-000.mp4",
    ]
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    table = parquet.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pydict()
    assert table["dataset_from_index"] == [0, 12, 24]
    assert table["dataset_to_index"] == [12, 24, 36]
    parts = {"chunk_index", "file_index"}
    places = {f"{part}/{n}" for part in ("data", "meta/episodes") for n in parts}
    ends = ("from_timestamp", "to_timestamp")
    places |= {f"videos/observation.image/{n}" for n in (*parts, *ends)}
    told = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"}
    assert {name for name in table if not name.startswith("stats/")} == places | told
    summaries = {f"stats/{key}/{n}" for key in info["features"]
                 for n in ("min", "max", "mean", "std", "count")}  # fmt: skip
    assert {name for name in table if name.startswith("stats/")} == summaries
    assert info["video_path"] == (
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    )
    assert (info["chunks_size"], info["data_files_size_in_mb"]) == (1000, 100)
    assert (info["video_files_size_in_mb"], info["splits"]) == (200, {"train": "0:3"})
    tasks = parquet.read_table(root / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0], "task": ["synthetic"]}
    # read by pandas, as lerobot does, the words are the index
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    key = "videos/observation.image"
    np.testing.assert_allclose(table[f"{key}/from_timestamp"], [0, 1.2, 2.4])
    np.testing.assert_allclose(table[f"{key}/to_timestamp"], [1.2, 2.4, 3.6])
    stats = json.loads((root / "meta/stats.json").read_text())
    actions = np.concatenate([e.actions for e in episodes])
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(0), rtol=1e-5)


def test_the_door_opens_all_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    episodes = smooth(trajectories(2, steps=12, state_dim=0))
    spec = StoreSpec("synthetic", 2, 4, 0, 0.1, (16, 16))
    with StoreWriter(tmp_path / "store", spec) as writer:
        for episode in episodes:
            writer.add(episode)
    export_lerobot(iter(episodes), tmp_path / "set", 10.0, "push", pictures="image")
    with BagWriter(tmp_path / "bag", WriterConfig(min_free_mb=0)) as bag:
        Exporter(bag).write(episodes)
    for name, steps in (("store", 12), ("bag", 12), ("set", 11)):
        for _ in range(2):
            found = list(open_data(tmp_path / name))
            assert [len(t) for t in found] == [steps, steps], name
            np.testing.assert_array_equal(found[0].actions, episodes[0].actions[:steps])
    with pytest.raises(UserError, match="no store here"):
        open_data(tmp_path / "nowhere")


def imported(root: Path, out: Path, *words: str) -> tuple[int, list[Trajectory]]:
    """Exit code of an import, and what then lies in the store."""
    code = main(["bag", "import", str(root), "--out", str(out), *words])
    return code, list(Store.open(out)) if (out / "store.json").exists() else []


def test_one_video_missing_costs_one_episode(
    dataset: tuple[Path, list[Trajectory]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root, _ = dataset
    next(root.rglob("episode_000001.mp4")).unlink()
    code, _ = imported(root, tmp_path / "strict", "--strict")
    said = capsys.readouterr().err
    assert code == 2 and "episode_000001.mp4: no such video" in said and "--strict" in said
    assert not (tmp_path / "strict").exists()
    code, found = imported(root, tmp_path / "store")
    assert code == 3 and [t.meta["dataset_episode"] for t in found] == [0, 2]
    assert "left out: " in capsys.readouterr().out


def test_rates_that_vary_or_lie_are_told(
    dataset: tuple[Path, list[Trajectory]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root, _ = dataset
    path = next(root.rglob("episode_000002.parquet"))
    table = parquet.read_table(path)
    stamps = table["timestamp"].to_numpy().copy()
    stamps[6:] += 0.05
    place = table.column_names.index("timestamp")
    import pyarrow

    parquet.write_table(table.set_column(place, "timestamp", pyarrow.array(stamps)), path)
    code, found = imported(root, tmp_path / "store")
    assert code == 3 and len(found) == 2
    assert "episode 2: rows are 0.1500 s apart; fps 10 means 0.1000 s" in capsys.readouterr().out
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"fps": 30}))
    code, found = imported(root, tmp_path / "other")
    assert code == 2 and not found
    assert "fps 30 means 0.0333 s" in capsys.readouterr().err


def test_a_video_of_another_rate_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tmp_path / "set"
    export_lerobot(smooth(trajectories(1, steps=12)), root, 10.0, "push")
    video = next(root.rglob("*.mp4"))
    made = VideoFile(video.with_name("other.mp4"), 30, (16, 16))
    made.add(np.zeros((12, 16, 16, 3), np.uint8))
    made.close()
    video.with_name("other.mp4").replace(video)
    code, _ = imported(root, tmp_path / "store")
    assert code == 2 and "30 frames per second; 10 expected" in capsys.readouterr().err


def test_av1_as_most_published_datasets_have_it(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    root, episodes = tmp_path / "set", smooth(trajectories(2, steps=12))
    for episode in episodes:  # the encoder takes no pictures of 16 px
        episode.images = np.repeat(np.repeat(episode.images, 4, 1), 4, 2)
    export_lerobot(iter(episodes), root, 10.0, "push")
    video = next(root.rglob("*.mp4"))

    def encode() -> None:
        with av.open(str(video)) as source, av.open(str(other_video), "w") as out:
            stream = out.add_stream("libsvtav1", rate=10, options={"crf": "30", "g": "2"})
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for frame in source.decode(video=0):
                picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"))
                out.mux(stream.encode(picture))
            out.mux(stream.encode())

    # for root this encoder makes the thread that calls it a real-time one, and leaves it so
    other_video = video.with_suffix(".av1.mp4")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(encode).result()
    other_video.replace(video)
    code, found = imported(root, tmp_path / "store")
    assert code == 0
    for one, other in zip(found, episodes, strict=True):
        assert np.abs(one.images.astype(int) - other.images[:12]).mean() < 6


def test_options_that_mean_nothing_here_are_refused(
    dataset: tuple[Path, list[Trajectory]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert imported(dataset[0], tmp_path / "store", "--rate", "5")[0] == 2
    assert "rate: no option of a LeRobot dataset" in capsys.readouterr().err


def test_what_was_imported_is_trained_on_and_driven(tmp_path: Path) -> None:
    """Both versions, a few optimiser steps; ``tools/lerobot_round_trip.py`` does it in full."""
    pytest.importorskip("gymnasium")
    tool = Path(__file__).parents[2] / "tools" / "lerobot_round_trip.py"
    words = ["--episodes", "3", "--goals", "1", "--quick", "--arms", "v2.1", "v3.0"]
    report = tmp_path / "report.json"
    command = [sys.executable, str(tool), "--out", str(tmp_path / "out"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--report", str(report)], check=True, env=environment)
    rows = json.loads(report.read_text())["results"]
    assert [row["arm"] for row in rows] == ["v2.1", "v3.0"]
    assert all(row["numbers_equal"] and row["n"] == 1 for row in rows)
    assert all(row["pictures_mean"] < 1 for row in rows)
