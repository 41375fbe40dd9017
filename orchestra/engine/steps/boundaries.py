"""Ends of executions: at a boundary, where the next one begins, and by operators and clients."""

from __future__ import annotations

from typing import Final

from orchestra.engine.messages import AbortActivity
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.steps.step import Step, end_kind
from orchestra.errors import ErrorInfo
from orchestra.events import (
    FORMAT,
    ContinuedAsNew,
    EventRecord,
    EventWriter,
    ExecutionFailed,
    ExecutionTerminated,
    TerminalEvent,
    error_to_bytes,
    to_record,
)
from orchestra.levels import BASE_LEVEL, Unknown
from orchestra.resolution import boundary_version, resolution_level
from orchestra.store.catalogue import Catalogue
from orchestra.store.executions import Closing, ExecutionDelta, ExecutionRow
from orchestra.store.kinds import ExecutionEnd, ResolvedBy, Status
from orchestra.store.routes import kind_of

__all__ = ["cancel_unopened", "cross_boundary", "end_execution", "terminate"]

_STATUS: Final = {
    ExecutionEnd.COMPLETED: Status.COMPLETED,
    ExecutionEnd.FAILED: Status.FAILED,
    ExecutionEnd.CANCELLED: Status.CANCELLED,
    ExecutionEnd.TERMINATED: Status.TERMINATED,
}


def end_execution(instance: OwnedInstance, step: Step, ending: TerminalEvent) -> None:
    """Take in that a turn has ended its execution: nothing runs for it any longer."""
    if instance.has_activities:
        step.outbox.extend(AbortActivity(key) for key in instance.begun_keys())
        instance.attempts.clear()
        instance.stored_activities.clear()
    instance.inputs.clear()
    step.completed.clear()  # closing the execution forgets its activities
    if not isinstance(ending, ContinuedAsNew):
        step.status = _STATUS[end_kind(ending)]
        if isinstance(ending, ExecutionFailed):
            step.failure = ending.error


def cross_boundary(
    instance: OwnedInstance,
    step: Step,
    ending: ContinuedAsNew,
    catalogue: Catalogue,
    node_id: str,
    shape: str | None,
) -> ExecutionRow:
    """Make the next execution, unopened, and return its row (rule 16).

    Args:
        node_id: who resolves its version.
        shape: the hash of the state that it gets.
    """
    version, resolution = boundary_version(
        catalogue,
        instance.kind,
        instance.current.version,
        explicit=ending.version,
        pin=instance.pin,
        node=node_id,
    )
    instance.current = ExecutionRow(
        number=instance.current.number + 1,
        name=instance.kind.name,
        version=version,
        resolution=resolution,
        state=ending.state,
        state_version=instance.current.version,
        state_shape=shape,
        created_at=step.now,
        traceparent=instance.current.traceparent,
    )
    assert not isinstance(resolution.how, Unknown)
    # What was written at a higher level ends with its execution, unless it waits in the inbox.
    inbox = instance.inbox
    has_unread = len(inbox) or inbox.ends or not inbox.is_whole
    unread = instance.kind.level if has_unread else BASE_LEVEL
    level = max(unread, resolution_level(catalogue, resolution.how))
    floating = resolution.how is ResolvedBy.POLICY
    instance.kind = kind_of(
        instance.kind.queue, instance.kind.name, version, FORMAT, floating, level
    )
    if instance.execution is not None:
        commands = instance.execution.commands
        instance.inbox.end_lap(commands.received_requests, commands.in_hand)
    instance.opened = False
    instance.execution = None
    instance.boundary_due = None
    instance.put_backs = ()
    instance.history_events = instance.history_bytes = 0
    instance.inbox.drop_reports()
    return instance.current


def terminate(instance: OwnedInstance, step: Step, writer: EventWriter | None) -> None:
    """End an instance that is marked for it, without running code (rule 18).

    Args:
        writer: the writer of its open execution, if that is open.
    """
    assert instance.cancel is not None
    reason, now = instance.cancel.reason, step.now
    has_children = instance.opened
    if instance.execution is not None:
        execution = instance.execution
        now, has_children = max(now, execution.time.now), execution.commands.children > 0
        instance.execution.evict()
        instance.execution = None
    events: tuple[EventRecord, ...] = ()
    if writer is not None:
        terminated = ExecutionTerminated(instance.history_events + 1, now, reason)
        events = (to_record(terminated, writer),)
        instance.history_events += 1
        instance.history_bytes += events[0].size
    step.outbox.extend(AbortActivity(key) for key in instance.begun_keys())
    instance.attempts.clear()
    instance.still_running.clear()
    instance.inputs.clear()
    error = error_to_bytes(ErrorInfo("orchestra.Terminated", reason))
    step.deltas.append(
        ExecutionDelta(
            instance.current.number,
            events=events,
            closed=Closing(now, ExecutionEnd.TERMINATED, None, error),
            event_count=instance.history_events,
            byte_count=instance.history_bytes,
            children=has_children,
        )
    )
    step.status = Status.TERMINATED


def cancel_unopened(instance: OwnedInstance, step: Step, created: ExecutionRow | None) -> None:
    """End an execution that is cancelled before its first turn, without running code (rule 18).

    Args:
        created: its row, if this step has made it.
    """
    assert instance.cancel is not None
    error = error_to_bytes(ErrorInfo("orchestra.Cancelled", instance.cancel.reason))
    closed = Closing(step.now, ExecutionEnd.CANCELLED, None, error)
    step.deltas.append(ExecutionDelta(instance.current.number, create=created, closed=closed))
    step.status = Status.CANCELLED
