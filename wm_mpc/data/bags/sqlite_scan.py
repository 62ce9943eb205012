"""Reads a rosbag2 SQLite file front to back, in constant memory, as far as it is sound."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from wm_mpc.data.bags.mcap_scan import CDR, Definition, RawMessage, foreign

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
        last = strange = 0
        try:
            with open_database(self._path) as (connection, note):
                if note:
                    self.problems.append(f"{self._name}: {note}")
                topics = self._read_head(connection)
                query = "SELECT id, topic_id, timestamp, data FROM messages ORDER BY id"
                for row, topic_id, log_ns, data in connection.execute(query):
                    last = row
                    length = len(data) if isinstance(data, (bytes, str)) else 0
                    self.position = min(size, self.position + length + _ROW_OVERHEAD)
                    if topic_id in topics and isinstance(data, bytes) and type(log_ns) is int:
                        topic, msgtype = topics[topic_id]
                        yield RawMessage(topic, msgtype, log_ns, data, (row, 0))
                    else:
                        strange += 1
            self.position = size
        except sqlite3.DatabaseError as error:
            used = f"damaged after message {last}" if last else "not readable as an SQLite bag"
            rest = "; everything before it is used" if last else ""
            self.problems.append(f"{self._name}: {used} ({error}){rest}")
        if strange:
            self.problems.append(
                f"{self._name}: {strange} messages are of unknown topics, or have no stamp or "
                "data; they are left out"
            )

    def _read_head(self, connection: sqlite3.Connection) -> dict[int, tuple[str, str]]:
        """Read topics and, where the schema has them (version 4), definitions."""
        query = "SELECT id, name, type, serialization_format FROM topics"
        rows = connection.execute(query).fetchall()
        rows = [row for row in rows if isinstance(row[1], str) and isinstance(row[2], str)]
        others = {row[1]: str(row[3])[:40] for row in rows if row[3] != CDR}
        self.problems.extend(foreign(self._name, others))
        rows = [row[:3] for row in rows if row[3] == CDR]
        self.topics.update({name: msgtype for _, name, msgtype in rows})
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall()
        if ("message_definitions",) in tables:
            query = (
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
            for msgtype, encoding, text in connection.execute(query):
                if isinstance(encoding, str) and isinstance(text, str):
                    self.definitions[msgtype] = Definition(encoding, text)
        return {key: (name, msgtype) for key, name, msgtype in rows}


class SqliteReader:
    """Finds messages again by their ``where``.

    Args:
        connection: of ``open_database``; it is not closed here.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def read(self, where: tuple[int, int]) -> bytes:
        """CDR bytes of one message."""
        query = "SELECT data FROM messages WHERE id = ?"
        return self._connection.execute(query, (int(where[0]),)).fetchone()[0]


@contextmanager
def open_database(path: Path) -> Iterator[tuple[sqlite3.Connection, str]]:
    """Open a bag's database so that nothing is ever written beside it, on any medium.

    Where a writer left a journal that holds something, a copy in a temporary folder is opened with
    it instead.

    Returns:
        The connection, and a note where data that were never committed are lost; else empty.
    """
    journals = [Path(f"{path}{end}") for end in ("-journal", "-wal")]
    left = [journal for journal in journals if journal.exists() and journal.stat().st_size]
    with ExitStack() as stack:
        note, options = "", "mode=ro&immutable=1"
        if left:
            if left[0].name.endswith("-journal"):
                note = "its writer was killed; what it had not committed is lost"
            folder = Path(stack.enter_context(TemporaryDirectory()))
            for file in (path, *left):
                shutil.copy(file, folder)
            path, options = folder / path.name, "mode=rw"
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)
        stack.callback(connection.close)
        # without it SQLite refuses a truncated file as a whole, even what is sound of it
        connection.execute("PRAGMA writable_schema=ON")
        yield connection, note
