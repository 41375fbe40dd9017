"""Starts for later, and starts before the first worker."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from orchestra import (
    AlreadyCompleted,
    Client,
    InstanceStatus,
    InvalidArgument,
    OrchestrationRegistry,
    Runtime,
    UnknownOrchestration,
    UnknownVersion,
)
from orchestra.store.kinds import DELAYED_START_LEVEL
from tests.support.ages import FIRST_LIBRARY
from tests.support.kit import bounded, echo, idle, registry, virtual

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


def now():
    return datetime.now(UTC)


@dataclass
class Old:
    count: int


@dataclass
class New:
    total: int


async def renamed_1(ctx, state: Old) -> int:
    return state.count


async def renamed_2(ctx, state: New) -> int:
    return state.total


def renamed():
    return (
        OrchestrationRegistry.builder()
        .register("job", renamed_1)
        .register("job", renamed_2, version="2.0.0")
        .migrate("job", "2.0.0", _up)
        .build()
    )


def _up(state: Old) -> New:
    return New(state.count + 100)


# --- for later --------------------------------------------------------------------------------


@bounded
async def test_a_start_for_later_is_pending_with_its_time_and_begins_then(database):
    async with virtual(database, idle) as env:
        at = env.now + 24 * HOUR
        handle = await env.client.start("idle", instance_id="i", not_before=at)
        await handle.raise_event("go", 7)
        await env.advance(24 * HOUR - timedelta(microseconds=1))
        info = await handle.info()
        assert (info.status, info.not_before) == (InstanceStatus.PENDING, at)
        assert (info.next_wake_at, info.unread_messages, info.history_events) == (at, 1, 0)
        await env.advance(timedelta(microseconds=1))
        info = await handle.info()
        assert (info.output, info.execution_started_at, info.not_before) == (7, at, at)


@bounded
async def test_a_start_for_later_outlives_the_process(database):
    async with virtual(database, idle) as env:
        at = env.now + 24 * HOUR
        handle = await env.client.start("idle", instance_id="i", not_before=at)
        await env.advance(HOUR)
        await env.crash()
        await handle.raise_event("go", 7)
        await env.advance(22 * HOUR)
        assert (await handle.info()).status is InstanceStatus.PENDING
        assert await handle.result() == 7
        assert env.now == at


@bounded
async def test_a_cancel_or_a_terminate_ends_it_at_once_without_running_code(store):
    ran = []

    async def runs(ctx, _):
        ran.append(ctx.instance_id)

    async with Runtime(store(), registry(runs)) as runtime:
        client = runtime.client
        for key in ("cancelled", "terminated"):
            await client.start("runs", instance_id=key, not_before=now() + HOUR)
        await client.cancel("cancelled", "no need")
        await client.terminate("terminated", "no need")
        statuses = {
            key: (await client.wait_for_completion(key)).status
            for key in ("cancelled", "terminated")
        }
        assert statuses == {
            "cancelled": InstanceStatus.CANCELLED,
            "terminated": InstanceStatus.TERMINATED,
        }
        with pytest.raises(AlreadyCompleted):
            await client.cancel("cancelled")
    assert ran == []


@bounded
async def test_what_drops_its_messages_does_not_begin_it(store):
    async with Runtime(store(), registry(idle)) as runtime:
        client = runtime.client
        await client.start("idle", instance_id="i", not_before=now() + HOUR)
        await client.raise_event("i", "noise")
        await client.raise_event("i", "go", 7)
        assert await client.drop_messages("i", "noise", reason="noise") == 1
        other = await client.start("idle", instance_id="j")
        await other.raise_event("go", 1)
        assert await other.result() == 1  # the node has gone on meanwhile
        info = await client.get_instance_info("i")
        assert (info.status, info.history_events) == (InstanceStatus.PENDING, 0)
        await client.terminate("i")


@bounded
async def test_a_moment_in_the_past_is_no_wait(store):
    async with Runtime(store(), registry(echo)) as runtime:
        handle = await runtime.client.start("echo", 3, not_before=now() - HOUR)
        assert await handle.result() == 3


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1), "tomorrow", timedelta(hours=1)])  # noqa: DTZ001 - that is the point
@bounded
async def test_a_start_for_later_takes_aware_datetimes_only(database, moment):
    async with virtual(database, echo) as env:
        with pytest.raises(InvalidArgument, match=r"not_before .* write datetime\(\.\.\., tzinfo="):
            await env.client.start("echo", not_before=moment)


@bounded
async def test_a_node_that_would_not_wait_never_gets_it(store):
    async with Runtime(store(library=FIRST_LIBRARY), registry(echo, idle)) as old:
        await old.client.start("idle", instance_id="known")
        async with Client(store()) as client:
            handle = await client.start("echo", 1, instance_id="i", not_before=now() + HOUR)
            await handle.raise_event("go", 1)
            info = await handle.info()
            assert info.status is InstanceStatus.HELD
            assert f"is of level {DELAYED_START_LEVEL}" in info.held_reason
            await client.raise_event("known", "go", 1)
            await client.wait_for_completion("known")
            assert (await handle.info()).history_events == 0
            await client.terminate("i")


# --- before the first worker ------------------------------------------------------------------


@bounded
async def test_a_start_before_any_worker_has_lived_waits_for_the_first_one(store):
    async with Client(store()) as client:
        with pytest.raises(UnknownOrchestration):
            await client.start("echo", 1)
        handle = await client.start("echo", 1, instance_id="i", allow_unregistered=True)
        info = await handle.info()
        assert info.status is InstanceStatus.HELD
        assert info.held_reason == "no living node has registered 'echo'"
        with pytest.raises(UnknownOrchestration):
            await client.start("echo", 2)  # the waiting one has not made the name known
        async with Runtime(store(), registry(("echo", "1.2.0", echo), ("echo", "1.1.0", echo))):
            assert await handle.result() == 1
            assert (await handle.info()).version == "1.2.0"


@bounded
async def test_one_with_a_version_waits_for_that_version(store):
    async with Client(store()) as client:
        handle = await client.start(
            "echo", 1, version="1.1.0", instance_id="i", allow_unregistered=True
        )
        async with Runtime(store(), registry(("echo", "1.2.0", echo))) as runtime:
            assert await (await runtime.client.start("echo", 2)).result() == 2
            info = await handle.info()
            assert (info.status, info.version) == (InstanceStatus.HELD, "1.1.0")
            with pytest.raises(UnknownVersion):
                await runtime.client.start("echo", 1, version="1.3.0")
            await runtime.client.start(
                "echo", 1, version="1.3.0", instance_id="later", allow_unregistered=True
            )
        async with Runtime(
            store(), registry(("echo", "1.1.0", echo), ("echo", "1.3.0", echo))
        ) as runtime:
            assert await handle.result() == 1
            assert (await handle.info()).version == "1.1.0"
            assert await runtime.client.handle("later").result() == 1


@bounded
async def test_where_a_worker_has_it_the_start_is_like_any_other(store):
    async with Runtime(store(), registry(echo)) as runtime:
        handle = await runtime.client.start("echo", 1, allow_unregistered=True)
        assert await handle.result() == 1
        assert (await handle.info()).version == "1.0.0"


@bounded
async def test_its_input_is_that_of_the_version_which_opens_it(store):
    async with Client(store()) as client:
        plain = await client.start("job", {"total": 7}, instance_id="p", allow_unregistered=True)
        old = await client.start(
            "job", {"count": 7}, instance_id="o", allow_unregistered=True, written_by="1.0.0"
        )
        async with Client(store(), registry=renamed()) as typed:
            await typed.start("job", New(7), instance_id="t", allow_unregistered=True)
        new = client.handle("t")
        async with Runtime(store(), renamed()):
            assert [await one.result() for one in (plain, old, new)] == [7, 107, 7]


@bounded
async def test_a_start_for_later_may_come_before_the_first_worker_too(store):
    async with Client(store()) as client:
        handle = await client.start(
            "echo",
            1,
            instance_id="i",
            allow_unregistered=True,
            not_before=now() + timedelta(seconds=0.5),
        )
    async with Runtime(store(), registry(echo)) as runtime:
        handle = runtime.client.handle("i")
        assert await handle.result() == 1
        info = await handle.info()
        assert info.execution_started_at >= info.not_before
