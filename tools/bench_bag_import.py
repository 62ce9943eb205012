#!/usr/bin/env python3
"""Measure the import of a large synthetic bag: speed against real time, and peak memory.

Writes the bag (frames, joint states, commands, goals of a robot that runs for hours), imports it
in a process of its own, reports, and deletes both.

    python tools/bench_bag_import.py --gigabytes 5 --report out/bag_import.json
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from wm_mpc.core.provenance import write_report
from wm_mpc.data.bags import AlignConfig, BagWriter, ImportConfig, WriterConfig, import_bags


@dataclass(frozen=True)
class Config:
    """What is written and how it is imported."""

    gigabytes: float = 5.0
    """[GB] size of the bag."""

    storage: str = "mcap"
    """mcap or sqlite3."""

    size: int = 96
    """[px] height and width of the pictures."""

    rate: float = 10.0
    """[Hz] frames, joint states and commands."""

    compress: bool = False
    """Zstandard."""

    folder: Path | None = None
    """Where bag and store lie for the time being; default: a temporary folder."""

    report: Path | None = None
    """JSON report."""


def write_bag(path: Path, config: Config) -> int:
    """Write the bag; return its number of steps."""
    rng = np.random.default_rng(0)
    side = config.size
    ramp = np.linspace(0, 255, side, dtype=np.uint8)
    scene = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], ramp[::-1, None]), -1)
    steps = int(config.gigabytes * 1e9 / (side * side * 3 + 400))
    layout = WriterConfig(storage=config.storage, compress=config.compress, split_s=3600)
    with BagWriter(path, layout) as writer:
        time_, header, image, joints, dims, array = writer.types(
            "builtin_interfaces/msg/Time",
            "std_msgs/msg/Header",
            "sensor_msgs/msg/Image",
            "sensor_msgs/msg/JointState",
            "std_msgs/msg/MultiArrayLayout",
            "std_msgs/msg/Float64MultiArray",
        )
        for topic, kind in (
            ("/image", image), ("/proprio", joints), ("/command", array), ("/goal_image", image),
        ):  # fmt: skip
            writer.add_topic(topic, kind.__msgtype__)

        def put(topic: str, stamp: int, message: object) -> None:
            writer.write(topic, stamp, writer.serialize(topic, message))

        empty = np.zeros(0)
        for k in tqdm(range(steps), desc="writing", unit="step", mininterval=2):
            stamp = 1_700_000_000 * 10**9 + round(k * 1e9 / config.rate)
            head = header(time_(*divmod(stamp, 10**9)), "camera")
            if k % 300 == 0:
                goal = np.full(12, k // 300 % 256, np.uint8)
                put("/goal_image", stamp, image(head, 2, 2, "rgb8", 0, 6, goal))
            frame = scene.copy()
            row, column = rng.integers(0, side - 8, 2)
            frame[row : row + 8, column : column + 8] = (255, 0, 0)
            data = frame.reshape(-1)
            put("/image", stamp, image(head, side, side, "rgb8", 0, side * 3, data))
            values = rng.uniform(-2, 2, size=2)
            put("/proprio", stamp, joints(head, ["x", "y"], values, values, empty))
            put("/command", stamp + 20_000_000, array(dims([], 0), values))
    return steps


def import_here(bag: Path, out: Path, rate: float) -> dict:
    """Import in this process, whose peak memory then tells what an import needs."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu = time.process_time()
    (report,), _ = import_bags(ImportConfig(AlignConfig(1 / rate)), [bag], out)
    return {
        **report.row(),
        "cpu_seconds": time.process_time() - cpu,
        "memory_before_mb": before / 1024,
        "memory_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main(config: Config) -> int:
    """Write, import, report, delete."""
    folder = Path(tempfile.mkdtemp(prefix="bag_import_", dir=config.folder))
    try:
        steps = write_bag(folder / "bag", config)
        size = sum(file.stat().st_size for file in (folder / "bag").iterdir())
        command = [
            sys.executable, __file__, "--import", str(folder / "bag"), str(folder / "store"),
            str(config.rate),
        ]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        row = json.loads(done.stdout)
    finally:
        shutil.rmtree(folder)
    row |= {"bag_gigabytes": size / 1e9, "bag_steps": steps, "storage": config.storage}
    print(
        f"{size / 1e9:.2f} GB of {config.storage}, {steps} steps, {row['data_seconds']:.0f} s of "
        f"data in {row['seconds']:.1f} s: {row['realtime_factor']:.0f} x real time, "
        f"{size / 1e6 / row['seconds']:.0f} MB/s; {row['cpu_seconds']:.1f} s of processors, "
        f"{row['data_seconds'] / row['cpu_seconds']:.0f} x real time; "
        f"peak memory {row['memory_peak_mb']:.0f} MB, "
        f"{row['memory_before_mb']:.0f} MB of it before the first message; "
        f"exit code {row['exit_code']}"
    )
    if config.report:
        write_report(config.report, 0, [row])
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--import"]:
        print(json.dumps(import_here(Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))))
        sys.exit(0)
    sys.exit(main(tyro.cli(Config)))
