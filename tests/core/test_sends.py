"""What code sends to other instances, in the pure core: recorded, answered, repeated."""

import logging
from datetime import timedelta

import pytest

from orchestra.codec import Payload
from orchestra.context import Limits
from orchestra.errors import (
    AlreadyCompleted,
    Cancelled,
    EncodeError,
    InboxFull,
    InstanceCompleted,
    InstanceError,
    InstanceNotFound,
    InvalidArgument,
    LevelTooLow,
    NondeterminismError,
    OperationCancelled,
    PayloadTooLarge,
)
from orchestra.events import (
    EVENTS,
    CancelSent,
    ContinuedAsNew,
    EventSent,
    ExecutionCompleted,
    SendDelivered,
    SendRefused,
    from_record,
    to_record,
)
from orchestra.replay import Execution
from orchestra.store.inbox_limits import Full
from orchestra.store.outcomes import AppendRefused, Refusal, RefusedSend
from orchestra.store.receipts import refusal_error
from orchestra.summary import read_summary, write_summary
from tests.support.driver import SUBJECT, Drive, define, fresh, prefixes, replay

BOTH = pytest.mark.parametrize("cold", [False, True])
NOT_FOUND = AppendRefused(Refusal.NOT_FOUND)
CLOSED = AppendRefused(Refusal.CLOSED)
FULL = AppendRefused(Refusal.FULL, Full("messages", 9, 9, of_name=True))


async def tells(ctx, _):
    await ctx.raise_event("other", "go", {"n": 1})
    await ctx.cancel("third", "enough")
    return "told"


async def tells_and_forgets(ctx, _):
    ctx.raise_event("other", "go")
    ctx.cancel("third")
    return await ctx.schedule_activity("a")


async def tells_and_asks(ctx, _):
    try:
        await ctx.raise_event("other", "go", "value")
    except InstanceError as error:
        return [type(error).__name__, error.instance_id, str(error)]


async def cancels_and_asks(ctx, _):
    try:
        await ctx.cancel("other")
    except InstanceError as error:
        return [type(error).__name__, error.instance_id, str(error)]


@BOTH
def test_an_event_and_a_cancel_are_sent_with_the_turn_and_delivered_to_who_awaits(cold):
    drive = Drive(tells, cold=cold)
    (sent,) = drive.turns[-1].extras.sent
    assert (sent.target, sent.name, sent.payload) == ("other", "go", Payload(b'{"n":1}'))
    turn = drive.receipt()
    assert [(one.target, one.reason) for one in turn.extras.sent] == [("third", "enough")]
    drive.receipt()
    assert drive.output == "told"
    assert [event.kind.name for event in drive.events] == [
        "EXECUTION_STARTED",
        "EVENT_SENT",
        "SEND_DELIVERED",
        "CANCEL_SENT",
        "SEND_DELIVERED",
        "EXECUTION_COMPLETED",
    ]


@BOTH
@pytest.mark.parametrize("receipts", [0, 1, 2])
def test_a_send_that_no_code_awaits_is_no_careless_line(cold, receipts):
    drive = Drive(tells_and_forgets, cold=cold)
    assert drive.pending == ["send go to other", "send cancel to third", "activity a"]
    for _ in range(receipts):
        drive.receipt()
    turn = drive.done("a", 7)
    assert (drive.output, turn.extras.logs, turn.extras.refused) == (7, (), ())


@pytest.mark.parametrize(
    ("refused", "kind"),
    [(NOT_FOUND, InstanceNotFound), (CLOSED, InstanceCompleted), (FULL, InboxFull)],
)
@BOTH
def test_a_refused_event_raises_its_reason_at_the_await(cold, refused, kind):
    drive = Drive(tells_and_asks, cold=cold)
    turn = drive.receipt(refused=refused)
    name, target, text = drive.output
    assert (name, target, turn.extras.refused) == (kind.__name__, "other", ())
    assert "other" in text


def test_the_error_of_a_full_inbox_says_which_bound_was_met():
    async def asks(ctx, _):
        try:
            await ctx.raise_event("other", "go", "value")
        except InboxFull as error:
            return [error.bound, error.limit, error.name, str(error)]

    drive = Drive(asks)
    drive.receipt(refused=FULL)
    assert drive.output[:3] == ["messages", 9, "go"]
    assert "event 'go' for instance 'other' was not stored" in drive.output[3]


@pytest.mark.parametrize(
    ("refused", "kind"), [(NOT_FOUND, InstanceNotFound), (CLOSED, AlreadyCompleted)]
)
def test_a_refused_cancel_raises_its_reason_at_the_await(refused, kind):
    drive = Drive(cancels_and_asks)
    drive.receipt(refused=refused)
    assert drive.output[:2] == [kind.__name__, "other"]


@BOTH
def test_a_refusal_that_no_code_awaits_is_reported_once(cold):
    drive = Drive(tells_and_forgets, cold=cold)
    turn = drive.receipt(refused=FULL)
    assert turn.extras.refused == (RefusedSend("other", "go", "full"),)
    turn = drive.receipt(refused=CLOSED)
    assert turn.extras.refused == (RefusedSend("third", None, "closed"),)
    assert drive.done("a").extras.refused == ()


def test_a_reason_that_a_newer_library_knows_is_an_error_all_the_same():
    error = refusal_error("other", "too late", name="go")
    assert (type(error), str(error)) == (InstanceError, "instance 'other' refused it: too late")


@BOTH
def test_what_is_sent_in_the_turn_that_ends_the_execution_is_sent(cold):
    async def laps(ctx, _):
        ctx.raise_event("other", "go", ctx.execution_id)
        ctx.continue_as_new(1)

    drive = Drive(laps, cold=cold)
    (turn,) = drive.turns
    assert isinstance(drive.ending, ContinuedAsNew)
    assert [sent.name for sent in turn.extras.sent] == ["go"]


@BOTH
def test_giving_up_a_send_takes_nothing_back_and_leaves_no_event(cold):
    async def gives_up(ctx, _):
        future = ctx.raise_event("other", "go")
        await ctx.schedule_activity("a")
        future.cancel()
        try:
            await future
        except OperationCancelled:
            return await ctx.schedule_activity("b")

    drive = Drive(gives_up, cold=cold)
    drive.done("a")
    assert drive.turns[0].extras.sent != ()
    turn = drive.receipt(refused=CLOSED)
    assert turn.extras.refused == (RefusedSend("other", "go", "closed"),)
    drive.done("b", 1)
    assert drive.output == 1
    assert "COMMAND_CANCELLED" not in [event.kind.name for event in drive.events]


@BOTH
def test_a_send_that_is_given_up_in_its_own_turn_is_sent(cold):
    async def gives_up(ctx, _):
        ctx.raise_event("other", "go").cancel()
        await ctx.schedule_activity("a")

    drive = Drive(gives_up, cold=cold)
    assert [sent.target for sent in drive.turns[0].extras.sent] == ["other"]


@BOTH
def test_the_loser_of_a_race_stays_sent(cold):
    async def races(ctx, _):
        result = await ctx.race(ctx.raise_event("other", "go"), ctx.schedule_activity("a"))
        return [result.index, await ctx.schedule_activity("b")]

    drive = Drive(races, cold=cold)
    drive.done("a")
    drive.receipt()
    drive.done("b", 2)
    assert drive.output == [1, 2]


@BOTH
def test_sends_outlive_the_branch_that_has_sent_them(cold):
    async def branches(ctx, _):
        async with ctx.task_group() as group:
            group.create_task(tells_and_forgets(ctx, None))
            task = group.create_task(tells_and_forgets(ctx, None))
            await ctx.schedule_activity("b")
            task.cancel()
        return "done"

    drive = Drive(branches, cold=cold)
    drive.done("b")
    drive.done("a")
    cancelled = [words for words in drive.commands if words.startswith("cancel")]
    assert (drive.output, len(cancelled)) == ("done", 1), "the activity of the cancelled branch"


@BOTH
def test_a_cancelled_wait_for_a_receipt_ends_at_once(cold):
    async def waits(ctx, _):
        try:
            await ctx.raise_event("other", "go")
        except Cancelled:
            return await ctx.schedule_activity("undo")

    drive = Drive(waits, cold=cold)
    drive.cancel()
    drive.receipt()
    drive.done("undo", "undone")
    assert drive.output == "undone"


def test_many_sends_may_be_gathered():
    async def gathers(ctx, _):
        results = await ctx.gather(
            *(ctx.raise_event(f"i{number}", "go", number) for number in range(40)),
            return_exceptions=True,
        )
        return [type(result).__name__ for result in results]

    drive = Drive(gathers)
    for _ in range(39):
        drive.receipt()
    drive.receipt(refused=NOT_FOUND)
    assert drive.output == ["NoneType"] * 39 + ["InstanceNotFound"]


def test_the_summary_names_what_the_instance_waits_for_and_no_sends():
    async def sends(ctx, _):
        for number in range(20):
            ctx.raise_event("other", "go", number)
        await ctx.schedule_timer(timedelta(days=1))

    commands = Drive(sends).execution.commands
    pending = [command.event for command in commands.pending.values()]
    summary = read_summary(write_summary(pending, commands.counts, lambda _: None))
    assert ([entry.kind for entry in summary.entries], summary.counts) == (["timer"], {"timer": 1})


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda ctx: ctx.raise_event("", "go"), InvalidArgument),
        (lambda ctx: ctx.raise_event("i", ""), InvalidArgument),
        (lambda ctx: ctx.raise_event(7, "go"), InvalidArgument),
        (lambda ctx: ctx.raise_event("i", "go", float("nan")), EncodeError),
        (lambda ctx: ctx.raise_event("i", "go", "x" * 2_000), PayloadTooLarge),
        (lambda ctx: ctx.cancel(""), InvalidArgument),
        (lambda ctx: ctx.cancel("i", "x" * 2_000), InvalidArgument),
    ],
)
def test_what_cannot_be_sent_is_refused_where_it_is_given(call, error):
    async def sends(ctx, _):
        call(ctx)

    drive = Drive(sends, limits=Limits(max_payload=1_000))
    assert drive.error.type.endswith(error.__name__)
    assert drive.turns[0].extras.sent == ()


# --- against history ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda ctx: ctx.raise_event("other", "stop"), "another event name"),
        (lambda ctx: ctx.cancel("other"), "another kind of event"),
        (lambda ctx: ctx.schedule_activity("a"), "another kind of event"),
    ],
)
def test_code_that_sends_otherwise_does_not_fit_its_history(other, difference):
    async def sends(ctx, _):
        await other(ctx)

    with pytest.raises(NondeterminismError, match=difference):
        replay(sends, Drive(tells).history)


def test_other_values_are_drift():
    async def sends(ctx, _):
        await ctx.raise_event("elsewhere", "go", 2)
        await ctx.cancel("third", "more than enough")

    drive = Drive(tells)
    drive.receipt()
    execution = replay(sends, drive.history)
    assert [drift.difference for drift in execution.drifts] == [
        "instance 'elsewhere' instead of 'other'",
        "another reason",
    ]


def test_every_beginning_of_a_history_goes_on_as_it_went():
    drive = Drive(tells)
    drive.receipt()
    drive.receipt()
    for beginning in prefixes(drive.history):
        execution = replay(tells, beginning)
        assert execution.journal.count == len(beginning)
    assert isinstance(drive.ending, ExecutionCompleted)


@pytest.mark.parametrize(
    "event",
    [
        EventSent(2, 7, "other", "go", Payload(b"1")),
        CancelSent(3, 7, "other", "why"),
        SendDelivered(4, 8, 2),
        SendRefused(5, 8, 3, "closed"),
        SendRefused(6, 8, 2, "full", "bytes", 100, 99, of_name=True),
    ],
)
def test_its_events_come_back_from_what_is_stored(event):
    record = to_record(event, EVENTS.writer(level=3))
    assert from_record(record) == event
    assert EVENTS.level([record]) == 3


def test_while_an_older_library_lives_the_turn_is_not_made():
    execution = Execution(define(tells), SUBJECT, Limits(), writer=EVENTS.writer(level=2))
    with pytest.raises(LevelTooLow, match="write level"):
        execution.start(Payload(b"null"), 0)
    assert execution.journal.count == 1


def test_code_that_catches_everything_does_not_pass_the_level():
    async def catches(ctx, _):
        try:
            ctx.raise_event("other", "go")
        except Exception:
            logging.getLogger(__name__).info("caught")
        return await ctx.schedule_activity("a")

    execution = Execution(define(catches), SUBJECT, Limits(), writer=EVENTS.writer(level=2))
    with pytest.raises(LevelTooLow):
        execution.start(Payload(b"null"), 0)


def test_a_fresh_execution_is_of_level_three_once_it_has_sent():
    execution = fresh(tells)
    execution.start(Payload(b"null"), 0)
    execution.turn(0)
    assert execution.level == 3
