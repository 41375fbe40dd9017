"""Labels that code gives to what it starts."""

import pytest

from orchestra import InvalidArgument, OrchestrationRegistry
from orchestra.testing import TestRuntime, check_store, crash_everywhere

pytestmark = pytest.mark.anyio


async def parent(ctx, team: str) -> str:
    other = ctx.start_detached("kid", 2, instance_id="other", labels={"team": team, "lap": "1"})
    await ctx.start_child("kid", 1, instance_id="kid", labels={"team": team})
    return other


async def kid(ctx, number: int) -> int:
    return number


async def careless(ctx, labels) -> str:
    with pytest.raises(InvalidArgument, match="label"):
        ctx.start_child("kid", 1, labels=labels)
    with pytest.raises(InvalidArgument, match="label"):
        ctx.start_detached("kid", 1, labels=labels)
    return "refused"


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("parent", parent)
    .register("kid", kid)
    .register("careless", careless)
    .build()
)


async def test_children_and_detached_starts_are_found_by_the_labels_of_the_call():
    async def scenario():
        async with TestRuntime(REGISTRY) as env:
            handle = await env.client.start("parent", "red")
            assert await handle.result() == "other"
            await env.run_until_idle()
            found = await env.client.list_instances(labels={"team": "red"})
            assert {one.instance_id: dict(one.labels) for one in found.items} == {
                "kid": {"team": "red"},
                "other": {"team": "red", "lap": "1"},
            }
            check_store(env.provider, REGISTRY).raise_if_violated()

    await crash_everywhere(scenario)


@pytest.mark.parametrize("labels", [["team"], {"team": 1}, {"": "red"}])
async def test_labels_that_are_none_are_refused_where_they_are_given(labels):
    async with TestRuntime(REGISTRY) as env:
        assert await (await env.client.start("careless", labels)).result() == "refused"
