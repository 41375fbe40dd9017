"""Entering, leaving, and what is left behind."""

import logging
import sqlite3
import threading
import time
from datetime import timedelta

import anyio
import pytest

from orchestra import (
    Client,
    InstanceNotFound,
    InstanceStatus,
    Runtime,
    SqliteProvider,
    activity,
    activity_context,
)
from orchestra.errors import (
    ProviderInUse,
    RegistrationError,
    RuntimeClosed,
    SchemaMismatch,
    StoreError,
    StoreUnavailable,
)
from orchestra.runtime import runtime as runtime_module
from tests.support.kit import (
    Gate,
    alone,
    bounded,
    echo,
    idle,
    info_when,
    registry,
    runtime,
    until,
    when_set,
)

pytestmark = pytest.mark.anyio


@activity
async def forever() -> None:
    await anyio.sleep_forever()


async def waits_for_ever(ctx, value):
    await ctx.schedule_activity(forever)


@bounded
async def test_what_is_started_inside_ends_inside(path):
    async with runtime(path, echo) as node:
        handle = await node.client.start("echo", 42)
        assert await handle.result(int) == 42


@bounded
async def test_a_runtime_that_does_nothing_can_be_left_at_once(path):
    async with runtime(path):
        pass


@bounded
async def test_entering_twice_is_refused_while_it_runs_and_afterwards(path):
    node = runtime(path, echo)
    async with node:
        with pytest.raises(RuntimeClosed, match="entered once"):
            await node.__aenter__()
        assert await (await node.client.start("echo", 1)).result() == 1
    with pytest.raises(RuntimeClosed, match="entered once"):
        await node.__aenter__()


@bounded
async def test_a_client_is_refused_before_and_after_its_runtime_runs(path):
    node = runtime(path, echo)
    with pytest.raises(RuntimeClosed, match="new"):
        await node.client.start("echo")
    async with node:
        handle = await node.client.start("echo", instance_id="one")
        await handle.result()
    for call in (
        lambda: node.client.start("echo"),
        lambda: node.client.get_instance_info("one"),
        lambda: node.client.raise_event("one", "go"),
        lambda: node.client.cancel("one"),
        lambda: node.client.terminate("one"),
        lambda: node.client.delete("one"),
        lambda: node.client.list_instances(),
        lambda: node.client.wait_for_completion("one"),
        lambda: node.client.set_version_policy("echo", node._settings.registry.policy("echo")),
        handle.result,
    ):
        with pytest.raises(RuntimeClosed, match="stopped"):
            await call()


@bounded
async def test_a_missing_directory_is_told_plainly_and_leaves_nothing(tmp_path):
    node = runtime(tmp_path / "nowhere" / "store.db", echo)
    with pytest.raises(StoreUnavailable, match="does not exist"):
        async with node:
            raise AssertionError("it must not be entered")
    with pytest.raises(RuntimeClosed, match="stopped"):
        await node.client.start("echo")


@bounded
async def test_a_newer_schema_is_told_plainly_and_leaves_nothing(path):
    async with runtime(path, echo):
        pass
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET value = '999' WHERE key IN ('schema', 'lowest_reader')")
    connection.commit()
    connection.close()
    with pytest.raises(SchemaMismatch):
        async with runtime(path, echo):
            raise AssertionError("it must not be entered")


@bounded
async def test_a_store_that_fails_at_the_first_policies_leaves_nothing(path, monkeypatch):
    from orchestra import Exact

    provider = SqliteProvider(path)

    def fails(*args, **kwargs):
        raise StoreUnavailable("planned")

    monkeypatch.setattr(provider.admin, "set_policy", fails)
    with pytest.raises(StoreUnavailable, match="planned"):
        async with Runtime(provider, registry(echo, policies={"echo": Exact("1.0.0")})):
            raise AssertionError("it must not be entered")


@bounded
async def test_a_store_that_fails_while_the_engine_begins_leaves_nothing(path, monkeypatch):
    provider = SqliteProvider(path)

    def fails(node):
        raise StoreUnavailable("planned")

    monkeypatch.setattr(provider.store, "join", fails)
    with pytest.raises(StoreUnavailable, match="planned"):
        async with Runtime(provider, registry(echo)):
            raise AssertionError("it must not be entered")


@bounded
async def test_a_host_that_is_cancelled_while_it_enters_leaves_nothing(path, monkeypatch):
    provider = SqliteProvider(path)
    gate = Gate()
    join = provider.store.join

    def slow(node):
        gate()
        return join(node)

    monkeypatch.setattr(provider.store, "join", slow)
    async with anyio.create_task_group() as group:

        async def host():
            async with Runtime(provider, registry(echo)):
                raise AssertionError("it must not be entered")

        group.start_soon(host)
        await when_set(gate.entered)
        group.cancel_scope.cancel()
        gate.open()
    async with alone(path) as client:
        assert (await client.list_instances()).items == ()
        assert client._provider.directory.catalogue().nodes == ()


class Boom(Exception):
    pass


@bounded
async def test_an_exception_of_the_body_comes_out_unchanged(path):
    boom = Boom("mine")

    async def host():
        async with runtime(path, waits_for_ever, activities=[forever], grace=timedelta(0)) as node:
            handle = await node.client.start("waits_for_ever")
            await info_when(handle, lambda info: info.pending_activities)
            raise boom

    with pytest.raises(Boom) as caught:
        await host()
    assert caught.value is boom
    assert boom.__cause__ is None


@bounded
async def test_an_exception_group_of_the_body_comes_out_unchanged(path):
    boom = ExceptionGroup("mine", [Boom(1)])
    with pytest.raises(ExceptionGroup) as caught:
        async with runtime(path):
            raise boom
    assert caught.value is boom


@bounded
async def test_a_cancelled_body_still_releases_what_it_owned_without_a_fuss(path, caplog):
    begun = anyio.Event()

    async def host():
        async with runtime(
            path, waits_for_ever, activities=[forever], grace=timedelta(0), lease=timedelta(hours=1)
        ) as node:
            handle = await node.client.start("waits_for_ever", instance_id="one")
            await info_when(handle, lambda info: info.owner == node.node_id)
            begun.set()
            await anyio.sleep_forever()

    with caplog.at_level(logging.WARNING, "orchestra"):
        async with anyio.create_task_group() as group:
            group.start_soon(host)
            await begun.wait()
            group.cancel_scope.cancel()
    assert (
        caplog.messages == []
    )  # above all not that the store takes no writes: then the release was given up
    async with alone(path) as client:
        info = await client.get_instance_info("one")
        assert info.owner is None
        assert client._provider.directory.catalogue().nodes == ()


@bounded
async def test_a_cancelled_host_gives_running_activities_their_grace(path):
    begun, go_on = anyio.Event(), anyio.Event()

    @activity
    async def patient() -> str:
        begun.set()
        await go_on.wait()
        return "done"

    async def once(ctx, value):
        return await ctx.schedule_activity(patient)

    async def host():
        async with runtime(path, once, activities=[patient]) as node:
            await node.client.start("once", instance_id="one")
            try:
                await anyio.sleep_forever()
            finally:
                go_on.set()

    async with anyio.create_task_group() as group:
        group.start_soon(host)
        await begun.wait()
        group.cancel_scope.cancel()
    async with alone(path) as client:
        assert await client.handle("one").result() == "done"


@bounded
@pytest.mark.parametrize(
    "anyio_backend", ["asyncio"]
)  # only there a task can be cancelled past every shield
@pytest.mark.parametrize("cancels", [1, 2])
async def test_cancelling_the_hosts_task_past_the_shields_leaves_nothing_running(
    path, caplog, cancels
):
    import asyncio

    begun, stopping = anyio.Event(), anyio.Event()

    @activity
    async def slow() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopping.set()

    async def once(ctx, value):
        await ctx.schedule_activity(slow)

    async def host():
        grace = timedelta(hours=1) if cancels == 2 else timedelta(0)
        async with runtime(path, once, activities=[slow], grace=grace) as node:
            nodes.append(node)
            await node.client.start("once", instance_id="one")
            await anyio.sleep_forever()

    nodes = []
    task = asyncio.create_task(host())
    await begun.wait()
    task.cancel()
    if cancels == 2:
        await until(lambda: nodes[0]._runner._stopping)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopping.is_set()
    assert caplog.messages == []
    async with alone(path) as client:
        assert (await client.get_instance_info("one")).owner is None
        assert client._provider.directory.catalogue().nodes == ()


@bounded
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # as above
async def test_a_loop_that_cancels_all_its_tasks_at_its_end_leaves_nothing_behind(path, caplog):
    import asyncio

    async def host():
        async with runtime(
            path, waits_for_ever, activities=[forever], lease=timedelta(hours=1)
        ) as node:
            handle = await node.client.start("waits_for_ever", instance_id="one")
            await info_when(handle, lambda info: info.pending_activities)
            begun.set()
            await anyio.sleep_forever()

    async def forgetful():
        task = asyncio.create_task(host())
        while not begun.is_set():
            await asyncio.sleep(0.01)
        return task

    begun = threading.Event()
    task = await anyio.to_thread.run_sync(asyncio.run, forgetful())
    assert task.cancelled()
    assert caplog.messages == []
    async with alone(path) as client:
        info = await client.get_instance_info("one")
        assert info.owner is None
        assert [one.attempt for one in info.pending_activities] == [
            1
        ]  # it was no attempt of the activity's own
        assert client._provider.directory.catalogue().nodes == ()


@bounded
async def test_a_stop_gives_running_activities_their_grace(path):
    gate = Gate()
    begun, go_on = anyio.Event(), anyio.Event()

    @activity
    async def patient() -> str:
        begun.set()
        await go_on.wait()
        return "async"

    @activity
    def blocking() -> str:
        gate()
        return "thread"

    async def both(ctx, value):
        return await ctx.gather(ctx.schedule_activity(patient), ctx.schedule_activity(blocking))

    async with runtime(path, both, activities=[patient, blocking]) as node:
        await node.client.start("both", instance_id="one")
        await begun.wait()
        await when_set(gate.entered)
        go_on.set()
        gate.open()
    async with alone(path) as client:
        assert await client.handle("one").result() == ["async", "thread"]


@bounded
async def test_what_does_not_end_in_its_grace_is_given_up_and_begins_again_elsewhere(path):
    gate = Gate()
    seen = []
    stubborn = True

    @activity
    async def patient() -> str:
        seen.append("async")
        if stubborn:
            await anyio.sleep_forever()
        return "async"

    @activity
    def blocking() -> str:
        if stubborn:
            gate()
            cancelled.append(activity_context().cancelled)
            ended.set()
        return "thread"

    async def both(ctx, value):
        return await ctx.gather(ctx.schedule_activity(patient), ctx.schedule_activity(blocking))

    cancelled = []
    ended = threading.Event()
    options = {
        "activities": [patient, blocking],
        "lease": timedelta(hours=1),
        "poll": timedelta(hours=1),
    }
    async with runtime(path, both, grace=timedelta(0), **options) as node:
        await node.client.start("both", instance_id="one")
        await when_set(gate.entered)
        await until(lambda: bool(seen))
    stubborn = False
    gate.open()
    await when_set(ended)
    assert cancelled == [True]
    async with runtime(path, both, **options) as node:
        assert await node.client.handle("one").result() == ["async", "thread"]
        history = await node.client.get_history("one")
    # A stop is no failed attempt.
    assert [
        event.details["attempt"] for event in history if event.kind == "activity_completed"
    ] == [1, 1]


@bounded
async def test_another_runtime_goes_on_at_once_with_what_a_stopped_one_had(path):
    async def lap(ctx, number: int):
        told = await ctx.wait_for_event("go")
        if number < 3:
            ctx.continue_as_new(number + 1)
        return told

    options = {"lease": timedelta(hours=1), "poll": timedelta(hours=1)}
    async with runtime(path, lap, **options) as other:
        async with runtime(path, lap, **options) as node:
            await node.client.start("lap", 1, instance_id="one")
            await node.client.raise_event("one", "go", 1)
        await other.client.raise_event("one", "go", 2)
        await other.client.raise_event("one", "go", 3)
        assert await other.client.handle("one").result() == 3
        assert [one.status for one in await other.client.list_executions("one")] == [
            "continued_as_new"
        ] * 2 + ["completed"]


@pytest.mark.slow
@bounded
async def test_a_second_runtime_on_the_same_provider_is_refused_and_one_after_the_other_is_not(
    path,
):
    provider = SqliteProvider(path)
    async with Runtime(provider, registry(echo)) as first:
        with pytest.raises(ProviderInUse, match="a provider of its own"):
            async with Runtime(provider, registry(idle)):
                pass
        assert await (await first.client.start("echo", 1)).result() == 1, (
            "the first one has not noticed"
        )
        async with Runtime(SqliteProvider(path), registry(idle)) as beside:
            assert await (await beside.client.start("echo", 2)).result() == 2
    async with Runtime(provider, registry(echo)) as after:
        assert await (await after.client.start("echo", 3)).result() == 3


@bounded
async def test_a_runtime_that_could_not_begin_leaves_the_provider_to_the_next(path, monkeypatch):
    provider = SqliteProvider(path)
    with monkeypatch.context() as patch:
        patch.setattr(
            provider.store, "join", lambda node: (_ for _ in ()).throw(StoreError("not today"))
        )
        with pytest.raises(StoreError, match="not today"):
            async with Runtime(provider, registry(echo)):
                pass
    async with Runtime(provider, registry(echo)) as node:
        assert await (await node.client.start("echo", 1)).result() == 1


@bounded
async def test_a_client_alone_may_share_the_provider_of_a_runtime_and_is_heard_without_a_poll(path):
    provider = SqliteProvider(path)
    async with (
        Runtime(provider, registry(echo, idle), poll=timedelta(hours=1)),
        Client(provider) as client,
    ):
        assert await (await client.start("echo", 1)).result() == 1
        handle = await client.start("idle")
        await info_when(handle, lambda info: info.waiting_on)
        await handle.raise_event("go", 2)
        assert await handle.result() == 2
    with pytest.raises(RuntimeClosed):
        await client.start("echo", 3)


@bounded
async def test_pending_waits_of_other_tasks_end_with_runtime_closed(path):
    outcomes = []

    async def wait(call):
        try:
            await call()
        except RuntimeClosed:
            outcomes.append("closed")

    async with anyio.create_task_group() as group, runtime(path, idle) as node:
        handle = await node.client.start("idle")
        group.start_soon(wait, handle.result)
        group.start_soon(wait, lambda: node.client.wait_for_completion(handle.instance_id))
        await until(lambda: len(node._ends._watches.get(handle.instance_id, ())) == 2)
    assert outcomes == ["closed"] * 2


@bounded
async def test_calls_that_race_with_the_stop_are_answered_or_refused(path):
    counts = {"done": 0, "closed": 0}

    async def sender(node, number):
        while True:
            try:
                await node.client.start("echo", number)
                await node.client.list_instances(limit=1)
            except RuntimeClosed:
                counts["closed"] += 1
                return
            counts["done"] += 1

    async with anyio.create_task_group() as group, runtime(path, echo) as node:
        for number in range(8):
            group.start_soon(sender, node, number)
        await until(lambda: counts["done"] > 20)
    assert counts["closed"] == 8


@bounded
async def test_a_stop_during_a_store_outage_ends_in_bounded_time(path, monkeypatch, caplog):
    monkeypatch.setattr(runtime_module, "_RELEASE_SECONDS", 0.2)
    provider = SqliteProvider(path)
    async with Runtime(provider, registry(waits_for_ever), [forever], grace=timedelta(0)) as node:
        handle = await node.client.start("waits_for_ever")
        await info_when(handle, lambda info: info.pending_activities)

        def fails(*args):
            raise StoreUnavailable("planned")

        for method in ("commit", "renew", "leave", "news", "owned", "next_wake", "catalogue"):
            monkeypatch.setattr(provider.store, method, fails)
        with pytest.raises(StoreError, match="planned"):
            await node.client.raise_event(handle.instance_id, "go")
    assert any("takes no writes" in message for message in caplog.messages)


@bounded
async def test_waiting_for_the_store_while_stopping_is_not_spinning(path, monkeypatch):
    monkeypatch.setattr(runtime_module, "_RELEASE_SECONDS", 0.5)
    provider = SqliteProvider(path)
    calls = []
    async with Runtime(provider, registry(waits_for_ever), [forever], grace=timedelta(0)) as node:
        handle = await node.client.start("waits_for_ever")
        await info_when(handle, lambda info: info.pending_activities)

        def fails(*args):
            raise StoreUnavailable("planned")

        monkeypatch.setattr(provider.store, "commit", fails)
        run = node._thread._cycle.run
        monkeypatch.setattr(
            node._thread._cycle, "run", lambda items: (calls.append(len(items)), run(items))[1]
        )
    assert 0 < len(calls) < 200


@bounded
async def test_an_orchestration_that_blocks_for_ever_does_not_stop_the_stop(
    path, monkeypatch, caplog
):
    monkeypatch.setattr(runtime_module, "_RELEASE_SECONDS", 0.1)
    gate = Gate()

    async def blocks(ctx, value):
        gate()

    async with runtime(path, blocks) as node:
        await node.client.start("blocks")
        await when_set(gate.entered)
    assert any("abandoned" in message for message in caplog.messages)
    with pytest.raises(ProviderInUse):  # the thread may still come back to it
        async with Runtime(node._provider, registry(echo)):
            pass
    gate.open()
    thread = node._thread._thread
    await until(lambda: not thread.is_alive())


@bounded
async def test_a_fault_of_the_engine_comes_out_of_the_block_and_ends_every_wait(path, monkeypatch):
    provider = SqliteProvider(path)
    outcomes = []

    async def wait(call):
        try:
            await call()
        except RuntimeClosed:
            outcomes.append("closed")

    def fault(items):
        raise ZeroDivisionError("planned")

    async def host(group):
        async with Runtime(
            provider, registry(idle, waits_for_ever), [forever], grace=timedelta(0)
        ) as node:
            await node.client.start("waits_for_ever")
            handle = await node.client.start("idle")
            group.start_soon(wait, handle.result)
            await until(lambda: node._ends._watches)
            monkeypatch.setattr(node._thread._engine, "step", fault)
            group.start_soon(wait, lambda: handle.raise_event("go"))
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        with pytest.raises(ZeroDivisionError, match="planned"):
            await host(group)
    assert outcomes == ["closed"] * 2


@bounded
async def test_a_fault_at_the_very_end_is_told_too(path, monkeypatch):
    async def host():
        async with runtime(path, idle) as node:
            end = node._thread._cycle.end

            def fault():
                end()
                raise ZeroDivisionError("planned")

            monkeypatch.setattr(node._thread._cycle, "end", fault)

    with pytest.raises(ZeroDivisionError, match="planned"):
        await host()


@bounded
async def test_a_full_default_thread_limiter_of_the_host_stops_neither_begin_nor_end(path):
    limiter = anyio.to_thread.current_default_thread_limiter()
    borrowers = [object() for _ in range(int(limiter.total_tokens))]
    for borrower in borrowers:
        await limiter.acquire_on_behalf_of(borrower)
    try:
        async with runtime(path, echo) as node:
            assert await (await node.client.start("echo", 1)).result() == 1
    finally:
        for borrower in borrowers:
            limiter.release_on_behalf_of(borrower)


@bounded
async def test_settings_with_which_nothing_could_run_are_refused_by_name(path):
    counts = (
        "max_concurrent_activities",
        "max_activity_threads",
        "max_owned",
        "inbox_limit",
        "inbox_bytes",
    )
    spans = ("lease", "poll", "blocked_after")
    wrong = {
        **dict.fromkeys(counts, 0),
        **dict.fromkeys(spans, timedelta(0)),
        "grace": timedelta(-1),
        "warm_executions": -1,
    }
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name} is .*; it must be at least"):
            runtime(path, echo, **{name: value})


async def test_two_activities_of_one_name_are_refused_at_once(path):
    @activity(name="forever")
    async def another() -> None: ...

    with pytest.raises(RegistrationError, match="forever"):
        runtime(path, activities=[forever, another])


@bounded
async def test_cancelled_client_calls_do_no_harm(path):
    async with runtime(path, echo, idle) as node:
        for turn in range(30):
            with anyio.move_on_after(turn * 0.0002):
                await node.client.start("echo", turn, instance_id=f"e{turn}")
            with anyio.move_on_after(turn * 0.0002):
                await node.client.list_instances()
        found = (await node.client.list_instances()).items
        for info in found:
            assert await node.client.handle(info.instance_id).result() == int(info.instance_id[1:])
        assert node._pending == set()
        with pytest.raises(InstanceNotFound):
            await node.client.get_instance_info("never")


@bounded
async def test_a_blocking_orchestration_does_not_stop_the_hosts_event_loop(path):
    ticks = 0

    async def sleeper(ctx, value):
        time.sleep(0.3)

    async def tick():
        nonlocal ticks
        while True:
            await anyio.sleep(0.01)
            ticks += 1

    async with runtime(path, sleeper) as node, anyio.create_task_group() as group:
        handle = await node.client.start("sleeper")
        group.start_soon(tick)
        await handle.result()
        group.cancel_scope.cancel()
    assert ticks >= 5


@bounded
async def test_nothing_on_the_local_path_waits_for_a_poll(path):
    @activity
    async def double(value: int) -> int:
        return 2 * value

    async def local(ctx, lap: int):
        doubled = await ctx.schedule_activity(double, lap)
        await ctx.schedule_timer(timedelta(milliseconds=1))
        sent = await ctx.wait_for_event("go")
        if lap < 3:
            ctx.continue_as_new(lap + 1)
        return [doubled, sent]

    hour = timedelta(hours=1)
    async with runtime(path, local, activities=[double], poll=hour, lease=hour) as node:
        handle = await node.client.start("local", 1)
        for lap in (1, 2, 3):
            await handle.raise_event("go", lap)
        assert await handle.result() == [6, 3]
        assert (await handle.info()).status is InstanceStatus.COMPLETED
