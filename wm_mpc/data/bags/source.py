"""A rosbag2 as one stream of messages: any storage, several files, compressed, damaged."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO

import numpy as np

from wm_mpc.core.errors import DataError
from wm_mpc.data.bags.mcap_scan import Definition, McapReader, McapScan, RawMessage
from wm_mpc.data.bags.metadata import read_metadata
from wm_mpc.data.bags.sqlite_scan import SqliteReader, SqliteScan, open_database
from wm_mpc.data.bags.zstandard import ZSTD_MAGIC, zstd

_STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}


class UnusableBagError(DataError):
    """A bag that gives nothing, though it is one."""


@dataclass(frozen=True)
class BagFile:
    """One file; ``storage`` is ``mcap`` or ``sqlite3``, ``compressed``: whole, by Zstandard."""

    path: Path
    storage: str
    compressed: bool

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size


class Bag:
    """A rosbag2 folder, or one of its files.

    A folder is read by its ``metadata.yaml`` where that is sound; files that it does not name (the
    last one of a recorder that was killed) are read too. Without ``metadata.yaml`` all files are
    read in the order of their names.

    Attributes:
        path: as given.
        name: the folder's or file's own name.
        files: the storage files in order of recording.
        metadata: ``rosbag2_bagfile_information`` of ``metadata.yaml``, or empty.
        definitions, topics: grow while messages are read.
        file_index: of ``files``, where the last message came from.

    Raises:
        DataError: there is nothing that could be a bag.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self._own_problems: list[str] = []
        self._file_problems: list[str] = []
        self.definitions: dict[str, Definition] = {}
        self.topics: dict[str, str] = {}
        self.metadata: dict = {}
        self.file_index = 0
        self._done_bytes = 0
        self._scan: McapScan | SqliteScan | None = None
        if not path.exists():
            raise DataError(f"bag {path}: no such file or folder")
        if path.is_dir():
            self.metadata = self._read_metadata()
            self.files = self._files_of_folder()
        else:
            storage = _storage_of(path)
            if path.suffix == ".bag":
                raise DataError(
                    f"bag {path}: a ROS 1 bag; rosbags-convert (pip install rosbags) makes a "
                    "rosbag2 of it"
                )
            if storage is None:
                raise DataError(f"bag {path}: expected a rosbag2 folder or a .mcap or .db3 file")
            self.files = [storage]
        if not self.files:
            raise DataError(f"bag {path}: no .mcap or .db3 file inside")

    @property
    def problems(self) -> list[str]:
        """Damage met so far, one line each: of the folder, then of the last reading's files."""
        return self._own_problems + self._file_problems

    @property
    def size(self) -> int:
        """Bytes of all files on disk."""
        return sum(file.size for file in self.files)

    @property
    def position(self) -> int:
        """Bytes on disk that have been read so far, for progress."""
        return self._done_bytes + (self._scan.position if self._scan else 0)

    def fingerprint(self) -> str:
        """Identify the recording: 12 hex digits of its files' names, sizes and first 64 KiB."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.path.name}:{file.size}".encode())
            with file.path.open("rb") as stream:
                digest.update(stream.read(65536))
        return digest.hexdigest()[:12]

    def list_topics(self) -> dict[str, str]:
        """Topics with their types: from sound metadata, else by reading the whole bag.

        Raises:
            UnusableBagError: there are none.
        """
        listed = self.metadata.get("topics_with_message_count") or []
        topics = {t["topic_metadata"]["name"]: t["topic_metadata"]["type"] for t in listed}
        if topics and not self.problems:
            return topics
        for _ in self.messages():
            pass
        found = topics | self.topics
        if not found:
            reasons = "; ".join(self.problems) or "it holds no messages"
            raise UnusableBagError(f"bag {self.path}: {reasons}")
        return found

    def messages(self) -> Iterator[RawMessage]:
        """Yield every readable message, file after file; damage ends up in ``problems``."""
        self._done_bytes = count = 0
        self._file_problems.clear()
        for index, file in enumerate(self.files):
            self.file_index = index
            for message in self._file_messages(file):
                count += 1
                yield message
            self._done_bytes += file.size
            self._scan = None
        told = self.metadata.get("message_count", count)
        if told != count and not self.problems:
            self._file_problems.append(
                f"{self.name}: metadata.yaml counts {told} messages; {count} are in the files"
            )

    @contextmanager
    def reader(self) -> Iterator[Callable[[np.ndarray], bytes | memoryview]]:
        """Give a function from a message's place, as ``survey`` keeps it, to its CDR bytes.

        Files that are compressed as a whole are unpacked into a temporary folder for it.
        """
        with ExitStack() as stack:
            opened: dict[int, McapReader | SqliteReader] = {}

            def read(where: np.ndarray) -> bytes | memoryview:
                index, first, second = (int(number) for number in where)
                if index not in opened:
                    opened[index] = stack.enter_context(_random_reader(self.files[index]))
                data = opened[index].read((first, second))
                return zstd.decompress(data) if data[:4] == ZSTD_MAGIC else data

            yield read

    def _file_messages(self, file: BagFile) -> Iterator[RawMessage]:
        try:
            if file.storage == "mcap" and file.compressed:
                with zstd.open(file.path, "rb") as stream:
                    yield from self._scan_messages(McapScan(stream, file.path.name))
            elif file.storage == "mcap":
                with file.path.open("rb") as stream:
                    yield from self._scan_messages(McapScan(stream, file.path.name))
            elif file.compressed:
                with tempfile.NamedTemporaryFile(suffix=".db3") as copy:
                    with zstd.open(file.path, "rb") as stream:
                        copyfileobj(stream, copy)
                    copy.flush()
                    yield from self._scan_messages(SqliteScan(Path(copy.name), file.path.name))
            else:
                yield from self._scan_messages(SqliteScan(file.path, file.path.name))
        except (OSError, EOFError, zstd.ZstdError) as error:
            self._file_problems.append(f"{file.path.name}: reading ends early: {error}")

    def _scan_messages(self, scan: McapScan | SqliteScan) -> Iterator[RawMessage]:
        self._scan = scan
        try:
            for message in scan.messages():
                if message.topic not in self.topics:
                    self.topics[message.topic] = message.msgtype
                if message.msgtype not in self.definitions:
                    self.definitions.update(scan.definitions)
                if message.data[:4] == ZSTD_MAGIC:
                    try:
                        message = message._replace(data=zstd.decompress(message.data))
                    except (zstd.ZstdError, ValueError) as error:
                        self._file_problems.append(f"{message.topic}: does not unpack: {error}")
                        continue
                yield message
        finally:
            self.topics.update(scan.topics)
            self.definitions.update(scan.definitions)
            self._file_problems.extend(scan.problems)

    def _read_metadata(self) -> dict:
        path = self.path / "metadata.yaml"
        if not path.exists():
            self._own_problems.append(f"{self.name}: no metadata.yaml; files are read by name")
            return {}
        try:
            info = read_metadata(path)
        except ValueError:
            self._own_problems.append(
                f"{self.name}: metadata.yaml is damaged; files are read by name"
            )
            return {}
        compression = info.get("compression_format") or "zstd"
        if info.get("compression_mode", "") not in ("", "none", "NONE") and compression != "zstd":
            raise DataError(
                f"bag {self.path}: compression_format {compression!r} is unknown; known is 'zstd'"
            )
        return info

    def _files_of_folder(self) -> list[BagFile]:
        present = {
            path.name: file
            for path in sorted([*self.path.iterdir(), *self.path.glob("*/*")], key=_natural)
            if path.is_file() and (file := _storage_of(path))
        }
        named = [Path(str(name)).name for name in self.metadata.get("relative_file_paths", [])]
        for name in named:
            if name not in present:
                self._own_problems.append(f"{self.name}: file {name} of metadata.yaml is missing")
        extra = [name for name in present if name not in named]
        if named and extra:
            self._own_problems.append(
                f"{self.name}: {', '.join(extra)} not in metadata.yaml (killed recorder?); "
                "read as well"
            )
        return [present[name] for name in [*named, *extra] if name in present]


@contextmanager
def _random_reader(file: BagFile) -> Iterator[McapReader | SqliteReader]:
    with ExitStack() as stack:
        path = file.path
        if file.compressed:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            path = folder / "unpacked"
            source = stack.enter_context(zstd.open(file.path, "rb"))
            with path.open("wb") as copy:
                _copy_as_far_as_possible(source, copy)
        if file.storage == "mcap":
            yield McapReader(stack.enter_context(path.open("rb")))
        else:
            connection, _ = stack.enter_context(open_database(path))
            yield SqliteReader(connection)


def _copy_as_far_as_possible(source: BinaryIO, copy: BinaryIO) -> None:
    """Unpack up to the first damage, which the scan has told already."""
    try:
        while block := source.read(1 << 20):
            copy.write(block)
    except (EOFError, zstd.ZstdError):
        pass


def _storage_of(path: Path) -> BagFile | None:
    compressed = path.suffix == ".zstd"
    storage = _STORAGES.get(Path(path.stem).suffix if compressed else path.suffix)
    return BagFile(path, storage, compressed) if storage else None


def _natural(path: Path) -> tuple[int, str]:
    """Sort key that puts ``bag_10`` after ``bag_9``."""
    number = path.name.split(".")[0].rpartition("_")[2]
    return (int(number) if number.isdigit() else 0, path.name)
