"""Measure a Jetson, or any machine, and write one JSON that can be sent in.

    python3 tools/jetson_report.py jetson.json             # some ten minutes, GPU and processor
    python3 tools/jetson_report.py quick.json --quick      # a minute: does it run at all?

Runs from a bare checkout with the torch of the JetPack; no ROS needed. Every part is a process of
its own: an error of a GPU spoils what comes after it in the same process. The CUDA graphs, which
are off by default, run last. The file names the machine, power mode, clocks, temperatures before
and after, versions and measured rows; it holds no host name, user name or path of this machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FORMAT = "wm_mpc.jetson_report"
VERSION = 1
FILES = {
    "board": "/proc/device-tree/model", "l4t": "/etc/nv_tegra_release",
    "governor": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
}  # fmt: skip
COMMANDS = {"power_mode": ["nvpmodel", "-q"], "clocks": ["jetson_clocks", "--show"]}


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: of the part.
        words: arguments of Python.
        env: variables to add.
        limit_s: [s] after which it is ended.
    """

    name: str
    words: list[str]
    env: dict[str, str] = field(default_factory=dict)
    limit_s: float = 900.0


def has_cuda() -> bool:
    """Whether this Python's torch can use a GPU, asked in a process of its own."""
    code = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def parts(folder: Path, quick: bool, cuda: bool) -> Iterator[Part]:
    """What is run; results go to ``folder``/NAME."""
    latency = ["-m", "wm_mpc.cli", "bench", "--latency"]
    short = ["--rows.ticks", "20", "--rows.cem-seconds", "0.5"]

    def rows(name: str, models: str, device: str, threads: int, *more: str, **env: str) -> Part:
        report = ["--report", str(folder / name / "latency.json")]
        words = [*latency, "--device", device, "--threads", str(threads), "--rows.models", models]
        # gate and wire are the same for all of them
        once = name == "cpu_threads1" and not quick
        words += ["--rows.gate-seconds", "30" if once else "0"]
        return Part(name, [*words, *report, *more], env)

    yield Part("doctor", ["-m", "wm_mpc.cli", "doctor", "--report", str(folder / "doctor/d.json")])
    kernels = ("--rows.kernels", "eager") if quick else ()
    for threads in (1,) if quick else (1, 2, 4):
        if threads <= (os.cpu_count() or 1):
            more = (*kernels, *(short if quick else ("--rows.seconds", "30")))
            yield rows(f"cpu_threads{threads}", "pusht", "cpu", threads, *more)
    check = ["tools/gpu_check.py", str(folder / "kernels"), "--device", "cuda" if cuda else "cpu"]
    yield Part("kernels", [*check, *(["--quick"] if quick or not cuda else [])])
    if cuda:
        models = "pusht" if quick else "pusht,gru,vit,full"
        more = short if quick else ["--rows.seconds", "30"]
        yield rows("cuda", models, "cuda", 1, *more)
        yield rows("cuda_graphs", models, "cuda", 1, *more, WM_MPC_CUDA_GRAPHS="1")


def machine() -> dict[str, Any]:
    """What it is, and how it is set."""
    found: dict[str, Any] = {
        "architecture": platform.machine(), "kernel": platform.release(),
        "python": platform.python_version(), "cores": os.cpu_count(),
        "container": Path("/.dockerenv").exists(),
    }  # fmt: skip
    for name, path in FILES.items():
        try:
            found[name] = Path(path).read_text(errors="replace").strip("\0\n ")
        except OSError:
            found[name] = None
    for name, command in COMMANDS.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            found[name] = None
        else:
            found[name] = done.stdout.strip() or done.stderr.strip()
    return found


def temperatures() -> dict[str, float]:
    """Thermal zone -> degrees Celsius."""
    found = {}
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        try:
            kind = (zone / "type").read_text().strip()
            found[kind] = int((zone / "temp").read_text()) / 1000.0
        except (OSError, ValueError):
            continue
    return found


def perform(part: Part, folder: Path) -> dict[str, Any]:
    """Run a part; its exit code, time, the end of its output and what it measured."""
    own = folder / part.name
    own.mkdir(parents=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT), **part.env}
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *part.words], cwd=ROOT, env=env, timeout=part.limit_s, text=True,
            errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, said = None, (error.stdout or b"").decode(errors="replace")
    results = {f.stem: json.loads(f.read_text()) for f in sorted(own.glob("*.json"))}
    return {
        "name": part.name, "code": code, "seconds": time.monotonic() - begun,
        "env": part.env, "said": said.strip().splitlines()[-20:] if code != 0 else [],
        "results": results,
    }  # fmt: skip


def without_names(text: str) -> str:
    """Text without this folder, the home folder and the host's and user's names."""
    text = text.replace(str(ROOT), ".").replace(tempfile.gettempdir(), "TMP")
    text = re.sub(r"(?:/home/|/root)[^\"'\s:,]*", "HOME", text)
    for name in filter(None, (platform.node(), os.environ.get("USER"))):
        if len(name) > 2 and name != "root":
            text = re.sub(rf"\b{re.escape(name)}\b", "NAME", text)
    return text


def main() -> int:
    """Measure and write; exit code 1 when a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="JSON file")
    parser.add_argument("--quick", action="store_true", help="few ticks, small models")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    asked = parser.parse_args()
    if asked.out.is_dir() or not asked.out.absolute().parent.is_dir():
        print(f"error: out: {asked.out}; a file in an existing folder expected", file=sys.stderr)
        return 2
    cuda = asked.device == "auto" and has_cuda()
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    report: dict[str, Any] = {
        "format": FORMAT, "version": VERSION, "started": started, "quick": asked.quick,
        "cuda": cuda, "machine": machine(), "temperatures_before": temperatures(), "parts": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        for part in parts(Path(name), asked.quick, cuda):
            print(f"{part.name} ...", flush=True)
            row = perform(part, Path(name))
            print(f"{part.name}: code {row['code']}, {row['seconds']:.0f} s", flush=True)
            report["parts"].append(row)
            report["temperatures_after"] = temperatures()
            # written after every part: what was measured survives a reset
            asked.out.write_text(without_names(json.dumps(report, indent=1)))
    print(f"{asked.out}: open an issue with it")
    return int(any(row["code"] != 0 for row in report["parts"]))


if __name__ == "__main__":
    sys.exit(main())
