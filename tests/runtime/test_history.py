"""What people are shown of histories: each kind of event, and what this library cannot read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestra import (
    ActivityFailed,
    Client,
    Failure,
    HistoryEvent,
    NonRetryable,
    RetryPolicy,
    Runtime,
    Unreadable,
    activity,
)
from orchestra.client.history import history_event
from orchestra.clock import from_micros
from orchestra.codec import Payload
from orchestra.errors import Attempt, ChildFailed, ErrorInfo
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
    ContinuedAsNew,
    DetachedStarted,
    EventAwaited,
    EventKind,
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
    TimerCreated,
    TimerFired,
    to_record,
)
from orchestra.store.executions import ExecutionDelta
from orchestra.store.kinds import THIS_LIBRARY
from orchestra.summary import EMPTY_SUMMARY
from tests.support.contract.shorthand import a_start, a_state, a_write, an_end, claim, one, read
from tests.support.kit import bounded, info_when, registry

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
AT = 1_795_262_400_000_000
VALUE = Payload(b'{"a":[1]}')
READ = {"a": [1]}
ERROR = ErrorInfo("ValueError", "boom")
RETRY = RetryPolicy(max_attempts=5)
TRY = Attempt(1, NOON, ERROR)
EVENTS = [
    (
        ExecutionStarted(1, AT, "one", "inc", 3, "watch", "1.0.0", "seed", 5, 6, VALUE),
        {
            "instance_id": "one",
            "incarnation": "inc",
            "execution_id": 3,
            "name": "watch",
            "version": "1.0.0",
            "input": READ,
        },
    ),
    (
        ActivityScheduled(1, AT, "probe", Payload(b"[1]"), RETRY, 30_000_000, None, "gpu"),
        {
            "name": "probe",
            "arguments": [1],
            "queue": "gpu",
            "retry": RETRY,
            "timeout": timedelta(seconds=30),
            "heartbeat_timeout": None,
        },
    ),
    (ActivityCompleted(1, AT, 2, 3, VALUE), {"source": 2, "attempt": 3, "result": READ}),
    (
        ActivityFailedEvent(1, AT, 2, ERROR, (TRY,), "not retryable", 25),
        {"source": 2, "error": ERROR, "attempts": (TRY,), "tries": 25, "reason": "not retryable"},
    ),
    (TimerCreated(1, AT, AT + 1_000_000), {"due_at": NOON + timedelta(seconds=1)}),
    (TimerFired(1, AT, 2), {"source": 2}),
    (EventAwaited(1, AT, "go"), {"name": "go"}),
    (
        EventReceived(1, AT, 2, "go", 7, VALUE),
        {"source": 2, "name": "go", "sequence": 7, "payload": READ},
    ),
    (CommandCancelled(1, AT, 2), {"source": 2}),
    (CancelRequested(1, AT, "why"), {"reason": "why"}),
    (
        BoundaryRequested(1, AT, AT - 1_000_000, "ops", "why"),
        {"requested_at": NOON - timedelta(seconds=1), "by": "ops", "reason": "why"},
    ),
    (Patched(1, AT, "tax"), {"patch": "tax"}),
    (
        ChildStarted(1, AT, "ship", None, "one/1", OnParentClose.TERMINATE, VALUE),
        {
            "name": "ship",
            "version": None,
            "instance_id": "one/1",
            "queue": None,
            "on_parent_close": "terminate",
            "input": READ,
        },
    ),
    (ChildCompleted(1, AT, 2, VALUE), {"source": 2, "result": READ}),
    (
        ChildFailedEvent(1, AT, 2, "cancelled", ERROR),
        {"source": 2, "status": "cancelled", "error": ERROR},
    ),
    (
        DetachedStarted(1, AT, "ship", "1.0.0", "two", VALUE, "slow"),
        {"name": "ship", "version": "1.0.0", "instance_id": "two", "queue": "slow", "input": READ},
    ),
    (ChildAwaited(1, AT, "ship", "two", "one/a/1/2"), {"name": "ship", "instance_id": "two"}),
    (
        ChildEnded(1, AT, 2, "two", "one/a/1/2", "completed", 7, VALUE),
        {
            "source": 2,
            "instance_id": "two",
            "status": "completed",
            "sequence": 7,
            "result": READ,
            "error": None,
        },
    ),
    (RequestAwaited(1, AT, "add"), {"name": "add"}),
    (
        RequestReceived(1, AT, 2, "add", 7, "r-1", VALUE),
        {"source": 2, "name": "add", "sequence": 7, "request_id": "r-1", "payload": READ},
    ),
    (
        EventSent(1, AT, "two", "go", VALUE),
        {"instance_id": "two", "name": "go", "payload": READ},
    ),
    (CancelSent(1, AT, "two", "why"), {"instance_id": "two", "reason": "why"}),
    (SendDelivered(1, AT, 2), {"source": 2}),
    (SendRefused(1, AT, 2, "full", "messages", 3, 3), {"source": 2, "reason": "full"}),
    (ExecutionCompleted(1, AT, VALUE), {"output": READ}),
    (ExecutionFailed(1, AT, ERROR), {"error": ERROR}),
    (ExecutionCancelled(1, AT, "why"), {"reason": "why"}),
    (ExecutionTerminated(1, AT, "why"), {"reason": "why"}),
    (ExecutionRewound(1, AT, 3, "me", "why"), {"to": 3, "by": "me", "reason": "why"}),
    (ContinuedAsNew(1, AT, None, VALUE), {"version": None, "state": READ}),
]
WRITER = THIS_LIBRARY.events.writer(level=THIS_LIBRARY.writes)
RECORDS = [to_record(event, WRITER) for event, _ in EVENTS]
NAMES = [event.kind.name.lower() for event, _ in EVENTS]


def test_every_kind_of_event_is_tried_here():
    assert {event.kind for event, _ in EVENTS} == set(EventKind)


@pytest.mark.parametrize(("event", "details"), EVENTS, ids=NAMES)
def test_an_event_is_shown_as_plain_values_under_the_names_that_are_documented(event, details):
    shown = history_event(to_record(event, WRITER))
    assert shown == HistoryEvent(1, event.kind.name.lower(), NOON, details)
    assert shown.is_readable
    (line,) = [
        line
        for line in (HistoryEvent.__doc__ or "").splitlines()
        if line.split()[:1] == [shown.kind]
    ]
    assert line.replace(",", "").split()[1:] == list(details)


@pytest.mark.parametrize(
    "record",
    [one for one in RECORDS if one.payload is not None],
    ids=lambda one: EventKind(one.kind).name,
)
def test_a_value_that_cannot_be_read_is_marked_in_its_place_and_all_else_is_shown(record):
    whole = history_event(record)
    for damaged, reason in (
        (Payload(b"123456789", 9), "encoding 9"),
        (Payload(b"{", 1), "not JSON"),
        (Payload(b"\xff"), "not JSON"),
    ):
        shown = history_event(replace(record, payload=damaged))
        assert (shown.event_id, shown.kind, shown.at) == (whole.event_id, whole.kind, whole.at)
        assert not shown.is_readable
        ((key, marked),) = [
            (key, value) for key, value in shown.details.items() if value != whole.details[key]
        ]
        assert (marked.size, key in whole.details) == (len(damaged.data), True)
        assert reason in str(marked)


@pytest.mark.parametrize("record", RECORDS, ids=NAMES)
def test_an_event_that_cannot_be_read_at_all_is_shown_with_what_is_known_of_it(record):
    changes = [{"format": 99}, {"kind": 99}, {"kind": -1}]
    if record.envelope != b"{}":
        changes += [
            {"envelope": b""},
            {"envelope": b"{}"},
            {"envelope": b"[]"},
            {"envelope": b"\xff{"},
        ]
    if record.payload is not None:
        changes.append({"payload": None})
    for change in changes:
        shown = history_event(replace(record, **change))
        assert (shown.event_id, shown.at, shown.is_readable) == (1, NOON, False)
        assert shown.kind == (
            "unknown" if "kind" in change else EventKind(record.kind).name.lower()
        )
        assert isinstance(shown.details["event"], Unreadable)
        assert ("payload" in shown.details) == (
            record.payload is not None and "payload" not in change
        )


def test_a_moment_that_no_datetime_can_tell_is_shown_as_the_last_one():
    record = EventRecord(1, EventKind.TIMER_CREATED, 2**62, 1, b'{"due":%d}' % 2**62)
    shown = history_event(record)
    assert (
        shown.at
        == shown.details["due_at"]
        == from_micros(2**62)
        == datetime.max.replace(tzinfo=UTC)
    )


# --- in a store ---------------------------------------------------------------------------------


class Hopeless(NonRetryable):
    pass


@activity
async def fails() -> None:
    raise Hopeless("by design")


async def child(ctx, value):
    raise Failure(value)


async def several(ctx, value):
    began = ctx.now()
    try:
        await ctx.schedule_activity(fails)
    except ActivityFailed as failed:
        (attempt,) = failed.attempts
        assert began <= attempt.ended_at <= ctx.now()
        ended_at = attempt.ended_at
    try:
        await ctx.start_child("child", value)
    except ChildFailed:
        await ctx.race(ctx.wait_for_event("go"), ctx.schedule_timer(timedelta(days=1)))
    return ended_at


@pytest.mark.anyio
@bounded
async def test_a_history_is_read_by_people_as_it_was_written(store):
    """The tries of a failed activity are told by the same datetimes to the code, on replay, and to
    readers.
    """
    entries = registry(several, child)
    async with Runtime(store(), entries, [fails]) as node:
        handle = await node.client.start("several", "boom", instance_id="one")
        await info_when(handle, lambda info: info.waiting_counts.get("event"))
    async with Runtime(store(), entries, [fails]) as node:  # it replays what it has not in memory
        handle = node.client.handle("one")
        await handle.raise_event("go", {"n": 1})
        ended_at = await handle.result(datetime)
        history = await node.client.get_history("one")
    assert [event.kind for event in history] == [
        "execution_started",
        "activity_scheduled",
        "activity_failed",
        "child_started",
        "child_failed",
        "event_awaited",
        "timer_created",
        "event_received",
        "command_cancelled",
        "execution_completed",
    ]
    started, scheduled, failed, *_, timer, received, _, completed = history
    assert all(event.is_readable for event in history)
    assert [event.at for event in history] == sorted(event.at for event in history)
    assert started.details["input"] == "boom"
    assert (failed.details["source"], failed.details["error"].message) == (
        scheduled.event_id,
        "by design",
    )
    (attempt,) = failed.details["attempts"]
    assert attempt.ended_at == ended_at == datetime.fromisoformat(completed.details["output"])
    assert timer.details["due_at"] == timer.at + timedelta(days=1)
    assert received.details["payload"] == {"n": 1}


@pytest.mark.anyio
@bounded
async def test_values_of_a_later_library_are_listed_and_marked(store):
    """Who looks must see the others, and this one as far as it can be read."""
    sealed = Payload(b"sealed", 7)
    provider = store()
    async with Client(provider) as client:
        start = a_start("i")
        one(provider, replace(start, execution=replace(start.execution, state=sealed)))
        (snapshot,) = claim(provider)
        events = (
            to_record(ExecutionStarted(1, AT, "i", "a", 1, "watch", "1.0.0", "seed", 5, 6, sealed)),
            replace(to_record(TimerCreated(2, AT, AT)), format=2),
            EventRecord(3, 99, AT, 1, b"{}", sealed),
        )
        state = a_state(snapshot.row, summary=EMPTY_SUMMARY)
        one(
            provider,
            a_write(
                snapshot.row,
                state,
                executions=(ExecutionDelta(1, events=events),),
                custom_status=sealed,
            ),
        )
        marked = Unreadable(
            "payload is stored with encoding 7, which this version of orchestra cannot read", 6
        )
        (info,) = (await client.list_instances()).items
        assert (info.input, info.custom_status, info.output) == (marked, marked, None)
        (execution,) = await client.list_executions("i")
        assert execution.input == marked
        started, timer, unknown = await client.get_history("i")
        assert (started.kind, started.details["input"], started.details["name"]) == (
            "execution_started",
            marked,
            "watch",
        )
        assert (timer.kind, list(timer.details)) == ("timer_created", ["event"])
        assert (unknown.kind, unknown.at, unknown.details["payload"]) == ("unknown", NOON, marked)
        # What is left behind is in order.
        one(provider, an_end(read(provider).row))
        await client.delete("i")
