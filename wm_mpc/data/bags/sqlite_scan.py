"""Reads a rosbag2 SQLite file front to back, in constant memory, as far as it is sound."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from wm_mpc.data.bags.mcap_scan import Definition, RawMessage


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
        if Path(f"{self._path}-journal").exists():
            self.problems.append(
                f"{self._name}: its writer was killed (a -journal file lies beside it); "
                "`wm-mpc bag info --recover` completes the roll-back"
            )
        last = 0
        try:
            connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
            try:
                topics = self._read_head(connection)
                (rows,) = connection.execute("SELECT max(id) FROM messages").fetchone()
                query = "SELECT id, topic_id, timestamp, data FROM messages ORDER BY id"
                for last, topic_id, log_ns, data in connection.execute(query):
                    self.position = int(size * last / rows)
                    if topic_id in topics and isinstance(data, bytes):
                        topic, msgtype = topics[topic_id]
                        yield RawMessage(topic, msgtype, log_ns, data)
            finally:
                connection.close()
            self.position = size
        except sqlite3.DatabaseError as error:
            self.problems.append(
                f"{self._name}: damaged after message {last} ({error}); "
                "everything before it is used"
            )

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
