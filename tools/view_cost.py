"""What looking costs the controller: ticks with the live page and a browser, and without.

``python tools/view_cost.py --task pusht --ticks 3000 --report benchmarks/results/view_cost.json``

One launch runs throughout, so that both sides have the same calibration, and they take turns. In a
turn *on* the plan tells its search (``publish_search``), the node ``view`` runs, and a headless
Chromium shows its page; in a turn *off* there is none of them. The order is off, on, on, off; the
first ticks of each turn are left out, because programs are then starting or ending. Intervals come
from resampling turns. The page's own rate and processor time are told as well.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from wm_mpc.bringup.ros_env import prepare  # noqa: E402

prepare()
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import rclpy  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from wm_mpc.bringup.start import processes  # noqa: E402
from wm_mpc.bringup.supervisor import Supervisor  # noqa: E402
from wm_mpc.core.provenance import write_report  # noqa: E402
from wm_mpc.core.stats import wilson  # noqa: E402
from wm_mpc.msg import PlannerStatus  # noqa: E402
from wm_mpc.nodes.common import qos  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
START_S = 120.0
RESAMPLES = 2000


@dataclass
class Turn:
    """Ticks of one turn.

    Attributes:
        on: whether the page was looked at.
        tick_ms: of every planning tick.
        missed: deadlines missed.
    """

    on: bool
    tick_ms: list[float] = field(default_factory=list)
    missed: int = 0


class Watch:
    """Hears the controller's status and sets its parameters."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node("view_cost")
        self.turn: Turn | None = None
        self.ticks = 0
        self.node.create_subscription(PlannerStatus, "status", self._on_status, qos.EVENT)
        self._set = self.node.create_client(SetParameters, "mpc_node/set_parameters")
        threading.Thread(target=rclpy.spin, args=(self.node,), daemon=True).start()

    def _on_status(self, message: PlannerStatus) -> None:
        if message.state != PlannerStatus.RUNNING or not np.isfinite(message.plan_ms):
            return
        self.ticks += 1
        turn = self.turn
        if turn is not None:
            turn.tick_ms.append(message.tick_ms)
            turn.missed += message.deadline_missed

    def tell_search(self, on: bool) -> None:
        """Switch ``publish_search``.

        Raises:
            RuntimeError: refused, or no answer.
        """
        asked = [Parameter("publish_search", value=on).to_parameter_msg()]
        future = self._set.call_async(SetParameters.Request(parameters=asked))
        end = time.monotonic() + 10.0
        while not future.done():
            if time.monotonic() > end:
                raise RuntimeError("publish_search: no answer from mpc_node")
            time.sleep(0.01)
        (result,) = future.result().results
        if not result.successful:
            raise RuntimeError(f"publish_search: {result.reason}")

    def wait(self, ticks: int, timeout_s: float) -> None:
        """Wait for so many more planning ticks.

        Raises:
            RuntimeError: they did not come.
        """
        wanted, end = self.ticks + ticks, time.monotonic() + timeout_s
        while self.ticks < wanted:
            if time.monotonic() > end:
                raise RuntimeError(f"{wanted - self.ticks} ticks did not come in {timeout_s:g} s")
            time.sleep(0.05)


class Looker:
    """The page's process and a browser; ``looking`` has both for a while.

    Args:
        task: task of the launch.
        log: folder for the output of the page.
    """

    def __init__(self, task: str, log: Path) -> None:
        self.task, self.log = task, log
        self.rates: list[float] = []
        self.cpu: list[float] = []

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Start the page, look at it, end both."""
        from playwright.sync_api import sync_playwright

        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        arguments, page = {"view": "true"}, {"view": {"port": 0}}
        (view,) = [p for p in processes(f"{self.task}_sim", arguments, page) if p.name == "view"]
        lines: list[str] = []
        with Supervisor([view], lambda _, line: lines.append(line)) as nodes:
            end = time.monotonic() + START_S
            while not (found := [line for line in lines if line.startswith("view: http")]):
                if time.monotonic() > end:
                    raise RuntimeError(f"view: did not start: {lines[-1:]}")
                time.sleep(0.05)
            with sync_playwright() as play:
                browser = play.chromium.launch(
                    executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
                )
                tab = browser.new_page()
                tab.goto(found[0].removeprefix("view: "))
                while frames(tab) < 10:
                    if time.monotonic() > end:
                        raise RuntimeError("view: no pictures")
                    time.sleep(0.05)
                pid, began = nodes.pid("view"), time.monotonic()
                before, seen = cpu_s(pid), frames(tab)
                yield
                took = time.monotonic() - began
                self.rates.append((frames(tab) - seen) / took)
                self.cpu.append((cpu_s(pid) - before) / took)
                browser.close()


def frames(tab: Any) -> int:
    """Camera pictures that the page has shown."""
    return int(tab.locator("body").get_attribute("data-frames") or 0)


def cpu_s(pid: int) -> float:
    """Processor time of a process [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def measure(task: str, ticks: int, turn_ticks: int, settle: int) -> tuple[list[Turn], Looker]:
    """Run the launch and take turns.

    Args:
        task: simulated task.
        ticks: planning ticks of each side.
        turn_ticks: of one turn.
        settle: first ticks of a turn, left out.
    """
    watch = Watch()
    turns: list[Turn] = []
    with tempfile.TemporaryDirectory() as folder:
        looker = Looker(task, Path(folder))
        own = {"command_gate": {"e_stop_file": str(Path(folder) / "e_stop")}}
        launch = processes(f"{task}_sim", {}, own)
        with (Path(folder) / "log").open("w") as log:
            with Supervisor(launch, lambda name, line: log.write(f"{name}: {line}\n")):
                watch.wait(50, START_S)
                count = -(-ticks // turn_ticks)
                for k in range(2 * count):
                    turns.append(take_turn(watch, looker, k % 4 in (1, 2), turn_ticks, settle))
                    told(k, 2 * count, turns[-1])
    return turns, looker


def take_turn(watch: Watch, looker: Looker, on: bool, ticks: int, settle: int) -> Turn:
    """One turn with the page, or without."""
    turn = Turn(on)
    watch.tell_search(on)
    if on:
        with looker.looking():
            _count(watch, turn, ticks, settle)
    else:
        _count(watch, turn, ticks, settle)
    return turn


def _count(watch: Watch, turn: Turn, ticks: int, settle: int) -> None:
    patience = 60.0 + 2.0 * (ticks + settle)
    watch.wait(settle, patience)
    watch.turn = turn
    watch.wait(ticks, patience)
    watch.turn = None


def told(number: int, count: int, turn: Turn) -> None:
    """One line per turn."""
    p50, p95 = np.percentile(turn.tick_ms, [50, 95])
    print(
        f"turn {number + 1} of {count}, {'on' if turn.on else 'off'}: {len(turn.tick_ms)} ticks, "
        f"p50 {p50:.2f} ms, p95 {p95:.2f} ms, {turn.missed} misses", flush=True,
    )  # fmt: skip


def summary(turns: list[Turn], seed: int) -> dict[str, Any]:
    """Both sides, and their difference with 95 % intervals over resampled turns."""
    sides = {name: [t for t in turns if t.on == on] for name, on in (("off", False), ("on", True))}
    row: dict[str, Any] = {}
    for name, side in sides.items():
        ms = np.concatenate([turn.tick_ms for turn in side])
        missed = sum(turn.missed for turn in side)
        row[name] = {
            "n": len(ms), **{f"p{q}": float(np.percentile(ms, q)) for q in (50, 95, 99)},
            "max": float(ms.max()), "deadline_misses": missed, "miss_rate": missed / len(ms),
            "miss_rate_ci95": list(wilson(missed, len(ms))),
        }  # fmt: skip
    rng = np.random.default_rng(seed)
    drawn: dict[int, list[float]] = {50: [], 95: [], 99: []}
    extra = []
    for _ in range(RESAMPLES):
        chosen = {
            name: [side[i] for i in rng.integers(0, len(side), len(side))]
            for name, side in sides.items()
        }
        off, on = (np.concatenate([t.tick_ms for t in chosen[name]]) for name in ("off", "on"))
        for q, values in drawn.items():
            values.append(float(np.percentile(on, q) / np.percentile(off, q) - 1))
        rates = {
            name: sum(t.missed for t in some) / sum(len(t.tick_ms) for t in some)
            for name, some in chosen.items()
        }
        extra.append(rates["on"] - rates["off"])
    for q, values in drawn.items():
        row[f"p{q}_extra"] = row["on"][f"p{q}"] / row["off"][f"p{q}"] - 1
        row[f"p{q}_extra_ci95"] = np.percentile(values, [2.5, 97.5]).tolist()
    row["miss_rate_extra"] = row["on"]["miss_rate"] - row["off"]["miss_rate"]
    row["miss_rate_extra_ci95"] = np.percentile(extra, [2.5, 97.5]).tolist()
    return row


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="pusht", help="simulated task")
    parser.add_argument("--ticks", type=int, default=3000, help="planning ticks of each side")
    parser.add_argument("--turn-ticks", type=int, default=300)
    parser.add_argument("--settle", type=int, default=30, help="first ticks of a turn, left out")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument("--report", type=Path, help="JSON report")
    args = parser.parse_args()
    turns, looker = measure(args.task, args.ticks, args.turn_ticks, args.settle)
    row = {"task": args.task, **summary(turns, args.seed)}
    row["page"] = {"pictures_hz": looker.rates, "cpu_share": looker.cpu}
    row["load_average"] = os.getloadavg()[0]
    for q in (50, 95, 99):
        low, high = (100 * bound for bound in row[f"p{q}_extra_ci95"])
        print(
            f"tick p{q}: {row['off'][f'p{q}']:.2f} ms off, {row['on'][f'p{q}']:.2f} ms on: "
            f"{100 * row[f'p{q}_extra']:+.1f} % [{low:+.1f}, {high:+.1f}]"
        )
    low, high = (100 * bound for bound in row["miss_rate_extra_ci95"])
    print(
        f"misses: {row['off']['deadline_misses']} of {row['off']['n']} off, "
        f"{row['on']['deadline_misses']} of {row['on']['n']} on: "
        f"{100 * row['miss_rate_extra']:+.2f} points [{low:+.2f}, {high:+.2f}]"
    )
    print(
        f"page: {np.mean(looker.rates):.1f} pictures/s (least {min(looker.rates):.1f}), "
        f"{100 * np.mean(looker.cpu):.0f} % of a core; load {row['load_average']:.1f}"
    )
    if args.report:
        turned = [{"on": t.on, "misses": t.missed, "tick_ms": t.tick_ms} for t in turns]
        write_report(args.report, args.seed, [row], turns=turned)
    return 0


if __name__ == "__main__":
    sys.exit(main())
