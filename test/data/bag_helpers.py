"""Synthetic recordings for the bag tests: every value tells which step it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_mpc.data.bags import AlignConfig, BagWriter, ImportConfig, WriterConfig, import_bags
from wm_mpc.data.bags.import_report import BagReport
from wm_mpc.data.store.store import Store
from wm_mpc.data.trajectory import Trajectory

PERIOD = 0.1
START = 1_700_000_000_000_000_000


def picture(step: int, size: tuple[int, int] = (16, 16)) -> np.ndarray:
    """A picture whose every pixel encodes ``step``."""
    return np.full((*size, 3), (step % 256, step // 256, 7), np.uint8)


def trajectories(count: int = 3, steps: int = 12, state_dim: int = 3) -> list[Trajectory]:
    """Episodes on one time line, frames at every step, numbers that are unique."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(count):
        first = START / 1e9 + index * (steps + 20) * PERIOD
        found.append(
            Trajectory(
                images=rng.integers(0, 256, (steps + 1, 16, 16, 3), np.uint8),
                image_steps=np.arange(steps + 1),
                actions=rng.normal(size=(steps, 2)).astype(np.float32),
                proprio=rng.normal(size=(steps + 1, 4)).astype(np.float32),
                stamps=first + np.arange(steps + 1) * PERIOD,
                state=rng.normal(size=(steps + 1, state_dim)) if state_dim else None,
                meta={"task": "synthetic", "seed": index, "policy": "random"},
            )
        )
    return found


@dataclass
class Tape:
    """A bag being written message by message; the recorder's clock equals the stamps."""

    writer: BagWriter

    def image(self, stamp: int, data: np.ndarray, log: int | None = None, **fields: Any) -> None:
        """A raw picture; ``fields`` override those of the message."""
        (kind,) = self.writer.types("sensor_msgs/msg/Image")
        height, width = data.shape[:2]
        values = {
            "header": self.header(stamp),
            "height": height,
            "width": width,
            "encoding": "rgb8",
            "is_bigendian": 0,
            "step": width * 3,
            "data": data.reshape(-1),
        } | fields
        self.put("/image", "sensor_msgs/msg/Image", stamp if log is None else log, kind(**values))

    def proprio(self, stamp: int, values: np.ndarray, log: int | None = None) -> None:
        """Joint positions."""
        (kind,) = self.writer.types("sensor_msgs/msg/JointState")
        names = [f"q{i}" for i in range(len(values))]
        empty = np.zeros(0)
        values = np.asarray(values, np.float64)
        message = kind(self.header(stamp), names, values, empty, empty)
        self.put("/proprio", "sensor_msgs/msg/JointState", stamp if log is None else log, message)

    def command(self, stamp: int, values: np.ndarray) -> None:
        """A Float64MultiArray, which has no header."""
        layout, kind = self.writer.types(
            "std_msgs/msg/MultiArrayLayout", "std_msgs/msg/Float64MultiArray"
        )
        message = kind(layout([], 0), np.asarray(values, np.float64))
        self.put("/command", "std_msgs/msg/Float64MultiArray", stamp, message)

    def header(self, stamp: int) -> Any:
        """A header with ``stamp`` [ns]."""
        time, header = self.writer.types("builtin_interfaces/msg/Time", "std_msgs/msg/Header")
        return header(time(stamp // 10**9, stamp % 10**9), "camera")

    def put(self, topic: str, msgtype: str, log: int, message: Any) -> None:
        """Any message."""
        self.writer.add_topic(topic, msgtype)
        self.writer.write(topic, log, self.writer.serialize(topic, message))

    def steps(self, numbers: range, skip_images: tuple[int, ...] = ()) -> None:
        """Control steps: frame, proprioception ``[k, -k]`` and command ``[k, k/2]`` of step k."""
        for k in numbers:
            stamp = at(k)
            if k not in skip_images:
                self.image(stamp, picture(k))
            self.proprio(stamp, np.array([k, -k]))
            self.command(stamp + 20_000_000, np.array([k, k / 2]))


def at(step: float) -> int:
    """Stamp of a step [ns]."""
    return START + round(step * PERIOD * 1e9)


def tape(path: Path, storage: str = "mcap", **layout: Any) -> Tape:
    """Begin a bag; close it by ``tape.writer.close()``."""
    return Tape(BagWriter(path, WriterConfig(storage=storage, min_free_mb=0, **layout)))


def bring_in(bag: Path, out: Path, **settings: Any) -> tuple[BagReport, list[Trajectory]]:
    """Import one bag; return the report and what the store then holds."""
    align = settings.pop("align", AlignConfig(PERIOD))
    reports, _ = import_bags(ImportConfig(align, **settings), [bag], out, progress=False)
    stored = list(Store.open(out)) if (out / "store.json").exists() else []
    return reports[0], stored
