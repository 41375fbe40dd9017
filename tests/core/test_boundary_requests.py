"""The request to reach the boundary soon: how code hears it, and that its replay is exact."""

from datetime import timedelta

import pytest

from orchestra.clock import from_micros
from orchestra.codec import encode
from orchestra.context import BoundaryRequest
from orchestra.errors import Deadlock
from orchestra.events import EVENTS, BoundaryRequested, ContinuedAsNew, from_record, to_record
from orchestra.levels import BASE_LEVEL
from orchestra.replay import Execution
from tests.support.driver import SECOND, SUBJECT, Drive, define, fresh, prefixes, replay

YEAR = timedelta(days=365)
BOTH = pytest.mark.parametrize("cold", [False, True])


async def sleeper(ctx, state):
    await ctx.race(ctx.schedule_timer(YEAR), ctx.wait_for_boundary_request())
    ctx.continue_as_new([*(state or []), ctx.boundary_requested])


async def asks_between_steps(ctx, _):
    steps = 0
    while not ctx.boundary_requested:
        await ctx.schedule_activity("step")
        steps += 1
    ctx.continue_as_new(steps)


@BOTH
def test_code_that_sleeps_a_year_crosses_now(cold):
    drive = Drive(sleeper, cold=cold)
    assert drive.pending == ["timer"]
    drive.nudge()
    assert isinstance(drive.ending, ContinuedAsNew)
    assert drive.ending.state.data == b"[true]"
    assert [event.kind.name for event in drive.events] == [
        "EXECUTION_STARTED",
        "TIMER_CREATED",
        "BOUNDARY_REQUESTED",
        "COMMAND_CANCELLED",
        "CONTINUED_AS_NEW",
    ]


@BOTH
def test_without_a_request_the_timer_wins(cold):
    drive = Drive(sleeper, cold=cold)
    drive.advance(YEAR.total_seconds())
    assert drive.ending.state.data == b"[false]"


@BOTH
def test_code_asks_between_its_steps(cold):
    drive = Drive(asks_between_steps, cold=cold)
    drive.done("step")
    drive.nudge()
    assert drive.ending is None
    drive.done("step")
    assert drive.ending.state.data == b"2"


@BOTH
def test_an_execution_is_asked_once(cold):
    async def deaf(ctx, _):
        await ctx.schedule_activity("a")
        await ctx.schedule_activity("b")
        return ctx.boundary_requested

    drive = Drive(deaf, cold=cold)
    drive.nudge()
    drive.nudge()
    drive.done("a")
    drive.nudge()
    drive.done("b")
    assert drive.output is True
    assert sum(isinstance(event, BoundaryRequested) for event in drive.events) == 1


def test_the_request_says_who_has_asked_when_and_why():
    async def subject(ctx, _):
        request = await ctx.wait_for_boundary_request()
        assert ctx.now() >= request.at
        return request.by, request.reason, request.at

    drive = Drive(subject, now=7 * SECOND)
    drive.nudge(reason="version 2", by="ops")
    assert drive.output == ["ops", "version 2", "1970-01-01T00:00:07+00:00"]


@BOTH
def test_a_request_that_has_come_is_there_at_once(cold):
    async def subject(ctx, _):
        await ctx.schedule_activity("a")
        first = ctx.wait_for_boundary_request()
        assert first.done
        return (await first).by, (await ctx.wait_for_boundary_request()).reason

    drive = Drive(subject, cold=cold)
    drive.nudge()
    drive.done("a")
    assert drive.output == ["ops", "a deploy"]


def test_all_branches_that_wait_go_on_in_the_order_in_which_they_asked():
    async def subject(ctx, _):
        heard = []

        async def branch(number):
            await ctx.wait_for_boundary_request()
            heard.append(number)

        await ctx.gather(*(branch(number) for number in range(5)))
        return heard

    drive = Drive(subject)
    drive.nudge()
    assert drive.output == [0, 1, 2, 3, 4]


@BOTH
def test_a_wait_that_has_lost_a_race_takes_nothing(cold):
    async def subject(ctx, _):
        wins = []
        for _ in range(3):
            won = await ctx.race(ctx.schedule_activity("a"), ctx.wait_for_boundary_request())
            wins.append(won.index)
        return wins

    drive = Drive(subject, cold=cold)
    drive.done("a")
    drive.done("a")
    drive.nudge()
    assert drive.output == [0, 0, 1]


def test_code_that_waits_for_a_request_alone_is_no_deadlock():
    async def subject(ctx, _):
        return (await ctx.wait_for_boundary_request()).by

    drive = Drive(subject)
    assert drive.ending is None
    assert drive.execution.commands.boundary_awaited_since == 0
    drive.nudge()
    assert drive.output == "ops"


def test_code_that_has_given_up_its_wait_may_be_a_deadlock():
    async def subject(ctx, _):
        ctx.wait_for_boundary_request().cancel()
        semaphore = ctx.semaphore(1)
        await semaphore.acquire()
        await semaphore.acquire()

    drive = Drive(subject)
    assert drive.error.type.endswith(Deadlock.__name__)


@BOTH
def test_a_cancel_comes_before_a_request(cold):
    async def subject(ctx, _):
        try:
            await ctx.wait_for_boundary_request()
        finally:
            await ctx.schedule_activity("clean up", ctx.boundary_requested)

    drive = Drive(subject, cold=cold)
    drive.request = BoundaryRequest(from_micros(0), "ops", "both at once")
    drive.cancel()
    kinds = [event.kind.name for event in drive.events]
    assert kinds.index("CANCEL_REQUESTED") < kinds.index("BOUNDARY_REQUESTED")
    drive.done("clean up")
    assert drive.ending.kind.name == "EXECUTION_CANCELLED"


@BOTH
def test_a_request_comes_before_a_message_and_a_timer_of_the_same_turn(cold):
    async def subject(ctx, _):
        won = await ctx.race(
            ctx.wait_for_event("x"),
            ctx.schedule_timer(timedelta(seconds=1)),
            ctx.wait_for_boundary_request(),
        )
        return won.index

    drive = Drive(subject, cold=cold)
    drive.put("x", 1)
    drive.now += 2 * SECOND
    drive.nudge()
    assert drive.output == 2
    assert [message.name for message in drive.inbox] == ["x"]


def test_an_execution_that_has_not_begun_hears_it_with_its_first_turn():
    async def subject(ctx, _):
        before = ctx.boundary_requested
        await ctx.race(ctx.schedule_timer(YEAR), ctx.wait_for_boundary_request())
        return before, ctx.boundary_requested

    execution = fresh(subject)
    execution.start(encode(None, subject="state"), 0)
    turn = execution.turn(0, request=BoundaryRequest(from_micros(0), "ops", "early"))
    assert turn.ending.output.data == b"[false,true]"


def test_code_that_began_without_the_wait_may_use_it_while_the_execution_is_open():
    """History has no event of the wait. So a hot fix may add it under the same version."""

    async def before(ctx, state):
        await ctx.race(ctx.schedule_timer(YEAR))
        ctx.continue_as_new(state)

    drive = Drive(before)
    drive.execution, drive.function = replay(sleeper, drive.history), sleeper
    drive.nudge()
    assert drive.ending.state.data == b"[true]"


def test_every_beginning_of_a_history_with_a_request_repeats():
    async def subject(ctx, _):
        for _ in range(2):
            await ctx.race(ctx.schedule_activity("a"), ctx.wait_for_event("x"))
        await ctx.race(ctx.wait_for_event("y"), ctx.wait_for_boundary_request())
        await ctx.schedule_activity("b")
        return ctx.boundary_requested

    drive = Drive(subject)
    drive.done("a")
    drive.send("x")
    drive.nudge()
    drive.done("b")
    for prefix in prefixes(drive.history):
        execution = replay(subject, prefix)
        requested = any(isinstance(from_record(record), BoundaryRequested) for record in prefix)
        assert (execution.commands.boundary_request is not None) == requested


def test_a_store_with_older_nodes_gets_no_request():
    execution = Execution(
        define(sleeper),
        SUBJECT,
        fresh(sleeper).commands.limits,
        writer=EVENTS.writer(level=BASE_LEVEL),
    )
    execution.start(encode(None, subject="state"), 0)
    turn = execution.turn(0, request=BoundaryRequest(from_micros(0), "ops", "too early"))
    assert turn.ending is None
    assert execution.commands.boundary_request is None


def test_the_request_is_stored_and_read():
    event = BoundaryRequested(7, 8, 6, "ops", "why")
    assert from_record(to_record(event, EVENTS.writer(level=2))) == event


@BOTH
def test_a_wait_with_a_timeout_leaves_the_wait_for_a_request_open(cold):
    async def subject(ctx, _):
        request = ctx.wait_for_boundary_request()
        done, pending = await ctx.wait(request, timeout=timedelta(seconds=5))
        assert (done, pending) == ((), (request,))
        (request,), _ = await ctx.wait(request, timeout=timedelta(seconds=5))
        return (await request).by

    drive = Drive(subject, cold=cold)
    drive.advance(5)
    drive.nudge()
    assert drive.output == "ops"


@BOTH
def test_branches_of_a_group_that_fails_give_up_their_waits(cold):
    async def waits(ctx):
        await ctx.wait_for_boundary_request()

    async def subject(ctx, _):
        try:
            async with ctx.task_group() as group:
                for _ in range(3):
                    group.create_task(waits(ctx))
                await ctx.schedule_activity("a")
                raise ValueError("no more")
        except* ValueError:
            pass
        await ctx.schedule_activity("b")
        return ctx.boundary_requested

    drive = Drive(subject, cold=cold)
    drive.done("a")
    assert drive.execution.commands.boundary_awaited_since is None
    drive.nudge()
    drive.done("b")
    assert drive.output is True
