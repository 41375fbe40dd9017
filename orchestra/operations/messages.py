"""Drop unread messages: an operator's write that removes them, conditional on what was read.

A request is answered by that: it is rejected.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from orchestra.codec import UserText
from orchestra.errors import OutcomeUnknown
from orchestra.operations.known import raise_unless_known, require_known
from orchestra.operations.lookup import existing, has_ended, row_to_write
from orchestra.operations.steps import FindMessages, Operation, Pause, ReadCatalogue, Submit
from orchestra.store.audit import Record
from orchestra.store.changes import Write, WriteExtras
from orchestra.store.instances import InstanceRow, InstanceState
from orchestra.store.kinds import Library, MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import Granted
from orchestra.store.queries import InstanceRecord
from orchestra.store.requests import RequestAnswer

__all__ = ["drop_messages"]

_AT_ONCE: Final = 500
"""Messages that one write removes."""

_TRIES: Final = 20
"""How often a write is repeated that met another one."""

_PAUSE: Final = 0.01

_NAMED: Final = 20
"""How many ids of dropped messages the audit names."""


def drop_messages(
    instance_id: str,
    library: Library,
    *,
    name: str | None,
    message_ids: Collection[str] | None,
    by: str,
    reason: str,
) -> Operation[int]:
    """Remove unread events of an instance, those included that were set aside. Return how many
    were removed.

    Raises:
        InstanceNotFound, InstanceCompleted: there is none with this id, or it has ended.
        NewerLibraryNeeded: it has what only a newer library knows.
        OutcomeUnknown: its owner writes it all the time, and no write came between.
    """
    wanted = None if message_ids is None else set(message_ids)
    dropped = after = tries = 0
    while True:
        page = yield from FindMessages(instance_id, after, _AT_ONCE)
        chosen = [message for message in page if _is_chosen(message, name, wanted)]
        if chosen:
            record = yield from existing(instance_id)
            if record.status is not Status.OPEN:
                raise has_ended(instance_id, record.status)
            require_known(record, library)
            detail = {"count": len(chosen), "first": _named(chosen)}
            entry = Record(by, "drop messages", instance_id, detail, UserText(reason))
            now = record.updated_at
            if any(message.kind is MessageKind.REQUEST for message in chosen):
                now = max(now, (yield from ReadCatalogue()).now)
            if not (yield from _write(record, chosen, library, entry, now, raced=tries > 0)):
                tries += 1
                if tries > _TRIES:
                    raise OutcomeUnknown(
                        f"the owner of {instance_id!r} writes it all the time; {dropped} messages "
                        "were dropped so far, try again"
                    )
                yield from Pause(_PAUSE)
                continue
            dropped, tries = dropped + len(chosen), 0
        if len(page) < _AT_ONCE:
            if dropped == 0:
                yield from existing(instance_id)
            return dropped
        after = page[-1].sequence


def _is_chosen(message: MessageRow, name: str | None, wanted: Collection[str] | None) -> bool:
    return (name is None or message.name == name) and (
        wanted is None or message.message_id in wanted
    )


def _named(messages: list[MessageRow]) -> list[str]:
    return [message.message_id for message in messages[:_NAMED]]


def _write(
    record: InstanceRecord,
    messages: list[MessageRow],
    library: Library,
    entry: Record,
    now: int,
    *,
    raced: bool,
) -> Operation[bool]:
    row = yield from row_to_write(record, raced=raced)
    if row is None:
        return False
    raise_unless_known(row, library)
    outcome = yield from Submit(replace(_removal(record, row, messages, entry, now), record=entry))
    return isinstance(outcome, Granted)


def _removal(
    record: InstanceRecord,
    row: InstanceRow,
    messages: list[MessageRow],
    entry: Record,
    now: int,
) -> Write:
    """Return the write that removes messages and changes nothing else. It takes an owner's instance
    away, so that its memory is read anew. A request is rejected, so that its sender learns it.
    """
    why = f"dropped by {entry.by}" + (f": {entry.reason}" if entry.reason else "")
    return Write(
        instance_id=row.instance_id,
        incarnation=row.incarnation,
        revision=row.revision,
        owner=None,
        state=InstanceState(
            kind=row.kind,
            owner=None,
            wake_at=row.wake_at if row.owner is None else 0,
            seen_seq=row.seen_seq,
            execution=row.execution,
            opened=row.opened,
            takeovers=row.takeovers,
            status=Status.OPEN,
            history_events=row.history_events,
            history_bytes=row.history_bytes,
            boundary_due=row.boundary_due,
            summary=record.summary,
        ),
        consumed=tuple(
            message.sequence
            for message in messages
            if message.aside is None and message.kind is not MessageKind.REQUEST
        ),
        hold=row.hold,
        extras=WriteExtras(
            answers=tuple(
                RequestAnswer(message.message_id, message.sequence, rejection=UserText(why), at=now)
                for message in messages
                if message.kind is MessageKind.REQUEST
            ),
            unkept=tuple(message.sequence for message in messages if message.aside is not None),
        ),
    )
