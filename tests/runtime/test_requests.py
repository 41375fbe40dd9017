"""Requests over real runtimes: answered here, on another node, in another loop; the client gone
(scenario 75).
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import anyio
import pytest

from orchestra import (
    Client,
    InstanceCompleted,
    OrchestrationRegistry,
    RequestRejected,
    Runtime,
    SqliteProvider,
    WaitTimeout,
)
from orchestra.testing import check_store

pytestmark = pytest.mark.anyio

EMPTY = OrchestrationRegistry.builder().build()


@dataclass
class Item:
    name: str


async def shop(ctx, laps: int) -> int:
    request = await ctx.wait_for_request("add", Item, returns=int)
    if request.value.name == "stop":
        request.reject("stopped")
        return laps
    request.reply(laps)
    ctx.continue_as_new(laps + 1)


REGISTRY = OrchestrationRegistry.builder().register("shop", shop).build()


async def test_a_runtimes_own_client_is_answered_in_memory_without_a_read(tmp_path):
    provider = SqliteProvider(tmp_path / "app.db")
    async with Runtime(provider, REGISTRY) as runtime:
        handle = await runtime.client.start("shop", 0, instance_id="s")
        assert await handle.request("add", Item("x"), returns=int) == 0
        directory, reads = provider.directory, []
        real = directory.request
        directory.request = lambda *asked: reads.append(asked) or real(*asked)
        for lap in range(1, 20):
            assert await handle.request("add", Item("x"), returns=int) == lap
        assert len(reads) < 19, "an answer that comes soon is not looked for"


async def test_many_requests_at_once_each_get_their_own_answer(tmp_path):
    async with Runtime(SqliteProvider(tmp_path / "app.db"), REGISTRY) as runtime:
        await runtime.client.start("shop", 0, instance_id="s")
        answers = {}

        async def ask(number):
            answers[number] = await runtime.client.request(
                "s", "add", Item("x"), returns=int, request_id=f"r{number}"
            )

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(ask, number)
        assert sorted(answers.values()) == list(range(50))
        for number in range(50):
            again = await runtime.client.request("s", "add", Item("x"), request_id=f"r{number}")
            assert again == answers[number]


async def test_another_nodes_client_and_a_client_alone_are_answered(tmp_path):
    path = tmp_path / "app.db"
    async with (
        Runtime(SqliteProvider(path), REGISTRY) as worker,
        Runtime(SqliteProvider(path), EMPTY) as other,
        Client(SqliteProvider(path)) as alone,
    ):
        await worker.client.start("shop", 0, instance_id="s")
        for number, client in enumerate((other.client, alone, worker.client, other.client)):
            assert await client.request("s", "add", Item("x"), returns=int) == number
        for client in (other.client, alone):
            with pytest.raises(WaitTimeout):
                await client.request("s", "else", timeout=timedelta(0), request_id="open")
        with pytest.raises(RequestRejected, match="stopped"):
            await alone.request("s", "add", Item("stop"))
        for client in (other.client, alone):
            with pytest.raises(InstanceCompleted):
                await client.request("s", "else", request_id="open")
    check_store(SqliteProvider(path)).raise_if_violated()


async def test_a_wait_on_another_node_ends_with_the_end_of_the_instance(tmp_path):
    path = tmp_path / "app.db"
    async with (
        Runtime(SqliteProvider(path), REGISTRY) as worker,
        Runtime(SqliteProvider(path), EMPTY) as other,
    ):
        handle = await worker.client.start("shop", 0, instance_id="s")
        ended = []

        async def ask(client):
            with pytest.raises(InstanceCompleted):
                await client.request("s", "else")
            ended.append(client)

        async with anyio.create_task_group() as group:
            group.start_soon(ask, worker.client)
            group.start_soon(ask, other.client)
            while len(await worker.client.list_messages("s")) < 2:
                await anyio.lowlevel.checkpoint()
            await handle.terminate()
        assert len(ended) == 2


async def test_a_client_that_is_gone_cancels_nothing(tmp_path):
    path = tmp_path / "app.db"
    async with Client(SqliteProvider(path)) as alone, Runtime(SqliteProvider(path), EMPTY):
        async with Runtime(SqliteProvider(path), REGISTRY) as first:
            await first.client.start("shop", 0, instance_id="s")
        with anyio.move_on_after(0.2):
            await alone.request("s", "add", Item("x"), request_id="mine")
        (waiting,) = await alone.list_messages("s")
        assert waiting.message_id == "mine"
        async with Runtime(SqliteProvider(path), REGISTRY) as second:
            assert await second.client.request("s", "add", Item("x"), request_id="mine") == 0


async def test_a_client_in_another_event_loop_is_answered(tmp_path):
    async with Runtime(SqliteProvider(tmp_path / "app.db"), REGISTRY) as runtime:
        await runtime.client.start("shop", 0, instance_id="s")

        def in_a_thread():
            async def ask():
                return [await runtime.client.request("s", "add", Item("x")) for _ in range(3)]

            return asyncio.run(ask())

        assert await anyio.to_thread.run_sync(in_a_thread) == [0, 1, 2]
