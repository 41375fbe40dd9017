"""A client without a runtime: in the same process as one, and where none runs."""

from datetime import timedelta

import anyio
import pytest

from orchestra import (
    AlreadyCompleted,
    Exact,
    InstanceExists,
    InstanceNotFound,
    InstanceStatus,
    UnknownOrchestration,
    UnknownVersion,
)
from orchestra.errors import (
    InboxFull,
    InstanceCancelled,
    InstanceTerminated,
    PayloadTooLarge,
    RuntimeClosed,
    StoreBusy,
    StoreError,
    StoreUnavailable,
    WaitTimeout,
)
from tests.support.kit import alone, bounded, echo, idle, info_when, runtime, until

pytestmark = pytest.mark.anyio

HINTED = {"poll": timedelta(milliseconds=20)}


@bounded
async def test_what_a_client_alone_asks_for_a_runtime_of_the_same_process_does(path):
    async with runtime(path, idle, echo, **HINTED), alone(path) as client:
        assert await (await client.start("echo", 1)).result() == 1
        handle = await client.start("idle", instance_id="one", labels={"a": "b"})
        with pytest.raises(InstanceExists):
            await client.start("idle", instance_id="one")
        await info_when(handle, lambda info: info.waiting_on)
        await handle.raise_event("go", 2)
        assert await handle.result(timeout=timedelta(seconds=15)) == 2
        await client.delete("one")
        with pytest.raises(InstanceNotFound):
            await handle.info()
        cancelled = await client.start("idle")
        await cancelled.cancel("no")
        with pytest.raises(InstanceCancelled):
            await cancelled.result()
        ended = await client.start("idle")
        await info_when(ended, lambda info: info.waiting_on)
        await ended.terminate("at once")
        with pytest.raises(InstanceTerminated):
            await ended.result()
        with pytest.raises(AlreadyCompleted):
            await ended.terminate()


@bounded
async def test_terminating_from_outside_stops_a_busy_loop_of_a_runtime(path):
    async def spins(ctx, number: int):
        await ctx.schedule_timer(timedelta(0))
        ctx.continue_as_new(number + 1)

    async with runtime(path, spins, **HINTED) as node, alone(path) as client:
        handle = await client.start("spins", 0)
        await info_when(handle, lambda info: info.execution_id > 20)
        await handle.terminate()
        with pytest.raises(InstanceTerminated):
            await handle.result()
        await until(lambda: node._thread._engine.owned == 0)


@bounded
async def test_without_a_runtime_nothing_can_be_started_and_everything_be_read_and_sent(path):
    async with runtime(path, ("idle", "1.0.0", idle)) as node:
        handle = await node.client.start("idle", {"a": 1}, instance_id="one", labels={"k": "v"})
        await info_when(handle, lambda info: info.waiting_on and info.owner is None)
        await node.client.start("idle", instance_id="two")
    async with alone(path, inbox_limit=2) as client:
        with pytest.raises(UnknownOrchestration, match="nothing"):
            await client.start("idel")
        with pytest.raises(UnknownVersion):
            await client.start("idle", version="1.1.0")
        info = await client.get_instance_info("one")
        assert info.status is InstanceStatus.HELD
        assert info.held_reason == "no living node has registered 'idle' 1.0.0"
        assert (info.input, info.labels, info.target_version) == ({"a": 1}, {"k": "v"}, "1.0.0")
        assert [wait.name for wait in info.waiting_on] == ["go"]
        assert {
            one.instance_id
            for one in (await client.list_instances(status=InstanceStatus.HELD)).items
        } == {"one", "two"}
        assert len(await client.get_history("one")) == 2
        assert len(await client.list_executions("one")) == 1
        with pytest.raises(WaitTimeout):
            await client.handle("one").result(timeout=timedelta(milliseconds=50))
        await client.raise_event("one", "go", "kept")
        await client.raise_event("one", "go", "also kept")
        with pytest.raises(InboxFull):
            await client.raise_event("one", "go")
        await client.terminate("two", "without any code")
        with pytest.raises(InstanceTerminated, match="without any code"):
            await client.handle("two").result()
        await client.delete("two")
        await client.set_version_policy("idle", Exact("1.0.0"))
        await client.pin("one", "1.0.0")
        assert (await client.get_instance_info("one")).pinned_version == "1.0.0"
    async with runtime(path, ("idle", "1.0.0", idle)) as node:
        assert await node.client.handle("one").result() == "kept"
        assert (await node.client.get_version_policy("idle")).policy == Exact("1.0.0")


@bounded
async def test_what_has_run_here_can_be_started_while_every_worker_is_being_restarted(path):
    async with runtime(path, ("echo", "1.0.0", echo), ("echo", "1.1.0", echo)) as node:
        assert await (await node.client.start("echo", 0, version="1.0.0")).result() == 0
        assert await (await node.client.start("echo", 1)).result() == 1
    async with alone(path) as client:
        latest = await client.start("echo", 2)
        exact = await client.start("echo", 3, version="1.1.0")
        info = await latest.info()
        assert (info.status, info.version) == (InstanceStatus.HELD, "1.1.0")
        async with runtime(path, ("echo", "1.1.0", echo), ("echo", "1.2.0", echo), **HINTED):
            assert await latest.result() == 2
            assert await exact.result() == 3
            assert (await latest.info()).version == "1.2.0"  # nobody had begun it
            assert (await exact.info()).version == "1.1.0"


@bounded
async def test_what_was_registered_a_moment_ago_can_be_started(path):
    async with alone(path) as client:
        with pytest.raises(UnknownOrchestration):
            await client.start("echo")
        async with runtime(path, echo, **HINTED):
            assert await (await client.start("echo", 1)).result() == 1
            with pytest.raises(UnknownVersion):
                await client.start("echo", version="1.1.0")
            async with runtime(path, ("echo", "1.1.0", echo), **HINTED):
                handle = await client.start("echo", 2, version="1.1.0")
                assert await handle.result() == 2
                assert (await handle.info()).version == "1.1.0"


@bounded
async def test_a_client_is_refused_before_it_is_open_while_it_is_and_after(path):
    client = alone(path)
    with pytest.raises(RuntimeClosed, match="not open"):
        await client.get_instance_info("one")
    async with client:
        with pytest.raises(RuntimeClosed, match="open already"):
            await client.__aenter__()
        assert (await client.list_instances()).items == ()
    with pytest.raises(RuntimeClosed):
        await client.list_instances()
    async with client:
        assert (await client.list_instances()).items == ()


@bounded
async def test_a_client_that_cannot_open_its_store_says_so(tmp_path):
    with pytest.raises(StoreUnavailable):
        async with alone(tmp_path / "nowhere" / "store.db"):
            raise AssertionError("it must not be entered")


@bounded
async def test_a_waiting_change_whose_sender_was_cancelled_does_not_happen_later(path):
    async with runtime(path, idle, **HINTED), alone(path) as client:
        await client.start("idle", instance_id="one")
        lane = client._access.own._lane()
        async with anyio.create_task_group() as group:
            await lane.lock.acquire()  # as while another group is being committed
            group.start_soon(lambda: client.start("idle", instance_id="never"))
            await until(lambda: lane.pending)
            group.cancel_scope.cancel()
        lane.lock.release()
        assert lane.pending == []
        await client.start("idle", instance_id="two")
        with pytest.raises(InstanceNotFound):
            await client.get_instance_info("never")


@bounded
async def test_a_value_that_the_driver_cannot_take_concerns_its_sender_alone(path, monkeypatch):
    monkeypatch.setattr(
        "orchestra.client.starts.check_start", lambda *_: None
    )  # which would not let it pass
    outcomes = {}

    async with runtime(path, idle, **HINTED), alone(path) as client:

        async def start(instance_id):
            try:
                await client.start("idle", instance_id=instance_id)
                outcomes[instance_id] = "started"
            except StoreError as error:
                outcomes[instance_id] = type(error)

        async with anyio.create_task_group() as group:
            lane = client._access.own._lane()
            await lane.lock.acquire()
            for instance_id in ("one", "half a \ud83d pair", "two"):
                group.start_soon(start, instance_id)
            await until(lambda: len(lane.pending) == 3)
            lane.lock.release()
        assert await (await client.start("idle", instance_id="three")).info()
    assert outcomes == {"one": "started", "half a \ud83d pair": StoreError, "two": "started"}


@bounded
async def test_many_changes_at_once_are_all_answered(path):
    async with runtime(path, echo, **HINTED), alone(path) as client:
        handles = []

        async def start(number):
            handles.append(await client.start("echo", number, instance_id=f"i{number}"))

        async with anyio.create_task_group() as group:
            for number in range(600):
                group.start_soon(start, number)
        assert len(handles) == 600
        assert await client.handle("i599").result() == 599


@bounded
async def test_a_busy_store_is_told_to_each_sender(path, monkeypatch):
    async with runtime(path, idle), alone(path) as client:
        await client.start("idle", instance_id="one")

        def busy(changes):
            raise StoreBusy("planned")

        monkeypatch.setattr(client._provider.store, "commit", busy)
        for _ in range(2):
            with pytest.raises(StoreBusy, match="planned"):
                await client.raise_event("one", "go")
        monkeypatch.undo()
        await client.raise_event("one", "go", 1)
        assert await client.handle("one").result() == 1


@bounded
async def test_its_payload_limit_is_its_own(path):
    async with runtime(path, idle, **HINTED), alone(path, payload_limit=50) as client:
        with pytest.raises(PayloadTooLarge):
            await client.start("idle", "x" * 60)
