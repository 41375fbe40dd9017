"""Shapes: write the values of an annotation exactly, and read them where pydantic alone would lose
something.

A :class:`Shape` is built from a node of pydantic's core schema. Its ``write`` refuses values that
would come back as others. Its ``read`` reads all values that ``write`` or older libraries have
written.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import orjson
import pydantic
import pydantic_core

from orchestra.codec.wire import Misfit, Refused, is_secret, unwrapped

__all__ = [
    "READING_ERRORS",
    "Node",
    "Shape",
    "ShapeBuilder",
    "Unfit",
    "custom",
    "in_order",
    "is_of_pydantic",
    "mismatch",
    "name_of",
]

READING_ERRORS: Final = (Exception,)
"""Validators and ``__post_init__`` are user code; they may raise anything."""


@dataclass(slots=True, eq=False)
class Shape:
    """The writer and the reader of one kind of value.

    ``types`` are the exact classes that it can write; ``None``: unknown. ``typed`` reads like
    ``read``, without users' functions that the enclosing object will call. ``is_plain``: values of
    these types are JSON already, so ``write`` is not needed.
    """

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    types: frozenset[type] | None = None
    typed: Callable[[Any], Any] | None = None
    is_plain: bool = False

    def part(self) -> Callable[[Any], Any]:
        """Return its reader for a part of an object."""
        return self.typed or self.read


class Unfit(Exception):
    """An annotation has values that could not come back. ``steps`` lead to the part, innermost
    first.
    """

    def __init__(self, reason: str, *steps: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = list(steps)

    def __str__(self) -> str:
        path = "".join(reversed(self.steps))
        return f"at {path}: {self.reason}" if path else self.reason


class Node:
    """A node of a core schema, as pydantic reads and writes it."""

    __slots__ = ("_definitions", "_schema", "_serializer", "_validator")

    def __init__(self, schema: Any, definitions: Mapping[str, Any]) -> None:
        self._schema = schema
        self._definitions = definitions
        self._validator: pydantic_core.SchemaValidator | None = None
        self._serializer: pydantic_core.SchemaSerializer | None = None

    def _whole(self) -> Any:
        schema = self._schema
        if not self._definitions:
            return schema
        if schema.get("ref") in self._definitions:
            schema = {"type": "definition-ref", "schema_ref": schema["ref"]}
        return {
            "type": "definitions",
            "schema": schema,
            "definitions": list(self._definitions.values()),
        }

    @property
    def validator(self) -> pydantic_core.SchemaValidator:
        """Its reader."""
        if self._validator is None:
            self._validator = pydantic_core.SchemaValidator(self._whole())
        return self._validator

    def read_json(self, written: Any) -> Any:
        """Return a value of JSON, strictly."""
        return self.validator.validate_json(orjson.dumps(unwrapped(written)), strict=True)

    def read_parts(self, parts: Any) -> Any:
        """Return a value made of parts that are read already."""
        return self.validator.validate_python(parts, strict=False)

    def write(self, value: Any) -> Any:
        """Return what pydantic writes for a value."""
        if self._serializer is None:
            self._serializer = pydantic_core.SchemaSerializer(self._whole())
        return self._serializer.to_python(
            value, mode="json", by_alias=True, round_trip=True, warnings="error"
        )


class ShapeBuilder(Protocol):
    """What a shape needs of its builder: the shapes of its parts, and a place to note their
    needs.
    """

    native: bool
    """Whether pydantic can read all written values that name no type and no zone."""
    verify: bool
    """Whether each written value must be read back as a check."""

    def node(self, schema: Any) -> Node:
        """Return a node as pydantic reads and writes it."""
        ...

    def resolved(self, schema: Any) -> Any:
        """Return the node of a reference."""
        ...

    def note_constraints(self, schema: Mapping[str, Any], *more: str) -> bool:
        """Note whether a node demands more than its type. Return whether it does not."""
        ...

    def shape(self, schema: Any) -> Shape:
        """Return the shape of a node.

        Raises:
            Unfit: its values could not come back as what they are.
        """
        ...


def name_of(value: Any) -> str:
    """Return the name of a value's class."""
    return type(value).__qualname__


def mismatch(value: Any, expected: type) -> Refused:
    """Return why a value does not fit another annotated type, and what to do."""
    found = name_of(value)
    wanted = "None" if expected is type(None) else expected.__qualname__
    if is_secret(value):
        return secret(value)
    if isinstance(value, Iterator):
        return Refused(f"it is a {found}, which can be read only once; give list(value)")
    if isinstance(value, enum.Enum) and not issubclass(expected, enum.Enum):
        return Refused(
            f"it is {value!r} where {wanted} is annotated, and would lose its type; annotate "
            f"{found}, or give its value"
        )
    if isinstance(value, expected):
        how = f"it is a {found}, a subclass of {wanted}, and would come back as a mere {wanted}"
        if expected in (str, int, float, bytes, list, dict, tuple, set, frozenset):
            return Refused(f"{how}; write {wanted}(value), or annotate {found}")
        return Refused(f"{how}; annotate {found}, or {wanted} | {found}")
    if expected in (list, tuple, set, frozenset) and isinstance(value, (list, tuple, AbstractSet)):
        return Refused(
            f"it is a {found} and would come back as a {wanted}; write {wanted}(value), or "
            f"annotate {found}"
        )
    given = "it is None" if value is None else f"it is a {found}"
    return Refused(f"{given} where {wanted} is annotated; annotate what it is, or convert it")


def secret(value: Any) -> Refused:
    """Return why a secret is not written."""
    return Refused(
        f"it is a {name_of(value)}, of which only a mask would be stored; keep secrets out of "
        "the store and look them up where they are needed, or store value.get_secret_value() "
        "knowingly"
    )


def is_of_pydantic(function: Any) -> bool:
    """Return whether a function in a core schema is pydantic's own."""
    while isinstance(function, functools.partial):
        function = cast("Any", function).func
    return str(getattr(function, "__module__", "")).partition(".")[0] in {
        "pydantic",
        "pydantic_core",
    }


def custom(node: Node, inner: Shape | None = None) -> Shape:
    """Return the shape of a type that only pydantic and the user's functions know. Each written
    value must be read back as a check.
    """

    types: Iterable[type] = (inner.types if inner is not None else None) or ()
    records = tuple(
        cls for cls in types if dataclasses.is_dataclass(cls) or issubclass(cls, pydantic.BaseModel)
    )

    def write(value: Any) -> Any:
        if is_secret(value):
            raise secret(value)
        if isinstance(value, Iterator):
            raise Refused(
                f"it is a {name_of(value)}, which can be read only once; give list(value)"
            )
        first: Refused | None = None
        if inner is not None:
            try:
                return inner.write(value)
            except Refused as refused:
                if isinstance(value, records):
                    raise  # pydantic would write it with a part left out
                first = refused
        try:
            return in_order(value, node.write(value))
        except Refused:
            raise
        except Exception as error:
            if first is not None:
                raise first from error
            message = (
                str(error).strip().splitlines()[-1].strip() if str(error).strip() else repr(error)
            )
            raise Refused(
                f"a {name_of(value)} cannot be written as what is annotated: {message}"
            ) from error

    def read(written: Any) -> Any:
        if inner is not None:
            try:
                return node.read_parts(inner.part()(written))
            except READING_ERRORS:
                pass
        try:
            return node.read_json(written)
        except READING_ERRORS as error:
            # Functions before the types' own checks pass on values, for which strict reading
            # accepts no text.
            try:
                return node.validator.validate_json(orjson.dumps(written), strict=False)
            except READING_ERRORS:
                raise Misfit.of(error) from error

    return Shape(write, read, None, None if inner is None else _first_of(inner.part(), read))


def _first_of(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(written: Any) -> Any:
        try:
            return first(written)
        except READING_ERRORS:
            return second(written)

    return read


# --- what pydantic writes, in an order that is the same in each process ------------------------


def in_order(value: object, dumped: Any) -> Any:
    """Return what pydantic wrote for a value, with the members of sets in an order that is the same
    in each process (I10).
    """
    if isinstance(value, pydantic.RootModel):
        return in_order(cast("pydantic.RootModel[object]", value).root, dumped)
    if isinstance(dumped, dict):
        written = cast("dict[str, Any]", dumped)
        parts = _parts(value, written)
        return {key: in_order(parts.get(key), item) for key, item in written.items()}
    if isinstance(dumped, list) and isinstance(value, (AbstractSet, list, tuple)):
        parts = list(cast("Iterable[object]", value))
        members = cast("list[Any]", dumped)
        if len(parts) == len(members):  # otherwise a user's serializer wrote something else
            members = [in_order(part, member) for part, member in zip(parts, members, strict=True)]
        return sorted(members, key=orjson.dumps) if isinstance(value, AbstractSet) else members
    return cast("Any", dumped)


def _parts(value: object, written: Mapping[str, Any]) -> dict[str, object]:
    """Return the parts of a value by the keys under which pydantic wrote them."""
    if isinstance(value, pydantic.BaseModel):
        fields = type(value).model_fields.items()
        return {
            field.serialization_alias or name: getattr(value, name) for name, field in fields
        } | (value.model_extra or {})
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping) and len(cast("Mapping[object, object]", value)) == len(written):
        return dict(zip(written, cast("Mapping[object, object]", value).values(), strict=True))
    return {}
