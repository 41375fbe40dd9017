"""Version policies in tests on virtual time."""

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from orchestra import (
    Exact,
    InvalidArgument,
    Latest,
    NoVersionInRange,
    OrchestrationRegistry,
    Range,
    RegistrationError,
)
from orchestra.testing import TestRuntime

pytestmark = pytest.mark.anyio


@dataclass
class Watch:
    laps: int = 0


async def watch(ctx, state: Watch) -> None:
    await ctx.schedule_timer(timedelta(days=1))
    ctx.continue_as_new(replace(state, laps=state.laps + 1))


def builder(*versions):
    made = OrchestrationRegistry.builder()
    for version in versions:
        made.register("watch", watch, version=version)
    return made


THREE = builder("1.0.0", "1.1.0", "2.0.0")


async def versions_of(env, handle):
    executions = await env.client.list_executions(handle.instance_id)
    return [execution.version for execution in executions]


async def test_the_builders_range_counts_from_the_first_start_on():
    registry = builder("1.0.0", "1.1.0", "2.0.0").set_version_policy("watch", Range("^1")).build()
    async with TestRuntime(registry) as env:
        assert (await env.client.get_version_policy("watch")) == Range("^1")
        handle = await env.client.start("watch", Watch())
        await env.run_until(handle, execution=2)
        assert await versions_of(env, handle) == ["1.1.0", "1.1.0"]
        await env.upgrade(builder("1.0.0", "1.1.0", "1.2.0", "2.0.0").build())
        await env.run_until(handle, execution=3)
        assert (await versions_of(env, handle))[-1] == "1.2.0"


async def test_a_range_that_a_client_sets_counts_at_the_next_boundary():
    async with TestRuntime(THREE.build()) as env:
        handle = await env.client.start("watch", Watch(), version="1.0.0")
        await env.client.set_version_policy("watch", Range("~1.0"))
        await env.run_until(handle, execution=2)
        await env.client.set_version_policy("watch", Range(">=1.1,<2"))
        assert (await handle.info()).target_version == "1.1.0"
        await env.run_until(handle, execution=3)
        assert await versions_of(env, handle) == ["1.0.0", "1.0.0", "1.1.0"]


async def test_a_range_that_no_version_is_in_is_refused_or_refuses_starts():
    async with TestRuntime(THREE.build()) as env:
        with pytest.raises(NoVersionInRange, match="allow_missing=True"):
            await env.client.set_version_policy("watch", Range("^3"))
        assert (await env.client.get_version_policy("watch")) == Latest()
        handle = await env.client.start("watch", Watch(), version="1.0.0")
        await env.client.set_version_policy("watch", Range("^3"), allow_missing=True)
        with pytest.raises(NoVersionInRange) as refused:
            await env.client.start("watch", Watch())
        assert refused.value.range == "^3"
        assert refused.value.registered == ("1.0.0", "1.1.0", "2.0.0")
        await env.run_until(handle, execution=2)
        assert await versions_of(env, handle) == ["1.0.0", "1.0.0"], "a boundary stays"
        assert (await handle.info()).target_version == "1.0.0"


async def test_what_a_mistake_has_stopped_follows_a_range():
    async with TestRuntime(THREE.build()) as env:
        handle = await env.client.start("watch", Watch(), version="1.0.0")
        await env.client.set_version_policy("watch", Exact("9.0.0"), allow_missing=True)
        await env.advance(timedelta(days=1))
        assert "9.0.0" in (await handle.info()).held_reason
        await env.client.set_version_policy("watch", Range("^1"))
        await env.run_until(handle, execution=3)
        assert await versions_of(env, handle) == ["1.0.0", "1.1.0", "1.1.0"]


async def test_after_a_pin_the_range_counts_again():
    async with TestRuntime(THREE.build()) as env:
        await env.client.set_version_policy("watch", Range("^1"))
        handle = await env.client.start("watch", Watch())
        await env.client.pin(handle.instance_id, "1.0.0")
        await env.run_until(handle, execution=2)
        await env.client.unpin(handle.instance_id)
        await env.run_until(handle, execution=3)
        assert await versions_of(env, handle) == ["1.1.0", "1.0.0", "1.1.0"]


def test_a_builder_refuses_a_range_that_has_no_registered_version():
    with pytest.raises(RegistrationError, match=r"Range\(text='\^3'\), but registered are 1\.0\.0"):
        builder("1.0.0", "2.0.0").set_version_policy("watch", Range("^3")).build()


async def test_the_text_of_a_range_is_no_policy():
    async with TestRuntime(THREE.build()) as env:
        with pytest.raises(InvalidArgument, match=r"Range\('\^1\.2'\)"):
            await env.client.set_version_policy("watch", "^1")
