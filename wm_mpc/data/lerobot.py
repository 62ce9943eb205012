"""A store in the LeRobot dataset layout: parquet tables, mp4 videos, and what describes them.

Version 3.0 as published by huggingface/lerobot: ``meta/info.json``, ``meta/stats.json``,
``meta/tasks.parquet``, ``meta/episodes/chunk-CCC/file-FFF.parquet``,
``data/chunk-CCC/file-FFF.parquet`` and ``videos/KEY/chunk-CCC/file-FFF.mp4``, many episodes to a
file. Version 2.1, one file per episode, is written on request. Row ``t`` holds the observation at
step ``t`` and the action that follows it, so an episode of ``T`` actions gives ``T`` rows. Needs
pyarrow, and PyAV for good videos, not lerobot. Reading lies in ``lerobot_reader``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_mpc.core.channels import Channel
from wm_mpc.core.errors import UserError
from wm_mpc.core.files import write_atomically
from wm_mpc.data.lerobot_files import (
    ACTION,
    IMAGE,
    STATE,
    FilesV2,
    FilesV3,
    pooled,
    summary,
)
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.data.video import video_kind

VERSIONS = ("v3.0", "v2.1")
PICTURES = ("video", "image")
_INDICES = ("frame_index", "episode_index", "index", "task_index")


def export_lerobot(
    trajectories: Iterable[Trajectory],
    out: Path,
    fps: float,
    task: str,
    robot: str = "unknown",
    version: str = "v3.0",
    pictures: str = "video",
    channels: tuple[Sequence[Channel], Sequence[Channel]] = ((), ()),
) -> int:
    """Write a dataset.

    Args:
        trajectories: at least one; a step without a frame repeats the frame before it.
        out: folder to create.
        fps: [Hz] control rate; the format wants rows at exactly this rate and has whole numbers.
        task: what the robot does, one sentence or word; an episode's ``meta["task"]`` wins.
        robot: name of the robot.
        version: of the layout: ``v3.0`` or ``v2.1``.
        pictures: ``video``, lossy, or ``image``: PNG inside the tables, lossless.
        channels: what the numbers of proprioception and action are; gives their names.

    Returns:
        Number of episodes.

    Raises:
        UserError: ``out`` exists, ``fps`` is not whole, pyarrow is missing, or there is no
            episode.
    """
    if version not in VERSIONS:
        raise UserError(f"version: {version!r}; one of {', '.join(VERSIONS)} expected")
    if pictures not in PICTURES:
        raise UserError(f"pictures: {pictures!r}; one of {', '.join(PICTURES)} expected")
    if out.exists():
        raise UserError(f"out: {out} exists; a dataset is never written over")
    if abs(fps - round(fps)) > 1e-6 or fps < 1:
        raise UserError(f"video_fps: {fps:g}; a whole number of Hz expected by the format")
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UserError("format lerobot: pip install 'wm-mpc[lerobot]' (pyarrow)") from None
    files = (FilesV3 if version == "v3.0" else FilesV2)(out, round(fps), pictures)
    tasks: dict[str, int] = {}
    statistics: list[dict[str, Any]] = []
    features: dict[str, Any] = {}
    total = count = 0
    for index, trajectory in enumerate(trajectories):
        name = str(trajectory.meta.get("task") or task)
        columns = _columns(
            trajectory, index, total, tasks.setdefault(name, len(tasks)), round(fps)
        )
        frames = _frames(trajectory)
        features = features or _features(trajectory, round(fps), pictures, channels, version)
        stats = {key: summary(value) for key, value in columns.items()}
        stats[IMAGE] = _image_summary(frames)
        files.add(index, name, columns, frames, stats)
        statistics.append(stats)
        total += len(frames)
        count += 1
    if not count:
        raise UserError("episodes: none to export")
    extra = files.close(tasks)
    info = {
        "codebase_version": version,
        "robot_type": robot,
        "total_episodes": count,
        "total_frames": total,
        "total_tasks": len(tasks),
        "fps": round(fps),
        "splits": {"train": f"0:{count}"},
        **extra,
        "features": features,
    }
    write_atomically(out / "meta" / "info.json", json.dumps(info, indent=4) + "\n")
    if version == "v3.0":
        pool = {key: pooled([stats[key] for stats in statistics]) for key in statistics[0]}
        write_atomically(out / "meta" / "stats.json", json.dumps(pool, indent=4) + "\n")
    return count


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


def _features(
    trajectory: Trajectory,
    fps: int,
    pictures: str,
    channels: tuple[Sequence[Channel], Sequence[Channel]],
    version: str,
) -> dict[str, Any]:
    height, width = trajectory.images.shape[1:3]
    picture: dict[str, Any] = {
        "dtype": pictures, "shape": [height, width, 3], "names": ["height", "width", "channels"],
    }  # fmt: skip
    if pictures == "video":
        codec, pixels = video_kind((height, width))
        picture["info"] = {
            "video.fps": float(fps),
            "video.height": height,
            "video.width": width,
            "video.channels": 3,
            "video.codec": codec,
            "video.pix_fmt": pixels,
            "video.is_depth_map": False,
            "has_audio": False,
        }
    features: dict[str, Any] = {IMAGE: picture}
    for key, size, known in (
        (STATE, trajectory.proprio.shape[1], channels[0]),
        (ACTION, trajectory.actions.shape[1], channels[1]),
    ):
        if size:
            names = [f"{key.rpartition('.')[2]}_{i}" for i in range(size)]
            if len(known) == size and all(channel.name for channel in known):
                names = [_lerobot_name(channel) for channel in known]
            features[key] = {"dtype": "float32", "shape": [size], "names": names}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    features |= {key: {"dtype": "int64", "shape": [1], "names": None} for key in _INDICES}
    if version == "v3.0":
        for feature in features.values():
            if feature["dtype"] != "video":
                feature["fps"] = fps
    return features


def _lerobot_name(channel: Channel) -> str:
    """Name and role in the words of LeRobot's robots: ``shoulder_pan.pos``."""
    ends = {"position": ".pos", "velocity": ".vel", "effort": ".effort"}
    return channel.name + ends.get(channel.role, "")


def _image_summary(frames: np.ndarray) -> dict[str, list]:
    """Statistics per channel, of values in [0, 1], shaped ``(3, 1, 1)`` as the format has it."""
    pixels = frames.reshape(-1, 3).astype(np.float64) / 255
    flat = summary(pixels)
    shaped = {key: [[[v]] for v in flat[key]] for key in ("min", "max", "mean", "std")}
    return {**shaped, "count": [len(frames)]}

