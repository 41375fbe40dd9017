"""The URL is the filter: a page's query, read as a selection."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from orchestra.client.info import InstanceStatus
from orchestra.client.selections import Selection, WaitingFor
from orchestra.errors import InvalidArgument
from orchestra.store.kinds import HoldKind

__all__ = ["ENDED", "FIELDS", "LIVE", "chosen_of", "query_of", "selection_of"]

FIELDS: Final = (
    "name",
    "version",
    "target_version",
    "status",
    "held",
    "drifting",
    "overdue",
    "pinned",
    "id_prefix",
    "label",
    "queue",
    "waiting_on",
    "waiting_longer",
    "parent",
    "schedule",
    "created_after",
    "created_before",
)
_FLAGS: Final = frozenset({"drifting", "overdue", "pinned"})
_MOMENTS: Final = frozenset({"created_after", "created_before"})
_PASSING: Final = frozenset({"said", "format", "table"})
"""What a link to another page does not keep."""

LIVE: Final = (InstanceStatus.PENDING, InstanceStatus.RUNNING, InstanceStatus.HELD)
ENDED: Final = tuple(status for status in InstanceStatus if status.is_final)


def chosen_of(query: Mapping[str, str]) -> dict[str, str]:
    """Return the conditions of a query that have a value, by their fields."""
    values = {field: query.get(field, "").strip() for field in FIELDS}
    return {field: value for field, value in values.items() if value}


def selection_of(query: Mapping[str, str]) -> Selection:
    """Return the selection of a query. Empty values count for nothing.

    Raises:
        InvalidArgument: a value cannot be one.
    """
    values: dict[str, Any] = {}
    chosen = chosen_of(query)
    for field, value in chosen.items():
        try:
            values |= _read(field, value, chosen)
        except ValueError as error:
            raise InvalidArgument(f"{field}={value!r} is no condition: {error}") from error
    return Selection(**values)


def _read(field: str, value: str, chosen: Mapping[str, str]) -> dict[str, Any]:
    match field:
        case "status":
            return {"status": _statuses(value)}
        case "held":
            return {"held": True if value == "any" else HoldKind(value)}
        case "label":
            key, separator, label = value.partition("=")
            if not separator:
                raise ValueError("write key=value")
            return {"labels": {key: label}}
        case "waiting_on":
            kind, _, name = value.partition(":")
            wait: Any = kind or None
            longer = chosen.get("waiting_longer")
            return {
                "waiting_on": WaitingFor(wait, name or None, _duration(longer) if longer else None)
            }
        case "waiting_longer":
            if "waiting_on" in chosen:
                return {}
            return {"waiting_on": WaitingFor(longer_than=_duration(value))}
        case _ if field in _FLAGS:
            if value not in {"0", "1"}:
                raise ValueError("give 1 or 0")
            return {field: value == "1"}
        case _ if field in _MOMENTS:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise ValueError("write the zone: 2026-03-01T12:00Z")
            return {field: moment}
        case _:
            return {field: value}


def _statuses(value: str) -> tuple[InstanceStatus, ...]:
    return LIVE if value == "live" else (InstanceStatus(value),)


_UNITS: Final = {"s": 1, "min": 60, "m": 60, "h": 3_600, "d": 86_400}


def _duration(value: str) -> timedelta:
    number = value.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = value[len(number) :].strip() or "s"
    if unit not in _UNITS:
        raise ValueError("write a duration as 90s, 5min, 2h or 3d")
    return timedelta(seconds=float(number) * _UNITS[unit])


def query_of(query: Mapping[str, str], **changes: str | None) -> str:
    """Return a query with some values changed, for a link. Another filter begins at its first
    page.
    """
    kept = {key: value for key, value in query.items() if value and key not in _PASSING}
    values: dict[str, str | None] = {**kept, "page": None, **changes}
    return urlencode({key: value for key, value in values.items() if value})
