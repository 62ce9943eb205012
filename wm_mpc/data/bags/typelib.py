"""Message types: from the bag itself, ROS 2's common set, .msg files of installed packages."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)
from rosbags.typesys.store import Typestore

from wm_mpc.core.errors import DataError
from wm_mpc.core.locations import IMPORT_ROOT
from wm_mpc.data.bags.mcap_scan import Definition

DECODE_ERRORS = (
    SerdeError, TypesysError, KeyError, IndexError, AssertionError, struct.error, ValueError,
    MemoryError, OverflowError, TypeError,
)  # fmt: skip
"""What bytes that are no such message come to, in `rosbags` and numpy."""
_COMMON = Stores.ROS2_KILTED


def common_types() -> Typestore:
    """Return a fresh store of the message types that every ROS 2 distribution has."""
    return get_typestore(_COMMON)


def find_definition(msgtype: str, more: Sequence[Path] = ()) -> str:
    """Find the .msg text of a type in this machine's ROS prefixes or this package's sources.

    Args:
        msgtype: for example ``ackermann_msgs/msg/AckermannDriveStamped``.
        more: folders to look in first, laid out as ``PACKAGE/msg/NAME.msg``.

    Raises:
        DataError: no such file.
    """
    package, _, name = msgtype.partition("/msg/")
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    folders = [folder / package / "msg" for folder in more]
    folders += [prefix / "share" / package / "msg" for prefix in (*prefixes, Path(sys.prefix))]
    if package == "wm_mpc":
        folders.append(IMPORT_ROOT / "msg")
    for folder in folders:
        path = folder / f"{name}.msg"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise DataError(
        f"type {msgtype}: the bag does not define it and no {name}.msg of package {package} is "
        f"in {len(folders)} places; --types FOLDER with {package}/msg/{name}.msg helps"
    )


def ensure_type(store: Typestore, msgtype: str, more: Sequence[Path] = ()) -> None:
    """Register ``msgtype`` and whatever it contains in ``store``, unless it is there.

    Raises:
        DataError: a definition is nowhere to be found or does not parse.
    """
    if msgtype in store.fielddefs:
        return
    try:
        types = get_types_from_msg(find_definition(msgtype, more), msgtype)
    except TypesysError as error:
        raise DataError(f"type {msgtype}: its .msg file does not parse ({error})") from None
    for name in _nested(types):
        if name not in types:
            ensure_type(store, name, more)
    store.register(types)


def _nested(types: Mapping[str, Any]) -> set[str]:
    """Names of message types that fields of ``types`` refer to."""
    names: set[str] = set()

    def visit(description: Any) -> None:
        kind, detail = description
        if kind.name == "NAME":
            names.add(detail)
        elif kind.name in ("ARRAY", "SEQUENCE"):
            visit(detail[0])

    for _, fields in types.values():
        for _, description in fields:
            visit(description)
    return names


class Decoder:
    """Turns CDR bytes into message objects; the bag's definitions win.

    Args:
        definitions: message type -> definition; may be a live dict that grows while a bag is read.
        more: folders with .msg files of types that the bag does not define.
    """

    def __init__(
        self, definitions: Mapping[str, Definition], more: Sequence[Path] = ()
    ) -> None:
        self._definitions = definitions
        self._more = more
        self._stores: dict[str, Typestore] = {}

    def decode(self, msgtype: str, data: bytes | memoryview) -> Any:
        """Return the message object; numeric arrays are numpy views of ``data``.

        Raises:
            DataError: unknown type, or bytes that are no such message.
        """
        store = self.types(msgtype)
        try:
            return store.deserialize_cdr(data, msgtype)
        except DECODE_ERRORS as error:
            raise DataError(f"{msgtype}: {len(data)} bytes do not decode ({error})") from None

    def types(self, msgtype: str) -> Typestore:
        """Return the store that knows ``msgtype``.

        Raises:
            DataError: unknown type.
        """
        if msgtype not in self._stores:
            self._stores[msgtype] = self._store_for(msgtype)
        return self._stores[msgtype]

    def _store_for(self, msgtype: str) -> Typestore:
        definition = self._definitions.get(msgtype)
        if definition is None or not definition.text:
            store = common_types()
            ensure_type(store, msgtype, self._more)
            return store
        store = get_typestore(Stores.EMPTY)
        parse = get_types_from_idl if "idl" in definition.encoding else get_types_from_msg
        try:
            types = (
                parse(definition.text)
                if parse is get_types_from_idl
                else parse(definition.text, msgtype)
            )
        except (TypesysError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{msgtype}: the bag's definition does not parse ({error})") from None
        common = common_types()
        for name in _nested(types) - set(types):
            if name in common.fielddefs:
                store.register({name: common.fielddefs[name]})
        store.register(
            {name: value for name, value in types.items() if name not in store.fielddefs}
        )
        return store
