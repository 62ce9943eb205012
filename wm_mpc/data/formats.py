"""The door behind ``--data``: a store, a rosbag2 or a LeRobot dataset, opened as a store.

What is no store is imported once, into a folder of the user's cache that is named by what the
data and their description look like, and opened from there the next time. Options that a rosbag2
needs stand in a YAML file beside it, ``BAG.yaml``, in the words of ``wm-mpc bag import``'s
mapping.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol

from wm_mpc.core.errors import DataError
from wm_mpc.core.files import locked
from wm_mpc.data.bags.importer import import_bags
from wm_mpc.data.bags.settings import settings_of
from wm_mpc.data.bags.topics import read_mapping
from wm_mpc.data.lerobot_import import import_lerobot
from wm_mpc.data.lerobot_reader import is_lerobot
from wm_mpc.data.store.format import MANIFEST
from wm_mpc.data.store.store import Store


class Format(Protocol):
    """A layout of recorded data on disk.

    Attributes:
        name: for messages.
    """

    name: str

    def fits(self, path: Path) -> bool:
        """Whether ``path`` looks like it; reads next to nothing."""
        ...

    def open(self, path: Path) -> Store:
        """Open it as a store.

        Raises:
            DataError: it is not usable.
        """
        ...


class StoreFormat:
    """Our own layout."""

    name = "store"

    def fits(self, path: Path) -> bool:
        """See ``Format``."""
        return (path / MANIFEST).is_file()

    def open(self, path: Path) -> Store:
        """See ``Format``."""
        return Store.open(path)


class BagFormat:
    """A rosbag2: a folder with storage files, or one of them."""

    name = "rosbag2"

    def fits(self, path: Path) -> bool:
        """See ``Format``."""
        ends = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
        if path.is_dir():
            return (path / "metadata.yaml").is_file() or any(
                entry.name.endswith(ends) for entry in path.iterdir()
            )
        return path.name.endswith(ends)

    def open(self, path: Path) -> Store:
        """See ``Format``."""
        mapping = path.with_name(path.name + ".yaml")
        options = read_mapping(mapping) if mapping.is_file() else {}
        out = _cache(path, mapping)
        with locked(out.with_suffix(".lock"), f"{path} is being imported"):
            if not (out / "complete").exists():
                (report,), _ = import_bags(settings_of(options, [path]), [path], out)
                if not report.usable:
                    raise DataError(f"{path}: {report.problems[0]}")
                for problem in report.problems:
                    print(f"{path}: {problem}")
                (out / "complete").touch()
        return Store.open(out)


class LerobotFormat:
    """A LeRobot dataset, version 2.1 or 3.0."""

    name = "lerobot"

    def fits(self, path: Path) -> bool:
        """See ``Format``."""
        return is_lerobot(path)

    def open(self, path: Path) -> Store:
        """See ``Format``."""
        out = _cache(path, path / "meta" / "info.json")
        with locked(out.with_suffix(".lock"), f"{path} is being imported"):
            if not (out / "complete").exists():
                report = import_lerobot(path, out)
                for problem in report.problems:
                    print(f"{path}: {problem}")
                (out / "complete").touch()
        return Store.open(out)


FORMATS: tuple[Format, ...] = (StoreFormat(), LerobotFormat(), BagFormat())
"""In the order in which they are tried."""


def open_data(path: str | Path) -> Store:
    """Open recorded data of any known format as a store.

    Raises:
        DataError: nothing of a known format, or nothing usable; one line.
    """
    path = Path(path)
    for kind in FORMATS:
        if path.exists() and kind.fits(path):
            return kind.open(path)
    # says what is missing, in the words of the format that is meant most often
    return Store.open(path)


def _cache(path: Path, description: Path) -> Path:
    """Folder for the imported copy; another one when a file or the description changes."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256(str(path.resolve()).encode())
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in (*files, description):
        if file.is_file():
            found = file.stat()
            digest.update(f"{file.name}:{found.st_size}:{found.st_mtime_ns}".encode())
    folder = Path(base) / "wm_mpc" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{path.name}-{digest.hexdigest()[:12]}"
