"""Read a whole store and check the invariants, for the tests of services and for the library's
own.

::

    report = check_store(SqliteProvider("app.db"), registry)
    report.raise_if_violated()

It reads everything through the provider's directory, so it works on every store. It does not find
what a directory cannot show, such as orphan rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from orchestra.codec import unpack
from orchestra.context import Limits
from orchestra.errors import OrchestraError, StoreError
from orchestra.events import (
    ActivityCompleted,
    ActivityFailedEvent,
    ActivityScheduled,
    BoundaryRequested,
    CancelRequested,
    CancelSent,
    ChildAwaited,
    ChildCompleted,
    ChildEnded,
    ChildFailedEvent,
    ChildStarted,
    CommandCancelled,
    CommandEvent,
    ContinuedAsNew,
    Event,
    EventAwaited,
    EventForms,
    EventReceived,
    EventRecord,
    EventSent,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionTerminated,
    OnParentClose,
    Patched,
    RequestAwaited,
    RequestReceived,
    SendDelivered,
    SendRefused,
    TerminalEvent,
    TimerCreated,
    TimerFired,
    UnknownEvent,
    error_from_wire,
    from_record,
    incarnation_of,
)
from orchestra.levels import Unknown
from orchestra.payloads import Pipeline, SealingProvider, with_payloads
from orchestra.portable import Portable
from orchestra.registry import OrchestrationRegistry
from orchestra.replay import Drift, Execution, Identity
from orchestra.replay.journal import describe, read_history
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import ParentLink
from orchestra.store.kinds import ExecutionEnd, Library, ResolvedBy, Status
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery, InstanceRecord
from orchestra.store.routes import Kind
from orchestra.summary import BOUNDARY_REQUEST, read_summary
from orchestra.testing.background_checks import background_problems
from orchestra.testing.request_checks import request_problems
from orchestra.testing.schedule_checks import find_schedule_faults
from orchestra.testing.stream_checks import find_left_journals, find_stream_faults

__all__ = [
    "InvariantsViolated",
    "Report",
    "StoredDrift",
    "StoredUnknown",
    "Violation",
    "check_store",
]

_PAGE: Final = 200
_TRIES: Final = 5
_SHOWN: Final = 50

_DRIFT: Final = 1_000_000
"""Microseconds by which the machine's wall clock may be corrected while a node uses its monotonic
one.
"""

_DELAYING_TAKEOVERS: Final = 3
"""From this number of take-overs on an instance waits, even if it is due (protocol rule 14)."""

_ENDS: Final[Mapping[type[TerminalEvent], ExecutionEnd]] = {
    ExecutionCompleted: ExecutionEnd.COMPLETED,
    ExecutionFailed: ExecutionEnd.FAILED,
    ExecutionCancelled: ExecutionEnd.CANCELLED,
    ExecutionTerminated: ExecutionEnd.TERMINATED,
    ExecutionRewound: ExecutionEnd.REWOUND,
    ContinuedAsNew: ExecutionEnd.CONTINUED_AS_NEW,
}

_PENDING: Final = (
    ActivityScheduled,
    TimerCreated,
    EventAwaited,
    ChildStarted,
    RequestAwaited,
    ChildAwaited,
)
"""The commands that wait for an end."""

_GOES_ON: Final = (ExecutionEnd.CONTINUED_AS_NEW, ExecutionEnd.REWOUND)
"""The ends of an execution that another one follows."""

_UNRUN_ENDS: Final = {ExecutionEnd.CANCELLED, ExecutionEnd.TERMINATED, ExecutionEnd.REWOUND}
"""The ends of an execution that never ran: from outside only."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One violated invariant. ``invariant`` is its number, from I1 to I16."""

    invariant: str
    problem: str
    instance_id: str
    execution: int | None = None
    event_id: int | None = None

    def __str__(self) -> str:
        place = f"instance {self.instance_id!r}"
        if self.execution is not None:
            place += f", execution {self.execution}"
        if self.event_id is not None:
            place += f", event {self.event_id}"
        return f"{self.invariant}: {place}: {self.problem}"


@dataclass(frozen=True, slots=True)
class StoredDrift:
    """A value of the present code differs from the history's. It is no fault: the recorded value
    counts.

    ``drift`` names the event, the difference and the line of code.
    """

    instance_id: str
    execution: int
    drift: Drift

    def __str__(self) -> str:
        return f"instance {self.instance_id!r}, execution {self.execution}, {self.drift}"


@dataclass(frozen=True, slots=True)
class StoredUnknown:
    """An instance has rows that only a newer library knows. That is no fault; the instance was not
    checked.
    """

    instance_id: str
    what: Unknown

    def __str__(self) -> str:
        return f"instance {self.instance_id!r}: {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check.

    ``histories`` are the executions whose events are kept; ``replayed`` of them were replayed.
    ``unsettled`` are instances that could not be checked because they changed all the time; a store
    at rest has none.
    """

    violations: tuple[Violation, ...]
    instances: int
    executions: int
    histories: int
    events: int
    replayed: int
    unsettled: tuple[str, ...] = ()
    drift: tuple[StoredDrift, ...] = ()
    """Values of the registry's code that differ from the replayed histories."""
    unknown: tuple[StoredUnknown, ...] = ()
    """Instances that only a newer library can judge."""

    def raise_if_violated(self) -> None:
        """Do nothing if all is well.

        Raises:
            InvariantsViolated: there are violations.
        """
        if self.violations:
            raise InvariantsViolated(self)

    def __str__(self) -> str:
        looked = (
            f"{self.instances:,} instances, {self.executions:,} executions, {self.histories:,} "
            f"histories with {self.events:,} events ({self.replayed:,} replayed): "
            f"{len(self.violations)} violations"
        )
        lines = [looked, *map(str, self.violations[:_SHOWN])]
        if len(self.violations) > _SHOWN:
            lines.append(f"... and {len(self.violations) - _SHOWN} more")
        if self.drift:
            lines.append(
                f"{len(self.drift)} values that code gives otherwise now; what was recorded counts:"
            )
            lines += map(str, self.drift[:_SHOWN])
        if self.unknown:
            lines.append(f"{len(self.unknown)} instances that only a newer library can judge:")
            lines += map(str, self.unknown[:_SHOWN])
        return "\n".join(lines)


class InvariantsViolated(Portable, AssertionError):
    """A store violates invariants. ``report`` lists the violations."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


def check_store(
    provider: Provider,
    registry: OrchestrationRegistry | None = None,
    *,
    quiescent: bool = True,
    limits: Limits | None = None,
    payloads: Pipeline | None = None,
) -> Report:
    """Check every instance of a store.

    It checks the order and completeness of histories (I2) and executions (I3), and that columns
    agree with histories (I4). Every result must answer one command (I5), no timer may be early
    (I7), and events must be delivered in order (I8). With a registry it replays every kept history
    (I10), and lists differing values as drift. If nothing runs, the end of each child must have
    reached the execution that waits for it, once (I5), and no other one (I9). The offsets of each
    stream have no gap and no double (I16), and no journal outlives its activity (I9). No slot of a
    schedule has two instances, or two outcomes (I14).

    Args:
        provider: the store; it is opened meanwhile.
        registry: the code to replay with; histories of versions that it lacks are not replayed, nor
            those that are held.
        quiescent: nothing runs on the store now. Then no instance may have an owner (I9), and every
            open one must wait for something that will wake it (I11).
        limits: the limits of the executions, if they were not the default ones.
        payloads: the pipeline, if values are sealed: sealed ones cannot be compared.
    """
    provider = with_payloads(provider, payloads)
    provider.open()
    try:
        return _Inspection(provider, registry, limits or Limits(), quiescent=quiescent).run()
    finally:
        provider.close()


@dataclass(frozen=True, slots=True)
class _Instance:
    """All facts about one instance, in one snapshot."""

    record: InstanceRecord
    rows: tuple[ExecutionRow, ...]
    records: Mapping[int, list[EventRecord]]
    forms: EventForms

    @property
    def instance_id(self) -> str:
        return self.record.row.instance_id

    def identity(self, row: ExecutionRow) -> Identity:
        incarnation = self.record.row.incarnation
        if row.number < self.life_began:
            incarnation = incarnation_of(self.records[row.number], self.forms) or incarnation
        return Identity(self.instance_id, incarnation, row.number, row.name, row.version)

    @property
    def lives(self) -> set[int]:
        """The numbers of the executions that begin an ended instance again."""
        return {row.number for before, row in pairwise(self.rows) if _begins_a_life(before, row)}

    @property
    def life_began(self) -> int:
        """The number of the execution with which its present life began; 0: its first life."""
        return max(self.lives, default=0)


class _Findings:
    """Violations of one instance."""

    def __init__(self, instance_id: str) -> None:
        self._instance_id = instance_id
        self.violations: list[Violation] = []

    def add(
        self,
        invariant: str,
        problem: str,
        execution: int | None = None,
        event_id: int | None = None,
    ) -> None:
        self.violations.append(
            Violation(invariant, problem, self._instance_id, execution, event_id)
        )


class _Inspection:
    """Goes through a store once, and counts."""

    def __init__(
        self,
        provider: Provider,
        registry: OrchestrationRegistry | None,
        limits: Limits,
        *,
        quiescent: bool,
    ) -> None:
        self._directory = provider.directory
        sealed = provider.inner if isinstance(provider, SealingProvider) else provider
        self._stored = sealed.directory
        """What counts bytes as they are stored."""
        self._library = provider.library
        self._unknown: list[StoredUnknown] = []
        self._registry = registry
        self._limits = limits
        self._quiescent = quiescent
        self._violations: list[Violation] = []
        self._unsettled: list[str] = []
        self._drift: list[StoredDrift] = []
        self._counted: Counter[tuple[Kind, Status | Unknown, bool]] = Counter()
        self._instances = self._executions = self._histories = self._events = self._replayed = 0

    def run(self) -> Report:
        for instance_id in self._instance_ids():
            found = _Findings(instance_id)
            self._instances += 1
            try:
                self._check(instance_id, found)
            except StoreError:
                raise  # the store cannot be read now; that says nothing about its contents
            except Exception as error:  # noqa: BLE001 - one damaged instance must not hide the others
                found.add("I13", f"it cannot be read: {type(error).__name__}: {error}")
            self._violations.extend(found.violations)
        for schedule_id, problem in find_schedule_faults(self._directory):
            self._violations.append(
                Violation("I14", f"schedule {schedule_id!r}: {problem}", schedule_id)
            )
        if self._quiescent:
            self._check_tally()
        return Report(
            tuple(self._violations),
            self._instances,
            self._executions,
            self._histories,
            self._events,
            self._replayed,
            tuple(self._unsettled),
            tuple(self._drift),
            tuple(self._unknown),
        )

    def _check_tally(self) -> None:
        """The numbers that the store keeps are those of its rows."""
        told = {(row.kind, row.status, row.held): row.number for row in self._directory.tally()}
        if told != self._counted:
            problem = f"the store counts {told}, and its rows are {dict(self._counted)}"
            self._violations.append(Violation("I4", problem, ""))

    # --- reading ---

    def _instance_ids(self) -> Iterator[str]:
        after: tuple[int, str] | None = None
        while True:
            page = self._directory.list(InstanceQuery(limit=_PAGE, after=after))
            self._counted.update((one.row.kind, one.status, one.held) for one in page)
            yield from (record.row.instance_id for record in page)
            if len(page) < _PAGE:
                return
            after = (page[-1].created_at, page[-1].row.instance_id)

    def _read(self, instance_id: str) -> _Instance | None:
        """Return a snapshot of an instance; ``None`` if it changes all the time, or was deleted."""
        for _ in range(_TRIES):
            before = self._directory.get(instance_id)
            if before is None:
                return None
            rows = tuple(self._rows(instance_id))
            first, last = (rows[0].number, rows[-1].number) if rows else (1, 0)
            numbers = range(
                max(1, first - 1), last + 2
            )  # one more on both sides, which must be empty
            records = {number: self._directory.history(instance_id, number) for number in numbers}
            if self._directory.get(instance_id) == before:
                return _Instance(before, rows, records, self._library.events)
        return None

    def _rows(self, instance_id: str) -> Iterator[ExecutionRow]:
        after = 0
        while page := self._directory.executions(instance_id, after, _PAGE):
            yield from page
            after = page[-1].number

    # --- checking ---

    def _check(self, instance_id: str, found: _Findings) -> None:
        instance = self._read(instance_id)
        if instance is None:
            self._unsettled.append(instance_id)
            if self._quiescent:
                found.add("I9", "it changes although nothing runs")
            return
        unknown = _unknown(instance, self._library)
        if unknown is not None:
            self._unknown.append(StoredUnknown(instance_id, unknown))
            return
        _check_executions(instance, found)
        _check_retention(instance, found)
        _check_columns(instance, found)
        histories = self._read_histories(instance, found)
        for row in instance.rows:
            events = histories.get(row.number)
            if events is not None:
                _check_end(instance, row, events, found)
                _check_commands(instance, row, events, found)
        _check_boundaries(instance, histories, found)
        _check_messages(instance, histories, found)
        for invariant, problem, number, event_id in request_problems(
            self._directory, instance.record, histories
        ):
            found.add(invariant, problem, number, event_id)
        for invariant, problem, number, event_id in background_problems(
            self._directory, instance.record, histories, quiescent=self._quiescent
        ):
            found.add(invariant, problem, number, event_id)
        _check_activities(instance, histories, found)
        for fault in find_stream_faults(self._stored, instance_id, quiescent=self._quiescent):
            found.add("I16", fault)
        current = histories.get(instance.record.row.execution)
        if self._quiescent:
            self._check_journals(instance, current, found)
            _check_rest(instance, current, found)
            self._check_children(instance, current, found)
            self._check_told(instance.record, found)
        if self._registry is not None:
            for number, events in histories.items():
                self._check_replay(instance, number, events, found)

    def _check_journals(
        self, instance: _Instance, current: Sequence[Event] | None, found: _Findings
    ) -> None:
        """The steps of an activity go with its end (I9)."""
        row = instance.record.row
        if current is None and row.opened:
            return  # its history cannot be read
        pending = [
            event.id
            for event in pending_commands(current or ())
            if isinstance(event, ActivityScheduled) and instance.record.status is Status.OPEN
        ]
        left = find_left_journals(self._directory, row.instance_id, row.execution, pending)
        for problem in left:
            found.add("I9", problem, row.execution)

    def _read_histories(self, instance: _Instance, found: _Findings) -> dict[int, list[Event]]:
        histories: dict[int, list[Event]] = {}
        self._executions += len(instance.rows)
        for row in instance.rows:
            records = instance.records[row.number]
            if not records:
                continue
            self._histories += 1
            self._events += len(records)
            if row.opened_at is None:
                found.add("I3", f"it was never opened and has {len(records)} events", row.number)
                continue
            try:
                histories[row.number] = read_history(
                    instance.identity(row), records, self._library.events
                )
            except OrchestraError as error:
                found.add("I2", str(error), row.number, getattr(error, "event_id", None))
        return histories

    def _check_children(
        self, instance: _Instance, events: Sequence[Event] | None, found: _Findings
    ) -> None:
        """Unread ends of children belong to the current execution, once each; the others are still
        to come.
        """
        record = instance.record
        asked = {
            event.id: event
            for event in events or ()
            if isinstance(event, ChildStarted) and not is_background(event)
        }
        waiting = {
            event.id for event in pending_commands(events or ()) if isinstance(event, ChildStarted)
        }
        sent = pending_sends(events or ())
        waiting |= sent
        given_up = {event.source for event in events or () if isinstance(event, CommandCancelled)}
        number = record.row.execution
        for source, times in Counter(record.reports).items():
            if record.status is not Status.OPEN or (
                events is not None and source not in waiting | given_up
            ):
                found.add(
                    "I9",
                    "the end of a child, or a receipt, is kept, and no execution waits for it",
                    number,
                    source,
                )
            if times > 1:
                found.add("I5", f"the end of a child is there {times} times", number, source)
        if record.status is not Status.OPEN:
            return
        for event_id in sorted(sent - set(record.reports)):
            found.add("I5", "what it has sent has no receipt", number, event_id)
        for event_id in sorted(waiting - sent - set(record.reports)):
            child = self._directory.get(asked[event_id].child_id)
            if (
                child is None
                or child.status is not Status.OPEN
                or child.row.parent != _link(record, event_id)
            ):
                found.add(
                    "I11",
                    f"it waits for child {asked[event_id].child_id!r}, which will not end",
                    number,
                    event_id,
                )

    def _check_told(self, child: InstanceRecord, found: _Findings) -> None:
        """The open execution that started a child knows its end, and the right one (I5)."""
        link = child.row.parent
        parent = None if link is None else self._directory.get(link.instance_id)
        if link is None or parent is None or parent.row.incarnation != link.incarnation:
            return
        records = self._directory.history(link.instance_id, link.execution)
        events = {record.id: from_record(record, self._library.events) for record in records}
        if not events or any(isinstance(event, UnknownEvent) for event in events.values()):
            return
        command = events.get(link.event_id)
        if not isinstance(command, ChildStarted) or command.child_id != child.row.instance_id:
            found.add("I5", f"its parent has not asked for it with event {link.event_id}")
            return
        if is_background(command):
            return  # its end goes to the instance, in any lap
        answers = [event for event in events.values() if _source(event) == link.event_id]
        for answer in answers:
            match answer:
                case ChildCompleted() if (
                    child.status is not Status.COMPLETED or answer.result != child.execution.output
                ):
                    found.add("I5", f"its parent knows another result, {answer.result.data!r}")
                case ChildFailedEvent() if child.status.name.lower() != answer.status:
                    found.add("I5", f"its parent believes that it has {answer.status}")
                case _:
                    pass
        is_awaited = parent.status is Status.OPEN and parent.row.execution == link.execution
        if (
            child.status is not Status.OPEN
            and is_awaited
            and not answers
            and link.event_id not in parent.reports
        ):
            found.add("I5", f"it has ended, and its parent {link.instance_id!r} does not know")

    def _check_replay(
        self, instance: _Instance, number: int, events: Sequence[Event], found: _Findings
    ) -> None:
        assert self._registry is not None
        row = next(row for row in instance.rows if row.number == number)
        definition = self._registry.find(row.name, row.version)
        if definition is None or (instance.record.held and number == instance.record.row.execution):
            return
        self._replayed += 1
        execution = Execution(
            definition, instance.identity(row), self._limits, forms=self._library.events
        )
        try:
            execution.replay(instance.records[number])
            ending, pending = execution.ending, [event.id for event in execution.pending]
        except Exception as error:  # noqa: BLE001 - the code did not raise this when the history was written
            found.add(
                "I10",
                f"it does not replay: {type(error).__name__}: {error}",
                number,
                getattr(error, "event_id", None),
            )
            return
        finally:
            execution.evict()
        self._drift += [
            StoredDrift(instance.instance_id, number, drift) for drift in execution.drifts
        ]
        last = events[-1] if isinstance(events[-1], TerminalEvent) else None
        if ending != last:
            found.add(
                "I10",
                f"replayed it ends with {ending}, in history with {last}",
                number,
                events[-1].id,
            )
        elif last is None and pending != [event.id for event in pending_commands(events)]:
            found.add(
                "I10",
                f"replayed it waits for events {pending}, other than in history",
                number,
                events[-1].id,
            )


# --- one instance -----------------------------------------------------------------------------


def _unknown(instance: _Instance, library: Library) -> Unknown | None:
    """Return the parts of an instance that only a newer library knows."""
    record = instance.record
    hold = record.row.hold
    kinds = [record.status, hold.kind if hold is not None else None]
    kinds += [kind for row in instance.rows for kind in (row.end, row.resolution.how)]
    found = next((kind for kind in kinds if isinstance(kind, Unknown)), None)
    if found is not None:
        return found
    for records in instance.records.values():
        for each in records:
            event = from_record(each, library.events)
            if isinstance(event, UnknownEvent):
                return event.what
    level = record.row.kind.level
    return Unknown("level", level) if level > library.level else None


def _begins_a_life(before: ExecutionRow, row: ExecutionRow) -> bool:
    """Return whether a start or a rewind has begun an ended instance again with an execution."""
    return row.request_id is not None and before.end is not None and before.end not in _GOES_ON


def _check_executions(instance: _Instance, found: _Findings) -> None:
    """Executions are consecutive up to the current one, and all others ended in a boundary (I3)."""
    current = instance.record.row.execution
    rows = instance.rows
    if not rows:
        found.add("I3", "it has no executions")
        return
    for before, row in pairwise(rows):
        if row.number != before.number + 1:
            found.add("I3", f"it follows execution {before.number}", row.number)
    if rows[-1].number != current:
        found.add(
            "I3", f"it is the last one, but the instance is in execution {current}", rows[-1].number
        )
    for row, following in pairwise(rows):
        goes_on = row.end in _GOES_ON or _begins_a_life(row, following)
        if not goes_on:
            found.add(
                "I3", f"it is followed by another one, but its end is {row.end!r}", row.number
            )
        if row.opened_at is None and row.end not in _UNRUN_ENDS:
            found.add("I3", "it is followed by another one, but was never opened", row.number)
    if rows[-1].end in _GOES_ON:
        found.add("I3", "it continued as new, but nothing follows", rows[-1].number)
    if instance.record.execution != rows[-1]:
        found.add("I4", "the instance shows another row for it", rows[-1].number)


def _check_retention(instance: _Instance, found: _Findings) -> None:
    """Events are deleted from the oldest execution on, those of the current one never (I3)."""
    kept: int | None = None
    for number in sorted(instance.records):
        row = next((row for row in instance.rows if row.number == number), None)
        if row is None:
            if instance.records[number]:
                found.add("I9", "there are events of an execution that there is not", number)
        elif instance.records[number]:
            kept = number
        elif row.opened_at is not None and (
            kept is not None or number == instance.record.row.execution
        ):
            found.add(
                "I3",
                "its events are gone, but older ones are kept" if kept else "its events are gone",
                number,
            )


def _check_columns(instance: _Instance, found: _Findings) -> None:
    """The status agrees with the last execution's end (I4)."""
    record, row = instance.record, instance.record.row
    if not instance.rows:
        return
    last = instance.rows[-1]
    expected = Status.OPEN if last.end is None or last.end in _GOES_ON else Status(last.end.value)
    if record.status is not expected:
        found.add(
            "I4",
            f"the status is {record.status.name}, but its execution has the end {last.end!r}",
            last.number,
        )
    if row.opened != (last.opened_at is not None):
        found.add(
            "I4",
            f"the instance says opened={row.opened}, the execution opened_at={last.opened_at}",
            last.number,
        )
    if (row.kind.name, row.kind.version) != (last.name, last.version):
        found.add(
            "I4", f"it is {last.name!r} {last.version}, but is routed as {row.kind}", last.number
        )
    if row.kind.floating and last.opened_at is not None:
        found.add("I4", "it has begun, but its version floats", last.number)
    for execution in instance.rows:
        if (execution.end is None) != (execution.closed_at is None):
            found.add(
                "I4",
                f"its end is {execution.end!r}, but closed_at is {execution.closed_at}",
                execution.number,
            )
        if (
            execution.opened_at is None
            and execution.end is not None
            and execution.end not in _UNRUN_ENDS
        ):
            found.add(
                "I4", f"it was never opened, but its end is {execution.end!r}", execution.number
            )


def _check_end(
    instance: _Instance, row: ExecutionRow, events: Sequence[Event], found: _Findings
) -> None:
    """The last event, and the marks of patches, agree with the execution's row (I4)."""
    marks = tuple(event.patch for event in events if isinstance(event, Patched))
    if marks != row.patches:
        found.add("I4", f"its row has the marks {row.patches}, its history {marks}", row.number)
    last = events[-1]
    in_history = _ENDS[type(last)] if isinstance(last, TerminalEvent) else None
    if in_history is not row.end:
        found.add(
            "I4",
            f"history ends with {describe(last)}, but its end is {row.end!r}",
            row.number,
            last.id,
        )
        return
    records = instance.records[row.number]
    size = sum(record.size for record in records)
    current = instance.record.row
    stored = (row.events, row.bytes) if row.end else (current.history_events, current.history_bytes)
    if stored != (len(records), size):
        found.add(
            "I4",
            f"its history has {len(records)} events and {size} bytes, counted are {stored}",
            row.number,
        )
    match last:
        case ExecutionCompleted() if row.output != last.output:
            found.add("I4", "its output is not the one of its history", row.number, last.id)
        case ExecutionFailed() if (
            row.error is None or error_from_wire(unpack(row.error)["error"]) != last.error
        ):
            found.add("I4", "its error is not the one of its history", row.number, last.id)
        case _:
            pass


def _check_commands(
    instance: _Instance, row: ExecutionRow, events: Sequence[Event], found: _Findings
) -> None:
    """Every result answers one command, once, and not after its cancel (I5); timers are never early
    (I7).
    """
    commands: dict[int, CommandEvent] = {}
    over: dict[int, str] = {}
    started = events[0]
    assert isinstance(started, ExecutionStarted)
    if started.migrations != row.migrations:
        found.add(
            "I4",
            f"its history has passed the migrations {started.migrations}, its row {row.migrations}",
            row.number,
            started.id,
        )
    elif started.input != row.state and not row.migrations:
        found.add("I4", "it was started on another state than its row has", row.number, started.id)
    for event in events:
        if event.at > instance.record.updated_at + _DRIFT:
            found.add(
                "I7",
                f"it lies {(event.at - instance.record.updated_at) / 1e6:g} s in the future",
                row.number,
                event.id,
            )
        if isinstance(event, _ANSWERED):
            commands[event.id] = event
            continue
        source = _source(event)
        if source is None:
            continue
        command = commands.get(source)
        if command is None:
            found.add(
                "I5",
                f"{describe(event)} of event {source}, which asks for nothing",
                row.number,
                event.id,
            )
            continue
        if source in over:
            found.add(
                "I5",
                f"{describe(event)} of event {source}, which {over[source]}",
                row.number,
                event.id,
            )
        over[source] = (
            f"event {event.id} has "
            f"{'cancelled' if isinstance(event, CommandCancelled) else 'answered'} already"
        )
        _check_answer(event, command, row.number, found)


def _check_answer(event: Event, command: CommandEvent, number: int, found: _Findings) -> None:
    fits = True
    match event, command:
        case CommandCancelled(), _:
            pass
        case ActivityCompleted(), ActivityScheduled():
            limit = command.retry.max_attempts
            if event.attempt < 1 or (limit is not None and event.attempt > limit):
                found.add(
                    "I5", f"it comes from attempt {event.attempt} of {limit}", number, event.id
                )
        case (
            (ActivityFailedEvent(), ActivityScheduled())
            | (ChildCompleted() | ChildFailedEvent(), ChildStarted())
            | (SendDelivered() | SendRefused(), EventSent() | CancelSent())
        ):
            pass
        case TimerFired(), TimerCreated():
            if event.at < command.due:
                found.add(
                    "I7",
                    f"the timer fired {(command.due - event.at) / 1e6:g} s early",
                    number,
                    event.id,
                )
        case (EventReceived(), EventAwaited()) | (RequestReceived(), RequestAwaited()):
            fits = event.name == command.name
        case ChildEnded(), ChildAwaited():
            fits = event.link == command.link
        case _:
            fits = False
    if not fits:
        found.add(
            "I5",
            f"{describe(event)} answers event {command.id}, which is {describe(command)}",
            number,
            event.id,
        )


def _check_boundaries(
    instance: _Instance, histories: Mapping[int, Sequence[Event]], found: _Findings
) -> None:
    """The code's state crosses a boundary, and its version if it named one (I3)."""
    for before, row in pairwise(instance.rows):
        number = row.number
        if row.request_id is not None:
            continue  # a rewind, or a start, has given it another state
        if row.name != before.name:
            found.add("I3", f"it is {row.name!r}, the one before {before.name!r}", number)
        if row.state_version != before.version:
            found.add(
                "I3",
                (
                    f"its state was written by {row.state_version}, but the one before ran on "
                    f"{before.version}"
                ),
                number,
            )
        last = histories[before.number][-1] if before.number in histories else None
        if not isinstance(last, ContinuedAsNew):
            continue
        if row.state != last.state:
            found.add("I3", "its state is not what the one before handed over", number)
        if last.version is not None and row.version != last.version:
            found.add(
                "I3", f"it is on {row.version}, but the code asked for {last.version}", number
            )
        if (last.version is not None) != (row.resolution.how is ResolvedBy.EXPLICIT):
            found.add(
                "I3",
                (
                    f"its version was resolved by {row.resolution.how}, the code asked for "
                    f"{last.version}"
                ),
                number,
            )


def _check_messages(
    instance: _Instance, histories: Mapping[int, Sequence[Event]], found: _Findings
) -> None:
    """Events are delivered at most once, and in the order of arrival within a name (I8)."""
    latest: dict[str, int] = {}
    delivered: dict[int, int] = {}
    anew = {row.number + 1 for row in instance.rows if row.end is ExecutionEnd.REWOUND}
    anew |= instance.lives
    begun = 0
    for number in sorted(histories):
        if any(begun < one <= number for one in anew):
            latest, delivered = {}, {}  # what was read since the boundary is read again
        begun = number
        for event in histories[number]:
            if not isinstance(event, EventReceived):
                continue
            sequence = event.sequence
            if sequence in delivered:
                found.add(
                    "I8",
                    f"message {sequence} was delivered in execution {delivered[sequence]} already",
                    number,
                    event.id,
                )
            elif sequence < latest.get(event.name, 0):
                found.add(
                    "I8",
                    f"message {sequence} of {event.name!r} comes behind {latest[event.name]}",
                    number,
                    event.id,
                )
            if sequence > instance.record.row.inbox_seq:
                found.add("I8", f"message {sequence} never arrived", number, event.id)
            delivered[sequence] = number
            latest[event.name] = max(sequence, latest.get(event.name, 0))


def _check_activities(
    instance: _Instance, histories: Mapping[int, Sequence[Event]], found: _Findings
) -> None:
    """No rows are left of activities that no execution waits for (I9)."""
    record = instance.record
    current = histories.get(record.row.execution)
    pending = {
        event.id
        for event in pending_commands(current or ())
        if isinstance(event, ActivityScheduled)
    }
    for row in record.activities:
        if record.status is not Status.OPEN:
            found.add("I9", "an activity is remembered after the end", row.execution, row.event_id)
        elif row.execution != record.row.execution or (
            current is not None and row.event_id not in pending
        ):
            found.add(
                "I9", "an activity is remembered that is not pending", row.execution, row.event_id
            )
    if record.status is not Status.OPEN and record.unread_messages:
        found.add("I9", f"{record.unread_messages} messages are left after the end")


def _check_rest(instance: _Instance, events: Sequence[Event] | None, found: _Findings) -> None:
    """If nothing runs, no instance has an owner (I9), and every open one will wake (I11)."""
    record, row = instance.record, instance.record.row
    number = row.execution
    if row.owner is not None:
        found.add("I9", f"it is owned by {row.owner}", number)
        return
    if record.status is not Status.OPEN or record.held:
        return
    if not row.opened or events is None:
        if row.wake_at is None:
            found.add("I11", "it has not begun, and nothing will wake it", number)
        return
    pending = list(pending_commands(events))
    if not pending and BOUNDARY_REQUEST not in read_summary(record.summary).counts:
        found.add("I11", "it waits for nothing, and has not ended", number)
    _check_requests(record, events, found)
    if row.hold is None:  # released from a hold, it names what it waits for with its next write
        _check_named(record, pending, found)
    delayed = row.takeovers >= _DELAYING_TAKEOVERS
    sleeps = row.wake_at is None or row.wake_at > record.updated_at
    if row.inbox_seq > row.seen_seq and sleeps and not delayed:
        found.add(
            "I11",
            f"message {row.inbox_seq} has arrived, seen is {row.seen_seq}, and it sleeps",
            number,
        )
    told = any(isinstance(event, CancelRequested) for event in events)
    if row.cancel is not None and not told and sleeps and not delayed:
        found.add("I1", "it was cancelled and has not learned of it", number)
    rows = {
        activity.event_id: activity for activity in record.activities if activity.route is not None
    }
    for event in pending:
        handed_out = rows.get(event.id)
        if handed_out is not None and handed_out.owner is not None:
            found.add("I9", f"an activity is owned by {handed_out.owner}", number, event.id)
        waits = handed_out is not None and not handed_out.has_ended
        if handed_out is not None and waits and handed_out.stopping and handed_out.owner is None:
            found.add("I11", "an activity should end, and no node has it", number, event.id)
        if isinstance(event, ActivityScheduled) and row.wake_at is None and not waits:
            found.add("I11", "an activity is pending, and no node will run it", number, event.id)
    due = min((event.due for event in pending if isinstance(event, TimerCreated)), default=None)
    if due is not None and (row.wake_at is None or (row.wake_at > due and not delayed)):
        found.add("I11", f"a timer is due at {due}, but it wakes at {row.wake_at}", number)


def _check_requests(record: InstanceRecord, events: Sequence[Event], found: _Findings) -> None:
    """A nudge of the current execution has reached its code, once."""
    row, nudge = record.row, record.row.nudge
    heard = sum(isinstance(event, BoundaryRequested) for event in events)
    if heard > 1:
        found.add("I5", f"it was asked {heard} times to reach its boundary", row.execution)
    sleeps = row.wake_at is None or row.wake_at > record.updated_at
    delayed = row.takeovers >= _DELAYING_TAKEOVERS
    means_this = nudge is not None and nudge.execution == row.execution
    if means_this and not heard and sleeps and not delayed:
        found.add("I1", "it was nudged and has not learned of it", row.execution)


def _check_named(record: InstanceRecord, pending: Sequence[CommandEvent], found: _Findings) -> None:
    """The info names what the instance waits for (I11)."""
    kinds: dict[type[CommandEvent], str] = {
        ActivityScheduled: "activity",
        TimerCreated: "timer",
        EventAwaited: "event",
        ChildStarted: "child",
        RequestAwaited: "request",
        ChildAwaited: "child",
    }
    expected = Counter(kinds[type(event)] for event in pending)
    named = dict(read_summary(record.summary).counts)
    named.pop(BOUNDARY_REQUEST, None)  # history has no event of that wait
    if named != dict(expected):
        found.add(
            "I11",
            f"it waits for {dict(expected)}, but its info names {named}",
            record.row.execution,
        )


_ANSWERED: Final = (*_PENDING, EventSent, CancelSent)
"""The commands that events of history answer."""

# --- events -----------------------------------------------------------------------------------


def _source(event: Event) -> int | None:
    """Return the number of the command that an event ends."""
    match event:
        case (
            ActivityCompleted()
            | ActivityFailedEvent()
            | TimerFired()
            | EventReceived()
            | RequestReceived()
            | CommandCancelled()
        ):
            return event.source
        case ChildCompleted() | ChildFailedEvent() | SendDelivered() | SendRefused():
            return event.source
        case ChildEnded():
            return event.source
        case _:
            return None


def pending_commands(
    events: Sequence[Event],
) -> Iterator[
    ActivityScheduled | TimerCreated | EventAwaited | ChildStarted | RequestAwaited | ChildAwaited
]:
    """Yield the commands that have no end yet. No code awaits the start of a background child."""
    over = {_source(event) for event in events}
    for event in events:
        if isinstance(event, _PENDING) and event.id not in over and not is_background(event):
            yield event


def is_background(event: Event) -> bool:
    """Return whether an event starts a background child."""
    return isinstance(event, ChildStarted) and event.on_parent_close is OnParentClose.KEEP


def pending_sends(events: Sequence[Event]) -> set[int]:
    """Return the numbers of the sends that have no receipt yet."""
    over = {_source(event) for event in events}
    return {
        event.id
        for event in events
        if isinstance(event, EventSent | CancelSent) and event.id not in over
    }


def _link(record: InstanceRecord, event_id: int) -> ParentLink:
    return ParentLink(
        record.row.instance_id, record.row.incarnation, record.row.execution, event_id
    )
