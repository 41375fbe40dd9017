"""What people write in their first days: it works, or is refused at once with what to write
instead.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import anyio
import pydantic
import pytest

from orchestra import (
    NO_RETRY,
    Client,
    InvalidArgument,
    InvalidFunction,
    OrchestrationContext,
    OrchestrationRegistry,
    RegistrationError,
    Runtime,
    SqliteProvider,
    activity,
    activity_context,
)
from tests.support.kit import bounded, runtime

pytestmark = pytest.mark.anyio


def traced(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


def unmarked(function):
    """Does not say what it wraps."""

    def inner(number: int):
        return function(number)

    return inner


def answering(function):
    """Answers in the place of the function that it wraps."""

    @functools.wraps(function)
    def inner(number):
        return -1

    return inner


def connected(function):
    @functools.wraps(function)
    async def inner(*args, **kwargs):
        return await function("db", *args, **kwargs)

    return inner


@activity
@traced
async def behind_a_sync_decorator(number: int) -> int:
    await anyio.sleep(0)
    assert activity_context().attempt == 1
    return number + 1


@activity
@pydantic.validate_call
async def behind_pydantic(number: int) -> int:
    return number + 1


@activity(name="behind_an_unmarked_decorator")
@unmarked
async def behind_an_unmarked_decorator(number: int) -> int:
    await anyio.sleep(0)
    assert activity_context().attempt == 1
    return number + 1


@activity
@answering
async def answered(number: int) -> int: ...


@activity
@connected
async def injected(store, number: int) -> str:
    return f"{store} {number}"


@activity
@traced
def in_a_thread(number: int) -> bool:
    return threading.current_thread() is not threading.main_thread()


@activity
def any_name(*, self: int, activity: int) -> int:
    return self + activity


class Service:
    def __init__(self, step: int) -> None:
        self.step = step

    async def add(self, number: int) -> int:
        return number + self.step

    @classmethod
    async def double(cls, number: int) -> int:
        return 2 * number

    @activity
    @staticmethod
    async def negate(number: int) -> int:
        return -number


service = Service(3)
ALL = [
    behind_a_sync_decorator,
    behind_pydantic,
    behind_an_unmarked_decorator,
    answered,
    injected,
    in_a_thread,
    any_name,
]
ALL += [service.add, Service.double, Service.negate]


async def every_one(ctx: OrchestrationContext, number: int) -> list[object]:
    results: list[object] = []
    for one in ALL:
        keywords = {"self": 1, "activity": 2} if one is any_name else {}
        results.append(
            await ctx.schedule_activity(one, *(() if keywords else (number,)), **keywords)
        )
    return results


@bounded
async def test_decorated_functions_and_methods_run(path):
    async with runtime(path, every_one, activities=ALL) as node:
        handle = await node.client.start("every_one", 1)
        assert await handle.result() == [2, 2, 2, -1, "db 1", True, 3, 4, 2, -1]


@bounded
async def test_what_an_unmarked_decorator_leaves_to_be_awaited_has_the_time_of_the_activity(path):
    @activity(name="slow", timeout=timedelta(milliseconds=50), retry=NO_RETRY)
    @unmarked
    async def slow(number: int) -> None:
        await anyio.sleep_forever()

    async def once(ctx: OrchestrationContext, number: int) -> str:
        try:
            await ctx.schedule_activity(slow, number)
        except Exception as error:
            return str(error)

    async with runtime(path, once, activities=[slow]) as node:
        assert "did not end within 0.05 s" in await (await node.client.start("once", 1)).result()


@bounded
async def test_functions_inside_functions_use_the_classes_beside_them(path):
    @dataclass
    class Line:
        item: str

    @dataclass
    class Basket:
        lines: list[Line]

    async def best(basket: Basket) -> Line:
        assert isinstance(basket.lines[0], Line)
        return basket.lines[0]

    @traced
    async def shop(ctx: OrchestrationContext, basket: Basket) -> Line:
        line = await ctx.schedule_activity(best, basket)
        assert isinstance(line, Line)
        return line

    async with runtime(path, shop, activities=[best]) as node:
        handle = await node.client.start("shop", Basket([Line("a")]))
        assert await handle.result(Line) == Line("a")


# --- wrong things in wrong places -------------------------------------------------------------


async def plain(number: int) -> int: ...


EMPTY = OrchestrationRegistry.builder().build()


def refused(error, said, call):
    return pytest.param(call, error, said)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        refused(
            InvalidArgument,
            r"the provider is 'app.db'; write SqliteProvider\('app.db'\)",
            lambda p: Runtime("app.db", EMPTY),
        ),
        refused(
            InvalidArgument,
            r"write SqliteProvider\('app.db'\)",
            lambda p: Runtime(Path("app.db"), EMPTY),
        ),
        refused(InvalidArgument, r"write SqliteProvider\('app.db'\)", lambda p: Client("app.db")),
        refused(
            InvalidArgument,
            "PostgresProvider",
            lambda p: Runtime("postgresql://me:secret@host/db", EMPTY),
        ),
        refused(
            InvalidArgument, "PostgresProvider", lambda p: Client("host=h dbname=d password=secret")
        ),
        refused(InvalidArgument, "class.*SqliteProvider", lambda p: Runtime(SqliteProvider, EMPTY)),
        refused(InvalidArgument, "the provider comes first", lambda p: Runtime(EMPTY, p)),
        refused(InvalidArgument, "None", lambda p: Client(None)),
        refused(
            InvalidArgument,
            r"not built; call its build\(\)",
            lambda p: Runtime(p, OrchestrationRegistry.builder()),
        ),
        refused(InvalidArgument, "the registry is None", lambda p: Runtime(p, None)),
        refused(
            InvalidArgument, "the registry is .*class", lambda p: Runtime(p, OrchestrationRegistry)
        ),
        refused(InvalidArgument, "the registry is", lambda p: Runtime(p, {"watch": plain})),
        refused(InvalidArgument, r"such as \[probe\]", lambda p: Runtime(p, EMPTY, plain)),
        refused(
            InvalidArgument, r"such as \[probe\]", lambda p: Runtime(p, EMPTY, activity(plain))
        ),
        refused(
            InvalidArgument,
            r"@activity\(name=\.\.\.\)",
            lambda p: Runtime(p, EMPTY, {"probe": plain}),
        ),
        refused(InvalidArgument, "activities is 'plain'", lambda p: Runtime(p, EMPTY, "plain")),
        refused(InvalidFunction, "'plain' .* it is a name", lambda p: Runtime(p, EMPTY, ["plain"])),
        refused(
            InvalidFunction,
            "the coroutine 'plain' .* without calling it",
            lambda p: Runtime(p, EMPTY, [plain(1)]),
        ),
        refused(InvalidFunction, "a lambda", lambda p: Runtime(p, EMPTY, [lambda: None])),
        refused(
            RegistrationError,
            "two activities",
            lambda p: Runtime(p, EMPTY, [plain, activity(name="plain")(Service.double)]),
        ),
        refused(
            RegistrationError,
            "two activities",
            lambda p: Runtime(p, EMPTY, [plain, activity(plain).options(queue="gpu")]),
        ),
        refused(InvalidArgument, "queues is 'gpu'", lambda p: Runtime(p, EMPTY, queues="gpu")),
        refused(InvalidArgument, "a queue must be text", lambda p: Runtime(p, EMPTY, queues=[7])),
        refused(InvalidArgument, "limits takes a Limits", lambda p: Runtime(p, EMPTY, limits=500)),
        refused(InvalidArgument, "lease takes a timedelta", lambda p: Runtime(p, EMPTY, lease=10)),
        refused(InvalidArgument, "grace takes a timedelta", lambda p: Runtime(p, EMPTY, grace=1.5)),
    ],
)
async def test_a_wrong_argument_is_a_typed_error_with_what_to_write_instead(
    path, call, error, said
):
    with pytest.raises(error, match=said) as caught:
        call(SqliteProvider(path))
    assert "secret" not in str(caught.value)


@bounded
async def test_an_activity_may_be_named_twice(path):
    async with runtime(
        path, activities=[plain, activity(plain), plain, behind_pydantic, behind_pydantic]
    ) as node:
        (known,) = await node.client.list_nodes()
        assert known.activities == ("behind_pydantic", "plain")


@bounded
async def test_a_call_in_the_place_of_a_function_is_refused_inside_an_orchestration(path):
    async def called(ctx: OrchestrationContext, _: int) -> str:
        try:
            ctx.schedule_activity(plain(1))
        except InvalidFunction as error:
            return str(error)

    async with runtime(path, called) as node:
        assert "without calling it" in await (await node.client.start("called", 1)).result()
