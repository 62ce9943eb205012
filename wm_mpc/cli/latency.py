"""``wm-mpc bench --latency``: where a tick's time goes, on this machine."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wm_mpc.bringup import ros_env
from wm_mpc.core.device import usable_device
from wm_mpc.core.errors import UserError
from wm_mpc.core.files import write_atomically
from wm_mpc.core.locations import ASSETS
from wm_mpc.core.provenance import write_report
from wm_mpc.evaluation.latency import (
    LatencySettings,
    compact_model,
    full_size_model,
    latency_table,
    measure_latency,
    roofline,
    way_table,
)
from wm_mpc.evaluation.pages import figures_page, table_of
from wm_mpc.models.world_model import WorldModel
from wm_mpc.viz.plots import plot_latency
from wm_mpc.viz.report_page import ReportPage, write_page


@dataclass(frozen=True)
class Latency:
    """Rows of the latency report.

    Attributes:
        models: bundled tasks, ``gru``, ``vit`` (compact) and ``full`` (DINO-WM's size, random
            weights), separated by commas.
        kernels: ``auto``, ``compiled``, ``eager``, separated by commas: each is a row.
        planners: gradient planners, separated by commas.
        starts: plans descended in parallel, separated by commas; 0: the planner's number.
        iterations: per tick.
        ticks: timed ticks of a row.
        seconds: [s] after which a row ends with fewer ticks.
        cem_seconds: [s] that timing CEM may take.
        gate_seconds: [s] that requests go through a command gate over DDS; 0: not timed.
        gate_rate: [Hz] of those requests.
    """

    models: str = "pusht,gru,vit,full"
    kernels: str = "auto,eager"
    planners: str = "adam"
    starts: str = "0"
    iterations: int = 20
    ticks: int = 3000
    seconds: float = 60.0
    cem_seconds: float = 10.0
    gate_seconds: float = 60.0
    gate_rate: float = 10.0

    def rows(self) -> Iterator[tuple[str, LatencySettings]]:
        """Model and settings of every row."""
        for model in self.models.split(","):
            for planner in self.planners.split(","):
                for starts in self.starts.split(","):
                    for kernel in self.kernels.split(","):
                        yield model, LatencySettings(
                            planner, self.iterations, int(starts), self.ticks, self.seconds,
                            self.cem_seconds, kernel,
                        )  # fmt: skip


def load_model(name: str, device: str) -> WorldModel:
    """A bundled model or one of the sizes with random weights."""
    if name == "full":
        return full_size_model(device)
    if name in ("gru", "vit"):
        return compact_model(name, device)
    return WorldModel.load(ASSETS / name, device=device)


def run_latency(
    plan: Latency, device: str, out: Path | None = None, until: float | None = None
) -> dict[str, Any]:
    """Measure, print and write all rows; one that fails is told and the others go on.

    Args:
        plan: what to measure.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        out: JSON file that is rewritten after every row.
        until: instant of the monotonic clock after which no further row begins.

    Returns:
        ``results``, ``failures``, the device and its ``roofline``.
    """
    where = usable_device(device)
    roof = roofline(where)
    print("roofline:", {key: f"{value:.3g}" for key, value in roof.items()}, flush=True)
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    loaded: dict[str, WorldModel] = {}
    for name, settings in plan.rows():
        if until is not None and time.monotonic() > until:
            failures.append({"model": name, "kernel": settings.kernel, "error": "no time left"})
            continue
        begun = time.monotonic()
        try:
            if name not in loaded:
                loaded.clear()
                gc.collect()
                loaded[name] = load_model(name, device)
            row = {"model": name} | measure_latency(loaded[name], settings, roof)
            rows.append(row)
            print(latency_table([row]).splitlines()[-1], f"{time.monotonic() - begun:.0f} s",
                  flush=True)  # fmt: skip
        except Exception as error:  # the rows that can be measured count
            failures.append({"model": name, "kernel": settings.kernel, "error": str(error)})
            print(traceback.format_exc(), flush=True)
        report = {"roofline": roof, "results": rows, "failures": failures,
                  "torch": torch.__version__, "device": device_name(where)}  # fmt: skip
        if out is not None:
            write_atomically(out, json.dumps(report, indent=1) + "\n")
    print(latency_table(rows), flush=True)
    return report


def time_the_way(plan: Latency, failures: list[dict[str, str]]) -> dict[str, Any] | None:
    """Time gate and wire over DDS; None, told in one line, where that cannot be done here.

    Args:
        plan: for how long, and how often.
        failures: joined by what went wrong where ROS is there.
    """
    if not plan.gate_seconds:
        return None
    if ros_env.rclpy_source() is None:
        print("gate and wire: not timed; rclpy: not found (pip install 'wm-mpc[ros]')", flush=True)
        return None
    ros_env.own_domain()
    from wm_mpc.trials.gate_delay import measure_gate_delay

    try:
        way = measure_gate_delay(plan.gate_seconds, plan.gate_rate)
    except UserError as error:
        failures.append({"model": "command_gate", "kernel": "", "error": str(error)})
        print(f"gate and wire: not timed; {error}", flush=True)
        return None
    print(way_table(way), flush=True)
    return way


def report_latency(plan: Latency, device: str, seed: int, out: Path | None) -> int:
    """Measure, and write report, table and picture; exit code 0 when every row was measured."""
    found = run_latency(plan, device)
    way = time_the_way(plan, found["failures"])
    if out is not None:
        rows = found.pop("results")
        write_report(out, seed, rows, way=way, **found)
        tables = [latency_table(rows), *([way_table(way)] if way else [])]
        write_atomically(out.with_suffix(".md"), "\n\n".join(tables) + "\n")
        if rows:
            plot_latency(rows, out.with_suffix(".png"), way)
            write_page(out, lambda: latency_page(rows, out.with_suffix(".png"), way))
    return 1 if found["failures"] else 0


def latency_page(
    rows: list[dict[str, Any]], picture: Path, way: dict[str, Any] | None
) -> ReportPage:
    """Where the time of a tick goes, per row, and that of its command on the way to a robot."""
    words = "median of each part; the mark is the 99th percentile of the tick"
    tables = [("Table", *table_of(latency_table(rows)))]
    if way:
        words += ", which ends before gate and wire"
        tables.append(("From the tick's end to the robot", *table_of(way_table(way))))
    return figures_page("Where a tick's time goes", "", [(picture, words)], tables)


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


__all__ = ["Latency", "report_latency", "run_latency"]
