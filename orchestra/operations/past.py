"""What the executions of an instance have received, read once.

A closed execution never changes. An operation that reads many of them while their instance goes on
reads at each try only what is new, so that no loop is too fast for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from orchestra.codec import Payload, require_opened, require_opened_facts
from orchestra.errors import NewerLibraryNeeded
from orchestra.events import (
    ChildEnded,
    EventReceived,
    EventRecord,
    UnknownEvent,
    error_to_bytes,
    from_record,
)
from orchestra.operations.known import ending_format
from orchestra.operations.steps import FindExecutions, Operation, ReadHistory
from orchestra.store.catalogue import Catalogue
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import InstanceRow
from orchestra.store.kinds import Library, MessageKind, Status
from orchestra.store.messages import MessageRow

__all__ = ["Past"]

_PAGE: Final = 1_000


class Past:
    """The executions of one life of an instance, and the messages that each has received.

    Args:
        prefix: begins the ids of the messages that are unread again.
        sender: who puts them back.
    """

    def __init__(self, instance_id: str, prefix: str, sender: str, library: Library) -> None:
        self._instance_id = instance_id
        self._prefix = prefix
        self._sender = sender
        self._library = library
        self._incarnation: str | None = None
        self._closed: dict[int, list[ExecutionRow]] = {}
        """The closed executions, by the first one that was asked for."""
        self._received: dict[int, tuple[MessageRow, ...] | None] = {}
        """What closed executions have received; ``None``: it is not known."""

    def belongs_to(self, incarnation: str) -> None:
        """Forget what another life has left: its executions may have had the same numbers."""
        if incarnation != self._incarnation:
            self._incarnation = incarnation
            self._closed.clear()
            self._received.clear()

    def executions(self, first: int) -> Operation[list[ExecutionRow]]:
        """Return the executions from one on, in their order."""
        closed = self._closed.setdefault(first, [])
        while True:
            after = closed[-1].number if closed else first - 1
            page = yield from FindExecutions(self._instance_id, after, _PAGE)
            closed += (row for row in page if row.closed_at is not None)
            if len(page) < _PAGE:
                return closed + [row for row in page if row.closed_at is None]

    def received(
        self, rows: Iterable[ExecutionRow], current: InstanceRow, catalogue: Catalogue
    ) -> Operation[tuple[dict[int, tuple[MessageRow, ...]], tuple[int, ...]]]:
        """Return the events and the ends of background children that each of these executions has
        received, as messages that are unread again, and the executions whose histories are gone, or
        are in a format that no library here reads.
        """
        received: dict[int, tuple[MessageRow, ...]] = {}
        lost: list[int] = []
        for row in rows:
            if row.opened_at is None:
                continue
            if row.number in self._received:
                messages = self._received[row.number]
            else:
                messages = yield from self._received_by(row.number, current, catalogue)
                if row.closed_at is not None:
                    self._received[row.number] = messages
            if messages is None:
                lost.append(row.number)
            elif messages:
                received[row.number] = messages
        return received, tuple(lost)

    def _received_by(
        self, number: int, current: InstanceRow, catalogue: Catalogue
    ) -> Operation[tuple[MessageRow, ...] | None]:
        records = yield from ReadHistory(self._instance_id, number)
        if not records:
            return None
        if records[0].format not in self._library.formats:
            kind = current.kind._replace(format=records[0].format)
            # A living node with a newer library may read it: that one must do it.
            ending_format(replace(current, kind=kind), self._library, catalogue)
            return None
        messages: dict[int, MessageRow] = {}
        for record in records:
            message = self._message(record)
            if message is not None:
                # A lap may await an end more than once.
                messages.setdefault(message.sequence, message)
        return tuple(messages.values())

    def _message(self, record: EventRecord) -> MessageRow | None:
        subject = f"event {record.id} of {self._instance_id!r}"
        require_opened_facts(record.envelope, subject)
        event = from_record(record, self._library.events)
        if isinstance(event, UnknownEvent):
            raise NewerLibraryNeeded(
                f"instance {self._instance_id!r} has what only a newer library knows "
                f"({event.what}); nothing was changed. Do it with that library",
                instance_id=self._instance_id,
            )
        if isinstance(event, ChildEnded):
            if event.result is not None:
                require_opened(event.result, subject)
            return _end_received(event)
        if not isinstance(event, EventReceived):
            return None
        require_opened(event.payload, subject)
        # Its sender's id stays with the tombstone, so that a repeated send still has no effect.
        return MessageRow(
            event.sequence,
            f"{self._prefix}/{event.sequence}",
            event.name,
            event.payload,
            event.at,
            sender=self._sender,
        )


def _end_received(event: ChildEnded) -> MessageRow | None:
    if not event.sequence:
        return None  # no message has told it
    payload = event.result
    if payload is None:
        payload = Payload(b"" if event.cause is None else error_to_bytes(event.cause))
    return MessageRow(
        event.sequence,
        event.link,
        event.child_id,
        payload,
        event.at,
        MessageKind.BACKGROUND_CHILD_ENDED,
        Status[event.status.upper()].value,
        sender=event.child_id,
    )
