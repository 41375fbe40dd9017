"""Scenario 65: a process dies at each commit around what operators do, and each of it is wholly
before or wholly after.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestra import Bulk, OrchestrationRegistry, Selection, activity
from orchestra.errors import Failure, InstanceFailed
from orchestra.testing import TestRuntime, check_store, crash_everywhere

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


@activity
async def work(number: int) -> int:
    return number


async def collect(ctx, got: list[str]) -> list[str]:
    got = [*got, await ctx.wait_for_event("next", str)]
    if len(got) < 3:
        ctx.continue_as_new(got)
    return got


async def works(ctx, laps: int) -> str:
    await ctx.gather(ctx.schedule_timer(5 * MINUTE), ctx.schedule_activity(work, laps))
    if laps:
        ctx.continue_as_new(laps - 1)
    return "done"


async def fails_once(ctx, word: str) -> str:
    told = await ctx.wait_for_event("next", str)
    if word == "bad":
        raise Failure("it was bad")
    return word + told


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("collect", collect)
    .register("works", works)
    .register("fails_once", fails_once)
    .build()
)


def runtime() -> TestRuntime:
    return TestRuntime(REGISTRY, [work])


async def read_two(env):
    handle = await env.client.start("collect", [], instance_id="c", request_id="start")
    for word in ("a", "b"):
        await handle.raise_event("next", word, message_id=f"id of {word}")
        await env.advance(timedelta(seconds=1))
    assert (await handle.info()).execution_id == 3
    return handle


@pytest.mark.parametrize("held", [False, True])
async def test_a_rewind_of_what_runs_or_is_held_is_done_once_wherever_the_process_dies(held):
    async def scenario():
        async with runtime() as env:
            handle = await read_two(env)
            if held:
                await env.client.hold("c", reason="look")
            done = await env.client.rewind("c", 2, reason="b was wrong", request_id="back")
            assert (done.execution_id, done.version) == (4, "1.0.0")
            if held:
                unread = await env.client.list_messages("c")
                assert [message.payload for message in unread] == ["b"]
                await env.client.release("c")
            await handle.raise_event("next", "c", message_id="id of c")
            assert await handle.result() == ["a", "b", "c"]
            statuses = [row.status for row in await env.client.list_executions("c")]
            assert statuses.count("rewound") == 1
            check_store(env.provider, REGISTRY).raise_if_violated()

    assert (await crash_everywhere(scenario)).commits >= 6


async def test_a_rewind_of_an_ended_instance_begins_one_life_wherever_the_process_dies():
    async def scenario():
        async with runtime() as env:
            handle = await read_two(env)
            await handle.raise_event("next", "c", message_id="id of c")
            assert await handle.result() == ["a", "b", "c"]
            done = await env.client.rewind("c", 2, request_id="back")
            assert done.execution_id == 4
            assert await env.client.handle("c").result() == ["a", "b", "c"]
            assert len(await env.client.list_executions("c")) == 5
            check_store(env.provider, REGISTRY).raise_if_violated()

    assert (await crash_everywhere(scenario)).commits >= 6


async def test_a_hold_and_its_release_keep_an_activity_and_a_timer_wherever_the_process_dies():
    async def scenario():
        async with runtime() as env:
            handle = await env.client.start("works", 1, instance_id="w", request_id="start")
            await env.client.hold("w", reason="look")
            await env.advance(10 * MINUTE)
            info = await handle.info()
            assert (info.execution_id, info.hold.kind) == (1, "operator")
            await env.client.release("w")
            await env.advance(MINUTE)
            assert (await handle.info()).execution_id == 2, "the timer was due meanwhile"
            await env.client.hold("w", reason="look again")
            await env.advance(MINUTE)
            await env.client.release("w")
            assert await handle.result() == "done"
            assert len(await env.client.list_executions("w")) == 2
            check_store(env.provider, REGISTRY).raise_if_violated()

    assert (await crash_everywhere(scenario)).commits >= 6


async def test_a_restart_with_an_event_begins_one_life_wherever_the_process_dies():
    async def scenario():
        async with runtime() as env:
            first = await env.client.start("fails_once", "bad", instance_id="f", request_id="one")
            await first.raise_event("next", "x", message_id="id of x")
            with pytest.raises(InstanceFailed):
                await first.result()
            for _ in range(2):
                again = await env.client.start(
                    "fails_once",
                    "good",
                    instance_id="f",
                    request_id="two",
                    if_ended="restart",
                    events=[("next", "y")],
                )
                assert await again.result() == "goody"
            assert len(await env.client.list_executions("f")) == 2
            check_store(env.provider, REGISTRY).raise_if_violated()

    assert (await crash_everywhere(scenario)).commits >= 4


async def test_a_bulk_hold_and_release_reach_each_instance_once_wherever_the_process_dies():
    async def scenario():
        async with runtime() as env:
            for number in range(3):
                await env.client.start(
                    "works", 0, instance_id=f"w{number}", request_id=f"r{number}"
                )
            for act in (Bulk.HOLD, Bulk.RELEASE):
                await env.client.bulk(act, Selection(name="works"), dry_run=False, reason="look")
                held = [(await env.client.handle(f"w{number}").info()).hold for number in range(3)]
                assert all((hold is not None) == (act is Bulk.HOLD) for hold in held)
            for number in range(3):
                assert await env.client.handle(f"w{number}").result() == "done"
            page = await env.client.list_operations(subject="w1")
            acts = [entry.action for entry in page.items]
            assert (acts.count("hold"), acts.count("release")) == (1, 1)
            check_store(env.provider, REGISTRY).raise_if_violated()

    assert (await crash_everywhere(scenario)).commits >= 6
