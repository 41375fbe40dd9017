"""Every value of users that crosses the port, found by its type, and where each belongs.

Values of users stand in the fields of changes, rows and answers, under four types:

=====================  ===========================================================================
:class:`Payload`       states, arguments, results, events, heartbeats, custom status
:data:`Packed`         facts of the library's own that quote users: errors, attempts, schedules
:data:`UserText`       reasons and details, for people
``envelope``           of the events that tell of an error or of a reason, the whole envelope
=====================  ===========================================================================

:func:`convert_values` reaches them all, in whatever crosses the port, so that a codec that
compresses or encrypts has one place to stand at. A field with one of these types is reached because
of its type. Names, ids, labels and instants are no values of users: a store finds rows by them. Nor
are the summaries of waits, in which stores search: only the errors that they quote are.

The codec is also told the *place* of each value: the instance that it belongs to, and what it is of
that instance. A value has the same place when it is written and whenever it is read. So a value
that was moved is noticed. :data:`_PLACES` says the place of each field with a payload or packed
facts; a field without a line there is refused.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import (
    Any,
    Final,
    NamedTuple,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from orchestra.codec import Packed, Payload, Unopened, UserText, dump_json
from orchestra.events import EVENTS, EventForms, EventKind, EventRecord
from orchestra.store import (
    changes,
    executions,
    instances,
    messages,
    queries,
    requests,
    schedules,
    snapshots,
    streams,
    tasks,
)
from orchestra.store.audit import OperationRow, Record
from orchestra.store.kinds import MessageKind, Status

__all__ = ["QUOTING_EVENTS", "Place", "ValueCodec", "convert_values"]

T = TypeVar("T")
Item = tuple[str | int | None, ...]

QUOTING_EVENTS: Final = (
    EventKind.ACTIVITY_FAILED,
    EventKind.CHILD_FAILED,
    EventKind.CHILD_ENDED,
    EventKind.CANCEL_REQUESTED,
    EventKind.BOUNDARY_REQUESTED,
    EventKind.CANCEL_SENT,
    EventKind.EXECUTION_FAILED,
    EventKind.EXECUTION_CANCELLED,
    EventKind.EXECUTION_TERMINATED,
    EventKind.EXECUTION_REWOUND,
)
"""The events whose envelopes quote users."""


class Place(NamedTuple):
    """Where a value belongs: its instance, and what it is of that instance.

    ``item`` tells it from the other values of the instance: the state of execution 3, the payload
    of event 7 of execution 2, the message with an id, the output. ``execution`` is the execution
    around it; what depends on it says so in its item.
    """

    instance: str = ""
    item: Item = ()
    execution: int = 0

    @property
    def name(self) -> bytes:
        """Return the place as bytes; different places have different ones."""
        return dump_json([self.instance, *self.item])


class ValueCodec(Protocol):
    """Turns values of users into what is stored, or back."""

    def payload(self, payload: Payload, place: Place) -> Payload:
        """Convert a payload."""
        ...

    def packed(self, data: bytes, place: Place) -> bytes:
        """Convert facts that quote users. What is empty is the store's own, and stays empty."""
        ...

    def text(self, text: str, place: Place) -> str:
        """Convert a text for people."""
        ...

    def summary(self, data: bytes, place: Place) -> bytes:
        """Convert the errors that a summary of waits quotes."""
        ...


Convert = Callable[[Any, ValueCodec, Place], Any]
_TEXT: Final = "text"
NOWHERE: Final = Place()


def convert_values(
    thing: T, codec: ValueCodec, place: Place = NOWHERE, forms: EventForms = EVENTS
) -> T:
    """Return a change, a row or an answer with each value of users in it converted.

    What holds none is returned as it is.

    Args:
        place: what is known around it: the instance, say, whose history it is.
        forms: tell which stored events quote users.
    """
    convert = _conversion(cast("type[Any]", type(thing)), forms)
    return thing if convert is None else cast("T", convert(thing, codec, place))


# --- places -----------------------------------------------------------------------------------


def _instance(value: Any, place: Place) -> Place:
    return Place(value.instance_id, (), place.execution)


def _child(value: Any, _: Place) -> Place:
    return Place(value.child_id)


def _row(value: Any, _: Place) -> Place:
    return Place(value.row.instance_id, (), value.row.execution)


def _execution(value: Any, place: Place) -> Place:
    return Place(place.instance, (), value.number)


def _schedule(value: Any, _: Place) -> Place:
    return Place("", ("schedule", value.schedule_id))


def _schedule_row(value: Any, _: Place) -> Place:
    return Place("", ("schedule", value.row.schedule_id))


_AROUND: Final[Mapping[type[Any], Callable[[Any, Place], Place]]] = {
    changes.Append: _instance,
    changes.Cancel: _instance,
    changes.ChildCancel: _child,
    changes.ChildStart: _child,
    changes.Publish: _instance,
    changes.Report: lambda it, _: Place(it.instance_id, (), it.execution),
    changes.ScheduleWrite: _schedule,
    changes.Start: _instance,
    changes.Suspend: _instance,
    changes.Write: lambda it, _: Place(it.instance_id, (), it.state.execution),
    executions.ExecutionDelta: _execution,
    executions.ExecutionRow: _execution,
    instances.HeldRow: _instance,
    instances.InstanceRow: _instance,
    queries.InstanceRecord: _row,
    schedules.DueSchedule: _schedule_row,
    schedules.ScheduleRecord: _schedule_row,
    schedules.ScheduleRow: _schedule,
    snapshots.News: _instance,
    snapshots.Snapshot: _row,
    streams.StreamPage: lambda it, place: place._replace(
        item=("item", None if it.stream is None else it.stream.name)
    ),
    tasks.Task: lambda it, _: Place(it.instance_id, (), it.execution),
    Record: lambda it, _: Place(it.subject),
    OperationRow: lambda it, _: Place(it.subject),
}
"""What each value of the port tells of the place of what it holds."""


def _at(*item: str) -> Callable[[Any, Place], Place]:
    return lambda _, place: place._replace(item=item)


def _state_of(row: Any, place: Place) -> Place:
    # A start does not know its execution's number if it begins an ended instance again.
    made_by = row.number if row.request_id is None else row.request_id
    return place._replace(item=("state", made_by))


def _message_of(message: Any, place: Place) -> Place:
    """Return the place of a message's payload. The end of a child stays where the child has put
    it: the store itself copies it.
    """
    kind = message.kind
    if kind in _SENT:
        return place._replace(item=("message", message.message_id, message.name))
    if kind is MessageKind.BACKGROUND_CHILD_ENDED:
        completed = message.source == Status.COMPLETED.value
    elif kind in _ENDS:
        completed = kind is MessageKind.CHILD_COMPLETED
    else:
        return place._replace(item=("receipt", message.message_id))
    return Place(message.name, _OUTPUT if completed else _ERROR)


_SENT: Final = {MessageKind.EVENT, MessageKind.REQUEST}
_ENDS: Final = {
    MessageKind.CHILD_COMPLETED,
    MessageKind.CHILD_FAILED,
    MessageKind.CHILD_CANCELLED,
    MessageKind.CHILD_TERMINATED,
}
_OUTPUT: Final = ("end", "output")
_ERROR: Final = ("end", "error")


def _of_activity(field: str) -> Callable[[Any, Place], Place]:
    """Return what tells the place of a field of an activity; ``execution`` is the row's own, if it
    has one.
    """
    return lambda it, place: place._replace(
        item=("activity", getattr(it, "execution", place.execution), it.event_id, field)
    )


def _of_answer(field: str) -> Callable[[Any, Place], Place]:
    return lambda it, place: place._replace(item=("answer", it.request_id, field))


def _of_item(it: Any, place: Place) -> Place:
    stream = getattr(it, "stream", None) or place.item[1]
    return place._replace(item=("item", stream, it.execution, it.event_id, it.attempt, it.at))


def _of_schedule(field: str) -> Callable[[Any, Place], Place]:
    return lambda _, place: place._replace(item=(*place.item, field))


_PLACES: Final[Mapping[tuple[type[Any], str], Callable[[Any, Place], Place]]] = {
    (changes.Append, "payload"): lambda it, place: place._replace(
        item=("message", it.message_id, it.name)
    ),
    (changes.ChildStart, "refusal"): _at(*_ERROR),
    (changes.Report, "result"): _of_activity("result"),
    (changes.Report, "failure"): _of_activity("failure"),
    (changes.Report, "heartbeat"): _of_activity("heartbeat"),
    (changes.Stop, "failure"): _of_activity("failure"),
    (changes.WriteExtras, "custom_status"): _at("status"),
    (executions.Closing, "output"): _at(*_OUTPUT),
    (executions.Closing, "error"): _at(*_ERROR),
    (executions.ExecutionRow, "state"): _state_of,
    (executions.ExecutionRow, "output"): _at(*_OUTPUT),
    (executions.ExecutionRow, "error"): _at(*_ERROR),
    (instances.Hold, "error"): _at("hold"),
    (instances.InstanceState, "summary"): _at("summary"),
    (messages.MessageRow, "payload"): _message_of,
    (queries.InstanceRecord, "custom_status"): _at("status"),
    (queries.InstanceRecord, "summary"): _at("summary"),
    (requests.RequestAnswer, "value"): _of_answer("value"),
    (requests.RequestAnswer, "rejection"): _of_answer("rejection"),
    (schedules.ScheduleRow, "definition"): _of_schedule("definition"),
    (schedules.ScheduleRow, "state"): _of_schedule("state"),
    (schedules.ScheduleRow, "value"): _of_schedule("value"),
    (schedules.SlotRow, "reason"): _of_schedule("reason"),
    (snapshots.Snapshot, "summary"): _at("summary"),
    (streams.Published, "payload"): _of_item,
    (streams.StreamItemRow, "payload"): _of_item,
    (tasks.ActivityRow, "attempts"): _of_activity("attempts"),
    (tasks.ActivityRow, "heartbeat"): _of_activity("heartbeat"),
    (tasks.ActivityRow, "result"): _of_activity("result"),
    (tasks.ActivityRow, "failure"): _of_activity("failure"),
    (tasks.Task, "heartbeat"): _of_activity("heartbeat"),
}
"""Where the value in a field belongs. A text that has no line belongs to its instance: the store
copies such texts from a change to a mark, a hold or the audit.
"""

_SUMMARIES: Final = {
    (instances.InstanceState, "summary"),
    (queries.InstanceRecord, "summary"),
    (snapshots.Snapshot, "summary"),
}


# --- conversions ------------------------------------------------------------------------------


@lru_cache(maxsize=1_024)
def _conversion(kind: Any, forms: EventForms) -> Convert | None:
    """Return what converts values of a type; ``None``: they hold none of users."""
    if kind in {Payload, Unopened}:
        return lambda value, codec, place: codec.payload(value, place)
    if kind is Packed:
        return lambda value, codec, place: codec.packed(value, place)
    if kind is UserText:
        return lambda value, codec, place: codec.text(value, place)
    if kind is EventRecord:
        return _of_event(forms)
    if hasattr(kind, "__dataclass_fields__"):
        names = [field.name for field in dataclasses.fields(kind)]
        return _of_fields(kind, names, forms, dataclasses.replace)
    if hasattr(kind, "_fields"):
        return _of_fields(kind, list(kind._fields), forms, _replace_in_tuple)
    if get_origin(kind) is Callable:
        return _of_function(_conversion(get_args(kind)[-1], forms))
    if get_origin(kind) in {Union, types.UnionType}:
        return _of_union([part for part in get_args(kind) if part is not type(None)], forms)
    return _of_container(kind, forms)


def _of_event(forms: EventForms) -> Convert:
    quoting = frozenset(forms.kinds.forms(*QUOTING_EVENTS))

    def convert(record: EventRecord, codec: ValueCodec, place: Place) -> EventRecord:
        quotes = record.kind in quoting
        if record.payload is None and not quotes:
            return record
        own = place._replace(item=("event", place.execution, record.id, "payload"))
        payload = None if record.payload is None else codec.payload(record.payload, own)
        envelope = record.envelope
        if quotes:
            own = place._replace(item=("event", place.execution, record.id, "envelope"))
            envelope = codec.packed(envelope, own)
        return dataclasses.replace(record, envelope=envelope, payload=payload)

    return convert


def _of_function(inner: Convert | None) -> Convert | None:
    """Return what converts a function: its answers are converted."""
    if inner is None:
        return None

    def convert(
        function: Callable[..., Any], codec: ValueCodec, place: Place
    ) -> Callable[..., Any]:
        return lambda *arguments: inner(function(*arguments), codec, place)

    return convert


def _replace_in_tuple(value: Any, **new: Any) -> Any:
    return value._replace(**new)


def _of_fields(
    kind: Any, names: list[str], forms: EventForms, replace: Callable[..., Any]
) -> Convert | None:
    hints = get_type_hints(kind)
    fields = [(name, _of_field(kind, name, hints[name], forms)) for name in names]
    reached = [(name, convert) for name, convert in fields if convert is not None]
    if not reached:
        return None
    around = _AROUND.get(kind)

    def convert(value: Any, codec: ValueCodec, place: Place) -> Any:
        if around is not None:
            place = around(value, place)
        new: dict[str, Any] = {}
        for name, convert_field in reached:
            old = getattr(value, name)
            if old is not None and (made := convert_field((value, old), codec, place)) is not old:
                new[name] = made
        return replace(value, **new) if new else value

    return convert


def _of_field(kind: Any, name: str, hint: Any, forms: EventForms) -> Convert | None:
    """Return what converts a field. It is given the whole value and the field's."""
    inner = _conversion(hint, forms)
    if inner is None:
        return None
    leaf = [part for part in (get_args(hint) or (hint,)) if part is not type(None)]
    if leaf not in ([Payload], [Packed], [UserText]):
        return lambda both, codec, place: inner(both[1], codec, place)
    where = _PLACES.get((kind, name))
    if where is None:
        if leaf != [UserText]:
            raise TypeError(f"no place is known for {kind.__name__}.{name}")
        return lambda both, codec, place: inner(both[1], codec, place._replace(item=(_TEXT,)))
    if (kind, name) in _SUMMARIES:
        return lambda both, codec, place: codec.summary(both[1], where(both[0], place))
    return lambda both, codec, place: inner(both[1], codec, where(both[0], place))


def _of_union(parts: list[Any], forms: EventForms) -> Convert | None:
    """Return what converts one of several types: by the type that the value really has, where they
    are classes.
    """
    if len(parts) == 1:
        return _conversion(parts[0], forms)
    if all(_conversion(part, forms) is None for part in parts):
        return None
    plain = [part for part in parts if part not in {Packed, UserText}]
    if len(plain) < len(parts):
        raise TypeError(f"which of {parts} a value is cannot be told at run time")

    def convert(value: Any, codec: ValueCodec, place: Place) -> Any:
        of_its_type = _conversion(cast("type[Any]", type(value)), forms)
        return value if of_its_type is None else of_its_type(value, codec, place)

    return convert


def _of_container(kind: Any, forms: EventForms) -> Convert | None:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is tuple and parts[-1] is not Ellipsis:
        return _of_pair(parts, [_conversion(part, forms) for part in parts])
    if origin in {tuple, list}:
        inner = _conversion(parts[0], forms)
        return None if inner is None else _of_items(inner, cast("Any", origin))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inner = _conversion(parts[1], forms)
        if inner is not None:
            return lambda value, codec, place: {
                key: inner(item, codec, place) for key, item in value.items()
            }
    return None


def _of_items(inner: Convert, make: Callable[[Any], Any]) -> Convert:
    def convert(value: Any, codec: ValueCodec, place: Place) -> Any:
        return make([inner(item, codec, place) for item in value]) if value else value

    return convert


def _of_pair(parts: tuple[Any, ...], converts: list[Convert | None]) -> Convert | None:
    """Return what converts a tuple whose parts have types of their own. A text in front is the id
    of the instance that the rest concerns.
    """
    if not any(converts):
        return None
    names_instance = parts[0] is str

    def convert(value: Any, codec: ValueCodec, place: Place) -> Any:
        around = Place(value[0]) if names_instance else place
        both = zip(converts, value, strict=True)
        return tuple(part if one is None else one(part, codec, around) for one, part in both)

    return convert
