"""Who waits for an end learns of it wherever it is made, and in time where it is not."""

from datetime import timedelta

import anyio
import pytest

from orchestra import activity
from orchestra.errors import InstanceNotFound, InstanceTerminated, StoreUnavailable, WaitTimeout
from orchestra.runtime import ends
from tests.support.kit import alone, bounded, idle, runtime, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def often(monkeypatch):
    """Have the store asked often."""
    monkeypatch.setattr(ends, "_INTERVAL", 0.005)


@pytest.fixture
def never(monkeypatch):
    """Have the store not asked at all."""
    monkeypatch.setattr(ends, "_INTERVAL", 3600)


class Reads:
    """Counts what a node reads of its directory, and makes it fail on demand."""

    def __init__(self, node, monkeypatch):
        self._directory = node._provider.directory
        self.asked, self.got, self.broken = [], [], set()
        for name, calls in (("going_among", self.asked), ("get", self.got)):
            monkeypatch.setattr(
                self._directory, name, self._counted(name, getattr(self._directory, name), calls)
            )

    def _counted(self, name, read, calls):
        def counted(subject):
            calls.append(subject)
            if name in self.broken:
                raise StoreUnavailable("planned")
            return read(subject)

        return counted


async def waiting(node, group, count, outcomes, timeout=None):
    """Start instances, and a task that waits for each; return their ids once all of them wait."""

    async def wait(handle):
        try:
            outcomes[handle.instance_id] = await handle.result(timeout=timeout)
        except Exception as error:
            outcomes[handle.instance_id] = type(error)

    handles = [await node.client.start("idle") for _ in range(count)]
    for handle in handles:
        group.start_soon(wait, handle)
    await until(lambda: len(node._ends._watches) == count)
    return [handle.instance_id for handle in handles]


@bounded
async def test_ends_made_elsewhere_are_asked_for_together_and_only_who_is_concerned_looks(
    path, often, monkeypatch
):
    monkeypatch.setattr(ends, "_ASKED_AT_ONCE", 3)
    outcomes = {}
    async with (
        alone(path) as elsewhere,
        runtime(path, idle) as node,
        anyio.create_task_group() as group,
    ):
        reads = Reads(node, monkeypatch)
        first, *others, last = await waiting(node, group, 10, outcomes)
        await until(lambda: len(reads.asked) > 8)
        assert all(len(part) <= 3 for part in reads.asked)
        assert {instance_id for part in reads.asked for instance_id in part} == {
            first,
            *others,
            last,
        }
        assert reads.got == [], "all of them were known to be open, and nothing has happened"
        await elsewhere.terminate(first)
        await elsewhere.terminate(last)
        await until(lambda: len(outcomes) == 2)
        assert outcomes == {first: InstanceTerminated, last: InstanceTerminated}
        assert set(reads.got) == {first, last}
        for instance_id in others:
            await elsewhere.raise_event(instance_id, "go", 1)
    assert {outcomes[instance_id] for instance_id in others} == {1}
    assert node._ends._watches == {}


@bounded
async def test_an_end_made_here_costs_those_who_wait_no_read_and_a_look_at_once_costs_one(
    path, never, monkeypatch
):
    outcomes = {}
    async with runtime(path, idle) as node, anyio.create_task_group() as group:
        reads = Reads(node, monkeypatch)
        (instance_id,) = await waiting(node, group, 1, outcomes)
        handle = node.client.handle(instance_id)
        for looks in (1, 2):
            with pytest.raises(WaitTimeout):
                await handle.result(timeout=timedelta(0))
            assert reads.got == [instance_id] * looks
            node._ends._started.clear()  # the second time nothing is known of it
        await handle.raise_event("go", 1)
        await until(lambda: outcomes)
        assert outcomes == {instance_id: 1}
        assert (reads.got, reads.asked) == ([instance_id] * 2, [])


@bounded
async def test_who_waits_for_an_instance_that_is_deleted_is_told(path, often, monkeypatch):
    outcomes, deleted = {}, []
    async with (
        alone(path) as elsewhere,
        runtime(path, idle) as node,
        anyio.create_task_group() as group,
    ):
        directory = node._provider.directory
        read = directory.going_among
        monkeypatch.setattr(
            directory, "going_among", lambda asked: read(asked) if deleted else set(asked)
        )
        (instance_id,) = await waiting(node, group, 1, outcomes)
        await elsewhere.terminate(instance_id)
        await elsewhere.delete(instance_id)
        deleted.append(instance_id)
        await until(lambda: outcomes)
    assert outcomes == {instance_id: InstanceNotFound}


@pytest.mark.parametrize("interval", [0.005, 3600])
@bounded
async def test_who_waits_is_late_in_turn_and_never_early_however_the_times_were_given(
    path, monkeypatch, interval
):
    monkeypatch.setattr(ends, "_INTERVAL", interval)
    late = []
    async with runtime(path, idle) as node, anyio.create_task_group() as group:
        handle = await node.client.start("idle")

        async def wait(milliseconds):
            begun = anyio.current_time()
            with pytest.raises(WaitTimeout):
                await handle.result(timeout=timedelta(milliseconds=milliseconds))
            assert anyio.current_time() - begun >= milliseconds / 1000
            late.append(milliseconds)

        async def wait_long():
            await handle.result(timeout=timedelta.max)

        group.start_soon(wait_long)
        for milliseconds in (150, 30, 210, 90):
            group.start_soon(wait, milliseconds)
        await until(lambda: len(late) == 4)
        assert late == [30, 90, 150, 210]
        group.cancel_scope.cancel()
    assert node._ends._watches == {}


@bounded
async def test_who_waits_no_more_leaves_nothing_behind(path, often):
    outcomes = {}
    async with runtime(path, idle) as node:
        async with anyio.create_task_group() as group:
            await waiting(node, group, 5, outcomes, timeout=timedelta(hours=1))
            assert len(node._ends._timeouts) == 5
            group.cancel_scope.cancel()
        assert node._ends._watches == {}
        await until(lambda: node._ends._timeouts == [])


@bounded
async def test_where_the_store_cannot_be_asked_each_one_looks_for_himself(path, often, monkeypatch):
    outcomes = {}
    async with (
        alone(path) as elsewhere,
        runtime(path, idle) as node,
        anyio.create_task_group() as group,
    ):
        reads = Reads(node, monkeypatch)
        first, second = await waiting(node, group, 2, outcomes)
        reads.broken = {"going_among"}
        reads.asked.clear()
        await elsewhere.terminate(first)
        await until(lambda: reads.got.count(second) > 10)
        assert outcomes == {first: InstanceTerminated}
        assert len(reads.asked) >= reads.got.count(second), "once for each time that it was woken"
        reads.broken = {"going_among", "get"}
        await until(lambda: second in outcomes)
        assert outcomes[second] is StoreUnavailable


@bounded
async def test_a_wait_is_late_in_time_while_a_host_that_was_cancelled_stops(path):
    holding, released = anyio.Event(), anyio.Event()

    @activity
    async def holds_up() -> None:
        holding.set()
        await released.wait()

    async def waits(ctx, value):
        await ctx.schedule_activity(holds_up)

    node = runtime(path, idle, waits, activities=[holds_up])

    async def host(scope):
        with scope:
            async with node:
                await node.client.start("idle", instance_id="x")
                await node.client.start("waits")
                await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        group.start_soon(host, scope)
        await holding.wait()
        scope.cancel()
        await until(lambda: node._state == "stopping")
        with pytest.raises(WaitTimeout):
            await node.client.handle("x").result(timeout=timedelta(milliseconds=20))
        assert node._state == "stopping"
        released.set()
