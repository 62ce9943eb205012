"""The LeRobot layout, read back by what its published description says."""

from __future__ import annotations

import json
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
def test_both_versions_come_back(tmp_path: Path, version: str, pictures: str) -> None:
    episodes = smooth(trajectories(3, steps=12))
    export_lerobot(
        iter(episodes), tmp_path / "set", 10.0, "push", version=version, pictures=pictures
    )
    assert main(["bag", "import", str(tmp_path / "set"), "--out", str(tmp_path / "store")]) == 0
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
