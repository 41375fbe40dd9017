"""Values in PostgreSQL's binary form; columns of many rows as arrays.

A statement for a group takes its rows as one array a column (``unnest``). Each parameter has a
cast, which alone decides its type. So a statement is prepared once, whatever its values are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

__all__ = ["Blobs", "Flags", "Numbers", "Texts", "to_binary"]

_HEADER: Final = struct.Struct("!iiIii")
_EMPTY: Final = struct.Struct("!iiI")
_LENGTH: Final = struct.Struct("!i")
_NUMBER: Final = struct.Struct("!q")
_NUMBER_ELEMENT: Final = struct.Struct("!iq")
_NULL: Final = _LENGTH.pack(-1)
_FALSE: Final = _LENGTH.pack(1) + b"\0"
_TRUE: Final = _LENGTH.pack(1) + b"\1"
_TEXT, _BIGINT, _BYTEA, _BOOLEAN = 25, 20, 17, 16
"""Types of elements, by their numbers in PostgreSQL's catalogue."""
_ONE_NUMBER: Final = _HEADER.pack(1, 1, _BIGINT, 1, 1) + _LENGTH.pack(8)
_ONE_TEXT: Final = _HEADER.pack(1, 1, _TEXT, 1, 1)
"""What comes before the only element of an array. Many groups write one row."""


class Texts(list[str | None]):
    """``text[]``."""


class Numbers(list[int | None]):
    """``bigint[]``."""


class Blobs(list[bytes | None]):
    """``bytea[]``."""


class Flags(list[bool]):
    """``boolean[]``."""


def to_binary(value: Any) -> bytes | None:
    """Return a value in the binary form.

    Raises:
        ValueError, OverflowError, struct.error: no database can hold it.
        TypeError: no statement takes its type.
    """
    convert = _CONVERSIONS.get(cast("type[object]", type(value)))
    if convert is None:
        raise TypeError(f"no statement takes a {type(value).__name__}")
    return convert(value)


def _nothing(_value: None) -> None:
    return None


def _array(element_type: int, elements: Sequence[Any], convert: Callable[[Any], bytes]) -> bytes:
    if not elements:
        return _EMPTY.pack(0, 0, element_type)
    converted = [_NULL if element is None else convert(element) for element in elements]
    return _HEADER.pack(1, 1, element_type, len(elements), 1) + b"".join(converted)


def _texts(elements: Texts) -> bytes:
    if len(elements) == 1 and (only := elements[0]) is not None:
        return _ONE_TEXT + _text_element(only)
    return _array(_TEXT, elements, _text_element)


def _numbers(elements: Numbers) -> bytes:
    if len(elements) == 1 and (only := elements[0]) is not None:
        return _ONE_NUMBER + _NUMBER.pack(only)
    return _array(_BIGINT, elements, _number_element)


def _text_element(element: str) -> bytes:
    data = element.encode()
    return _LENGTH.pack(len(data)) + data


def _number_element(element: int) -> bytes:
    return _NUMBER_ELEMENT.pack(8, element)


def _blob_element(element: bytes) -> bytes:
    return _LENGTH.pack(len(element)) + element


def _flag_element(element: bool) -> bytes:  # noqa: FBT001 - it is an element, not an option
    return _TRUE if element else _FALSE


_CONVERSIONS: Final[dict[type[object], Callable[[Any], bytes | None]]] = {
    type(None): _nothing,
    str: str.encode,
    int: _NUMBER.pack,
    bytes: bytes,
    bool: lambda flag: b"\1" if flag else b"\0",
    Texts: _texts,
    Numbers: _numbers,
    Blobs: lambda elements: _array(_BYTEA, elements, _blob_element),
    Flags: lambda elements: _array(_BOOLEAN, elements, _flag_element),
}
