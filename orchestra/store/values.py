"""Every value of users that crosses the port, found by its type.

Values of users stand in the fields of changes, rows and answers, under four types:

=====================  ===========================================================================
:class:`Payload`       states, arguments, results, events, heartbeats, custom status
:data:`Packed`         facts of the library's own that quote users: errors, attempts, waits
:data:`UserText`       reasons and details, for people
``envelope``           of the events that tell of an error or of a reason, the whole envelope
=====================  ===========================================================================

:func:`convert_values` reaches them all, in whatever crosses the port, so that a codec that
compresses or encrypts has one place to stand at. A field with one of these types is reached because
of its type; nothing lists fields. Names, ids, labels and instants are no values of users: a store
finds rows by them.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from orchestra.codec import Packed, Payload, UserText
from orchestra.events import EVENTS, EventForms, EventKind, EventRecord

__all__ = ["QUOTING_EVENTS", "ValueCodec", "convert_values"]

T = TypeVar("T")

QUOTING_EVENTS: Final = (
    EventKind.ACTIVITY_FAILED,
    EventKind.CHILD_FAILED,
    EventKind.CANCEL_REQUESTED,
    EventKind.BOUNDARY_REQUESTED,
    EventKind.CANCEL_SENT,
    EventKind.EXECUTION_FAILED,
    EventKind.EXECUTION_CANCELLED,
    EventKind.EXECUTION_TERMINATED,
)
"""The events whose envelopes quote users."""


class ValueCodec(Protocol):
    """Turns values of users into what is stored, or back."""

    def payload(self, payload: Payload) -> Payload:
        """Convert a payload."""
        ...

    def packed(self, data: bytes) -> bytes:
        """Convert facts that quote users. What is empty is the store's own, and stays empty."""
        ...

    def text(self, text: str) -> str:
        """Convert a text for people."""
        ...


Convert = Callable[[Any, ValueCodec], Any]


def convert_values(thing: T, codec: ValueCodec, forms: EventForms = EVENTS) -> T:
    """Return a change, a row or an answer with each value of users in it converted.

    What holds none is returned as it is. ``forms`` tell which stored events quote users.
    """
    convert = _conversion(cast("type[Any]", type(thing)), forms)
    return thing if convert is None else cast("T", convert(thing, codec))


@lru_cache(maxsize=1_024)
def _conversion(kind: Any, forms: EventForms) -> Convert | None:
    """Return what converts values of a type; ``None``: they hold none of users."""
    if kind is Payload:
        return lambda value, codec: codec.payload(value)
    if kind is Packed:
        return lambda value, codec: codec.packed(value)
    if kind is UserText:
        return lambda value, codec: codec.text(value)
    if kind is EventRecord:
        return _of_event(forms)
    if hasattr(kind, "__dataclass_fields__"):
        names = [field.name for field in dataclasses.fields(kind)]
        return _of_fields(kind, names, forms, dataclasses.replace)
    if hasattr(kind, "_fields"):
        return _of_fields(kind, list(kind._fields), forms, _replace_in_tuple)
    if get_origin(kind) is Callable:
        return _of_answer(_conversion(get_args(kind)[-1], forms))
    if get_origin(kind) in {Union, types.UnionType}:
        return _of_union([part for part in get_args(kind) if part is not type(None)], forms)
    return _of_container(kind, forms)


def _of_event(forms: EventForms) -> Convert:
    quoting = frozenset(forms.kinds.forms(*QUOTING_EVENTS))

    def convert(record: EventRecord, codec: ValueCodec) -> EventRecord:
        quotes = record.kind in quoting
        if record.payload is None and not quotes:
            return record
        return dataclasses.replace(
            record,
            envelope=codec.packed(record.envelope) if quotes else record.envelope,
            payload=None if record.payload is None else codec.payload(record.payload),
        )

    return convert


def _of_answer(inner: Convert | None) -> Convert | None:
    """Return what converts a function: its answers are converted."""
    if inner is None:
        return None

    def convert(function: Callable[..., Any], codec: ValueCodec) -> Callable[..., Any]:
        return lambda *arguments: inner(function(*arguments), codec)

    return convert


def _replace_in_tuple(value: Any, **new: Any) -> Any:
    return value._replace(**new)


def _of_fields(
    kind: Any, names: list[str], forms: EventForms, replace: Callable[..., Any]
) -> Convert | None:
    hints = get_type_hints(kind)
    found = {name: _conversion(hints[name], forms) for name in names}
    reached = {name: convert for name, convert in found.items() if convert is not None}
    if not reached:
        return None

    def convert(value: Any, codec: ValueCodec) -> Any:
        new = {
            name: convert_field(old, codec)
            for name, convert_field in reached.items()
            if (old := getattr(value, name)) is not None
        }
        return replace(value, **new) if new else value

    return convert


def _of_union(parts: list[Any], forms: EventForms) -> Convert | None:
    """Return what converts one of several types: by the type that the value really has, where they
    are classes.
    """
    if len(parts) == 1:
        return _conversion(parts[0], forms)
    if all(_conversion(part, forms) is None for part in parts):
        return None
    plain = [part for part in parts if part not in {Packed, UserText}]
    if len(plain) < len(parts):
        raise TypeError(f"which of {parts} a value is cannot be told at run time")

    def convert(value: Any, codec: ValueCodec) -> Any:
        of_its_type = _conversion(cast("type[Any]", type(value)), forms)
        return value if of_its_type is None else of_its_type(value, codec)

    return convert


def _of_container(kind: Any, forms: EventForms) -> Convert | None:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is tuple and parts[-1] is not Ellipsis:
        return _of_places([_conversion(part, forms) for part in parts])
    if origin in {tuple, list}:
        inner = _conversion(parts[0], forms)
        make = cast("Callable[[Any], Any]", origin)
        return (
            None
            if inner is None
            else lambda value, codec: make(inner(item, codec) for item in value)
        )
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inner = _conversion(parts[1], forms)
        if inner is not None:
            return lambda value, codec: {key: inner(item, codec) for key, item in value.items()}
    return None


def _of_places(converts: list[Convert | None]) -> Convert | None:
    """Return what converts a tuple whose parts have types of their own."""
    if not any(converts):
        return None

    def convert(value: Any, codec: ValueCodec) -> Any:
        parts = zip(converts, value, strict=True)
        return tuple(part if one is None else one(part, codec) for one, part in parts)

    return convert
