"""The summary of a store agrees with counts of its instances, and costs no look at them."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from orchestra import (
    Failure,
    InvalidArgument,
    OrchestrationRegistry,
    Runtime,
    SqliteProvider,
)
from orchestra.testing import TestRuntime

pytestmark = pytest.mark.anyio


async def waits(ctx, hours: int) -> None:
    await ctx.wait_for_event("go")
    ctx.continue_as_new(hours)


async def breaks(ctx, how: str) -> None:
    if how == "error":
        raise KeyError(how)
    if how == "failure":
        raise Failure(how)


def registry(*versions: str) -> OrchestrationRegistry:
    builder = OrchestrationRegistry.builder().register("breaks", breaks)
    for version in versions:
        builder.register("waits", waits, version=version)
    builder.set_boundary("waits", due=timedelta(hours=2))
    return builder.build()


async def test_a_summary_counts_what_lives_is_held_drifts_is_due_and_has_ended():
    async with TestRuntime(registry("1.0.0"), start=datetime(2026, 3, 1, tzinfo=UTC)) as env:
        client = env.client
        for number in range(4):
            await client.start("waits", 1, instance_id=f"w-{number}")
        for how in ("error", "failure", "end"):
            await client.start("breaks", how, instance_id=how)
        await env.run_until_idle()
        await client.hold("w-0", reason="calm")
        await env.upgrade(registry("1.0.0", "1.1.0"))
        summary = await client.summarize_store()
        assert (summary.live, summary.held, summary.total) == (5, 2, 7)
        assert summary.held_by_kind == {"operator": 1, "error": 1}
        assert summary.ended["failed"] == summary.ended["completed"] == 1
        assert summary.drifting == (await client.count_instances(drifting=True)).total == 4
        assert summary.versions == await client.version_report()
        await client.pin("w-1", "1.0.0", reason="calm")
        await client.pin("w-2", "1.1.0", reason="onward")
        await client.pin("w-3", "1.0.0", datetime(2026, 3, 1, 1, tzinfo=UTC), reason="for an hour")
        drifting = (await client.summarize_store()).drifting
        assert drifting == (await client.count_instances(drifting=True)).total == 2
        assert summary.at == await client.now() == datetime(2026, 3, 1, tzinfo=UTC)
        due = summary.boundaries
        assert (due.overdue, due.within_an_hour, due.within_a_day) == (0, 0, 4)
        await env.advance(timedelta(minutes=90))
        due = (await client.summarize_store()).boundaries
        assert (due.overdue, due.within_an_hour, due.within_a_day) == (0, 4, 0)
        await env.advance(timedelta(hours=1))
        due = (await client.summarize_store()).boundaries
        assert (due.overdue, due.within_an_hour, due.within_a_day) == (4, 0, 0)


async def test_a_version_that_no_node_has_holds_what_needs_it():
    async with TestRuntime(registry("1.0.0", "1.1.0")) as env:
        await env.client.start("waits", 1, instance_id="w")
        await env.run_until_idle()
        await env.upgrade(registry("1.0.0"))
        summary = await env.client.summarize_store()
        assert summary.held_by_kind == {"version_missing": 1}
        assert summary.held == (await env.client.count_instances(held=True)).total == 1


async def test_counts_by_status_and_hold_are_made_of_the_numbers_that_the_store_keeps():
    keys = ("name", "version", "status", "held")
    async with TestRuntime(
        registry("1.0.0", "1.1.0"), start=datetime(2026, 3, 1, tzinfo=UTC)
    ) as env:
        client = env.client
        for number in range(5):
            version = f"1.{number % 2}.0"
            await client.start("waits", 1, instance_id=f"w-{number}", version=version)
        for how in ("error", "failure", "end"):
            await client.start("breaks", how, instance_id=how)
        await client.start(
            "waits", 1, instance_id="later", not_before=datetime(2026, 3, 2, tzinfo=UTC)
        )
        await env.run_until_idle()
        await client.hold("w-0", reason="calm")
        await env.upgrade(registry("1.0.0"))
        counted = await client.count_instances(group_by=keys)
        # This condition makes it look at the instances.
        looked = await client.count_instances(
            created_after=datetime(2020, 1, 1, tzinfo=UTC), group_by=keys
        )
        assert counted == looked
        assert counted.total == 9
        held = await client.count_instances(group_by=("held",), name="waits")
        assert {group.values["held"]: group.count for group in held.groups} == {
            None: 2, "version_missing": 3, "operator": 1,
        }  # fmt: skip
        assert held.total == 6


async def test_a_search_has_a_limit(tmp_path):
    async with Runtime(SqliteProvider(tmp_path / "a.db"), registry("1.0.0")) as runtime:
        client = runtime.client
        for number in range(6):
            await client.start("waits", number, instance_id=f"w-{number}")
        asked = {"id_prefix": "w-0", "search_limit": 4}
        page = await client.list_instances(**asked)
        assert (page.items, page.searched) == ((), 4)
        page = await client.list_instances(**asked, page=page.next_page)
        assert [info.instance_id for info in page.items] == ["w-0"]
        assert page.next_page is page.searched is None
        whole = await client.list_instances(search_limit=2)
        assert len(whole.items) == 6, "an index finds it"
        with pytest.raises(InvalidArgument, match="search_limit"):
            await client.list_instances(search_limit=0)
        watch = client.watch_instances(id_prefix="w", order_by="oldest", search_limit=2)
        assert [(await anext(watch)).instance_id for _ in range(2)] == ["w-0", "w-1"]
        await client.terminate("w-0")
        changed = await anext(watch)
        assert (changed.instance_id, changed.change) == ("w-0", "changed")
        await watch.aclose()


async def test_a_count_stops_where_the_caller_says():
    async with TestRuntime(registry("1.0.0")) as env:
        for number in range(5):
            await env.client.start("waits", 1, instance_id=f"w-{number}")
        assert (await env.client.count_instances(id_prefix="w", at_most=3)).total == 3
        assert (await env.client.count_instances(id_prefix="w", at_most=9)).total == 5
        with pytest.raises(InvalidArgument, match="without groups"):
            await env.client.count_instances(group_by=("name",), at_most=3)
        with pytest.raises(InvalidArgument, match="at_most"):
            await env.client.count_instances(at_most=0)


async def test_a_watch_on_the_store_tells_of_changes_and_moves_no_virtual_time():
    async with TestRuntime(registry("1.0.0")) as env:
        begun = await env.client.now()
        with env.client.watch_store(timedelta(milliseconds=40)) as watch:
            assert await watch.wait() is False
            await env.client.start("waits", 1, instance_id="w")
            assert await watch.wait() is True
            assert await watch.wait() is False
        with env.client.watch_store(timedelta(days=1)) as watch, anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(watch.wait)
                await env.client.hold("w")
        assert await env.client.now() == begun
        with pytest.raises(InvalidArgument, match="longest"):
            env.client.watch_store(timedelta(0))
