"""Look at this machine: what it has, what is missing, what that costs and how to get it.

Nothing is changed. The exit code is 1 when something is missing without which no command works.
"""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from wm_mpc import __version__
from wm_mpc.bringup import ros_env
from wm_mpc.core.errors import UserError
from wm_mpc.core.locations import ASSETS
from wm_mpc.core.provenance import cores, cpu_model, write_report

OK, WARN, FAIL = "ok", "warn", "fail"
_LOW_DISK_GIB = 5.0


@dataclass(frozen=True)
class Config:
    """Look at this machine: what it has, what is missing, how to get it."""

    report: Path | None = None
    """Also write the findings to this JSON file."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: what.
        status: ``ok``; ``warn`` (something does not work without it); ``fail`` (nothing does).
        detail: what was found, or what does not work without it.
        cure: how to get it; empty when there is nothing to do.
    """

    name: str
    status: str
    detail: str
    cure: str = ""


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "installed"


def check_python() -> Finding:
    """The interpreter."""
    return Finding("python", OK, f"{platform.python_version()} at {sys.executable}")


def check_cpu() -> Finding:
    """Processor, and how much of it is ours."""
    return Finding("cpu", OK, f"{cpu_model()}, {cores()} cores")


def check_packages() -> list[Finding]:
    """Python packages, by what needs them."""
    rows = (
        ("torch", "torch", FAIL, "models", "pip install torch"),
        ("numpy", "numpy", FAIL, "everything", "pip install numpy"),
        ("safetensors", "safetensors", FAIL, "checkpoints", "pip install safetensors"),
        ("einops", "einops", FAIL, "models", "pip install einops"),
        ("tyro", "tyro", FAIL, "the command line", "pip install tyro"),
        ("transformers", "transformers", WARN, "training encoders; DINOv3 and hub encoders",
         "pip install 'wm-mpc[encoders]'"),
        ("cv2", "opencv-python", WARN, "compressed, YUV and Bayer pictures; drawing",
         "apt install python3-opencv, or pip install 'wm-mpc[vision]'"),
        ("rosbags", "rosbags", WARN, "wm-mpc bag", "pip install rosbags"),
        ("gymnasium", "gymnasium", WARN, "simulated tasks", "pip install 'wm-mpc[sim]'"),
        ("gym_pusht", "gym-pusht", WARN, "Push-T", "pip install 'wm-mpc[sim]'"),
        ("mujoco", "mujoco", WARN, "PointMaze", "pip install 'wm-mpc[sim]'"),
        ("matplotlib", "matplotlib", WARN, "pictures in reports", "pip install 'wm-mpc[viz]'"),
        ("jinja2", "Jinja2", WARN, "the demo's report", "pip install 'wm-mpc[viz]'"),
        ("onnxscript", "onnxscript", WARN, "wm-mpc export", "pip install 'wm-mpc[export]'"),
    )
    return [
        Finding(distribution, OK, _version(distribution))
        if _has(module)
        else Finding(distribution, status, f"missing: needed for {use}", cure)
        for module, distribution, status, use, cure in rows
    ]


def check_opencv_builds() -> list[Finding]:
    """Two OpenCV builds overwrite each other's files."""
    builds = [
        name
        for name in ("opencv-python", "opencv-python-headless", "opencv-contrib-python")
        if _version(name) != "installed"
    ]
    if len(builds) < 2:
        return []
    cure = f"pip uninstall -y {' '.join(builds)} && pip install opencv-python"
    return [Finding("opencv builds", FAIL, f"{', '.join(builds)} in one environment", cure)]


def check_libraries(find: Callable[[str], str | None] = ctypes.util.find_library) -> list[Finding]:
    """System libraries that wheels link to but do not carry."""
    findings = []
    for library, package, use in (
        ("GL", "libgl1", "opencv-python (import cv2)"),
        ("gthread-2.0", "libglib2.0-0", "opencv-python (import cv2)"),
    ):
        found = find(library)
        findings.append(
            Finding(package, OK, found)
            if found
            else Finding(package, FAIL, f"missing: needed for {use}", f"apt install {package}")
        )
    off_screen = find("EGL") or find("OSMesa")
    findings.append(
        Finding("libegl1 or libosmesa6", OK, off_screen)
        if off_screen
        else Finding(
            "libegl1 or libosmesa6",
            WARN,
            "missing: needed for PointMaze pictures drawn by MuJoCo",
            "apt install libegl1 libgl1-mesa-dri",
        )
    )
    return findings


def check_compiler(which: Callable[[str], str | None] = shutil.which) -> Finding:
    """The planning kernel is compiled on first use."""
    for program in filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")):
        found = which(program)
        if found:
            return Finding("c compiler", OK, found)
    detail = "missing: planning falls back to autograd, fewer iterations fit a tick"
    return Finding("c compiler", WARN, detail, "apt install gcc")


def check_gpu() -> Finding:
    """CUDA, as torch sees it."""
    if not _has("torch"):
        return Finding("gpu", WARN, "unknown: torch is missing", "pip install torch")
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        name = torch.cuda.get_device_name(0)
        # docs/performance.md, "State of the GPU path"
        graphs = "CUDA graphs are off (WM_MPC_CUDA_GRAPHS=1: on): not yet run on a Jetson"
        detail = f"{name}, {memory:.0f} GiB; {graphs}"
        return Finding("gpu", OK, detail, "measure with: wm-mpc bench --latency --device cuda")
    if Path("/dev/nvidia0").exists() or Path("/dev/nvhost-gpu").exists():
        detail = f"a device is there, but torch {torch.__version__} cannot use it"
        return Finding("gpu", WARN, detail, "install the CUDA build of torch for this driver")
    return Finding("gpu", OK, "none; the bundled models run on the processor")


def check_ros() -> list[Finding]:
    """rclpy, where it comes from, and what it needs from the environment."""
    source = ros_env.rclpy_source()
    if source is None:
        cure = "source /opt/ros/DISTRO/setup.bash, or pip install 'wm-mpc[ros]'"
        return [Finding("rclpy", WARN, "missing: nodes and `wm-mpc launch` need it", cure)]
    wheels = source == ros_env.WHEELS
    origin = _version("ros-rclpy") if wheels else os.environ.get("ROS_DISTRO", "unnamed")
    findings = [Finding("rclpy", OK, f"{origin}, from {source}")]
    if wheels and os.environ.get("ROS_DISTRO"):
        detail = f"wheels shadow the sourced distribution {os.environ['ROS_DISTRO']}"
        cure = "pip uninstall ros-rclpy, or use a shell without the distribution"
        findings.append(Finding("rclpy mixture", FAIL, detail, cure))
    prefix = os.environ.get("AMENT_PREFIX_PATH")
    if prefix:
        findings.append(Finding("AMENT_PREFIX_PATH", OK, prefix))
    elif wheels:
        findings.append(Finding("AMENT_PREFIX_PATH", OK, f"unset; commands use {sys.prefix}"))
    else:
        cure = "source /opt/ros/DISTRO/setup.bash"
        findings.append(Finding("AMENT_PREFIX_PATH", FAIL, "unset", cure))
    findings.append(
        Finding("interfaces", OK, "wm_mpc.msg, wm_mpc.srv, wm_mpc.action")
        if all(_has(f"wm_mpc.{kind}") for kind in ("msg", "srv", "action"))
        else Finding(
            "interfaces",
            WARN,
            "not built: nodes need them",
            "pip install . or colcon build (and source install/setup.sh)",
        )
    )
    return findings


def check_assets() -> Finding:
    """Models that come with the package."""
    models = sorted({path.parent.name for path in ASSETS.glob("**/*.safetensors")})
    if models:
        return Finding("bundled models", OK, ", ".join(models))
    cure = "wm-mpc train TASK, or install from a full checkout"
    return Finding("bundled models", WARN, f"none in {ASSETS}", cure)


def check_disk(folder: Path | None = None) -> Finding:
    """Room for recordings and training data."""
    folder = Path.cwd() if folder is None else folder
    free = shutil.disk_usage(folder).free / 2**30
    if free < _LOW_DISK_GIB:
        detail = f"{free:.1f} GiB free in {folder}"
        return Finding("disk", WARN, detail, f"training data need {_LOW_DISK_GIB:.0f} GiB")
    return Finding("disk", OK, f"{free:.0f} GiB free in {folder}")


def examine() -> list[Finding]:
    """Look at everything."""
    return [
        check_python(),
        check_cpu(),
        *check_packages(),
        *check_opencv_builds(),
        *check_libraries(),
        check_compiler(),
        check_gpu(),
        *check_ros(),
        check_assets(),
        check_disk(),
    ]


def table(findings: Iterable[Finding]) -> str:
    """The findings as text, a cure below what needs one."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<5} {finding.name:<22} {finding.detail}")
        if finding.cure:
            lines.append(f"{'':<5} {'':<22} -> {finding.cure}")
    return "\n".join(lines)


def run(config: Config) -> int:
    """Print the findings.

    Returns:
        0, or 1 when something is missing without which no command works.

    Raises:
        UserError: the report cannot be written.
    """
    begin = time.perf_counter()
    findings = examine()
    print(f"wm-mpc {__version__}\n{table(findings)}")
    if config.report is not None:
        rows = [asdict(finding) for finding in findings]
        try:
            write_report(config.report, None, rows, wall_s=time.perf_counter() - begin)
        except OSError as error:
            raise UserError(f"report: {config.report}: {error.strerror}") from error
    return 1 if any(finding.status == FAIL for finding in findings) else 0
