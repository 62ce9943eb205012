"""Compile ``mlp_kernel.c`` once per machine, and find it again.

Compiling takes about a second; the library is kept in the user's cache folder under a name that
depends on source, flags, compiler and processor. Where there is no C compiler, planners fall back
to autograd.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from wm_mpc.core.files import write_atomically

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("mlp_kernel.c")
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread")


@cache
def library(double: bool = False, tuned: bool = True) -> ctypes.CDLL | None:
    """Build (or find) and load the library; None, with one warning, where that is impossible.

    Args:
        double: double precision, for checking the algebra against autograd.
        tuned: use this processor's own instructions, not only those of its whole family.
    """
    candidates = (os.environ.get("CC"), "cc", "gcc", "clang")
    compiler = next((c for c in candidates if c and shutil.which(c)), None)
    if compiler is None:
        log.warning("no C compiler found (cc, gcc, clang): planning is several times slower")
        return None
    flags = [*FLAGS, *(["-DWM_DOUBLE"] if double else [])]
    try:
        for tuning in (["-march=native"], ["-mcpu=native"], []) if tuned else ([],):
            path = _build(compiler, [*flags, *tuning])
            if path is not None:
                break
        else:
            log.warning("%s cannot compile the planning kernel: planning is slower", compiler)
            return None
        lib = ctypes.CDLL(str(path))
    except OSError as error:
        log.warning("the planning kernel does not load (%s): planning is slower", error)
        return None
    for name in ("wm_weights", "wm_work", "wm_lanes", "wm_panel"):
        getattr(lib, name).restype = ctypes.c_long
    return lib


def _build(compiler: str, flags: list[str]) -> Path | None:
    """Compile into the cache; None when the compiler refuses the flags."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    key = "\n".join([SOURCE.read_text(), compiler, version, *flags, _processor()])
    name = f"mlp_kernel-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    path = cache_folder() / name
    if path.is_file():
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / name
        command = [compiler, *flags, "-o", str(built), str(SOURCE), "-lm"]
        if subprocess.run(command, capture_output=True).returncode:
            return None
        write_atomically(path, built.replace)
    return path


def cache_folder() -> Path:
    """Return a folder that this user alone can write to."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "wm_mpc"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="wm_mpc_"))


def _processor() -> str:
    """Text that changes with the instruction set; a cache may be shared between machines."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        pass
    return platform.processor() + platform.machine()
