"""What has happened: in which order it becomes events, and which future gets it."""

from __future__ import annotations

from collections import deque

from orchestra.errors import ActivityFailed, ChildFailed, ErrorInfo
from orchestra.events import (
    ActivityCompleted,
    ActivityFailedEvent,
    ChildCompleted,
    ChildFailedEvent,
    ChildStarted,
    EventReceived,
    InputEvent,
    TimerFired,
    error_from_bytes,
)
from orchestra.replay.commands import Answer, Commands
from orchestra.replay.mail import Mail
from orchestra.replay.turns import ActivityDied, ActivityDone, Input
from orchestra.store.kinds import MessageKind, Status
from orchestra.store.messages import MessageRow

__all__ = ["deliver", "next_input"]


def next_input(commands: Commands, ends: deque[Input], mail: Mail) -> InputEvent | None:
    """Return what happened first: an activity or a child has ended, a timer is due, or an
    awaited message has come.
    """
    time, pending = commands.time, commands.pending
    timer = time.next_timer if time.timers else None
    number = commands.journal.next_id
    while ends and ends[0].source not in pending:
        ends.popleft()  # late: it was cancelled, or has ended already (I5)
    if timer is None and not mail:
        # Nearly always: an activity has ended, or nothing more has happened.
        return _end_event(ends.popleft(), number, time.now) if ends else None
    while (report := mail.report) is not None and report.source not in pending:
        _consume(commands, report, mail)  # late as well; its row must go all the same (I9)
    message = mail.first()
    times = (
        ends[0].at if ends else None,
        timer - time.ahead if timer is not None and timer <= time.now else None,
        message.sent_at if message else None,
    )
    present = [moment for moment in times if moment is not None]
    if not present:
        return None
    match times.index(min(present)):
        case 0:
            return _end_event(ends.popleft(), number, time.now)
        case 1:
            due, source = time.pop()
            commands.gathered.fired.append(due)
            return TimerFired(number, time.now, source)
        case _:
            assert message is not None
            _consume(commands, message, mail)
            if message.kind is not MessageKind.EVENT:
                return _report_event(message, number, time.now)
            source = commands.waits.first(message.name)
            return EventReceived(
                number, time.now, source, message.name, message.sequence, message.payload
            )


def _consume(commands: Commands, message: MessageRow, mail: Mail) -> None:
    mail.take(message)
    gathered = commands.gathered
    gathered.consumed.append(message.sequence)
    gathered.received.append(message)


def deliver(commands: Commands, event: Answer) -> None:
    """Give an event to the future that waits for it."""
    command = commands.take(event)
    future = command.future
    if command.ending:
        future.fail_cancelled()  # the code has given it up, whatever its end
        return
    match event:
        case ActivityCompleted() | ChildCompleted():
            future.deliver(event.result)
        case ActivityFailedEvent():
            future.fail(
                ActivityFailed(
                    future.subject, event.cause, event.attempts, event.reason, event.tries
                )
            )
        case TimerFired():
            future.complete(None)
        case EventReceived():
            error = future.deliver(event.payload)
            if error is not None and not commands.journal.replaying:
                # Its sender stands in no history. So the hold names it, and not the error.
                commands.gathered.unreadable[error] = commands.gathered.received[-1]
        case ChildFailedEvent():
            assert isinstance(command.event, ChildStarted)
            future.fail(
                ChildFailed(command.event.name, command.event.child_id, event.status, event.cause)
            )


def _end_event(end: Input, number: int, now: int) -> InputEvent:
    """Return the event of an activity's end."""
    match end:
        case ActivityDone():
            return ActivityCompleted(number, now, end.source, end.attempt, end.result)
        case ActivityDied():
            attempts = end.attempts[-1].number if end.attempts else 0
            return ActivityFailedEvent(
                number, now, end.source, end.cause, end.attempts, end.reason, attempts
            )


def _report_event(report: MessageRow, number: int, now: int) -> InputEvent:
    """Return the event of a child's end."""
    if report.kind is MessageKind.CHILD_COMPLETED:
        return ChildCompleted(number, now, report.source, report.payload)
    # An instance with messages of unknown kinds makes no turn.
    assert isinstance(report.kind, MessageKind), report.kind
    status = Status(report.kind.value).name.lower()
    cause = (
        error_from_bytes(report.payload.data)
        if report.payload.data
        else ErrorInfo(f"orchestra.{status}", "")
    )
    return ChildFailedEvent(number, now, report.source, status, cause)
