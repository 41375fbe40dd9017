"""A reader of a stream that stands still hurts no writer (scenario 76)."""

import gc
import tracemalloc
from contextlib import aclosing
from datetime import timedelta

import pytest

from orchestra import (
    Client,
    OrchestrationRegistry,
    Retention,
    Runtime,
    StreamRetention,
    StreamTruncated,
    activity,
    activity_context,
)
from tests.support.kit import bounded

pytestmark = pytest.mark.anyio

KEPT = 64
LAPS = 6
SIZE = 16_384
"""Characters of an item: all items together are much more than may be kept anywhere."""
PER_LAP = 100
MOST_HELD = 5 * 1024 * 1024
"""Half of what is published: pages for the reader and on the way from the activity are less."""


def text_of(number: int) -> str:
    return f"{number:08}" * (SIZE // 8)


@activity
async def speak(first: int) -> int:
    for number in range(first, first + PER_LAP):
        await activity_context().publish("words", text_of(number))
    return first + PER_LAP


async def talker(ctx, spoken: int) -> int:
    """Publishes from an activity and from its turns, in many laps, once it was told to."""
    ctx.publish("turns", spoken)
    if not spoken:
        ctx.publish("words", "")
        await ctx.wait_for_event("go")
    spoken = await ctx.schedule_activity(speak, spoken)
    if spoken >= LAPS * PER_LAP:
        return spoken
    ctx.continue_as_new(spoken)


async def neighbour(ctx, lap: int) -> int:
    ctx.publish("laps", lap)
    await ctx.schedule_timer(timedelta(0))
    if lap >= LAPS:
        return lap
    ctx.continue_as_new(lap + 1)


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("talker", talker)
    .register("neighbour", neighbour)
    .set_retention("talker", Retention(streams=StreamRetention(items=KEPT)))
    .build()
)


@pytest.mark.parametrize("where", ["beside the writer", "in another client"])
@bounded
async def test_a_reader_that_never_advances_stops_no_writer_and_learns_that_it_was_too_slow(
    store, where
):
    """Nothing here waits for a time: the writers end although nobody reads on."""
    async with (
        Runtime(store(), REGISTRY, [speak]) as runtime,
        Client(store()) as elsewhere,
    ):
        client = runtime.client if where == "beside the writer" else elsewhere
        await runtime.client.start("talker", 0, instance_id="t")
        async with (
            aclosing(client.read_stream("t", "words", str)) as words,
            aclosing(client.read_stream("t", "turns", int)) as turns,
        ):
            first = await anext(words)
            assert (await anext(turns)).value == 0
            gc.collect()
            tracemalloc.start()
            try:
                # From here on no reader moves; the instance and its neighbour run to their ends.
                await runtime.client.raise_event("t", "go")
                await runtime.client.start("neighbour", 1, instance_id="n")
                assert await runtime.client.handle("t").result() == LAPS * PER_LAP
                assert await runtime.client.handle("n").result() == LAPS
                _, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert most < MOST_HELD < LAPS * PER_LAP * SIZE
            assert first.value == ""
            kept = {one.name: one for one in await client.list_streams("t")}
            held = kept["words"].last_offset - kept["words"].first_offset + 1
            assert KEPT <= held <= KEPT + KEPT // 8
            with pytest.raises(StreamTruncated) as caught:
                await anext(words)
            assert caught.value.first_offset == kept["words"].first_offset
            rest = [
                item.value
                async for item in client.read_stream(
                    "t", "words", str, after=caught.value.first_offset - 1
                )
            ]
            assert rest == [text_of(number) for number in range(LAPS * PER_LAP)][-held:]
            # The stream that was not cut goes on where it stood, with nothing missing.
            assert [item.value async for item in turns] == [lap * PER_LAP for lap in range(1, LAPS)]


@bounded
async def test_many_readers_that_stand_still_leave_the_writers_to_work(store):
    async with Runtime(store(), REGISTRY, [speak]) as runtime:
        readers = []
        await runtime.client.start("talker", 0, instance_id="t")
        for _ in range(20):
            readers.append(runtime.client.read_stream("t", "words", str))
            assert (await anext(readers[-1])).offset == 1
        await runtime.client.raise_event("t", "go")
        assert await runtime.client.handle("t").result() == LAPS * PER_LAP
        for reader in readers:
            with pytest.raises(StreamTruncated):
                await anext(reader)
