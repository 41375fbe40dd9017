"""The basis of a decision: what a group must lock and read, and what was read.

A provider locks first and reads afterwards: the ids of new instances, then the rows in the order of
their ids, then all else (protocol rules 7 and 41).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from orchestra.events import OnParentClose
from orchestra.levels import Unknown
from orchestra.store.changes import (
    NO_EXTRAS,
    Append,
    Change,
    Claim,
    Publish,
    Report,
    ScheduleWrite,
    Start,
    Write,
    WriteExtras,
)
from orchestra.store.hot_row import HotRow
from orchestra.store.inbox_limits import InboxLimits, Waiting
from orchestra.store.instances import ParentLink
from orchestra.store.kinds import Status
from orchestra.store.messages import MessageRow
from orchestra.store.requests import RequestRow
from orchestra.store.routes import Kind
from orchestra.store.schedules import ScheduleFence
from orchestra.store.tasks import ActivityRow

__all__ = [
    "ActivityId",
    "Address",
    "Addressee",
    "AttemptId",
    "ChildLink",
    "ExecutionId",
    "Facts",
    "InboxName",
    "Needs",
    "activities_named",
    "kinds_written",
]

C = TypeVar("C", bound=Change)


class ExecutionId(NamedTuple):
    """One execution of an instance."""

    instance_id: str
    execution: int


class ActivityId(NamedTuple):
    """One activity of an execution."""

    instance_id: str
    execution: int
    event_id: int


class AttemptId(NamedTuple):
    """One attempt of an activity."""

    activity: ActivityId
    attempt: int

    @classmethod
    def of(cls, change: Publish) -> AttemptId:
        """Return the attempt that publishes."""
        key = ActivityId(change.instance_id, change.execution, change.event_id)
        return cls(key, change.attempt)


class InboxName(NamedTuple):
    """The messages of one name in one inbox."""

    instance_id: str
    name: str


class Address(NamedTuple):
    """One message of an inbox, by the id that its sender gave it."""

    instance_id: str
    message_id: str


class ChildLink(NamedTuple):
    """An instance's parent, and what happens to it when the parent's execution closes."""

    parent: ParentLink
    on_close: OnParentClose | Unknown


@dataclass(frozen=True, slots=True)
class Addressee:
    """The stored state of an appended message: it waits unread, or it was removed, with its number
    and time.
    """

    unread: MessageRow | None = None
    removed_as: int | None = None
    removed_at: int = 0


@dataclass(slots=True)
class Facts:
    """The stored rows of everything that a group names, read under its locks.

    ``requests`` are the request ids of existing instances, and ``names`` are their orchestrations.
    ``former_requests`` are the requests of their executions: of former lives and of rewinds.
    ``made`` are the ids that this group has made, or may make: no other transaction can. ``whole``
    and ``named`` are counts of inboxes, if the limits needed them. ``consumed`` are names and sizes
    of events that the group consumes from inboxes it also sends to. ``schedules`` are the fences of
    schedules. ``asked`` are stored requests that the group sends again.
    """

    rows: dict[str, HotRow] = field(default_factory=lambda: {})
    made: set[str] = field(default_factory=set[str])
    requests: dict[str, str] = field(default_factory=lambda: {})
    names: dict[str, str] = field(default_factory=lambda: {})
    former_requests: dict[str, set[str]] = field(default_factory=lambda: {})
    links: dict[str, ChildLink] = field(default_factory=lambda: {})
    traces: dict[str, str | None] = field(default_factory=lambda: {})
    addressees: dict[Address, Addressee] = field(default_factory=lambda: {})
    whole: dict[str, Waiting] = field(default_factory=lambda: {})
    named: dict[InboxName, Waiting] = field(default_factory=lambda: {})
    consumed: dict[tuple[str, int], tuple[str, int]] = field(default_factory=lambda: {})
    activities: dict[ActivityId, ActivityRow] = field(default_factory=lambda: {})
    published: dict[AttemptId, int] = field(default_factory=lambda: {})
    schedules: dict[str, ScheduleFence] = field(default_factory=lambda: {})
    asked: dict[Address, RequestRow] = field(default_factory=lambda: {})


_NAMED_ELSEWHERE: Final = (Claim, Start, ScheduleWrite)
_OF_ATTEMPTS: Final = (Report, Publish)


class Needs:
    """The facts that a group needs to be decided.

    Attributes:
        candidates: for each new id, the first start that asks for it.
        rows: the ids whose rows are locked, sorted. Parents of ``ending`` instances and children of
            ``closing`` executions are locked with them.
        concerns_others: whether a write may affect other instances; if not, there is no family to
            read.
        ending: instances that end, and send this to their parents.
        closing: closing executions, whose children get marks.
        traced: executions whose traces the ends of children carry.
        appends: the messages, those of starts among them. ``asked`` are the requests among them.
        starts: all starts of the group.
        standing: starts that may concern an existing instance with their id.
        consumed: messages that writes consume from inboxes that the group also sends to, by
            instance and number.
        restored: messages that operators' writes put back, with their instances.
        rooms: the names that the group sends to, with the senders' limits.
        activities: those that reports, stops and published items name.
        published: attempts that publish items.
        schedules: the writes of schedules. Their rows are locked before those of instances.
    """

    def __init__(self, changes: Mapping[int, Change]) -> None:
        by_type = _by_type(changes.values())
        writes = _of(by_type, Write)
        family = [write for write in writes if write.concerns_others]
        uncommon = [write for write in writes if write.extras is not NO_EXTRAS]
        starts = [
            child.start
            for write in uncommon
            for child in write.extras.starts
            if child.start is not None
        ]
        starts += _of(by_type, Start)
        self.schedules: list[ScheduleWrite] = _of(by_type, ScheduleWrite)
        for schedule in self.schedules:
            starts += schedule.starts
        self.starts: list[Start] = starts
        self.candidates: dict[str, Start] = {start.instance_id: start for start in reversed(starts)}
        self.standing: list[Start] = [start for start in starts if start.concerns_standing]
        self.concerns_others: bool = bool(family)
        begun = {
            start.instance_id: start.incarnation for start in starts if start.owner is not None
        }
        named = {
            change.instance_id
            for change in changes.values()
            if not isinstance(change, _NAMED_ELSEWHERE)
            and not (
                # The first turn of an instance that the group makes, and of nothing else.
                begun
                and isinstance(change, Write)
                and begun.get(change.instance_id) == change.incarnation
            )
        }
        named.update(one for schedule in self.schedules for one in schedule.instance_ids)
        named.update(start.instance_id for start in self.standing)
        if family:
            named.update(self.candidates)
            for extras in (write.extras for write in family):
                named.update(child.child_id for child in (*extras.starts, *extras.cancels))
                named.update(send.message.instance_id for send in extras.sends)
                named.update(child.parent.instance_id for child in extras.starts)
        self.rows: list[str] = sorted(named)
        self.ending: list[str] = [
            write.instance_id for write in family if write.state.status is not Status.OPEN
        ]
        self.closing: list[ExecutionId] = [
            ExecutionId(write.instance_id, number)
            for write in family
            for number in write.closed_with_children
        ]
        self.traced: list[ExecutionId] = (
            [ExecutionId(write.instance_id, write.state.execution) for write in writes]
            if family
            else []
        )
        self.appends: list[Append] = [
            *_of(by_type, Append),
            *(event for schedule in self.schedules for event in schedule.appends),
            *(event for start in self.standing for event in start.events),
            *(
                event
                for write in uncommon
                if write.extras.restart is not None
                for event in write.extras.restart.events
            ),
            *(
                send.message
                for write in family
                for send in write.extras.sends
                if isinstance(send.message, Append)
            ),
        ]
        addressed = {append.instance_id for append in self.appends}
        self.consumed: list[tuple[str, int]] = [
            (write.instance_id, one)
            for write in writes
            if write.instance_id in addressed
            for one in (*write.consumed, *(answer.sequence for answer in write.extras.answers))
        ]
        self.asked: list[Append] = [append for append in self.appends if append.asks]
        self.restored: list[tuple[str, MessageRow]] = [
            (write.instance_id, message) for write in uncommon for message in write.extras.restored
        ]
        names = (
            (InboxName(append.instance_id, append.name), append.limits) for append in self.appends
        )
        self.rooms: Sequence[tuple[InboxName, InboxLimits]] = list(dict.fromkeys(names))
        self.published: list[AttemptId] = list(
            dict.fromkeys(map(AttemptId.of, _of(by_type, Publish)))
        )
        self.activities: list[ActivityId] = list(dict.fromkeys(activities_named(changes.values())))

    @property
    def coming(self) -> Mapping[str, Waiting]:
        """The messages of the group for each inbox."""
        coming: dict[str, Waiting] = {}
        for append in self.appends:
            coming[append.instance_id] = coming.get(append.instance_id, Waiting()).plus(
                len(append.payload.data)
            )
        for instance_id, message in self.restored:
            if instance_id in coming and message.is_sent:
                coming[instance_id] = coming[instance_id].plus(len(message.payload.data))
        return coming


def activities_named(changes: Iterable[Change]) -> Iterator[ActivityId]:
    """Yield the activities that a group's reports, stops and published items name."""
    for change in changes:
        if isinstance(change, _OF_ATTEMPTS):
            yield ActivityId(change.instance_id, change.execution, change.event_id)
        elif isinstance(change, Write) and change.extras is not NO_EXTRAS:
            for stop in change.extras.stops:
                yield ActivityId(change.instance_id, change.state.execution, stop.event_id)


def kinds_written(changes: Iterable[Change]) -> list[Kind]:
    """Return the kinds whose numbers a group writes."""
    kinds: list[Kind] = []
    for change in changes:
        if isinstance(change, Write):
            kinds.append(change.state.kind)
            if change.extras is not NO_EXTRAS:
                kinds += _kinds_started(change.extras)
        elif isinstance(change, Start):
            kinds.append(change.kind)
        elif isinstance(change, ScheduleWrite):
            kinds += [start.kind for start in change.starts]
    return kinds


def _kinds_started(extras: WriteExtras) -> list[Kind]:
    kinds = [child.start.kind for child in extras.starts if child.start is not None]
    return kinds if extras.restart is None else [*kinds, extras.restart.kind]


def _by_type(changes: Iterable[Change]) -> Mapping[type[Any], list[Any]]:
    found: dict[type[Any], list[Any]] = {}
    for change in changes:
        found.setdefault(type(change), []).append(change)
    return found


def _of(by_type: Mapping[type[Any], list[Any]], kind: type[C]) -> list[C]:
    return by_type.get(kind, [])
