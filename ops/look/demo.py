"""Builds a store that has something of everything, to look at it in the dashboard:

    python -m ops.look.demo demo.db [--instances 300] [--days 30] [--end 2026-03-01T12:00:00+00:00]
    orchestra serve --store demo.db

Everything in it was written by a runtime, on virtual time: 30 days of a shop that has deployed
three times (``ops/look/shop.py``) and whose operators have intervened. The same options give the
same store, but for the ids that the library makes. ``--end`` is when its time ends, by default
now.

Nothing works on the store afterwards. The node that it shows as alive is the one of virtual time,
which never dies: run no workers on this file.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import anyio

from ops.look import shop
from orchestra import (
    Bulk,
    Client,
    Exact,
    Latest,
    Limits,
    OrchestraError,
    OrchestrationRegistry,
    Schedule,
    Selection,
    SqliteProvider,
)
from orchestra.clock import SystemClock, from_micros
from orchestra.testing import NEVER, TestRuntime

__all__ = ["build"]

DAY: Final = timedelta(days=1)
HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)
LEAST_DAYS: Final = 14
_ITEMS: Final = ("chair", "table", "lamp", "shelf", "sofa", "desk")
_ADA, _BOB, _EVE = "ada@shop.example", "bob@shop.example", "ci/deploy"


async def build(
    path: Path, *, instances: int = 300, days: int = 30, end: datetime | None = None
) -> None:
    """Build the store in a file that does not exist yet."""
    _check(path, days)
    end = end or from_micros(SystemClock().now())
    start, third = end - days * DAY, days * DAY / 3
    async with _runtime(path, shop.FIRST, shop.SCHEDULES, start) as env:
        builder = _Builder(env, instances)
        await builder.open_shop()
        await env.advance(start + third - env.now)
        await env.upgrade(shop.SECOND)
        await builder.second_deploy()
        await env.advance(start + 2 * third - env.now)
        await env.upgrade(shop.THIRD, schedules=shop.LATER_SCHEDULES)
        await builder.third_deploy()
        await env.advance(end - env.now - 6 * HOUR)
        await builder.a_bad_day()
        await env.advance(end - env.now - 10 * MINUTE)
        await env.upgrade(shop.THIRD)  # a restart: another node
        await env.advance(end - env.now - 4 * MINUTE)
        await builder.crashes()
        await env.advance(end - env.now - timedelta(seconds=5))
        await env.crash()
        await env.advance(end - env.now)


def _check(path: Path, days: int) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists; name a file that does not")
    if days < LEAST_DAYS:
        raise ValueError(f"{days} days are too few for three deploys; give {LEAST_DAYS} or more")


@asynccontextmanager
async def _runtime(
    path: Path, registry: OrchestrationRegistry, schedules: tuple[Schedule, ...], start: datetime
) -> AsyncIterator[TestRuntime]:
    env = TestRuntime(
        registry,
        shop.ACTIVITIES,
        start=start,
        queues=["default"],
        limits=Limits(max_events=120, suggest_events=100),
        schedules=schedules,
        provider=lambda clock: SqliteProvider(path, durability="relaxed", clock=clock),
    )
    for activity, outcomes in shop.Outside().fakes().items():
        env.fake(activity, outcomes)
    async with env:
        yield env


class _Builder:
    """What customers and operators do."""

    def __init__(self, env: TestRuntime, instances: int) -> None:
        self._env = env
        self._client: Client = env.client
        self._random = random.Random(7)
        self._instances = instances

    def _share(self, percent: float, *, least: int = 3) -> int:
        return max(least, round(self._instances * percent / 100))

    async def open_shop(self) -> None:
        """Start what runs from the first day on."""
        client, drawn = self._client, self._random
        for number in range(self._share(30, least=8)):
            await client.start(
                "supplier",
                shop.Supplier1(
                    # Some addresses have no port: 2.0.0 will not know what to make of them.
                    f"supplier-{number:03}.example" + ("" if number % 19 == 5 else ":443"),
                    timedelta(hours=drawn.choice((18, 24, 48, 72))),
                ),
                instance_id=f"supplier-{number:03}",
                labels={"region": drawn.choice(("eu", "us")), "tier": drawn.choice(("a", "b"))},
            )
        await client.start(
            "supplier",
            shop.Supplier1("busy.example:443", 2 * HOUR),
            instance_id="supplier-busy",
            labels={"region": "eu", "tier": "a"},
        )
        for number in range(self._share(14, least=8)):
            customer = f"customer-{number:03}"
            await client.start(
                "subscription",
                shop.Subscription(customer, drawn.choice((900, 1_900, 4_900))),
                instance_id=f"subscription/{customer}",
                labels={"plan": drawn.choice(("basic", "pro"))},
            )
        for number in range(self._share(4)):
            await client.start("talk", [], instance_id=f"talk-{number:02}")
            await client.start("basket", {}, instance_id=f"basket-{number:02}")
            await client.start("coupon", {"uses": 0}, instance_id=f"coupon-{number:02}")
        for number in range(self._share(1.5)):
            await client.start("loyalty", {"points": 0}, instance_id=f"loyalty-{number}")
            await client.start("newsletter", {}, instance_id=f"newsletter-{number}")
            await client.start("refund", f"customer-{number:03}", instance_id=f"refund-{number}")
        await client.start("stock", {}, instance_id="stock")
        await client.start("audit_trail", 0, instance_id="audit-trail")
        await client.set_version_policy(
            "supplier", Exact("1.0.0"), reason="1.1.0 is tried on one first", by=_EVE
        )
        await self._orders("a", 12)
        await self._talk()

    async def second_deploy(self) -> None:
        """Move one supplier, then all of them."""
        client, env = self._client, self._env
        await client.pin("supplier-001", "1.1.0", reason="the canary", by=_ADA)
        await client.nudge("supplier-001", reason="the canary shall move now", by=_ADA)
        await env.advance(2 * DAY)
        await client.set_version_policy("supplier", Latest(), reason="the canary was fine", by=_EVE)
        await client.unpin("supplier-001", reason="the canary was fine", by=_ADA)
        await self._orders("b", 14)
        await self._talk()
        for number in range(self._share(1.5)):
            await client.raise_event(f"loyalty-{number}", "bought", 3)
        for number in range(0, self._share(4), 2):
            await client.raise_event(f"coupon-{number:02}", "used", {"count": 1})
            for item in ("chair", "lamp", "chair"):
                await client.request(f"basket-{number:02}", "add", item, returns=int)
        await self._outage()

    async def _outage(self) -> None:
        """The shop is away for a night: schedules catch up."""
        await self._client.schedules.pause(
            "count-stock", "the warehouse moves", by=_BOB, until=self._env.now + 2 * DAY
        )
        await self._env.advance(DAY)
        await self._env.away(9 * HOUR)

    async def third_deploy(self) -> None:
        """What the third deploy brings to light, and what operators do about it."""
        client, env = self._client, self._env
        await self._orders("c", 16)
        await self._talk()
        await env.advance(DAY)
        for number in range(self._share(1.5)):
            await client.raise_event(f"loyalty-{number}", "bought", 1)
            await client.raise_event(f"refund-{number}", "letter")
        for number in range(1, self._share(4), 2):
            await client.raise_event(f"coupon-{number:02}", "used", {"amount": 1})
        for number in range(60):
            await client.raise_event("audit-trail", "changed", number)
        await env.advance(2 * HOUR)
        await client.start(
            "supplier",
            shop.Supplier2("slow.example", 443, 6 * HOUR),
            instance_id="supplier-slow",
            labels={"region": "us", "tier": "b"},
        )
        for name in ("sofa", "lamp", "desk"):
            await client.start("film", name, instance_id=f"film-{name}")
        await client.schedules.pause("daily-report", "the figures are wrong", by=_BOB)
        await env.advance(2 * DAY)
        await client.schedules.resume("daily-report", catch_up=False, reason="mended", by=_BOB)
        await client.schedules.trigger("daily-report", reason="for the auditors", by=_BOB)
        await client.hold("supplier-002", reason="the supplier moves house", by=_BOB)
        await client.hold("supplier-003", reason="a mistake", by=_BOB)
        await client.release("supplier-003", by=_BOB)
        await client.pin(
            "supplier-004",
            "1.1.0",
            env.now + 60 * DAY,
            reason="its prices are read by hand until May",
            by=_ADA,
        )
        await client.rewind(
            "supplier-006", await self._lap("supplier-006") - 1, "1.1.0", pin=False,
            reason="2.0.0 has read the prices twice", by=_ADA,
        )  # fmt: skip
        await client.bulk(
            Bulk.HOLD,
            Selection(name="subscription", labels={"plan": "basic"}),
            dry_run=False,
            reason="the price list changes",
            by=_BOB,
        )
        await env.advance(HOUR)
        await client.bulk(
            Bulk.RELEASE,
            Selection(name="subscription", labels={"plan": "basic"}),
            dry_run=False,
            by=_BOB,
        )
        await client.set_version_policy(
            "talk", Exact("3.2.0"), reason="no surprises in the season", by=_ADA
        )

    async def a_bad_day(self) -> None:
        """The last hours before somebody looks."""
        client, env = self._client, self._env
        await self._orders("d", 10)
        await self._talk()
        await client.hold("talk-01", reason="the customer has called", by=_BOB)
        await client.raise_event("talk-01", "question", "Is somebody there?")
        await client.raise_event("talk-01", "question", {"text": "Hello?"})
        await client.set_labels("supplier-000", {"tier": "a", "watched": "yes"}, by=_ADA)
        await client.schedules.pause(
            "count-stock", "the counter is at lunch", by=_BOB, until=env.now + 3 * HOUR
        )
        await client.nudge("supplier-busy", reason="a look at 2.0.0", by=_ADA)
        await client.cancel("subscription/customer-003", "moved away", by=_BOB)
        await client.terminate("basket-01", "a robot", by=_BOB)
        await client.rerun("order-a-00", instance_id="order-a-00-again")
        await client.start(
            "order",
            shop.Order("christmas", "customer-001", ["chair"]),
            instance_id="order-christmas",
            not_before=env.now + 20 * DAY,
        )
        # An import from the old shop wrote an order as orders were last year: no code reads it.
        await env.seed("order", "1.0.0", {"number": 17, "basket": "chair"}, "order-imported")
        env.fake(shop.answer, [NEVER] * 12)  # on each node from now on
        await client.raise_event("talk-02", "question", "Can you paint it green?")

    async def crashes(self) -> None:
        """A supplier's price list takes all memory of each node that fetches it."""
        await self._client.start(
            "supplier",
            shop.Supplier2("heavy.example", 443, 6 * HOUR),
            instance_id="supplier-heavy",
            labels={"region": "us", "tier": "b"},
        )
        await self._env.advance(MINUTE / 2)
        for wait in (2, 2, 2, 10, 18, 34, 66):
            await self._env.crash()
            await self._env.advance(timedelta(seconds=wait))

    async def _lap(self, instance_id: str) -> int:
        return (await self._client.get_instance_info(instance_id)).execution_id

    async def _orders(self, letter: str, share: float) -> None:
        """Take orders. Some of them are delivered, and some end otherwise."""
        client, env = self._client, self._env
        count = self._share(share)
        for number in range(count):
            items = self._random.sample(_ITEMS, self._random.randint(1, 4))
            if number % 11 == 8:
                items.append("ladder")
            known = f"{letter}-{number:02}"
            customer = f"customer-{self._random.randrange(200):03}"
            await client.start(
                "order",
                shop.Order(known, customer, items),
                instance_id=f"order-{known}",
                labels={"channel": self._random.choice(("web", "phone"))},
            )
        await env.advance(3 * HOUR)
        for number in range(count):
            instance_id = f"order-{letter}-{number:02}"
            if number % 9 == 3:
                await _if_it_runs(client.cancel, instance_id, "the customer has changed her mind")
            elif number % 13 == 6:
                await _if_it_runs(client.terminate, instance_id, "a test order", by=_BOB)
            elif number % 4 != 1:
                await _if_it_runs(client.raise_event, instance_id, "delivered")
        await env.advance(HOUR)

    async def _talk(self) -> None:
        for number in range(0, self._share(4), 2):
            for question in ("Is the sofa blue?", "When will it come?"):
                await self._client.raise_event(f"talk-{number:02}", "question", question)
                await self._env.advance(timedelta(minutes=3))


async def _if_it_runs(call: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> None:
    try:
        await call(*arguments, **options)
    except OrchestraError:
        return  # it has ended, or never began


def main() -> None:
    """Build the store, and say what to do with it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="a file that does not exist yet")
    parser.add_argument("--instances", type=int, default=300, help="about how many")
    parser.add_argument("--days", type=int, default=30, help="how much time went by")
    parser.add_argument(
        "--end",
        type=lambda text: datetime.fromisoformat(text).astimezone(UTC),
        help="when; by default now",
    )
    options = parser.parse_args()
    logging.getLogger("orchestra").setLevel(logging.CRITICAL)  # its faults are meant

    async def run() -> None:
        await build(options.path, instances=options.instances, days=options.days, end=options.end)

    anyio.run(run)
    print(f"look at it: orchestra serve --store {options.path}")


if __name__ == "__main__":
    main()
