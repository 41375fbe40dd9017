"""What activities publish: in order, tagged with the attempt, and refused from stale attempts."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from orchestra import (
    ActivityFailed,
    EncodeError,
    InvalidArgument,
    LevelTooLow,
    RetryPolicy,
    StaleAttempt,
    activity,
    activity_context,
)
from orchestra.clock import to_micros
from orchestra.providers.memory import Database, MemoryProvider
from orchestra.store.kinds import THIS_LIBRARY
from orchestra.testing import ManualClock, crash_everywhere
from tests.support.contract.shorthand import a_node
from tests.support.kit import QUICK, bounded, runtime, virtual

pytestmark = pytest.mark.anyio


@activity(retry=QUICK)
async def stream(count: int, failing: int = 0) -> int:
    """Publishes numbers; the first attempts fail in the middle."""
    context = activity_context()
    for number in range(1, count + 1):
        await context.publish("tokens", number)
        if context.attempt <= failing and number == count // 2:
            raise ValueError("half way")
    return count


@activity
def stream_in_thread(count: int) -> int:
    for number in range(1, count + 1):
        activity_context().publish("tokens", number)
    return count


async def speak(ctx, count):
    ctx.publish("tokens", "begin")
    result = await ctx.schedule_activity(stream, count)
    ctx.publish("tokens", "end")
    return result


async def fail_twice(ctx, count):
    return await ctx.schedule_activity(stream, count, 2)


async def from_a_thread(ctx, count):
    return await ctx.schedule_activity(stream_in_thread, count)


async def read_all(handle, **options):
    return [item async for item in handle.read_stream("tokens", **options)]


class TestItemsOfAnActivity:
    async def test_they_stand_between_what_the_turns_publish(self):
        async with virtual(Database(), speak, activities=[stream]) as env:
            handle = await env.client.start("speak", 5)
            items = await read_all(handle)
            assert [item.value for item in items] == ["begin", 1, 2, 3, 4, 5, "end"]
            assert [item.offset for item in items] == list(range(1, 8))
            assert [item.attempt for item in items] == [None, 1, 1, 1, 1, 1, None]
            scheduled = items[1].event_id
            assert scheduled is not None
            assert {item.event_id for item in items[1:6]} == {scheduled}

    @bounded
    async def test_a_failed_attempts_items_are_marked(self, tmp_path):
        """Scenario 76."""
        async with runtime(tmp_path / "store.db", fail_twice, activities=[stream]) as node:
            handle = await node.client.start("fail_twice", 4)
            items = await read_all(handle, type=int)
            values = [(item.attempt, item.value) for item in items]
            assert values == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (3, 4)]
            last = items[-1].attempt
            assert [item.value for item in items if item.attempt == last] == [1, 2, 3, 4]

    @bounded
    async def test_many_are_stored_in_order_and_the_activity_waits_for_room(self, tmp_path):
        async with runtime(tmp_path / "store.db", speak, activities=[stream]) as node:
            handle = await node.client.start("speak", 5_000)
            items = await read_all(handle)
            assert [item.value for item in items] == ["begin", *range(1, 5_001), "end"]

    @pytest.mark.parametrize("where", ["thread", "inline"])
    @bounded
    async def test_a_def_activity_publishes_without_await(self, tmp_path, where):
        make = (
            virtual(Database(), from_a_thread, activities=[stream_in_thread])
            if where == "inline"
            else runtime(tmp_path / "store.db", from_a_thread, activities=[stream_in_thread])
        )
        async with make as node:
            handle = await node.client.start("from_a_thread", 3_000)
            assert [item.value for item in await read_all(handle)] == list(range(1, 3_001))

    async def test_none_is_lost_or_doubled_wherever_the_process_dies(self):
        """What an attempt has published stays; the next attempt begins anew, under its number."""

        async def scenario():
            async with virtual(Database(), speak, activities=[stream]) as env:
                handle = await env.client.start("speak", 3, instance_id="s")
                await env.run_until(handle)
                items = await read_all(handle)
                assert [item.offset for item in items] == list(range(1, len(items) + 1))
                by_turns = [item.value for item in items if item.attempt is None]
                assert by_turns == ["begin", "end"]
                attempts = {item.attempt for item in items if item.attempt is not None}
                last = max(attempts)
                for attempt in attempts:
                    values = [item.value for item in items if item.attempt == attempt]
                    assert values == [1, 2, 3][: len(values)]
                    assert len(values) == 3 or attempt != last

        await crash_everywhere(scenario)

    @bounded
    async def test_an_activity_on_another_node_publishes_to_its_instance(self, tmp_path):
        """Handed out: under the fence of its task."""
        path = tmp_path / "store.db"

        @activity(queue="gpu", retry=QUICK)
        async def remote(count: int, failing: int = 0) -> int:
            return await stream.function(count, failing)

        async def far(ctx, count):
            return await ctx.schedule_activity(remote, count, 1)

        async with (
            runtime(path, far) as owner,
            runtime(path, activities=[remote], queues=["gpu"]),
        ):
            handle = await owner.client.start("far", 4)
            items = await read_all(handle)
            values = [(item.attempt, item.value) for item in items]
            assert values == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (2, 4)]


class TestRefusals:
    @bounded
    async def test_an_attempt_that_is_no_longer_current_is_refused(self, tmp_path):
        refused = []
        entered, ended = threading.Event(), threading.Event()

        @activity(timeout=timedelta(milliseconds=50), retry=RetryPolicy(max_attempts=1))
        def hangs() -> None:
            entered.wait(10)
            ended.wait(10)
            try:
                activity_context().publish("tokens", "late")
            except StaleAttempt as error:
                refused.append((error.activity, error.attempt, error.instance_id))

        async def waits(ctx, value):
            try:
                await ctx.schedule_activity(hangs)
            except ActivityFailed:
                return "timed out"

        entered.set()
        async with runtime(tmp_path / "store.db", waits, activities=[hangs]) as node:
            handle = await node.client.start("waits", None, instance_id="w")
            assert await handle.result(timeout=timedelta(seconds=10)) == "timed out"
            ended.set()
            with anyio.fail_after(10):
                while not refused:
                    await anyio.sleep(0.01)
            assert refused == [("hangs", 1, "w")]
            assert await handle.list_streams() == ()

    async def test_wrong_values_and_names_are_refused_where_they_are_given(self):
        caught = []

        @activity
        async def wrong() -> None:
            for name, value, error in (
                ("", 1, InvalidArgument),
                ("s", object(), EncodeError),
                ("s", float("nan"), EncodeError),
            ):
                with pytest.raises(error):
                    await activity_context().publish(name, value)
                caught.append(error)

        async def calls(ctx, value):
            await ctx.schedule_activity(wrong)
            with pytest.raises(InvalidArgument):
                ctx.publish("", 1)
            with pytest.raises(EncodeError):
                ctx.publish("s", float("nan"))

        async with virtual(Database(), calls, activities=[wrong]) as env:
            handle = await env.client.start("calls", None)
            await handle.result()
            assert len(caught) == 3
            assert await handle.list_streams() == ()

    async def test_an_activity_is_told_that_an_older_library_lives(self):
        database = Database()
        begin = to_micros(datetime(2026, 3, 1, 1, tzinfo=UTC))
        library = replace(THIS_LIBRARY, level=2, writes=2)
        old = MemoryProvider(database, clock=ManualClock(begin), library=library)
        old.open()
        old.store.join(replace(a_node("old"), reads=2, writes=2, capabilities=(), activities=()))
        caught = []

        @activity
        async def tells() -> None:
            with pytest.raises(LevelTooLow) as error:
                await activity_context().publish("tokens", 1)
            caught.append(error.value)

        async def calls(ctx, value):
            await ctx.schedule_activity(tells)

        async with virtual(database, calls, activities=[tells]) as env:
            handle = await env.client.start("calls", None)
            await handle.result()
            assert len(caught) == 1
            assert await handle.list_streams() == ()
