"""Watching instances and lists of them: here, from other processes, in virtual time."""

from contextlib import aclosing
from datetime import timedelta

import anyio
import pytest

import orchestra.sync
from orchestra import InstanceChange, InstanceNotFound, InstanceStatus, InvalidArgument, Selection
from orchestra.client import watching
from orchestra.providers.memory import Database
from orchestra.providers.postgres import PostgresProvider
from orchestra.testing import NothingHappens
from tests.support.kit import alone, bounded, idle, runtime, virtual

pytestmark = pytest.mark.anyio


async def steps(ctx, count):
    """Shows 1 to a number, one a minute."""
    for number in range(1, count + 1):
        ctx.set_custom_status(number)
        await ctx.schedule_timer(timedelta(minutes=1))
    return count


async def laps(ctx, left):
    await ctx.schedule_timer(timedelta(hours=1))
    if left:
        ctx.continue_as_new(left - 1)
    return "done"


async def hasty(ctx, left):
    if left:
        ctx.set_labels({"left": str(left)})
        await ctx.schedule_timer(timedelta(0))
        ctx.continue_as_new(left - 1)
    await ctx.wait_for_event("go")


async def told(source, *args, enough=None):
    """Return what a watch tells, until it ends or until it has told enough."""
    found = []
    async with aclosing(source(*args)) as watch:
        async for one in watch:
            found.append(one)
            if enough is not None and enough(one):
                break
    return found


class TestOneInstance:
    async def test_a_watcher_sees_each_step_and_ends_with_the_instance(self):
        async with virtual(Database(), steps) as env:
            handle = await env.client.start("steps", 3)
            infos = await told(env.client.watch, handle.instance_id)
            shown = list(dict.fromkeys(info.custom_status for info in infos))
            assert shown == [1, 2, 3]
            assert infos[-1].status is InstanceStatus.COMPLETED
            assert [info.status for info in infos[:-1]] == [InstanceStatus.RUNNING] * (
                len(infos) - 1
            )
            assert infos[-1] == await handle.info()

    async def test_a_handle_watches_its_instance_over_boundaries(self):
        async with virtual(Database(), laps) as env:
            handle = await env.client.start("laps", 2)
            infos = await told(handle.watch)
            assert list(dict.fromkeys(info.execution_id for info in infos)) == [1, 2, 3]
            assert infos[-1].output == "done"

    async def test_an_ended_instance_is_told_once(self):
        async with virtual(Database(), steps) as env:
            handle = await env.client.start("steps", 0)
            await handle.result()
            (info,) = await told(handle.watch)
            assert info.status is InstanceStatus.COMPLETED

    async def test_an_unknown_id_is_a_typed_error(self):
        async with virtual(Database(), steps) as env:
            with pytest.raises(InstanceNotFound):
                await told(env.client.watch, "nobody")
            with pytest.raises(InvalidArgument):
                await told(env.client.watch, "")

    async def test_a_watch_of_what_never_changes_fails_a_test_instead_of_hanging(self):
        async with virtual(Database(), idle) as env:
            handle = await env.client.start("idle")
            with pytest.raises(NothingHappens, match="does not change"):
                await told(handle.watch)

    async def test_what_operators_and_clients_do_is_seen(self):
        async with virtual(Database(), idle) as env:
            handle = await env.client.start("idle")
            watch = handle.watch()
            first = await anext(watch)
            assert (first.labels, first.hold, first.unread_messages) == ({}, None, 0)
            for act, seen in (
                (lambda: env.client.set_labels(handle.instance_id, {"a": "b"}), "labels"),
                (lambda: handle.raise_event("other", 1), "unread_messages"),
                (lambda: handle.hold(reason="lunch"), "hold"),
                (lambda: handle.release(), "hold"),
                (lambda: handle.raise_event("go", 1), "output"),
            ):
                before = first
                await act()
                first = await anext(watch)
                assert getattr(first, seen) != getattr(before, seen), seen
            assert first.status is InstanceStatus.COMPLETED
            with pytest.raises(StopAsyncIteration):
                await anext(watch)

    async def test_a_restart_after_the_end_is_not_followed(self):
        async with virtual(Database(), idle) as env:
            handle = await env.client.start("idle", instance_id="one")
            watch = handle.watch()
            await anext(watch)
            await handle.raise_event("go")
            await env.client.start("idle", instance_id="one", if_ended="restart")
            with pytest.raises(StopAsyncIteration):
                await anext(watch)

    async def test_an_instance_that_is_deleted_meanwhile_is_a_typed_error(self):
        async with virtual(Database(), idle) as env:
            handle = await env.client.start("idle")
            watch = handle.watch()
            await anext(watch)
            await handle.terminate()
            await env.client.delete(handle.instance_id)
            with pytest.raises(InstanceNotFound):
                await anext(watch)


class TestSeveralProcesses:
    @bounded
    async def test_a_client_of_its_own_sees_what_a_runtime_does(self, tmp_path):
        path = tmp_path / "app.db"
        async with runtime(path, idle) as here, alone(path) as there:
            handle = await here.client.start("idle")
            seen = []

            async with anyio.create_task_group() as group:

                async def follow():
                    seen.extend([info.status async for info in there.watch(handle.instance_id)])

                group.start_soon(follow)
                await handle.raise_event("go", "home")
            assert seen[-1] is InstanceStatus.COMPLETED

    @bounded
    async def test_a_busy_loop_is_coalesced(self, tmp_path):
        async with runtime(tmp_path / "app.db", hasty) as here:
            handle = await here.client.start("hasty", 300)
            infos = await told(handle.watch, enough=lambda info: info.execution_id == 301)
            assert len(infos) < 300
            assert infos[-1].execution_id == 301

    @bounded
    async def test_a_watch_of_a_stopped_runtime_ends_with_an_error(self, tmp_path):
        async with runtime(tmp_path / "app.db", idle) as here:
            handle = await here.client.start("idle")
            watch = handle.watch()
            await anext(watch)
        with pytest.raises(orchestra.RuntimeClosed):
            await anext(watch)

    @pytest.mark.slow
    @bounded
    async def test_a_client_sees_what_a_runtime_does_on_postgres(self, dsn):
        schema = "watching"
        async with (
            orchestra.Runtime(
                PostgresProvider(dsn, schema),
                orchestra.OrchestrationRegistry.builder().register("idle", idle).build(),
            ) as here,
            orchestra.Client(PostgresProvider(dsn, schema)) as there,
        ):
            handle = await here.client.start("idle")
            watch = there.watch(handle.instance_id)
            await anext(watch)
            await handle.raise_event("go", "home")
            *_, last = [info async for info in watch]
            assert last.output == "home"

    async def test_writers_pay_nothing_where_no_reader_watches(self):
        async with virtual(Database(), steps) as env:
            hints = env.provider.stream_hints
            watch = (await env.client.start("steps", 1)).watch()
            await anext(watch)
            assert hints.is_listening
            await watch.aclose()
            assert not hints.is_listening


class TestLists:
    async def test_a_list_tells_what_enters_changes_and_leaves(self):
        async with virtual(Database(), idle) as env:
            first = await env.client.start("idle", instance_id="first", labels={"team": "red"})
            await env.client.start("idle", instance_id="other")
            watch = env.client.watch_instances(Selection(labels={"team": "red"}))
            changes = [await anext(watch)]
            second = await env.client.start("idle", instance_id="second", labels={"team": "red"})
            changes.append(await anext(watch))
            await first.raise_event("go")
            changes.append(await anext(watch))
            await env.client.set_labels("second", {"team": "blue"})
            changes.append(await anext(watch))
            await watch.aclose()
            assert [(one.instance_id, one.change) for one in changes] == [
                ("first", "entered"),
                ("second", "entered"),
                ("first", "changed"),
                ("second", "left"),
            ]
            assert changes[2].info.status is InstanceStatus.COMPLETED
            assert changes[3] == InstanceChange("second", "left", None)
            del second

    async def test_conditions_may_be_keywords_and_only_the_first_ones_are_watched(self):
        async with virtual(Database(), idle) as env:
            for number in range(3):
                await env.client.start("idle", instance_id=f"i{number}")
            watch = env.client.watch_instances(name="idle", status=InstanceStatus.RUNNING, limit=2)
            entered = [await anext(watch), await anext(watch)]
            assert {one.instance_id for one in entered} == {"i1", "i2"}
            await env.client.terminate("i2")
            changes = [await anext(watch), await anext(watch)]
            assert [(one.instance_id, one.change) for one in changes] == [
                ("i2", "left"),
                ("i0", "entered"),
            ]
            await watch.aclose()

    async def test_what_cannot_be_watched_is_refused(self):
        async with virtual(Database(), idle) as env:
            with pytest.raises(InvalidArgument, match="search_limit"):
                await anext(env.client.watch_instances(search_limit=0))
            with pytest.raises(InvalidArgument):
                await anext(env.client.watch_instances(limit=0))
            with pytest.raises(InvalidArgument):
                env.client.watch_instances(Selection(), name="idle")


def test_a_program_that_is_not_async_watches_too(tmp_path):
    known = orchestra.OrchestrationRegistry.builder().register("idle", idle).build()
    provider = orchestra.SqliteProvider(tmp_path / "app.db", durability="relaxed")
    with orchestra.sync.connect(orchestra.Runtime(provider, known)) as sync:
        handle = sync.call(sync.client.start, "idle", None)
        seen = []
        for info in sync.iterate(sync.client.watch, handle.instance_id):
            if not seen:
                sync.call(handle.raise_event, "go", "home")
            seen.append(info.output)
        assert seen[-1] == "home"


def test_the_pauses_of_a_watch_are_short_after_a_change_and_bounded():
    assert 0 < watching._SHORTEST < watching._LONGEST <= 1.0
