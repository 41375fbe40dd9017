"""Start an instance, or begin one again: how the change is made, and what its outcome means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from orchestra.codec import Payload, require_opened
from orchestra.errors import InstanceExists, OutcomeUnknown
from orchestra.events import FORMAT
from orchestra.operations.known import ending_format, raise_unless_known
from orchestra.operations.lookup import row_to_write
from orchestra.operations.steps import Get, Operation, Pause, ReadCatalogue, Submit
from orchestra.operations.terminate import termination
from orchestra.resolution import policy_of, resolution_level
from orchestra.store.catalogue import Catalogue
from orchestra.store.changes import Append, IfEnded, Record, Start, WriteExtras
from orchestra.store.executions import ExecutionRow, Resolution
from orchestra.store.inbox_limits import Full
from orchestra.store.kinds import Library, ResolvedBy, Status
from orchestra.store.outcomes import Granted, Outcome, Started, StartExists
from orchestra.store.routes import kind_of

__all__ = ["IF_ENDED", "IF_RUNNING", "ChoiceIfEnded", "ChoiceIfRunning", "begin", "new_start"]

ChoiceIfRunning = Literal["error", "return", "terminate"]
ChoiceIfEnded = Literal["error", "return", "restart", "restart_if_failed"]
IF_RUNNING: tuple[ChoiceIfRunning, ...] = ("error", "return", "terminate")
IF_ENDED: tuple[ChoiceIfEnded, ...] = ("error", "return", "restart", "restart_if_failed")

_STORED: Mapping[ChoiceIfEnded, IfEnded] = {
    "error": IfEnded.LEAVE,
    "return": IfEnded.LEAVE,
    "restart": IfEnded.RESTART,
    "restart_if_failed": IfEnded.RESTART_IF_FAILED,
}
_TRIES = 50
_PAUSE = 0.01


def new_start(
    catalogue: Catalogue,
    name: str,
    version: str,
    how: ResolvedBy,
    state: Payload,
    *,
    by: str,
    queue: str,
    instance_id: str,
    incarnation: str,
    request_id: str,
    written_by: str | None,
    shape: str | None,
    level: int = 0,
    labels: Mapping[str, str] | None = None,
    created_by: str | None = None,
    not_before: int | None = None,
    if_running: ChoiceIfRunning = "error",
    if_ended: ChoiceIfEnded = "error",
    events: tuple[Append, ...] = (),
    traceparent: str | None = None,
    record: Record | None = None,
    continues_trace: bool = False,
) -> Start:
    """Return the start of an instance on a version.

    Args:
        how: who has chosen the version.
        by: the client or the node that asks.
        written_by: the version that wrote the state, and ``shape`` the hash of its type.
        level: the level that a library must read at least to run it.
        if_running, if_ended, events: see :meth:`~orchestra.Client.start`.
        continues_trace: its first execution is a part of the trace of its start.

    Raises:
        PayloadUnreadable: the state is that of another instance, and cannot be opened here.
    """
    require_opened(state, f"input of {instance_id!r}")
    level = max(level, resolution_level(catalogue, how))
    return Start(
        instance_id=instance_id,
        incarnation=incarnation,
        request_id=request_id,
        kind=kind_of(queue, name, version, FORMAT, how is ResolvedBy.POLICY, level),
        execution=ExecutionRow(
            1,
            name,
            version,
            Resolution(how, by, policy_of(catalogue, name)[1]),
            state,
            written_by,
            created_at=catalogue.now,
            traceparent=traceparent if continues_trace else None,
            state_shape=shape,
            request_id=request_id,
        ),
        wake_at=not_before or 0,
        created_by=by if created_by is None else created_by,
        labels=dict(labels or {}),
        traceparent=traceparent,
        not_before=not_before,
        if_ended=_STORED[if_ended],
        looks=if_running != "error" or if_ended != "error",
        events=events,
        gives_events=if_running == "return",
        record=record,
    )


def begin(
    start: Start,
    outcome: Outcome,
    if_running: ChoiceIfRunning,
    if_ended: ChoiceIfEnded,
    library: Library,
    *,
    full: Callable[[Full], Exception],
) -> Operation[None]:
    """Go on with a start whose first submission had an outcome; see
    :meth:`~orchestra.Client.start` for what the choices mean.

    Args:
        full: makes the error for events that find no room.

    Raises:
        InstanceExists: the id is taken, and a choice says that this is an error.
        NewerLibraryNeeded: the running instance must end, and only a newer library may end it.
        OutcomeUnknown: the running instance is written all the time, and no write came between.
    """
    for number in range(_TRIES):
        if number:
            yield from Pause(_PAUSE * min(number, 10))
            outcome = yield from Submit(start)
        if isinstance(outcome, Started):
            return
        assert isinstance(outcome, StartExists)
        if outcome.other is not None:
            raise InstanceExists(
                f"instance {start.instance_id!r} is one of orchestration {outcome.other!r}, not of "
                f"{start.kind.name!r}; choose another id",
                instance_id=start.instance_id,
            )
        if outcome.full is not None:
            raise full(outcome.full)
        if outcome.same:
            return
        if not outcome.is_open:
            if if_ended == "return" and outcome.is_open is not None:
                return
            raise _exists(start.instance_id, outcome, if_ended)
        if if_running == "return":
            return
        if if_running == "error":
            raise _exists(start.instance_id, outcome, if_ended)
        if (yield from _replace(start, library, raced=number > 0)):
            return
    raise OutcomeUnknown(
        f"instance {start.instance_id!r} is written all the time, and was not terminated; try again"
    )


def _replace(start: Start, library: Library, *, raced: bool) -> Operation[bool]:
    """End the running instance and begin it again, in one write. Return whether that was done."""
    record = yield from Get(start.instance_id)
    if record is None or record.status is not Status.OPEN:
        return False
    row = yield from row_to_write(record, raced=raced)
    if row is None:
        return False
    raise_unless_known(row, library, history=False)
    catalogue = yield from ReadCatalogue()
    event_format = ending_format(row, library, catalogue)
    writer = library.events.writer(event_format, catalogue.levels.write)
    now = max(catalogue.now, record.updated_at)
    end = termination(row, "another start has taken its place", now, writer)
    outcome = yield from Submit(replace(end, extras=WriteExtras(restart=start)))
    return isinstance(outcome, Granted)


def _exists(instance_id: str, outcome: StartExists, if_ended: ChoiceIfEnded) -> InstanceExists:
    if outcome.is_open is None:
        return InstanceExists(
            f"instance {instance_id!r} exists; choose another id, or say what should happen: "
            "if_running='return' or 'terminate', if_ended='restart' or 'return'",
            instance_id=instance_id,
        )
    if outcome.is_open:
        return InstanceExists(
            f"instance {instance_id!r} is running; choose another id, or pass "
            "if_running='return' or if_running='terminate'",
            instance_id=instance_id,
        )
    remedy = (
        "it has completed, and only failures begin again; pass if_ended='restart'"
        if if_ended == "restart_if_failed"
        else "pass if_ended='restart' to begin it again, or if_ended='return'"
    )
    return InstanceExists(
        f"instance {instance_id!r} has ended; choose another id, or delete it: {remedy}",
        instance_id=instance_id,
    )
