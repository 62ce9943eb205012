"""What building an engine and swapping it cost the ticks of a control loop.

    nice -n -10 python tools/swap_cost.py wall --swaps 60

A controller ticks at a steady rate while a second thread builds engines again and again from the
bundled model of a task, in turn all at once and in the pauses between ticks, and swaps them in.
The table has deadline misses per condition with 95 % intervals, and their causes. Both ways see
the same machine and the same budget, so that they compare even where others use it too.
"""

from __future__ import annotations

import argparse
import gc
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_mpc.control.controller import Controller, ControllerConfig
from wm_mpc.control.deadlines import cause
from wm_mpc.control.engine import Engine, EngineConfig
from wm_mpc.control.safety import SafetyLimits
from wm_mpc.control.thread_usage import FIRST_TICKS
from wm_mpc.core.locations import ASSETS
from wm_mpc.core.pauses import Gaps, no_pause
from wm_mpc.core.stats import percentile, wilson
from wm_mpc.models.world_model import WorldModel

WAYS = ("at once", "in pauses")


class Bench:
    """A ticking controller and a thread that builds beside it."""

    def __init__(self, task: str, rate_hz: float, swaps: int) -> None:
        torch.set_num_threads(1)
        self.folder: Path = ASSETS / task
        self.period, self.swaps = 1 / rate_hz, swaps
        self.config = EngineConfig()
        model = WorldModel.load(self.folder)
        self.engine = Engine.build(model, self.config)
        self.controller = Controller(self.engine, ControllerConfig(), SafetyLimits())
        random = np.random.default_rng(0)
        self.pictures = random.integers(0, 255, (64, 64, 64, 3), np.uint8)
        self.own = model.proprio_mean.numpy().copy()
        self.controller.set_goal(self.pictures[0], self.own)
        self.gaps, self.way = Gaps(), WAYS[0]
        self.done = threading.Event()
        self.build_s: dict[str, list[float]] = {way: [] for way in WAYS}

    def build(self) -> Engine:
        """Build as ``mpc_node`` does for an update."""
        pause = self.gaps.wait if self.way == "in pauses" else None
        (pause or no_pause)()
        model = WorldModel.load(self.folder, self.engine.model.encoder)
        return Engine.build(
            model, self.config, reference=self.engine.reference, warm_encoder=False, pause=pause
        )

    def work(self) -> None:
        """Build and swap, again and again; for a thread of its own."""
        for turn in range(self.swaps):
            # At another place within the period every time.
            time.sleep((5 + 0.13 * (turn % 8)) * self.period)
            self.way = WAYS[turn % 2]
            before = time.perf_counter()
            with self.gaps.work():
                self.controller.swap_model(self.build())
            self.build_s[self.way].append(time.perf_counter() - before)
        self.done.set()

    def run(self) -> dict[str, list[Any]]:
        """Tick until all is built; results by condition."""
        rows: dict[str, list[Any]] = {}
        for _ in range(100):
            # The controller learns how late its search ends.
            self.tick(0)
        gc.collect()
        gc.freeze()
        worker = threading.Thread(target=self.work)
        worker.start()
        number, since, due = 0, FIRST_TICKS, time.perf_counter()
        while not self.done.is_set():
            time.sleep(max(0.0, due - time.perf_counter()))
            building, engine, number = self.gaps.working, self.controller.engine, number + 1
            result = self.tick(number)
            building = building or self.gaps.working
            self.gaps.tick_ended()
            since = 0 if self.controller.engine is not engine else since + 1
            name = "otherwise"
            if since < FIRST_TICKS:
                name = f"swapped, built {self.way}"
            elif building:
                name = f"building {self.way}"
            rows.setdefault(name, []).append(result)
            due = max(due + self.period, time.perf_counter())
        worker.join()
        return rows

    def tick(self, number: int) -> Any:
        """One tick with a new picture."""
        now = number * self.config.period_s
        self.controller.observe(self.pictures[number % len(self.pictures)], self.own, now)
        return self.controller.tick(now)


def line(name: str, results: list[Any]) -> str:
    """Row of the table."""
    late = [result for result in results if result.deadline_missed]
    low, high = (100 * bound for bound in wilson(len(late), len(results)))
    encode = [result.encode_s * 1e3 for result in results]
    causes = Counter(cause(result.late_s, result.stall) for result in late)
    worst = max((result.late_s * 1e3 for result in late), default=0.0)
    return (
        f"{name:26s} {len(late):4d}/{len(results):5d} = {100 * len(late) / len(results):5.1f} % "
        f"[{low:.1f}, {high:.1f}]  late <= {worst:.1f} ms  encode p50 "
        f"{percentile(encode, 50):.1f} p95 {percentile(encode, 95):.1f} ms  {dict(causes)}"
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task")
    parser.add_argument("--rate-hz", type=float, default=10.0)
    parser.add_argument("--swaps", type=int, default=60)
    options = parser.parse_args()
    bench = Bench(options.task, options.rate_hz, options.swaps)
    rows = bench.run()
    print(f"{options.task}: budget {bench.engine.budget.seconds * 1e3:.1f} ms")
    for way, seconds in bench.build_s.items():
        print(f"built {way}: p50 {percentile(seconds, 50) * 1e3:.0f} ms")
    for name in sorted(rows):
        print(line(name, rows[name]))


if __name__ == "__main__":
    main()
