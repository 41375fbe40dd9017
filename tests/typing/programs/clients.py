"""Registering, starting, and asking for results."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from orchestra import (
    Client,
    Exact,
    Handle,
    InstanceInfo,
    Latest,
    OrchestrationContext,
    OrchestrationRegistry,
    RegistryBuilder,
    Retention,
    Runtime,
    SqliteProvider,
)


@dataclass
class Watch:
    url: str
    checks: int = 0


@dataclass
class Report:
    checks: int


async def watch(ctx: OrchestrationContext, state: Watch) -> Report | None:
    return Report(state.checks)


async def tick(ctx: OrchestrationContext, _: None) -> str:
    return "tick"


class Service:
    async def run(self, ctx: OrchestrationContext, state: Watch) -> int:
        return state.checks


builder = (
    OrchestrationRegistry.builder()
    .register("watch", watch)
    .register("watch", watch, version="1.1.0")
)
assert_type(builder, RegistryBuilder)
registry = (
    builder.register("tick", tick)
    .register("service", Service().run)
    .set_version_policy("watch", Latest())
    .set_version_policy("tick", Exact("1.0.0"))
    .set_retention("watch", Retention())
    .build()
)
assert_type(registry, OrchestrationRegistry)


async def starts(client: Client) -> None:
    handle = await client.start(
        watch, Watch("http://example.com"), instance_id="watch-1", labels={"team": "a"}
    )
    assert_type(handle, Handle[Report | None])
    assert_type(await handle.result(), Report | None)
    assert_type(await handle.result(timeout=timedelta(seconds=1)), Report | None)
    assert_type(await handle.result(Report), Report)
    assert_type(await client.start(tick), Handle[str])
    assert_type(await client.start(tick, None), Handle[str])
    assert_type(await client.start(Service().run, Watch("x")), Handle[int])


async def by_name(client: Client) -> None:
    handle = await client.start(
        "watch", Watch("http://example.com"), if_running="return", if_ended="return"
    )
    assert_type(handle, Handle[Any])
    assert_type(await handle.result(), Any)
    assert_type(await handle.result(Report), Report)
    assert_type(await handle.result(Report | None), Report | None)
    assert_type(await handle.result(list[Report], timeout=timedelta(seconds=1)), list[Report])
    assert_type(await client.start("watch", Watch("x"), returns=Report), Handle[Report])
    assert_type(
        await client.start("watch", Watch("x"), returns=Report | None), Handle[Report | None]
    )
    assert_type(await client.start("watch", returns=dict[str, int]), Handle[dict[str, int]])
    assert_type(client.handle("watch-1"), Handle[Any])
    assert_type(client.handle("watch-1", Report), Handle[Report])
    assert_type(client.handle("watch-1", returns=Report | None), Handle[Report | None])


async def handles(handle: Handle[Report]) -> None:
    wider: Handle[Report | None] = handle
    unknown: Handle[Any] = handle
    assert_type(await handle.info(), InstanceInfo)
    assert_type(await handle.wait(), InstanceInfo)
    await handle.raise_event("check", {"now": True}, message_id="m-1")
    await handle.cancel("reason")
    await handle.terminate("reason")
    print(wider, unknown)


async def entered() -> None:
    async with Runtime(SqliteProvider("app.db"), registry) as runtime:
        assert_type(runtime, Runtime)
        assert_type(await (await runtime.client.start(tick)).result(), str)
    async with Client(SqliteProvider("app.db"), registry=registry) as client:
        assert_type(client, Client)


def sync_one(ctx: OrchestrationContext, state: Watch) -> int:
    return 1


async def wrong_context(ctx: int, state: Watch) -> int:
    return 1


async def no_state(ctx: OrchestrationContext) -> int:
    return 1


async def mistakes(client: Client) -> None:
    await client.start(watch, Report(1))  # type: ignore[arg-type]
    await client.start(watch, "http://example.com")  # type: ignore[arg-type]
    await client.start(watch)  # type: ignore[arg-type]
    await client.start(tick, 7)  # type: ignore[arg-type]
    await client.start(sync_one, Watch("x"))  # type: ignore[arg-type]
    await client.start(wrong_context, Watch("x"))  # type: ignore[arg-type]
    await client.start("watch", returns=7)  # type: ignore[call-overload]
    await client.start("watch", if_ended="again")  # type: ignore[call-overload]
    await client.start("watch", labels={"a": 1})  # type: ignore[dict-item]
    await client.start("watch", id="watch-1")  # type: ignore[call-overload]
    await client.start(watch, Watch("x"), returns=Report)  # type: ignore[call-overload]
    builder.register("watch", sync_one)  # type: ignore[arg-type]
    builder.register("watch", wrong_context)  # type: ignore[arg-type]
    builder.register("watch", no_state)  # type: ignore[arg-type]
    builder.register(watch, "watch")  # type: ignore[arg-type]
    builder.set_version_policy("watch", "1.0.0")  # type: ignore[arg-type]
    Runtime("app.db", registry)  # type: ignore[arg-type]
    Runtime(SqliteProvider("app.db"), builder)  # type: ignore[arg-type]
    Client("app.db")  # type: ignore[arg-type]
    handle = await client.start(tick)
    number: int = await handle.result()  # type: ignore[assignment]
    print(number)
