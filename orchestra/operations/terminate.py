"""End an instance at once: by a write, or by a mark for its owner if each write comes too late."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Final

from orchestra.codec import UserText
from orchestra.errors import ErrorInfo
from orchestra.events import EventWriter, ExecutionTerminated, error_to_bytes, to_record
from orchestra.operations.known import ending_format, raise_unless_known, require_known
from orchestra.operations.lookup import existing, has_ended, row_to_write
from orchestra.operations.steps import Get, Operation, Pause, ReadCatalogue, Submit
from orchestra.store.audit import Record
from orchestra.store.changes import Cancel, Write
from orchestra.store.executions import Closing, ExecutionDelta
from orchestra.store.instances import InstanceRow, InstanceState
from orchestra.store.kinds import ExecutionEnd, Library, Status
from orchestra.store.outcomes import Appended, Granted
from orchestra.store.queries import InstanceRecord
from orchestra.summary import EMPTY_SUMMARY

__all__ = ["terminate", "termination"]

_WRITES_BEFORE_MARK: Final = 8
"""How often the operation retries the write of the end before it marks the instance for its
owner.
"""
_SHORTEST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.5
"""Seconds between looks at a marked instance: an owner on another node learns of the mark with its
next poll.
"""


def terminate(
    instance_id: str, reason: str, by: str, library: Library
) -> Operation[InstanceRecord | None]:
    """End an instance. Return it if this operation wrote its end; ``None``: its owner ended it, for
    the mark.

    Raises:
        InstanceNotFound, AlreadyCompleted: there is none with this id, or it has ended otherwise.
        NewerLibraryNeeded: it has what only a newer library knows. A history in a format that no
            living node reads is none of that: it can be ended.
    """
    first = yield from existing(instance_id)
    require_known(first, library, history=False)
    record: InstanceRecord | None = first
    is_recorded = False
    for number in itertools.count():
        if (
            record is None
            or record.row.incarnation != first.row.incarnation
            or record.status is not Status.OPEN
        ):
            _require_end_by_mark(first, record, is_marked=number > _WRITES_BEFORE_MARK)
            return None
        entry = (
            None if is_recorded else Record(by, "terminate", instance_id, reason=UserText(reason))
        )
        if (yield from _write_end(record, reason, library, entry, raced=number > 0)):
            return record
        if number == _WRITES_BEFORE_MARK:
            # Its owner writes it all the time. A mark races with no write: an owner that sees it
            # stops running its code.
            outcome = yield from Submit(
                Cancel(
                    instance_id,
                    UserText(reason),
                    by,
                    terminate=True,
                    incarnation=first.row.incarnation,
                    record=entry,
                )
            )
            is_recorded = isinstance(outcome, Appended) and outcome.fresh
        if number >= _WRITES_BEFORE_MARK:
            yield from Pause(
                min(_LONGEST_PAUSE, _SHORTEST_PAUSE * (number - _WRITES_BEFORE_MARK + 1))
            )
        record = yield from Get(instance_id)


def _require_end_by_mark(
    first: InstanceRecord, record: InstanceRecord | None, *, is_marked: bool
) -> None:
    """Check that an instance that has ended did so for the mark; one that is gone was deleted
    since.

    Raises:
        AlreadyCompleted: it ended otherwise.
    """
    status = (
        None if record is None or record.row.incarnation != first.row.incarnation else record.status
    )
    if not is_marked or status not in {None, Status.TERMINATED}:
        raise has_ended(first.row.instance_id, status)


def _write_end(
    record: InstanceRecord,
    reason: str,
    library: Library,
    entry: Record | None,
    *,
    raced: bool,
) -> Operation[bool]:
    """Write the end of an instance, if it is still as it was read. Return whether this write has
    ended it.
    """
    row = yield from row_to_write(record, raced=raced)
    if row is None:
        return False
    raise_unless_known(row, library, history=False)
    catalogue = yield from ReadCatalogue()
    event_format = ending_format(row, library, catalogue)
    writer = library.events.writer(event_format, catalogue.levels.write)
    end = termination(row, reason, max(catalogue.now, record.updated_at), writer)
    outcome = yield from Submit(replace(end, record=entry))
    return isinstance(outcome, Granted)


def termination(row: InstanceRow, reason: str, now: int, writer: EventWriter) -> Write:
    """Return the write that ends an instance from outside, conditional on the revision that was
    read (rule 6).
    """
    event = to_record(ExecutionTerminated(row.history_events + 1, now, reason), writer)
    events = (event,) if row.opened else ()
    error = error_to_bytes(ErrorInfo("orchestra.Terminated", reason))
    event_count = row.history_events + len(events)
    byte_count = row.history_bytes + sum(entry.size for entry in events)
    return Write(
        instance_id=row.instance_id,
        incarnation=row.incarnation,
        revision=row.revision,
        owner=None,
        state=InstanceState(
            kind=row.kind,
            owner=None,
            wake_at=None,
            seen_seq=row.inbox_seq,
            execution=row.execution,
            opened=row.opened,
            takeovers=row.takeovers,
            status=Status.TERMINATED,
            history_events=event_count,
            history_bytes=byte_count,
            summary=EMPTY_SUMMARY,
        ),
        executions=(
            ExecutionDelta(
                row.execution,
                events=events,
                closed=Closing(now, ExecutionEnd.TERMINATED, None, error),
                event_count=event_count,
                byte_count=byte_count,
            ),
        ),
    )
