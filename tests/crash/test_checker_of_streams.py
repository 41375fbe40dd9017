"""The checker finds streams with a gap, and journals that outlived their activity."""

import anyio
import pytest

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider, activity, activity_context
from orchestra.testing.checker import check_store
from tests.crash.test_checker import change


@activity(journal=True)
async def work(value: int) -> int:
    async def step() -> int:
        return value

    return await activity_context().step("one", step)


async def talking(ctx, value):
    for number in range(3):
        ctx.publish("s", number)
    value = await ctx.schedule_activity(work, value)
    await ctx.wait_for_event("go")
    return value


REGISTRY = OrchestrationRegistry.builder().register("talking", talking).build()


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store.db"

    async def fill():
        async with Runtime(SqliteProvider(path), REGISTRY, [work]) as runtime:
            handle = await runtime.client.start("talking", 1, instance_id="i")
            with anyio.fail_after(20):
                while not [one for one in (await handle.info()).waiting_on if one.kind == "event"]:
                    await anyio.sleep(0.005)

    anyio.run(fill)
    return path


def violations(store):
    return [str(one) for one in check_store(SqliteProvider(store), REGISTRY).violations]


def test_streams_and_a_journal_that_went_with_its_activity_are_sound(store):
    assert violations(store) == []


def test_a_gap_in_a_stream_is_found(store):
    change(store, "DELETE FROM stream_item WHERE stream = 's' AND item_offset = 2")
    (one,) = violations(store)
    assert one.startswith("I16: instance 'i': stream 's' has the offsets [1, 3]")


def test_a_journal_of_an_activity_that_has_ended_is_found(store):
    name = "orchestra:journal/1/2"
    change(store, "UPDATE stream SET stream = ? WHERE stream = 's'", name)
    change(store, "UPDATE stream_item SET stream = ? WHERE stream = 's'", name)
    assert violations(store) == [
        (
            "I9: instance 'i', execution 1: stream 'orchestra:journal/1/2' holds the steps of an "
            "activity that has ended"
        )
    ]
