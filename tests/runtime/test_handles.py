"""Starting by function or by name, and what a handle is told."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from datetime import timedelta

import pytest

from orchestra import (
    Client,
    DecodeError,
    Handle,
    InstanceCancelled,
    InstanceNotFound,
    InstanceStatus,
    InstanceTerminated,
    InvalidArgument,
    InvalidFunction,
    OrchestrationContext,
    OrchestrationRegistry,
    SqliteProvider,
    UnknownOrchestration,
    UnresolvableAnnotation,
)
from tests.support.kit import alone, bounded, registry, runtime

pytestmark = pytest.mark.anyio


@dataclass
class Watch:
    url: str
    checks: int = 0


@dataclass
class Report:
    checks: int


async def watch(ctx: OrchestrationContext, state: Watch) -> Report | None:
    return Report(state.checks + 1) if state.url else None


async def tick(ctx: OrchestrationContext, _: None) -> str:
    return "tick"


async def untyped(ctx, state):
    return {"checks": state}


async def parent(ctx: OrchestrationContext, state: Watch) -> list[Report | None]:
    by_function = await ctx.start_child(watch, state)
    by_name = await ctx.start_child("watch", state, returns=Report | None)
    return [by_function, by_name]


async def collect(ctx: OrchestrationContext, count: int) -> list[str]:
    return [await ctx.wait_for_event("item", str) for _ in range(count)]


class Service:
    async def serve(self, ctx: OrchestrationContext, number: int) -> tuple[int, str]:
        return number, "served"


service = Service()


@bounded
async def test_an_instance_that_is_started_by_its_function_gives_what_the_function_returns(path):
    async with runtime(path, watch, tick, parent, ("served", "1.0.0", service.serve)) as node:
        client = node.client
        handle = await client.start(watch, Watch("x"), instance_id="w")
        assert (handle.instance_id, (await handle.info()).name) == ("w", "watch")
        assert await handle.result() == Report(1)
        assert await (await client.start(watch, Watch(""))).result() is None
        assert await (await client.start(tick)).result() == "tick"
        assert await (await client.start(parent, Watch("x"))).result() == [Report(1), Report(1)]
        assert await (await client.start(service.serve, 7)).result() == (7, "served")


@bounded
async def test_by_name_a_result_is_plain_unless_it_is_said(path):
    async with runtime(path, watch) as node:
        handle = await node.client.start("watch", Watch("x"), instance_id="w")
        assert await handle.result() == {"checks": 1}
        assert await handle.result(Report) == await handle.result(Report | None) == Report(1)
        told = await node.client.start(
            "watch",
            Watch("x"),
            instance_id="w",
            if_running="return",
            if_ended="return",
            returns=Report,
        )
        assert await told.result() == Report(1)
        assert await told.result(dict[str, int]) == {"checks": 1}
        assert await node.client.handle("w").result() == {"checks": 1}
        assert (
            await node.client.handle("w", Report).result()
            == await node.client.handle("w", returns=Report | None).result()
        )
        with pytest.raises(DecodeError):
            await node.client.handle("w", int).result()
        for call in (
            lambda: node.client.start("watch", returns=Client),
            lambda: node.client.handle("w", Client),
        ):
            with pytest.raises(UnresolvableAnnotation):
                await call()
        assert handle == told == node.client.handle("w")


@bounded
async def test_a_function_runs_under_the_name_and_version_that_its_registry_and_policy_give(path):
    async def newer(ctx: OrchestrationContext, state: Watch) -> Report:
        return Report(100)

    async with runtime(path, ("watch", "1.0.0", watch), ("watch", "2.0.0", newer)) as node:
        handle = await node.client.start(watch, Watch("x"))
        assert (await handle.wait()).version == "2.0.0"
        assert await handle.result() == Report(100)
        pinned = await node.client.start(newer, Watch("x"), version="1.0.0")
        assert await pinned.result() == Report(1)


@bounded
async def test_a_function_that_no_registry_names_is_refused_with_what_to_give_instead(path):
    async with runtime(path, watch, ("one", "1.0.0", untyped), ("two", "1.0.0", untyped)) as node:
        with pytest.raises(
            UnknownOrchestration, match="tick is not registered here; register it, or give the name"
        ) as caught:
            await node.client.start(tick)
        assert caught.value.name == "tick"
        with pytest.raises(InvalidFunction, match="as 'one' and as 'two'; give the name"):
            await node.client.start(untyped, 1)
        with pytest.raises(InvalidFunction, match="without calling it"):
            await node.client.start(watch(None, Watch("x")))
        with pytest.raises(InvalidArgument, match="must be text, not int"):
            await node.client.start(7)
        with pytest.raises(UnknownOrchestration):
            await node.client.start(functools.partial(watch), Watch("x"))
        assert (await node.client.list_instances()).items == ()


@bounded
async def test_a_client_that_stands_alone_names_functions_by_the_registry_that_it_is_given(path):
    async with (
        runtime(path, watch) as node,
        alone(path) as client,
        alone(path, registry=registry(watch, tick)) as knowing,
    ):
        with pytest.raises(
            UnknownOrchestration,
            match=r"no registry .* name of watch; give the name, or .*registry=registry",
        ):
            await client.start(watch, Watch("x"))
        handle = await knowing.start(watch, Watch("x"))
        assert await handle.result() == Report(1)
        with pytest.raises(DecodeError, match="input of 'watch'"):
            await knowing.start("watch", {"url": 7})
        assert await node.client.handle(handle.instance_id, Report).result() == Report(1)


async def test_a_builder_is_no_registry_for_a_client(path):
    with pytest.raises(InvalidArgument, match="not built"):
        Client(SqliteProvider(path), registry=OrchestrationRegistry.builder())
    with pytest.raises(InvalidArgument, match="the registry is"):
        Client(SqliteProvider(path), registry={})


@bounded
async def test_a_handle_does_what_the_client_does(path):
    async with runtime(path, collect, watch) as node:
        handle = await node.client.start(collect, 2)
        await handle.raise_event("item", "a", message_id="m-1")
        await handle.raise_event("item", "a", message_id="m-1")
        await handle.raise_event("item", "b", message_id="m-2")
        assert await handle.result() == ["a", "b"]
        assert [event.kind for event in await handle.history()][-1] == "execution_completed"
        assert (await handle.wait(timedelta(seconds=5))).status is InstanceStatus.COMPLETED
        await handle.delete(reason="done")
        with pytest.raises(InstanceNotFound):
            await handle.info()

        cancelled, terminated = (
            await node.client.start(collect, 1),
            await node.client.start(collect, 1),
        )
        await cancelled.cancel("enough")
        await terminated.terminate(reason="now")
        with pytest.raises(InstanceCancelled, match="enough"):
            await cancelled.result()
        with pytest.raises(InstanceTerminated, match="now"):
            await terminated.result()


def test_a_handle_takes_every_option_that_the_client_takes():
    pairs = {
        "raise_event": Client.raise_event,
        "cancel": Client.cancel,
        "terminate": Client.terminate,
        "hold": Client.hold,
        "release": Client.release,
        "delete": Client.delete,
        "history": Client.get_history,
        "wait": Client.wait_for_completion,
    }
    for name, method in pairs.items():
        expected = [
            parameter.replace(annotation="")
            for parameter in inspect.signature(method).parameters.values()
        ]
        own = [
            parameter.replace(annotation="")
            for parameter in inspect.signature(getattr(Handle, name)).parameters.values()
        ]
        assert own == [parameter for parameter in expected if parameter.name != "instance_id"], name
