"""What code receives is the same in the first run and on replay, whatever its type."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest

from orchestra import activity
from tests.support.kit import bounded, info_when, virtual

pytestmark = pytest.mark.anyio


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Cat:
    name: str
    lives: int = 9


@dataclass
class Dog:
    name: str
    tricks: tuple[str, ...] = ()


@dataclass
class Everything:
    pet: Cat | Dog
    colours: set[Colour]
    pair: tuple[int, str]
    at: datetime
    day: date
    price: Decimal
    wait: timedelta
    number: UUID
    by_name: dict[str, list[Cat]]
    maybe: int | None = None
    nested: list[tuple[Decimal, Colour]] = field(default_factory=list)


EVERYTHING = Everything(
    pet=Dog("rex", ("sit", "roll")),
    colours={Colour.RED, Colour.BLUE},
    pair=(1, "a"),
    at=datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=UTC),
    day=date(2024, 2, 29),
    price=Decimal("1.10"),
    wait=timedelta(days=1, microseconds=1),
    number=UUID(int=5),
    by_name={"a": [Cat("tom")]},
    nested=[(Decimal("0.1"), Colour.RED)],
)


@bounded
async def test_state_results_and_events_are_the_same_objects_in_value_on_replay(database):
    seen = []

    @activity
    async def work(given: Everything) -> Everything:
        assert given == EVERYTHING
        return given

    async def once(ctx, state: Everything) -> Everything:
        result = await ctx.schedule_activity(work, state)
        event = await ctx.wait_for_event("first", Everything)
        seen.append((state, result, event))
        await ctx.wait_for_event("second")
        ctx.set_custom_status(event)
        return event

    async with virtual(database, once, activities=[work]) as node:
        handle = await node.client.start("once", EVERYTHING, instance_id="one")
        await handle.raise_event("first", EVERYTHING)
        await node.run_until_idle()
        await info_when(handle, lambda info: [wait.name for wait in info.waiting_on] == ["second"])
    async with virtual(database, once, activities=[work]) as node:
        await node.client.raise_event("one", "second")
        assert await node.client.handle("one").result(Everything) == EVERYTHING
    first, replayed = seen
    assert first == replayed == (EVERYTHING,) * 3
    for value in (*first, *replayed):
        assert type(value.pet) is Dog
        assert type(value.pair) is tuple
        assert type(value.colours) is set
        assert type(value.nested[0]) is tuple


@bounded
@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (tuple[int, ...], (1, 2)),
        (set[str], {"a", "b"}),
        (frozenset[int], frozenset({1})),
        (Cat | Dog | None, Dog("rex")),
        (Cat | Dog | None, None),
        (Decimal, Decimal("1E-7")),
        (dict[int, Colour], {1: Colour.RED}),
        (datetime, datetime(2024, 1, 1, 1, 2, 3, 4, tzinfo=UTC)),
        (int, 2**63 - 1),
        (float, 0.1),
        (str, "a\x00b\u2028ü🦉"),
    ],
    ids=repr,
)
async def test_a_state_keeps_its_type_over_a_boundary_and_a_restart(database, annotation, value):
    seen = []

    async def lap(ctx, state):
        seen.append((ctx.execution_id, state))
        await ctx.wait_for_event("go")
        if ctx.execution_id == 2:
            return
        ctx.continue_as_new(state)

    lap.__annotations__["state"] = annotation
    async with virtual(database, lap) as node:
        handle = await node.client.start("lap", value, instance_id="one")
        await handle.raise_event("go")
        await info_when(handle, lambda info: info.execution_id == 2 and info.waiting_on)
    async with virtual(database, lap) as node:
        await node.client.raise_event("one", "go")
        await node.client.handle("one").result()
    assert [number for number, _ in seen] == [1, 2, 2]
    for _, state in seen:
        assert (state, type(state)) == (value, type(value))


@bounded
async def test_values_without_a_type_are_plain_and_stay_so(database):
    seen = []

    @activity
    def work():
        return {"pair": (1, 2), "at": datetime(2024, 1, 1, tzinfo=UTC), "set": {1}}

    async def once(ctx, state):
        result = await ctx.schedule_activity(work)
        seen.append((state, result))
        await ctx.wait_for_event("go")

    async with virtual(database, once, activities=[work]) as node:
        handle = await node.client.start("once", {"cat": Cat("tom")}, instance_id="one")
        await node.run_until_idle()
        assert (await handle.info()).waiting_counts == {"event": 1}
    async with virtual(database, once, activities=[work]) as node:
        await node.client.raise_event("one", "go")
        await node.client.handle("one").result()
    assert seen[0] == seen[1]
    state, result = seen[0]
    assert state == {"cat": {"name": "tom", "lives": 9}}
    assert (result["pair"], result["set"]) == ([1, 2], [1])
    assert isinstance(result["at"], str)
