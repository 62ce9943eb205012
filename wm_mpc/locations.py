"""Where the package's data files and executables lie: in a checkout or in an installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from wm_mpc.errors import UserError

PACKAGE = "wm_mpc"


def _prefixes() -> list[Path]:
    paths = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [Path(path) for path in paths if path] + [Path(sys.prefix)]


def _checkout() -> Path | None:
    """The source tree, when the package runs from one: newer than installed copies."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "package.xml").is_file() else None


def share_dir() -> Path:
    """Folder with ``config/`` and ``launch/``: a checkout, or ``share/wm_mpc`` of an installation.

    Raises:
        UserError: the package's data files are not installed.
    """
    checkout = _checkout()
    if checkout is not None:
        return checkout
    for prefix in _prefixes():
        if (prefix / "share" / PACKAGE / "config").is_dir():
            return prefix / "share" / PACKAGE
    raise UserError(f"share/{PACKAGE}: not installed; pip install . or colcon build")


def executable_path(executable: str) -> Path:
    """Path of an executable: in a checkout's ``scripts/`` or an installation's ``lib/wm_mpc``.

    Raises:
        UserError: it is not installed.
    """
    checkout = _checkout()
    folders = [] if checkout is None else [checkout / "scripts"]
    folders += [prefix / "lib" / PACKAGE for prefix in _prefixes()]
    for folder in folders:
        if (folder / executable).is_file():
            return folder / executable
    raise UserError(f"{executable}: not in lib/{PACKAGE}; pip install . or colcon build")
