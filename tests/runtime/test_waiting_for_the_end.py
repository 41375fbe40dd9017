"""A compensation begins after the end of the activity that was cancelled (scenario 59)."""

import threading
from datetime import timedelta

import anyio
import pytest

from orchestra import NO_RETRY, InstanceCancelled, Runtime, activity, activity_context
from orchestra.errors import InvalidFunction
from tests.support.kit import Gate, bounded, info_when, registry, runtime, until, when_set

pytestmark = pytest.mark.anyio


class Log:
    """What has happened, in its order; from any thread."""

    def __init__(self):
        self.entries = []
        self.begun = threading.Event()

    def __call__(self, entry):
        self.entries.append(entry)


def transfers(log, style, **options):
    if style == "async":

        @activity(name="transfer", retry=NO_RETRY, **options)
        async def transfer() -> None:
            log.begun.set()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.3)
                log("transfer has ended")

    else:

        @activity(name="transfer", retry=NO_RETRY, **options)
        def transfer() -> None:
            log.begun.set()
            while not activity_context().cancelled:
                threading.Event().wait(0.01)
            threading.Event().wait(0.3)
            log("transfer has ended")

    return transfer


def undoing(log):
    @activity
    async def undo() -> None:
        log("undo")

    return undo


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_an_undo_begins_after_the_transfer_has_ended(store, style):
    log = Log()
    transfer, undo = transfers(log, style), undoing(log)

    async def saga(ctx, value):
        try:
            await ctx.schedule_activity(transfer)
        finally:
            await ctx.schedule_activity(undo)

    async with Runtime(store(), registry(saga), [transfer, undo]) as node:
        handle = await node.client.start("saga")
        await when_set(log.begun)
        await handle.cancel()
        with pytest.raises(InstanceCancelled):
            await handle.result()
    assert log.entries == ["transfer has ended", "undo"]


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
@pytest.mark.parametrize("on_cancel", ["wait", "abandon"])
async def test_the_loser_of_a_race_ends_first_where_the_call_says_so(path, style, on_cancel):
    log = Log()
    transfer, undo = transfers(log, style), undoing(log)

    async def racing(ctx, value):
        await ctx.race(
            ctx.schedule_activity(transfer.options(on_cancel=on_cancel)), ctx.wait_for_event("go")
        )
        await ctx.schedule_activity(undo)

    async with runtime(path, racing, activities=[transfer, undo]) as node:
        handle = await node.client.start("racing")
        await when_set(log.begun)
        await handle.raise_event("go")
        await handle.result()
        await until(lambda: len(log.entries) == 2)
    ends_first = log.entries == ["transfer has ended", "undo"]
    assert ends_first == (on_cancel == "wait")


@pytest.mark.slow
@bounded
async def test_a_thread_that_does_not_end_is_waited_for_until_its_time_is_up_and_named(
    path, caplog
):
    log, gate = Log(), Gate()
    undo = undoing(log)

    @activity(retry=NO_RETRY, timeout=timedelta(seconds=2))
    def transfer() -> None:
        gate()

    async def saga(ctx, value):
        try:
            await ctx.schedule_activity(transfer)
        finally:
            await ctx.schedule_activity(undo)

    async with runtime(path, saga, activities=[transfer, undo]) as node:
        handle = await node.client.start("saga")
        await when_set(gate.entered)
        await handle.cancel()
        await until(lambda: "its caller is cancelled, and waits for its end" in caplog.text)
        assert log.entries == []
        with pytest.raises(InstanceCancelled):
            await handle.result()
        history = await node.client.get_history(handle.instance_id)
        gate.open()
    (failed,) = [event for event in history if event.kind == "activity_failed"]
    assert (failed.details["reason"], failed.details["error"].type) == ("cancelled", "TimeoutError")
    assert log.entries == ["undo"]


@bounded
async def test_an_activity_that_has_no_place_yet_is_never_begun(path):
    log, gate = Log(), Gate()
    undo = undoing(log)

    @activity(retry=NO_RETRY)
    def first() -> None:
        gate()

    @activity(retry=NO_RETRY)
    def second() -> None:
        log("second")

    async def holds(ctx, value):
        await ctx.schedule_activity(first)

    async def saga(ctx, value):
        try:
            await ctx.schedule_activity(second)
        finally:
            await ctx.schedule_activity(undo)

    async with runtime(
        path, holds, saga, activities=[first, second, undo], max_activity_threads=1
    ) as node:
        await node.client.start("holds")
        await when_set(gate.entered)
        handle = await node.client.start("saga")
        await until(lambda: node._runner._without_thread)
        await handle.cancel()
        with pytest.raises(InstanceCancelled):
            await handle.result()
        gate.open()
    assert log.entries == ["undo"]


# --- on other nodes -----------------------------------------------------------------------------

SOON = timedelta(milliseconds=50)


def saga_of(transfer, undo):
    async def saga(ctx, value):
        try:
            await ctx.schedule_activity(transfer)
        finally:
            await ctx.schedule_activity(undo)

    return saga


def sagas(transfer, undo):
    return registry(saga_of(transfer, undo))


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_an_undo_begins_after_the_transfer_has_ended_on_another_node(store, style):
    log = Log()
    transfer, undo = transfers(log, style), undoing(log)
    async with (
        Runtime(store(), sagas(transfer, undo), [undo]) as front,
        Runtime(store(), registry(), [transfer], poll=SOON),
    ):
        handle = await front.client.start("saga")
        await when_set(log.begun)
        await handle.cancel()
        with pytest.raises(InstanceCancelled):
            await handle.result()
    assert log.entries == ["transfer has ended", "undo"]


@bounded
async def test_the_loser_of_a_race_ends_first_on_another_node_where_the_call_says_so(store):
    log = Log()
    transfer, undo = transfers(log, "async", on_cancel="wait"), undoing(log)

    async def racing(ctx, value):
        await ctx.race(ctx.schedule_activity(transfer), ctx.wait_for_event("go"))
        await ctx.schedule_activity(undo)

    async with (
        Runtime(store(), registry(racing), [undo], poll=SOON) as front,
        Runtime(store(), registry(), [transfer], poll=SOON),
    ):
        handle = await front.client.start("racing")
        await when_set(log.begun)
        await handle.raise_event("go")
        await handle.result()
    assert log.entries == ["transfer has ended", "undo"]


@bounded
async def test_a_transfer_that_no_node_has_taken_is_withdrawn(store):
    log = Log()
    transfer, undo = transfers(log, "async"), undoing(log)

    @activity
    async def later() -> str:
        return "later"

    async def asks(ctx, value):
        return await ctx.schedule_activity(later)

    async with Runtime(store(), registry(saga_of(transfer, undo), asks), [undo]) as front:
        handle = await front.client.start("saga")
        await info_when(
            handle, lambda info: info.pending_activities and info.pending_activities[0].queue
        )
        await handle.cancel()
        with pytest.raises(InstanceCancelled):
            await handle.result()
        async with Runtime(store(), registry(), [transfer, later]):
            assert await (await front.client.start("asks")).result() == "later"
    assert log.entries == ["undo"]
    assert not log.begun.is_set()


@bounded
async def test_who_takes_the_instance_over_waits_for_the_transfer_of_another_node(store):
    log, gate = Log(), Gate()
    undo = undoing(log)

    @activity(retry=NO_RETRY)
    def transfer() -> None:
        gate()
        log("transfer has ended")

    def front():
        return Runtime(store(), sagas(transfer, undo), [undo], poll=SOON)

    async with Runtime(store(), registry(), [transfer], poll=SOON) as back:
        async with front() as first:
            handle = await first.client.start("saga", instance_id="one")
            await when_set(gate.entered)
            await handle.cancel()
            await until(
                lambda: (
                    back._runner._runs
                    and next(iter(back._runner._runs.values())).asked_at is not None
                )
            )
        async with front() as second:
            handle = second.client.handle("one")
            assert (await handle.info()).pending_activities[0].node == back.node_id
            gate.open()
            with pytest.raises(InstanceCancelled):
                await handle.result()
    assert log.entries == ["transfer has ended", "undo"]


@bounded
async def test_the_wait_ends_where_the_node_of_the_transfer_leaves(store):
    log, gate = Log(), Gate()
    undo = undoing(log)

    @activity(retry=NO_RETRY)
    def transfer() -> None:
        gate()

    async with Runtime(store(), sagas(transfer, undo), [undo], poll=SOON) as front:
        async with Runtime(store(), registry(), [transfer], poll=SOON, grace=SOON) as back:
            handle = await front.client.start("saga")
            await when_set(gate.entered)
            await handle.cancel()
            await until(lambda: next(iter(back._runner._runs.values())).asked_at is not None)
            assert log.entries == []
        with pytest.raises(InstanceCancelled):
            await handle.result()
        history = await front.client.get_history(handle.instance_id)
        gate.open()
    (failed,) = [event for event in history if event.kind == "activity_failed"]
    assert (failed.details["reason"], failed.details["error"].type) == (
        "cancelled",
        "orchestra.NodeLost",
    )
    assert log.entries == ["undo"]


@pytest.mark.parametrize("value", ["later", True, 1])
async def test_what_on_cancel_cannot_be_is_refused(value):
    with pytest.raises(InvalidFunction, match="on_cancel"):
        activity(name="work", on_cancel=value)(lambda: None)
