"""The files of a LeRobot dataset while it is written: one per episode (2.1), or many to one (3.0).

Both take episodes one after another and keep one in memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_mpc.core.files import write_atomically
from wm_mpc.core.opencv import cv2
from wm_mpc.data.video import VideoFile

IMAGE, STATE, ACTION = "observation.image", "observation.state", "action"
_CHUNK = 1000
_DATA_MB, _VIDEO_MB = 100, 200
_DATA_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_VIDEO_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_DATA_V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_EPISODES_V3 = "meta/episodes/chunk-000/file-000.parquet"


class FilesV2:
    """Version 2.1: a table and a video per episode, JSON lines about them."""

    def __init__(self, out: Path, fps: int, pictures: str) -> None:
        self._out, self._fps, self._pictures = out, fps, pictures
        self._episodes: list[dict[str, Any]] = []
        self._statistics: list[dict[str, Any]] = []

    def add(
        self,
        index: int,
        task: str,
        columns: dict[str, np.ndarray],
        frames: np.ndarray,
        stats: dict[str, Any],
    ) -> None:
        """Write one episode."""
        import pyarrow.parquet

        paths = {"episode_chunk": index // _CHUNK, "episode_index": index, "video_key": IMAGE}
        table = self._out / _DATA_V2.format(**paths)
        table.parent.mkdir(parents=True, exist_ok=True)
        pictures = frames if self._pictures == "image" else None
        pyarrow.parquet.write_table(to_table(columns, pictures), table)
        if pictures is None:
            video = VideoFile(self._out / _VIDEO_V2.format(**paths), self._fps, frames.shape[1:3])
            video.add(frames)
            video.close()
        self._episodes.append({"episode_index": index, "tasks": [task], "length": len(frames)})
        self._statistics.append({"episode_index": index, "stats": stats})

    def close(self, tasks: dict[str, int]) -> dict[str, Any]:
        """Write what describes the episodes; return this version's part of ``info.json``."""
        meta = self._out / "meta"
        meta.mkdir()
        _write_lines(meta / "episodes.jsonl", self._episodes)
        _write_lines(meta / "episodes_stats.jsonl", self._statistics)
        rows = [{"task_index": i, "task": name} for name, i in tasks.items()]
        _write_lines(meta / "tasks.jsonl", rows)
        count, videos = len(self._episodes), self._pictures == "video"
        return {
            "total_videos": count if videos else 0,
            "total_chunks": (count - 1) // _CHUNK + 1,
            "chunks_size": _CHUNK,
            "data_path": _DATA_V2,
            "video_path": _VIDEO_V2 if videos else None,
        }


class FilesV3:
    """Version 3.0: tables and videos of many episodes each, a table about the episodes."""

    def __init__(self, out: Path, fps: int, pictures: str) -> None:
        self._out, self._fps, self._pictures = out, fps, pictures
        self._episodes: list[dict[str, Any]] = []
        self._rows = 0
        self._data: Any = None
        self._data_place, self._video_place = _Place(), _Place()
        self._video: VideoFile | None = None

    def add(
        self,
        index: int,
        task: str,
        columns: dict[str, np.ndarray],
        frames: np.ndarray,
        stats: dict[str, Any],
    ) -> None:
        """Write one episode."""
        import pyarrow.parquet

        count = len(frames)
        table = to_table(columns, frames if self._pictures == "image" else None)
        path = self._out / _DATA_V3.format(**self._data_place.words())
        if self._data is not None and path.stat().st_size > _DATA_MB * 2**20:
            self._data.close()
            self._data = None
            self._data_place.next()
            path = self._out / _DATA_V3.format(**self._data_place.words())
        if self._data is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = pyarrow.parquet.ParquetWriter(path, table.schema)
        self._data.write_table(table)
        episode: dict[str, Any] = {
            "episode_index": index,
            "tasks": [task],
            "length": count,
            "data/chunk_index": self._data_place.chunk,
            "data/file_index": self._data_place.file,
            "dataset_from_index": self._rows,
            "dataset_to_index": self._rows + count,
        }
        if self._pictures == "video":
            episode |= self._add_frames(frames)
        for key, values in stats.items():
            episode |= {f"stats/{key}/{name}": value for name, value in values.items()}
        episode |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        self._episodes.append(episode)
        self._rows += count

    def close(self, tasks: dict[str, int]) -> dict[str, Any]:
        """Write what describes the episodes; return this version's part of ``info.json``."""
        import pyarrow as pa
        import pyarrow.parquet

        if self._data is not None:
            self._data.close()
        if self._video is not None:
            self._video.close()
        path = self._out / _EPISODES_V3
        path.parent.mkdir(parents=True)
        pyarrow.parquet.write_table(pa.Table.from_pylist(self._episodes), path)
        pyarrow.parquet.write_table(_tasks_table(tasks), self._out / "meta" / "tasks.parquet")
        return {
            "chunks_size": _CHUNK,
            "data_files_size_in_mb": _DATA_MB,
            "video_files_size_in_mb": _VIDEO_MB,
            "data_path": _DATA_V3,
            "video_path": _VIDEO_V3 if self._pictures == "video" else None,
        }

    def _add_frames(self, frames: np.ndarray) -> dict[str, Any]:
        """Append an episode to the video; return its place."""
        if self._video is not None and self._video.size > _VIDEO_MB * 2**20:
            self._video.close()
            self._video = None
            self._video_place.next()
        if self._video is None:
            words = self._video_place.words()
            path = self._out / _VIDEO_V3.format(video_key=IMAGE, **words)
            self._video = VideoFile(path, self._fps, frames.shape[1:3])
        first = self._video.count
        self._video.add(frames)
        return {
            f"videos/{IMAGE}/chunk_index": self._video_place.chunk,
            f"videos/{IMAGE}/file_index": self._video_place.file,
            f"videos/{IMAGE}/from_timestamp": first / self._fps,
            f"videos/{IMAGE}/to_timestamp": self._video.count / self._fps,
        }


class _Place:
    """Number of a chunk and of a file in it."""

    def __init__(self) -> None:
        self.chunk = self.file = 0

    def next(self) -> None:
        self.file += 1
        if self.file == _CHUNK:
            self.chunk, self.file = self.chunk + 1, 0

    def words(self) -> dict[str, int]:
        return {"chunk_index": self.chunk, "file_index": self.file}


def to_table(columns: dict[str, np.ndarray], frames: np.ndarray | None = None) -> Any:
    """Arrow table: vectors as lists of fixed length, vectors of one number as plain numbers.

    Args:
        columns: ``(T,)`` or ``(T, dim)`` each.
        frames: uint8 ``(T, H, W, 3)`` RGB to keep as PNG beside them; None: none.
    """
    import pyarrow as pa

    arrays = {}
    for key, values in columns.items():
        flat = pa.array(values.reshape(-1))
        wide = values.ndim == 2 and values.shape[1] > 1
        arrays[key] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if wide else flat
    if frames is not None:
        rows = [
            {
                "bytes": cv2.imencode(".png", cv2.cvtColor(f, cv2.COLOR_RGB2BGR))[1].tobytes(),
                "path": f"frame-{i:06d}.png",
            }
            for i, f in enumerate(frames)
        ]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        arrays[IMAGE] = pa.array(rows, kind)
    return pa.table(arrays)


def _tasks_table(tasks: dict[str, int]) -> Any:
    """Task index by task; the words are the index when pandas reads it, as lerobot does."""
    import pyarrow as pa

    table = pa.table({"task_index": list(tasks.values()), "task": list(tasks)})
    kinds = (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    described = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": n, "field_name": n, "pandas_type": p, "numpy_type": k, "metadata": None}
            for n, p, k in kinds
        ],
    }
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def summary(values: np.ndarray) -> dict[str, list]:
    """Smallest, largest, mean, deviation and count of a column, a list entry per number."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    return {
        "min": rows.min(0).tolist(),
        "max": rows.max(0).tolist(),
        "mean": rows.mean(0).tolist(),
        "std": rows.std(0).tolist(),
        "count": [len(rows)],
    }


def pooled(parts: Sequence[dict[str, list]]) -> dict[str, list]:
    """Summary of everything from the summaries of its parts."""
    counts = np.array([part["count"][0] for part in parts], np.float64)
    shape = (-1, *([1] * np.ndim(parts[0]["mean"])))
    weight = (counts / counts.sum()).reshape(shape)
    means, stds = (np.array([part[name] for part in parts]) for name in ("mean", "std"))
    mean = (weight * means).sum(0)
    variance = (weight * (stds**2 + (means - mean) ** 2)).sum(0)
    return {
        "min": np.min([part["min"] for part in parts], 0).tolist(),
        "max": np.max([part["max"] for part in parts], 0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "count": [int(counts.sum())],
    }


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
