"""Read instances for their owners, many with few statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from orchestra.errors import StoreCorrupt
from orchestra.providers.postgres import statements as sql
from orchestra.providers.postgres.arrays import Numbers, Texts
from orchestra.providers.postgres.inbox import read_page
from orchestra.providers.postgres.kinds import read_kind
from orchestra.providers.postgres.wire import Result, Script
from orchestra.store.decoding import (
    hold_from_bytes,
    nudge_from_bytes,
    operator_hold_from_bytes,
    pin_from_bytes,
    read_activity,
    read_execution,
)
from orchestra.store.hot_row import HotRow
from orchestra.store.instances import ParentLink
from orchestra.store.kinds import Dialect
from orchestra.store.messages import InboxPage, Unread
from orchestra.store.snapshots import Snapshot
from orchestra.store.tasks import ActivityRow

__all__ = ["SnapshotReads"]


class SnapshotReads:
    """Reads the parts of instances whose rows are locked, in a given script."""

    def __init__(
        self,
        script: Script,
        rows: Sequence[HotRow],
        dialect: Dialect,
        page: InboxPage = InboxPage(),  # noqa: B008 - it is immutable
    ) -> None:
        self._page = page
        self._dialect = dialect
        # Copies of the rows: the group may change them later.
        self._rows = [copy(row) for row in rows]
        ids = Texts(row.instance_id for row in rows)
        executions, kinds = (
            Numbers(row.execution for row in rows),
            Numbers(row.kind for row in rows),
        )
        self._details = script.add(sql.READ_SNAPSHOTS, ids, executions, kinds)
        has_messages = any(row.inbox_seq for row in rows)
        self._messages = (
            script.add(sql.READ_INBOXES, ids, page.messages + 1, page.bytes)
            if has_messages
            else None
        )
        self._activities = script.add(sql.READ_ACTIVITIES, ids)

    def take(self) -> list[Snapshot]:
        """Return the snapshots in the order of the rows, once the script has run."""
        details = {row[0]: row for row in self._details.rows}
        messages: dict[str, list[Sequence[Any]]] = defaultdict(list)
        for instance_id, *columns in _rows_of(self._messages):
            messages[instance_id].append(columns)
        activities: dict[str, list[ActivityRow]] = defaultdict(list)
        for instance_id, *columns in self._activities.rows:
            activities[instance_id].append(read_activity(tuple(columns)))
        return [
            _snapshot(
                row,
                details.get(row.instance_id),
                read_page(messages[row.instance_id], row.inbox_seq, self._page, self._dialect),
                tuple(
                    activity
                    for activity in activities[row.instance_id]
                    if activity.execution == row.execution
                ),
                self._dialect,
            )
            for row in self._rows
        ]


def _snapshot(
    row: HotRow,
    detail: tuple[Any, ...] | None,
    unread: Unread,
    activities: tuple[ActivityRow, ...],
    dialect: Dialect,
) -> Snapshot:
    if detail is None:
        raise StoreCorrupt(
            f"instance {row.instance_id!r} has no detail, no kind, or no execution {row.execution}"
        )
    _, queue, name, version, event_format, floating, level, pin, hold, traceparent, *rest = detail
    parent_id, parent_incarnation, parent_execution, parent_event, root_id, *rest = rest
    operator_hold, nudge, summary, *execution = rest
    instance = replace(
        row.instance(read_kind((queue, name, version, event_format, floating, level))),
        pin=None if pin is None else pin_from_bytes(pin),
        hold=None if hold is None else hold_from_bytes(hold, dialect),
        traceparent=traceparent,
        parent=None
        if parent_id is None
        else ParentLink(parent_id, parent_incarnation, parent_execution, parent_event),
        root_id=root_id,
        operator_hold=None if operator_hold is None else operator_hold_from_bytes(operator_hold),
        nudge=None if nudge is None else nudge_from_bytes(nudge),
    )
    return Snapshot(
        instance,
        read_execution(tuple(execution), dialect),
        unread.messages,
        activities,
        unread.whole_to,
        summary,
    )


def _rows_of(result: Result | None) -> list[tuple[Any, ...]]:
    return [] if result is None else result.rows
