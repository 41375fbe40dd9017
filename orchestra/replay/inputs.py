"""What has happened: in which order it becomes events, and which future gets it.

A message that the code awaits and cannot decode is set aside, and the wait goes on with the next
one. History has no event for it: the code never gets it, so a replay needs nothing to repeat. The
turn's write moves it out of the inbox. A request that does not decode is rejected instead.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from orchestra.codec import JSON, UserText, require_opened
from orchestra.error_info import storable
from orchestra.errors import (
    ActivityFailed,
    ChildFailed,
    PayloadError,
    PayloadUnreadable,
    SessionLost,
)
from orchestra.events import (
    ActivityCompleted,
    ActivityFailedEvent,
    ActivityScheduled,
    ChildAwaited,
    ChildCompleted,
    ChildEnded,
    ChildFailedEvent,
    ChildStarted,
    CommandEvent,
    EventReceived,
    InputEvent,
    RequestReceived,
    SendDelivered,
    SendRefused,
    TimerFired,
)
from orchestra.futures import DurableFuture
from orchestra.replay.background import deliver_end, end_event, failure_of
from orchestra.replay.commands import Answer, Commands
from orchestra.replay.mail import Mail
from orchestra.replay.sends import receipt_event, refuse
from orchestra.replay.turns import (
    SESSION_LOST,
    ActivityDied,
    ActivityDone,
    Input,
    LogEntry,
    SetAside,
)
from orchestra.store.kinds import MessageKind, Status
from orchestra.store.messages import EndName, MessageRow, RequestName
from orchestra.store.requests import RequestAnswer
from orchestra.store.routes import node_of

__all__ = ["deliver", "next_input"]

_REASON: Final = 1_000
"""Characters of an error that are kept of a message that was set aside."""


def next_input(
    commands: Commands, ends: deque[Input], mail: Mail, may_hold: Callable[[], bool] | None = None
) -> InputEvent | SetAside | None:
    """Return what happened first: an activity or a child has ended, a timer is due, or an
    awaited message has come. A message that does not decode is set aside, and is no event.

    Args:
        may_hold: returns whether such a message holds the execution instead, because other code may
            read it.
    """
    time, pending = commands.time, commands.pending
    timer = time.next_timer if time.timers else None
    number = commands.journal.next_id
    background = commands.background
    if background is not None and background.ready:
        end = background.next_end(mail, number, time.now)
        if end is not None:
            return end
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
            queue = message.queue
            if queue is None:
                _consume(commands, message, mail)
                return _report_event(message, number, time.now)
            source = commands.waits.first(queue)
            if isinstance(queue, RequestName):
                return _request_event(commands, message, source, mail)
            if isinstance(queue, EndName):
                _consume(commands, message, mail)
                return end_event(message, source, number, time.now)
            aside = _unfit(commands, message, source, may_hold)
            if aside is not None:
                mail.take(message)
                commands.gathered.consumed.append(message.sequence)
                commands.gathered.extras.set_aside.append(aside)
                return aside
            _consume(commands, message, mail)
            return EventReceived(
                number, time.now, source, message.name, message.sequence, message.payload
            )


def _unfit(
    commands: Commands, message: MessageRow, source: int, may_hold: Callable[[], bool] | None
) -> SetAside | None:
    """Return why an event does not decode; ``None``: it does, or it holds the execution.

    What decodes is decoded only once: :func:`deliver` finds the value.
    """
    payload = message.payload
    if payload.encoding != JSON:
        # The reader lacks something here; the message may be as it should.
        require_opened(payload, f"message {message.sequence} ({message.name!r})")
        return None
    try:
        commands.decoded = payload, commands.pending[source].future.read(payload)
    except PayloadError as error:
        if may_hold is not None and may_hold():
            return None
        # No store takes a zero character in a text.
        reason = storable(str(error), _REASON).replace(chr(0), repr(chr(0))[1:-1])
        return SetAside(message, reason)
    return None


def _request_event(
    commands: Commands, message: MessageRow, source: int, mail: Mail
) -> InputEvent | SetAside:
    """Return the event of a request. One that does not decode is rejected, so that its sender
    learns it at once, and is no event.

    Its message stays in the store until it is answered.
    """
    unfit = _unfit(commands, message, source, None)
    mail.take(message)
    gathered = commands.gathered
    if unfit is not None:
        gathered.extras.answers.append(
            RequestAnswer(message.message_id, message.sequence, rejection=UserText(unfit.reason))
        )
        rejected = f"request {message.name!r} {message.message_id!r} was rejected: {unfit.reason}"
        gathered.extras.logs.append(LogEntry(logging.WARNING, rejected, {}))
        return unfit
    gathered.received.append(message)
    return RequestReceived(
        commands.journal.next_id,
        commands.time.now,
        source,
        message.name,
        message.sequence,
        message.message_id,
        message.payload,
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
            future.fail(_failure(commands, command.event, future.subject, event))
        case TimerFired() | SendDelivered():
            future.complete(None)
        case SendRefused():
            refuse(commands, command.event, future, event)
        case EventReceived():
            decoded, commands.decoded = commands.decoded, None
            if decoded is not None and decoded[0] is event.payload:
                future.complete(decoded[1])
                return
            error = future.deliver(event.payload)
            if error is not None and not commands.journal.replaying:
                # Its sender stands in no history. So the hold names it, and not the error.
                commands.gathered.extras.unreadable[error] = commands.gathered.received[-1]
        case RequestReceived():
            _deliver_request(commands, event, future)
        case ChildEnded():
            assert commands.background is not None
            assert isinstance(command.event, ChildAwaited)
            commands.background.learn(event)
            deliver_end(event, command.event, future)
        case ChildFailedEvent():
            assert isinstance(command.event, ChildStarted)
            future.fail(
                ChildFailed(command.event.name, command.event.child_id, event.status, event.cause)
            )


def _deliver_request(
    commands: Commands, event: RequestReceived, future: DurableFuture[Any]
) -> None:
    requests = commands.requests
    assert requests is not None
    requests.receive(event)
    returns = requests.returns_of(event.source)
    decoded, commands.decoded = commands.decoded, None
    try:
        value = (
            decoded[1]
            if decoded is not None and decoded[0] is event.payload
            else future.read(event.payload)
        )
    except PayloadUnreadable:
        raise
    except PayloadError as error:
        future.fail(error)
        if not commands.journal.replaying:
            commands.gathered.extras.unreadable[error] = commands.gathered.received[-1]
        return
    future.complete(requests.made_of(event, value, returns))


def _failure(
    commands: Commands, scheduled: CommandEvent, subject: str, event: ActivityFailedEvent
) -> ActivityFailed | SessionLost:
    """Return the error of an activity that has failed for good, or is lost with its session."""
    node = node_of(scheduled.queue) if isinstance(scheduled, ActivityScheduled) else None
    if node is not None and event.cause.type == SESSION_LOST:
        commands.lost_nodes |= {node}
        return SessionLost(subject, node)
    return ActivityFailed(subject, event.cause, event.attempts, event.reason, event.tries)


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
    """Return the event of a child's end, or of a receipt."""
    receipt = receipt_event(report, number, now)
    if receipt is not None:
        return receipt
    require_opened(report.payload, f"end of child {report.name!r}")
    if report.kind is MessageKind.CHILD_COMPLETED:
        return ChildCompleted(number, now, report.source, report.payload)
    # An instance with messages of unknown kinds makes no turn.
    assert isinstance(report.kind, MessageKind), report.kind
    status = Status(report.kind.value).name.lower()
    return ChildFailedEvent(number, now, report.source, status, failure_of(report, status))
