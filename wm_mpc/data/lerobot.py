"""A store in the LeRobot dataset layout, version 2.1: parquet tables, mp4 videos, JSON about them.

Layout as published by huggingface/lerobot (``codebase_version`` v2.1; its own converter makes v3.0
of
it): ``meta/info.json``, ``meta/episodes.jsonl``, ``meta/episodes_stats.jsonl``,
``meta/tasks.jsonl``,
``data/chunk-CCC/episode_EEEEEE.parquet``, ``videos/chunk-CCC/KEY/episode_EEEEEE.mp4``.
Row ``t`` holds the observation at step ``t`` and the action that follows it, so an episode of
``T``
actions gives ``T`` rows. Needs pyarrow, not lerobot.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wm_mpc.core.errors import UserError
from wm_mpc.core.files import write_atomically
from wm_mpc.data.trajectory import Trajectory

VERSION = "v2.1"
IMAGE, STATE, ACTION = "observation.image", "observation.state", "action"
_CHUNK = 1000
_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_CODEC = "mp4v"  # what OpenCV's own encoder always has: MPEG-4 part 2
_INDICES = ("frame_index", "episode_index", "index", "task_index")


def export_lerobot(
    trajectories: Iterable[Trajectory], out: Path, fps: float, task: str, robot: str = "unknown"
) -> int:
    """Write a dataset.

    Args:
        trajectories: at least one; a step without a frame repeats the frame before it.
        out: folder to create.
        fps: [Hz] control rate; the format wants rows at exactly this rate and has whole numbers.
        task: what the robot does, one sentence or word; an episode's ``meta["task"]`` wins.
        robot: name of the robot.

    Returns:
        Number of episodes.

    Raises:
        UserError: ``out`` exists, ``fps`` is not whole, pyarrow is missing, or there is no
            episode.
    """
    if out.exists():
        raise UserError(f"out: {out} exists; a dataset is never written over")
    if abs(fps - round(fps)) > 1e-6 or fps < 1:
        raise UserError(f"video_fps: {fps:g}; a whole number of Hz expected by the format")
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError("format lerobot: pip install 'wm-mpc[lerobot]' (pyarrow)") from None
    tasks: dict[str, int] = {}
    episodes: list[dict[str, Any]] = []
    statistics: list[dict[str, Any]] = []
    features: dict[str, Any] = {}
    total = 0
    for index, trajectory in enumerate(trajectories):
        name = str(trajectory.meta.get("task") or task)
        task_index = tasks.setdefault(name, len(tasks))
        columns = _columns(trajectory, index, total, task_index, round(fps))
        frames = _frames(trajectory)
        features = features or _features(trajectory, round(fps))
        paths = {"episode_chunk": index // _CHUNK, "episode_index": index, "video_key": IMAGE}
        table = out / _DATA.format(**paths)
        table.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(_table(columns), table)
        _write_video(out / _VIDEO.format(**paths), frames, round(fps))
        episodes.append({"episode_index": index, "tasks": [name], "length": len(frames)})
        stats = {key: _summary(value) for key, value in columns.items()}
        stats[IMAGE] = _image_summary(frames)
        statistics.append({"episode_index": index, "stats": stats})
        total += len(frames)
    if not episodes:
        raise UserError("episodes: none to export")
    info = {
        "codebase_version": VERSION,
        "robot_type": robot,
        "total_episodes": len(episodes),
        "total_frames": total,
        "total_tasks": len(tasks),
        "total_videos": len(episodes),
        "total_chunks": (len(episodes) - 1) // _CHUNK + 1,
        "chunks_size": _CHUNK,
        "fps": round(fps),
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": _DATA,
        "video_path": _VIDEO,
        "features": features,
    }
    meta = out / "meta"
    meta.mkdir()
    write_atomically(meta / "info.json", json.dumps(info, indent=4) + "\n")
    _write_lines(meta / "episodes.jsonl", episodes)
    _write_lines(meta / "episodes_stats.jsonl", statistics)
    _write_lines(
        meta / "tasks.jsonl", [{"task_index": i, "task": name} for name, i in tasks.items()]
    )
    return len(episodes)


def _columns(
    trajectory: Trajectory, episode: int, first: int, task: int, fps: int
) -> dict[str, np.ndarray]:
    """Columns of an episode's table, ``(T,)`` or ``(T, dim)``."""
    steps = np.arange(len(trajectory), dtype=np.int64)
    columns = {
        STATE: trajectory.proprio[:-1].astype(np.float32),
        ACTION: trajectory.actions.astype(np.float32),
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full_like(steps, episode),
        "index": steps + first,
        "task_index": np.full_like(steps, task),
    }
    if not trajectory.proprio.shape[1]:
        del columns[STATE]
    return columns


def _frames(trajectory: Trajectory) -> np.ndarray:
    """One frame per row, uint8 ``(T, H, W, 3)`` RGB: the newest that was seen by then."""
    rows = np.arange(len(trajectory))
    newest = np.searchsorted(trajectory.image_steps, rows, side="right") - 1
    return trajectory.images[np.maximum(newest, 0)]


def _features(trajectory: Trajectory, fps: int) -> dict[str, Any]:
    height, width = trajectory.images.shape[1:3]
    video = {
        "video.fps": float(fps),
        "video.height": height,
        "video.width": width,
        "video.channels": 3,
        "video.codec": "mpeg4",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "has_audio": False,
    }
    features: dict[str, Any] = {
        IMAGE: {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": video,
        }
    }
    for key, width in (
        (STATE, trajectory.proprio.shape[1]),
        (ACTION, trajectory.actions.shape[1]),
    ):
        if width:
            names = [f"{key.rpartition('.')[2]}_{i}" for i in range(width)]
            features[key] = {"dtype": "float32", "shape": [width], "names": names}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    features |= {key: {"dtype": "int64", "shape": [1], "names": None} for key in _INDICES}
    return features


def _table(columns: dict[str, np.ndarray]) -> Any:
    """Arrow table: vectors as lists of fixed length, vectors of one number as plain numbers."""
    import pyarrow as pa

    arrays = {}
    for key, values in columns.items():
        flat = pa.array(values.reshape(-1))
        wide = values.ndim == 2 and values.shape[1] > 1
        arrays[key] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if wide else flat
    return pa.table(arrays)


def _write_video(path: Path, frames: np.ndarray, fps: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames.shape[1:3]
    fourcc = cv2.VideoWriter.fourcc(*_CODEC)
    writer = cv2.VideoWriter(str(path), fourcc, fps, (width, height))
    if not writer.isOpened():
        raise UserError(f"{path}: this OpenCV build cannot write {_CODEC} videos")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def _summary(values: np.ndarray) -> dict[str, list]:
    rows = values.reshape(len(values), -1).astype(np.float64)
    return {
        "min": rows.min(0).tolist(),
        "max": rows.max(0).tolist(),
        "mean": rows.mean(0).tolist(),
        "std": rows.std(0).tolist(),
        "count": [len(rows)],
    }


def _image_summary(frames: np.ndarray) -> dict[str, list]:
    """Statistics per channel, of values in [0, 1], shaped ``(3, 1, 1)`` as the format has it."""
    pixels = frames.reshape(-1, 3).astype(np.float64) / 255
    flat = _summary(pixels)
    shaped = {key: [[[v]] for v in flat[key]] for key in ("min", "max", "mean", "std")}
    return {**shaped, "count": [len(frames)]}


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
