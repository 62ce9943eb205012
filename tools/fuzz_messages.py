"""Ten thousand malformed messages over every input of ``mpc_node``, while a robot drives by it.

    python -m tools.fuzz_messages --count 10000 --seed 0 --report out/fuzz_messages.json

The node runs in a process of its own, over DDS. Exit code 0: it lived, answered every call, was
never silent for more than five seconds, and grew by less than 1 GB; every line it logged is one
line. Between the malformed messages sound ones come, so that what is behind the checks is reached.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from tools.fuzz_inputs import Fuzzer
from wm_mpc.core.locations import ASSETS, IMPORT_ROOT
from wm_mpc.core.provenance import write_report
from wm_mpc.msg import PlannerStatus

HANG_S = 5.0
GROWN_MB = 1024.0
START_S = 180.0
MIDDLEWARE = re.compile(
    r"^>>> \[rcutils.*?^<<<$|^(sequence|string) size exceeds remaining buffer$|^Not enough memory"
    r"|^Corrupt JPEG data[^\n]*$|^libpng (error|warning)[^\n]*$",
    re.MULTILINE | re.DOTALL,
)
"""What the libraries below write to stderr by themselves when bytes are no message, no picture."""
PREFIX = re.compile(r"^\[(INFO|WARN|ERROR|FATAL)\] \[\d+\.\d+\] \[[\w./]+\]: ")


@dataclass
class Finding:
    """What a run saw.

    Attributes:
        sent: malformed messages and calls by input.
        answered: calls that were answered.
        unanswered: what was asked in calls that were not, within ``HANG_S``.
        silence_s: longest time without a status.
        normal_mb: resident memory before.
        most_mb: highest resident memory meanwhile.
        exit_code: of the node after SIGTERM; None: it did not end, or had ended before.
        odd_lines: lines of its log that are no log lines of ROS: traces, or second lines; what
            the middleware writes by itself (``MIDDLEWARE``) is left out.
        drove: whether it drove again afterwards.
    """

    sent: Counter = field(default_factory=Counter)
    answered: int = 0
    unanswered: list[str] = field(default_factory=list)
    silence_s: float = 0.0
    normal_mb: float = 0.0
    most_mb: float = 0.0
    exit_code: int | None = None
    odd_lines: list[str] = field(default_factory=list)
    drove: bool = False

    @property
    def wrong(self) -> list[str]:
        """What is not as it must be."""
        grown = self.most_mb - self.normal_mb
        checks = (
            (self.exit_code == 0, f"exit code {self.exit_code}"),
            (not self.unanswered, f"no answer: {self.unanswered[:5]}"),
            (self.silence_s < HANG_S, f"silent for {self.silence_s:.1f} s"),
            (grown < GROWN_MB, f"memory grew by {grown:.0f} MB"),
            (not self.odd_lines, f"{len(self.odd_lines)} odd lines: {self.odd_lines[:3]}"),
            (self.drove, "does not drive afterwards"),
        )
        return [words for holds, words in checks if not holds]


class Run:
    """One node under fire.

    Args:
        folder: logs and files.
        model: folder of the model that drives.
        parameters: more parameters of the node.
        seed: of every choice.
    """

    def __init__(
        self, folder: Path, model: Path, parameters: dict[str, Any], seed: int
    ) -> None:
        self.found = Finding()
        self.log = folder / "mpc_node.log"
        self._states: list[tuple[float, int]] = []
        self.context = Context()
        self.context.init()
        self.node = Node("fuzzer", context=self.context, start_parameter_services=False)
        self.node.create_subscription(PlannerStatus, "status", self._on_status, 50)
        self.fuzzer = Fuzzer(self.node, random.Random(seed), model, folder)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._spin,)]
        words = [f"{name}:={json.dumps(value)}" for name, value in parameters.items()]
        options = [part for word in (f"model:={model}", *words) for part in ("-p", word)]
        path = os.pathsep.join([str(IMPORT_ROOT), os.environ.get("PYTHONPATH", "")])
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "wm_mpc.nodes.mpc.node", "--ros-args", *options],
                stdout=out, stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        for thread in self._threads:
            thread.start()

    def _spin(self) -> None:
        while not self._over.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def _on_status(self, message: PlannerStatus) -> None:
        self._states.append((time.monotonic(), message.state))

    def wait(self, condition: Callable[[], Any], timeout_s: float) -> bool:
        """Whether it became true in time; sound pictures go on meanwhile."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self.process.poll() is None:
            if condition():
                return True
            self.fuzzer.sound()
            time.sleep(0.1)
        return bool(condition())

    def drives(self, timeout_s: float) -> bool:
        """Whether it runs towards a goal."""
        self.fuzzer.release()
        return self.wait(
            lambda: self._states and self._states[-1][1] == PlannerStatus.RUNNING, timeout_s
        )

    def fire(self, count: int, rate: float) -> Finding:
        """Send ``count`` malformed messages at ``rate`` [Hz] and judge."""
        found, fuzzer = self.found, self.fuzzer
        if not self.drives(START_S):
            raise RuntimeError(f"does not drive: {self.log.read_text()[-2000:]}")
        found.normal_mb = found.most_mb = self._memory_mb()
        began = time.monotonic()
        for number in range(count):
            if self.process.poll() is not None:
                break
            found.sent[fuzzer.one()] += 1
            if number % 10 == 0:
                fuzzer.sound()
                found.most_mb = max(found.most_mb, self._memory_mb())
                found.unanswered += fuzzer.overdue(HANG_S)
            time.sleep(max(0.0, began + (number + 1) / rate - time.monotonic()))
        found.drove = self.drives(20.0)
        self.wait(lambda: not fuzzer.calls, HANG_S)
        found.unanswered += fuzzer.overdue(0.0)
        found.answered = fuzzer.answered
        times = [when for when, _ in self._states if when >= began] + [time.monotonic()]
        found.silence_s = max(b - a for a, b in zip([began, *times], times, strict=False))
        self._end()
        return found

    def _memory_mb(self) -> float:
        try:
            words = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        except OSError:  # it ended
            return 0.0
        return int(words[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.found.exit_code = self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        text = MIDDLEWARE.sub("", self.log.read_text(errors="replace"))
        odd = [line for line in text.splitlines() if line and not PREFIX.match(line)]
        self.found.odd_lines = [line[:300] for line in odd]

    def close(self) -> None:
        """Free everything."""
        if self.process.poll() is None:
            self.process.kill()
        self._over.set()
        for thread in self._threads:
            thread.join(2.0)
        self.node.destroy_node()
        self._executor.shutdown()
        self.context.try_shutdown()


def main() -> int:
    """Fire, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=100.0, help="[Hz]")
    parser.add_argument("--report", type=Path)
    config = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz_messages_") as name:
        # The robot of this test shows noise, which no training saw.
        task = {"task": "wall", "joint_names": ["x", "y"], "novelty_limit": 0.0}
        run = Run(Path(name), ASSETS / "wall", task, config.seed)
        try:
            found = run.fire(config.count, config.rate)
        finally:
            run.close()
    row = asdict(found) | {"sent": dict(found.sent), "n": sum(found.sent.values())}
    print(json.dumps(row | {"wrong": found.wrong}, indent=1))
    if config.report is not None:
        write_report(config.report, config.seed, [row | {"wrong": found.wrong}])
    return int(bool(found.wrong))


if __name__ == "__main__":
    sys.exit(main())
