"""A year unattended, in small: rows, file and log stay bounded, and what has ended goes."""

from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from orchestra import (
    InstanceNotFound,
    OrchestrationRegistry,
    Retention,
    Runtime,
    SqliteProvider,
    activity,
)
from orchestra.client import Client
from orchestra.testing import TestRuntime
from tests.support.kit import bounded, info_when, registry, runtime, until

pytestmark = pytest.mark.anyio


@activity
async def work(number: int) -> int:
    return number + 1


async def loop(ctx, state: dict[str, int]) -> int:
    done = await ctx.schedule_activity(work, state["lap"])
    if done == state["laps"]:
        return done
    ctx.continue_as_new({"lap": done, "laps": state["laps"]})


def size(path):
    return Path(path).stat().st_size


@pytest.mark.slow
@bounded
async def test_a_thousand_laps_under_the_default_retention_keep_rows_file_and_log_bounded(path):
    """Scenario 20: the second thousand takes no more room than the first."""
    provider = SqliteProvider(path, durability="relaxed")
    async with Runtime(provider, registry(loop), [work]) as node:
        sizes = []
        handle = await node.client.start("loop", {"lap": 0, "laps": 2500})
        for laps in (1000, 2000):
            await info_when(handle, lambda info, laps=laps: info.execution_id >= laps)
            sizes.append((size(path), size(f"{path}-wal")))
        assert await handle.result(int) == 2500
        executions = await node.client.list_executions(handle.instance_id, limit=10_000)
        assert 1000 <= len(executions) <= 2001
        assert executions[-1].execution_id == 2500
        histories = [
            one.execution_id
            for one in executions
            if await node.client.get_history(handle.instance_id, one.execution_id)
        ]
        assert histories == list(range(histories[0], 2501))
        assert 10 <= len(histories) <= 21
        for file, log in sizes:
            assert file < 2 * 1024 * 1024
            assert log < 8 * 1024 * 1024


@bounded
async def test_status_labels_and_pin_survive_boundaries_also_of_laps_that_are_let_go_of(path):
    """Scenario 19. They belong to the instance and not to a lap; a start by the same id is answered
    as ever.
    """

    async def counts(ctx, lap: int) -> int:
        if lap == 0:
            ctx.set_custom_status({"begun": "in the first lap"})
            await ctx.wait_for_event("pinned")
        if lap < 50:
            ctx.continue_as_new(lap + 1)
        await ctx.wait_for_event("stop")
        return lap

    known = registry(("counts", "1.0.0", counts), ("counts", "1.1.0", counts))
    keep = Retention(histories=1, executions=1, keep_for=timedelta(microseconds=1))
    async with Runtime(SqliteProvider(path), known, retention=keep) as node:
        handle = await node.client.start(
            "counts", 0, version="1.0.0", labels={"team": "blue"}, request_id="once"
        )
        await node.client.pin(handle.instance_id, "1.0.0", reason="not yet")
        await handle.raise_event("pinned")
        info = await info_when(handle, lambda info: info.execution_id == 51 and info.waiting_on)
        assert (info.custom_status, info.labels) == (
            {"begun": "in the first lap"},
            {"team": "blue"},
        )
        assert (info.version, info.pinned_version) == ("1.0.0", "1.0.0")
        assert [
            one.execution_id for one in await node.client.list_executions(handle.instance_id)
        ] == [50, 51]
        assert await node.client.get_history(handle.instance_id), (
            "the current lap is never touched (scenario 21)"
        )
        again = await node.client.start(
            "counts", 0, version="1.0.0", labels={"team": "blue"}, request_id="once"
        )
        assert again.instance_id == handle.instance_id
        await handle.raise_event("stop")
        assert await handle.result(int) == 50


@bounded
async def test_ended_instances_go_whoever_has_ended_them_and_the_info_says_when():
    known = (
        OrchestrationRegistry.builder()
        .register("loop", loop)
        .register("kept", loop)
        .set_retention("kept", Retention(finished=timedelta(days=365)))
        .build()
    )
    async with TestRuntime(
        known, [work], retention=Retention(finished=timedelta(milliseconds=300))
    ) as node:
        handle = await node.client.start("loop", {"lap": 0, "laps": 2}, labels={"a": "b"})
        kept = await node.client.start("kept", {"lap": 0, "laps": 2})
        assert await kept.result(int) == 2
        info = await kept.info()
        assert info.expires_at == info.updated_at + timedelta(days=365)
        assert (await handle.info()).status == "completed"
        await node.advance(timedelta(milliseconds=300))
        with pytest.raises(InstanceNotFound):
            await handle.info()
        again = await node.client.start(
            "loop", {"lap": 0, "laps": 2}, instance_id=handle.instance_id
        )
        assert await again.result(int) == 2
        await node.advance(timedelta(milliseconds=300))
        with pytest.raises(InstanceNotFound):
            await again.info()
        assert (await kept.info()).status == "completed"
        await node.advance(timedelta(days=365))
        with pytest.raises(InstanceNotFound):
            await kept.info()


@bounded
async def test_what_a_client_without_code_terminates_goes_as_well(path):
    async def waits(ctx, _) -> None:
        await ctx.wait_for_event("never")

    keep = Retention(finished=timedelta(milliseconds=1))
    async with runtime(path, waits, retention=keep) as node:
        handle = await node.client.start("waits")
        await info_when(handle, lambda info: info.waiting_on)
    async with Client(SqliteProvider(path)) as client:
        await client.terminate(handle.instance_id)
        assert (await client.get_instance_info(handle.instance_id)).expires_at is not None
    async with runtime(path, waits, retention=keep, poll=timedelta(milliseconds=20)) as node:
        await until(lambda: _gone(node.client, handle.instance_id))


@bounded
async def test_a_retention_that_is_taken_back_counts_no_more(path):
    async with runtime(
        path, loop, activities=[work], retention=Retention(finished=timedelta(days=1))
    ):
        pass
    async with runtime(path, loop, activities=[work]) as node:
        handle = await node.client.start("loop", {"lap": 0, "laps": 1})
        assert await handle.result(int) == 1
        assert (await handle.info()).expires_at is None


async def _gone(client, instance_id):
    return instance_id not in [info.instance_id for info in (await client.list_instances()).items]


@bounded
async def test_who_waits_where_an_instance_ends_gets_its_end_however_soon_it_goes(path):
    """And who waits elsewhere, or comes later, is told that there is none."""
    keep = Retention(finished=timedelta(microseconds=1))

    async def told(ctx, _) -> int:
        return await ctx.wait_for_event("end", int)

    async with runtime(path, told, retention=keep, poll=timedelta(milliseconds=5)) as node:
        results: dict[int, int] = {}

        async def wait(number: int) -> None:
            results[number] = await node.client.handle(f"i-{number}").result(int)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                await node.client.start("told", instance_id=f"i-{number}")
                tasks.start_soon(wait, number)
            await until(lambda: len(node._ends._watches) == 20)
            for number in range(20):
                await node.client.raise_event(f"i-{number}", "end", number)
        assert results == {number: number for number in range(20)}
        for number in range(20):
            await until(lambda number=number: _gone(node.client, f"i-{number}"))
        with pytest.raises(InstanceNotFound):
            await node.client.handle("i-0").result(int)
        # The id is free again: the same start, whoever says "return", makes a new one.
        again = await node.client.start(
            "told", instance_id="i-0", if_running="return", if_ended="return"
        )
        assert (await again.info()).status.is_final is False
