"""Forms are made from JSON Schema, and their values are read back."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

import pytest

from orchestra import InvalidArgument
from orchestra.codec import decoder
from orchestra.web.dashboard.awaited import awaited_by
from orchestra.web.dashboard.fields import fields_of, value_of


class Tier(Enum):
    FREE = "free"
    PRO = "pro"


@dataclass
class Address:
    street: str


@dataclass
class Order:
    customer: str
    total: float
    count: int
    address: Address
    tier: Tier = Tier.FREE
    express: bool = False
    note: str | None = None
    due: datetime | None = None
    tags: list[str] = field(default_factory=list)


FIELDS = fields_of(decoder(Order).json_schema())
FILLED = {
    "field.customer": "Ada",
    "field.total": "12.5",
    "field.count": "3",
    "field.address": '{"street": "x"}',
}


def test_each_kind_of_field_has_its_input():
    kinds = {one.name: (one.kind, one.required) for one in FIELDS}
    assert kinds == {
        "customer": ("text", True),
        "total": ("number", True),
        "count": ("integer", True),
        "address": ("json", True),
        "tier": ("choice", False),
        "express": ("flag", False),
        "note": ("text", False),
        "due": ("moment", False),
        "tags": ("json", False),
    }
    tier = next(one for one in FIELDS if one.name == "tier")
    assert (tier.choices, tier.default) == (('"free"', '"pro"'), '"free"')


def test_what_is_left_empty_is_left_out():
    value = value_of(FILLED, FIELDS)
    assert value == {
        "customer": "Ada",
        "total": 12.5,
        "count": 3,
        "address": {"street": "x"},
        "express": False,
    }


def test_what_is_filled_in_has_its_type():
    more = {
        "field.tier": '"pro"',
        "field.express": "true",
        "field.note": "7",
        "field.tags": '["a"]',
    }
    value = value_of({**FILLED, **more}, FIELDS)
    assert (value["tier"], value["express"], value["note"], value["tags"]) == (
        "pro",
        True,
        "7",
        ["a"],
    )


def test_a_whole_value_counts_instead():
    assert value_of({**FILLED, "payload": "[1, null]"}, FIELDS) == [1, None]
    assert value_of({"payload": " "}, None) is None


def test_a_value_that_is_no_object_has_one_input():
    fields = fields_of(decoder(int).json_schema())
    assert [(one.name, one.kind) for one in fields] == [("value", "integer")]
    assert value_of({"field.value": "7"}, fields) == 7


@pytest.mark.parametrize("annotation", [Any, list[int], dict[str, int], int | str])
def test_what_has_no_inputs_is_written_as_json(annotation):
    assert fields_of(decoder(annotation).json_schema()) is None


@pytest.mark.parametrize(
    "schema", [None, True, {}, {"type": "object"}, {"$ref": "#/nowhere"}, {"$ref": "#"}]
)
def test_a_schema_that_says_nothing_is_written_as_json(schema):
    assert fields_of(schema) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [("total", "much"), ("count", "true"), ("count", ""), ("address", "{"), ("total", "NaN")],
)
def test_an_input_of_another_type_is_refused(name, words):
    with pytest.raises(InvalidArgument):
        value_of({**FILLED, f"field.{name}": words}, FIELDS)


async def waits(ctx, name: str) -> None:
    class Inner:
        pass

    await ctx.race(ctx.wait_for_event("paid", Tier), ctx.wait_for_event(name="moved", type=Address))
    await ctx.wait_for_request("add", dict[str, int], returns=int)
    await ctx.wait_for_event("note", str | None)
    await ctx.wait_for_event("anything")
    await ctx.wait_for_event(name, int)
    await ctx.wait_for_event("inner", Inner)
    await ctx.wait_for_event("computed", type(ctx))


def test_what_code_waits_for_is_read_from_its_source():
    found = awaited_by(waits)
    assert list(found) == [
        ("event", "paid"), ("event", "moved"), ("request", "add"), ("event", "note"),
        ("event", "anything"), ("event", "inner"), ("event", "computed"),
    ]  # fmt: skip
    inputs = {name: fields_of(schema) for (_, name), schema in found.items()}
    assert inputs["paid"][0].choices == ('"free"', '"pro"')
    assert [one.name for one in inputs["moved"]] == ["street"]
    assert inputs["note"][0].kind == "text"
    assert inputs["add"] is inputs["anything"] is inputs["inner"] is inputs["computed"] is None
    assert awaited_by(print) == {}
