"""Values to bytes and back; what cannot travel is refused by name."""

import decimal
import enum
import os
import subprocess
import sys
import tracemalloc
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypedDict

from orchestra.codec import JSON, Payload, arguments_decoder, decoder, encode, plain
from orchestra.errors import DecodeError, EncodeError, PayloadTooLarge, UnresolvableAnnotation


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Options(TypedDict, total=False):
    deep: bool
    tags: list[str]


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Cat:
    name: str
    kind: Literal["cat"] = "cat"


@dataclass
class Dog:
    name: str
    age: int
    kind: Literal["dog"] = "dog"


@dataclass(frozen=True, slots=True)
class Hidden:
    _secret: int
    __mangled: int = 0
    shown: int = 0


class Model(pydantic.BaseModel):
    when: datetime
    tags: set[str] = set()
    inner: list[frozenset[int]] = []


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True, extra="allow")
    names: set[str] = pydantic.Field(alias="theNames")


class Root(pydantic.RootModel[set[str]]):
    pass


@dataclass
class Everything:
    pets: list[Cat | Dog]
    colour: Colour
    level: Level
    options: Options
    when: datetime
    day: date
    wait: timedelta
    key: uuid.UUID
    price: decimal.Decimal
    pair: tuple[int, str]
    numbers: set[int]
    by_number: dict[int, str]
    model: Model
    point: Point
    maybe: int | None = None
    nested: dict[str, list[dict[str, tuple[float, ...]]]] = field(default_factory=dict)


EVERYTHING = Everything(
    pets=[Cat("Tom"), Dog("Rex", 3)],
    colour=Colour.RED,
    level=Level.LOW,
    options={"deep": True, "tags": ["a"]},
    when=datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
    day=date(2030, 1, 2),
    wait=-timedelta(days=3, microseconds=1),
    key=uuid.UUID(int=7),
    price=decimal.Decimal("10.10"),
    pair=(1, "x"),
    numbers={3, 1, 2},
    by_number={2: "b", 1: "a"},
    model=Model(when=datetime(2030, 1, 1, tzinfo=UTC), tags={"b", "a"}, inner=[frozenset({2, 1})]),
    point=Point(1, 2),
    nested={"a": [{"b": (1.5, 2.0)}]},
)

ROUND_TRIPS = [
    (Everything, EVERYTHING),
    (Cat | Dog, Dog("Rex", 3)),
    (Hidden, Hidden(1, 2, 3)),
    (Options, {"tags": []}),
    (Aliased, Aliased(theNames={"b", "a"}, more={"z": 1})),
    (Root, Root({"b", "a"})),
    (dict[str, Root], {"r": Root({"x"})}),
    (tuple[int, ...], (1, 2, 3)),
    (frozenset[str], frozenset({"b", "a"})),
    (dict[int, str], {1: "a"}),
    (datetime, datetime(2030, 1, 1)),  # noqa: DTZ001 - naive stays naive
    (timedelta, timedelta.max),
    (Colour, Colour.RED),
    (list[Any], [1, "a", None, True, 1.5, {"a": []}]),
    (type(None), None),
]


@pytest.mark.parametrize(("annotation", "value"), ROUND_TRIPS, ids=lambda value: str(value)[:30])
def test_a_value_comes_back_as_what_it_was(annotation, value):
    payload = encode(value, subject="it")
    back = decoder(annotation).decode(payload, subject="it")
    assert back == value
    assert type(back) is type(value)
    assert encode(back, subject="it") == payload


JSONS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


@given(JSONS)
def test_json_values_come_back(value):
    payload = encode(value, subject="it")
    assert plain(payload) == value
    assert encode(plain(payload), subject="it") == payload


@given(
    st.timedeltas(),
    st.datetimes(timezones=st.just(UTC)),
    st.uuids(),
    st.decimals(allow_nan=False, allow_infinity=False),
)
def test_moments_spans_ids_and_amounts_come_back(span, moment, key, amount):
    value = (span, moment, key, amount)
    back = decoder(tuple[timedelta, datetime, uuid.UUID, decimal.Decimal]).decode(
        encode(value, subject="it"), subject="it"
    )
    assert back == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (deque([1, 2]), b"[1,2]"),
        (MappingProxyType({"a": 1}), b'{"a":1}'),
        (OrderedDict(b=1, a=2), b'{"b":1,"a":2}'),
        ({3, 1, 2}, b"[1,2,3]"),
        ({"b", "a"}, b'["a","b"]'),
        ({1: "a", 2: "b"}, b'{"1":"a","2":"b"}'),
        (None, b"null"),
    ],
    ids=repr,
)
def test_the_written_form_is_plain_json(value, written):
    assert encode(value, subject="it") == Payload(written, JSON)


# --- what cannot travel ---


@dataclass
class Reading:
    values: list[dict[str, Any]]
    extra: Any = None


class Loose(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)
    reading: Any = None


class Opaque:
    pass


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
NAN = float("nan")

UNENCODABLE = {
    "nan": (NAN, "", "nan has no JSON form"),
    "nan in a list": ([0.5, NAN], "[1]", "nan has no JSON form"),
    "infinity at a nested path": (
        Reading([{"a": 1}, {"b": float("-inf")}]),
        ".values[1]['b']",
        "-inf has no JSON form",
    ),
    "nan beside a None": ({"a": None, "b": (1.0, NAN)}, "['b'][1]", "nan"),
    "nan in a set": (Reading([], {NAN}), ".extra[0]", "nan"),
    "nan as a key": ({"a": {NAN: 1}}, "['a'][nan]", "nan"),
    "nan in a model": (Loose(reading=[NAN]), ".reading[0]", "nan"),
    "nan in what a model allows": (Loose(surplus=NAN), ".surplus", "nan"),
    "bytes": (Reading([{"a": b"raw"}]), ".values[0]['a']", "base64"),
    "an object": ({"a": [Opaque()]}, "['a'][0]", "Opaque"),
    "an object in a model": ([Loose(reading=Opaque())], "[0].reading", "Opaque"),
    "a function": ({"a": test_json_values_come_back}, "['a']", "function"),
    "a lone surrogate": (["\ud800"], "[0]", "surrogates"),
    "a number that is too great": ([2**64], "[0]", "64-bit"),
    "a key that is no text": ({"a": {(1, 2): 3}}, "", "key"),
}


@pytest.mark.parametrize("case", UNENCODABLE)
def test_what_has_no_json_form_is_refused_with_its_place(case):
    value, place, reason = UNENCODABLE[case]
    with pytest.raises(EncodeError) as caught:
        encode(value, subject="state of 'watch'")
    assert caught.value.field == place
    assert caught.value.subject == "state of 'watch'"
    assert str(caught.value).startswith("state of 'watch'" + (f" at {place}" if place else ""))
    assert reason.lower() in str(caught.value).lower()


def test_a_value_that_contains_itself_is_refused():
    with pytest.raises(EncodeError, match="contains itself"):
        encode({"a": CYCLE}, subject="it")


def test_a_nested_value_may_hold_none_as_deep_as_anything_else():
    value = None
    for _ in range(190):
        value = [value]
    assert plain(encode(value, subject="it")) == value


def test_a_value_over_the_limit_is_refused_with_both_sizes():
    with pytest.raises(PayloadTooLarge, match=r"12 bytes; the limit is 11") as caught:
        encode("x" * 10, subject="it", limit=11)
    assert (caught.value.size, caught.value.limit) == (12, 11)
    assert encode("x" * 10, subject="it", limit=12).data


@dataclass
class Picky:
    value: int

    def __post_init__(self):
        if self.value < 0:
            raise KeyError("negative")


BAD = [
    (int, b'"1"', "", "valid integer"),
    (Everything, b'{"pets":[{"name":"Rex","kind":"dog"}]}', ".pets[0]", ""),
    (list[Cat], b'[{"name":"Tom"},{"name":7}]', "[1].name", "valid string"),
    (dict[str, list[int]], b'{"a":[1,true]}', ".a[1]", "valid integer"),
    (datetime, b'"yesterday"', "", "datetime"),
    (Picky, b'{"value":-1}', "", "KeyError('negative')"),
    (Any, b"{", "", "not JSON"),
    (int, b"{", "", "Invalid JSON"),
]


@pytest.mark.parametrize(("annotation", "data", "place", "reason"), BAD, ids=str)
def test_what_does_not_fit_the_annotation_is_refused_with_its_place(
    annotation, data, place, reason
):
    with pytest.raises(DecodeError) as caught:
        decoder(annotation).decode(Payload(data), subject="result of activity 'probe'")
    assert caught.value.field.startswith(place)
    assert str(caught.value).startswith("result of activity 'probe'")
    assert reason in str(caught.value)


def test_an_encoding_of_a_later_library_is_refused():
    with pytest.raises(DecodeError, match="encoding 2"):
        decoder(Any).decode(Payload(b"1", 2), subject="it")


def test_an_annotation_without_a_json_form_is_refused_when_it_is_made():
    with pytest.raises(UnresolvableAnnotation, match="Opaque"):
        decoder(Opaque)


def test_look_alikes_among_annotations_keep_their_own_decoders():
    assert decoder(Literal[1]) is decoder(Literal[1])
    assert decoder(Literal[1]) is not decoder(Literal[True])


def test_a_union_in_another_order_is_read_by_its_own_order():
    @dataclass
    class Left:
        a: int = 0

    @dataclass
    class Right:
        a: int = 0

    assert isinstance(decoder(Left | Right).decode(Payload(b"{}"), subject="it"), Left)
    assert isinstance(decoder(Right | Left).decode(Payload(b"{}"), subject="it"), Right)


@pytest.mark.parametrize(
    ("annotations", "data", "values"),
    [
        ([], b"[]", ()),
        ([int, Colour], b'[1,"red"]', (1, Colour.RED)),
        ([Any, Any], b"[1,[2]]", (1, [2])),
        (
            [],
            b"[1]",
            (1,),
        ),  # a function that takes less than was sent must not run as if nothing had been
    ],
)
def test_arguments_are_read_by_position(annotations, data, values):
    assert arguments_decoder(annotations)(Payload(data), subject="it") == values


SETS = """
import sys
import tracemalloc
from dataclasses import dataclass
import pydantic
from orchestra.codec import encode

class Inner(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    names: frozenset[str]

@dataclass(frozen=True)
class Plain:
    names: frozenset[str]

class Outer(pydantic.BaseModel):
    names: set[str] = pydantic.Field(serialization_alias="theNames")
    inner: dict[str, list[Inner]]
    plain: tuple[Plain, int]
    deep: set[frozenset[str]]

words = frozenset(f"word{number}" for number in range(12))
inner = Inner(names=words, more=set(words))
print(encode(Outer(names=words, inner={"a": [inner]}, plain=(Plain(words), 1), deep={words, words - {"word3"}}), subject="it"))
print(encode({"plain": Plain(words), "set": {words, words - {"word1"}}}, subject="it"))
"""


@pytest.mark.slow
def test_sets_are_written_alike_in_every_process():
    def written(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(
            [sys.executable, "-c", SETS], env=environment, capture_output=True, check=True
        ).stdout

    assert written("1") == written("2")


@pytest.mark.parametrize("size", [10, 1_000, 16_384])
@pytest.mark.parametrize("annotation", [None, str, dict[str, str]])
def test_a_payload_takes_as_much_memory_as_it_has_bytes(size, annotation):
    """Queues are bounded by the bytes of their payloads."""
    value = {"a": "x" * size} if annotation is not str else "x" * size
    kept = []
    tracemalloc.start()
    try:
        for _ in range(100):
            if annotation is None:
                kept.append(encode(value, subject="it").data)
            else:
                kept.append(decoder(annotation).encode(value, subject="it").data)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < sum(map(sys.getsizeof, kept)) + 50_000
