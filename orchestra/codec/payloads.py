"""Stored user data, and the library's own small facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NewType, cast

import orjson

from orchestra.frozen import frozen

__all__ = [
    "DEFAULT_PAYLOAD_LIMIT",
    "EMPTY",
    "JSON",
    "Packed",
    "Payload",
    "UserText",
    "compact",
    "dump_json",
    "load_json",
    "pack",
    "pack_lines",
    "pack_text",
    "pack_value",
    "unpack",
]

JSON: Final = 1
"""The encoding number of plain JSON. Others are reserved for compression, encryption and external
storage.
"""

DEFAULT_PAYLOAD_LIMIT: Final = 2 * 1024 * 1024
"""The most bytes of one payload."""


@frozen
class Payload:
    """Stored user data."""

    data: bytes
    encoding: int = JSON


EMPTY: Final = Payload(b"null")


def compact(data: bytes) -> bytes:
    """Return bytes that orjson has written in as much memory as they need.

    orjson keeps its whole buffer with its result: four KiB for a hundred bytes, and up to sixteen
    times a text's length. Payloads wait in queues whose bounds count their bytes.
    """
    return b"".join((data, b""))


Packed = NewType("Packed", bytes)
"""Facts of the library's own that hold texts of users as well: errors, attempts, waits.

They are values of users like any :class:`Payload`: :mod:`orchestra.store.values` reaches both.
"""


UserText = NewType("UserText", str)
"""A text for people that may quote users: the detail of a hold, the reason of a cancel."""


# The functions themselves, and none around them: each event and each row has such facts.
pack: Final[Callable[[Mapping[str, Any]], bytes]] = orjson.dumps
"""Return the library's own small facts as bytes."""

unpack: Final[Callable[[bytes], dict[str, Any]]] = orjson.loads
"""Return the facts that :func:`pack` wrote."""


def pack_text(text: str) -> str:
    """Return a text as it stands in the facts that :func:`pack` writes."""
    return orjson.dumps(text).decode()


dump_json: Final[Callable[[Any], bytes]] = orjson.dumps
"""Return any plain JSON value as bytes."""

load_json: Final[Callable[[bytes], Any]] = orjson.loads
"""Return any plain JSON value. Raises ``ValueError`` for what is no JSON."""


def pack_lines(value: Any) -> bytes:
    """Return plain JSON for people: indented, with a line end."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


pack_value: Final[Callable[[Mapping[str, Any]], Packed]] = cast(
    "Callable[[Mapping[str, Any]], Packed]", orjson.dumps
)
"""Like :func:`pack`, of facts that hold texts of users."""
