"""What every report says of its origin: command, seed, commit, machine, versions."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import wm_mpc
from wm_mpc.core.files import write_atomically
from wm_mpc.core.locations import checkout

_VERSIONS_OF = ("torch", "numpy", "transformers", "rclpy", "gymnasium", "gym-pusht", "mujoco")
# what earlier reports of the same commit wrote changes nothing
_CHANGES = ("status", "--porcelain", "--", ":/", ":/!benchmarks/results")
_STARTED = datetime.now(timezone.utc)


def command_line() -> str:
    """The command of this process, as a shell would take it, without the path of the program."""
    program = Path(sys.argv[0]).name
    # `python -m wm_mpc.cli` is the same program
    ours = program in ("__main__.py", "cli.py")
    return shlex.join(["wm-mpc" if ours else program, *sys.argv[1:]])


def commit() -> str | None:
    """Commit of the checkout the package runs from, ``-dirty`` appended; None when it has none."""
    root = checkout()
    if root is None:
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        state = subprocess.run([*git, *_CHANGES], capture_output=True, text=True)
    except OSError:
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("-dirty" if state.stdout.strip() else "")


def cpu_model() -> str:
    """Model name of the processor, or its architecture where the name is not told."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_name() -> str | None:
    """Name of the first CUDA device, or None; None also where torch is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def versions() -> dict[str, str]:
    """Versions of Python, this package and what is installed of the packages that matter."""
    found = {"python": platform.python_version(), "wm_mpc": wm_mpc.__version__}
    for name in _VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def provenance(seed: int | None) -> dict[str, Any]:
    """The keys every report begins with.

    Args:
        seed: the seed every random draw of the run derives from; None: there was none.
    """
    return {
        "command": command_line(),
        "seed": seed,
        "commit": commit(),
        "machine": {"cpu": cpu_model(), "cores": cores(), "gpu": gpu_name()},
        "versions": versions(),
        "started": _STARTED.isoformat(timespec="seconds"),
    }


def write_report(
    path: Path | str,
    seed: int | None,
    results: Sequence[dict[str, Any]],
    **extra: Any,
) -> Path:
    """Write a JSON report; a reader never sees half of one.

    Args:
        path: file to write; missing folders are made.
        seed: see :func:`provenance`.
        results: one dict per measured row; numbers that are not finite become null.
        extra: more top-level keys.

    Returns:
        The path.

    Raises:
        ValueError: an extra key that every report already has.
    """
    report = provenance(seed)
    taken = sorted(set(extra) & {*report, "results"})
    if taken:
        raise ValueError(f"extra: {taken[0]!r} is a key that every report has")
    report |= {"results": list(results), **extra}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(_plain(report), indent=2, allow_nan=False) + "\n")
    return path


def _plain(value: Any) -> Any:
    """Values that JSON has: arrays become lists, paths text, numbers that are not finite null."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
