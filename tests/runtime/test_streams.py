"""What orchestrations publish, and what readers see: here, in other processes, over restarts."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from orchestra import (
    DecodeError,
    InstanceNotFound,
    InvalidArgument,
    Retention,
    StreamInfo,
    StreamRetention,
    StreamTruncated,
    activity,
)
from orchestra.clock import to_micros
from orchestra.providers.memory import Database, MemoryProvider
from orchestra.store.kinds import THIS_LIBRARY
from orchestra.sync import connect
from orchestra.testing import ManualClock, NothingHappens, crash_everywhere
from tests.support.contract.shorthand import a_node
from tests.support.kit import alone, bounded, info_when, runtime, virtual

pytestmark = pytest.mark.anyio


@dataclass
class Progress:
    done: int
    of: int


async def count(ctx, upto):
    """Publishes 1 to a number, one a turn."""
    for number in range(1, upto + 1):
        ctx.publish("progress", number)
        await ctx.schedule_timer(timedelta(seconds=1))
    return upto


async def speaking(ctx, number):
    """Publishes all at once."""
    for value in range(number):
        ctx.publish("said", value)


async def looping(ctx, lap):
    """Publishes in each of three laps, and in the last turn as well."""
    ctx.publish("laps", f"begin {lap}")
    await ctx.wait_for_event("go")
    ctx.publish("laps", f"end {lap}")
    if lap < 3:
        ctx.continue_as_new(lap + 1)


OLD_LIBRARY = replace(THIS_LIBRARY, level=2, writes=2)
NOTED = []


@activity
async def note(value: int) -> int:
    NOTED.append(value)
    return value


async def noted(ctx, value):
    """Publishes what an activity has returned."""
    value = await ctx.schedule_activity(note, value)
    ctx.publish("s", value)
    return value


async def read_all(source, *args, **kwargs):
    return [item async for item in source.read_stream(*args, **kwargs)]


class TestAReader:
    """Scenario 76."""

    async def test_it_gets_each_item_once_in_order_and_ends_with_the_instance(self):
        async with virtual(Database(), count) as env:
            handle = await env.client.start("count", 3)
            items = await read_all(handle, "progress", int)
            assert [(item.offset, item.value) for item in items] == [(1, 1), (2, 2), (3, 3)]
            assert [item.at - items[0].at for item in items] == [
                timedelta(seconds=number) for number in range(3)
            ]
            assert items[0].at.tzinfo is UTC
            assert {(item.execution_id, item.event_id, item.attempt) for item in items} == {
                (1, None, None)
            }
            assert await read_all(env.client, handle.instance_id, "progress", after=2) == items[2:]
            (stream,) = await handle.list_streams()
            assert stream == StreamInfo("progress", 1, 3, 3)

    async def test_it_follows_over_boundaries(self):
        async with virtual(Database(), looping) as env:
            handle = await env.client.start("looping", 1)
            seen = []
            async for item in handle.read_stream("laps", str):
                seen.append(item.value)
                if item.value.startswith("begin"):
                    await handle.raise_event("go")
            assert seen == ["begin 1", "end 1", "begin 2", "end 2", "begin 3", "end 3"]

    async def test_it_goes_on_from_an_offset_over_a_restart_of_the_instance(self):
        async with virtual(Database(), count) as env:
            handle = await env.client.start("count", 2, instance_id="c")
            assert len(await read_all(handle, "progress")) == 2
            await env.client.start("count", 1, instance_id="c", if_ended="restart")
            items = await read_all(handle, "progress", after=2)
            assert [(item.offset, item.value, item.execution_id) for item in items] == [(3, 1, 2)]

    async def test_without_following_it_ends_with_what_is_there(self):
        async with virtual(Database(), looping) as env:
            handle = await env.client.start("looping", 1)
            assert [one.value for one in await read_all(handle, "laps", follow=False)] == [
                "begin 1"
            ]
            assert await read_all(handle, "other", follow=False) == []
            with pytest.raises(NothingHappens, match="publishes nothing more"):
                await read_all(handle, "laps")

    async def test_it_is_told_what_it_asks_wrongly(self):
        async with virtual(Database(), count) as env:
            handle = await env.client.start("count", 1)
            for wrong in ({"after": -1}, {"after": True}):
                with pytest.raises(InvalidArgument):
                    await read_all(handle, "progress", **wrong)
            with pytest.raises(InvalidArgument):
                await read_all(handle, "")
            with pytest.raises(DecodeError, match="progress"):
                await read_all(handle, "progress", Progress)
            with pytest.raises(InstanceNotFound):
                await read_all(env.client, "nobody", "progress")
            with pytest.raises(InstanceNotFound):
                await env.client.list_streams("nobody")

    async def test_behind_the_cut_it_learns_where_the_stream_begins(self):
        kept = Retention(streams=StreamRetention(items=8))
        async with virtual(Database(), count, retention=kept) as env:
            handle = await env.client.start("count", 20)
            await handle.result()
            with pytest.raises(StreamTruncated) as caught:
                await read_all(handle, "progress")
            first = caught.value.first_offset
            assert 20 - 9 < first <= 20 - 8 + 1
            items = await read_all(handle, "progress", after=first - 1)
            assert [item.offset for item in items] == list(range(first, 21))
            (stream,) = await handle.list_streams()
            assert stream.first_offset == first

    async def test_a_reader_of_an_instance_that_was_deleted_and_started_anew_is_told(self):
        async with virtual(Database(), count) as env:
            handle = await env.client.start("count", 1, instance_id="c")
            reader = handle.read_stream("progress")
            assert (await anext(reader)).value == 1
            await handle.result()
            await handle.delete()
            await env.client.start("count", 1, instance_id="c")
            with pytest.raises(InstanceNotFound, match="another one"):
                await anext(reader)


class TestPublishing:
    async def test_nothing_is_published_twice_wherever_the_process_dies(self):
        async def scenario():
            async with virtual(Database(), looping) as env:
                handle = await env.client.start("looping", 1, instance_id="l")
                for _ in range(3):
                    await handle.raise_event("go")
                    await env.run_until_idle()
                await env.run_until(handle)
                items = await read_all(handle, "laps")
                assert [item.offset for item in items] == [1, 2, 3, 4, 5, 6]
                assert [item.value for item in items][::2] == ["begin 1", "begin 2", "begin 3"]

        await crash_everywhere(scenario)

    async def test_a_replay_publishes_nothing_again(self):
        async with virtual(Database(), count, cold=True) as env:
            handle = await env.client.start("count", 5)
            assert await handle.result() == 5
            assert [item.value for item in await read_all(handle, "progress")] == [1, 2, 3, 4, 5]

    async def test_a_turn_that_ends_in_a_hold_publishes_nothing(self):
        broken = True

        async def fails(ctx, value):
            ctx.publish("s", "before")
            await ctx.wait_for_event("go")
            ctx.publish("s", "after")
            if broken:
                raise KeyError("oops")

        database = Database()
        async with virtual(database, fails) as env:
            handle = await env.client.start("fails", None)
            await handle.raise_event("go")
            await env.run_until_idle()
            assert (await handle.info()).held_reason is not None
            assert [one.value for one in await read_all(handle, "s", follow=False)] == ["before"]
            broken = False
            await handle.release()
            await handle.result()
            assert [one.value for one in await read_all(handle, "s")] == ["before", "after"]

    async def test_an_instance_waits_until_all_nodes_know_streams(self):
        NOTED.clear()
        database = Database()
        begin = to_micros(datetime(2026, 3, 1, 1, tzinfo=UTC))
        old = MemoryProvider(database, clock=ManualClock(begin), library=OLD_LIBRARY)
        old.open()
        old.store.join(replace(a_node("old"), reads=2, writes=2, capabilities=(), activities=()))
        async with virtual(database, noted, activities=[note]) as env:
            handle = await env.client.start("noted", 3)
            await env.advance(timedelta(seconds=5))
            info = await handle.info()
            assert not info.status.is_final
            assert info.held_reason is None
            assert await handle.list_streams() == ()
            old.store.leave("old")
            env.provider.store.raise_level(THIS_LIBRARY.target(3))  # as each renewal of a node does
            await env.advance(timedelta(seconds=1))
            assert await handle.result() == 3
            assert [item.value for item in await read_all(handle, "s")] == [3]
        assert NOTED == [3], "what had ended did not run again (rule 39)"


class TestAcrossProcesses:
    @bounded
    async def test_a_reader_in_another_process_hears_what_is_published(self, tmp_path):
        path = tmp_path / "store.db"
        async with runtime(path, looping) as node, alone(path) as client:
            handle = await node.client.start("looping", 1, instance_id="l")
            seen = []
            async for item in client.read_stream("l", "laps", str):
                seen.append(item.value)
                if item.value.startswith("begin"):
                    await handle.raise_event("go")
            assert seen == ["begin 1", "end 1", "begin 2", "end 2", "begin 3", "end 3"]

    @bounded
    async def test_a_reader_follows_over_a_restart_of_the_process(self, tmp_path):
        path = tmp_path / "store.db"
        seen = []

        async def read(client, task_status):
            async for item in client.read_stream("l", "laps", str):
                seen.append(item.value)
                if len(seen) == 1:
                    task_status.started()

        async with alone(path) as client, anyio.create_task_group() as group:
            async with runtime(path, looping) as node:
                await node.client.start("looping", 1, instance_id="l")
                await group.start(lambda task_status: read(client, task_status))
            async with runtime(path, looping) as node:
                for lap in (1, 2, 3):
                    handle = node.client.handle("l")
                    await info_when(handle, lambda info, lap=lap: info.execution_id == lap)
                    await handle.raise_event("go")
                await handle.result()
        assert seen == ["begin 1", "end 1", "begin 2", "end 2", "begin 3", "end 3"]


def test_a_program_that_is_not_async_iterates_over_a_stream(tmp_path):
    with connect(runtime(tmp_path / "store.db", speaking)) as sync:
        handle = sync.call(sync.client.start, "speaking", 3)
        items = list(sync.iterate(handle.read_stream, "said", int))
        assert [(item.offset, item.value) for item in items] == [(1, 0), (2, 1), (3, 2)]
        iterated = sync.iterate(sync.client.read_stream, handle.instance_id, "said", after=2)
        assert [item.value for item in iterated] == [2]
