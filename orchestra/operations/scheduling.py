"""What a schedule's tick writes, and how its rows are read: between the pure decision of
:mod:`orchestra.schedules` and the rows of :mod:`orchestra.store.schedules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, Literal

from orchestra import schedules
from orchestra.codec import (
    SEALED,
    Packed,
    Payload,
    UserText,
    as_payload,
    is_sealed,
    pack_value,
    unpack,
    unreadable,
)
from orchestra.errors import UnreadablePolicy
from orchestra.operations.begin import new_start
from orchestra.operations.start import chosen_version
from orchestra.schedules import (
    Event,
    Facts,
    OpenRun,
    RunDue,
    Schedule,
    ScheduleState,
    SlotOutcome,
    Start,
    Tick,
    UnknownSchedule,
    schedule_from_json,
    schedule_to_json,
    state_from_json,
    state_to_json,
)
from orchestra.store.audit import Record
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Append, Cancel, ScheduleAct, ScheduleWrite
from orchestra.store.changes import Start as StartChange
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.kinds import SCHEDULE_LEVEL, Library, ResolvedBy, Status
from orchestra.store.routes import DEFAULT_QUEUE
from orchestra.store.schedules import (
    MOST_FOLLOWED,
    DueSchedule,
    EndedRun,
    FollowedRun,
    ScheduleRow,
    SlotKey,
    SlotRow,
    message_id_of,
)

__all__ = [
    "Circumstances",
    "ReadSchedule",
    "Unreadable",
    "definition_of",
    "edited",
    "facts_of",
    "first_row",
    "instant_of",
    "micros_of",
    "outcome_of",
    "read_schedule",
    "state_bytes",
    "tick",
    "traced",
    "write_of",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DEFINITION: Final = frozenset({"schedule", "written_by", "shape"})
_ENDS: Final[Mapping[object, Literal["completed", "failed", "cancelled", "terminated"]]] = {
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
    Status.TERMINATED: "terminated",
}


class Unreadable(Exception):
    """A newer library, or one with other zones, has written a schedule."""


def micros_of(instant: datetime) -> int:
    """Return an instant in microseconds."""
    return (instant - _EPOCH) // _MICROSECOND


def instant_of(micros: int) -> datetime:
    """Return an instant from microseconds."""
    return _EPOCH + micros * _MICROSECOND


# --- rows -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadSchedule:
    """A schedule's row, as this library reads it. ``written_by`` is the version that wrote the
    input of its runs, and ``shape`` the hash of the input's type.
    """

    row: ScheduleRow
    schedule: Schedule
    state: ScheduleState
    written_by: str | None
    shape: str | None


def read_schedule(row: ScheduleRow, library: Library) -> ReadSchedule:
    """Read a schedule's row. The value of its action stays in the row.

    Raises:
        Unreadable: it is left to nodes that read it (protocol rule 37).
    """
    if row.level > library.level:
        raise Unreadable(f"it needs a library of level {row.level}")
    if is_sealed(row.definition) or is_sealed(row.state):
        sealed = row.definition if is_sealed(row.definition) else row.state
        raise Unreadable(str(unreadable(as_payload(sealed), "its definition")))
    if row.value.encoding == SEALED:
        raise Unreadable(str(unreadable(row.value, "its value")))
    definition, state = unpack(row.definition), state_from_json(unpack(row.state))
    if definition.keys() != _DEFINITION:
        raise Unreadable(f"its definition has the fields {', '.join(sorted(definition))}")
    schedule = schedule_from_json(row.schedule_id, definition["schedule"])
    for part in (schedule, state):
        if isinstance(part, UnknownSchedule):
            raise Unreadable(part.reason)
    assert isinstance(schedule, Schedule)
    assert isinstance(state, ScheduleState)
    return ReadSchedule(row, schedule, state, definition["written_by"], definition["shape"])


def definition_of(schedule: Schedule, written_by: str | None, shape: str | None) -> Packed:
    """Return the stored form of a schedule, without the value of its action."""
    form = schedule_to_json(schedule)
    return pack_value({"schedule": form, "written_by": written_by, "shape": shape})


def state_bytes(state: ScheduleState) -> Packed:
    """Return the stored form of a schedule's state."""
    return pack_value(state_to_json(state))


def with_state(row: ScheduleRow, state: ScheduleState) -> ScheduleRow:
    """Return a schedule's row with another state."""
    return replace(
        row,
        state=state_bytes(state),
        next_at=None if state.next_at is None else micros_of(state.next_at),
        paused=state.pause is not None,
    )


def outcome_of(slot: SlotRow) -> SlotOutcome:
    """Return what people see of a slot."""
    words: Any = slot
    return SlotOutcome(
        instant_of(slot.slot),
        words.outcome,
        slot.reason,
        slot.instance_id,
        slot.late,
        words.cause,
        None if slot.first_slot is None else instant_of(slot.first_slot),
        slot.slot_count,
        not slot.more,
    )


def first_row(
    schedule: Schedule,
    definition: Packed,
    value: Payload,
    now: int,
    *,
    by: str,
    request_id: str,
    declared: int | None,
) -> ScheduleRow:
    """Return the row of a schedule that is created now. It has no slots before now."""
    row = ScheduleRow(
        schedule_id=schedule.id,
        incarnation="",
        revision=0,
        definition=definition,
        state=Packed(b""),
        value=value,
        next_at=None,
        paused=False,
        level=SCHEDULE_LEVEL,
        declared=declared,
        declared_at=None if declared is None else now,
        edition=1,
        created_at=now,
        updated_at=now,
        changed_by=by,
        request_id=request_id,
    )
    return with_state(row, schedules.first_state(schedule, instant_of(now)))


def edited(row: ScheduleRow, by: str) -> ScheduleRow:
    """Return a schedule's row as it is after somebody has changed it."""
    return replace(row, edition=row.edition + 1, changed_by=by)


# --- what a tick is told ----------------------------------------------------------------------


def facts_of(schedule: Schedule, runs: Sequence[FollowedRun]) -> Facts:
    """Return what the pure decision is told of the runs that a schedule follows."""
    if isinstance(schedule.action, Event):
        unread = [run.slot.instance_id for run in runs if run.unread]
        return Facts(unread=f"the tick before, for {unread[-1]}" if unread else None)
    return Facts(
        tuple(_open_run(run) for run in runs if run.status is Status.OPEN),
        tuple(
            schedules.EndedRun(run.slot.instance_id or "", end)
            for run in runs
            if (end := _ENDS.get(run.status)) is not None
        ),
    )


def _open_run(run: FollowedRun) -> OpenRun:
    held = "see its info" if run.held else None
    return OpenRun(run.slot.instance_id or "", held, run.ending)


def _ended(schedule: Schedule, runs: Sequence[FollowedRun], coming: int) -> list[EndedRun]:
    """Return the runs that are followed no longer."""
    if isinstance(schedule.action, Event):
        return [EndedRun(run.slot.key, "read") for run in runs if not run.unread]
    ended: list[EndedRun] = []
    standing: list[FollowedRun] = []
    for run in runs:
        if run.status is Status.OPEN:
            standing.append(run)
        else:
            status = run.status
            word = "deleted" if status is None else str(status.name).lower()
            ended.append(EndedRun(run.slot.key, word))
    too_many = max(0, len(standing) + coming - MOST_FOLLOWED)
    return ended + [EndedRun(run.slot.key, "not followed") for run in standing[:too_many]]


# --- what a tick writes -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a write needs besides the schedule: the catalogue, which chooses versions; ``by``, the
    node or client; the bounds of inboxes.
    """

    catalogue: Catalogue
    now: int
    by: str
    limits: InboxLimits
    library: Library


def tick(due: DueSchedule, around: Circumstances) -> ScheduleWrite:
    """Return the write of a schedule that is due.

    Raises:
        Unreadable: this library cannot read it, or the policy of what it starts.
    """
    read = read_schedule(due.row, around.library)
    facts = facts_of(read.schedule, due.runs)
    decided = schedules.tick(read.schedule, read.state, facts, instant_of(around.now))
    return write_of(read, due.runs, decided, around)


def traced(write: ScheduleWrite, traceparent: str | None) -> ScheduleWrite:
    """Return the write with what it starts and sends in a trace."""
    if traceparent is None:
        return write
    acts = tuple(
        replace(
            act,
            start=act.start and replace(act.start, traceparent=traceparent),
            event=act.event and replace(act.event, traceparent=traceparent),
        )
        for act in write.acts
    )
    return replace(write, acts=acts)


def write_of(
    read: ReadSchedule,
    runs: Sequence[FollowedRun],
    decided: Tick,
    around: Circumstances,
    *,
    row: ScheduleRow | None = None,
    record: Record | None = None,
) -> ScheduleWrite:
    """Return the write of what was decided: by a tick, or by what a caller asks for.

    Args:
        row: the row to write, if more than its state changes.

    Raises:
        Unreadable: the policy of what it starts is one of a newer library.
    """
    row = read.row if row is None else row
    of_run = {one.run: one for one in (*decided.starts, *decided.events)}
    acts: list[ScheduleAct] = []
    acting: list[str] = []
    slots: list[SlotRow] = []
    for outcome in decided.outcomes:
        run = of_run.pop(outcome.run, None) if outcome.run and outcome.outcome == "fired" else None
        if run is None:
            slots.append(_slot_row(outcome, None))
        else:
            acts.append(_act(read, outcome, run, around))
            acting.append(run.run)
    assert not of_run, "each run has an outcome"
    incarnations = {run.slot.instance_id: run.incarnation for run in runs}

    def refused(reasons: Mapping[int, str]) -> ScheduleRow:
        settled = decided
        for position, reason in reasons.items():
            is_again = acts[position].slot.cause == "backfill"
            settled = settled.refused(acting[position], reason, is_failure=not is_again)
        return with_state(row, settled.state)

    return ScheduleWrite(
        read.row.schedule_id,
        read.row.incarnation,
        read.row.revision,
        with_state(row, decided.state),
        tuple(acts),
        tuple(slots),
        tuple(_ended(read.schedule, runs, len(acts))),
        record,
        refused,
        tuple(
            Cancel(
                instance_id,
                UserText(f"the next slot of schedule {read.row.schedule_id!r} is due"),
                f"schedule {read.row.schedule_id}",
                terminate=is_terminate,
                incarnation=incarnations.get(instance_id),
            )
            for named, is_terminate in ((decided.cancels, False), (decided.terminates, True))
            for instance_id in named
        ),
    )


def _slot_row(outcome: SlotOutcome, instance_id: str | None) -> SlotRow:
    return SlotRow(
        micros_of(outcome.slot),
        outcome.cause,
        outcome.outcome,
        UserText(outcome.reason),
        instance_id,
        follows=instance_id is not None,
        first_slot=None if outcome.first is None else micros_of(outcome.first),
        slot_count=outcome.count,
        more=not outcome.is_all,
        late=outcome.is_late,
    )


def _act(
    read: ReadSchedule, outcome: SlotOutcome, run: RunDue, around: Circumstances
) -> ScheduleAct:
    action = read.schedule.action
    if isinstance(action, Event):
        slot = _slot_row(outcome, action.instance_id)
        return ScheduleAct(slot, event=_append(read, action, slot.key, around.limits))
    slot = _slot_row(outcome, run.run)
    return ScheduleAct(slot, start=_start(read, action, outcome, run, around))


def _append(read: ReadSchedule, action: Event, key: SlotKey, limits: InboxLimits) -> Append:
    schedule_id = read.row.schedule_id
    return Append(
        action.instance_id,
        message_id_of(schedule_id, key),
        action.name,
        read.row.value,
        f"schedule {schedule_id}",
        limits,
    )


def _start(
    read: ReadSchedule, action: Start, outcome: SlotOutcome, run: RunDue, around: Circumstances
) -> StartChange:
    queue = action.queue or DEFAULT_QUEUE
    try:
        version = chosen_version(
            around.catalogue, action.name, action.version, queue, allow_unregistered=True
        )
    except UnreadablePolicy as error:
        raise Unreadable(str(error)) from error
    due = micros_of(run.due)
    start = new_start(
        around.catalogue,
        action.name,
        version,
        ResolvedBy.POLICY if action.version is None else ResolvedBy.EXPLICIT,
        read.row.value,
        by=around.by,
        queue=queue,
        instance_id=run.run,
        incarnation=_incarnation(read.row, outcome),
        request_id=run.run,
        written_by=read.written_by,
        shape=read.shape,
        labels=action.labels,
        created_by=f"schedule {read.row.schedule_id}",
        not_before=due if due > around.now else None,
    )
    return replace(start, schedule=(read.row.schedule_id, micros_of(outcome.slot)))


def _incarnation(row: ScheduleRow, outcome: SlotOutcome) -> str:
    """Return the incarnation of a run. The schedule's revision is in it, so a slot that runs again
    begins another life (rule 2).
    """
    made = f"{row.incarnation}/{row.revision}/{micros_of(outcome.slot)}/{outcome.cause}"
    return blake2b(made.encode(), digest_size=16).hexdigest()
