"""Histories as JSON, which code can be replayed against elsewhere.

An export is one object::

    {"orchestra_history": 1, "instance_id": "watch-1", "incarnation": "...", "executions": [
        {"execution": 1, "name": "watch", "version": "1.0.0", "events": [
            {"id": 1, "kind": 1, "at": 1700000000000000, "format": 1, "envelope": {...},
             "payload": "...", "encoding": 1}, ...]}, ...]}

``at`` is microseconds UTC. A payload is the stored text; one that is no UTF-8 is base64, under
``payload_base64``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from orchestra.codec import (
    Payload,
    pack,
    require_opened,
    require_opened_facts,
    unpack,
    without_secrets,
)
from orchestra.errors import HistoryCorrupt
from orchestra.events import EventRecord, incarnation_of
from orchestra.frozen import frozen
from orchestra.store.executions import ExecutionRow
from orchestra.store.port import Directory
from orchestra.store.queries import InstanceRecord

__all__ = ["ExportedExecution", "export_history", "export_of", "read_export"]

_VERSION: Final = 1


@frozen
class ExportedExecution:
    """One execution of an export."""

    instance_id: str
    incarnation: str
    number: int
    name: str
    version: str
    events: tuple[EventRecord, ...]


def export_history(
    instance_id: str,
    incarnation: str,
    executions: Iterable[tuple[ExecutionRow, Sequence[EventRecord]]],
) -> bytes:
    """Return the histories of an instance as JSON. Executions without events are left out."""
    return pack(
        {
            "orchestra_history": _VERSION,
            "instance_id": instance_id,
            "incarnation": incarnation,
            "executions": [
                {
                    "execution": row.number,
                    "name": row.name,
                    "version": row.version,
                    "incarnation": incarnation_of(records) or incarnation,
                    "events": [_event_to_json(record) for record in records],
                }
                for row, records in executions
                if records
            ],
        }
    )


def export_of(
    directory: Directory, record: InstanceRecord, execution_id: int | None = None
) -> bytes:
    """Return the histories of a stored instance as JSON: of all its executions, or of one."""
    row = record.row
    rows: list[ExecutionRow] = []
    while page := directory.executions(row.instance_id, rows[-1].number if rows else 0):
        rows += page
    return export_history(
        row.instance_id,
        row.incarnation,
        [
            (execution, directory.history(row.instance_id, execution.number))
            for execution in rows
            if execution_id in (None, execution.number)
        ],
    )


def read_export(data: bytes) -> tuple[ExportedExecution, ...]:
    """Return the executions of an export.

    Raises:
        HistoryCorrupt: it is no export, or one of a newer library.
    """
    try:
        export = unpack(data)
        if export["orchestra_history"] != _VERSION:
            raise HistoryCorrupt(
                f"the export has version {export['orchestra_history']!r}, and this library reads "
                f"{_VERSION}; use the library that made it, or a newer one"
            )
        return tuple(
            ExportedExecution(
                export["instance_id"],
                execution.get("incarnation", export["incarnation"]),
                execution["execution"],
                execution["name"],
                execution["version"],
                tuple(_event_from_json(event) for event in execution["events"]),
            )
            for execution in cast("list[dict[str, Any]]", export["executions"])
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HistoryCorrupt(
            f"this is no exported history: {error!r}; make one with `orchestra history --export` "
            "or client.export_history()"
        ) from error


def _event_to_json(record: EventRecord) -> dict[str, Any]:
    subject = f"event {record.id}"
    require_opened_facts(record.envelope, subject)
    if record.payload is not None:
        require_opened(record.payload, subject)
    event: dict[str, Any] = {
        "id": record.id,
        "kind": record.kind,
        "at": record.at,
        "format": record.format,
        "envelope": record.envelope.decode(),
    }
    if record.payload is not None:
        payload = without_secrets(record.payload)
        event["encoding"] = payload.encoding
        try:
            event["payload"] = payload.data.decode()
        except UnicodeDecodeError:
            event["payload_base64"] = base64.b64encode(payload.data).decode()
    return event


def _event_from_json(event: dict[str, Any]) -> EventRecord:
    for name in ("id", "at", "format"):
        if not isinstance(event[name], int):
            raise TypeError(f"{name} of event {event['id']!r} is {event[name]!r}")
    payload: Payload | None = None
    if "payload" in event:
        payload = Payload(event["payload"].encode(), event["encoding"])
    elif "payload_base64" in event:
        payload = Payload(base64.b64decode(event["payload_base64"]), event["encoding"])
    return EventRecord(
        event["id"],
        event["kind"],
        event["at"],
        event["format"],
        event["envelope"].encode(),
        payload,
    )
