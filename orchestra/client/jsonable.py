"""The JSON form of what a client returns: one for the command line and the HTTP API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any, Final, cast

from orchestra.client.values import Unreadable
from orchestra.codec import MASK, Secret
from orchestra.levels import Unknown
from orchestra.schedules import Spec, spec_to_json
from orchestra.store.kinds import THIS_LIBRARY
from orchestra.store.routes import Kind
from orchestra.versions import Exact, Latest, Range, UnknownPolicy

__all__ = ["jsonable"]

_JSON_TYPES: Final = frozenset({type(None), bool, int, float, str})
_CONTAINERS: Final = frozenset({dict, list, tuple})


def jsonable(value: Any) -> Any:
    """Return a value in its JSON form.

    Dataclasses are objects with the names of their public fields. Instants are RFC 3339 in UTC,
    durations are seconds, enumerations are their values, policies are their text, specs of
    schedules are as they are stored, and exceptions have their type and message.
    """
    if type(value) in _JSON_TYPES:  # nearly all values of a long list
        return value
    return _contained(value) if type(value) in _CONTAINERS else _converted(value)


def _converted(value: Any) -> Any:
    match value:
        case None | bool() | int() | float():
            return value.value if isinstance(value, Enum) else value
        case Enum():
            return value.value
        case str():
            return value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case Unknown():
            return str(value)
        case Secret():
            return MASK
        case Unreadable():
            return {"unreadable": value.reason, "size": value.size}
        case Latest() | Exact() | Range() | UnknownPolicy() | Kind():
            return str(value)
        case Spec():
            return {**spec_to_json(value, level=THIS_LIBRARY.level)}
        case BaseException():
            return {"type": type(value).__name__, "message": str(value)}
        case Mapping():
            return _contained(cast("Mapping[Any, Any]", value))
        case bytes():
            return value.hex()
        case _:
            pass
    if is_dataclass(value) and not isinstance(value, type):
        return {name: jsonable(getattr(value, name)) for name in _public_fields(type(value))}
    if isinstance(value, Iterable):
        return _contained(cast("Iterable[Any]", value))
    return str(value)


def _contained(value: Iterable[Any]) -> Any:
    if isinstance(value, Mapping):
        known = cast("Mapping[Any, Any]", value)
        return {str(key): jsonable(one) for key, one in known.items()}
    return [jsonable(one) for one in value]


@cache
def _public_fields(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if not field.name.startswith("_"))
