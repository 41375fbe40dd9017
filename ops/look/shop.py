"""The programs of the demo store: a shop that watches its suppliers, charges subscriptions, sends
orders, answers customers and writes reports.

Each deploy of the shop is a registry: :data:`FIRST`, then :data:`SECOND`, then :data:`THIRD`. The
faults in the third one are those that real deploys have: a version was dropped too early, a
migration does not know some states, code of a released version was changed, and a loop never ends
its lap. Its activities have no bodies: :class:`Outside` gives each of them a fake.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

from orchestra import (
    ActivityFailed,
    Cron,
    Daily,
    Event,
    Every,
    Failure,
    OrchestrationContext,
    OrchestrationRegistry,
    Range,
    RegistryBuilder,
    Retention,
    RetryPolicy,
    Schedule,
    Start,
    Weekly,
    activity,
)
from orchestra.testing import NEVER, after

__all__ = ["ACTIVITIES", "FIRST", "LATER_SCHEDULES", "SCHEDULES", "SECOND", "THIRD", "Outside"]

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)


# --- what the activities are, and what stands in for them in virtual time ---
# Their own bodies never run: `demo` gives the runtime a fake for each.


def _tries(most: int, first: timedelta) -> RetryPolicy:
    """Return a policy without jitter: a store that is built again shall be the same."""
    return RetryPolicy(
        max_attempts=most, initial_interval=first, max_interval=timedelta(hours=2), jitter=0
    )


@activity(retry=_tries(5, timedelta(seconds=5)))
async def probe(host: str) -> int:
    """Ask a supplier for its health; return the HTTP status."""
    raise NotImplementedError


@activity(retry=_tries(1_000, timedelta(minutes=1)))
async def fetch_prices(host: str) -> int:
    """Fetch a supplier's price list; return how many prices it has."""
    raise NotImplementedError


@activity(retry=_tries(3, timedelta(minutes=1)))
async def charge(customer: str, cents: int) -> str:
    """Charge a customer; return the receipt."""
    raise NotImplementedError


@activity(retry=_tries(3, timedelta(seconds=1)))
async def pack(order: str, item: str) -> str:
    """Pack one item of an order."""
    raise NotImplementedError


@activity(retry=_tries(3, timedelta(seconds=1)))
async def send(order: str, parcels: list[str]) -> str:
    """Hand parcels to the carrier; return the tracking number."""
    raise NotImplementedError


@activity(retry=_tries(50, timedelta(seconds=1)))
async def answer(question: str) -> str:
    """Answer a customer's question."""
    raise NotImplementedError


@activity(retry=_tries(2, timedelta(seconds=30)))
async def count_sales(day: str) -> int:
    """Count the sales of a day."""
    raise NotImplementedError


@activity(queue="gpu")
async def transcode(film: str) -> str:
    """Transcode a product film. Only nodes with a GPU serve it, and the shop has none now."""
    raise NotImplementedError


ACTIVITIES: Final = (
    probe, fetch_prices, charge, pack, send, answer, count_sales, transcode,
)  # fmt: skip


def _drawn(*of: object) -> float:
    """Return a number from 0 to 1 that depends on nothing but its arguments."""
    digest = hashlib.sha256(repr(of).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _lasts(least: float, most: float, outcome: Any, *of: object) -> Any:
    return after(timedelta(seconds=round(least + (most - least) * _drawn("for", *of), 3)), outcome)


class Outside:
    """The world that the activities meet. What happens there depends on their arguments, and on how
    often they came with them, so that it is the same each time.
    """

    def __init__(self) -> None:
        self._calls: Counter[tuple[str, str]] = Counter()

    def fakes(self) -> dict[Any, Callable[..., Any]]:
        """Return what stands in for the activities in virtual time."""
        return {
            probe: self._probe, fetch_prices: self._fetch_prices, charge: self._charge,
            pack: _pack, send: _send, answer: _answer, count_sales: _count_sales,
        }  # fmt: skip

    def _call(self, name: str, of: str) -> int:
        self._calls[name, of] += 1
        return self._calls[name, of]

    def _probe(self, host: str) -> Any:
        number = self._call("probe", host)
        status = 503 if _drawn(host, number) < 0.06 else 200
        if _drawn("lost", host, number) < 0.04:
            return _lasts(10, 30, TimeoutError(f"{host} does not answer"), host, number)
        return _lasts(0.05, 2.5, status, host, number)

    def _fetch_prices(self, host: str) -> Any:
        number = self._call("fetch", host)
        if host.startswith("heavy"):
            return NEVER  # the node does not survive it
        if host.startswith("slow"):
            return _lasts(5, 60, ConnectionError(f"{host}: connection reset by peer"), host, number)
        return _lasts(20, 240, int(200 + 4_000 * _drawn(host)), host, number)

    def _charge(self, customer: str, cents: int) -> Any:
        number = self._call("charge", customer)
        if customer.endswith("4") and number > 4:
            return _lasts(1, 3, PermissionError("the card was stolen"), customer, number)
        if customer.endswith("7") and cents >= 1_000 and cents % 1_000 == 0:
            return _lasts(1, 3, PermissionError("the account is overdrawn"), customer, number)
        if _drawn("declined", customer, number) < 0.15:
            return _lasts(1, 3, ConnectionError("the bank does not answer"), customer, number)
        return _lasts(
            0.4, 3, f"receipt {customer}/{number} over {cents / 100:.2f}", customer, number
        )


def _pack(order: str, item: str) -> Any:
    if item == "ladder":
        return _lasts(60, 90, ValueError("a ladder fits into no parcel"), order)
    return _lasts(60, 1_500, f"{order}/{item}", order, item)


def _send(order: str, parcels: list[str]) -> Any:
    return _lasts(30, 900, f"TRACK-{int(1e6 * _drawn(order)):06}", order, *parcels)


def _answer(question: str) -> Any:
    return _lasts(1, 20, f"You asked: {question} Yes, within two days.", question)


def _count_sales(day: str) -> Any:
    if _drawn("broken", day) < 0.12:
        return _lasts(5, 20, RuntimeError("the warehouse is being loaded"), day)
    return _lasts(20, 400, int(50 + 400 * _drawn(day)), day)


# --- supplier: a loop whose state has changed its shape ---


@dataclass(frozen=True)
class Supplier1:
    """The state of a supplier's watch, as 1.x writes it."""

    address: str
    every: timedelta
    checks: int = 0


@dataclass(frozen=True)
class Supplier2:
    """The same from 2.0.0 on: the address is split, and outages are counted."""

    host: str
    port: int
    every: timedelta
    checks: int = 0
    outages: int = 0


async def supplier_1_0(ctx: OrchestrationContext, state: Supplier1) -> None:
    """Probe, sleep, begin again."""
    await ctx.schedule_activity(probe, state.address)
    await ctx.schedule_timer(state.every)
    ctx.continue_as_new(replace(state, checks=state.checks + 1))


async def supplier_1_1(ctx: OrchestrationContext, state: Supplier1) -> None:
    """The same, and customer service may ask for a check at once."""
    status = await ctx.schedule_activity(probe, state.address)
    ctx.set_custom_status({"status": status, "checks": state.checks})
    await ctx.race(ctx.wait_for_event("check_now"), ctx.schedule_timer(state.every))
    ctx.continue_as_new(replace(state, checks=state.checks + 1))


async def supplier_2_0(ctx: OrchestrationContext, state: Supplier2) -> None:
    """Probe, fetch the prices once a day, and count outages."""
    try:
        status = await ctx.schedule_activity(probe, state.host)
    except ActivityFailed:
        status = 0
    if state.checks % 24 == 0:
        await ctx.schedule_activity(fetch_prices, state.host)
    ctx.set_custom_status({"status": status, "outages": state.outages})
    ctx.publish("health", {"status": status})
    await ctx.race(ctx.wait_for_event("check_now"), ctx.schedule_timer(state.every))
    outages = state.outages + (status != 200)
    ctx.continue_as_new(replace(state, checks=state.checks + 1, outages=outages))


def split_address(state: Supplier1) -> Supplier2:
    """Lead a state of 1.x to 2.0.0."""
    host, _, port = state.address.partition(":")
    return Supplier2(host, int(port), state.every, state.checks)


def join_address(state: Supplier2) -> Supplier1:
    """Lead a state of 2.x back to 1.x."""
    return Supplier1(f"{state.host}:{state.port}", state.every, state.checks)


# --- subscription: an event or a date, with boundaries that must not be late ---


@dataclass(frozen=True)
class Subscription:
    """The state of a subscription: a box every other day."""

    customer: str
    cents: int
    boxes: int = 0


async def subscription_1_0(ctx: OrchestrationContext, state: Subscription) -> str:
    """Charge for each box, until it is ended."""
    await ctx.schedule_activity(charge, state.customer, state.cents)
    ended = ctx.wait_for_event("end", str)
    if (await ctx.race(ended, ctx.schedule_timer(2 * DAY))).index == 0:
        return f"{state.customer} left after {state.boxes} boxes"
    ctx.continue_as_new(replace(state, boxes=state.boxes + 1))


async def subscription_1_1(ctx: OrchestrationContext, state: Subscription) -> str:
    """The same, and a customer whose card fails has time to name another one."""
    try:
        await ctx.schedule_activity(charge, state.customer, state.cents)
    except ActivityFailed:
        await ctx.wait_for_event("new_card", str)
    ended = ctx.wait_for_event("end", str)
    if (await ctx.race(ended, ctx.schedule_timer(2 * DAY))).index == 0:
        return f"{state.customer} left after {state.boxes} boxes"
    ctx.continue_as_new(replace(state, boxes=state.boxes + 1))


# --- order: children, requests, and ends of each kind ---


class PaymentRefused(Failure):
    """The bank refuses."""


@dataclass(frozen=True)
class Order:
    """An order."""

    id: str
    customer: str
    items: list[str]


async def order(ctx: OrchestrationContext, state: Order) -> str:
    """Take the money, pack all items at once, and wait until the customer has them."""
    try:
        await ctx.schedule_activity(charge, state.customer, 1_000 * len(state.items))
    except ActivityFailed as error:
        raise PaymentRefused(f"{state.customer} cannot pay: {error.cause.message}") from error
    tracking = await ctx.start_child(shipment, state)
    ctx.set_custom_status({"tracking": tracking})
    await ctx.wait_for_event("delivered")
    return f"{state.id} delivered as {tracking}"


async def shipment(ctx: OrchestrationContext, state: Order) -> str:
    """Pack and send."""
    parcels = await ctx.gather(
        *(ctx.start_child(parcel, f"{state.id}:{item}") for item in state.items)
    )
    return await ctx.schedule_activity(send, state.id, list(parcels))


async def parcel(ctx: OrchestrationContext, state: str) -> str:
    """Pack one item."""
    number, _, item = state.partition(":")
    return await ctx.schedule_activity(pack, number, item)


async def basket(ctx: OrchestrationContext, items: dict[str, int]) -> int:
    """Hold what a customer puts into a basket, by requests."""
    asked = await ctx.wait_for_request("add", str, returns=int)
    if asked.value == "unicorn":
        asked.reject("sold out")
    else:
        items = {**items, asked.value: items.get(asked.value, 0) + 1}
        asked.reply(sum(items.values()))
    ctx.continue_as_new(items)


# --- talk, report, film, stock ---


async def talk(ctx: OrchestrationContext, turns: list[str]) -> None:
    """Answer a customer's questions, for as long as they come."""
    question = await ctx.wait_for_event("question", str)
    ctx.publish("talk", {"who": "customer", "says": question})
    said = await ctx.schedule_activity(answer, question)
    ctx.publish("talk", {"who": "shop", "says": said})
    ctx.continue_as_new([*turns[-3:], question])


async def report(ctx: OrchestrationContext, kind: str) -> dict[str, Any]:
    """Count the sales of yesterday."""
    day = f"{ctx.now() - DAY:%Y-%m-%d}"
    try:
        sales = await ctx.schedule_activity(count_sales, day)
    except ActivityFailed as error:
        raise Failure(f"no {kind} report of {day}: {error.cause.message}") from error
    return {"day": day, "sales": sales}


async def inventory(ctx: OrchestrationContext, kind: str) -> str:
    """Count the stock shelf by shelf; it takes a long night."""
    for shelf in range(6):
        await ctx.schedule_activity(pack, f"shelf-{shelf}", kind)
        await ctx.schedule_timer(9 * HOUR)
    return "counted"


async def film(ctx: OrchestrationContext, name: str) -> str:
    """Transcode a product film."""
    return await ctx.schedule_activity(transcode, name)


async def stock(ctx: OrchestrationContext, counts: dict[str, int]) -> None:
    """Keep the stock, told by the tick of a schedule."""
    await ctx.wait_for_event("count")
    ctx.continue_as_new({**counts, "rounds": counts.get("rounds", 0) + 1})


# --- what goes wrong ---


async def coupon_1_0(ctx: OrchestrationContext, state: dict[str, Any]) -> None:
    """Wait until a coupon is used."""
    used = await ctx.wait_for_event("used", dict[str, Any])
    ctx.continue_as_new({**state, "uses": state["uses"] + used["count"]})  # KeyError: no count


async def audit_trail(ctx: OrchestrationContext, _seen: int) -> None:
    """Note each change, in one lap that never ends."""
    while True:
        await ctx.wait_for_event("changed")
        await ctx.schedule_timer(timedelta(minutes=1))


async def refund_before(ctx: OrchestrationContext, customer: str) -> str:
    """Wait for the letter, then pay."""
    await ctx.wait_for_event("letter")
    return await ctx.schedule_activity(charge, customer, -500)


async def refund_after(ctx: OrchestrationContext, customer: str) -> str:
    """Pay, then wait: changed under the same version."""
    paid = await ctx.schedule_activity(charge, customer, -500)
    await ctx.wait_for_event("letter")
    return paid


async def loyalty_1_0(ctx: OrchestrationContext, points: dict[str, Any]) -> None:
    """Count points."""
    bought = await ctx.wait_for_event("bought", int)
    ctx.continue_as_new({**points, "points": f"{bought} points"})


@dataclass(frozen=True)
class Points:
    """What 1.1.0 of loyalty expects; 1.0.0 has written a text."""

    points: int


async def loyalty_1_1(ctx: OrchestrationContext, points: Points) -> None:
    """Count points."""
    bought = await ctx.wait_for_event("bought", int)
    ctx.continue_as_new(replace(points, points=points.points + bought))


# --- the deploys ---


def _shop() -> RegistryBuilder:
    """Register what no deploy has changed."""
    return (
        OrchestrationRegistry.builder()
        .register("order", order)
        .register("shipment", shipment)
        .register("parcel", parcel)
        .register("basket", basket)
        .register("talk", talk, version="3.2.0")
        .register("report", report)
        .register("inventory", inventory)
        .register("film", film)
        .register("stock", stock)
        .register("coupon", coupon_1_0)
        .register("audit_trail", audit_trail)
        .register("subscription", subscription_1_0)
        .set_boundary("subscription", due=3 * DAY, then="report")
        .set_boundary("talk", due=14 * DAY, then="nudge")
        .set_retention("supplier", Retention(histories=5, executions=400))
        .set_version_policy("subscription", Range("^1.0"))
    )


FIRST: Final = (
    _shop()
    .register("supplier", supplier_1_0)
    .register("refund", refund_before)
    .register("loyalty", loyalty_1_0)
    .register("newsletter", stock, version="0.9.0")
    .build()
)
SECOND: Final = (
    _shop()
    .register("supplier", supplier_1_0)
    .register("supplier", supplier_1_1, version="1.1.0")
    .register("refund", refund_before)
    .register("loyalty", loyalty_1_0)
    .register("newsletter", stock, version="0.9.0")
    .build()
)
THIRD: Final = (
    _shop()
    .register("supplier", supplier_1_0)
    .register("supplier", supplier_1_1, version="1.1.0")
    .register("supplier", supplier_2_0, version="2.0.0")
    .migrate("supplier", "2.0.0", split_address, join_address)
    .register("subscription", subscription_1_1, version="1.1.0")
    .register("refund", refund_after)
    .register("loyalty", loyalty_1_0)
    .register("loyalty", loyalty_1_1, version="1.1.0")
    .build()
)

SCHEDULES: Final = (
    Schedule(
        "daily-report", Daily(time(6), "Europe/Berlin"), Start("report", "daily"),
        jitter=timedelta(minutes=5),
    ),
    Schedule(
        "weekly-report", Weekly("MON", time(7), "Europe/Berlin"), Start("report", "weekly"),
    ),
    Schedule(
        "inventory", Cron("0 22 * * *", "America/New_York"), Start("inventory", "shelf"),
        overlap="skip",
    ),
    Schedule("count-stock", Every(2 * HOUR), Event("stock", "count"), catch_up="none"),
    Schedule(
        "hourly-report", Every(HOUR), Start("report", "hourly"), pause_after_failures=6,
        catch_up="all", overlap="buffer_all", start_at=datetime(2020, 1, 1, tzinfo=UTC),
    ),
    Schedule("new-year", Cron("0 0 1 1 *", "UTC"), Start("report", "yearly")),
)  # fmt: skip

LATER_SCHEDULES: Final = tuple(one for one in SCHEDULES if one.id != "weekly-report")
"""The third deploy declares one schedule less."""
