"""Unread messages are listed, and dropped by name or by id."""

import json

import pytest

from orchestra import (
    InstanceCompleted,
    InstanceNotFound,
    InvalidArgument,
    OrchestrationRegistry,
    Runtime,
    SqliteProvider,
)
from orchestra.testing import TestRuntime, check_store, crash_everywhere

pytestmark = pytest.mark.anyio


async def waits(ctx, _: None) -> list[str]:
    first = await ctx.wait_for_event("go", str)
    return [first, await ctx.wait_for_event("go", str)]


REGISTRY = OrchestrationRegistry.builder().register("waits", waits).build()


async def noisy(client, count=5):
    handle = await client.start("waits", None, instance_id="w")
    for number in range(count):
        await handle.raise_event("noise", {"number": number}, message_id=f"n{number}")
    return handle


async def test_what_waits_unread_is_listed_with_who_sent_it():
    async with TestRuntime(REGISTRY) as env:
        await noisy(env.client)
        listed = await env.client.list_messages("w")
        assert [(one.sequence, one.message_id, one.name) for one in listed] == [
            (number + 1, f"n{number}", "noise") for number in range(5)
        ]
        assert listed[3].payload == {"number": 3}
        assert (listed[0].sender, listed[0].sent_at, listed[0].size) == (
            "test",
            env.now,
            len(json.dumps({"number": 0}, separators=(",", ":"))),
        )
        assert [one.sequence for one in await env.client.list_messages("w", after=2, limit=2)] == [
            3,
            4,
        ]


async def test_messages_are_dropped_by_name_and_what_is_left_is_received_in_order():
    async with TestRuntime(REGISTRY) as env:
        handle = await noisy(env.client, 620)
        await handle.raise_event("go", "one")
        await handle.raise_event("later", "kept")
        assert await env.client.drop_messages("w", "noise", reason="a sender gone wild") == 620
        assert [one.name for one in await env.client.list_messages("w")] == ["later"]
        await handle.raise_event("go", "two")
        assert await handle.result() == ["one", "two"]
        check_store(env.provider, REGISTRY).raise_if_violated()


async def test_messages_are_dropped_by_their_ids():
    async with TestRuntime(REGISTRY) as env:
        await noisy(env.client)
        assert await env.client.drop_messages("w", message_ids=["n1", "n3", "unknown"]) == 2
        assert await env.client.drop_messages("w", "other", ["n2"]) == 0
        left = [one.message_id for one in await env.client.list_messages("w")]
        assert left == ["n0", "n2", "n4"]


async def test_a_dropped_message_that_is_sent_again_has_no_effect():
    async with TestRuntime(REGISTRY) as env:
        handle = await noisy(env.client)
        await env.client.drop_messages("w", "noise")
        await handle.raise_event("noise", 1, message_id="n1")
        assert await env.client.list_messages("w") == ()


async def test_a_held_instance_keeps_its_hold_as_messages_are_dropped():
    async def breaks(ctx, _: None) -> None:
        if await ctx.wait_for_event("go") == "no number":
            raise ValueError("no number")

    registry = OrchestrationRegistry.builder().register("breaks", breaks).build()
    async with TestRuntime(registry) as env:
        handle = await env.client.start("breaks", None, instance_id="b")
        await handle.raise_event("go", "no number", message_id="bad")
        assert (await handle.info()).held_reason.startswith("error: ")
        assert await env.client.drop_messages("b", message_ids=["bad"]) == 1
        assert (await handle.info()).held_reason is not None
        await handle.release()
        assert (await handle.info()).held_reason is None
        await handle.raise_event("go", 7)
        await handle.result()


async def test_a_death_at_any_commit_drops_wholly_or_not_at_all():
    async def scenario():
        async with TestRuntime(REGISTRY) as env:
            handle = await noisy(env.client)
            await env.client.drop_messages("w", "noise")
            assert await env.client.list_messages("w") == ()
            await handle.raise_event("go", "one")
            await handle.raise_event("go", "two")
            assert await handle.result() == ["one", "two"]

    await crash_everywhere(scenario)


async def test_misuse_is_refused_by_name():
    async with TestRuntime(REGISTRY) as env:
        handle = await noisy(env.client)
        with pytest.raises(InvalidArgument, match="neither a name nor message ids"):
            await env.client.drop_messages("w")
        with pytest.raises(InvalidArgument, match="sequence of ids"):
            await env.client.drop_messages("w", message_ids="n1")
        with pytest.raises(InvalidArgument, match="limit"):
            await env.client.list_messages("w", limit=0)
        for call in (
            env.client.list_messages,
            lambda known: env.client.drop_messages(known, "noise"),
        ):
            with pytest.raises(InstanceNotFound):
                await call("nobody")
        await handle.cancel()
        with pytest.raises(InstanceNotFound):
            await env.client.drop_messages("nobody", "x")
        await handle.wait()
        assert await env.client.list_messages("w") == ()


async def test_a_loop_that_is_owned_loses_what_is_dropped_from_its_memory(tmp_path):
    async with Runtime(SqliteProvider(tmp_path / "store.db"), REGISTRY) as runtime:
        handle = await noisy(runtime.client)
        await handle.raise_event("go", "one")
        assert await runtime.client.drop_messages("w", "noise") == 5
        await handle.raise_event("go", "two")
        assert await handle.result() == ["one", "two"]
        with pytest.raises(InstanceCompleted):
            await handle.raise_event("go", "three")


# --- set aside --------------------------------------------------------------------------------


async def counts(ctx, _: None) -> list[int]:
    first = await ctx.wait_for_event("number", int)
    return [first, await ctx.wait_for_event("number", int)]


COUNTS = OrchestrationRegistry.builder().register("counts", counts).build()


async def test_what_does_not_decode_is_listed_with_its_reason_and_counted_until_it_is_dropped():
    async with TestRuntime(COUNTS) as env:
        handle = await env.client.start("counts", None, instance_id="c")
        await handle.raise_event("number", "many", message_id="bad")
        await handle.raise_event("noise", 1, message_id="noise")
        await env.run_until_idle()
        info = await handle.info()
        assert (info.held_reason, info.set_aside_messages, info.unread_messages) == (None, 1, 1)
        assert info.unread_by_name == {"noise": 1, "number": 1}
        bad, noise = await env.client.list_messages("c")
        assert (bad.message_id, bad.payload, bad.set_aside_at) == ("bad", "many", env.now)
        assert "event 'number' for 'c' does not fit int" in bad.set_aside
        assert (noise.set_aside, noise.set_aside_at) == (None, None)
        assert await env.client.drop_messages("c", "number", reason="mended") == 1
        assert [one.message_id for one in await env.client.list_messages("c")] == ["noise"]
        await handle.raise_event("number", "many", message_id="bad")  # its sender repeats it
        assert [one.message_id for one in await env.client.list_messages("c")] == ["noise"]
        await handle.raise_event("number", 1)
        await handle.raise_event("number", [])
        await handle.raise_event("number", 2)
        assert await handle.result() == [1, 2]
        ended = await handle.info()
        assert (ended.unread_messages, ended.set_aside_messages) == (2, 0)
        assert ended.unread_by_name == {"noise": 1, "number": 1}
        check_store(env.provider, COUNTS).raise_if_violated()


async def test_messages_of_both_kinds_are_dropped_together_by_their_ids():
    async with TestRuntime(COUNTS) as env:
        handle = await env.client.start("counts", None, instance_id="c")
        for key in ("a", "b", "c"):
            await handle.raise_event("number", key, message_id=key)
            await handle.raise_event("noise", key, message_id=f"noise {key}")
        await env.run_until_idle()
        assert await env.client.drop_messages("c", message_ids=["a", "noise b", "c"]) == 3
        left = [one.message_id for one in await env.client.list_messages("c")]
        assert left == ["noise a", "b", "noise c"]


async def test_a_death_at_any_commit_sets_each_aside_once_and_delivers_each_other_once():
    async def scenario():
        async with TestRuntime(COUNTS) as env:
            handle = await env.client.start("counts", None, instance_id="c")
            for value in ("many", 1, "few"):
                await handle.raise_event("number", value)
            await env.run_until_idle()
            listed = await env.client.list_messages("c")
            assert [(one.sequence, one.payload) for one in listed] == [(1, "many"), (3, "few")]
            await handle.raise_event("number", 2)
            assert await handle.result() == [1, 2]

    await crash_everywhere(scenario)


async def test_what_was_set_aside_stays_over_a_boundary():
    async def laps(ctx, lap: int) -> int:
        await ctx.wait_for_event("number", int)
        if lap < 3:
            ctx.continue_as_new(lap + 1)
        return lap

    registry = OrchestrationRegistry.builder().register("laps", laps).build()
    async with TestRuntime(registry) as env:
        handle = await env.client.start("laps", 1, instance_id="l")
        for value in ("a", 1, "b", 2):
            await handle.raise_event("number", value)
        await env.run_until_idle()
        assert [one.payload for one in await env.client.list_messages("l")] == ["a", "b"]
        assert (await handle.info()).execution_id == 3
        await handle.raise_event("number", 3)
        assert await handle.result() == 3


async def test_a_runtime_on_a_file_sets_aside_too(tmp_path):
    async with Runtime(SqliteProvider(tmp_path / "store.db"), COUNTS) as runtime:
        handle = await runtime.client.start("counts", None, instance_id="c")
        for value in ("many", 1, "few", 2):
            await handle.raise_event("number", value)
        assert await handle.result() == [1, 2]
        assert (await handle.info()).unread_by_name == {"number": 2}
