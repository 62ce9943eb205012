"""Reads an MCAP file front to back, in constant memory, as far as it is sound.

An MCAP file carries an index at its end, and readers that rely on it give up on a file whose
writer was killed. This one needs no index: it follows the records in file order, which is the
order of recording, and stops at the first byte that is missing. Format: https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
from binascii import crc32
from collections import OrderedDict
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from lz4.frame import LZ4FrameDecompressor

from wm_mpc.data.bags.zstandard import zstd

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END, _FOOTER = 0x03, 0x04, 0x05, 0x06, 0x0F, 0x02
_CACHE_BYTES = 96 * 2**20
"""Unpacked chunks that are kept while messages are read in another order than the file's."""
_RECORD_LIMIT = 1 << 32
"""No writer makes single records beyond 4 GiB: a larger length is a damaged one."""


CDR = "cdr"
"""How ROS 2 writes messages; the only encoding that is read."""


class RawMessage(NamedTuple):
    """One message of a bag.

    ``log_ns`` is the recorder's clock, ``data`` the CDR bytes, ``where`` two numbers by which the
    file's reader finds the message again.
    """

    topic: str
    msgtype: str
    log_ns: int
    data: bytes | memoryview
    where: tuple[int, int] = (0, 0)


class Definition(NamedTuple):
    """The text that defines a message type; ``encoding`` is ``ros2msg`` or ``ros2idl``."""

    encoding: str
    text: str


class _EndOfFileError(Exception):
    """The file ends inside a record."""


class McapScan:
    """Sequential reader of one MCAP file.

    Attributes:
        definitions: message type -> its definition, complete up to the message last yielded.
        topics: topic -> message type, likewise.
        problems: one line for every damage met so far.
        position: bytes read so far, for progress.

    Args:
        stream: the file, at its beginning; it need not be seekable (a decompressor will do).
        name: how to call the file in messages.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.definitions: dict[str, Definition] = {}
        self.topics: dict[str, str] = {}
        self.problems: list[str] = []
        self.position = 0
        self._stream = stream
        self._name = name
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, tuple[str, str]] = {}
        self._unknown_compression: dict[str, int] = {}
        self._homeless = 0
        self._other_encodings: dict[str, str] = {}

    def messages(self) -> Iterator[RawMessage]:
        """Yield every readable message in file order; damage goes to ``problems``."""
        magic = self._stream.read(len(MAGIC))
        self.position += len(magic)
        if magic != MAGIC:
            what = "it is empty" if not magic else "it does not begin like one"
            self.problems.append(f"{self._name}: not an MCAP file: {what}")
            return
        try:
            yield from self._data_section()
        except _EndOfFileError:
            self.problems.append(
                f"{self._name}: truncated at byte {self.position}; everything before that is used"
            )
        self.problems.extend(foreign(self._name, self._other_encodings))
        if self._homeless:
            self.problems.append(
                f"{self._name}: {self._homeless} messages are of channels that it does not "
                "describe; they are left out"
            )
        for kind, count in self._unknown_compression.items():
            self.problems.append(
                f"{self._name}: {count} chunks are compressed by {kind!r}; "
                "known are none, lz4, zstd"
            )

    def _data_section(self) -> Iterator[RawMessage]:
        while True:
            head = self._stream.read(9)
            self.position += len(head)
            if len(head) < 9:
                raise _EndOfFileError
            opcode, size = struct.unpack("<BQ", head)
            if opcode in (_DATA_END, _FOOTER):
                return
            if size > _RECORD_LIMIT or opcode == 0:
                self.problems.append(
                    f"{self._name}: damaged record at byte {self.position - 9}; "
                    "everything before it is used"
                )
                return
            body = self._stream.read(size)
            self.position += len(body)
            if opcode == _CHUNK:
                yield from self._chunk(body, complete=len(body) == size)
            if len(body) < size:
                raise _EndOfFileError
            if opcode != _CHUNK:
                where = (self.position - len(body) - 9, -1)
                yield from self._sound_record(opcode, memoryview(body), where)

    def _sound_record(
        self, opcode: int, body: memoryview, where: tuple[int, int]
    ) -> Iterator[RawMessage]:
        """Yield what a record holds; one whose inside does not fit its length is left out."""
        try:
            yield from self._record(opcode, body, where)
        except (struct.error, UnicodeDecodeError):
            if len(self.problems) < 20:
                self.problems.append(f"{self._name}: damaged record at byte {where[0]} left out")

    def _record(
        self, opcode: int, body: memoryview, where: tuple[int, int]
    ) -> Iterator[RawMessage]:
        if opcode == _MESSAGE:
            channel, _, log_ns, _ = struct.unpack_from("<HIQQ", body)
            if channel in self._channels:
                topic, msgtype = self._channels[channel]
                yield RawMessage(topic, msgtype, log_ns, body[22:], where)
            elif not self._other_encodings:
                self._homeless += 1
        elif opcode == _SCHEMA:
            (key,) = struct.unpack_from("<H", body)
            name, at = _text(body, 2)
            encoding, at = _text(body, at)
            text, _ = _text(body, at)
            self._schemas[key] = name
            self.definitions[name] = Definition(encoding, text)
        elif opcode == _CHANNEL:
            key, schema = struct.unpack_from("<HH", body)
            topic, at = _text(body, 4)
            encoding, _ = _text(body, at)
            if encoding != CDR:
                self._other_encodings[topic] = encoding
                return
            msgtype = self._schemas.get(schema, "")
            self._channels[key] = (topic, msgtype)
            self.topics[topic] = msgtype

    def _chunk(self, body: bytes, complete: bool) -> Iterator[RawMessage]:
        """Yield the messages of a chunk; of an incomplete one, those whose bytes are there."""
        if len(body) < 40:
            return
        begin = self.position - len(body) - 9
        size, crc = struct.unpack_from("<QI", body, 16)
        compression = ""
        try:
            raw, compression = chunk_content(memoryview(body))
        except UnknownCompressionError as error:
            compression = str(error)
            self._unknown_compression[compression] = (
                self._unknown_compression.get(compression, 0) + 1
            )
            return
        except (zstd.ZstdError, RuntimeError, EOFError, struct.error, ValueError) as error:
            self._damaged_chunk(len(body), f"does not decompress ({error})")
            return
        if complete and (len(raw) != size or (crc and crc32(raw) != crc)):
            self._damaged_chunk(len(body), "fails its checksum")
            return
        at = 0
        while at + 9 <= len(raw):
            opcode, length = struct.unpack_from("<BQ", raw, at)
            at += 9
            if at + length > len(raw):
                return
            yield from self._sound_record(opcode, raw[at : at + length], (begin, at - 9))
            at += length

    def _damaged_chunk(self, length: int, why: str) -> None:
        self.problems.append(
            f"{self._name}: chunk at byte {self.position - length - 9} {why}; "
            f"its {length} bytes are left out"
        )


class McapReader:
    """Finds messages again by their ``where``; keeps the chunks it unpacked last.

    Args:
        stream: the file, seekable; it is not closed here.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._chunks: OrderedDict[int, memoryview] = OrderedDict()
        self._bytes = 0

    def read(self, where: tuple[int, int]) -> bytes | memoryview:
        """CDR bytes of one message."""
        begin, inside = where
        if inside < 0:
            return self._body(begin)[22:]
        chunk = self._chunks.get(begin)
        if chunk is None:
            chunk, _ = chunk_content(self._body(begin))
            self._chunks[begin] = chunk
            self._bytes += len(chunk)
            while self._bytes > _CACHE_BYTES and len(self._chunks) > 1:
                _, old = self._chunks.popitem(last=False)
                self._bytes -= len(old)
        else:
            self._chunks.move_to_end(begin)
        (length,) = struct.unpack_from("<Q", chunk, inside + 1)
        return chunk[inside + 31 : inside + 9 + length]

    def _body(self, begin: int) -> memoryview:
        self._stream.seek(begin)
        _, size = struct.unpack("<BQ", self._stream.read(9))
        return memoryview(self._stream.read(size))


class UnknownCompressionError(Exception):
    """A chunk of a compression that the format does not name."""


def chunk_content(body: memoryview) -> tuple[memoryview, str]:
    """Unpack a chunk record, as much of it as is there; also the name of its compression.

    Raises:
        UnknownCompressionError: with the name.
    """
    compression, at = _text(body, 28)
    try:
        return _decompress(body[at + 8 :], compression), compression
    except KeyError:
        raise UnknownCompressionError(compression) from None


def foreign(name: str, encodings: dict[str, str]) -> Iterator[str]:
    """One line per topic whose messages are encoded otherwise than by ROS 2."""
    for topic, encoding in encodings.items():
        yield f"{name}: {topic} is encoded as {encoding!r}; {CDR!r}, that of ROS 2, expected"


def _text(body: memoryview, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", body, at)
    return str(body[at + 4 : at + 4 + length], "utf-8"), at + 4 + length


def _decompress(data: memoryview, compression: str) -> memoryview:
    """Decompress as much as is there: an incomplete frame gives its beginning.

    Raises:
        KeyError: a compression that the format does not name.
    """
    if compression == "":
        return data
    decompressor = {"zstd": zstd.ZstdDecompressor, "lz4": LZ4FrameDecompressor}[compression]()
    return memoryview(decompressor.decompress(data))
