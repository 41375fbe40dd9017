"""A rolling deploy: workers of two releases side by side, between which an activity's parameters
have changed (scenario 54).
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from orchestra import Activity, InstanceStatus, Runtime, activity
from orchestra.engine import attempts
from orchestra.retry import NO_RETRY
from tests.support.kit import bounded, info_when, registry

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    """Nodes look sooner than after five seconds whether one has come that reads the arguments."""
    monkeypatch.setattr(attempts, "_READER_DELAY", 200_000)


@dataclass
class Money:
    amount: int
    currency: str


def old_release():
    @activity(queue="work")
    async def charge(amount: int) -> str:
        return "old"

    @activity(queue="work")
    def ship(order: str) -> str:
        return "old"

    @activity(queue="work")
    async def bill(order: str, carrier: str, *, urgent: bool) -> str:
        return "old"

    return [charge, ship, bill]


def new_release():
    @activity(queue="work")
    async def charge(money: Money) -> str:
        return "new"

    @activity(queue="work")
    def ship(order: str, carrier: str) -> str:
        return "new"

    @activity(queue="work")
    async def bill(order: str) -> str:
        return "new"

    return [charge, ship, bill]


async def pays(ctx, _: None) -> str:
    charge = Activity.named("charge", str, queue="work", retry=NO_RETRY)
    return await ctx.schedule_activity(charge, Money(5, "EUR"))


async def sends(ctx, _: None) -> str:
    return await ctx.schedule_activity(
        Activity.named("ship", str, queue="work", retry=NO_RETRY), "order", "express"
    )


async def bills(ctx, _: None) -> str:
    return await ctx.schedule_activity(
        Activity.named("bill", str, queue="work", retry=NO_RETRY), "order"
    )


@bounded
@pytest.mark.parametrize("orchestration", [pays, sends, bills])
async def test_a_worker_of_the_release_before_hands_back_what_it_cannot_read(store, orchestration):
    name = orchestration.__name__
    async with (
        Runtime(store(), registry(orchestration)) as boss,
        Runtime(store(), registry(), old_release(), queues=["work"]),
    ):
        handle = await boss.client.start(name, None, instance_id="i")
        info = await info_when(
            handle, lambda info: any(one.last_error for one in info.pending_activities)
        )
        assert info.status is InstanceStatus.RUNNING
        (pending,) = info.pending_activities
        assert pending.attempt == 1
        assert "could not read the arguments" in pending.last_error
        async with Runtime(store(), registry(), new_release(), queues=["work"]):
            assert await handle.result() == "new"


@bounded
async def test_the_node_of_an_instance_hands_on_what_it_cannot_read_itself(store):
    async with Runtime(store(), registry(pays), old_release(), queues=["default", "work"]) as boss:
        handle = await boss.client.start("pays", None, instance_id="i")
        info = await info_when(
            handle, lambda info: any(one.held_reason for one in info.pending_activities)
        )
        assert info.status is InstanceStatus.RUNNING
        async with Runtime(store(), registry(), new_release(), queues=["work"]):
            assert await handle.result() == "new"
