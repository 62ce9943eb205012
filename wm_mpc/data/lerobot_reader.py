"""Datasets in the LeRobot layout, versions 2.1 and 3.0, as trajectories.

Row ``t`` is the observation at step ``t`` and the action that follows, so ``N`` rows give
``N - 1`` steps: what the last action led to was not recorded. Needs pyarrow, not lerobot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wm_mpc.core.channels import Channel
from wm_mpc.core.errors import DataError, UserError
from wm_mpc.core.opencv import cv2
from wm_mpc.data.bags.pictures import fit_picture
from wm_mpc.data.trajectory import Trajectory
from wm_mpc.data.video import VideoReader

VERSIONS = ("v2.0", "v2.1", "v3.0")
_TIME_SHARE = 0.1
"""A row may lie this share of a period off its time."""


@dataclass
class Dataset:
    """A dataset on disk.

    Attributes:
        root: folder.
        info: ``meta/info.json``.
        image, state, action: keys of the features that are read; state may be empty.
        episodes: one dict per episode, as the version keeps them.
        tasks: task index -> words.
        notes: what is there and not read, one line each.
    """

    root: Path
    info: dict[str, Any]
    image: str
    state: str
    action: str
    episodes: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def version(self) -> str:
        """``codebase_version``."""
        return self.info["codebase_version"]

    @property
    def fps(self) -> float:
        """[Hz] rows and frames."""
        return float(self.info["fps"])

    def channels(self, key: str) -> tuple[Channel, ...]:
        """What the numbers of a feature are called; empty where it does not say."""
        names = self.info["features"].get(key, {}).get("names")
        if isinstance(names, dict):
            names = next((value for value in names.values() if isinstance(value, list)), None)
        width = self.width(key)
        if not isinstance(names, list) or len(names) != width:
            return ()
        return tuple(_channel(str(name)) for name in names)

    def width(self, key: str) -> int:
        """Numbers of a feature; 0 for none."""
        shape = self.info["features"].get(key, {}).get("shape") or [0]
        return int(np.prod(shape))


def is_lerobot(path: Path) -> bool:
    """Whether a folder looks like a dataset of this layout."""
    return (path / "meta" / "info.json").is_file()


def open_lerobot(path: Path, image: str = "", state: str = "", action: str = "") -> Dataset:
    """Read what describes a dataset.

    Args:
        path: its folder.
        image: feature with the pictures; empty: the only one, or the first, which is noted.
        state: feature with proprioception; empty: ``observation.state`` where there is one.
        action: feature with commands; empty: ``action``.

    Raises:
        UserError: pyarrow is missing, or a feature is not there.
        DataError: no dataset, another version, or damaged.
    """
    _pyarrow()
    file = path / "meta" / "info.json"
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        features, version = info["features"], info["codebase_version"]
        if not isinstance(features, dict) or float(info["fps"]) <= 0:
            raise ValueError("features and fps expected")
    except FileNotFoundError:
        raise DataError(f"{path}: no LeRobot dataset here (meta/info.json is missing)") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: not a description of a dataset: {error}") from None
    if version not in VERSIONS:
        raise DataError(f"{file}: codebase_version {version}; one of {', '.join(VERSIONS)} known")
    cameras = [k for k, f in features.items() if f.get("dtype") in ("video", "image")]
    pictures = [key for key in cameras if not _is_depth(features[key])] or cameras
    notes = []
    if not image and len(pictures) > 1:
        notes.append(f"pictures of {pictures[0]} are read; {', '.join(pictures[1:])} are not")
    image = image or (pictures[0] if pictures else "")
    state = state or ("observation.state" if "observation.state" in features else "")
    action = action or "action"
    for name, key, known in (
        ("image", image, pictures), ("action", action, features), ("state", state, features),
    ):  # fmt: skip
        if key not in known and not (name == "state" and not key):
            raise UserError(f"{name}: {key!r} is no such feature; {', '.join(features)} are there")
    dataset = Dataset(path, info, image, state, action, notes=notes)
    try:
        (_describe_v3 if version == "v3.0" else _describe_v2)(dataset)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path / 'meta'}: {str(error).splitlines()[0]}") from None
    if not dataset.episodes:
        raise DataError(f"{path}: no episodes")
    return dataset


def read_lerobot(
    dataset: Dataset, size: tuple[int, int] | None, problems: list[str]
) -> Iterator[Trajectory]:
    """Yield the episodes, one in memory at a time.

    Args:
        dataset: opened.
        size: (height, width) of the pictures [px], cut and scaled to it; None: as they are.
        problems: takes a line for every episode whose table or video is missing, damaged, or does
            not fit the others; it is left out.
    """
    tables: dict[Path, Any] = {}
    video = VideoReader()
    for place, episode in enumerate(dataset.episodes):
        try:
            index = int(episode.get("episode_index", place))
            path = _table_path(dataset, index, episode)
            if path not in tables:
                tables = {path: _table(path)}
            rows = _rows_of(tables[path], index, path)
            length = int(episode.get("length", len(rows["timestamp"])))
            if len(rows["timestamp"]) != length:
                found = len(rows["timestamp"])
                raise DataError(f"{path}: episode {index} has {found} rows; {length} expected")
            if length < 2:
                dataset.notes.append(f"episode {index} has {length} row: no step")
                continue
            trajectory = _trajectory(dataset, index, episode, rows, size, video)
        except (DataError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            why = str(error) if isinstance(error, DataError) else f"episode {place}: {error!r}"
            problems.append(f"left out: {why}")
            continue
        yield trajectory
    video.close()


def _trajectory(
    dataset: Dataset,
    index: int,
    episode: dict[str, Any],
    rows: dict[str, np.ndarray],
    size: tuple[int, int] | None,
    video: VideoReader,
) -> Trajectory:
    stamps = rows["timestamp"].astype(np.float64)
    period = 1 / dataset.fps
    steps = np.diff(stamps)
    if np.abs(steps - period).max() > _TIME_SHARE * period:
        worst = float(steps[np.argmax(np.abs(steps - period))])
        raise DataError(
            f"{dataset.root}: episode {index}: rows are {worst:.4f} s apart; fps "
            f"{dataset.fps:g} means {period:.4f} s within {_TIME_SHARE:.0%}"
        )
    # float32 seconds of a long recording are too coarse to be stamps
    stamps = stamps[0] + np.arange(len(stamps)) * period
    if dataset.info["features"][dataset.image]["dtype"] == "image":
        images = [_embedded(dataset.root, entry) for entry in rows[dataset.image]]
    else:
        path, first = _video_place(dataset, index, episode)
        images = video.frames(path, first, len(stamps), dataset.fps)
    if size is not None:
        images = [fit_picture(picture, size, True) for picture in images]
    proprio = np.zeros((len(stamps), 0), np.float32)
    if dataset.state:
        proprio = _matrix(rows, dataset.state)
    task = dataset.tasks.get(int(rows["task_index"][0])) if "task_index" in rows else None
    trajectory = Trajectory(
        images=np.stack(images),
        image_steps=np.arange(len(stamps)),
        actions=_matrix(rows, dataset.action)[:-1],
        proprio=proprio,
        stamps=stamps,
        meta={
            "source": "lerobot", "dataset": dataset.root.name, "dataset_episode": index,
            "instruction": task or "",
        },
    )  # fmt: skip
    try:
        return trajectory.validate()
    except ValueError as error:
        raise DataError(f"{dataset.root}: episode {index}: {error}") from None


def _embedded(root: Path, entry: Any) -> np.ndarray:
    """A picture kept in a table: bytes, or a path beside it."""
    data = entry.get("bytes") if isinstance(entry, dict) else entry
    if data is None:
        try:
            data = (root / str(entry["path"])).read_bytes()
        except (OSError, TypeError, KeyError) as error:
            raise DataError(f"{root}: a picture is missing: {error}") from None
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if picture is None:
        raise DataError(f"{root}: a picture of {len(data or b'')} bytes does not decode")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _describe_v2(dataset: Dataset) -> None:
    meta = dataset.root / "meta"
    dataset.episodes = _lines(meta / "episodes.jsonl")
    dataset.tasks = {int(r["task_index"]): str(r["task"]) for r in _lines(meta / "tasks.jsonl")}


def _describe_v3(dataset: Dataset) -> None:
    meta = dataset.root / "meta"
    table = _table(meta / "tasks.parquet").to_pydict()
    words = table.get("task") or table.get("__index_level_0__") or []
    dataset.tasks = {
        int(i): str(w) for i, w in zip(table["task_index"], words, strict=False)
    }
    for file in sorted((meta / "episodes").glob("chunk-*/file-*.parquet")):
        found = _table(file)
        columns = [name for name in found.column_names if not name.startswith("stats/")]
        dataset.episodes += found.select(columns).to_pylist()
    dataset.episodes.sort(key=lambda episode: episode["episode_index"])


def _table_path(dataset: Dataset, index: int, episode: dict[str, Any]) -> Path:
    if dataset.version == "v3.0":
        words = {
            "chunk_index": episode["data/chunk_index"], "file_index": episode["data/file_index"],
        }  # fmt: skip
    else:
        chunk = index // int(dataset.info.get("chunks_size", 1000))
        words = {"episode_chunk": chunk, "episode_index": index}
    return dataset.root / dataset.info["data_path"].format(**words)


def _video_place(dataset: Dataset, index: int, episode: dict[str, Any]) -> tuple[Path, int]:
    """Video of an episode and the number of its first frame in there."""
    key = dataset.image
    if dataset.version == "v3.0":
        chunk, file = episode[f"videos/{key}/chunk_index"], episode[f"videos/{key}/file_index"]
        words = {"video_key": key, "chunk_index": chunk, "file_index": file}
        first = round(float(episode[f"videos/{key}/from_timestamp"]) * dataset.fps)
    else:
        chunk = index // int(dataset.info.get("chunks_size", 1000))
        words = {"video_key": key, "episode_chunk": chunk, "episode_index": index}
        first = 0
    return dataset.root / dataset.info["video_path"].format(**words), first


def _rows_of(table: Any, index: int, path: Path) -> dict[str, np.ndarray]:
    """Columns of one episode, in order of its frames."""
    try:
        mine = np.flatnonzero(table["episode_index"].to_numpy() == index)
        part = table.take(mine)
        order = np.argsort(part["frame_index"].to_numpy(), kind="stable")
        columns = {}
        for name in part.column_names:
            values = part[name].to_pylist()
            columns[name] = np.array([values[i] for i in order], dtype=_kind_of(values))
        columns["timestamp"] = columns["timestamp"].reshape(-1)
        return columns
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: episode {index}: {str(error).splitlines()[0]}") from None


def _kind_of(values: list[Any]) -> Any:
    return object if values and isinstance(values[0], (dict, bytes, str)) else None


def _matrix(rows: dict[str, np.ndarray], key: str) -> np.ndarray:
    try:
        return rows[key].astype(np.float32).reshape(len(rows["timestamp"]), -1)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{key}: not numbers of one width in every row ({error})") from None


def _is_depth(feature: dict[str, Any]) -> bool:
    """Whether pictures tell distances, as a feature's ``info`` or ``video_info`` says."""
    words = {**(feature.get("info") or {}), **(feature.get("video_info") or {})}
    return bool(words.get("is_depth_map") or words.get("video.is_depth_map"))


def _channel(name: str) -> Channel:
    """Name and role from the words that LeRobot's robots use: ``shoulder_pan.pos``."""
    roles = {"pos": "position", "vel": "velocity", "effort": "effort", "torque": "effort"}
    head, _, tail = name.rpartition(".")
    return Channel(head, "", roles[tail]) if head and tail in roles else Channel(name)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _table(path: Path) -> Any:
    parquet = _pyarrow()
    import pyarrow

    try:
        return parquet.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such table") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a sound table: {str(error).splitlines()[0]}") from None


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError("format lerobot: pip install 'wm-mpc[lerobot]' (pyarrow)") from None
    return pyarrow.parquet
