"""Full inboxes: what is refused, what still gets in, and what the error says."""

import pickle
from contextlib import AsyncExitStack

import pytest

from orchestra import Client, InboxFull, InstanceStatus, Runtime
from tests.support.kit import bounded, info_when, registry

pytestmark = pytest.mark.anyio


async def stops(ctx, value):
    return await ctx.wait_for_event("stop")


async def counts(ctx, value):
    return await ctx.wait_for_event("number", int)


@bounded
async def test_stop_gets_in_where_telemetry_is_refused(store):
    """Scenario 56."""
    async with Runtime(store(), registry(stops), inbox_limit=20) as node:
        handle = await node.client.start("stops")
        for number in range(18):
            await handle.raise_event("telemetry", number)
        with pytest.raises(
            InboxFull, match="18 unread messages of the name 'telemetry'"
        ) as refused:
            await handle.raise_event("telemetry", 18)
        error = pickle.loads(pickle.dumps(refused.value))
        assert (error.instance_id, error.name, error.bound, error.limit) == (
            handle.instance_id,
            "telemetry",
            "messages",
            18,
        )
        await handle.raise_event("stop", "now")
        assert await handle.result() == "now"


@bounded
async def test_large_events_of_one_name_leave_bytes_for_another(store):
    """Scenario 56."""
    async with Runtime(store(), registry(stops), inbox_bytes=10_000) as node:
        handle = await node.client.start("stops")
        for _ in range(4):
            await handle.raise_event("telemetry", "x" * 2_000)
        with pytest.raises(InboxFull, match="inbox_bytes") as refused:
            await handle.raise_event("telemetry", "x" * 1_400)
        assert (refused.value.name, refused.value.bound, refused.value.limit) == (
            "telemetry",
            "bytes",
            9_000,
        )
        await handle.raise_event("other", "x" * 1_500)
        with pytest.raises(InboxFull, match="Let it read them") as refused:
            await handle.raise_event("other", "x" * 1_500)
        assert (refused.value.name, refused.value.bound, refused.value.limit) == (
            None,
            "bytes",
            10_000,
        )
        await handle.raise_event("stop", "now")
        assert await handle.result() == "now"


@bounded
async def test_an_event_that_is_set_aside_names_its_field_and_who_sent_it(store):
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(Runtime(store(), registry(counts)))
        alone = await stack.enter_async_context(Client(store()))
        handle = await node.client.start("counts")
        await handle.raise_event("other", 1)
        await handle.raise_event("number", "many")
        await alone.raise_event(handle.instance_id, "number", [])
        await info_when(handle, lambda info: info.set_aside_messages == 2)
        messages = await node.client.list_messages(handle.instance_id)
        aside = [message for message in messages if message.set_aside is not None]
        assert [(message.sequence, message.sender) for message in aside] == [
            (2, node.node_id),
            (3, "client"),
        ]
        assert all("event 'number'" in message.set_aside for message in aside)
        assert (await handle.info()).status is InstanceStatus.RUNNING


@bounded
@pytest.mark.parametrize(
    ("bounds", "events", "met"),
    [
        ({"inbox_limit": 20}, [("stop", number) for number in range(19)], ("messages", 18)),
        ({"inbox_bytes": 1_000}, [("stop", "x" * 600), ("go", "x" * 600)], ("bytes", 1_000)),
    ],
)
async def test_a_start_with_more_events_than_an_inbox_takes_begins_nothing(
    store, bounds, events, met
):
    async with Runtime(store(), registry(stops), **bounds) as node:
        with pytest.raises(InboxFull) as refused:
            await node.client.start("stops", instance_id="one", events=events)
        assert (refused.value.instance_id, refused.value.bound, refused.value.limit) == (
            "one",
            *met,
        )
        handle = await node.client.start("stops", instance_id="one", events=events[:1])
        assert await handle.result() == events[0][1], "and others go on"
