"""Values in PostgreSQL's binary form; columns of many rows as arrays.

A statement for a group takes its rows as one array a column (``unnest``). Each parameter has a
cast, which alone decides its type. So a statement is prepared once, whatever its values are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, cast

__all__ = ["Blobs", "Flags", "Numbers", "Texts", "to_binary"]

_HEADER: Final = struct.Struct("!iiIii")
_EMPTY: Final = struct.Struct("!iiI")
_LENGTH: Final = struct.Struct("!i")
_NUMBER: Final = struct.Struct("!q")
_NUMBER_ELEMENT: Final = struct.Struct("!iq")
_NULL: Final = _LENGTH.pack(-1)
_FLAGS: Final = {False: _LENGTH.pack(1) + b"\0", True: _LENGTH.pack(1) + b"\1"}
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


def _array(element_type: int, count: int, elements: bytes) -> bytes:
    if not count:
        return _EMPTY.pack(0, 0, element_type)
    return _HEADER.pack(1, 1, element_type, count, 1) + elements


# No function is called for each element: a large group has thousands of them.


def _texts(elements: Texts) -> bytes:
    if len(elements) == 1 and (only := elements[0]) is not None:
        data = only.encode()
        return _ONE_TEXT + _LENGTH.pack(len(data)) + data
    encoded = [
        _NULL if one is None else _LENGTH.pack(len(data := one.encode())) + data for one in elements
    ]
    return _array(_TEXT, len(elements), b"".join(encoded))


def _blobs(elements: Blobs) -> bytes:
    encoded = [_NULL if one is None else _LENGTH.pack(len(one)) + one for one in elements]
    return _array(_BYTEA, len(elements), b"".join(encoded))


def _numbers(elements: Numbers) -> bytes:
    if len(elements) == 1 and (only := elements[0]) is not None:
        return _ONE_NUMBER + _NUMBER.pack(only)
    return _array(_BIGINT, len(elements), _number_elements(elements))


def _number_elements(elements: Sequence[int | None]) -> bytes:
    if None in elements:
        return b"".join(
            [_NULL if one is None else _NUMBER_ELEMENT.pack(8, one) for one in elements]
        )
    pairs: list[Any] = [8] * (2 * len(elements))
    pairs[1::2] = elements
    return _pairs(len(elements)).pack(*pairs)


@lru_cache(maxsize=256)
def _pairs(count: int) -> struct.Struct:
    """Return the layout of some numbers, each with its length before it."""
    return struct.Struct("!" + "iq" * count)


def _flags(elements: Flags) -> bytes:
    return _array(_BOOLEAN, len(elements), b"".join(map(_FLAGS.__getitem__, elements)))


_CONVERSIONS: Final[dict[type[object], Callable[[Any], bytes | None]]] = {
    type(None): _nothing,
    str: str.encode,
    int: _NUMBER.pack,
    bytes: bytes,
    bool: lambda flag: b"\1" if flag else b"\0",
    Texts: _texts,
    Numbers: _numbers,
    Blobs: _blobs,
    Flags: _flags,
}
