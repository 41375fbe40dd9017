"""Services with libraries of different ages on one store, through the public API (protocol rules 37
and 38).

The newer one is an artificial next library: it knows a kind more of each sort, an event format
more, and its schema has more.
"""

from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestra import (
    Client,
    Exact,
    Latest,
    LevelTooLow,
    LibraryTooOld,
    NewerLibraryNeeded,
    Range,
    Runtime,
    UnknownPolicy,
    UnreadablePolicy,
)
from orchestra.store.kinds import THIS_LIBRARY, HoldKind
from tests.support.ages import (
    FIRST_LIBRARY,
    FORMAT_LIBRARY,
    LATER_LIBRARY,
    NEXT_FORMAT,
    NEXT_LEVEL,
    NEXT_LIBRARY,
    STERN_LIBRARY,
)
from tests.support.kit import bounded, echo, idle, info_when, registry, until

pytestmark = pytest.mark.anyio

LEASE = timedelta(seconds=5)
POLL = timedelta(milliseconds=50)


async def typed(ctx, value: int):
    return value


async def napping(ctx, value):
    await ctx.schedule_timer(timedelta(milliseconds=1))
    return await ctx.wait_for_event("go")


def service(store, *entries, library=THIS_LIBRARY, **options):
    return Runtime(store(library=library), registry(*entries), lease=LEASE, poll=POLL, **options)


async def level_is(client, level):
    async def look():
        return (await client._access.catalogue(0)).levels.write == level

    await until(look)


@pytest.mark.slow
@bounded
async def test_services_of_two_ages_share_the_work_and_the_level_rises_when_the_old_one_has_gone(
    store,
):
    async with AsyncExitStack() as stack:
        older = AsyncExitStack()
        old = await older.enter_async_context(service(store, echo))
        new = await stack.enter_async_context(service(store, echo, library=NEXT_LIBRARY))
        async with older:
            for number in range(10):
                node = (old, new)[number % 2]
                assert await (await node.client.start("echo", number)).result() == number
            nodes = await old.client.list_nodes()
            assert [(node.reads, node.formats) for node in nodes] == [
                (THIS_LIBRARY.level, (1,)),
                (NEXT_LEVEL, (1, NEXT_FORMAT)),
            ]
            assert (await new.client._access.catalogue(0)).levels.write == THIS_LIBRARY.level
        await level_is(new.client, NEXT_LEVEL)
        handle = await new.client.start("echo", 1)
        assert await handle.result() == 1


@pytest.mark.slow
@bounded
async def test_a_library_is_rolled_back_and_what_it_does_not_know_waits_visibly_for_the_newer_one(
    store,
):
    async with service(store, idle, napping, typed, library=NEXT_LIBRARY) as new:
        await level_is(new.client, NEXT_LEVEL)
        async with Client(
            store(library=NEXT_LIBRARY)
        ) as without_code:  # one that knows the code refuses the input itself
            await without_code.start("typed", "text", instance_id="held")
        held = new.client.handle("held")
        await info_when(held, lambda info: info.status == "held")
        newer = await new.client.start("napping", 1, instance_id="newer")
        await info_when(newer, lambda info: any(wait.kind == "event" for wait in info.waiting_on))
        cancelled = await new.client.start("idle", 1, instance_id="cancelled")
        await info_when(cancelled, lambda info: info.waiting_on)
        await new.client.cancel("cancelled")
        await info_when(cancelled, lambda info: info.status == "cancelled")
    async with service(store, idle, napping, echo, ("typed", "1.0.0", echo)) as old:
        client = old.client
        assert await (await client.start("echo", 1)).result() == 1, "everything else goes on"
        infos = {info.instance_id: info for info in (await client.list_instances()).items}
        assert infos["held"].status == "held"
        assert infos["held"].held_reason.startswith("unknown hold 'shape': ")
        assert infos["newer"].status == "held"
        assert infos["newer"].held_reason.startswith("no living node reads it: ")
        assert infos["newer"].held_reason.endswith("start a node with the newer library")
        assert infos["cancelled"].status == "unknown"
        assert [
            info.instance_id for info in (await client.list_instances(status="unknown")).items
        ] == ["cancelled"]
        (execution,) = await client.list_executions("cancelled")
        assert execution.status == "unknown"
        first, *_ = await client.get_history("newer")
        assert (first.kind, first.is_readable) == ("execution_started", False)
        assert "event 1 has an unknown event format 2" in str(first.details["event"])
        for refused in (
            client.release("held"),
            client.terminate("newer"),
            client.delete("cancelled"),
        ):
            with pytest.raises(
                NewerLibraryNeeded, match=r"nothing was changed\. Do it with that library"
            ):
                await refused
        with pytest.raises(NewerLibraryNeeded):
            await client.wait_for_completion("cancelled")
        assert (await client.get_instance_info("held")).held_reason == infos["held"].held_reason
        await client.raise_event("newer", "go", 7)
    async with service(store, idle, napping, ("typed", "1.0.0", echo), library=NEXT_LIBRARY) as new:
        assert await new.client.handle("newer").result() == 7
        assert await new.client.handle("held").result() == "text"
        await new.client.delete("cancelled")


@pytest.mark.slow
@bounded
async def test_a_policy_of_a_newer_library_is_refused_at_starts_with_its_text_and_the_remedy(store):
    async with service(store, echo, library=NEXT_LIBRARY) as new:
        await level_is(new.client, NEXT_LEVEL)
        await new.client.set_version_policy("echo", Exact("1.0.0"))
        async with Client(store()) as client:
            assert (await client.get_version_policy("echo")).policy == UnknownPolicy("only:1.0.0")
            with pytest.raises(
                UnreadablePolicy,
                match=r"'only:1\.0\.0', .* upgrade the library here, name a version, or",
            ) as error:
                await client.start("echo", 1)
            assert (error.value.name, error.value.value) == ("echo", "only:1.0.0")
            assert await (await client.start("echo", 1, version="1.0.0")).result() == 1
            await client.set_version_policy("echo", Latest())
            assert await (await client.start("echo", 2)).result() == 2


@bounded
async def test_a_registry_whose_range_an_older_node_cannot_read_is_refused_while_that_node_lives(
    store,
):
    known = registry(echo, policies={"echo": Range("^1")})
    async with service(store, echo, library=FIRST_LIBRARY):
        with pytest.raises(LevelTooLow, match=r"range:\^1 of 'echo' .* start with Latest\(\)"):
            async with Runtime(store(), known):
                raise AssertionError("it must not be entered")
        async with Client(store()) as client:
            with pytest.raises(LevelTooLow):
                await client.set_version_policy("echo", Range("^1"))
    async with Runtime(store(), known) as runtime:
        assert (await runtime.client.get_version_policy("echo")).policy == Range("^1")
        assert await (await runtime.client.start("echo", 1)).result() == 1


@pytest.mark.slow
@bounded
async def test_a_service_that_newer_ones_have_ruled_out_is_not_entered_and_a_client_is_told_as_well(
    store,
):
    async with service(store, echo, library=STERN_LIBRARY) as new:
        await level_is(new.client, NEXT_LEVEL)
        for user in (service(store, echo), Client(store())):
            with pytest.raises(
                LibraryTooOld,
                match=rf"needs a library that reads level {NEXT_LEVEL}; .* Upgrade the library here",
            ):
                async with user:
                    raise AssertionError("it must not be entered")
        assert await (await new.client.start("echo", 1)).result() == 1


@bounded
async def test_a_service_that_is_ruled_out_while_it_runs_stops_with_the_error_and_its_work_goes_on_elsewhere(
    store,
):
    """As by a migration that contracts: no level rises while it lives."""
    provider = store(library=THIS_LIBRARY)
    with pytest.raises(LibraryTooOld):
        await _ruled_out_while_it_runs(provider)
    async with service(store, idle, library=NEXT_LIBRARY) as new:
        await new.client.raise_event("i", "go", 7)
        assert await new.client.handle("i").result() == 7


async def _ruled_out_while_it_runs(provider):
    async with Runtime(provider, registry(idle), lease=LEASE, poll=POLL) as old:
        handle = await old.client.start("idle", 1, instance_id="i")
        await info_when(handle, lambda info: info.waiting_on)
        stands = provider.store.catalogue
        provider.store.catalogue = lambda: _ruled_out(stands())
        await handle.result()


def _ruled_out(catalogue):
    return replace(
        catalogue, levels=NEXT_LIBRARY.target(NEXT_LEVEL)._replace(lowest_reader=NEXT_LEVEL)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("writes", "lives", "number"),
    [(FORMAT_LIBRARY, THIS_LIBRARY, NEXT_FORMAT), (THIS_LIBRARY, LATER_LIBRARY, 1)],
    ids=["an older library", "a newer library"],
)
@bounded
async def test_what_no_living_library_reads_is_held_with_its_format_listed_and_ended_and_deleted(
    store, writes, lives, number
):
    async with service(store, idle, library=writes) as first:
        handles = [await first.client.start("idle", each) for each in range(4)]
        for handle in handles:
            await info_when(handle, lambda info: info.waiting_on and info.owner is None)
    back = handles.pop()
    ids = sorted(handle.instance_id for handle in handles)
    async with service(store, idle, library=lives) as node:
        client = node.client
        gone_back = await client.rewind(back.instance_id, 1)
        assert gone_back.executions_without_history == (1,)
        info = await info_when(client.handle(back.instance_id), lambda info: info.waiting_on)
        assert (info.execution_id, info.status) == (2, "running")
        await client.terminate(back.instance_id)
        held = await client.list_instances(status="held")
        assert sorted(info.instance_id for info in held.items) == ids
        for info in held.items:
            assert info.hold.kind == HoldKind.VERSION_MISSING
            assert f"its history is in format {number}, which no living node reads" in (
                info.hold.detail
            )
        (report,) = await client.version_report()
        assert (report.live, report.held, report.waiting) == (3, 3, 0)
        assert any(f"its history is in format {number}" in each for each in report.blockers)
        async with service(store, idle, library=writes) as reads_it:
            # A living node reads it: its library, and no other, ends it.
            with pytest.raises(NewerLibraryNeeded):
                await client.terminate(ids[0])
            await reads_it.client.terminate(ids[0])
        for instance_id in ids[1:]:
            await client.terminate(instance_id, "drained")
            info = await client.get_instance_info(instance_id)
            assert (info.status, info.error.message) == ("terminated", "drained")
            *_, last = await client.get_history(instance_id)
            assert (last.kind, last.is_readable) == ("execution_terminated", True)
        await client.delete(ids[1])
        (report,) = await client.version_report()
        assert report.live == 0
        assert [info.instance_id for info in (await client.list_instances()).items] != []
    async with service(store, idle, library=FORMAT_LIBRARY) as both:
        *_, last = await both.client.get_history(ids[2])
        assert last.kind == "execution_terminated"
        await both.client.delete(ids[2])
        await both.client.delete(ids[0])
