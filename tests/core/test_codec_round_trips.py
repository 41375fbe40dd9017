"""For each annotation that is accepted a value comes back as what it was, of the same types, or is
refused (scenario 52).
"""

import dataclasses
import decimal
import enum
import math
import types
import typing
import uuid
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typing_extensions import TypedDict

from orchestra.codec import Payload, decoder, encode, plain
from orchestra.errors import EncodeError, UnresolvableAnnotation
from tests.support.examples import examples


class Code(enum.Enum):
    OK = 200
    GONE = 410


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


class Corner(enum.Enum):
    LEFT = (0, 1)
    RIGHT = (1, 1)


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    at: datetime | None = None


class Options(TypedDict, total=False):
    deep: bool
    since: datetime


@dataclass
class Ordered:
    order: str


@dataclass(frozen=True)
class Paid:
    order: str


@dataclass
class Loud(Ordered):
    volume: int = 3


class Bill(pydantic.BaseModel):
    order: str = pydantic.Field(alias="orderId")
    price: decimal.Decimal = decimal.Decimal(1)
    model_config = pydantic.ConfigDict(populate_by_name=True)


class Careful(pydantic.BaseModel):
    when: datetime
    price: decimal.Decimal
    pair: tuple[int, bytes]
    of: Ordered | Paid
    key: uuid.UUID

    @pydantic.model_validator(mode="before")
    @classmethod
    def look(cls, data: Any) -> Any:
        return data


def naive(*parts: int) -> datetime:
    return datetime(*parts)  # noqa: DTZ001 - its zone comes later


ZONES = [
    ZoneInfo("Europe/Berlin"),
    ZoneInfo("America/New_York"),
    ZoneInfo("Australia/Lord_Howe"),
    ZoneInfo("UTC"),
]
MOMENTS = st.one_of(
    st.datetimes(),
    st.datetimes(
        timezones=st.sampled_from(
            [UTC, timezone(timedelta(hours=-3)), timezone(timedelta(minutes=345))]
        )
    ),
    st.builds(
        lambda moment, fold: moment.replace(fold=fold),
        st.datetimes(
            min_value=naive(1850, 1, 2),
            max_value=naive(2100, 1, 1),
            timezones=st.sampled_from(ZONES),
        ),
        st.integers(0, 1),
    ),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
INTEGERS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False)
ORDERS = st.builds(Ordered, TEXTS)
PAYMENTS = st.builds(Paid, TEXTS)
JSONS = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=6,
)

LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    int: INTEGERS,
    bool: st.booleans(),
    float: FLOATS,
    str: TEXTS
    | st.sampled_from(
        ["1", "true", "2020-01-01", "2020-01-01T00:00:00", "P1D", "1.5", "yes", "200", "a]"]
    ),
    bytes: st.binary(max_size=4),
    type(None): st.none(),
    datetime: MOMENTS,
    date: st.dates(),
    time: st.times() | st.times(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5))])),
    timedelta: st.timedeltas(),
    uuid.UUID: st.uuids(),
    decimal.Decimal: AMOUNTS,
    Code: st.sampled_from(Code),
    Level: st.sampled_from(Level),
    Word: st.sampled_from(Word),
    Corner: st.sampled_from(Corner),
    Rights: st.sampled_from([Rights.READ, Rights.WRITE, Rights.READ | Rights.WRITE, Rights(0)]),
    Literal["a", "b"]: st.sampled_from(["a", "b"]),
    Literal[1, 2, "1"]: st.sampled_from([1, 2, "1"]),
    Point: st.builds(Point, INTEGERS, MOMENTS | st.none()),
    Ordered: ORDERS,
    Paid: PAYMENTS,
    Loud: st.builds(Loud, TEXTS, INTEGERS),
    Bill: st.builds(lambda order, price: Bill(order=order, price=price), TEXTS, AMOUNTS),
    Careful: st.builds(
        Careful,
        when=MOMENTS,
        price=AMOUNTS,
        pair=st.tuples(INTEGERS, st.binary(max_size=3)),
        of=ORDERS | PAYMENTS,
        key=st.uuids(),
    ),
    Options: st.fixed_dictionaries({}, optional={"deep": st.booleans(), "since": MOMENTS}),
    Any: JSONS,
}
HASHABLE = {
    int,
    bool,
    float,
    str,
    datetime,
    date,
    time,
    timedelta,
    uuid.UUID,
    decimal.Decimal,
    Code,
    Level,
    Word,
    Rights,
    Paid,
}
KEYS = HASHABLE - {Rights, Paid} | {Literal["a", "b"], Literal[1, 2, "1"]}

NAMES = st.sampled_from(["a", "kind", "value", "_hidden", "order"])


@st.composite
def annotated(draw: Any, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """Draw an annotation and the values that it has."""
    if depth == 0 or draw(st.booleans()):
        annotation = draw(st.sampled_from(list(LEAVES)))
        return annotation, LEAVES[annotation]
    kind = draw(
        st.sampled_from(
            [
                "list",
                "tuple",
                "many",
                "set",
                "dict",
                "union",
                "optional",
                "dataclass",
                "deque",
                "ordered",
            ]
        )
    )
    if kind == "set":
        members = draw(st.sampled_from(sorted(HASHABLE, key=str)))
        return frozenset[members], st.frozensets(LEAVES[members], max_size=3)
    inner, values = draw(annotated(depth - 1))
    if kind == "list":
        return list[inner], st.lists(values, max_size=3)
    if kind == "deque":
        return deque[inner], st.builds(deque, st.lists(values, max_size=3))
    if kind == "many":
        return tuple[inner, ...], st.lists(values, max_size=3).map(tuple)
    if kind in {"dict", "ordered"}:
        key = draw(st.sampled_from(sorted(KEYS, key=str)))
        made = st.dictionaries(LEAVES[key], values, max_size=3)
        return (
            (dict[key, inner], made)
            if kind == "dict"
            else (OrderedDict[key, inner], st.builds(OrderedDict, made))
        )
    if kind == "optional":
        return inner | None if inner is not Any else Any, st.none() | values
    other, others = draw(annotated(depth - 1))
    if kind == "tuple":
        return tuple[inner, other], st.tuples(values, others)
    if kind == "union":
        both = typing.Union[inner, other]  # noqa: UP007 - not all of them know `|`
        return both, values | others
    names = draw(st.lists(NAMES, min_size=2, max_size=2, unique=True))
    cls = dataclasses.make_dataclass("Made", list(zip(names, [inner, other], strict=True)))
    return cls, st.builds(cls, values, others)


def same(a: Any, b: Any) -> bool:
    """Return whether two values are equal and of the same types at each level. Written without the
    codec's own comparison.
    """
    if type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a):
        return all(
            same(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a)
        )
    if isinstance(a, pydantic.BaseModel):
        return same(dict(a), dict(b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(
            any(same(key, found) for found in b) and same(item, b[key]) for key, item in a.items()
        )
    if isinstance(a, (list, tuple, deque)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (set, frozenset)):
        return a == b and all(any(same(member, found) for found in b) for member in a)
    if isinstance(a, datetime):
        keys = [getattr(moment.tzinfo, "key", None) for moment in (a, b)]
        return (
            a.replace(tzinfo=None) == b.replace(tzinfo=None)
            and a.utcoffset() == b.utcoffset()
            and keys[0] == keys[1]
        )
    return a == b


@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_value_of_any_annotation_comes_back_as_what_it_was_or_is_refused(data):
    annotation, values = data.draw(annotated(3), label="annotation")
    try:
        reader = decoder(annotation)
    except UnresolvableAnnotation:
        return
    value = data.draw(values, label="value")
    try:
        payload = reader.encode(value, subject="it")
    except EncodeError as error:
        refused = str(error)
    else:
        back = reader.decode(payload, subject="it")
        assert same(value, back)
        assert reader.encode(back, subject="it") == payload
        assert b"orchestra:" not in encode(plain(payload), subject="it").data
        return
    # Only what no JSON can say: other values of the annotation itself always travel.
    assert ambiguous(annotation) or "fold" in refused or "offset" in refused, refused


def ambiguous(annotation: Any) -> bool:
    """Return whether members of a union could be so alike that a value of one is refused."""
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return True
    inner = typing.get_args(annotation)
    if dataclasses.is_dataclass(annotation):
        inner = [field.type for field in dataclasses.fields(annotation)]
    return any(map(ambiguous, inner))


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_value_of_another_annotation_is_refused_or_comes_back_as_what_it_was(data):
    annotation, _ = data.draw(annotated(2), label="annotation")
    _, others = data.draw(annotated(2), label="another")
    try:
        reader = decoder(annotation)
    except UnresolvableAnnotation:
        return
    value = data.draw(others, label="value")
    try:
        payload = reader.encode(value, subject="it")
    except EncodeError:
        return
    back = reader.decode(payload, subject="it")
    assert same(value, back) or annotation is Any or whole_numbers_as_floats(value, back)


def whole_numbers_as_floats(value: Any, back: Any) -> bool:
    """Return whether two values differ in nothing but whole numbers that were given for floats (PEP
    484).
    """
    return value == back and repr(value).count(".") < repr(back).count(".") + repr(back).count("e+")


@given(
    st.lists(st.sampled_from(ZONES), min_size=1, max_size=3),
    st.integers(0, 1),
    st.integers(-120, 120),
)
def test_a_local_time_is_the_same_local_time_around_a_change_of_clocks(zones, fold, minutes):
    for zone in zones:
        for change in (
            naive(2026, 3, 29, 2, 30),
            naive(2026, 10, 25, 2, 30),
            naive(2026, 4, 5, 1, 45),
        ):
            moment = (change + timedelta(minutes=minutes)).replace(tzinfo=zone, fold=fold)
            back = decoder(datetime).decode(
                decoder(datetime).encode(moment, subject="it"), subject="it"
            )
            assert back.replace(tzinfo=None) == moment.replace(tzinfo=None)
            assert (back.tzinfo, back.utcoffset()) == (moment.tzinfo, moment.utcoffset())


@given(JSONS)
def test_what_is_plain_json_is_the_same_with_and_without_an_annotation(value):
    assert decoder(dict[str, Any]).encode({"a": value}, subject="it") == encode(
        {"a": value}, subject="it"
    )


@given(FLOATS)
def test_a_number_comes_back_to_the_last_digit(value):
    payload = decoder(float).encode(value, subject="it")
    assert math.copysign(1, decoder(float).decode(payload, subject="it")) == math.copysign(1, value)
    assert decoder(float).decode(payload, subject="it") == value


def test_a_counter_comes_back():
    value = Counter("banana")
    assert same(
        value,
        decoder(Counter[str]).decode(
            decoder(Counter[str]).encode(value, subject="it"), subject="it"
        ),
    )


@pytest.mark.parametrize("depth", [60, 90, 94, 96, 120, 300])
def test_what_can_be_written_can_be_read_however_deep_it_is(depth):
    @dataclass
    class Nest:
        inner: "list[Nest]"

    Nest.__annotations__["inner"] = list[Nest]
    Nest.__dataclass_fields__["inner"].type = list[Nest]
    value = Nest([])
    for _ in range(depth):
        value = Nest([value])
    if depth > 95:
        with pytest.raises(EncodeError, match="deep"):
            decoder(Nest).encode(value, subject="it")
        return
    payload = decoder(Nest).encode(value, subject="it")
    assert decoder(Nest).decode(payload, subject="it") == value
    assert (
        decoder(Nest).decode(
            Payload(payload.data[:-1] + b',"orchestra:type":"Nest"}'), subject="it"
        )
        == value
    )
