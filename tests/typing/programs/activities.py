"""Activities: what they take and give back, decorated and not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar, assert_type

from orchestra import (
    Activity,
    DurableFuture,
    OrchestrationContext,
    OrchestrationRegistry,
    RetryPolicy,
    Runtime,
    SqliteProvider,
    activity,
)

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Order:
    item: str


def traced(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        return function(*args, **kwargs)

    return inner


@activity
async def probe(url: str) -> int:
    return len(url)


@activity(retry=RetryPolicy(max_attempts=5), timeout=timedelta(seconds=1), queue="gpu")
def load(url: str, *, deep: bool = False) -> list[Order]:
    return [Order(url)] if deep else []


@activity()
async def nothing() -> None: ...


@activity
@traced
async def decorated(order: Order, count: int = 1) -> bytes:
    return order.item.encode() * count


async def plain(order: Order) -> Order | None:
    return order


def plain_sync(a: int, b: str = "") -> str:
    return b * a


class Service:
    async def fetch(self, url: str) -> float:
        return float(len(url))

    @activity
    @staticmethod
    async def shared(url: str) -> float:
        return float(len(url))


service = Service()


async def calls(ctx: OrchestrationContext, url: str) -> None:
    assert_type(ctx.schedule_activity(probe, url), DurableFuture[int])
    assert_type(await ctx.schedule_activity(probe, url), int)
    assert_type(await ctx.schedule_activity(probe, url=url), int)
    assert_type(await ctx.schedule_activity(load, url, deep=True), list[Order])
    assert_type(
        await ctx.schedule_activity(load.options(timeout=None, queue="gpu"), url), list[Order]
    )
    assert_type(await ctx.schedule_activity(nothing), None)
    assert_type(await ctx.schedule_activity(decorated, Order("a"), count=2), bytes)
    assert_type(await ctx.schedule_activity(plain, Order("a")), Order | None)
    assert_type(await ctx.schedule_activity(plain_sync, 1, b="x"), str)
    assert_type(await ctx.schedule_activity(service.fetch, url), float)
    assert_type(await ctx.schedule_activity(Service.shared, url), float)
    assert_type(await ctx.schedule_activity("by_name", url, deep=True), Any)


async def references(ctx: OrchestrationContext, url: str, anything: Activity[..., object]) -> None:
    assert_type(await ctx.schedule_activity(Activity.named("remote", float), url), float)
    assert_type(
        await ctx.schedule_activity(Activity.named("remote", returns=int | None), url), int | None
    )
    assert_type(
        await ctx.schedule_activity(Activity.named("remote", list[Order]), url), list[Order]
    )
    assert_type(
        await ctx.schedule_activity(Activity.named("remote", Literal["a", "b"]), url),
        Literal["a", "b"],
    )
    assert_type(await ctx.schedule_activity(Activity.named("remote", queue="gpu"), url), Any)
    reference: Activity[[str], int] = probe
    assert_type(await ctx.schedule_activity(reference, url), int)
    assert_type(await ctx.schedule_activity(anything, url), object)
    await references(ctx, url, probe)


MODULE_LEVEL = [probe, load, nothing, decorated]
FUNCTIONS = [plain, plain_sync]
MIXED = [probe, plain, service.fetch]
TUPLE = (probe, plain_sync)


def runtimes(provider: SqliteProvider, registry: OrchestrationRegistry) -> None:
    Runtime(provider, registry, [probe, load, plain, plain_sync, service.fetch, Service.shared])
    Runtime(provider, registry, activities=MODULE_LEVEL)
    Runtime(provider, registry, activities=FUNCTIONS)
    Runtime(provider, registry, activities=MIXED)
    Runtime(provider, registry, activities=TUPLE)
    Runtime(provider, registry, activities=[*MODULE_LEVEL, *FUNCTIONS])
    Runtime(provider, registry, activities=())


async def mistakes(
    ctx: OrchestrationContext, provider: SqliteProvider, registry: OrchestrationRegistry
) -> None:
    ctx.schedule_activity(probe, 7)  # type: ignore[call-overload]
    ctx.schedule_activity(probe)  # type: ignore[call-overload]
    ctx.schedule_activity(load, "x", deeper=True)  # type: ignore[call-arg]
    ctx.schedule_activity(load, "x", True)  # type: ignore[call-overload]
    ctx.schedule_activity(plain, "x")  # type: ignore[call-overload]
    decorated.options(timeout=5)  # type: ignore[arg-type]
    activity(7)  # type: ignore[call-overload]
    activity(timeout=5)  # type: ignore[call-overload]
    Activity.named("remote", 7)  # type: ignore[call-overload]
    Runtime(provider, registry, activities=probe)  # type: ignore[arg-type]
    Runtime(provider, registry, lease=5)  # type: ignore[arg-type]
