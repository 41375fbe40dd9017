"""Inside an orchestration: events, timers, children, several at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, Never, TypedDict, assert_never, assert_type

from orchestra import (
    ChildHandle,
    DurableFuture,
    Future,
    OrchestrationContext,
    RaceResult,
    Request,
    WaitResult,
    activity,
)


@dataclass
class Paid:
    amount: int


@dataclass
class Refused:
    reason: str


class Note(TypedDict):
    text: str


class Point(NamedTuple):
    x: int


Answer = Paid | Refused


@activity
async def probe(url: str) -> int:
    return len(url)


async def branch(ctx: OrchestrationContext) -> bytes:
    await ctx.schedule_timer(timedelta(1))
    return b""


async def events(ctx: OrchestrationContext) -> None:
    assert_type(ctx.wait_for_event("x"), DurableFuture[Any])
    assert_type(await ctx.wait_for_event("x", str), str)
    assert_type(await ctx.wait_for_event("x", type=Paid), Paid)
    assert_type(await ctx.wait_for_event("x", Paid | None), Paid | None)
    assert_type(await ctx.wait_for_event("x", Answer), Paid | Refused)
    assert_type(await ctx.wait_for_event("x", list[int]), list[int])
    assert_type(await ctx.wait_for_event("x", dict[str, Paid | None]), dict[str, Paid | None])
    assert_type(await ctx.wait_for_event("x", tuple[int, ...]), tuple[int, ...])
    assert_type(await ctx.wait_for_event("x", Literal["yes", "no"]), Literal["yes", "no"])
    assert_type(await ctx.wait_for_event("x", Annotated[int, "in cents"]), int)
    assert_type(await ctx.wait_for_event("x", Note), Note)
    assert_type(await ctx.wait_for_event("x", Point), Point)


async def requests(ctx: OrchestrationContext) -> None:
    assert_type(await ctx.wait_for_request("x"), Request[Any, Any])
    assert_type(await ctx.wait_for_request("x", Paid), Request[Paid, Any])
    request = await ctx.wait_for_request("x", Paid | None, returns=int)
    assert_type(request, Request[Paid | None, int])
    assert_type(request.value, Paid | None)
    request.reply(7)
    request.reply("seven")  # type: ignore[arg-type]


async def combinations(ctx: OrchestrationContext, url: str) -> None:
    event = ctx.wait_for_event("x", Paid)
    work = ctx.schedule_activity(probe, url)
    timer = ctx.schedule_timer(timedelta(1))
    assert_type(await ctx.race(work), RaceResult[int])
    assert_type(await ctx.race(event, work), RaceResult[Paid | int])
    assert_type(await ctx.race(event, timer), RaceResult[Paid | None])
    assert_type(
        await ctx.race(event, work, timer, branch(ctx)), RaceResult[Paid | int | None | bytes]
    )
    assert_type((await ctx.race(*[work, work])).value, int)
    assert_type(await ctx.gather(work), tuple[int])
    assert_type(await ctx.gather(work, branch(ctx)), tuple[int, bytes])
    assert_type(await ctx.gather(event, work, timer), tuple[Paid, int, None])
    assert_type(
        await ctx.gather(event, work, timer, work, branch(ctx), event),
        tuple[Paid, int, None, int, bytes, Paid],
    )
    assert_type(await ctx.gather(*[work, work]), tuple[int, ...])
    assert_type(await ctx.gather(*(branch(ctx) for _ in range(3))), tuple[bytes, ...])
    assert_type(await ctx.gather(work, work, work, work, work, work, work), tuple[int, ...])
    async with ctx.task_group() as group:
        task = group.create_task(branch(ctx))
        assert_type(await task, bytes)


async def waits(ctx: OrchestrationContext, url: str) -> None:
    event = ctx.wait_for_event("x", Paid | None, timeout=timedelta(1))
    work = ctx.schedule_activity(probe, url)
    assert_type(event, DurableFuture[Paid | None])
    assert_type(ctx.wait_for_event("x", timeout=timedelta(1)), DurableFuture[Any])
    assert_type(
        await ctx.gather(event, work, return_exceptions=True),
        tuple[Paid | Exception | None, int | Exception],
    )
    assert_type(await ctx.gather(work, return_exceptions=True), tuple[int | Exception])
    assert_type(await ctx.gather(*[work], return_exceptions=True), tuple[int | Exception, ...])
    assert_type(await ctx.wait(event, work), WaitResult[Paid | None | int])
    assert_type(await ctx.wait(*[work, work], return_when="first_completed"), WaitResult[int])
    done, pending = await ctx.wait(event, work, timeout=timedelta(1))
    assert_type(done, tuple[Future[Paid | int | None], ...])
    assert_type(pending, tuple[Future[Paid | int | None], ...])
    wider: Future[int | str] = work
    assert_type([await future for future in done], list[Paid | int | None])
    async with ctx.lock(), ctx.semaphore(2), ctx.condition():
        print(await wider)


async def told(ctx: OrchestrationContext) -> int | str:
    winner = await ctx.race(ctx.wait_for_event("x", Paid), ctx.wait_for_event("y", Refused))
    match winner.value:
        case Paid(amount):
            return amount
        case Refused(reason):
            return reason
        case _:
            assert_never(winner.value)


async def child(ctx: OrchestrationContext, state: Paid) -> Refused | None:
    return Refused(str(state.amount))


async def childless(ctx: OrchestrationContext, _: None) -> float:
    return 1.0


async def children(ctx: OrchestrationContext) -> None:
    assert_type(ctx.start_child(child, Paid(1)), DurableFuture[Refused | None])
    assert_type(
        await ctx.start_child(child, Paid(1), instance_id="c", on_parent_close="cancel"),
        Refused | None,
    )
    assert_type(await ctx.start_child(childless), float)
    assert_type(await ctx.start_child("child", Paid(1)), Any)
    assert_type(await ctx.start_child("child", Paid(1), returns=Refused), Refused)
    assert_type(await ctx.start_child("child", Paid(1), returns=Refused | None), Refused | None)
    handle = ctx.start_background_child(child, Paid(1))
    assert_type(handle, ChildHandle[Refused | None])
    assert_type(ctx.wait_for_child(handle), DurableFuture[Refused | None])
    assert_type(await ctx.wait_for_child(handle, timeout=timedelta(1)), Refused | None)
    assert_type(ctx.start_background_child(childless), ChildHandle[float])
    assert_type(ctx.start_background_child("child", Paid(1)), ChildHandle[Any])
    assert_type(ctx.start_background_child("child", returns=Refused), ChildHandle[Refused])
    assert_type(
        ctx.start_background_child("child", 1, returns=int | None, labels={"a": "b"}),
        ChildHandle[int | None],
    )
    won = await ctx.race(ctx.wait_for_child(handle), ctx.wait_for_event("x", Paid))
    assert_type(won, RaceResult[Refused | None | Paid])
    wider: ChildHandle[Refused | str | None] = handle
    print(wider.link, won.index)
    assert_type(handle.instance_id, str)
    assert_type(ctx.start_detached(child, Paid(1)), str)
    assert_type(ctx.start_detached("child", Paid(1)), str)


async def facts(ctx: OrchestrationContext) -> None:
    assert_type(ctx.now(), datetime)
    assert_type(ctx.random(), float)
    assert_type(await ctx.schedule_timer(timedelta(1)), None)


async def loop(ctx: OrchestrationContext, state: Paid) -> int:
    if state.amount:
        ctx.continue_as_new(state)
    return 1


def never(ctx: OrchestrationContext) -> Never:
    ctx.continue_as_new(Paid(1), version="1.1.0")


async def mistakes(ctx: OrchestrationContext) -> None:
    ctx.wait_for_event("x", 7)  # type: ignore[call-overload]
    ctx.wait_for_event(7)  # type: ignore[call-overload]
    ctx.start_child(child, Refused("x"))  # type: ignore[arg-type]
    ctx.start_child(child)  # type: ignore[arg-type]
    ctx.start_child(child, Paid(1), on_parent_close="kill")  # type: ignore[call-overload]
    ctx.start_child(child, Paid(1), labels=7)  # type: ignore[call-overload]
    ctx.start_child(child, Paid(1), if_ended="again")  # type: ignore[call-overload]
    ctx.start_detached("child", on_parent_close="cancel")  # type: ignore[call-overload]
    ctx.start_background_child(child, Refused("x"))  # type: ignore[arg-type]
    ctx.start_background_child(child, Paid(1), on_parent_close="cancel")  # type: ignore[call-overload]
    ctx.start_child(child, Paid(1), on_parent_close="keep")  # type: ignore[call-overload]
    ctx.wait_for_child("child")  # type: ignore[arg-type]
    ctx.start_child(probe, Paid(1))  # type: ignore[arg-type]
    ctx.start_detached(child, 7)  # type: ignore[arg-type]
    ctx.schedule_timer(5)  # type: ignore[arg-type]
    await ctx.gather(1, 2)  # type: ignore[call-overload]
