"""What a granted write does to other instances: children that it starts, cancels or leaves behind, and the end that it tells.

All of it comes behind the owners' writes of the group, as later statements (rules 7 and 20), so that it meets parents and
children as the group leaves them.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestra.codec import Payload
from orchestra.providers.decoding import read_cancel
from orchestra.providers.rows import (
    LONGEST_DELAY,
    PARENT_CLOSED,
    Appended,
    CancelMark,
    ChildCancel,
    ChildStart,
    MessageKind,
    MessageRow,
    OnParentClose,
    ParentLink,
    Start,
    Started,
    StartExists,
    Status,
    Write,
)
from orchestra.providers.sqlite import statements as sql
from orchestra.providers.sqlite.writer import Transaction

__all__ = ["Family"]


class Family:
    """Carries out what writes do to other instances, in the order of the protocol."""

    def __init__(self, transaction: Transaction, start: Callable[[Start], Started | StartExists]) -> None:
        self._connection = transaction.connection
        self._now = transaction.now
        self._start = start
        self._arrivals: list[tuple[str, Appended]] = []
        self._taken: list[str] = []

    def follow(self, write: Write) -> tuple[tuple[tuple[str, Appended], ...], tuple[str, ...]]:
        """Do what follows from a granted write. Return what it has left with whom, and which ids were taken."""
        self._arrivals, self._taken = [], []
        for child in write.starts:
            self._start_child(child)
        for cancel in write.cancels:
            self._cancel_child(cancel)
        for execution in write.closed_with_children:
            self._leave_children(write, execution)
        if write.state.status is not Status.OPEN:
            self._tell_parent(write)
        return tuple(self._arrivals), tuple(self._taken)

    def _start_child(self, child: ChildStart) -> None:
        if child.start is not None:
            outcome = self._start(child.start)
            if isinstance(outcome, Started) or outcome.same:
                return
        if child.refusal is None:
            self._taken.append(child.child_id)
        else:
            self._report(child.parent, child.child_id, MessageKind.CHILD_FAILED, Payload(child.refusal))

    def _cancel_child(self, cancel: ChildCancel) -> None:
        parent = cancel.parent
        link = (cancel.child_id, parent.instance_id, parent.incarnation, parent.execution, parent.event_id)
        if self._connection.execute(sql.IS_CHILD, link).fetchone() is not None:
            self._mark(cancel.child_id, CancelMark(self._now, cancel.reason, parent.instance_id))

    def _leave_children(self, write: Write, execution: int) -> None:
        parent = (write.instance_id, execution, write.incarnation)
        for child_id, close in self._connection.execute(sql.LIST_BOUND, parent).fetchall():
            terminate = close == OnParentClose.TERMINATE
            self._mark(child_id, CancelMark(self._now, PARENT_CLOSED, write.instance_id, terminate))

    def _mark(self, child_id: str, mark: CancelMark) -> None:
        row = self._connection.execute(sql.FIND_CANCEL, (child_id,)).fetchone()
        if row is None:
            return
        status, inbox_seq, owner, at, reason, by, terminate, *_ = row
        standing = read_cancel(at, reason, by, terminate)
        # Terminate beats cancel (rule 18); what stands otherwise stays.
        if status != Status.OPEN.value or (standing is not None and (standing.terminate or not mark.terminate)):
            return
        values = (mark.at, mark.reason, mark.by, mark.terminate, child_id)
        self._connection.execute(sql.MARK_CANCELLED, (self._now, self._now, self._now + LONGEST_DELAY, *values))
        self._arrivals.append((child_id, Appended(inbox_seq + 1, owner, fresh=True, cancel=mark)))

    def _tell_parent(self, write: Write) -> None:
        row = self._connection.execute(sql.FIND_PARENT, (write.state.execution, write.instance_id)).fetchone()
        closed = write.executions[-1].closed if write.executions else None
        if row is None or closed is None:
            return
        _, _, output, error = closed
        payload = output if write.state.status is Status.COMPLETED else Payload(error or b"")
        kind = MessageKind(write.state.status.value)
        *link, traceparent = row
        self._report(ParentLink(*link), write.instance_id, kind, payload or Payload(b"null"), traceparent)

    def _report(
        self, parent: ParentLink, child_id: str, kind: MessageKind, payload: Payload, traceparent: str | None = None
    ) -> None:
        """Tell a parent how a child has ended, if the execution that asked for it is the open one (rule 20)."""
        bounds = (self._now, self._now, self._now + LONGEST_DELAY)
        row = self._connection.execute(
            sql.RING_PARENT, (*bounds, parent.instance_id, parent.incarnation, parent.execution)
        ).fetchone()
        if row is None:
            return
        sequence, owner = row
        message = MessageRow(sequence, str(parent), child_id, payload, self._now, kind, parent.event_id, traceparent, child_id)
        self._connection.execute(
            sql.ADD_MESSAGE,
            (
                parent.instance_id,
                sequence,
                message.message_id,
                child_id,
                payload.data,
                payload.encoding,
                self._now,
                kind.value,
                parent.event_id,
                traceparent,
                child_id,
            ),
        )
        self._arrivals.append((parent.instance_id, Appended(sequence, owner, fresh=True, message=message)))
