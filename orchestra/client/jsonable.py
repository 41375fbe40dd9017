"""The JSON form of what a client returns: one for the command line and the HTTP API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, cast

from orchestra.client.values import Unreadable
from orchestra.codec import MASK, Secret
from orchestra.levels import Unknown
from orchestra.schedules import Spec, spec_to_json
from orchestra.store.kinds import THIS_LIBRARY
from orchestra.store.routes import Kind
from orchestra.versions import Exact, Latest, Range, UnknownPolicy

__all__ = ["jsonable"]


def jsonable(value: Any) -> Any:
    """Return a value in its JSON form.

    Dataclasses are objects with the names of their public fields. Instants are RFC 3339 in UTC,
    durations are seconds, enumerations are their values, policies are their text, specs of
    schedules are as they are stored, and exceptions have their type and message.
    """
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
            known = cast("Mapping[Any, Any]", value)
            return {str(key): jsonable(one) for key, one in known.items()}
        case bytes():
            return value.hex()
        case _:
            pass
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: jsonable(getattr(value, field.name))
            for field in fields(value)
            if not field.name.startswith("_")
        }
    if isinstance(value, Iterable):
        return [jsonable(one) for one in cast("Iterable[Any]", value)]
    return str(value)
