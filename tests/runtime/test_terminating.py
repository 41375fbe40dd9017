"""An operator's terminate gets through, however often its instance is written."""

from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from orchestra import AlreadyCompleted, Client, InstanceStatus, Runtime
from orchestra.errors import InstanceTerminated
from orchestra.operations import terminate
from tests.support.kit import bounded, idle, info_when, registry, until

pytestmark = pytest.mark.anyio


async def spins(ctx, number: int):
    await ctx.schedule_timer(timedelta(0))
    ctx.continue_as_new(number + 1)


async def breaks(ctx, value):
    raise LookupError("a bug")


@pytest.fixture
def always_late(monkeypatch):
    """Have each direct write of a terminate meet a row that was written since it was read."""

    def late(row, reason, now, writer):
        tries.append(row.instance_id)
        return termination(replace(row, revision=row.revision - 1), reason, now, writer)

    tries, termination = [], terminate.termination
    monkeypatch.setattr(terminate, "termination", late)
    return tries


@bounded
async def test_a_loop_that_is_written_before_each_write_of_an_operator_is_ended_by_its_owner(
    store, always_late
):
    async with Runtime(store(), registry(spins)) as node, Client(store()) as elsewhere:
        for instance_id, client in (("here", node.client), ("there", elsewhere)):
            handle = await node.client.start("spins", 0, instance_id=instance_id)
            await info_when(handle, lambda info: info.execution_id > 3)
            await client.terminate(instance_id, "enough")
            info = await handle.info()
            assert (info.status, info.error.message, info.owner) == (
                InstanceStatus.TERMINATED,
                "enough",
                None,
            )
            with pytest.raises(InstanceTerminated):
                await handle.result()
            with pytest.raises(AlreadyCompleted):
                await client.terminate(instance_id)
            with pytest.raises(AlreadyCompleted):
                await client.cancel(instance_id)
            assert always_late.count(instance_id) > 1


@bounded
async def test_of_two_who_terminate_a_busy_loop_each_is_told_that_it_has_ended(store, always_late):
    outcomes = []

    async def end(client):
        try:
            await client.terminate("busy")
            outcomes.append("terminated")
        except AlreadyCompleted:
            outcomes.append("had ended")

    async with Runtime(store(), registry(spins)) as node, Client(store()) as elsewhere:
        handle = await node.client.start("spins", 0, instance_id="busy")
        await info_when(handle, lambda info: info.execution_id > 3)
        async with anyio.create_task_group() as group:
            group.start_soon(end, node.client)
            group.start_soon(end, elsewhere)
        assert (await handle.info()).status is InstanceStatus.TERMINATED
        assert len(outcomes) == 2
        assert "terminated" in outcomes


@bounded
async def test_a_terminate_that_is_given_up_leaves_its_mark_and_no_cancel_weakens_it(
    store, always_late
):
    async with Runtime(store(), registry(idle)) as node:
        parked = await node.client.start("idle", instance_id="i")
        await info_when(parked, lambda info: info.waiting_on and info.owner is None)
    provider = store()
    async with Client(provider) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.terminate, "i", "now")
            await until(lambda: provider.directory.get("i").row.cancel)
            group.cancel_scope.cancel()
        await client.cancel("i", "later")
        mark = provider.directory.get("i").row.cancel
        assert (mark.reason, mark.terminate) == ("now", True)
        async with Runtime(store(), registry(idle)):
            info = await info_when(client.handle("i"), lambda info: info.status.is_final)
            assert (info.status, info.error.message) == (InstanceStatus.TERMINATED, "now")
        kinds = [event.kind for event in await client.get_history("i")]
        assert kinds == ["execution_started", "event_awaited", "execution_terminated"]


@bounded
async def test_what_is_held_or_with_nobody_is_ended_at_once_without_a_mark(store):
    provider = store()
    async with Runtime(provider, registry(breaks, idle)) as node:
        held = await node.client.start("breaks", instance_id="held")
        await info_when(held, lambda info: info.status is InstanceStatus.HELD)
        parked = await node.client.start("idle", instance_id="parked")
        await info_when(parked, lambda info: info.waiting_on and info.owner is None)
        for handle in (held, parked):
            await handle.terminate("enough")
            assert (await handle.info()).status is InstanceStatus.TERMINATED
            assert provider.directory.get(handle.instance_id).row.cancel is None
