"""Reads a rosbag2 SQLite file front to back, in constant memory, as far as it is sound."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from wm_mpc.data.bags.mcap_scan import Definition, RawMessage

_ROW_OVERHEAD = 32
"""Bytes of a row beside its data, about: for progress."""


class SqliteScan:
    """Sequential reader of one ``.db3`` file; attributes as those of :class:`McapScan`.

    Rows come in the order of writing rather than by time: that needs no index, which is often the
    first thing to be lost, and reads the file from front to back.

    Args:
        path: the database; it is opened read-only.
        name: how to call the file in messages.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.definitions: dict[str, Definition] = {}
        self.topics: dict[str, str] = {}
        self.problems: list[str] = []
        self.position = 0
        self._path = path
        self._name = name

    def messages(self) -> Iterator[RawMessage]:
        """Yield every readable message in file order; damage goes to ``problems``."""
        size = self._path.stat().st_size
        if size == 0:
            self.problems.append(f"{self._name}: not an SQLite bag: it is empty")
            return
        last = 0
        try:
            with self._connect() as connection:
                topics = self._read_head(connection)
                query = "SELECT id, topic_id, timestamp, data FROM messages ORDER BY id"
                for row, topic_id, log_ns, data in connection.execute(query):
                    last = row
                    self.position = min(size, self.position + len(data) + _ROW_OVERHEAD)
                    if topic_id in topics and isinstance(data, bytes):
                        topic, msgtype = topics[topic_id]
                        yield RawMessage(topic, msgtype, log_ns, data)
            self.position = size
        except sqlite3.DatabaseError as error:
            self.problems.append(
                f"{self._name}: damaged after message {last} ({error}); "
                "everything before it is used"
            )

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """Open read-only; where a killed writer left a journal, a copy that is rolled back."""
        journals = [Path(f"{self._path}{end}") for end in ("-journal", "-wal")]
        left = [journal for journal in journals if journal.exists()]
        with ExitStack() as stack:
            path, mode = self._path, "ro"
            if left:
                self.problems.append(
                    f"{self._name}: its writer was killed; what it had not committed is lost"
                )
                folder = Path(stack.enter_context(TemporaryDirectory()))
                for file in (self._path, *left):
                    shutil.copy(file, folder)
                path, mode = folder / self._path.name, "rw"
            connection = sqlite3.connect(f"file:{path}?mode={mode}", uri=True)
            stack.callback(connection.close)
            # without it SQLite refuses a truncated file as a whole, even what is sound of it
            connection.execute("PRAGMA writable_schema=ON")
            yield connection

    def _read_head(self, connection: sqlite3.Connection) -> dict[int, tuple[str, str]]:
        """Read topics and, where the schema has them (version 4), definitions."""
        rows = connection.execute("SELECT id, name, type FROM topics").fetchall()
        self.topics.update({name: msgtype for _, name, msgtype in rows})
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall()
        if ("message_definitions",) in tables:
            query = (
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
            for msgtype, encoding, text in connection.execute(query):
                self.definitions[msgtype] = Definition(encoding, text)
        return {key: (name, msgtype) for key, name, msgtype in rows}
