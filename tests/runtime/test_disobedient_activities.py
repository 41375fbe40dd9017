"""Activities that do not end when they are told to: their time counts, others go on, the runtime
and the process can end.
"""

import subprocess
import sys
import textwrap
import threading
import time
from datetime import timedelta

import anyio
import pytest

from orchestra import NO_RETRY, ActivityFailed, RetryPolicy, activity, activity_context
from orchestra.codec import plain
from orchestra.engine.messages import Heartbeat
from orchestra.runtime import activities
from tests.support.kit import PATIENCE, QUICK, Gate, bounded, info_when, runtime, until, when_set

pytestmark = pytest.mark.anyio

SOON = timedelta(milliseconds=60)
AT_ONCE = timedelta(milliseconds=50)


class Caught:
    """Counts how often an activity has caught its cancellation."""

    def __init__(self):
        self.times = 0

    async def in_a_loop(self):
        while True:
            try:
                await anyio.sleep(0.05)
            except BaseException:
                self.times += 1

    async def around_a_scope(self):
        while True:
            try:
                with anyio.move_on_after(60):
                    await anyio.sleep(0.05)
            except BaseException:
                self.times += 1

    async def in_a_group(self):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 60)
            await self.in_a_loop()

    async def in_a_shield(self):
        with anyio.CancelScope(shield=True):
            await anyio.sleep(60)

    async def in_a_shielded_loop(self):
        with anyio.CancelScope(shield=True):
            await self.in_a_loop()


KINDS = ["in_a_loop", "around_a_scope", "in_a_group", "in_a_shield", "in_a_shielded_loop"]


def told(caplog, text):
    return [record for record in caplog.records if text in record.getMessage()]


@activity
async def fine() -> str:
    return "fine"


async def outcome(ctx, scheduled):
    try:
        return await scheduled
    except ActivityFailed as failed:
        return [failed.cause.type, failed.tries]


@pytest.mark.slow
@bounded
@pytest.mark.parametrize("kind", KINDS)
async def test_a_task_that_swallows_its_cancellation_times_out_is_named_and_burns_nothing(
    path, kind, caplog, monkeypatch
):
    """Scenario 58."""
    monkeypatch.setattr(activities, "_PATIENCE", 0.3)
    caught = Caught()
    stubborn = activity(
        name="stubborn",
        retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0)),
        timeout=SOON,
    )(getattr(caught, kind))

    async def both(ctx, value):
        return [
            await outcome(ctx, ctx.schedule_activity(stubborn)),
            await ctx.schedule_activity(fine),
        ]

    options = {"grace": AT_ONCE, "max_concurrent_activities": 1}
    async with runtime(path, both, activities=[stubborn, fine], **options) as node:
        handle = await node.client.start("both")
        assert await handle.result() == [["TimeoutError", 2], "fine"]
        await anyio.sleep(0.3)
        before, used = caught.times, time.process_time()
        await anyio.sleep(0.5)
        assert (
            caught.times - before <= 2 * 12
        )  # not more than it would see without any cancellation
        assert time.process_time() - used < 0.4
    named = told(caplog, "does not end: it was cancelled")
    assert [record.instance_id for record in named] == [handle.instance_id] * 2
    assert "its time is up" in named[0].getMessage()


@pytest.mark.slow
@bounded
@pytest.mark.parametrize("kind", KINDS)
async def test_the_runtime_leaves_soon_after_its_grace_whatever_an_activity_does(
    path, kind, caplog
):
    stubborn = activity(name="stubborn", retry=NO_RETRY)(getattr(Caught(), kind))

    async def asks(ctx, value):
        return await ctx.schedule_activity(stubborn)

    async with runtime(path, asks, activities=[stubborn], grace=AT_ONCE) as node:
        await node.client.start("asks", instance_id="one")
        await until(lambda: node._runner._tasks)
        await anyio.sleep(0.05)
    named = told(caplog, "has not ended when the runtime stopped") + told(
        caplog, "it catches that again and again"
    )
    assert len(named) == 1
    again = activity(name="stubborn", retry=NO_RETRY)(fine.function)
    async with runtime(path, asks, activities=[again]) as node:
        assert await node.client.handle("one").result() == "fine"


@pytest.mark.slow
@bounded
async def test_a_loser_of_a_race_that_does_not_end_gives_its_place_away(path, caplog):
    stubborn = activity(name="stubborn")(Caught().in_a_loop)

    async def racing(ctx, value):
        await ctx.race(ctx.schedule_activity(stubborn), ctx.schedule_timer(SOON))
        return await ctx.schedule_activity(fine)

    options = {"grace": AT_ONCE, "max_concurrent_activities": 1}
    async with runtime(path, racing, activities=[stubborn, fine], **options) as node:
        assert await (await node.client.start("racing")).result() == "fine"
    assert "its result is not needed" in told(caplog, "does not end")[0].getMessage()


@bounded
async def test_an_activity_that_cleans_up_in_a_shield_has_the_time_for_it_and_is_not_named(
    path, caplog
):
    ended = []

    @activity(retry=NO_RETRY, timeout=SOON)
    async def tidy() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.3)
            ended.append(True)

    async def asks(ctx, value):
        return await outcome(ctx, ctx.schedule_activity(tidy)), list(ended)

    async with runtime(path, asks, activities=[tidy]) as node:
        assert await (await node.client.start("asks")).result() == [["TimeoutError", 1], [True]]
    assert told(caplog, "does not end") == []


@pytest.mark.slow
@bounded
async def test_a_task_that_blocks_the_event_loop_is_named(path, caplog):
    @activity(retry=NO_RETRY)
    async def blocks() -> str:
        time.sleep(1.2)
        return "late"

    async def asks(ctx, value):
        return await ctx.schedule_activity(blocks)

    async with runtime(path, asks, activities=[blocks]) as node:
        assert await (await node.client.start("asks")).result() == "late"
    assert len(told(caplog, "'blocks', attempt 1, has blocked the event loop")) == 1


@bounded
@pytest.mark.parametrize("raised", [GeneratorExit, StopAsyncIteration, SystemExit])
async def test_what_ends_generators_and_programs_ends_only_the_activity(path, raised):
    @activity(retry=NO_RETRY)
    async def odd() -> None:
        await anyio.sleep(0)
        raise raised

    async def asks(ctx, value):
        return await outcome(ctx, ctx.schedule_activity(odd))

    async with runtime(path, asks, activities=[odd]) as node:
        assert await (await node.client.start("asks")).result() == [raised.__name__, 1]


# --- threads ------------------------------------------------------------------------------------


@pytest.mark.slow
@bounded
async def test_threads_that_hang_are_named_and_their_number_has_a_bound(path, caplog):
    gate = Gate()
    begun = []

    @activity(retry=NO_RETRY, timeout=SOON)
    def hangs(number: int) -> None:
        begun.append(number)
        gate()

    @activity
    def works() -> str:
        return "works"

    async def many(ctx, value):
        ends = await ctx.gather(
            *(outcome(ctx, ctx.schedule_activity(hangs, number)) for number in range(4))
        )
        return [*ends, await ctx.schedule_activity(works)]

    async with runtime(
        path, many, activities=[hangs, works], max_activity_threads=2, grace=AT_ONCE
    ) as node:
        handle = await node.client.start("many")
        await until(
            lambda: len(begun) == 4
        )  # two more than may run at once: their threads were given up
        await until(lambda: len(told(caplog, "its thread goes on in the background")) == 4)
        assert (await handle.info()).waiting_counts == {"activity": 1}
        gate.open()
        assert await handle.result() == [["TimeoutError", 1]] * 4 + ["works"]
        await until(lambda: node._runner._left == 0)


@pytest.mark.slow
@bounded
async def test_a_thread_that_ends_soon_after_it_was_told_is_not_named(path, caplog):
    told_so = threading.Event()

    @activity(retry=NO_RETRY, timeout=SOON)
    def obeys() -> None:
        while not activity_context().cancelled:
            told_so.wait(0.01)
        told_so.set()

    async def asks(ctx, value):
        return await outcome(ctx, ctx.schedule_activity(obeys))

    async with runtime(path, asks, activities=[obeys]) as node:
        assert await (await node.client.start("asks")).result() == ["TimeoutError", 1]
        await when_set(told_so)
        await anyio.sleep(1.1)
    assert told(caplog, "does not end") == []


@bounded
async def test_a_thread_finds_the_way_back_to_its_event_loop_and_may_run_one_of_its_own(
    path, anyio_backend
):
    async def answer():
        await anyio.sleep(0)
        return 42

    @activity(retry=NO_RETRY)
    def asks_back() -> int:
        return anyio.run(answer)

    @activity(retry=NO_RETRY)
    def asks_the_host() -> int:
        return anyio.from_thread.run(answer)

    async def both(ctx, value):
        own = await ctx.schedule_activity(asks_back)
        return [
            own,
            await ctx.schedule_activity(asks_the_host) if anyio_backend == "asyncio" else 42,
        ]

    async with runtime(path, both, activities=[asks_back, asks_the_host]) as node:
        assert await (await node.client.start("both")).result() == [42, 42]


PROGRAM = """
    import sys, time, anyio
    from datetime import timedelta
    from orchestra import NO_RETRY, OrchestrationRegistry, Runtime, SqliteProvider, activity

    @activity(retry=NO_RETRY, timeout=timedelta(milliseconds=100))
    def hangs() -> None:
        time.sleep(1000)

    @activity(retry=NO_RETRY, timeout=timedelta(milliseconds=100))
    async def swallows() -> None:
        while True:
            try:
                await anyio.sleep(1)
            except BaseException:
                pass

    async def asks(ctx, which):
        await ctx.schedule_activity(hangs if which == "hangs" else swallows)

    async def main():
        registry = OrchestrationRegistry.builder().register("asks", asks).build()
        options = {"grace": timedelta(milliseconds=100)}
        async with Runtime(SqliteProvider(sys.argv[1]), registry, [hangs, swallows], **options) as node:
            for which in ("hangs", "swallows"):
                await node.client.start("asks", which)
            await anyio.sleep(0.5)

    anyio.run(main, backend=sys.argv[2])
    print("left", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_process_ends_though_its_activities_do_not(path, backend, anyio_backend):
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(path), backend]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE * 2)
    assert (ended.returncode, ended.stdout.strip()) == (0, "left")


# --- heartbeats ---------------------------------------------------------------------------------


def noting(node):
    """Return the heartbeats that the runner reports from now on."""
    beats = []
    report = node._runner._report

    def noted(item):
        if isinstance(item, Heartbeat):
            beats.append(plain(item.payload))
        report(item)

    node._runner._report = noted
    return beats


@pytest.mark.slow
@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_of_a_burst_of_heartbeats_few_are_stored_and_the_last_one_is(path, style):
    """Scenario 62."""
    count = 20_000
    gate, go_on = Gate(), anyio.Event()

    def burst():
        for number in range(count):
            activity_context().heartbeat(number)

    if style == "async":

        @activity(name="work", heartbeat_timeout=timedelta(hours=1))
        async def work() -> str:
            burst()
            await go_on.wait()
            return "done"

    else:

        @activity(name="work", heartbeat_timeout=timedelta(hours=1))
        def work() -> str:
            burst()
            gate()
            return "done"

    async def asks(ctx, value):
        return await ctx.schedule_activity(work)

    async with runtime(path, asks, activities=[work]) as node:
        beats = noting(node)
        posts = []
        post, node._runner._post = node._runner._post, lambda news: (posts.append(news), post(news))
        handle = await node.client.start("asks")
        await until(lambda: beats and beats[-1] == count - 1)  # although it is silent since then
        assert len(beats) + len(posts) < 40
        gate.open()
        go_on.set()
        assert await handle.result() == "done"


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_the_last_heartbeat_before_a_failure_reaches_the_next_try(path, style):
    def work():
        context = activity_context()
        if context.attempt == 1:
            for number in range(1_000):
                context.heartbeat(number)
            raise ValueError("no")
        return context.last_heartbeat

    async def work_async():
        return work()

    works = activity(name="work", retry=QUICK)(work if style == "thread" else work_async)

    async def asks(ctx, value):
        return await ctx.schedule_activity(works)

    async with runtime(path, asks, activities=[works]) as node:
        assert await (await node.client.start("asks")).result() == 999


@pytest.mark.slow
@bounded
async def test_heartbeats_that_come_faster_than_they_are_stored_put_the_deadline_off(path):
    pause = threading.Event()

    @activity(retry=NO_RETRY, heartbeat_timeout=timedelta(milliseconds=400))
    def work() -> str:
        for number in range(60):
            activity_context().heartbeat(number)
            pause.wait(0.02)
        return "alive"

    async def asks(ctx, value):
        return await outcome(ctx, ctx.schedule_activity(work))

    async with runtime(path, asks, activities=[work]) as node:
        handle = await node.client.start("asks")
        assert await handle.result() == "alive"
        await info_when(handle, lambda info: info.status == "completed")
