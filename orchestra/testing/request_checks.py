"""What must hold of requests: each that was accepted is open, or answered once (I1), and what is
open waits in the inbox.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from orchestra.events import Event, RequestReceived
from orchestra.store.kinds import MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.port import Directory
from orchestra.store.queries import InstanceRecord

__all__ = ["Found", "request_problems"]

_PAGE = 1_000

Found = tuple[str, str, int | None, int | None]
"""The number of an invariant, the problem, the execution and the event."""


def request_problems(
    directory: Directory, record: InstanceRecord, histories: Mapping[int, Sequence[Event]]
) -> Iterator[Found]:
    """Yield what is wrong with the requests of an instance that does not change meanwhile."""
    instance_id = record.row.instance_id
    waiting = {message.message_id: message for message in _open_requests(directory, instance_id)}
    for request_id, message in waiting.items():
        state = directory.request(instance_id, request_id)
        if state is None:
            yield "I1", f"request {request_id!r} waits, and is not known", None, None
        elif state.row.answer is not None:
            yield "I1", f"request {request_id!r} waits, and is answered", None, None
        elif state.row.sequence != message.sequence:
            yield (
                "I1",
                f"request {request_id!r} is message {message.sequence}, and its row says "
                f"{state.row.sequence}",
                None,
                None,
            )
    for number, events in histories.items():
        yield from _in_lap(directory, record, number, events, waiting)


def _in_lap(
    directory: Directory,
    record: InstanceRecord,
    number: int,
    events: Sequence[Event],
    waiting: Mapping[str, MessageRow],
) -> Iterator[Found]:
    latest: dict[str, int] = {}
    for event in events:
        if not isinstance(event, RequestReceived):
            continue
        if event.sequence <= latest.get(event.name, 0):
            problem = f"request {event.sequence} of {event.name!r} comes late or twice"
            yield "I8", problem, number, event.id
        if event.sequence > record.row.inbox_seq:
            yield "I8", f"request {event.sequence} never arrived", number, event.id
        latest[event.name] = max(event.sequence, latest.get(event.name, 0))
        state = directory.request(record.row.instance_id, event.request_id)
        if (
            state is not None
            and state.is_going
            and state.row.answer is None
            and record.status is Status.OPEN
            and event.request_id not in waiting
        ):
            problem = f"request {event.request_id!r} is open, and no lap will receive it"
            yield "I1", problem, number, event.id


def _open_requests(directory: Directory, instance_id: str) -> Iterator[MessageRow]:
    after = 0
    while page := directory.messages(instance_id, after, _PAGE):
        yield from (message for message in page if message.kind is MessageKind.REQUEST)
        after = page[-1].sequence
