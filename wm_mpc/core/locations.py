"""Where the package's data files and executables lie: in a checkout or in an installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import wm_mpc
from wm_mpc.core.errors import UserError

PACKAGE = "wm_mpc"
PACKAGE_DIR = Path(wm_mpc.__file__).resolve().parent
# what PYTHONPATH needs for a child process to import this very package
IMPORT_ROOT = PACKAGE_DIR.parent
# bundled encoder and world models, a folder a task
ASSETS = PACKAGE_DIR / "assets"


def _prefixes() -> list[Path]:
    paths = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [Path(path) for path in paths if path] + [Path(sys.prefix)]


def checkout() -> Path | None:
    """The source tree, when the package runs from one: newer than installed copies."""
    return IMPORT_ROOT if (IMPORT_ROOT / "package.xml").is_file() else None


def share_dir() -> Path:
    """Folder with ``config/`` and ``launch/``: a checkout, or ``share/wm_mpc`` of an installation.

    Raises:
        UserError: the package's data files are not installed.
    """
    source = checkout()
    if source is not None:
        return source
    for prefix in _prefixes():
        if (prefix / "share" / PACKAGE / "config").is_dir():
            return prefix / "share" / PACKAGE
    raise UserError(f"share/{PACKAGE}: not installed; pip install . or colcon build")


def executable_path(executable: str) -> Path:
    """Path of an executable: in a checkout's ``scripts/`` or an installation's ``lib/wm_mpc``.

    Raises:
        UserError: it is not installed.
    """
    source = checkout()
    folders = [] if source is None else [source / "scripts"]
    folders += [prefix / "lib" / PACKAGE for prefix in _prefixes()]
    for folder in folders:
        if (folder / executable).is_file():
            return folder / executable
    raise UserError(f"{executable}: not in lib/{PACKAGE}; pip install . or colcon build")
