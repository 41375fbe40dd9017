"""A scenario is killed at each of its commits, and replayed at each of its turns."""

from datetime import timedelta

import pytest

from orchestra import InvalidArgument, OrchestrationRegistry
from orchestra.testing import (
    ScenarioFails,
    TestRuntime,
    check_determinism,
    crash_everywhere,
)
from tests.testing.programs import FLIPS, LOOPS, ORDERS, SETS, charge, order, ship

pytestmark = pytest.mark.anyio


async def test_a_scenario_goes_on_after_a_crash_at_each_of_its_commits():
    runs = []

    async def scenario():
        runs.append(1)
        async with TestRuntime(ORDERS, [charge, ship]) as env:
            env.fake(charge, [OSError("away"), 5])
            env.fake(ship, lambda address: f"sent to {address}")
            handle = await env.client.start("order", "o-1", instance_id="o-1")
            await env.advance(timedelta(days=1))
            await handle.raise_event("address", "here")
            assert await handle.result() == "sent to here"

    report = await crash_everywhere(scenario)
    assert report.commits >= 6
    assert len(runs) == 1 + report.runs


async def test_an_activity_that_is_not_idempotent_is_found_with_the_commit():
    async def scenario(env):
        charged = []
        env.fake(charge, lambda order, amount: charged.append(amount) or len(charged))
        env.fake(ship, lambda address: "sent")
        handle = await env.client.start("order", "o-1", instance_id="o-1")
        await handle.raise_event("address", "here")
        await handle.result()
        assert charged == [5], f"charged {len(charged)} times"

    with pytest.raises(
        ScenarioFails, match=r"dies (before|after) commit \d+ of \d+ .*charged 2 times"
    ) as caught:
        await crash_everywhere(scenario, ORDERS, [charge, ship])
    assert caught.value.commit >= 1
    assert isinstance(caught.value.__cause__, AssertionError)


async def test_one_that_is_idempotent_passes():
    async def scenario(env):
        charged = {}
        env.fake(charge, lambda order, amount: charged.setdefault(order, amount))
        env.fake(ship, lambda address: "sent")
        handle = await env.client.start("order", "o-1", instance_id="o-1")
        await handle.raise_event("address", "here")
        assert await handle.result() == "sent"
        assert charged == {"o-1": 5}

    await crash_everywhere(scenario, ORDERS, [charge, ship])


async def test_a_scenario_that_fails_without_a_crash_raises_what_it_raises():
    async def scenario(env):
        raise LookupError("wrong from the beginning")

    with pytest.raises(LookupError, match="wrong from the beginning"):
        await crash_everywhere(scenario, ORDERS, [charge, ship])


async def test_a_scenario_that_takes_a_runtime_needs_a_registry():
    async def scenario(env): ...

    with pytest.raises(InvalidArgument, match="give the registry"):
        await crash_everywhere(scenario)


# --- determinism ------------------------------------------------------------------------------


@pytest.mark.slow
async def test_deterministic_code_passes_under_each_hash_seed():
    async def scenario(env):
        env.fake(charge, lambda order, amount: amount)
        await env.client.start("grows", 1)
        await env.advance(timedelta(days=3))

    replayed = await check_determinism(LOOPS, scenario, [charge, ship])
    assert replayed.executions == 4
    assert replayed.events > 12


@pytest.mark.slow
async def test_code_that_goes_by_the_order_of_a_set_is_found():
    async def scenario(env):
        env.fake("note", lambda word: word)
        await (await env.client.start("sorts", None)).result()

    with pytest.raises(
        AssertionError,
        match=r"under PYTHONHASHSEED=\d: lap 1 of .* does not replay on sorts 1\.0\.0",
    ):
        await check_determinism(SETS, scenario, hash_seeds=(1, 2, 3))


async def test_code_that_reads_what_changes_is_found_as_its_turns_are_cold():
    async def scenario(env):
        await env.client.start("flips", None)
        await env.advance(timedelta(days=3))

    with pytest.raises(AssertionError, match="did something else as its turn was repeated"):
        await check_determinism(FLIPS, scenario)


async def test_functions_that_no_other_process_can_import_are_refused_by_name():
    async def inner(ctx, _: None) -> None: ...

    registry = OrchestrationRegistry.builder().register("inner", inner).build()

    async def scenario(env):
        await (await env.client.start("inner", None)).result()

    with pytest.raises(InvalidArgument, match=r"inner 1\.0\.0 .*inside another function"):
        await check_determinism(registry, scenario)


@pytest.mark.slow
async def test_a_scenario_may_make_its_own_runtime():
    async def scenario():
        async with TestRuntime(ORDERS, [charge, ship]) as env:
            env.fake(charge, [5])
            await env.client.start(order, "o-1")
            await env.advance(timedelta(days=5))

    assert (await check_determinism(ORDERS, scenario)).executions == 1
