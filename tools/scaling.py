"""Wall time of the commands that may use several processes, with one of them and with more.

    python -m tools.scaling --processes 1 2 --report out/scaling.json

``collect``, ``eval`` and ``bench`` share episodes between worker processes, ``train`` a batch
between the ranks of torchrun. The same commands with more processes, on more machines, are in
docs/deployment.md. Every row says whether the results were those of one process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wm_mpc.core.provenance import write_report
from wm_mpc.data.store.store import Store

ROOT = Path(__file__).resolve().parents[1]
CLI = ("-m", "wm_mpc.cli")


def run(words: list[str], launcher: tuple[str, ...] = CLI) -> float:
    """Run a command of one thread per process; wall time [s]."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, *launcher, *words], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")
    return time.monotonic() - begun


def store_digest(folder: Path) -> str:
    """Digest of the episodes of a store, whatever shards they lie in."""
    digest = hashlib.sha256()
    episodes = sorted(Store.open(folder), key=lambda t: t.meta["episode"])
    for episode in episodes:
        digest.update(episode.images.tobytes() + episode.actions.tobytes())
    return digest.hexdigest()


def collect(folder: Path, processes: int, size: int) -> tuple[float, Any]:
    """Simulate ``size`` episodes."""
    out = folder / f"store{processes}"
    words = ["collect", "wall", "--episodes", str(size), "--workers", str(processes)]
    return run([*words, "--out", str(out)]), store_digest(out)


def evaluate(folder: Path, processes: int, size: int) -> tuple[float, Any]:
    """Try ``size`` goals."""
    report = folder / f"eval{processes}.json"
    words = ["eval", "--task", "wall", "--goals", str(size), "--workers", str(processes)]
    words += ["--budget-fraction", "0", "--options", "iterations=20", "--threads", "1"]
    seconds = run([*words, "--report", str(report)])
    (row,) = json.loads(report.read_text())["results"]
    return seconds, (row["success_rate"], row["final_error"])


def bench(folder: Path, processes: int, size: int) -> tuple[float, Any]:
    """Two planners, ``size`` goals each."""
    report = folder / f"bench{processes}.json"
    words = ["bench", "--task", "wall", "--goals", str(size), "--workers", str(processes)]
    words += ["--planners", "gd,adam", "--budget-fraction", "0", "--no-table", "--threads", "1"]
    seconds = run([*words, "--report", str(report)])
    rows = json.loads(report.read_text())["results"]
    return seconds, [(row["planner"], row["success_rate"]) for row in rows]


def train(folder: Path, processes: int, size: int) -> tuple[float, Any]:
    """Train a model for ``size`` steps on the episodes of ``collect``."""
    words = ["train", "wall", "--data", str(folder / "store1"), "--encoder", "bundled"]
    words += ["--reader-steps", str(size)]
    words += ["--landmarks.steps", str(size), "--dynamics.steps", str(size)]
    words += ["--dynamics.threads", "1", "--out", str(folder / f"model{processes}")]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
    launcher = CLI if processes == 1 else (*torchrun, str(processes), *CLI)
    seconds = run(words, launcher)
    (facts,) = json.loads((folder / f"model{processes}" / "training.json").read_text())["results"]
    return seconds, facts["processes"]


WORK: dict[str, tuple[Callable[..., tuple[float, Any]], int]] = {
    "collect": (collect, 192), "eval": (evaluate, 16), "bench": (bench, 8), "train": (train, 200),
}  # fmt: skip


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for command in options.only:
            work, size = WORK[command]
            first = None
            for processes in options.processes:
                seconds, result = work(Path(name), processes, size)
                first = (seconds, result) if first is None else first
                row = {
                    "command": command, "processes": processes, "size": size, "wall_s": seconds,
                    "speedup": first[0] / seconds, "load": os.getloadavg()[0],
                    "same_results": command == "train" or result == first[1],
                }  # fmt: skip
                print(row, flush=True)
                rows.append(row)
    if options.report is not None:
        write_report(options.report, 0, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
