"""Where ROS 2 comes from on this machine, and the few environment variables it needs to start."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

WHEELS = "wheels"
DISTRIBUTION = "distribution"


def rclpy_source() -> str | None:
    """Tell whether rclpy comes from wheels in this interpreter's prefix or a distribution.

    Returns:
        ``"wheels"``, ``"distribution"``, or None where rclpy cannot be imported.
    """
    spec = importlib.util.find_spec("rclpy")
    if spec is None or spec.origin is None:
        return None
    inside = Path(spec.origin).resolve().is_relative_to(Path(sys.prefix).resolve())
    return WHEELS if inside and sys.prefix != sys.base_prefix else DISTRIBUTION


def prepare(env: MutableMapping[str, str] | None = None) -> MutableMapping[str, str]:
    """Fill in what rclpy needs and nothing else sets; values that are already there win.

    The wheels have no setup file that a shell could source, so nothing names the prefix in which
    plugins and message packages lie. And rclpy refuses to start where neither a home folder nor a
    log folder is known, as in some service managers.

    Args:
        env: the environment to complete; default: this process's.

    Returns:
        The same mapping.
    """
    env = os.environ if env is None else env
    if not env.get("AMENT_PREFIX_PATH") and rclpy_source() == WHEELS:
        env["AMENT_PREFIX_PATH"] = sys.prefix
    if not env.get("HOME") and not env.get("ROS_LOG_DIR"):
        env["ROS_LOG_DIR"] = str(Path(tempfile.gettempdir()) / "ros-log")
    return env


def own_domain() -> None:
    """Prepare this process, and give it a domain of its own where nobody chose otherwise.

    What it and its children say is then heard on this machine only, and by nobody else's nodes.
    """
    prepare()
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
