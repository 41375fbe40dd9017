"""A stored hold can be released by hand."""

import pytest

from orchestra import InstanceStatus, OrchestrationRegistry, Runtime, SqliteProvider
from orchestra.errors import AlreadyCompleted, InstanceNotHeld

pytestmark = pytest.mark.anyio


async def test_a_held_instance_is_tried_once_more_when_it_is_released(path):
    limit = {"least": 10}

    async def counts(ctx, state: int) -> int:
        answer = await ctx.wait_for_event("go")
        # Depends on something outside: the fault that holds it, and that no fingerprint can see.
        for _ in range(limit["least"]):
            await ctx.wait_for_event("more")
        return answer

    registry = OrchestrationRegistry.builder().register("counts", counts).build()
    async with Runtime(SqliteProvider(path), registry) as runtime:
        handle = await runtime.client.start("counts", 1, instance_id="one")
        with pytest.raises(InstanceNotHeld):
            await runtime.client.release("one")
        await handle.raise_event("go", 7)
        while (await handle.info()).history_events < 4:
            pass
    limit["least"] = 0
    async with Runtime(SqliteProvider(path), registry) as runtime:
        await runtime.client.raise_event("one", "more")
        while (await runtime.client.get_instance_info("one")).status is not InstanceStatus.HELD:
            pass
        limit["least"] = 1
        await runtime.client.release("one")
        assert await runtime.client.handle("one").result() == 7
        with pytest.raises(AlreadyCompleted):
            await runtime.client.release("one")
