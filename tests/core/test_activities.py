"""How functions become activities, and how arguments travel."""

import inspect
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import ModuleType

import pytest

from orchestra.activities import Activity, activity, activity_context, as_activity
from orchestra.codec import EMPTY, plain
from orchestra.errors import ActivityContextMissing, InvalidFunction, UnresolvableAnnotation
from orchestra.events import from_record
from orchestra.retry import RetryPolicy
from tests.support.driver import Drive, fresh


@dataclass
class Order:
    item: str
    count: int = 1


TWICE = RetryPolicy(max_attempts=2)


@activity
async def bare(order: Order) -> int:
    return order.count


@activity
def bare_sync(order: Order) -> int:
    return order.count


@activity(
    name="renamed",
    retry=TWICE,
    timeout=timedelta(seconds=5),
    heartbeat_timeout=timedelta(seconds=1),
)
async def with_options(order: Order) -> int:
    return order.count


@activity(timeout=timedelta(seconds=5))
def with_options_sync() -> None: ...


async def calls_by_name(ctx, _):
    return await ctx.schedule_activity("with_options_sync", 1, count=2)


def test_a_call_by_name_repeats_alike_whatever_is_registered():
    known = {
        "with_options_sync": Activity.named("with_options_sync", int, retry=TWICE, queue="gpu")
    }
    histories = []
    for registered in ({}, known, {"with_options_sync": with_options_sync}):
        execution = fresh(calls_by_name, registered=registered)
        execution.start(EMPTY, 0)
        histories.append(execution.turn(0).events)
        execution.evict()
    assert [from_record(history[1]).queue for history in histories] == [None, "gpu", None]
    assert [from_record(history[1]).timeout for history in histories] == [None, None, 5_000_000]
    for history in histories:
        for registered in ({}, known, {"with_options_sync": with_options_sync}):
            execution = fresh(calls_by_name, registered=registered)
            execution.replay(history)
            assert execution.activities == {2: from_record(history[1])}
            execution.evict()


def test_the_decorator_takes_both_kinds_of_functions_with_and_without_options():
    assert [made.name for made in (bare, bare_sync, with_options, with_options_sync)] == [
        "bare",
        "bare_sync",
        "renamed",
        "with_options_sync",
    ]
    assert [made.is_async for made in (bare, bare_sync, with_options, with_options_sync)] == [
        True,
        False,
        True,
        False,
    ]
    assert (bare.retry, bare.timeout) == (RetryPolicy(), None)
    assert (with_options.retry, with_options.timeout, with_options.heartbeat_timeout) == (
        TWICE,
        timedelta(seconds=5),
        timedelta(seconds=1),
    )


def test_an_activity_can_be_called_as_the_function_that_it_is():
    assert bare_sync(Order("x", 3)) == 3
    coroutine = bare(Order("x"))
    assert inspect.iscoroutine(coroutine)
    coroutine.close()


def test_options_for_one_call_leave_the_activity_as_it_is():
    hurried = bare.options(timeout=timedelta(seconds=1), retry=TWICE)
    assert (hurried.name, hurried.timeout, hurried.retry) == ("bare", timedelta(seconds=1), TWICE)
    assert bare.timeout is None


def test_none_takes_an_option_away_and_what_is_not_given_stays():
    full = with_options.options(queue="gpu")
    assert full.options() == full
    assert full.options(timeout=None) == replace(full, timeout=None)
    assert full.options(heartbeat_timeout=None) == replace(full, heartbeat_timeout=None)
    assert full.options(queue=None) == replace(full, queue=None) == with_options
    assert full.options(retry=None) == replace(full, retry=RetryPolicy())


@pytest.mark.parametrize("option", ["timeout", "heartbeat_timeout"])
@pytest.mark.parametrize(
    "make",
    [
        lambda **o: activity(name="x", **o)(lambda: None),
        bare.options,
        lambda **o: Activity.named("x", **o),
    ],
)
def test_a_timeout_must_be_positive(make, option):
    with pytest.raises(InvalidFunction, match=f"{option} of activity '.*' is -1 day"):
        make(**{option: timedelta(days=-1)})


@pytest.mark.parametrize("option", ["timeout", "heartbeat_timeout"])
def test_an_option_of_nothing_is_refused_and_not_taken_for_no_option(option):
    with pytest.raises(InvalidFunction, match="it must be positive"):
        bare.options(**{option: timedelta(0)})


class Service:
    async def fetch(self, url: str) -> int: ...

    @staticmethod
    def load(url: str) -> int: ...


@pytest.mark.parametrize("make", [activity, activity(name="x"), as_activity])
def test_a_method_without_its_object_is_refused_with_what_to_give_instead(make):
    with pytest.raises(
        InvalidFunction, match=r"'Service\.fetch' cannot be an activity: .* `service\.method`"
    ):
        make(Service.fetch)


def test_a_bound_method_and_a_static_one_can_be_activities():
    assert (as_activity(Service().fetch).name, as_activity(Service.load).name) == ("fetch", "load")


async def async_generator():
    yield 1


def generator():
    yield 1


def opaque_argument(thing: ModuleType) -> None: ...


def opaque_result() -> ModuleType: ...


def missing(thing: "Nowhere") -> None: ...  # noqa: F821


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        (7, InvalidFunction, "7"),
        (Order, InvalidFunction, "Order"),
        (generator, InvalidFunction, "'generator'"),
        (async_generator, InvalidFunction, "'async_generator'"),
        (opaque_argument, UnresolvableAnnotation, "'thing' of 'opaque_argument'"),
        (opaque_result, UnresolvableAnnotation, "the result of 'opaque_result'"),
        (missing, UnresolvableAnnotation, "'missing' cannot be resolved: name 'Nowhere'"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_cannot_be_an_activity_is_refused_by_name(function, error, said):
    with pytest.raises(error, match=said):
        activity(function)


def test_types_of_the_enclosing_function_are_found():
    @dataclass
    class Local:
        a: int

    @activity
    def local(value: "Local") -> "Local":
        return value

    assert local.result.annotation is Local


def everything(
    order: Order,
    when: datetime = datetime.min,  # noqa: DTZ901
    *rest: Order,
    loud: bool = False,
    **more: Order,
) -> None: ...


MOMENT = datetime(2030, 1, 1, tzinfo=UTC)
CALLS = [
    ((Order("a"),), {}, [{"item": "a", "count": 1}]),
    ((), {"order": Order("a")}, [{"item": "a", "count": 1}]),
    ((Order("a"), MOMENT, Order("b"), Order("c", 2)), {}, None),
    ((Order("a"),), {"loud": True}, None),
    ((Order("a"), MOMENT), {"loud": True, "extra": Order("e")}, None),
]


@pytest.mark.parametrize(("args", "kwargs", "wire"), CALLS)
def test_arguments_arrive_as_what_they_were(args, kwargs, wire):
    signature = as_activity(everything).signature
    payload = signature.encode(args, kwargs, subject="it", limit=1_000)
    if wire is not None:
        assert plain(payload) == wire
    got_args, got_kwargs = signature.decode(payload, subject="it")
    bound = inspect.signature(everything).bind(*args, **kwargs)
    assert (got_args, got_kwargs) == (bound.args, bound.kwargs)


def optional(a: int, b: Order | None = None, c: Order | None = None) -> None: ...


def test_a_default_in_the_middle_is_left_to_the_function():
    signature = as_activity(optional).signature
    payload = signature.encode((1,), {"c": Order("x")}, subject="it", limit=1_000)
    assert signature.decode(payload, subject="it") == ((1,), {"c": Order("x")})


@pytest.mark.parametrize(
    "call",
    [
        lambda ctx: ctx.schedule_activity(bare),
        lambda ctx: ctx.schedule_activity(bare, Order("a"), 2),
        lambda ctx: ctx.schedule_activity(bare, order=Order("a"), more=1),
        lambda ctx: ctx.schedule_activity(bare_sync, orders=Order("a")),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_the_call(call):
    async def subject(ctx, _):
        call(ctx)

    drive = Drive(subject)
    assert drive.error.type == "TypeError"
    assert "in test_arguments_that_do_not_fit_are_refused_at_the_call" not in drive.error.message


def plain_helper(order: Order) -> Order: ...


@pytest.mark.parametrize(
    ("asked", "args", "kwargs", "name", "wire"),
    [
        (bare, (Order("a"),), {}, "bare", [{"item": "a", "count": 1}]),
        (with_options, (Order("a"),), {}, "renamed", [{"item": "a", "count": 1}]),
        (plain_helper, (Order("a"),), {}, "plain_helper", [{"item": "a", "count": 1}]),
        ("remote", (1, "x"), {}, "remote", [1, "x"]),
        ("remote", (1,), {"deep": True}, "remote", {"args": [1], "kwargs": {"deep": True}}),
        (Activity.named("remote", returns=Order), (1,), {}, "remote", [1]),
    ],
)
def test_an_activity_is_asked_for_by_object_function_or_name(asked, args, kwargs, name, wire):
    async def subject(ctx, _):
        return await ctx.schedule_activity(asked, *args, **kwargs)

    drive = Drive(subject)
    (scheduled,) = drive.turns[0].scheduled
    assert (scheduled.name, plain(scheduled.arguments)) == (name, wire)


def test_options_of_an_activity_are_recorded_with_it():
    async def subject(ctx, _):
        await ctx.schedule_activity(with_options.options(timeout=timedelta(seconds=9)), Order("a"))

    (scheduled,) = Drive(subject).turns[0].scheduled
    assert (scheduled.timeout, scheduled.heartbeat_timeout, scheduled.retry) == (
        9_000_000,
        1_000_000,
        TWICE,
    )


def test_a_result_is_read_by_the_annotation_of_its_activity():
    async def subject(ctx, _):
        by_function = await ctx.schedule_activity(plain_helper, Order("a"))
        by_reference = await ctx.schedule_activity(Activity.named("remote", returns=Order))
        by_name = await ctx.schedule_activity("remote")
        return [type(value).__name__ for value in (by_function, by_reference, by_name)]

    drive = Drive(subject)
    drive.done("plain_helper", Order("b"))
    drive.done("remote", Order("c"))
    drive.done("remote", Order("d"))
    assert drive.output == ["Order", "Order", "dict"]


def test_a_reference_has_no_function_to_call():
    with pytest.raises(InvalidFunction, match="reference by name"):
        Activity.named("remote")()


def test_the_ambient_context_exists_only_in_a_running_activity():
    with pytest.raises(ActivityContextMissing):
        activity_context()
