"""Columns of many rows as PostgreSQL arrays, in the binary form.

A statement for a group takes its rows as one array a column (``unnest``). The driver's own lists change their type with
their content (small integers, nothing but NULL), and each combination of types would be another prepared statement; these
always have the same.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper

__all__ = ["Blobs", "Flags", "Numbers", "Texts", "columns", "register"]

_HEADER: Final = struct.Struct("!iiIii")
_EMPTY: Final = struct.Struct("!iiI")
_LENGTH: Final = struct.Struct("!i")
_NUMBER: Final = struct.Struct("!iq")
_NULL: Final = _LENGTH.pack(-1)
_FALSE: Final = _LENGTH.pack(1) + b"\0"
_TRUE: Final = _LENGTH.pack(1) + b"\1"


class Texts(list[str | None]):
    """``text[]``."""


class Numbers(list[int | None]):
    """``bigint[]``."""


class Blobs(list[bytes | None]):
    """``bytea[]``."""


class Flags(list[bool]):
    """``boolean[]``."""


def columns(kinds: Sequence[Callable[[Iterable[Any]], list[Any]]], rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Return the columns of some rows, each as an array of the kind that is given for it. There must be a row."""
    return [kind(column) for kind, column in zip(kinds, zip(*rows, strict=True), strict=True)]


def register(adapters: AdaptersMap) -> None:
    """Have a connection send the arrays of this module, and every integer as ``bigint``."""
    adapters.register_dumper(int, Int8BinaryDumper)
    for kind, dumper in ((Texts, _TextsDumper), (Numbers, _NumbersDumper), (Blobs, _BlobsDumper), (Flags, _FlagsDumper)):
        adapters.register_dumper(kind, dumper)


class _ArrayDumper(Dumper):
    format = Format.BINARY
    element: int
    """The type of the elements, by its number in PostgreSQL's catalogue."""

    def dump(self, obj: Any) -> bytes:
        if not obj:
            return _EMPTY.pack(0, 0, self.element)
        return _HEADER.pack(1, None in obj, self.element, len(obj), 1) + b"".join(map(self.dump_element, obj))

    def dump_element(self, element: Any) -> bytes:
        raise NotImplementedError


class _TextsDumper(_ArrayDumper):
    oid = 1009
    element = 25

    def dump_element(self, element: str | None) -> bytes:
        if element is None:
            return _NULL
        data = element.encode()
        return _LENGTH.pack(len(data)) + data


class _NumbersDumper(_ArrayDumper):
    oid = 1016
    element = 20

    def dump_element(self, element: int | None) -> bytes:
        return _NULL if element is None else _NUMBER.pack(8, element)


class _BlobsDumper(_ArrayDumper):
    oid = 1001
    element = 17

    def dump_element(self, element: bytes | None) -> bytes:
        return _NULL if element is None else _LENGTH.pack(len(element)) + element


class _FlagsDumper(_ArrayDumper):
    oid = 1000
    element = 16

    def dump_element(self, element: bool) -> bytes:  # noqa: FBT001 - it is an element, not an option
        return _TRUE if element else _FALSE
