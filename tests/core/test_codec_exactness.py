"""What a value is carried as, and what is refused where it is given or registered: each kind with
its text (scenario 52).
"""

import enum
import functools
import operator
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass, field, make_dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar
from zoneinfo import ZoneInfo

import pydantic
import pytest
from typing_extensions import TypedDict

from orchestra import activity
from orchestra.codec import Payload, decoder, encode, plain, unpack
from orchestra.errors import DecodeError, EncodeError, UnresolvableAnnotation
from orchestra.events import ExecutionStarted, from_record, to_record
from tests.support.driver import Drive, define, replay

T = TypeVar("T")
BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)


class Odd(tzinfo):
    def utcoffset(self, moment):
        return timedelta(hours=1)


class Code(enum.Enum):
    OK = 200


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Alike(enum.Enum):
    NUMBER = 1
    TEXT = "1"


class Opaque(enum.Enum):
    THING = object()


class Loud(str):
    __slots__ = ()


@dataclass
class Ordered:
    order: str


@dataclass
class Paid:
    order: str


@dataclass
class Express(Ordered):
    hours: int = 24


@dataclass
class Order:
    lines: list[Ordered]
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Computed:
    price: int
    with_tax: int = field(init=False, default=0)

    def __post_init__(self):
        object.__setattr__(self, "with_tax", self.price * 2)


@dataclass
class Needy:
    value: int
    extra: InitVar[int]


@dataclass
class Renamed:
    order: Annotated[str, pydantic.Field(alias="orderId")]


@dataclass
class Box(Generic[T]):
    content: T


class Options(TypedDict):
    deep: bool


class Secretive(pydantic.BaseModel):
    token: pydantic.SecretStr


class Excluding(pydantic.BaseModel):
    shown: int = 1
    hidden: int = pydantic.Field(default=0, exclude=True)


class Private(pydantic.BaseModel):
    shown: int = 1
    _kept: int = pydantic.PrivateAttr(default=0)


class Computing(pydantic.BaseModel):
    a: int = 1

    @pydantic.computed_field
    @property
    def twice(self) -> int:
        return self.a * 2


class Short(pydantic.BaseModel):
    when: datetime

    @pydantic.field_serializer("when")
    def year(self, when: datetime) -> str:
        return when.strftime("%Y")


class Upgrading(pydantic.BaseModel):
    when: datetime
    price: Decimal = Decimal(0)
    pair: tuple[int, str] = (0, "")
    raw: bytes = b""
    of: Ordered | Paid | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def upgrade(cls, data: Any) -> Any:
        if isinstance(data, dict) and "at" in data:
            return {
                **{key: value for key, value in data.items() if key != "at"},
                "when": data["at"],
            }
        return data


class Wrapping(pydantic.BaseModel):
    when: datetime

    @pydantic.field_validator("when", mode="wrap")
    @classmethod
    def check(cls, value: Any, handler: Any) -> Any:
        return handler(value)


def private(value):
    made = Private()
    made._kept = value
    return made


def nested(depth):
    return functools.reduce(lambda inner, _: [inner], range(depth), [])


def endless():
    made: list[Any] = []
    made.append(made)
    return made


REFUSED = {
    "a subclass": (Ordered, Express("a"), "", "it is a Express, a subclass of Ordered"),
    "a subclass in a list": (
        Order,
        Order([Ordered("a"), Express("b")]),
        ".lines[1]",
        "annotate Express, or Ordered | Express",
    ),
    "another class of one shape": (Ordered, Paid("a"), "", "a Paid where Ordered is annotated"),
    "none of the members of a union": (
        Ordered | Paid,
        Order([]),
        "",
        "no member of Ordered | Paid",
    ),
    "a subclass of a member": (Ordered | Paid, Express("a"), "", "a subclass of Ordered"),
    "a subclass of str": (list[str], [Loud("a")], "[0]", "write str(value)"),
    "an enum for its number": (int, Level.LOW, "", "annotate Level, or give its value"),
    "an enum for its text": (
        dict[str, str],
        {"a": Word.YES},
        "['a']",
        "annotate Word, or give its value",
    ),
    "an enum as a text key": (
        dict[str, int],
        {Word.YES: 1},
        "[<Word.YES: 'yes'>]",
        "annotate Word",
    ),
    "a bool for a number": (int, True, "", "a bool, a subclass of int"),
    "a bool for a float": (float, True, "", "a bool where float is annotated"),
    "a number that is no float": (float, 2**53 + 1, "", "a int where float"),
    "a datetime for a date": (date, NIGHT, "", "annotate datetime"),
    "a tuple for a list": (list[int], (1,), "", "write list(value), or annotate tuple"),
    "a list for a tuple": (tuple[int, ...], [1], "", "write tuple(value), or annotate list"),
    "a tuple for a sequence": (Sequence[int], (1,), "", "come back as [1]"),
    "a defaultdict for a dict": (dict[str, int], defaultdict(int, a=1), "", "write dict(value)"),
    "an ordered dict for a dict": (dict[str, int], OrderedDict(a=1), "", "write dict(value)"),
    "a bounded deque": (deque[int], deque([1], maxlen=3), "", "come back as deque([1])"),
    "another default factory": (defaultdict[str, list[int]], defaultdict(set), "", "come back as"),
    "an iterator": (list[int], iter([1]), "", "read only once"),
    "a generator of a sequence": (Sequence[int], (n for n in [1]), "", "read only once"),
    "a tuple as plain JSON": (Order, Order([], {"a": (1,)}), ".notes['a']", "write list(value)"),
    "a moment as plain JSON": (
        dict[str, Any],
        {"a": [NIGHT]},
        "['a'][0]",
        "annotate datetime, or convert it to text",
    ),
    "a number as a key of plain JSON": (dict, {1: 2}, "[1]", "annotate dict[int, ...]"),
    "an object as plain JSON": (dict, {"a": Ordered("a")}, "['a']", "annotate Ordered"),
    "nan": (dict[str, float], {"a": float("nan")}, "['a']", "use None or a string"),
    "nan as a Decimal": (list[Decimal], [Decimal("NaN")], "[0]", "use None or a string"),
    "a secret": (Secretive, Secretive(token="x"), ".token", "look them up where they are needed"),
    "an excluded field": (Excluding, Excluding(hidden=5), ".hidden", "come back as 0"),
    "a private attribute": (Private, private(5), "._kept", "come back as 0"),
    "a serializer that shortens": (Short, Short(when=NIGHT), ".when", "a serializer"),
    "a constraint that changes": (
        Annotated[str, pydantic.StringConstraints(to_lower=True)],
        "A",
        "",
        "come back as 'a'",
    ),
    "a constraint that is broken": (Annotated[int, pydantic.Field(gt=3)], 1, "", "greater than 3"),
    "a key that is not declared": (Options, {"deep": True, "wide": 1}, "['wide']", "declare it"),
    "a key that is missing": (Options, {}, "", "requires the key 'deep'"),
    "the library's own key": (
        dict[str, int],
        {"orchestra:type": 1},
        "['orchestra:type']",
        "another name",
    ),
    "a zone without a key": (datetime, NIGHT.replace(tzinfo=Odd()), "", "use zoneinfo.ZoneInfo"),
    "a zone in a time of day": (time, time(9, tzinfo=BERLIN), "", "store a datetime"),
    "an odd offset": (
        datetime,
        NIGHT.replace(tzinfo=timezone(timedelta(seconds=30))),
        "",
        "whole number of minutes",
    ),
    "a fold without a zone": (datetime, NIGHT.replace(tzinfo=None, fold=1), "", "give it its zone"),
    "a value that is none of a few": (Literal[1], True, "", "none of 1"),
    "something for nothing": (type(None), 1, "", "where None is annotated"),
    "a generic of another type": (Box[int], Box("a"), ".content", "where int is annotated"),
    "what is nested too deep": (list, nested(200), "", "deep"),
    "what contains itself": (list, endless(), "", "deep"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_come_back_is_refused_with_its_place_and_the_remedy(case):
    annotation, value, place, phrase = REFUSED[case]
    with pytest.raises(EncodeError) as caught:
        decoder(annotation).encode(value, subject="state of 'watch'")
    assert caught.value.field == place
    assert str(caught.value).startswith(
        "state of 'watch'" + (f" at {place}" if place else "") + " cannot be stored: "
    )
    assert phrase in str(caught.value)


UNREGISTRABLE = {
    "keys that are alike": (
        dict[int | str, int],
        "int | str cannot be told apart; write dict[str, ...]",
    ),
    "keys that may be None": (list[dict[int | None, int]], "at [][key]: "),
    "keys that are tuples": (dict[tuple[int, int], int], "a list of pairs"),
    "keys that are dataclasses": (dict[Ordered, int], "Ordered"),
    "an enum of alike keys": (dict[Alike, int], "the same text"),
    "an enum without JSON": (Opaque, "give it a text or a whole number"),
    "what can be read only once": (Iterable[int], "annotate list[...]"),
    "a function": (Callable[[], int], "pass its name"),
    "a field that is not kept": (Needy, "at .extra: 'extra' of Needy is an InitVar"),
    "two classes of one name": (
        Ordered | make_dataclass("Ordered", [("order", str)]),
        "rename one",
    ),
}


@pytest.mark.parametrize("case", UNREGISTRABLE)
def test_an_annotation_whose_values_could_not_come_back_is_refused_where_it_is_registered(case):
    annotation, phrase = UNREGISTRABLE[case]

    async def lap(ctx, state):
        pass

    lap.__annotations__["state"] = annotation
    with pytest.raises(UnresolvableAnnotation) as caught:
        define(lap)
    assert phrase in str(caught.value)
    assert "the input of" in str(caught.value)


CARRIED = {
    "the zone of a moment": (datetime, NIGHT, b'"2026-10-25T02:30:00+02:00[Europe/Berlin]"'),
    "the second half past two": (
        datetime,
        NIGHT.replace(fold=1),
        b'"2026-10-25T02:30:00+01:00[Europe/Berlin]"',
    ),
    "a fixed offset": (datetime, datetime(2026, 1, 1, tzinfo=UTC), b'"2026-01-01T00:00:00+00:00"'),
    "a zone in a key": (
        dict[datetime, int],
        {NIGHT: 1},
        b'{"2026-10-25T02:30:00+02:00[Europe/Berlin]":1}',
    ),
    "a member of a union": (Ordered | Paid, Paid("o"), b'{"orchestra:type":"Paid","order":"o"}'),
    "members in a list": (list[Paid | None], [Paid("o"), None], b'[{"order":"o"},null]'),
    "a subclass that is a member": (
        Ordered | Express,
        Express("o"),
        b'{"orchestra:type":"Express","order":"o","hours":24}',
    ),
    "a text that looks like a moment": (
        datetime | str,
        "2026-01-01T00:00:00",
        b'{"orchestra:type":"str","orchestra:value":"2026-01-01T00:00:00"}',
    ),
    "a list that looks like another": (
        list[date] | list[str],
        ["2026-01-01"],
        b'{"orchestra:type":"list.1","orchestra:value":["2026-01-01"]}',
    ),
    "an enum of a number's value": (
        int | Level,
        Level.LOW,
        b'{"orchestra:type":"Level","orchestra:value":1}',
    ),
    "a generic in a union": (
        Box[int] | Box[str],
        Box("a"),
        b'{"orchestra:type":"Box","content":"a"}',
    ),
    "keys that are enums of numbers": (dict[Code, int], {Code.OK: 1}, b'{"200":1}'),
    "keys that are truths": (dict[bool, int], {True: 1}, b'{"true":1}'),
    "an alias": (Renamed, None, b'{"orderId":"o"}'),
    "a computed field": (Computing, Computing(a=2), b'{"a":2}'),
    "bytes that are text": (bytes, b"abc", b'"abc"'),
    "bytes that are none": (bytes, b"\xff", b'{"orchestra:type":"bytes","orchestra:value":"/w=="}'),
    "bytes beside text": (bytes | str, b"abc", b'"abc"'),
    "text beside bytes": (bytes | str, "abc", b'{"orchestra:type":"str","orchestra:value":"abc"}'),
    "a whole number for a float": (float, 1, b"1"),
}


@pytest.mark.parametrize("case", CARRIED)
def test_the_wire_form_carries_what_json_does_not_say(case):
    annotation, value, written = CARRIED[case]
    value = Renamed(order="o") if annotation is Renamed else value
    payload = decoder(annotation).encode(value, subject="it")
    assert payload.data == written
    back = decoder(annotation).decode(payload, subject="it")
    assert back == value
    assert type(back) is (float if annotation is float else type(value))
    assert b"orchestra:" not in encode(plain(payload), subject="it").data


def test_a_field_that_init_does_not_take_keeps_the_value_that_it_had():
    value = Computed(3)
    object.__setattr__(value, "with_tax", 7)
    payload = decoder(Computed).encode(value, subject="it")
    assert payload.data == b'{"price":3,"with_tax":7}'
    assert decoder(Computed).decode(payload, subject="it").with_tax == 7
    assert decoder(Computed).decode(Payload(b'{"price":3}'), subject="it").with_tax == 6


OLD = {
    "a member of a union, without its name": (Ordered | Paid, b'{"order":"o"}', Ordered("o")),
    "a member with more fields": (Ordered | Express, b'{"order":"o","hours":3}', Express("o", 3)),
    "a moment without its zone": (
        datetime,
        b'"2026-10-25T02:30:00+02:00"',
        datetime.fromisoformat("2026-10-25T02:30:00+02:00"),
    ),
    "a moment of UTC as pydantic writes it": (
        list[datetime],
        b'["2026-10-25T02:30:00Z"]',
        [datetime(2026, 10, 25, 2, 30, tzinfo=UTC)],
    ),
    "a named member where there is but one": (
        Paid | None,
        b'{"orchestra:type":"Ordered","order":"o"}',
        Paid("o"),
    ),
    "a field that init does not take": (Computed, b'{"price":3}', Computed(3)),
    "a model from before its upgrade": (
        Upgrading,
        b'{"at":"2026-01-01T00:00:00Z"}',
        Upgrading(when=datetime(2026, 1, 1, tzinfo=UTC)),
    ),
    "a number for a float": (float, b"1", 1.0),
    "bytes of a model as text": (
        Upgrading,
        b'{"when":"2026-01-01T00:00:00Z","raw":"abc"}',
        Upgrading(when=datetime(2026, 1, 1, tzinfo=UTC), raw=b"abc"),
    ),
}


@pytest.mark.parametrize("case", OLD)
def test_what_older_libraries_have_written_is_read_as_before(case):
    annotation, data, value = OLD[case]
    back = decoder(annotation).decode(Payload(data), subject="it")
    assert (back, type(back)) == (value, type(value))


def test_a_type_that_is_no_member_of_a_union_is_a_misfit():
    with pytest.raises(DecodeError, match="'Gone', which is none of Ordered, Paid"):
        decoder(Ordered | Paid).decode(
            Payload(b'{"orchestra:type":"Gone","order":"o"}'), subject="it"
        )
    with pytest.raises(DecodeError, match="Mars/Olympus"):
        decoder(datetime).decode(
            Payload(b'"2026-10-25T02:30:00+02:00[Mars/Olympus]"'), subject="it"
        )


class Checked(pydantic.BaseModel):
    order: str

    @pydantic.model_validator(mode="after")
    def check(self):
        return self


class Twin(Checked):
    pass


class Numbered(enum.Enum):
    NONE = 0
    ONE = 1


class Texts(enum.Enum):
    AMOUNT = "1.5"
    NUMBER = "1"
    TRUTH = "true"
    DAY = "2020-01-01"
    SPAN = "P1D"


@pytest.mark.parametrize(
    "chosen", [Numbered, Level, Texts, Literal[0, 1], Literal["1.5", "1", "true"]]
)
@pytest.mark.parametrize(
    "other", [float, int, bool, str, bytes, Decimal, date, datetime, time, timedelta, list[int]]
)
def test_a_choice_beside_what_reads_its_values_as_well_comes_back_as_the_choice(chosen, other):
    choices = list(chosen) if isinstance(chosen, type) else chosen.__args__
    for annotation in (chosen | other, other | chosen, chosen | other | None):
        reader = decoder(annotation)
        for choice in choices:
            back = reader.decode(reader.encode(choice, subject="it"), subject="it")
            assert (type(back), back) == (type(choice), choice)


def test_models_with_functions_around_them_are_told_apart_in_a_union():
    for value in (Checked(order="o"), Twin(order="o")):
        payload = decoder(Checked | Twin).encode(value, subject="it")
        assert payload == encode(value, subject="it")
        assert type(decoder(Checked | Twin).decode(payload, subject="it")) is type(value)


@pytest.mark.parametrize("model", [Upgrading, Wrapping])
def test_a_model_with_functions_before_its_own_checks_holds_what_others_hold(model):
    full = (
        {"price": Decimal("1.10"), "pair": (1, "a"), "raw": b"\xff", "of": Paid("o")}
        if model is Upgrading
        else {}
    )
    value = model(when=NIGHT, **full)
    for annotation in (model, list[model], Box[model], model | Ordered):
        held = {model: value, list[model]: [value], Box[model]: Box(value)}.get(annotation, value)
        back = decoder(annotation).decode(
            decoder(annotation).encode(held, subject="it"), subject="it"
        )
        assert back == held
        inner = (
            operator.attrgetter("content")(back)
            if isinstance(back, Box)
            else back[0]
            if isinstance(back, list)
            else back
        )
        assert inner.when.tzinfo == BERLIN


# --- without an annotation ---


def test_a_value_without_an_annotation_names_its_class_for_readers_who_ask():
    payload = encode([Paid("a"), {"b": Ordered("b")}], subject="it")
    assert plain(payload) == [{"order": "a"}, {"b": {"order": "b"}}]
    assert decoder(list[Ordered | Paid | dict[str, Ordered]]).decode(payload, subject="it") == [
        Paid("a"),
        {"b": Ordered("b")},
    ]
    assert decoder(Paid).decode(encode(Paid("a"), subject="it"), subject="it") == Paid("a")
    assert encode(Paid("a"), subject="it", names_types=False).data == b'{"order":"a"}'


@pytest.mark.parametrize(
    ("value", "place", "phrase"),
    [
        ({"a": (n for n in [1])}, "['a']", "read only once"),
        ([pydantic.SecretStr("x")], "[0]", "look them up"),
        ({"a": Secretive(token="x")}, "['a'].token", "look them up"),
        (Order([Express("a")]), ".lines[0]", "annotate Express"),
        ([NIGHT.replace(tzinfo=Odd())], "[0]", "use zoneinfo.ZoneInfo"),
        ({"a": {"orchestra:type": "x"}}, "['a']", "another name"),
        ({1: "a", "1": "b"}, "", "the same text"),
        (nested(200), "", "deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_reader_could_have_back_is_refused_without_an_annotation_as_well(
    value, place, phrase
):
    with pytest.raises(EncodeError, match=phrase) as caught:
        encode(value, subject="it")
    assert caught.value.field.startswith(place)


# --- at the call ---


async def careful(ctx, state: Ordered) -> str:
    try:
        ctx.continue_as_new(Paid("o"))
    except EncodeError as error:
        await ctx.wait_for_event("go")
        return str(error)


def test_a_state_that_is_not_what_is_annotated_is_refused_where_it_is_given_and_the_code_goes_on():
    drive = Drive(careful, Ordered("o"))
    drive.send("go")
    assert drive.output.startswith(
        "state of orchestration 'subject' cannot be stored: it is a Paid where Ordered is annotated"
    )


def test_a_state_for_a_version_that_is_not_known_here_is_written_by_its_own_type():
    async def up(ctx, state: Ordered):
        ctx.continue_as_new(Paid("o"), version="2.0.0")

    state = Drive(up, Ordered("o")).ending.state
    assert decoder(Ordered | Paid).decode(state, subject="it") == Paid("o")


def test_an_execution_that_an_older_library_began_goes_on_with_values_as_they_were():
    @activity(name="take")
    def take_anything(numbers):
        pass

    @activity
    def take(numbers: list[list[int]]):
        pass

    async def before(ctx, state):
        await ctx.schedule_activity(take_anything, [(1, 2)])

    async def now(ctx, state):
        await ctx.schedule_activity(take, [(1, 2)])

    history = Drive(before).history
    started = from_record(history[0])
    assert isinstance(started, ExecutionStarted)
    assert started.is_exact
    assert unpack(history[0].envelope)["exact"] is True
    older = to_record(replace(started, is_exact=False))
    assert "exact" not in unpack(older.envelope)

    assert [event.name for event in replay(now, [older, *history[1:]]).pending] == ["take"]
    refused = Drive(now)
    assert "write list(value), or annotate tuple" in refused.ending.error.message


@pytest.mark.parametrize("annotation", [list[int], list, Sequence[int]])
def test_what_gather_returns_may_be_handed_on_where_a_list_is_taken(annotation):
    def add(numbers):
        return sum(numbers)

    add.__annotations__["numbers"] = annotation

    async def fan(ctx, state) -> list[int]:
        numbers = await ctx.gather(ctx.wait_for_event("a", int), ctx.wait_for_event("b", int))
        await ctx.schedule_activity(activity(add), numbers)
        await ctx.schedule_activity(activity(add), numbers=numbers)
        return numbers

    drive = Drive(fan)
    drive.send("a", 1)
    drive.send("b", 2)
    drive.done("add", 3)
    drive.done("add", 3)
    assert drive.output == [1, 2]
