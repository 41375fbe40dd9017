"""Go back: end the current execution, and begin a former one again (protocol rule 31).

An instance that runs goes on in the same life. One that has ended begins a new life, without a
parent. In both cases the executions are numbered on.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from orchestra.codec import UserText, require_opened
from orchestra.errors import InvalidArgument, OutcomeUnknown
from orchestra.events import FORMAT, ExecutionRewound, to_record
from orchestra.operations.known import (
    ending_format,
    raise_unless_known,
    require_known,
    require_level,
)
from orchestra.operations.lineage import lineage, read_by
from orchestra.operations.lookup import existing, row_to_write
from orchestra.operations.past import Past
from orchestra.operations.steps import (
    Find,
    FindMessages,
    Operation,
    Pause,
    ReadCatalogue,
    Submit,
)
from orchestra.resolution import LOWEST_VERSION, policy_of, resolution_level
from orchestra.store.audit import Record
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import ChildCancel, IfEnded, Start, Write, WriteExtras
from orchestra.store.executions import Closing, ExecutionDelta, ExecutionRow, Resolution, Rewind
from orchestra.store.instances import InstanceRow, InstanceState, Pin
from orchestra.store.kinds import (
    CONTROL_LEVEL,
    ExecutionEnd,
    Library,
    MessageKind,
    ResolvedBy,
    Status,
)
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import Granted, Started, StartExists
from orchestra.store.queries import InstanceQuery, InstanceRecord
from orchestra.store.routes import Kind, kind_of
from orchestra.summary import EMPTY_SUMMARY

__all__ = ["OnRewind", "Rewinding", "Rewound", "rewind"]

OnRewind = Literal["abandon", "cancel"]

_TRIES: Final = 20
_PAUSE: Final = 0.01
_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Rewinding:
    """What an operator asks for. ``execution`` is the one whose state begins again.

    ``version`` is the version that the new execution takes; ``None``: the one that it had.
    ``incarnation`` is the life that an ended instance begins.
    """

    instance_id: str
    execution: int
    version: str | None
    pins: bool
    children: OnRewind
    by: str
    reason: str
    request_id: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Rewound:
    """What a rewind has done: the new execution, its version, how many events are unread again,
    and the executions whose histories were deleted, so that their events stay read.
    """

    execution: int
    version: str
    restored: int = 0
    lost: tuple[int, ...] = ()
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class _Inbox:
    """What a rewind changes in the inbox.

    ``restored`` are unread again, and ``removed`` are read, as the state has read them. ``undone``
    are the messages that each execution which it undoes had read. ``lost`` are the executions whose
    events stay read.
    """

    restored: tuple[MessageRow, ...]
    removed: tuple[int, ...]
    undone: tuple[tuple[int, tuple[int, ...]], ...]
    lost: tuple[int, ...]


def rewind(asked: Rewinding, library: Library) -> Operation[Rewound]:
    """Begin a former execution of an instance again.

    Raises:
        InstanceNotFound: there is none with this id.
        InvalidArgument: it has no such execution, or retention has deleted it.
        NewerLibraryNeeded: it has what only a newer library knows.
        LevelTooLow: a living node has a library that cannot read a rewind.
        OutcomeUnknown: its owner writes it all the time, and no write came between.
    """
    past = Past(asked.instance_id, asked.request_id, asked.by, library)
    for number in range(_TRIES):
        record = yield from existing(asked.instance_id)
        require_known(record, library, history=False)
        past.belongs_to(record.row.incarnation)
        row: InstanceRow | None = record.row
        if record.status is Status.OPEN:
            row = yield from row_to_write(record, raced=number > 0)
        if row is None:
            yield from Pause(_PAUSE)
            continue
        # Behind that revision: its owner may have opened the execution since, and received events.
        _raise_unless_had(row, asked)
        rows = yield from past.executions(asked.execution)
        repeated = next((row for row in rows if row.request_id == asked.request_id), None)
        if repeated is not None:
            return Rewound(repeated.number, repeated.version, is_repeated=True)
        if rows[0].number != asked.execution:
            raise InvalidArgument(
                f"retention has deleted execution {asked.execution} of {asked.instance_id!r}; the "
                f"earliest that it can go back to is {rows[0].number}"
            )
        _raise_unless_version(rows[0], asked)
        catalogue = yield from ReadCatalogue()
        require_level(catalogue, CONTROL_LEVEL, f"{asked.instance_id!r} cannot be rewound")
        record = replace(record, row=row)
        raise_unless_known(row, library, history=False)
        inbox = yield from _inbox(past, rows, record, asked, catalogue)
        if record.status is Status.OPEN:
            done = yield from _rewind_open(record, rows[0], inbox, asked, catalogue, library)
        else:
            done = yield from _rewind_ended(record, rows[0], inbox, asked, catalogue)
        if done is not None:
            return done
        yield from Pause(_PAUSE)
    raise OutcomeUnknown(
        f"the owner of {asked.instance_id!r} writes it all the time; nothing was rewound, try again"
    )


def _raise_unless_had(row: InstanceRow, asked: Rewinding) -> None:
    if not 1 <= asked.execution <= row.execution:
        raise InvalidArgument(
            f"{asked.instance_id!r} has no execution {asked.execution}; its executions are 1 to "
            f"{row.execution}"
        )


def _raise_unless_version(former: ExecutionRow, asked: Rewinding) -> None:
    """Raise if the new execution would wait for a version that nobody has: a former one that has
    waited for the first version of its name has none to go on with.
    """
    if asked.version is None and former.version == LOWEST_VERSION:
        raise InvalidArgument(
            f"execution {asked.execution} of {asked.instance_id!r} never had a version: no node "
            f"had {former.name!r} as it was made. Say which version it takes, with version="
        )


def _rewind_open(
    record: InstanceRecord,
    former: ExecutionRow,
    inbox: _Inbox,
    asked: Rewinding,
    catalogue: Catalogue,
    library: Library,
) -> Operation[Rewound | None]:
    row = record.row
    now = max(catalogue.now, record.updated_at)
    cancels = (yield from _children_since(row, asked)) if asked.children == "cancel" else ()
    kind, following = _following(former, row, inbox, asked, catalogue, now)
    event = ExecutionRewound(row.history_events + 1, now, asked.execution, asked.by, asked.reason)
    writer = library.events.writer(ending_format(row, library, catalogue), catalogue.levels.write)
    events = (to_record(event, writer),) if row.opened else ()
    write = Write(
        instance_id=row.instance_id,
        incarnation=row.incarnation,
        revision=row.revision,
        owner=None,
        state=InstanceState(
            kind=kind,
            owner=None,
            wake_at=0,
            seen_seq=row.seen_seq,
            execution=following.number,
            opened=False,
            takeovers=0,
            status=Status.OPEN,
            history_events=0,
            history_bytes=0,
            summary=EMPTY_SUMMARY,
        ),
        executions=(
            ExecutionDelta(
                row.execution,
                events=events,
                closed=Closing(now, ExecutionEnd.REWOUND),
                event_count=row.history_events + len(events),
                byte_count=row.history_bytes + sum(one.size for one in events),
            ),
            ExecutionDelta(following.number, create=following),
        ),
        consumed=inbox.removed,
        record=_entry(following, asked),
        extras=WriteExtras(
            cancels=cancels,
            restored=inbox.restored,
            uncancels=True,
            pin=_pin(following, asked, now),
            leaves_children=True,
        ),
    )
    if not isinstance((yield from Submit(write)), Granted):
        return None
    return Rewound(following.number, following.version, len(inbox.restored), inbox.lost)


def _rewind_ended(
    record: InstanceRecord,
    former: ExecutionRow,
    inbox: _Inbox,
    asked: Rewinding,
    catalogue: Catalogue,
) -> Operation[Rewound | None]:
    row = record.row
    kind, following = _following(former, row, inbox, asked, catalogue, catalogue.now)
    start = Start(
        instance_id=row.instance_id,
        incarnation=asked.incarnation,
        request_id=asked.request_id,
        kind=kind,
        execution=following,
        created_by=asked.by,
        labels=record.labels,
        if_ended=IfEnded.RESTART,
        follows=(row.incarnation, row.revision),
        looks=True,
        restored=inbox.restored,
        pin=_pin(following, asked, catalogue.now),
        record=_entry(following, asked),
    )
    outcome = yield from Submit(start)
    if isinstance(outcome, StartExists) and outcome.same:
        return Rewound(following.number, following.version, is_repeated=True)
    if not isinstance(outcome, Started):
        return None
    return Rewound(following.number, following.version, len(inbox.restored), inbox.lost)


def _following(
    former: ExecutionRow,
    row: InstanceRow,
    inbox: _Inbox,
    asked: Rewinding,
    catalogue: Catalogue,
    now: int,
) -> tuple[Kind, ExecutionRow]:
    """Return the execution that begins, with the state of the former one, and its kind."""
    require_opened(former.state, f"state of {asked.instance_id!r}, execution {former.number},")
    how = ResolvedBy.PIN if asked.pins else ResolvedBy.REWIND
    version = asked.version or former.version
    level = max(row.kind.level, resolution_level(catalogue, how))
    event_format = FORMAT if FORMAT in catalogue.library.formats else min(catalogue.library.formats)
    kind = kind_of(row.kind.queue, former.name, version, event_format, False, level)
    execution = ExecutionRow(
        number=row.execution + 1,
        name=former.name,
        version=version,
        resolution=Resolution(how, asked.by, policy_of(catalogue, former.name)[1]),
        state=former.state,
        state_version=former.state_version,
        state_shape=former.state_shape,
        created_at=now,
        traceparent=former.traceparent,
        request_id=asked.request_id,
        rewind=Rewind(asked.execution, inbox.undone),
    )
    return kind, execution


def _pin(following: ExecutionRow, asked: Rewinding, now: int) -> Pin | None:
    return Pin(following.version, now, asked.by, UserText(asked.reason)) if asked.pins else None


def _entry(following: ExecutionRow, asked: Rewinding) -> Record:
    detail = {
        "to": asked.execution,
        "execution": following.number,
        "version": following.version,
    }
    return Record(asked.by, "rewind", asked.instance_id, detail, UserText(asked.reason))


def _inbox(
    past: Past,
    rows: Sequence[ExecutionRow],
    record: InstanceRecord,
    asked: Rewinding,
    catalogue: Catalogue,
) -> Operation[_Inbox]:
    """Return what has to change, so that exactly what the state has not read is unread."""
    read: set[int] = set()
    undone = {row.number for row in rows}
    led: Container[int] = range(1, asked.execution)
    earliest = 1
    if any(row.rewind is not None for row in rows[1:]):
        # An earlier rewind has left a way, and this one may lead back to it.
        kept = yield from past.executions(1)
        begun = [row for row in kept if row.request_id is not None]
        earliest = kept[0].number
        led = way = lineage(asked.execution, begun, earliest)
        current = record.row.execution
        undone = {current} | lineage(current, begun, earliest) - way
        read = read_by(way, begun)
        rows = [row for row in kept if row.number >= asked.execution or row.number in undone]
    unread: list[MessageRow] = []
    if record.status is Status.OPEN and any(row.request_id is not None for row in rows[1:]):
        unread = yield from _unread(asked.instance_id)
    here = {message.sequence for message in unread}
    received, lost = yield from past.received(rows, record.row, catalogue)
    restored = {
        message.sequence: message
        for messages in received.values()
        for message in messages
        if message.sequence not in read
        and message.sequence not in here
        and _may_be_awaited(message, led, earliest)
    }
    return _Inbox(
        restored=tuple(restored[sequence] for sequence in sorted(restored)),
        removed=tuple(
            message.sequence
            for message in unread
            if message.sequence in read
            and message.kind is not MessageKind.REQUEST
            and message.aside is None
        ),
        undone=tuple(
            (number, tuple(message.sequence for message in messages))
            for number, messages in received.items()
            if number in undone
        ),
        lost=lost,
    )


def _unread(instance_id: str) -> Operation[list[MessageRow]]:
    """Return the unread events: an earlier rewind has put some back already."""
    messages: list[MessageRow] = []
    after = 0
    while True:
        page = yield from FindMessages(instance_id, after, _PAGE)
        messages += page
        if len(page) < _PAGE:
            return messages
        after = page[-1].sequence


def _may_be_awaited(message: MessageRow, led: Container[int], earliest: int) -> bool:
    """Return whether the state that begins again may read a message. It has a handle of a
    background child only if an execution that led to it has started the child.

    Args:
        led: the executions that led to the state, as far as they are known.
        earliest: the first of those that could be known.
    """
    if message.kind is not MessageKind.BACKGROUND_CHILD_ENDED:
        return True
    execution = int(message.message_id.rsplit("/", 2)[1])
    return execution in led or execution < earliest


def _children_since(row: InstanceRow, asked: Rewinding) -> Operation[tuple[ChildCancel, ...]]:
    """Return the cancels of the open children that the executions since then have started."""
    cancels: list[ChildCancel] = []
    query = InstanceQuery(parent=row.instance_id, statuses=(Status.OPEN,), limit=_PAGE)
    while True:
        found = yield from Find(query)
        for child in found:
            link = child.row.parent
            if (
                link is not None
                and link.incarnation == row.incarnation
                and link.execution >= asked.execution
            ):
                reason = UserText("its parent was rewound")
                cancels.append(ChildCancel(child.row.instance_id, link, reason))
        if len(found) < _PAGE:
            return tuple(cancels)
        query = replace(query, after=(found[-1].created_at, found[-1].row.instance_id))
