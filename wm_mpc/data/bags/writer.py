"""Writes a rosbag2 that survives its writer: split, flushed every second, described early.

`rosbags` writes one storage file per bag and completes it when it is closed. Here every split is
such a bag of its own while it is open, in a folder inside the bag; when it is full its file moves
up and ``metadata.yaml`` is written anew. A killed process thus leaves a bag whose finished splits
any tool reads, and one unfinished file that holds everything up to the last flush: this package
reads it as it is, ``wm-mpc bag info --recover`` puts it right for others.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from binascii import crc32
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Ge, Le
from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import TypesysError
from rosbags.typesys.store import Typestore

from wm_mpc.core.clock import Clock, monotonic
from wm_mpc.core.errors import DataError, UserError
from wm_mpc.core.fields import Checked
from wm_mpc.core.files import write_atomically
from wm_mpc.data.bags.typelib import common_types, ensure_type

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
_METADATA_VERSION = 8  # read by every distribution since Iron
_SPACE_CHECK_S = 1.0
_CHECKSUM_AT = 9 + 3 * 8
"""Bytes of an MCAP chunk record before the checksum of its content."""


class DiskSpaceError(DataError):
    """The disk is about to be full; the bag was closed and is sound."""


@dataclass(frozen=True)
class WriterConfig(Checked):
    """How a bag is laid out on disk.

    Attributes:
        storage: ``mcap`` or ``sqlite3``.
        compress: Zstandard: chunks of mcap, messages of sqlite3.
        split_mb: [MB] a file of about this size is finished and the next begun; 0: never.
        split_s: [s] a file that spans this much recorded time is finished; 0: never.
        flush_s: [s] what was written is handed to the operating system this often.
        min_free_mb: [MB] recording stops when the disk has less left.
    """

    storage: Literal["mcap", "sqlite3"] = "mcap"
    compress: bool = False
    split_mb: Annotated[float, Ge(0.0), Le(1e9)] = 1024.0
    split_s: Annotated[float, Ge(0.0), Le(1e9)] = 300.0
    flush_s: Annotated[float, Ge(0.0), Le(3600.0)] = 1.0
    min_free_mb: Annotated[float, Ge(0.0), Le(1e9)] = 500.0


class BagWriter:
    """Writes serialized messages into a new rosbag2; a context manager.

    Any thread may call, one at a time.

    Args:
        path: folder to create.
        config: layout.
        clock: monotonic, for flushing and the space check.

    Attributes:
        counts: topic -> messages written.

    Raises:
        UserError: ``path`` exists.
    """

    def __init__(self, path: Path, config: WriterConfig, clock: Clock = monotonic) -> None:
        if path.exists():
            raise UserError(f"out: {path} exists; a bag is never written over")
        self.path = path
        self.counts: dict[str, int] = {}
        self._config = config
        self._clock = clock
        self._types = common_types()
        self._topics: dict[str, tuple[str, Typestore, tuple[Qos, ...]]] = {}
        self._connections: dict[str, Connection] = {}
        self._writer: Writer | None = None
        self._finished: list[dict[str, Any]] = []
        self._split = self._split_bytes = 0
        self._split_begin: int | None = None
        self._flushed = self._checked = clock()
        path.mkdir(parents=True)
        self._open_split()

    def add_topic(
        self,
        topic: str,
        msgtype: str,
        types: Typestore | None = None,
        qos: Sequence[Qos] = (),
    ) -> None:
        """Declare a topic; its type's full definition goes into the bag.

        Args:
            topic: name.
            msgtype: e.g. ``sensor_msgs/msg/Image``.
            types: where the type is known; default: ROS 2's common types and installed packages.
            qos: offered by the publisher.

        Raises:
            DataError: the type is nowhere to be found.
        """
        if topic in self._topics:
            return
        if types is None:
            types = self._types
            ensure_type(types, msgtype)
        self._topics[topic] = (msgtype, types, tuple(qos))
        try:
            self._connect(topic)
        except DataError:
            del self._topics[topic]
            raise
        self.counts[topic] = 0

    def write(self, topic: str, stamp: int, data: bytes | memoryview) -> None:
        """Append a serialized message.

        Args:
            topic: declared before.
            stamp: recorder's clock [ns].
            data: CDR.

        Raises:
            DiskSpaceError: too little space is left; the bag is closed and sound.
            DataError: the disk refused the data; what was flushed before is readable.
        """
        now = self._clock()
        if now - self._checked >= _SPACE_CHECK_S:
            self._checked = now
            self._check_space()
        try:
            if self._is_full(stamp):
                self._close_split()
                self._open_split()
            assert self._writer is not None
            self._writer.write(self._connections[topic], stamp, data)
            if now - self._flushed >= self._config.flush_s:
                self._flushed = now
                self.flush()
        except OSError as error:
            raise DataError(f"bag {self.path}: {error.strerror or error}") from None
        self.counts[topic] += 1
        self._split_bytes += len(data)
        self._split_begin = stamp if self._split_begin is None else self._split_begin

    def serialize(self, topic: str, message: Any) -> memoryview:
        """CDR bytes of a `rosbags` message object of a declared topic."""
        msgtype, types, _ = self._topics[topic]
        return types.serialize_cdr(message, msgtype)

    def types(self, *names: str) -> list[Any]:
        """Message classes by type name, for building messages.

        Raises:
            DataError: a type is nowhere to be found.
        """
        for name in names:
            ensure_type(self._types, name)
        return [self._types.types[name] for name in names]

    def flush(self) -> None:
        """Hand everything written so far to the operating system."""
        storage = self._writer.storage if self._writer else None
        if isinstance(storage, McapWriter):
            if storage.chunk.bio.tell():
                storage.close_chunk()
            storage.bio.flush()
        elif storage is not None:
            storage.conn.commit()

    def close(self) -> None:
        """Finish the bag; safe to call twice."""
        if self._writer is not None:
            self._close_split()

    def __enter__(self) -> BagWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the bag, also after an error: what was written is worth keeping."""
        self.close()

    def _is_full(self, stamp: int) -> bool:
        if self._split_begin is None:
            return False
        size, span = self._config.split_mb * 1e6, self._config.split_s * 1e9
        return bool(
            (size and self._split_bytes >= size) or (span and stamp - self._split_begin >= span)
        )

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.path).free / 1e6
        if free < self._config.min_free_mb:
            self.close()
            raise DiskSpaceError(
                f"bag {self.path}: {free:.0f} MB free on its disk; "
                f"{self._config.min_free_mb:.0f} MB expected: recording ends, the bag is complete"
            )

    def _open_split(self) -> None:
        writer = Writer(
            self.path / f"{self.path.name}_{self._split}",
            version=_METADATA_VERSION,
            storage_plugin=STORAGES[self._config.storage],
        )
        if self._config.compress:
            mode = CompressionMode.STORAGE
            if self._config.storage == "sqlite3":
                mode = CompressionMode.MESSAGE
            writer.set_compression(mode, CompressionFormat.ZSTD)
        writer.open()
        if isinstance(writer.storage, Sqlite3Writer):
            _free_of_thread(writer.storage)
        elif isinstance(writer.storage, McapWriter):
            _with_checksums(writer.storage)
        self._writer = writer
        self._split += 1
        self._split_bytes, self._split_begin = 0, None
        self._connections.clear()
        for topic in self._topics:
            self._connect(topic)
        self._write_metadata()

    def _connect(self, topic: str) -> None:
        msgtype, types, qos = self._topics[topic]
        assert self._writer is not None
        try:
            self._connections[topic] = self._writer.add_connection(
                topic, msgtype, typestore=types, offered_qos_profiles=qos
            )
        except TypesysError as error:
            raise DataError(f"type {msgtype}: its definition is damaged ({error})") from None

    def _close_split(self) -> None:
        writer, self._writer = self._writer, None
        assert writer is not None
        writer.close()
        text = writer.metapath.read_text(encoding="utf-8")
        info = yaml.safe_load(text)["rosbag2_bagfile_information"]
        if info["message_count"] or not self._finished:
            for name in info["relative_file_paths"]:
                os.replace(writer.path / name, self.path / name)
            self._finished.append(info)
        shutil.rmtree(writer.path)
        self._write_metadata()

    def _write_metadata(self) -> None:
        """Describe the finished splits; replaced as a whole, never seen half written."""
        merged = merge_metadata(self._finished, self._config.storage)
        text = yaml.safe_dump({"rosbag2_bagfile_information": merged}, sort_keys=False)
        write_atomically(self.path / "metadata.yaml", text)


def _free_of_thread(storage: Sqlite3Writer) -> None:
    """Let another thread write and close than the one that opened; one at a time, still."""
    storage.conn.close()
    storage.conn = sqlite3.connect(storage.path, check_same_thread=False)
    storage.cursor = storage.conn.cursor()


def _with_checksums(storage: McapWriter) -> None:
    """Let every chunk carry the checksum of its content, so that damage does not go unseen."""
    close_chunk = storage.close_chunk

    def close_with_checksum() -> None:
        begin, checksum = storage.bio.tell(), crc32(storage.chunk.bio.getbuffer())
        close_chunk()
        end = storage.bio.tell()
        storage.bio.seek(begin + _CHECKSUM_AT)
        storage.bio.write(struct.pack("<I", checksum))
        storage.bio.seek(end)

    storage.close_chunk = close_with_checksum  # type: ignore[method-assign]


def merge_metadata(splits: Sequence[dict[str, Any]], storage: str) -> dict[str, Any]:
    """Describe several single-file bags as one bag of several files, in the given order."""
    filled = [split for split in splits if split["message_count"]]
    begins = [split["starting_time"]["nanoseconds_since_epoch"] for split in filled]
    ends = [b + s["duration"]["nanoseconds"] for b, s in zip(begins, filled, strict=True)]
    topics: dict[str, dict[str, Any]] = {}
    for split in splits:
        for entry in split["topics_with_message_count"]:
            name = entry["topic_metadata"]["name"]
            known = topics.setdefault(name, {**entry, "message_count": 0})
            known["message_count"] += entry["message_count"]
    last = splits[-1] if splits else {}
    return {
        "version": _METADATA_VERSION,
        "storage_identifier": storage,
        "duration": {"nanoseconds": max(ends) - min(begins) if begins else 0},
        "starting_time": {"nanoseconds_since_epoch": min(begins) if begins else 0},
        "message_count": sum(split["message_count"] for split in splits),
        "topics_with_message_count": list(topics.values()),
        "compression_format": last.get("compression_format", ""),
        "compression_mode": last.get("compression_mode", ""),
        "relative_file_paths": [p for s in splits for p in s["relative_file_paths"]],
        "files": [file for split in splits for file in split["files"]],
        "custom_data": None,
        "ros_distro": "rosbags",
    }
