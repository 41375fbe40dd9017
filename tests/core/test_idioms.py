"""How people write functions: behind decorators, in classes, inside other functions, with all kinds
of parameters.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pydantic
import pytest

from orchestra import (
    Activity,
    InvalidFunction,
    OrchestrationRegistry,
    UnresolvableAnnotation,
    activity,
)
from orchestra.activities import as_activity
from orchestra.codec import plain
from tests.support.driver import Drive

if TYPE_CHECKING:
    from sqlalchemy import Session  # pyright: ignore[reportMissingImports]

    from orchestra import OrchestrationContext


@dataclass
class Order:
    item: str
    count: int = 1


class Connection:
    """What has no JSON form."""


# --- decorators -------------------------------------------------------------------------------


def traced(function):
    """A sync decorator, as most are."""

    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


def timed(function):
    @functools.wraps(function)
    async def inner(*args, **kwargs):
        return await function(*args, **kwargs)

    return inner


def connected(function):
    """Gives the first argument."""

    @functools.wraps(function)
    async def inner(*args, **kwargs):
        print("connecting", *args)
        return await function(Connection(), *args, **kwargs)

    return inner


def with_session(function):
    """Gives an argument by keyword."""

    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, session="a session", **kwargs)

    return inner


def with_stored_session(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        kwargs["session"] = "a session"
        kwargs.setdefault("log", print)
        return function(*args, **kwargs)

    return inner


def for_tenant(function):
    """Takes an argument of its own, and gives another one in its place."""

    @functools.wraps(function)
    def inner(tenant, *args, **kwargs):
        return function(f"the store of {tenant}", *args, **kwargs)

    return inner


def logged(function):
    """Names the first argument, and gives it on."""

    @functools.wraps(function)
    def inner(order, *args, **kwargs):
        return function(order, *args, **kwargs)

    return inner


def by_url(function):
    """Has parameters of its own, and none that takes the rest."""

    @functools.wraps(function)
    def inner(url: str, count: int = 1):
        return function(Connection(), url, count)

    return inner


def opaque(function):
    """Calls what it wraps in a way that its source does not tell."""
    calls = {"it": function}

    @functools.wraps(function)
    def inner(tenant, *args, **kwargs):
        return calls["it"](*reversed(args), **kwargs)

    return inner


def takes(made):
    """Return what an activity takes: each parameter with its type."""
    signature = made.signature
    return {name: signature.annotations.get(name, Any) for name in signature.parameters.parameters}


@activity
@traced
async def by_sync_decorator(order: Order) -> int:
    return order.count


@activity
@traced
@timed
@logged
async def by_several(order: Order, *, loud: bool = False) -> int:
    return order.count


@activity
@pydantic.validate_call
async def by_pydantic(order: Order) -> int:
    return order.count


@activity
@connected
async def given_a_connection(connection: Connection, order: Order, count: int = 1) -> int:
    return count


@activity
@connected
async def given_something(connection, order: Order) -> int:
    return order.count


@activity
@with_session
async def given_by_keyword(order: Order, session: Session, count: int = 1) -> int:
    return count


@activity
@with_stored_session
def given_among_the_keywords(order: Order, *, session: Session, log: Any, count: int = 1) -> int:
    return count


@activity
@for_tenant
async def given_a_store(store: Connection, order: Order) -> int:
    return order.count


@activity
@by_url
def called_otherwise(connection: Connection, url: str, count: int) -> str:
    return url * count


class Locked(contextlib.ContextDecorator):
    def __enter__(self): ...

    def __exit__(self, *_): ...


@activity
@Locked()
async def in_a_context(order: Order) -> int:
    return order.count


@pytest.mark.parametrize(
    ("made", "taken", "is_async"),
    [
        (by_sync_decorator, {"order": Order}, True),
        (by_several, {"order": Order, "loud": bool}, True),
        (by_pydantic, {"order": Order}, True),
        (given_a_connection, {"order": Order, "count": int}, True),
        (given_something, {"order": Order}, True),
        (given_by_keyword, {"order": Order, "count": int}, True),
        (given_among_the_keywords, {"order": Order, "count": int}, False),
        (given_a_store, {"tenant": Any, "order": Order}, True),
        (called_otherwise, {"url": str, "count": int}, False),
        (in_a_context, {"order": Order}, True),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_decorated_function_takes_what_its_callers_give(made, taken, is_async):
    assert (takes(made), made.is_async) == (taken, is_async)


def test_what_stands_behind_an_injected_keyword_is_given_by_keyword():
    assert (
        given_by_keyword.signature.parameters.parameters["count"].kind
        is inspect.Parameter.KEYWORD_ONLY
    )


def test_an_explicit_signature_says_what_a_decorator_takes():
    def hidden(connection: Connection, order: Order) -> int: ...

    @functools.wraps(hidden)
    def inner(tenant, *args, **kwargs): ...

    with pytest.raises(
        InvalidFunction, match=r"'tenant' beside what it gives on.* `__signature__`"
    ):
        activity(opaque(hidden))
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    inner.__signature__ = inspect.Signature(
        [
            inspect.Parameter("tenant", kind, annotation=str),
            inspect.Parameter("order", kind, annotation=Order),
        ]
    )
    assert takes(activity(inner)) == {"tenant": str, "order": Order}


def test_an_injected_argument_of_which_the_source_says_nothing_is_refused_where_it_is_registered():
    calls = {}

    @functools.wraps(given_a_connection.function.__wrapped__)
    async def inner(*args, **kwargs):
        return await calls["it"](Connection(), *args, **kwargs)

    with pytest.raises(
        UnresolvableAnnotation,
        match=r"'connection' of 'given_a_connection'.*a decorator gives it, .*`__signature__`",
    ):
        activity(inner)


def test_arguments_of_decorated_functions_travel_by_their_types():
    async def subject(ctx, _):
        await ctx.schedule_activity(given_something, Order("a"))
        await ctx.schedule_activity(given_by_keyword, Order("b"), count=2)

    drive = Drive(subject)
    drive.done("given_something", 1)
    first, second = (event for turn in drive.turns for event in turn.scheduled)
    decoded = [
        made.signature.decode(event.arguments, subject="it")
        for made, event in ((given_something, first), (given_by_keyword, second))
    ]
    assert decoded == [((Order("a"),), {}), ((Order("b"),), {"count": 2})]


def test_a_decorator_above_the_activity_is_refused():
    with pytest.raises(InvalidFunction, match="write `@activity` above the other decorators"):
        as_activity(traced(by_several))


# --- what is no function ----------------------------------------------------------------------


class Service:
    def __init__(self, url: str = "") -> None:
        self.url = url

    async def __call__(self, order: Order) -> int: ...

    async def fetch(self, order: Order) -> int:
        return order.count

    @traced
    async def traced_fetch(self, order: Order) -> int: ...

    @classmethod
    async def make(cls, order: Order) -> int: ...

    @activity
    @staticmethod
    async def above(order: Order) -> int:
        return order.count

    @staticmethod
    @activity
    async def below(order: Order) -> int: ...

    class Options(NamedTuple):
        deep: bool

    @activity
    @staticmethod
    def nested(options: Options) -> None: ...


def a_generator(order: Order):
    yield order


async def an_async_generator(order: Order):
    yield order


async def work(order: Order) -> int: ...


class Meta(type): ...


REFUSED = {
    "a partial": (lambda: functools.partial(work, Order("a")), "write a function that calls it"),
    "a callable object": (Service, "it is a class"),
    "an object": (lambda: Service(), "a method of the object"),
    "a class": (lambda: Order, "it is a class"),
    "a classmethod object": (lambda: vars(Service)["make"], "a class method needs its class"),
    "a call": (lambda: work(Order("a")), "the coroutine 'work' .* without calling it"),
    "a call of a method": (
        lambda: Service().fetch(Order("a")),
        "the coroutine 'Service.fetch' .* without calling it",
    ),
    "a name": (lambda: "work", "'work' .* it is a name"),
    "nothing": (lambda: None, "None"),
    "a generator": (lambda: a_generator, "'a_generator' .* it is a generator"),
    "an async generator": (lambda: an_async_generator, "'an_async_generator' .* it is a generator"),
}
REFUSED["a callable object"] = (
    lambda: type("Job", (), {"__call__": work})(),
    "a method of the object",
)


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("use", ["activity", "activity()", "as_activity", "register"])
def test_what_is_no_function_is_refused_with_what_to_give_instead(use, case):
    make, said = REFUSED[case]
    uses = {
        "activity": activity,
        "activity()": activity(name="x"),
        "as_activity": as_activity,
        "register": lambda it: OrchestrationRegistry.builder().register("x", it).build(),
    }
    if (use, case) == ("activity", "nothing"):
        return  # activity(None) is activity() with options to come
    with pytest.raises(InvalidFunction, match=said):
        uses[use](make())


def test_a_lambda_needs_a_name():
    with pytest.raises(InvalidFunction, match=r"a lambda .*name="):
        as_activity(lambda: None)
    assert activity(name="nothing")(lambda: None).name == "nothing"


def test_methods_can_be_activities_with_their_object():
    for method in (Service("a").fetch, Service("a").traced_fetch, Service.make):
        made = as_activity(method)
        assert (made.name, takes(made), made.is_async) == (method.__name__, {"order": Order}, True)


def test_static_methods_can_be_activities_above_and_below():
    assert [made.name for made in (Service.above, Service.below)] == ["above", "below"]
    assert takes(Service.above) == takes(Service.below) == {"order": Order}
    assert takes(Service.nested) == {"options": Service.Options}


def test_an_activity_is_no_orchestration():
    with pytest.raises(InvalidFunction, match="<activity 'by_several'> cannot be an orchestration"):
        OrchestrationRegistry.builder().register("x", by_several).build()


# --- annotations ------------------------------------------------------------------------------


def test_local_classes_are_found_under_postponed_evaluation():
    @dataclass
    class Line:
        item: str

    @dataclass
    class Basket:
        lines: list[Line]
        best: Line | None = None

    class Pair(NamedTuple):
        first: Line

    async def plain_one(basket: Basket, *more: Pair) -> Line: ...

    @activity(name="with_options")
    def decorated(basket: Basket) -> dict[str, Line]: ...

    async def orchestration(ctx: OrchestrationContext, basket: Basket) -> Line | None: ...

    class Job:
        async def run(self, basket: Basket) -> Line: ...

    def inner():
        async def deeper(basket: Basket) -> Line: ...

        return as_activity(deeper)

    assert takes(as_activity(plain_one)) == {"basket": Basket, "more": Pair}
    assert takes(decorated) == takes(as_activity(Job().run)) == takes(inner()) == {"basket": Basket}
    definition = (
        OrchestrationRegistry.builder().register("x", orchestration).build().get("x", "1.0.0")
    )
    assert (definition.state.annotation, definition.result.annotation) == (Basket, Line | None)
    payload = as_activity(plain_one).signature.encode(
        (Basket([Line("a")], Line("b")), Pair(Line("c"))), {}, subject="it", limit=999
    )
    args, _ = as_activity(plain_one).signature.decode(payload, subject="it")
    assert args == (Basket([Line("a")], Line("b")), Pair(Line("c")))


def test_a_class_that_is_gone_with_its_function_is_refused_with_the_remedy():
    def make():
        @dataclass
        class Gone:
            a: int

        async def orchestration(ctx: OrchestrationContext, state: Gone) -> None: ...

        return orchestration

    builder = OrchestrationRegistry.builder().register("x", make())
    with pytest.raises(UnresolvableAnnotation, match=r"'Gone'.*at module level"):
        builder.build()


def test_the_context_may_be_imported_for_type_checkers_only():
    async def orchestration(ctx: OrchestrationContext, order: Order) -> int: ...

    definition = (
        OrchestrationRegistry.builder().register("x", orchestration).build().get("x", "1.0.0")
    )
    assert definition.state.annotation is Order


# --- parameters -------------------------------------------------------------------------------


@activity
def every_name(
    self: str,
    activity: str,
    *,
    name: int,
    options: int,
    retry: int,
    ctx: int,
    args: int,
    kwargs: int,
    function: int,
    subject: int,
) -> str:
    return f"{self} {activity} {name + options + retry + ctx + args + kwargs + function + subject}"


NAMED = dict.fromkeys(
    ("name", "options", "retry", "ctx", "args", "kwargs", "function", "subject"), 1
)


@pytest.mark.parametrize(
    "asked", [every_name, every_name.function, "every_name", Activity.named("every_name")]
)
def test_keyword_arguments_may_have_any_name(asked):
    async def subject(ctx, _):
        return await ctx.schedule_activity(asked, self="s", activity="a", **NAMED)

    drive = Drive(subject)
    (scheduled,) = drive.turns[0].scheduled
    args, kwargs = every_name.signature.decode(scheduled.arguments, subject="it")
    assert every_name(*args, **kwargs) == "s a 8"
    assert every_name(self="s", activity="a", **NAMED) == "s a 8"


def only_by_place(a: Order, /, b: int = 1, *rest: int, **more: Order) -> Any:
    return a, b, rest, more


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((Order("a"),), {}),
        ((Order("a"), 2, 3, 4), {}),
        ((Order("a"),), {"b": 5, "a": Order("n")}),
        ((Order("a"), 2), {"x": Order("b")}),
    ],
)
def test_parameters_of_every_kind_arrive(args, kwargs):
    signature = as_activity(only_by_place).signature
    got_args, got_kwargs = signature.decode(
        signature.encode(args, kwargs, subject="it", limit=999), subject="it"
    )
    assert only_by_place(*got_args, **got_kwargs) == only_by_place(*args, **kwargs)


# --- orchestrations ---------------------------------------------------------------------------


def test_decorated_orchestrations_run():
    def with_price(function):
        @functools.wraps(function)
        async def inner(ctx, state):
            return await function(ctx, state, 3)

        return inner

    @traced
    async def sync_decorated(ctx: OrchestrationContext, order: Order) -> int:
        return await ctx.schedule_activity("price", order.item)

    @with_price
    async def given_a_price(ctx: OrchestrationContext, order: Order, price: int) -> int:
        return price + await ctx.schedule_activity("price", order.item)

    for function, total in ((sync_decorated, 5), (given_a_price, 8)):
        drive = Drive(function, Order("a"))
        assert plain(drive.turns[0].scheduled[0].arguments) == ["a"]
        drive.done("price", 5)
        assert drive.output == total


def test_a_decorated_orchestration_that_fails_before_it_returns_a_coroutine_fails_as_others_do():
    def refusing(function):
        @functools.wraps(function)
        def inner(*args, **kwargs):
            raise ValueError("not today")

        return inner

    @refusing
    async def orchestration(ctx: OrchestrationContext, _: int) -> int: ...

    assert Drive(orchestration, 1).error.type == "ValueError"
