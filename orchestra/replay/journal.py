"""Compares what code asks for with what history says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from orchestra.errors import HistoryCorrupt, NewerLibraryNeeded, NondeterminismError
from orchestra.events import (
    ActivityScheduled,
    CancelSent,
    ChildAwaited,
    ChildStarted,
    CommandCancelled,
    CommandEvent,
    ContinuedAsNew,
    DetachedStarted,
    Event,
    EventAwaited,
    EventForms,
    EventRecord,
    EventSent,
    EventWriter,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    OnParentClose,
    Patched,
    RequestAwaited,
    TerminalEvent,
    TimerCreated,
    UnknownEvent,
    from_record,
    to_record,
)
from orchestra.replay.turns import Identity

__all__ = ["Drift", "Journal", "read_history"]

E = TypeVar("E", CommandEvent, TerminalEvent)


_MOST_DRIFTS: Final = 100
"""Drifts that are remembered of one execution."""


@dataclass(frozen=True, slots=True)
class Drift:
    """The code gives another value than the history, which counts.

    ``event`` describes event ``event_id`` of the history, ``difference`` the other value, and
    ``line`` says where the code asks.
    """

    event_id: int
    event: str
    difference: str
    line: str

    def __str__(self) -> str:
        return f"event {self.event_id}, {self.event}: {self.difference} at {self.line}"


class Journal:
    """The events of one execution. New ones are appended, and on replay compared.

    Args:
        writer: how new events are stored, in the format of the execution.
    """

    def __init__(self, writer: EventWriter) -> None:
        self.writer: EventWriter = writer
        self.replaying: bool = False
        self.count: int = 0
        self.size: int = 0
        self.fresh: list[EventRecord] = []
        self.drifts: tuple[Drift, ...] = ()
        """Where the code gave other values than the history."""
        self._recorded: list[tuple[Event, EventRecord]] = []
        """The events that are not repeated yet, the next one last."""
        self._marks: Collection[str] = ()
        """The patches whose marks the history has."""

    def load(self, events: Sequence[Event], records: Sequence[EventRecord]) -> None:
        """Begin a replay."""
        self._recorded = [*zip(events, records, strict=True)][::-1]
        marks = frozenset(event.patch for event in events if isinstance(event, Patched))
        self._marks = marks or ()
        self.replaying = True

    def next_recorded(self) -> Event | None:
        """Take the next recorded event, if there is one."""
        self._pass_marks()
        if not self._recorded:
            return None
        event, record = self._recorded.pop()
        self._count(record)
        return event

    @property
    def next_id(self) -> int:
        """The number of the next event."""
        if self._marks and self._recorded:
            # Marks that the code no longer asks for stand in between.
            for event, _ in reversed(self._recorded):
                if not isinstance(event, Patched):
                    return event.id
        return self.count + 1

    def append(self, event: Event) -> None:
        """Record a new event."""
        record = to_record(event, self.writer)
        self.fresh.append(record)
        self.count += 1
        self.size += len(record.envelope)
        if record.payload is not None:
            self.size += len(record.payload.data)

    def command(self, event: E, line: Callable[[], str]) -> E:
        """Record what the code asks for. On replay, return the recorded event, whose values count.

        Args:
            line: returns the line of code that asks, for errors.

        Raises:
            NondeterminismError: history says otherwise.
        """
        if not self.replaying:
            self.append(event)
            return event
        self._pass_marks()
        if not self._recorded:
            where = line()
            raise NondeterminismError(
                f"the code asks for {describe(event)} at {where}, where history had nothing more: "
                f"after event {self.count} the code waited",
                event_id=self.count,
                line=where,
            )
        expected, record = self._recorded[-1]
        difference = _difference(event, expected)
        if difference is not None:
            where = line()
            raise NondeterminismError(
                f"event {expected.id} of history is {describe(expected)}, but the code asks for "
                f"{describe(event)} at {where}: {difference}",
                event_id=expected.id,
                line=where,
            )
        drift = _drift(event, expected)
        if drift is not None and len(self.drifts) < _MOST_DRIFTS:
            self.drifts = (*self.drifts, Drift(expected.id, describe(expected), drift, line()))
        self._recorded.pop()
        self._count(record)
        assert isinstance(expected, type(event))
        return expected

    def gives_up(self, source: int) -> bool:
        """Return whether the next recorded event gives up this command."""
        recorded = (event for event, _ in reversed(self._recorded))
        event = next((event for event in recorded if not isinstance(event, Patched)), None)
        return isinstance(event, CommandCancelled) and event.source == source

    def has_mark(self, patch: str) -> bool:
        """Return whether the history that is repeated has the mark of a patch. Where the mark is
        next, it is counted, as it was when it was recorded.
        """
        if patch not in self._marks:
            return False
        for at in range(len(self._recorded) - 1, -1, -1):
            event, record = self._recorded[at]
            if not isinstance(event, Patched):
                break
            if event.patch == patch:
                del self._recorded[at]
                self._count(record)
                break
        return True

    def _pass_marks(self) -> None:
        """Pass marks that the code no longer asks for, or asks for in another order."""
        while self._marks and self._recorded and isinstance(self._recorded[-1][0], Patched):
            self._count(self._recorded.pop()[1])

    def take_fresh(self) -> tuple[EventRecord, ...]:
        """Return the new events since the last call."""
        fresh, self.fresh = self.fresh, []
        return tuple(fresh)

    def _count(self, record: EventRecord) -> None:
        self.count += 1
        self.size += record.size


def _difference(asked: Event, recorded: Event) -> str | None:
    """Return how the code asks for something else than the history. Values may differ; see
    :func:`_drift`.
    """
    if type(asked) is not type(recorded):
        return "another kind of event"
    match asked, recorded:
        case ActivityScheduled(), ActivityScheduled():
            return None if asked.name == recorded.name else "another activity"
        case (EventAwaited(), EventAwaited()) | (EventSent(), EventSent()):
            return None if asked.name == recorded.name else "another event name"
        case RequestAwaited(), RequestAwaited():
            return None if asked.name == recorded.name else "another request name"
        case ChildStarted(), ChildStarted() if _is_kept(asked) != _is_kept(recorded):
            return "another way to start a child"
        case (
            (ChildStarted(), ChildStarted())
            | (DetachedStarted(), DetachedStarted())
            | (ChildAwaited(), ChildAwaited())
        ):
            return None if asked.name == recorded.name else "another orchestration"
        case CommandCancelled(), CommandCancelled():
            return None if asked.source == recorded.source else "another command"
        case _:
            return None


def _is_kept(started: ChildStarted) -> bool:
    return started.on_parent_close is OnParentClose.KEEP


def _drift(asked: Event, recorded: Event) -> str | None:
    """Return which value of the code differs from the history."""
    match asked, recorded:
        case ActivityScheduled(), ActivityScheduled():
            return None if asked.arguments.data == recorded.arguments.data else "other arguments"
        case TimerCreated(), TimerCreated():
            return (
                None
                if asked.due == recorded.due
                else f"due {(asked.due - recorded.due) / 1e6:+g} s from the recorded time"
            )
        case (ChildStarted(), ChildStarted()) | (DetachedStarted(), DetachedStarted()):
            return _start_drift(asked, recorded)
        case ChildAwaited(), ChildAwaited():
            if asked.link == recorded.link:
                return None
            return f"child {asked.child_id!r} instead of {recorded.child_id!r}"
        case EventSent(), EventSent():
            if asked.target != recorded.target:
                return f"instance {asked.target!r} instead of {recorded.target!r}"
            return None if asked.payload.data == recorded.payload.data else "another payload"
        case CancelSent(), CancelSent():
            if asked.target != recorded.target:
                return f"instance {asked.target!r} instead of {recorded.target!r}"
            return None if asked.reason == recorded.reason else "another reason"
        case ExecutionCompleted(), ExecutionCompleted():
            return None if asked.output.data == recorded.output.data else "another output"
        case ContinuedAsNew(), ContinuedAsNew():
            if asked.version != recorded.version:
                return f"version {asked.version} instead of {recorded.version}"
            return None if asked.state.data == recorded.state.data else "another state"
        case _:
            return None


def _start_drift(
    asked: ChildStarted | DetachedStarted, recorded: ChildStarted | DetachedStarted
) -> str | None:
    if asked.child_id != recorded.child_id:
        return f"instance id {asked.child_id!r} instead of {recorded.child_id!r}"
    if asked.version != recorded.version:
        return f"version {asked.version} instead of {recorded.version}"
    if asked.input.data != recorded.input.data:
        return "another input"
    if isinstance(asked, ChildStarted) and isinstance(recorded, ChildStarted):
        was, now = recorded.on_parent_close, asked.on_parent_close
        if was != now:
            return f"on_parent_close {now.name.lower()} instead of {was.name.lower()}"
    return None


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def describe(event: Event) -> str:
    """Return an event in words, for errors."""
    match event:
        case ActivityScheduled():
            return f"activity {event.name!r}"
        case TimerCreated():
            return "a timer"
        case EventAwaited():
            return f"a wait for event {event.name!r}"
        case RequestAwaited():
            return f"a wait for request {event.name!r}"
        case ChildStarted():
            kind = "background child" if _is_kept(event) else "child"
            return f"{kind} {event.name!r} {event.child_id!r}"
        case ChildAwaited():
            return f"a wait for child {event.name!r} {event.child_id!r}"
        case DetachedStarted():
            return f"a detached start of {event.name!r} {event.child_id!r}"
        case EventSent():
            return f"event {event.name!r} for instance {event.target!r}"
        case CancelSent():
            return f"the cancel of instance {event.target!r}"
        case CommandCancelled():
            return f"cancelling event {event.source}"
        case Patched():
            return f"the mark of patch {event.patch!r}"
        case ExecutionFailed():
            return f"the end of the execution (execution_failed: {_shortened(str(event.error))})"
        case TerminalEvent():
            return f"the end of the execution ({event.kind.name.lower()})"
        case _:
            return event.kind.name.lower()


def read_history(
    identity: Identity, records: Sequence[EventRecord], forms: EventForms
) -> list[Event]:
    """Return the events of a stored history.

    Raises:
        HistoryCorrupt: no execution can have written it: it is empty, does not begin with Started,
            has a gap or a number twice, goes on after its end, or is another execution's.
        NewerLibraryNeeded: a newer library has written it, and this one cannot read it.
    """
    what = f"history of {identity.instance_id!r}, execution {identity.execution}"
    if not records:
        raise HistoryCorrupt(f"{what} is empty")
    events: list[Event] = []
    for expected_id, record in enumerate(records, start=1):
        if record.id != expected_id:
            kind = "twice or out of order" if record.id < expected_id else "after a gap"
            raise HistoryCorrupt(
                f"{what}: event {record.id} stands {kind}, where {expected_id} belongs",
                event_id=record.id,
            )
        event = from_record(record, forms)
        if isinstance(event, UnknownEvent):
            raise NewerLibraryNeeded(
                f"{what}: event {event.id} has an {event.what}", instance_id=identity.instance_id
            )
        if events and isinstance(events[-1], TerminalEvent):
            raise HistoryCorrupt(
                f"{what}: event {event.id} stands behind the end", event_id=event.id
            )
        if isinstance(event, ExecutionStarted) != (expected_id == 1):
            raise HistoryCorrupt(
                f"{what}: event {event.id} is {describe(event)}; only the first is Started",
                event_id=event.id,
            )
        if events and event.at < events[-1].at:
            raise HistoryCorrupt(
                f"{what}: event {event.id} is older than the one before", event_id=event.id
            )
        events.append(event)
    started = events[0]
    assert isinstance(started, ExecutionStarted)
    found = Identity(
        started.instance_id, started.incarnation, started.execution, started.name, started.version
    )
    if found != identity:
        raise HistoryCorrupt(
            f"{what} holds the events of another execution: {found} instead of {identity}",
            event_id=1,
        )
    return events
