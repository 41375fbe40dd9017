"""Events, timers, and the order in which what happens is told to the code."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestra.codec import encode
from orchestra.errors import OperationCancelled, OrchestrationError
from orchestra.events import EventReceived, InputEvent
from orchestra.replay import ActivityDone, Turn
from tests.support.driver import SECOND, Drive


def inputs(drive):
    """Return what the code was told, in order."""
    return [type(event).__name__ for event in drive.events if isinstance(event, InputEvent)][1:]


def test_an_event_that_arrives_before_the_wait_is_kept():
    async def subject(ctx, _):
        await ctx.schedule_activity("a")
        return await ctx.wait_for_event("x")

    drive = Drive(subject)
    assert drive.send("x", 1).consumed == ()
    assert drive.done("a").consumed == (1,)
    assert drive.output == 1


def test_an_event_that_nobody_awaits_stays_in_the_inbox():
    async def subject(ctx, _):
        return await ctx.wait_for_event("x")

    drive = Drive(subject)
    drive.send("other", 1)
    drive.send("x", 2)
    assert drive.output == 2
    assert [message.name for message in drive.inbox] == ["other"]


def test_events_of_one_name_are_delivered_in_the_order_of_arrival():
    async def subject(ctx, _):
        late, early = ctx.wait_for_event("x"), ctx.wait_for_event("x")
        return [await early, await late, await ctx.wait_for_event("x")]

    drive = Drive(subject, inbox=[("x", 1), ("y", "no"), ("x", 2)])
    drive.send("x", 3)
    assert drive.output == [2, 1, 3]  # the first wait that was made takes the first event


def test_events_of_several_names_are_delivered_in_the_order_of_arrival():
    async def subject(ctx, _):
        heard = []

        async def listen(name):
            heard.append(await ctx.wait_for_event(name))

        await ctx.gather(listen("a"), listen("b"), listen("c"))
        return heard

    assert Drive(subject, inbox=[("c", 1), ("a", 2), ("b", 3)]).output == [1, 2, 3]


@pytest.mark.parametrize("how", ["race", "cancel"])
def test_a_cancelled_wait_does_not_steal_the_next_event(how):
    async def subject(ctx, _):
        if how == "race":
            await ctx.race(ctx.wait_for_event("x"), ctx.schedule_timer(timedelta(seconds=1)))
        else:
            given_up = ctx.wait_for_event("x")
            await ctx.schedule_timer(timedelta(seconds=1))
            given_up.cancel()
        await ctx.schedule_activity("a")
        return await ctx.wait_for_event("x")

    drive = Drive(subject)
    drive.advance(1)
    assert drive.send("x", "kept").consumed == ()
    drive.done("a")
    assert drive.output == "kept"


def test_a_future_that_was_cancelled_raises_when_it_is_awaited():
    async def subject(ctx, _):
        future = ctx.schedule_timer(timedelta(seconds=1))
        future.cancel()
        future.cancel()
        try:
            await future
        except OperationCancelled:
            return "cancelled"

    drive = Drive(subject)
    assert drive.output == "cancelled"
    assert drive.commands == ["timer", "cancel 2"]


def test_cancelling_a_future_that_is_done_changes_nothing():
    async def subject(ctx, _):
        future = ctx.schedule_activity("a")
        await future
        future.cancel()
        return await future

    drive = Drive(subject)
    drive.done("a", 3)
    assert drive.output == 3
    assert drive.commands == ["activity a"]


def test_a_future_that_two_branches_await_survives_the_loser():
    async def subject(ctx, _):
        shared = ctx.schedule_activity("a")

        async def waits():
            return await shared

        async def races():
            await ctx.race(waits(), ctx.schedule_timer(timedelta(seconds=1)))

        return (await ctx.gather(waits(), races()))[0]

    drive = Drive(subject)
    drive.advance(1)
    assert drive.pending == ["activity a"]
    drive.done("a", 9)
    assert drive.output == 9


def test_a_future_can_be_awaited_again_and_by_several():
    async def subject(ctx, _):
        shared = ctx.schedule_activity("a")

        async def waits():
            return await shared + await shared

        return await ctx.gather(waits(), waits())

    drive = Drive(subject)
    drive.done("a", 2)
    assert drive.output == [4, 4]


def test_a_timer_that_is_computed_after_another_fired_counts_from_that_firing():
    async def subject(ctx, _):
        await ctx.schedule_timer(timedelta(seconds=10))
        await ctx.schedule_timer(timedelta(seconds=10))
        return ctx.now().timestamp()

    drive = Drive(subject)
    drive.advance(25)  # fifteen seconds late
    assert drive.execution.time.next_due == 35 * SECOND
    assert drive.advance(9.9).events == ()
    drive.advance(0.1)
    assert drive.output == 35


def test_timers_fire_in_the_order_in_which_they_are_due():
    async def subject(ctx, _):
        fired = []

        async def wait(seconds):
            await ctx.schedule_timer(timedelta(seconds=seconds))
            fired.append(seconds)

        await ctx.gather(wait(3), wait(1), wait(2))
        return fired

    drive = Drive(subject)
    drive.advance(100)
    assert drive.output == [1, 2, 3]


def test_the_next_timer_is_the_earliest_that_is_still_wanted():
    async def subject(ctx, _):
        first = ctx.schedule_timer(timedelta(seconds=1))
        ctx.schedule_timer(timedelta(seconds=2))
        await ctx.schedule_activity("a")
        first.cancel()
        await ctx.schedule_activity("b")

    drive = Drive(subject)
    assert drive.execution.time.next_due == SECOND
    drive.done("a")
    assert drive.execution.time.next_due == 2 * SECOND


@pytest.mark.parametrize(
    "when", [timedelta(0), timedelta(seconds=-5), datetime(1999, 1, 1, tzinfo=UTC)]
)
def test_a_timer_that_is_due_already_fires_in_the_same_turn(when):
    async def subject(ctx, _):
        await ctx.schedule_timer(when)
        return "fired"

    assert Drive(subject, now=10**15).output == "fired"


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (datetime(2030, 1, 1), "no time zone"),  # noqa: DTZ001 - naive is the point
        (timedelta.max, "year 9999"),
        (5, "not 5; write timedelta(seconds=...)"),
    ],
    ids=["naive", "too far", "a bare number"],
)
def test_a_timer_without_an_instant_is_refused(when, message):
    async def subject(ctx, _):
        await ctx.schedule_timer(when)

    assert message in Drive(subject).error.message


def test_what_happened_first_is_told_first():
    async def subject(ctx, _):
        async def act():
            await ctx.schedule_activity("a")

        async def wait():
            await ctx.wait_for_event("x")

        async def sleep():
            await ctx.schedule_timer(timedelta(seconds=2))

        await ctx.gather(act(), wait(), sleep())

    drive = Drive(subject)
    drive.now = 3 * SECOND
    drive.put("x")
    drive.now = 4 * SECOND
    drive.turn([ActivityDone(drive.activity("a"), 1 * SECOND, 1, encode(1, subject="a"))])
    assert inputs(drive) == ["ActivityCompleted", "TimerFired", "EventReceived"]
    assert all(event.at == 4 * SECOND for event in drive.events[-4:])


def test_an_event_is_decoded_by_the_type_that_the_wait_names():
    async def subject(ctx, _):
        moment = await ctx.wait_for_event("x", datetime)
        return [moment.year, await ctx.wait_for_event("x", str)]

    assert Drive(
        subject, inbox=[("x", datetime(2030, 1, 1, tzinfo=UTC)), ("x", "text")]
    ).output == [2030, "text"]


def test_a_received_event_names_its_message_and_its_wait():
    async def subject(ctx, _):
        await ctx.wait_for_event("x")

    drive = Drive(subject, inbox=[("y", 0), ("x", 1)])
    (received,) = [event for event in drive.events if isinstance(event, EventReceived)]
    assert (received.name, received.sequence, received.source) == ("x", 2, 2)


def test_an_activity_that_is_asked_for_and_given_up_in_one_turn_is_never_begun():
    async def subject(ctx, _):
        ctx.schedule_activity("a").cancel()
        await ctx.schedule_activity("b")

    (turn,) = Drive(subject).turns
    assert [event.name for event in turn.scheduled] == ["b"]
    assert turn.extras.cancelled == ()


USES = {
    "schedule_activity": lambda ctx: ctx.schedule_activity("a"),
    "schedule_timer": lambda ctx: ctx.schedule_timer(timedelta(1)),
    "wait_for_event": lambda ctx: ctx.wait_for_event("x"),
    "continue_as_new": lambda ctx: ctx.continue_as_new(),
    "set_custom_status": lambda ctx: ctx.set_custom_status("x"),
    "trace_info": lambda ctx: ctx.trace_info("x"),
    "task_group": lambda ctx: ctx.task_group(),
    "uuid4": lambda ctx: ctx.uuid4(),
    "random": lambda ctx: ctx.random(),
}


@pytest.mark.parametrize("use", USES)
def test_a_context_works_only_while_its_code_runs(use):
    kept = []

    async def subject(ctx, _):
        kept.append(ctx)
        await ctx.wait_for_event("x")

    drive = Drive(subject)
    with pytest.raises(OrchestrationError, match="used outside its orchestration's code"):
        USES[use](kept[0])
    assert drive.turn() == Turn((), None)


def test_facts_of_the_execution_are_at_hand():
    async def subject(ctx, _):
        return [ctx.instance_id, ctx.execution_id, ctx.name, ctx.version, ctx.history_length]

    assert Drive(subject).output == ["subject-1", 1, "subject", "1.0.0", 1]
