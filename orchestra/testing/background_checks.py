"""What must hold of background children, and of what their parents know of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from orchestra.events import ChildAwaited, ChildEnded, CommandCancelled, Event
from orchestra.store.kinds import MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.port import Directory
from orchestra.store.queries import InstanceRecord
from orchestra.testing.request_checks import Found

__all__ = ["background_problems"]

_PAGE = 1_000


def background_problems(
    directory: Directory,
    record: InstanceRecord,
    histories: Mapping[int, Sequence[Event]],
    *,
    quiescent: bool,
) -> Iterator[Found]:
    """Yield what is wrong with the ends of background children that an instance knows, or waits
    for.

    Args:
        quiescent: whether nothing runs, so that what has come is delivered.
    """
    number = record.row.execution
    unread = list(_unread_ends(directory, record))
    if unread and record.status is not Status.OPEN:
        yield "I9", "the end of a background child is kept after the end", number, None
    for link, times in Counter(message.message_id for message in unread).items():
        if times > 1:
            yield "I5", f"the end of background child {link} is there {times} times", number, None
    for execution, events in histories.items():
        yield from _wrong_ends(directory, record, execution, events)
    if quiescent and record.status is Status.OPEN and not record.held:
        links = {message.message_id for message in unread}
        yield from _endless_waits(directory, record, histories.get(number, ()), links)


def _unread_ends(directory: Directory, record: InstanceRecord) -> Iterator[MessageRow]:
    after = 0
    while page := directory.messages(record.row.instance_id, after, _PAGE):
        for message in page:
            if message.kind is MessageKind.BACKGROUND_CHILD_ENDED:
                yield message
        after = page[-1].sequence


def _wrong_ends(
    directory: Directory, record: InstanceRecord, execution: int, events: Sequence[Event]
) -> Iterator[Found]:
    """Yield ends of which the child itself knows another one (I5)."""
    for event in events:
        if not isinstance(event, ChildEnded) or not event.sequence:
            continue
        if event.sequence > record.row.inbox_seq:
            yield "I8", f"message {event.sequence} never arrived", execution, event.id
        child = directory.get(event.child_id)
        if child is None or str(child.row.parent) != event.link:
            continue  # retention has deleted it, or its id has another life
        if child.status.name.lower() != event.status:
            yield "I5", f"child {event.child_id!r} has not {event.status}", execution, event.id
        elif event.result is not None and event.result != child.execution.output:
            yield "I5", f"child {event.child_id!r} knows another result", execution, event.id


def _endless_waits(
    directory: Directory, record: InstanceRecord, events: Sequence[Event], unread: set[str]
) -> Iterator[Found]:
    """Yield waits of the current execution that nothing will end (I11)."""
    number = record.row.execution
    ended = {event.source for event in events if isinstance(event, ChildEnded)}
    given_up = {event.source for event in events if isinstance(event, CommandCancelled)}
    for event in events:
        if not isinstance(event, ChildAwaited) or event.id in ended | given_up:
            continue
        if event.link in unread:
            problem = f"the end of child {event.child_id!r} has come, and is not delivered"
            yield "I11", problem, number, event.id
            continue
        child = directory.get(event.child_id)
        going = child is not None and child.status is Status.OPEN
        if child is None or not going or str(child.row.parent) != event.link:
            problem = (
                f"it waits for the end of child {event.child_id!r}, and is not answered: an "
                "earlier lap has received it, an operator has dropped it, or the child has another "
                "life"
            )
            yield "I11", problem, number, event.id
