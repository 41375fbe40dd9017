"""The keys of mappings: JSON has text keys only."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

import orjson

from orchestra.codec.containers import Key
from orchestra.codec.leaves import LEAVES, leaf_shape, literal_shape
from orchestra.codec.sameness import difference
from orchestra.codec.shapes import READING_ERRORS, Shape, ShapeBuilder, Unfit, mismatch
from orchestra.codec.unions import choices_of
from orchestra.codec.wire import Misfit, Refused, number_text

__all__ = ["key_of"]

_TEXTS: Final = frozenset({"date", "datetime", "decimal", "time", "timedelta", "uuid"})
"""Leaves whose JSON is a text."""

_NEVER: Final = frozenset(
    {
        "none",
        "nullable",
        "list",
        "tuple",
        "set",
        "frozenset",
        "dict",
        "dataclass",
        "model",
        "named-tuple",
        "call",
        "bytes",
        "complex",
    }
)
_REMEDY: Final = "write dict[str, ...], or a list of pairs: list[tuple[...]]"


def key_of(builder: ShapeBuilder, schema: Any) -> Key:
    """Return the conversion of a mapping's keys.

    Raises:
        Unfit: two keys could have the same text.
    """
    schema = builder.resolved(schema)
    kind: str = schema["type"]
    if kind in _NEVER:
        raise Unfit(
            f"a mapping whose keys are {_shown(schema)} has no JSON form, for keys are texts "
            f"there; {_REMEDY}"
        )
    if kind == "any":
        return Key(_write_untyped, lambda text: text, frozenset({str}))
    if kind == "str":
        builder.note_constraints(schema)
        node = builder.node(schema)
        return Key(leaf_shape("str", node).write, node.read_json, frozenset({str}))
    if kind in {"int", "float", "bool"}:
        builder.note_constraints(schema)
        return _number(builder, schema, kind)
    if kind in _TEXTS:
        shape = builder.shape(schema)
        return Key(shape.write, shape.read, shape.types)
    if kind in {"enum", "literal"}:
        return _named(builder, schema, kind)
    if kind == "union":
        return _union(builder, choices_of(schema))
    return _unknown(builder.shape(schema), builder)


def _shown(schema: Any) -> str:
    cls = schema.get("cls")
    return cls.__qualname__ if isinstance(cls, type) else f"of kind {schema['type']!r}"


def _write_untyped(value: Any) -> str:
    if type(value) is str:
        return value
    name = type(value).__qualname__
    raise Refused(
        f"its key is of type {name} and would come back as text; annotate dict[{name}, ...], or "
        "write str(key)"
    )


def _number(builder: ShapeBuilder, schema: Any, kind: str) -> Key:
    cls, node = LEAVES[kind], builder.node(schema)
    if kind != "int":
        builder.native = False

    def write(value: Any) -> str:
        if type(value) is not cls:
            raise mismatch(value, cls)
        return {True: "true", False: "false"}[value] if cls is bool else number_text(value)

    def read(text: str) -> Any:
        try:
            return node.read_json(orjson.loads(text))
        except orjson.JSONDecodeError:
            return node.validator.validate_json(
                orjson.dumps(text), strict=False
            )  # as older libraries have read it

    return Key(write, read, frozenset({cls}))


def _named(builder: ShapeBuilder, schema: Any, kind: str) -> Key:
    values: list[Any] = schema["members"] if kind == "enum" else schema["expected"]
    known: dict[str, Any] = {}
    texts: list[tuple[Any, str]] = []
    for value in values:
        written: Any = value.value if isinstance(value, enum.Enum) else value
        if type(written) not in {str, int, bool}:
            raise Unfit(
                f"{value!r} cannot be the key of a mapping, for its value is no text; {_REMEDY}"
            )
        text: str = written if isinstance(written, str) else orjson.dumps(written).decode()
        if text in known:
            raise Unfit(
                f"{known[text]!r} and {value!r} are the same text as keys of a mapping, {text!r}; "
                f"{_REMEDY}"
            )
        known[text] = value
        texts.append((value, text))
    if any(
        type(value.value if isinstance(value, enum.Enum) else value) is not str for value in values
    ):
        builder.native = False
    if kind == "enum":
        node = builder.node(schema)
        by_member = dict(texts)
        cls: type = schema["cls"]

        def write_member(value: Any) -> str:
            if type(value) is not cls:
                raise mismatch(value, cls)
            try:
                return by_member[value]
            except KeyError:
                raise Refused(
                    f"{value!r} is no single member of {cls.__qualname__}, and cannot be a key; "
                    f"{_REMEDY}"
                ) from None

        def read_member(text: str) -> Any:
            return known[text] if text in known else node.read_json(text)

        return Key(write_member, read_member, frozenset({cls}))
    shape = literal_shape(schema)[0]

    def write(value: Any) -> str:
        shape.write(value)
        return next(
            text
            for candidate, text in texts
            if type(candidate) is type(value) and candidate == value
        )

    def read(text: str) -> Any:
        if text not in known:
            raise Misfit(f"the key {text!r} is none of {', '.join(map(repr, known.values()))}")
        return known[text]

    return Key(write, read, shape.types)


def _union(builder: ShapeBuilder, choices: list[Any]) -> Key:
    kinds = [builder.resolved(choice)["type"] for choice in choices]
    names = " | ".join(kinds)
    if "str" in kinds or ("int" in kinds and "float" in kinds):
        raise Unfit(
            f"keys of a mapping are texts in JSON, where {names} cannot be told apart; {_REMEDY}"
        )
    keys = [key_of(builder, choice) for choice in choices]
    builder.native = False

    def write(value: Any) -> str:
        fitting = [key for key in keys if key.types is None or type(value) in key.types]
        if not fitting:
            raise Refused(
                f"its key is of type {type(value).__qualname__}, which is none of {names}"
            )
        refusals: list[Refused] = []
        for key in fitting:
            try:
                text = key.write(value)
            except Refused as refused:
                refusals.append(refused)
                continue
            if difference(value, read(text)) is None:
                return text
        raise (
            refusals[0]
            if refusals
            else Refused(
                f"the key {value!r} would be read as something else among {names}; {_REMEDY}"
            )
        )

    def read(text: str) -> Any:
        return first_that_fits(text, [key.read for key in keys])

    return Key(write, read, None)


def first_that_fits(written: Any, readers: list[Callable[[Any], Any]]) -> Any:
    """Return the result of the first reader that accepts a written value."""
    misfit: Misfit | None = None
    for read in readers:
        try:
            return read(written)
        except READING_ERRORS as error:
            misfit = misfit or Misfit.of(error)
    raise misfit or Misfit("nothing fits")


def _unknown(shape: Shape, builder: ShapeBuilder) -> Key:
    builder.verify = True

    def write(value: Any) -> str:
        text = shape.write(value)
        if not isinstance(text, str):
            raise Refused(f"the key {value!r} is no text in JSON; {_REMEDY}")
        return text

    return Key(write, shape.read, shape.types)
