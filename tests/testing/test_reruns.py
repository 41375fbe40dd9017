"""A new instance from the first input of another one."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from orchestra import (
    InstanceExists,
    InstanceNotFound,
    InvalidArgument,
    OrchestrationRegistry,
    Retention,
    UnknownVersion,
)
from orchestra.testing import TestRuntime

pytestmark = pytest.mark.anyio


@dataclass
class Count:
    number: int


@dataclass
class Counts:
    numbers: list[int]


async def counts(ctx, state: Count) -> int:
    await ctx.schedule_timer(timedelta(days=1))
    if state.number < 10:
        ctx.continue_as_new(Count(state.number + 1))
    return state.number


async def counts_2(ctx, state: Counts) -> int:
    return len(state.numbers)


def registry():
    builder = OrchestrationRegistry.builder().register("counts", counts)
    builder.register("counts", counts_2, version="2.0.0")
    builder.migrate("counts", "2.0.0", lambda state: {"numbers": [state["number"]]})
    return builder.build()


ONE = OrchestrationRegistry.builder().register("counts", counts).build()


async def test_it_begins_with_the_first_input_the_labels_and_the_queue_of_the_old_one():
    async with TestRuntime(ONE, queues=("default", "gpu")) as env:
        old = await env.client.start(
            "counts", Count(7), instance_id="c", queue="gpu", labels={"team": "blue"}
        )
        assert await old.result() == 10
        again = await env.client.rerun("c")
        assert again.instance_id != "c"
        info = await again.info()
        assert (info.input, info.queue, info.labels) == ({"number": 7}, "gpu", {"team": "blue"})
        assert env.provider.directory.get(again.instance_id).created_by == "rerun of c"
        assert await again.result() == 10


async def test_on_another_version_its_input_migrates():
    async with TestRuntime(ONE) as env:
        await (await env.client.start("counts", Count(9), instance_id="c")).result()
        await env.upgrade(registry())
        again = await env.client.rerun("c", "2.0.0", instance_id="again")
        assert again.instance_id == "again"
        assert await again.result() == 1
        (row,) = await env.client.list_executions("again")
        assert (row.written_by, row.migrations) == ("1.0.0", ("2.0.0",))


async def test_what_cannot_be_run_again_is_named():
    async with TestRuntime(ONE, retention=Retention(histories=2, executions=2)) as env:
        with pytest.raises(InstanceNotFound):
            await env.client.rerun("nobody")
        await (await env.client.start("counts", Count(1), instance_id="c")).result()
        with pytest.raises(InvalidArgument, match="has deleted the first lap of 'c'"):
            await env.client.rerun("c")
        await env.client.start("counts", Count(10), instance_id="d")
        with pytest.raises(InstanceExists):
            await env.client.rerun("d", instance_id="c")
        with pytest.raises(UnknownVersion):
            await env.client.rerun("d", "9.0.0")
