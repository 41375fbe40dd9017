"""What a value is stays what it is, wherever it is given: at starts, boundaries, activities,
children and events.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from orchestra import Client, EncodeError, OrchestrationRegistry, Runtime, activity
from tests.support.kit import bounded, registry

pytestmark = pytest.mark.anyio

BERLIN = ZoneInfo("Europe/Berlin")


@dataclass
class Daily:
    next_run: datetime
    laps: int = 0


@dataclass
class Ordered:
    order: str


@dataclass
class Paid:
    order: str


@dataclass
class Shipped:
    order: str


@dataclass
class Express(Paid):
    hours: int = 24


@bounded
async def test_nine_o_clock_stays_nine_o_clock_when_the_clocks_change(store):
    async def daily(ctx, state: Daily) -> tuple[datetime, str]:
        if state.laps == 3:
            return state.next_run, state.next_run.tzinfo.key
        ctx.continue_as_new(
            replace(state, next_run=state.next_run + timedelta(days=1), laps=state.laps + 1)
        )

    async with Runtime(store(), registry(daily)) as node:
        handle = await node.client.start("daily", Daily(datetime(2026, 3, 27, 9, 0, tzinfo=BERLIN)))
        moment, key = await handle.result(tuple[datetime, str])
    assert (moment, key) == (datetime(2026, 3, 30, 9, 0, tzinfo=BERLIN), "Europe/Berlin")
    assert moment.utcoffset() == timedelta(hours=2)


@bounded
async def test_states_of_one_shape_are_told_apart_by_whoever_gives_them(store):
    @activity
    def pay(order: Ordered | Paid) -> Paid | Shipped:
        assert type(order) is Ordered
        return Paid(order.order)

    async def child(ctx, state: Ordered | Paid | Shipped) -> Ordered | Paid | Shipped:
        return state

    async def order(ctx, state: Ordered | Paid | Shipped) -> list[str]:
        match state:
            case Ordered():
                ctx.continue_as_new(await ctx.schedule_activity(pay, state))
            case Paid():
                known = await ctx.start_child(child, state)
                named = await ctx.start_child("child", Shipped("c"), returns=Ordered | Shipped)
                ctx.set_custom_status(state)
                sent = await ctx.wait_for_event("sent", Ordered | Shipped)
                return [type(value).__name__ for value in (known, named, sent)]
        return ["?"]

    async with Runtime(store(), registry(order, child), [pay]), Client(store()) as alone:
        handle = await alone.start("order", Ordered("o-1"))
        await alone.raise_event(handle.instance_id, "sent", Shipped("o-1"))
        assert await handle.result() == ["Paid", "Shipped", "Shipped"]
        assert (await handle.info()).custom_status == {"order": "o-1"}
        started = await alone.start("child", Shipped("o-2"))
        assert await started.result() == {"order": "o-2"}
        assert await started.result(Ordered | Paid | Shipped) == Shipped("o-2")


@bounded
async def test_what_would_change_is_refused_where_it_is_given(store):
    @activity
    def pay(order: Paid) -> list[Paid]:
        return [Express(order.order)]

    async def order(ctx, state: Paid) -> str:
        refused = []
        try:
            await ctx.schedule_activity(pay, Express("a"))
        except EncodeError as error:
            refused.append(error.field)
        try:
            await ctx.start_child("order", Express("b"))
        except EncodeError as error:
            refused.append(error.field)
        try:
            ctx.continue_as_new(Express("c"))
        except EncodeError as error:
            refused.append(error.field)
        try:
            await ctx.schedule_activity(pay, Paid("d"))
        except Exception as error:
            refused.append(str(error))
        return "|".join(refused)

    async with Runtime(store(), registry(order), [pay]) as node:
        with pytest.raises(EncodeError, match=r"annotate Express, or Paid \| Express"):
            await node.client.start("order", Express("a"))
        handle = await node.client.start(
            "order", {"order": "plain JSON of a state may be given from outside"}
        )
        argument, child, state, result = (await handle.result(str)).split("|", 3)
    assert (argument, child, state) == ("[0]", "", "")
    assert "[0]" in result
    assert "a subclass of Paid" in result


@bounded
async def test_a_state_is_checked_against_the_version_that_is_named(store):
    async def old(ctx, state: Ordered) -> str:
        try:
            ctx.continue_as_new(state, version="2.0.0")
        except EncodeError:
            ctx.continue_as_new(Paid(state.order), version="2.0.0")

    async def new(ctx, state: Paid) -> str:
        return type(state).__name__

    versions = (
        OrchestrationRegistry.builder()
        .register("order", old)
        .register("order", new, version="2.0.0")
        .build()
    )
    async with Runtime(store(), versions) as node:
        handle = await node.client.start("order", Ordered("o"), version="1.0.0")
        assert await handle.result(str) == "Paid"
