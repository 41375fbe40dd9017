"""Shapes of values without parts."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

import orjson

from orchestra.codec.shapes import Node, Shape, Unfit, mismatch
from orchestra.codec.wire import (
    TYPE,
    Misfit,
    Refused,
    read_bytes,
    read_zoned,
    stripped,
    time_text,
    unwrapped,
    write_bytes,
)

__all__ = ["LEAVES", "any_shape", "enum_shape", "leaf_shape", "literal_shape", "write_json"]

LEAVES: Final[dict[str, type]] = {
    "bool": bool,
    "bytes": bytes,
    "date": date,
    "datetime": datetime,
    "decimal": Decimal,
    "float": float,
    "int": int,
    "none": type(None),
    "str": str,
    "time": time,
    "timedelta": timedelta,
    "uuid": UUID,
}
"""The types of nodes without parts."""


def leaf_shape(kind: str, node: Node) -> Shape:
    """Return the shape of one of the ``LEAVES``."""
    cls = LEAVES[kind]
    match kind:
        case "float":
            return Shape(_write_float, node.read_json, frozenset({float}))
        case "decimal":
            return Shape(_write_decimal, node.read_json, frozenset({cls}))
        case "bytes":
            return Shape(
                _write_bytes, lambda written: node.read_parts(read_bytes(written)), frozenset({cls})
            )
        case "datetime":

            def read(written: Any) -> Any:
                written = unwrapped(written)
                moment = read_zoned(written) if isinstance(written, str) else None
                return node.read_json(written) if moment is None else node.read_parts(moment)

            return Shape(
                _writer(cls, lambda value: time_text(value, exact=True)), read, frozenset({cls})
            )
        case "date" | "time" | "timedelta":
            return Shape(
                _writer(cls, lambda value: time_text(value, exact=True)),
                node.read_json,
                frozenset({cls}),
            )
        case "uuid":
            return Shape(_writer(cls, str), node.read_json, frozenset({cls}))
        case _:
            return Shape(_exact_writer(cls), node.read_json, frozenset({cls}), is_plain=True)


def _exact_writer(cls: type) -> Callable[[Any], Any]:
    def write(value: Any) -> Any:
        if type(value) is cls:
            return value
        raise mismatch(value, cls)

    return write


def _writer(cls: type, text: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def write(value: Any) -> Any:
        if type(value) is cls:
            return text(value)
        raise mismatch(value, cls)

    return write


def _write_float(value: Any) -> Any:
    if type(value) is float:
        if math.isfinite(value):
            return value
        raise Refused(f"{value!r} has no JSON form; use None or a string")
    # PEP 484 accepts a whole number for a float; it comes back as the equal float.
    if type(value) is int and _is_exact(value):
        return value
    raise mismatch(value, float)


def _is_exact(value: int) -> bool:
    try:
        return float(value) == value
    except OverflowError:
        return False


def _write_decimal(value: Any) -> Any:
    if type(value) is not Decimal:
        raise mismatch(value, Decimal)
    if not value.is_finite():
        raise Refused(f"{value!r} cannot be read back; use None or a string")
    return str(value)


def _write_bytes(value: Any) -> Any:
    if type(value) is not bytes:
        raise mismatch(value, bytes)
    return write_bytes(value)


# --- any --------------------------------------------------------------------------------------


def any_shape(write: Callable[[Any], Any]) -> Shape:
    """Return the shape of a part that is annotated ``Any`` or not at all, inside an annotated
    value.
    """
    return Shape(write, stripped, None)


def write_json(value: Any) -> Any:
    """Return a value that is plain JSON already.

    Raises:
        Refused: a part of it would come back as something else.
    """
    cls = cast("Any", type(value))
    if cls is str or cls is int or cls is bool or value is None:
        return value
    if cls is float:
        return _write_float(value)
    if cls is list:
        for index, item in enumerate(value):
            try:
                write_json(item)
            except Refused as refused:
                refused.steps.append(f"[{index}]")
                raise
        return value
    if cls is dict:
        for key, item in value.items():
            if type(key) is not str or key == TYPE:
                raise Refused(_key_reason(key), f"[{key!r}]")
            try:
                write_json(item)
            except Refused as refused:
                refused.steps.append(f"[{key!r}]")
                raise
        return value
    for plain in (list, dict, str, int, float):
        if isinstance(value, plain) or (
            plain is list and isinstance(value, (tuple, set, frozenset))
        ):
            raise mismatch(value, plain)
    raise Refused(
        f"it is a {cls.__qualname__} where nothing but plain JSON is annotated, and would not "
        f"come back as one; annotate {cls.__qualname__}, or convert it to text"
    )


def _key_reason(key: Any) -> str:
    if key == TYPE:
        return f"{TYPE!r} is the library's own key; give it another name"
    return (
        f"its key is of type {type(key).__qualname__} and would come back as text; annotate "
        f"dict[{type(key).__qualname__}, ...], or write str(key)"
    )


# --- enums and literals -----------------------------------------------------------------------


def enum_shape(schema: Any, node: Node) -> tuple[Shape, bool]:
    """Return the shape of an enum, and whether pydantic alone reads what it writes."""
    cls: Any = schema["cls"]
    members: list[Any] = schema["members"]
    known = _table(cls.__qualname__, [(member, member.value) for member in members])
    flags = issubclass(cls, enum.Flag)

    def write(value: Any) -> Any:
        if type(value) is cls:
            return value.value
        raise mismatch(value, cls)

    def read(written: Any) -> Any:
        written = unwrapped(written)
        data = orjson.dumps(written)
        if data in known:
            return known[data]
        if flags and type(written) is int:
            return cls(written)
        return node.read_json(written)

    is_native = not flags and all(type(member.value) in {str, int} for member in members)
    return Shape(write, read, frozenset({cls})), is_native


def literal_shape(schema: Any) -> tuple[Shape, bool]:
    """Return the shape of some values, and whether pydantic alone reads what it writes."""
    expected: list[Any] = schema["expected"]
    pairs = [(value, value.value if isinstance(value, enum.Enum) else value) for value in expected]
    known = _table(f"Literal{expected!r}", pairs)

    def write(value: Any) -> Any:
        for candidate, written in pairs:
            if type(candidate) is type(value) and candidate == value:
                return written
        raise Refused(f"{value!r} is none of {', '.join(map(repr, expected))}")

    def read(written: Any) -> Any:
        written = unwrapped(written)
        found = known.get(orjson.dumps(written), known)
        if found is known:
            raise Misfit(f"{written!r} is none of {', '.join(map(repr, expected))}")
        return found

    classes: set[Any] = {type(value) for value in expected}
    is_native = len(classes) == 1 and classes <= {str, int, bool}
    return Shape(write, read, frozenset(classes)), is_native


def _table(what: str, pairs: list[tuple[Any, Any]]) -> dict[bytes, Any]:
    known: dict[bytes, Any] = {}
    for value, written in pairs:
        try:
            if isinstance(written, float) and not math.isfinite(written):
                raise TypeError(f"{written!r} has no JSON form")
            data = orjson.dumps(written, option=orjson.OPT_PASSTHROUGH_DATACLASS)
        except TypeError as error:
            raise Unfit(
                f"{value!r} of {what} has no JSON form ({error}); give it a text or a whole "
                "number as its value"
            ) from error
        if data in known:
            raise Unfit(
                f"{known[data]!r} and {value!r} of {what} are written alike, {data.decode()}; "
                "give one another value"
            )
        known[data] = value
    return known
