"""The URL is the filter: a page's query, read as a selection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from orchestra.client.info import InstanceStatus
from orchestra.client.selections import Selection, WaitingFor
from orchestra.errors import InvalidArgument
from orchestra.store.kinds import HoldKind

__all__ = ["FIELDS", "query_of", "selection_of"]

FIELDS: Final = (
    "name",
    "version",
    "status",
    "held",
    "drifting",
    "overdue",
    "pinned",
    "id_prefix",
    "label",
    "queue",
    "waiting_on",
    "parent",
)
_FLAGS: Final = frozenset({"drifting", "overdue", "pinned"})


def selection_of(query: Mapping[str, str]) -> Selection:
    """Return the selection of a query. Empty values count for nothing.

    Raises:
        InvalidArgument: a value cannot be one.
    """
    values: dict[str, Any] = {}
    for field in FIELDS:
        value = query.get(field, "").strip()
        if value:
            values |= _read(field, value)
    return Selection(**values)


def _read(field: str, value: str) -> dict[str, Any]:
    try:
        match field:
            case "status":
                return {"status": InstanceStatus(value)}
            case "held":
                return {"held": True if value == "any" else HoldKind(value)}
            case "label":
                key, _, label = value.partition("=")
                return {"labels": {key: label}}
            case "waiting_on":
                kind, _, name = value.partition(":")
                wait: Any = kind or None
                return {"waiting_on": WaitingFor(wait, name or None)}
            case _ if field in _FLAGS:
                return {field: value in {"1", "true", "yes"}}
            case _:
                return {field: value}
    except ValueError as error:
        raise InvalidArgument(f"{field}={value!r} is no condition: {error}") from error


def query_of(query: Mapping[str, str], **changes: str | None) -> str:
    """Return a query with some values changed, for a link."""
    values = {**{key: query[key] for key in query if query[key]}, **changes}
    values.setdefault("page", None)
    if "page" not in changes:
        values["page"] = None  # another filter begins at its first page
    return urlencode({key: value for key, value in values.items() if value})
