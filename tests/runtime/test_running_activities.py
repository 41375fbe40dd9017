"""Activities as the runtime runs them: in tasks and threads, with tries, deadlines, heartbeats and
cancellation.
"""

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import anyio
import pytest

from orchestra import (
    NO_RETRY,
    Activity,
    ActivityFailed,
    InstanceFailed,
    Limits,
    NonRetryable,
    RetryPolicy,
    Runtime,
    SqliteProvider,
    activity,
    activity_context,
)
from orchestra.engine.messages import ActivityFailure
from orchestra.errors import InstanceTerminated
from tests.support.kit import (
    QUICK,
    Gate,
    alone,
    bounded,
    info_when,
    registry,
    runtime,
    until,
    when_set,
)

pytestmark = pytest.mark.anyio

SOON = timedelta(milliseconds=60)
NEVER = timedelta(hours=1)


async def outcome(ctx, scheduled):
    """Return the result of an activity, or what its failure says."""
    try:
        return await scheduled
    except ActivityFailed as failed:
        return {
            "reason": failed.reason,
            "type": failed.cause.type,
            "message": failed.cause.message,
            "tries": [attempt.number for attempt in failed.attempts],
        }


async def result_of(path, call, *activities, **options):
    """Run one orchestration that makes one call; return its result and its history."""

    async def once(ctx, value):
        return await outcome(ctx, call(ctx))

    async with runtime(path, once, activities=activities, **options) as node:
        handle = await node.client.start("once")
        return await handle.result(), await node.client.get_history(handle.instance_id)


@dataclass
class Order:
    article: str
    price: Decimal
    at: datetime


# --- arguments ----------------------------------------------------------------------------------


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_arguments_arrive_with_their_types(path, style):
    seen = []

    def note(order, tags, count, keywords):
        seen.append((order, tags, count, keywords))
        return "noted"

    if style == "async":

        @activity(name="take")
        async def take(
            order: Order, tags: set[str], count: int = 7, *, note_at: datetime, **rest: Decimal
        ) -> str:
            return note(order, tags, count, (note_at, rest))

    else:

        @activity(name="take")
        def take(
            order: Order, tags: set[str], count: int = 7, *, note_at: datetime, **rest: Decimal
        ) -> str:
            return note(order, tags, count, (note_at, rest))

    moment = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
    order = Order("tea", Decimal("3.10"), moment)
    result, _ = await result_of(
        path,
        lambda ctx: ctx.schedule_activity(take, order, {"a"}, note_at=moment, extra=Decimal("0.1")),
        take,
    )
    assert result == "noted"
    assert seen == [(order, {"a"}, 7, (moment, {"extra": Decimal("0.1")}))]
    assert [type(part) for part in seen[0][:3]] == [Order, set, int]


@bounded
async def test_an_argument_that_does_not_fit_the_activity_keeps_it_waiting_and_names_it(path):
    @activity
    async def take(count: int) -> None:
        raise AssertionError("it must not run")

    async def once(ctx, value):
        await ctx.schedule_activity("take", "many")

    async with runtime(path, once, activities=[take]) as node:
        handle = await node.client.start("once")
        info = await info_when(
            handle, lambda info: any(one.held_reason for one in info.pending_activities)
        )
        (pending,) = info.pending_activities
        assert pending.attempt == 1
        assert "'take'" in pending.last_error
        assert "DecodeError" in pending.last_error
        assert "can read its arguments" in pending.held_reason
        await node.client.terminate(handle.instance_id)


@bounded
async def test_an_activity_is_called_by_its_name_and_read_as_a_type(path):
    @activity(name="price-of")
    async def price(article: str) -> Decimal:
        return Decimal("1.50")

    async def once(ctx, value):
        found = await ctx.schedule_activity(Activity.named("price-of", Decimal), "tea")
        return type(found).__name__

    async with runtime(path, once, activities=[price]) as node:
        assert await (await node.client.start("once")).result() == "Decimal"


@bounded
async def test_what_waits_for_a_thread_keeps_no_place_from_what_needs_none(path):
    gate = threading.Event()

    @activity
    def blocks(number: int) -> None:
        gate.wait(15)

    @activity
    async def works(number: int) -> int:
        return number

    async def many(ctx, value):
        await ctx.gather(*(ctx.schedule_activity(blocks, number) for number in range(6)))

    async def one(ctx, value):
        return await ctx.schedule_activity(works, 7)

    options = {"max_activity_threads": 1, "max_concurrent_activities": 3}
    async with runtime(path, many, one, activities=[blocks, works], **options) as node:
        blocked = await node.client.start("many")
        await info_when(blocked, lambda info: len(info.pending_activities) == 6)
        try:
            assert await (await node.client.start("one")).result() == 7
        finally:
            gate.set()
        await blocked.result()


# --- the context --------------------------------------------------------------------------------


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_the_context_names_the_try_and_keeps_its_idempotency_key_over_tries(path, style):
    seen = []

    def body():
        context = activity_context()
        seen.append(context)
        if context.attempt < 3:
            raise ValueError(f"try {context.attempt}")
        return context.attempt

    if style == "async":

        @activity(name="work", retry=QUICK)
        async def work() -> int:
            return body()

    else:

        @activity(name="work", retry=QUICK)
        def work() -> int:
            return body()

    async def twice(ctx, value):
        return await ctx.gather(ctx.schedule_activity(work), ctx.schedule_activity(work))

    async with runtime(path, twice, activities=[work]) as node:
        handle = await node.client.start("twice", instance_id="one")
        assert await handle.result() == [3, 3]
        incarnation = (await handle.info()).incarnation
        history = await node.client.get_history("one")
    assert {
        (one.activity, one.instance_id, one.execution_id, one.orchestration, one.version)
        for one in seen
    } == {("work", "one", 1, "twice", "1.0.0")}
    scheduled = [event.event_id for event in history if event.kind == "activity_scheduled"]
    keys = {f"one/{incarnation}/1/{number}" for number in scheduled}
    assert len(keys) == 2
    for key in keys:
        assert [one.attempt for one in seen if one.idempotency_key == key] == [1, 2, 3]
    assert all(one.last_heartbeat is None for one in seen)


# --- tries --------------------------------------------------------------------------------------


@bounded
async def test_an_exhausted_activity_carries_every_try_and_the_last_cause(path):
    """Scenario 26."""

    @activity(retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(0)))
    def work() -> None:
        raise ValueError(f"try {activity_context().attempt}")

    result, history = await result_of(path, lambda ctx: ctx.schedule_activity(work), work)
    assert result == {
        "reason": "attempts exhausted",
        "type": "ValueError",
        "message": "try 3",
        "tries": [1, 2, 3],
    }
    failed = next(event for event in history if event.kind == "activity_failed")
    assert [attempt.error.message for attempt in failed.details["attempts"]] == [
        "try 1",
        "try 2",
        "try 3",
    ]


class Hopeless(NonRetryable):
    pass


class Listed(LookupError):
    pass


@bounded
@pytest.mark.parametrize("raised", [Hopeless, Listed, KeyError])
async def test_an_error_that_is_not_retryable_is_not_tried_again(path, raised):
    """Scenario 26."""

    @activity(
        retry=RetryPolicy(
            max_attempts=5, initial_interval=timedelta(0), non_retryable=(LookupError,)
        )
    )
    async def work() -> None:
        raise raised("no")

    result, _ = await result_of(path, lambda ctx: ctx.schedule_activity(work), work)
    assert (result["reason"], result["tries"]) == ("not retryable", [1])


@bounded
async def test_a_retry_is_visible_with_its_number_its_error_and_its_moment(path):
    @activity(retry=RetryPolicy(initial_interval=NEVER, max_interval=NEVER, jitter=0))
    async def work() -> None:
        raise ValueError("still broken")

    async def once(ctx, value):
        await ctx.schedule_activity(work)

    async with runtime(path, once, activities=[work]) as node:
        handle = await node.client.start("once")
        info = await info_when(
            handle, lambda info: info.pending_activities and info.pending_activities[0].last_error
        )
        (pending,) = info.pending_activities
        assert (pending.name, pending.attempt) == ("work", 2)
        assert "ValueError: still broken" in pending.last_error
        assert pending.next_attempt_at == info.next_wake_at
        assert (
            timedelta(minutes=59) < pending.next_attempt_at - pending.since <= timedelta(minutes=61)
        )
        assert [(wait.kind, wait.name) for wait in info.waiting_on] == [("activity", "work")]


@bounded
async def test_attempt_counts_survive_a_restart(path):
    """Scenario 26."""
    seen = []

    @activity(
        retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(milliseconds=300), jitter=0)
    )
    async def work() -> None:
        seen.append(activity_context().attempt)
        raise ValueError("no")

    async def once(ctx, value):
        return await outcome(ctx, ctx.schedule_activity(work))

    async with runtime(path, once, activities=[work]) as node:
        handle = await node.client.start("once", instance_id="one")
        await info_when(
            handle, lambda info: info.pending_activities and info.pending_activities[0].attempt == 2
        )
    async with runtime(path, once, activities=[work]) as node:
        assert (await node.client.handle("one").result())["tries"] == [1, 2]
    assert seen == [1, 2]


# --- what user code may raise and return --------------------------------------------------------


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
@pytest.mark.parametrize(
    "raised",
    [
        SystemExit(3),
        GeneratorExit("odd"),
        ExceptionGroup("several", [ValueError(1), KeyError(2)]),
        BaseExceptionGroup("worse", [SystemExit(1)]),
        StopIteration("odd"),
    ],
    ids=lambda raised: type(raised).__name__,
)
async def test_whatever_an_activity_raises_is_its_failure_and_not_the_hosts(path, style, raised):
    if style == "async" and isinstance(raised, GeneratorExit):
        raised = SystemExit(4)

    def body():
        raise raised

    if style == "async":

        @activity(name="work", retry=NO_RETRY)
        async def work() -> None:
            body()

    else:

        @activity(name="work", retry=NO_RETRY)
        def work() -> None:
            body()

    result, _ = await result_of(path, lambda ctx: ctx.schedule_activity(work), work)
    # Python itself turns a StopIteration that leaves a coroutine or a thread's future into a
    # RuntimeError.
    expected = (
        {"RuntimeError", "StopIteration"}
        if isinstance(raised, StopIteration)
        else {type(raised).__name__}
    )
    assert result["type"] in expected
    assert result["tries"] == [1]


@bounded
async def test_a_keyboard_interrupt_in_a_thread_is_a_failure(path):
    @activity(retry=NO_RETRY)
    def work() -> None:
        raise KeyboardInterrupt

    result, _ = await result_of(path, lambda ctx: ctx.schedule_activity(work), work)
    assert result["type"] == "KeyboardInterrupt"


@bounded
async def test_a_try_that_ends_in_a_cancellation_of_its_own_has_failed_and_its_policy_ends_it(
    path, anyio_backend
):
    policy = RetryPolicy(initial_interval=timedelta(milliseconds=1), max_attempts=3)
    if anyio_backend == "trio":  # there only a scope can cancel, and only what runs inside it

        @activity(retry=policy)
        async def work() -> None:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anyio.sleep_forever()
            raise ValueError("cancelled")
    else:
        import asyncio

        @activity(retry=policy)
        async def work() -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    async def once(ctx, value):
        try:
            await ctx.schedule_activity(work)
        except ActivityFailed as failed:
            return [len(failed.attempts), str(failed.cause)]

    async with runtime(path, once, activities=[work]) as node:
        attempts, cause = await (await node.client.start("once")).result()
        assert attempts == 3
        assert "cancelled" in cause


@bounded
@pytest.mark.parametrize(
    "anyio_backend", ["asyncio"]
)  # on trio nothing but the runtime itself can cancel its tasks
async def test_a_try_that_is_cut_off_with_the_whole_program_counts_as_none(path):
    import asyncio

    older = asyncio.all_tasks()
    begun = anyio.Event()
    ended = []

    @activity(retry=RetryPolicy(max_attempts=1))
    async def work() -> str:
        begun.set()
        if not ended:
            await anyio.sleep_forever()
        return "done"

    async def once(ctx, value):
        return await ctx.schedule_activity(work)

    async def host():
        async with runtime(path, once, activities=[work]) as node:
            await node.client.start("once", instance_id="one")
            await anyio.sleep_forever()

    task = asyncio.create_task(host())
    await begun.wait()
    # What asyncio does with what is left of a program: cancel every task.
    for other in asyncio.all_tasks() - older:
        other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ended.append(True)
    async with runtime(path, once, activities=[work]) as node:
        assert await node.client.handle("one").result() == "done"


@bounded
@pytest.mark.parametrize(
    "value", [object(), float("nan"), {"a": {1: object()}}], ids=["object", "nan", "inner"]
)
async def test_a_result_that_cannot_be_encoded_fails_the_activity_at_once(path, value):
    """Scenario 29."""

    @activity
    def work():
        return value

    result, _ = await result_of(path, lambda ctx: ctx.schedule_activity(work), work)
    assert (result["reason"], result["type"], result["tries"]) == (
        "not retryable",
        "orchestra.errors.EncodeError",
        [1],
    )
    assert "work" in result["message"]


@bounded
async def test_a_result_over_the_limit_fails_the_activity_at_once(path):
    """Scenario 29."""

    @activity
    async def work() -> str:
        return "x" * 2000

    result, _ = await result_of(
        path, lambda ctx: ctx.schedule_activity(work), work, limits=Limits(max_payload=1000)
    )
    assert (result["type"], result["tries"]) == ("orchestra.errors.PayloadTooLarge", [1])
    assert "1,000" in result["message"] or "1000" in result["message"]


@pytest.mark.slow
@bounded
async def test_an_activity_that_nobody_has_is_visible_and_goes_on_when_a_runtime_has_it(
    path, caplog
):
    @activity
    async def rare() -> str:
        return "here"

    async def once(ctx, value):
        return await ctx.schedule_activity(rare)

    async with runtime(path, once) as node:
        handle = await node.client.start("once", instance_id="one")
        info = await info_when(handle, lambda info: info.pending_activities)
        await info_when(await node.client.start("once"), lambda info: info.pending_activities)
        (line,) = await until(
            lambda: [one.getMessage() for one in caplog.records if "'rare'" in one.getMessage()]
        )
        assert "Give it to Runtime(activities=..., queues=...)" in line  # once, however many wait
        (pending,) = info.pending_activities
        assert (
            pending.held_reason == "no living node has activity 'rare' and serves queue 'default'"
        )
        assert (pending.attempt, pending.next_attempt_at, info.status) == (1, None, "held")

    async with Runtime(SqliteProvider(path), registry(once), [rare]) as node:
        assert await node.client.handle("one").result() == "here"
        history = await node.client.get_history("one")
    assert [
        event.details["attempt"] for event in history if event.kind == "activity_completed"
    ] == [1]


# --- deadlines ----------------------------------------------------------------------------------


@bounded
async def test_a_timeout_ends_an_async_try_and_counts(path):
    """Scenario 26."""
    cancelled = []

    @activity(retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0)), timeout=SOON)
    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(activity_context().cancelled)

    result, _ = await result_of(path, lambda ctx: ctx.schedule_activity(work), work)
    assert (result["type"], result["tries"], result["reason"]) == (
        "TimeoutError",
        [1, 2],
        "attempts exhausted",
    )
    assert "0.06 s" in result["message"]
    assert cancelled == [True, True]


@bounded
async def test_a_timeout_ends_the_wait_for_a_thread_which_learns_it_and_whose_result_is_dropped(
    path,
):
    gate = Gate()
    learned = []
    done = threading.Event()

    @activity(retry=QUICK, timeout=timedelta(milliseconds=200))
    def work() -> str:
        context = activity_context()
        if context.attempt == 1:
            assert not context.cancelled
            gate()
            learned.append(context.cancelled)
            done.set()
            return "late"
        return "second"

    async def once(ctx, value):
        result = await ctx.schedule_activity(work)
        await ctx.wait_for_event("go")
        return result

    async with runtime(path, once, activities=[work]) as node:
        handle = await node.client.start("once")
        await info_when(handle, lambda info: info.waiting_counts == {"event": 1})
        gate.open()
        await when_set(done)
        await handle.raise_event("go")
        assert await handle.result() == "second"
        history = await node.client.get_history(handle.instance_id)
    assert learned == [True]
    assert [
        event.details["attempt"] for event in history if event.kind == "activity_completed"
    ] == [2]


@bounded
async def test_the_end_of_a_thread_is_reported_by_itself_and_once_however_close_to_its_timeout(
    path,
):
    pause = threading.Event()
    ran_in = defaultdict(list)
    reports = []

    @activity(retry=NO_RETRY, timeout=timedelta(milliseconds=60))
    def work(number: int) -> int:
        ran_in[number].append(threading.get_ident())
        pause.wait(0.01 * (number % 12))
        return number

    async def many(ctx, value):
        return await ctx.gather(
            *(outcome(ctx, ctx.schedule_activity(work, number)) for number in range(96))
        )

    async with runtime(path, many, activities=[work], max_activity_threads=16) as node:
        report = node._runner._report

        def noted(item):
            reports.append((item.key, threading.get_ident(), item.result))
            report(item)

        node._runner._report = noted
        results = await (await node.client.start("many")).result()
    assert len({key for key, _, _ in reports}) == len(reports) == 96
    assert [
        result
        for number, result in enumerate(results)
        if isinstance(result, int) and result != number
    ] == []
    assert {result["type"] for result in results if not isinstance(result, int)} <= {"TimeoutError"}
    threads = {thread for ran in ran_in.values() for thread in ran}
    for _, reporter, result in reports:
        assert (reporter in threads) != isinstance(result, ActivityFailure)


@pytest.mark.slow
@bounded
async def test_waiting_for_a_free_thread_is_not_the_activitys_time(path):
    running = 0
    most = 0
    guard = threading.Lock()
    pause = threading.Event()

    @activity(retry=NO_RETRY, timeout=timedelta(seconds=1))
    def work() -> None:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        pause.wait(0.15)
        with guard:
            running -= 1

    async def many(ctx, value):
        await ctx.gather(*(ctx.schedule_activity(work) for _ in range(8)))
        return "all"

    async with runtime(path, many, activities=[work], max_activity_threads=1) as node:
        assert await (await node.client.start("many")).result() == "all"
    assert most == 1


@bounded
async def test_a_thread_that_was_given_up_does_not_keep_its_place(path):
    gate = Gate()

    @activity(retry=NO_RETRY, timeout=SOON)
    def stuck() -> None:
        gate()

    @activity
    def work() -> str:
        return "done"

    async def both(ctx, value):
        return [await outcome(ctx, ctx.schedule_activity(stuck)), await ctx.schedule_activity(work)]

    async with runtime(path, both, activities=[stuck, work], max_activity_threads=1) as node:
        failed, done = await (await node.client.start("both")).result()
    gate.open()
    assert (failed["type"], done) == ("TimeoutError", "done")


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_a_heartbeat_that_stops_ends_the_try_and_its_payload_reaches_the_next(path, style):
    """Scenario 27."""
    gate = Gate()
    seen = []

    def first():
        context = activity_context()
        seen.append(context.last_heartbeat)
        if context.attempt == 1:
            context.heartbeat({"done": 1})
            context.heartbeat({"done": 2})
        return context.attempt

    policy = {"retry": QUICK, "heartbeat_timeout": timedelta(milliseconds=150), "name": "work"}
    if style == "async":

        @activity(**policy)
        async def work() -> int:
            attempt = first()
            if attempt == 1:
                await anyio.sleep_forever()
            return attempt

    else:

        @activity(**policy)
        def work() -> int:
            attempt = first()
            if attempt == 1:
                gate()
            return attempt

    result, _ = await result_of(path, lambda ctx: ctx.schedule_activity(work), work)
    gate.open()
    assert result == 2
    assert seen == [None, {"done": 2}]


@pytest.mark.slow
@bounded
@pytest.mark.parametrize("style", ["async", "thread", "own threads"])
async def test_heartbeats_keep_a_try_alive_longer_than_their_timeout(path, style):
    beats = 8
    pause = threading.Event()

    policy = {"retry": NO_RETRY, "heartbeat_timeout": timedelta(seconds=1), "name": "work"}
    if style == "async":

        @activity(**policy)
        async def work() -> str:
            for number in range(beats):
                await anyio.sleep(0.15)
                activity_context().heartbeat(number)
            return "alive"

    elif style == "thread":

        @activity(**policy)
        def work() -> str:
            for number in range(beats):
                pause.wait(0.15)
                activity_context().heartbeat(number)
            return "alive"

    else:

        @activity(**policy)
        def work() -> str:
            with ThreadPoolExecutor(1) as pool:
                for number in range(beats):
                    pause.wait(0.15)
                    pool.submit(
                        copy_context().run, lambda n=number: activity_context().heartbeat(n)
                    ).result()
            return "alive"

    result, _ = await result_of(path, lambda ctx: ctx.schedule_activity(work), work)
    assert result == "alive"


@bounded
async def test_a_heartbeat_of_a_failing_try_reaches_the_next_one_also_over_a_restart(path):
    @activity(retry=RetryPolicy(initial_interval=timedelta(milliseconds=300), jitter=0))
    def work() -> list:
        context = activity_context()
        if context.attempt == 1:
            context.heartbeat([1, 2])
            raise ValueError("no")
        return [context.attempt, context.last_heartbeat]

    async def once(ctx, value):
        return await ctx.schedule_activity(work)

    async with runtime(path, once, activities=[work]) as node:
        handle = await node.client.start("once", instance_id="one")
        await info_when(
            handle, lambda info: info.pending_activities and info.pending_activities[0].attempt == 2
        )
    async with runtime(path, once, activities=[work]) as node:
        assert await node.client.handle("one").result() == [2, [1, 2]]


@bounded
async def test_a_heartbeat_after_the_runtime_has_gone_is_harmless(path):
    gate = Gate()
    told = []
    done = threading.Event()

    @activity(heartbeat_timeout=NEVER)
    def work() -> None:
        context = activity_context()
        gate()
        try:
            told.append(context.cancelled)
            context.heartbeat(1)
            told.append("beaten")
        finally:
            done.set()

    async def once(ctx, value):
        await ctx.schedule_activity(work)

    async with runtime(path, once, activities=[work], grace=timedelta(0)) as node:
        await node.client.start("once")
        await when_set(gate.entered)
    gate.open()
    await when_set(done)
    assert told == [True, "beaten"]


@bounded
async def test_a_thread_may_ask_whether_it_is_cancelled_at_any_time(path):
    """Scenario 28."""

    @activity(timeout=NEVER)
    def work() -> bool:
        return activity_context().cancelled

    result, _ = await result_of(path, lambda ctx: ctx.schedule_activity(work), work)
    assert result is False


# --- cancellation -------------------------------------------------------------------------------


@bounded
@pytest.mark.parametrize("way", ["race", "terminate", "cancel"])
async def test_an_activity_that_is_not_wanted_any_more_is_cancelled(path, way):
    """Scenario 28."""
    gate = Gate()
    begun, cancelled = anyio.Event(), anyio.Event()
    learned = []
    done = threading.Event()

    @activity
    async def in_task() -> str:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    @activity
    def in_thread() -> str:
        context = activity_context()
        gate()
        learned.append(context.cancelled)
        done.set()
        return "late"

    async def racing(ctx, value):
        won = await ctx.race(
            ctx.gather(ctx.schedule_activity(in_task), ctx.schedule_activity(in_thread)),
            ctx.wait_for_event("go"),
        )
        await ctx.wait_for_event("end")
        return won.index

    async with runtime(path, racing, activities=[in_task, in_thread]) as node:
        handle = await node.client.start("racing")
        await begun.wait()
        await when_set(gate.entered)
        if way == "race":
            await handle.raise_event("go")
        else:
            await getattr(handle, way)()
        await cancelled.wait()
        gate.open()
        await when_set(done)
        assert learned == [True]
        if way == "race":
            info = await handle.info()
            assert info.waiting_counts == {"event": 1}
            assert info.pending_activities == ()
            await handle.raise_event("end")
            assert await handle.result() == 1
        history = await node.client.get_history(handle.instance_id)
    assert not [event for event in history if event.kind == "activity_completed"]


@bounded
async def test_an_activity_that_answers_its_cancellation_with_a_result_is_not_believed(path):
    """Scenario 28."""
    begun = anyio.Event()
    left = anyio.Event()

    @activity
    async def defiant() -> str:
        begun.set()
        with suppress(BaseException):
            await anyio.sleep_forever()
        left.set()
        return "I do not care"

    async def racing(ctx, value):
        won = await ctx.race(ctx.schedule_activity(defiant), ctx.wait_for_event("go"))
        await ctx.wait_for_event("end")
        return won.index

    async with runtime(path, racing, activities=[defiant]) as node:
        handle = await node.client.start("racing")
        await begun.wait()
        await handle.raise_event("go")
        await left.wait()
        await handle.raise_event("end")
        assert await handle.result() == 1


# --- how many -----------------------------------------------------------------------------------


@bounded
async def test_no_more_activities_run_at_once_than_allowed_and_all_are_run(path):
    running = most = 0

    @activity
    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.002)
        running -= 1
        return number

    async def many(ctx, value):
        return sum(
            await ctx.gather(*(ctx.schedule_activity(work, number) for number in range(100)))
        )

    async with runtime(path, many, activities=[work], max_concurrent_activities=7) as node:
        handles = [await node.client.start("many") for _ in range(2)]
        assert [await handle.result() for handle in handles] == [4950, 4950]
    assert most == 7


@bounded
async def test_a_waiting_activity_that_is_not_wanted_any_more_is_never_begun(path):
    go_on = anyio.Event()
    begun = []

    @activity
    async def work(name: str) -> str:
        begun.append(name)
        await go_on.wait()
        return name

    async def racing(ctx, value):
        first = ctx.schedule_activity(work, "first")
        await ctx.race(ctx.schedule_activity(work, "loser"), ctx.wait_for_event("go"))
        return [await first, await ctx.schedule_activity(work, "third")]

    async with runtime(path, racing, activities=[work], max_concurrent_activities=1) as node:
        handle = await node.client.start("racing")
        await until(lambda: begun)
        await handle.raise_event("go")
        await info_when(handle, lambda info: info.waiting_counts == {"activity": 1})
        go_on.set()
        assert await handle.result() == ["first", "third"]
    assert begun == ["first", "third"]


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_a_fan_out_of_a_thousand_and_twenty_four_is_ordinary(path, style):
    """Scenario 24."""
    if style == "async":

        @activity(name="work")
        async def work(number: int) -> int:
            return number

    else:

        @activity(name="work")
        def work(number: int) -> int:
            return number

    async def many(ctx, value):
        results = await ctx.gather(*(ctx.schedule_activity(work, number) for number in range(1024)))
        return list(results) == list(range(1024))

    async with runtime(path, many, activities=[work]) as node:
        assert await (await node.client.start("many")).result() is True


@bounded
async def test_a_terminated_instance_says_so_and_its_late_activity_changes_nothing(path):
    gate = Gate()
    done = threading.Event()

    @activity
    def work() -> str:
        gate()
        done.set()
        return "late"

    async def once(ctx, value):
        return await ctx.schedule_activity(work)

    async with runtime(path, once, activities=[work]) as node:
        handle = await node.client.start("once")
        await when_set(gate.entered)
        await handle.terminate("enough")
        gate.open()
        await when_set(done)
        with pytest.raises(InstanceTerminated, match="enough"):
            await handle.result()
        assert (await node.client.get_history(handle.instance_id))[
            -1
        ].kind == "execution_terminated"


@bounded
async def test_a_failure_that_nobody_catches_fails_the_instance_with_its_cause(path):
    @activity(retry=NO_RETRY)
    def work() -> None:
        raise ValueError("the cause")

    async def once(ctx, value):
        await ctx.schedule_activity(work)

    async with runtime(path, once, activities=[work]) as node:
        handle = await node.client.start("once")
        with pytest.raises(InstanceFailed, match="the cause") as failed:
            await handle.result()
        assert failed.value.error.type == "orchestra.errors.ActivityFailed"
    async with alone(path) as client:
        assert "the cause" in (await client.get_instance_info(handle.instance_id)).error.message


# --- errors -------------------------------------------------------------------------------------


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_a_group_with_one_error_that_is_not_to_be_retried_is_not_tried_again(path, style):
    tries = []

    def refuse():
        tries.append(1)
        raise ExceptionGroup(
            "unhandled errors in a TaskGroup",
            [OSError("no route"), NonRetryable("no such customer")],
        )

    async def refuse_async():
        refuse()

    pay = activity(name="pay", retry=QUICK)(refuse if style == "thread" else refuse_async)
    told, _ = await result_of(path, lambda ctx: ctx.schedule_activity(pay), pay)
    assert (len(tries), told["reason"]) == (1, "not retryable")


@bounded
async def test_an_error_s_cause_and_members_reach_the_code_the_client_the_history_and_the_log(
    path, caplog
):
    seen = []

    @activity(retry=NO_RETRY)
    async def store():
        async def refuse():
            raise ConnectionError("db-7 refused the connection")

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(refuse)
        except ExceptionGroup as group:
            raise RuntimeError("could not store the order") from group

    async def order(ctx, value):
        try:
            await ctx.schedule_activity(store)
        except ActivityFailed as failed:
            seen.append(failed.cause)
            raise

    async with runtime(path, order, activities=[store]) as node:
        handle = await node.client.start("order")
        with pytest.raises(InstanceFailed, match="db-7 refused the connection") as caught:
            await handle.result()
        history = await node.client.get_history(handle.instance_id)
    assert seen[0].cause.members[0].message == "db-7 refused the connection"
    assert caught.value.error.cause.message == "could not store the order"
    (failed,) = [event for event in history if event.kind == "activity_failed"]
    assert failed.details["error"] == seen[0]
    assert "attempt 1 failed" in caplog.text
    assert "db-7 refused the connection" in caplog.text
