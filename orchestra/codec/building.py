"""Build the :class:`~orchestra.codec.shapes.Shape` of an annotation from pydantic's core schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from orchestra.codec.containers import (
    MAPPINGS,
    SEQUENCES,
    mapping_shape,
    sequence_shape,
    tuple_shape,
)
from orchestra.codec.keys import key_of
from orchestra.codec.leaves import LEAVES, any_shape, enum_shape, leaf_shape, literal_shape
from orchestra.codec.records import (
    dataclass_shape,
    model_shape,
    named_tuple_shape,
    typed_dict_shape,
)
from orchestra.codec.secrets import SECRET, Secret, is_secret_node
from orchestra.codec.shapes import Node, Shape, Unfit, custom, is_of_pydantic, name_of
from orchestra.codec.unions import choices_of, union_shape
from orchestra.codec.wire import TYPE, VALUE, Refused, unwrapped_secret

__all__ = ["Builder"]

_COMMON: Final = frozenset({"type", "ref", "metadata", "strict", "serialization"})
_STRUCTURE: Final = frozenset(
    {
        "items_schema",
        "keys_schema",
        "values_schema",
        "variadic_item_index",
        "schema",
        "cls",
        "microseconds_precision",
    }
)

_UNREADABLE: Final = {
    "generator": "it can be read only once; annotate list[...]",
    "callable": "a function has no JSON form; pass its name",
    "is-subclass": "a class has no JSON form; pass its name",
    "is-instance": "an object of this class has no JSON form; make it a dataclass",
}

_INNER: Final = {
    "function-after": "schema",
    "function-before": "schema",
    "function-wrap": "schema",
    "custom-error": "schema",
    "json-or-python": "json_schema",
    "lax-or-strict": "strict_schema",
}
"""The keys under which function nodes hold the node of the type itself."""


class Builder:
    """Makes the shapes of one core schema, and notes their needs.

    Args:
        write_any: writes parts that are annotated ``Any``.
    """

    def __init__(self, schema: Any, write_any: Callable[[Any], Any]) -> None:
        self._write_any = write_any
        self._definitions: dict[str, Any] = {}
        self._made: dict[str, Shape] = {}
        while schema["type"] == "definitions":
            self._definitions.update(
                {definition["ref"]: definition for definition in schema["definitions"]}
            )
            schema = schema["schema"]
        self._schema = schema
        self.native: bool = True
        """Whether pydantic can read all written values that name no type and no zone."""
        self.verify: bool = False
        """Whether each written value must be read back as a check."""
        self.is_zoned: bool = False
        """Whether it contains datetimes."""

    def build(self) -> Shape:
        """Return the shape of the whole.

        Raises:
            Unfit: values could not come back as what they are.
        """
        return self.shape(self._schema)

    def node(self, schema: Any) -> Node:
        """Return a node as pydantic reads and writes it."""
        return Node(schema, self._definitions)

    def resolved(self, schema: Any) -> Any:
        """Return the node of a reference."""
        while schema["type"] == "definition-ref":
            schema = self._definitions[schema["schema_ref"]]
        return schema

    def note_constraints(self, schema: Mapping[str, Any], *more: str) -> bool:
        """Note whether a node demands more than its type. Return whether it does not."""
        known = _COMMON | _STRUCTURE | set(more)
        plain = all(
            key in known or value is None or value is False for key, value in schema.items()
        )
        if not plain:
            self.verify = True
        return plain

    def shape(self, schema: Any) -> Shape:
        """Return the shape of a node.

        Raises:
            Unfit: its values could not come back as what they are.
        """
        schema = self.resolved(schema)
        reference: str | None = schema.get("ref")
        if reference is None:
            return self._shape(schema)
        found = self._made.get(reference)
        if found is not None:
            return found
        # It may contain itself: references to it get a shape that is filled afterwards.
        shape = self._made[reference] = Shape(_unfinished, _unfinished, _classes(schema))
        made = self._shape(schema)
        shape.write, shape.read, shape.types, shape.typed = (
            made.write,
            made.read,
            made.types,
            made.typed,
        )
        return shape

    def _shape(self, schema: Any) -> Shape:
        kind: str = schema["type"]
        if kind in _UNREADABLE:
            cls = schema.get("cls")
            raise Unfit(
                _UNREADABLE[kind] + (f" ({cls.__qualname__})" if isinstance(cls, type) else "")
            )
        if is_secret_node(schema):
            return self._secret(schema)
        if self._has_serializer(schema):
            self.verify = True
            return custom(self.node(schema), self._inner(schema))
        match kind:
            case "any":
                return any_shape(self._write_any)
            case _ if kind in LEAVES:
                self.note_constraints(schema)
                self.is_zoned |= kind == "datetime"
                return leaf_shape(kind, self.node(schema))
            case "enum" | "literal":
                shape, native = (
                    enum_shape(schema, self.node(schema))
                    if kind == "enum"
                    else literal_shape(schema)
                )
                self.native &= native
                return shape
            case "nullable":
                return self._nullable(schema)
            case "default":
                if schema.get("on_error") in {"default", "omit"}:
                    self.verify = True
                return self.shape(schema["schema"])
            case "list" | "set" | "frozenset" | "deque":
                return self._sequence(kind, schema)
            case "tuple":
                items = [
                    self._part(item, f"[{index}]")
                    for index, item in enumerate(schema["items_schema"])
                ]
                plain = self.note_constraints(schema)
                return tuple_shape(
                    self.node(schema), items, schema.get("variadic_item_index"), plain=plain
                )
            case _ if kind in MAPPINGS:
                return self._mapping(kind, schema)
            case "union":
                return union_shape(self, schema, choices_of(schema))
            case "tagged-union":
                return union_shape(self, schema, list(schema["choices"].values()))
            case _:
                return self._record(kind, schema)

    def _record(self, kind: str, schema: Any) -> Shape:
        match kind:
            case "dataclass":
                return dataclass_shape(self, schema)
            case "model":
                return model_shape(self, schema)
            case "typed-dict":
                return typed_dict_shape(self, schema)
            case "named-tuple":
                return named_tuple_shape(self, schema["cls"], schema, schema["fields"])
            case "call" if hasattr(schema["function"], "_fields"):
                arguments = schema["arguments_schema"].get("arguments_schema", [])
                return named_tuple_shape(self, schema["function"], schema, arguments)
            case _:
                return self._other(kind, schema)

    def _other(self, kind: str, schema: Any) -> Shape:
        self.verify = True
        if kind in {"function-before", "function-wrap", "function-plain"}:
            self.native &= is_of_pydantic(schema["function"]["function"])
        return custom(self.node(schema), self._inner(schema))

    def _secret(self, schema: Any) -> Shape:
        self.native = False  # it names its type
        inner = self.shape(schema["schema"])

        def write(value: Any) -> Any:
            if not isinstance(value, Secret):
                raise Refused(f"it is a {name_of(value)} where Secret is annotated; wrap it")
            return {TYPE: SECRET, VALUE: inner.write(cast("Secret[Any]", value).reveal())}

        def read(written: Any) -> Any:
            return Secret(inner.read(unwrapped_secret(written)))

        return Shape(write, read, frozenset({Secret}))

    def _has_serializer(self, schema: Any) -> bool:
        serialization: Any = schema.get("serialization")
        return bool(
            serialization
            and "function" in serialization
            and not is_of_pydantic(serialization["function"])
        )

    def _inner(self, schema: Any) -> Shape | None:
        """Return the shape of the type to which a node adds something; ``None`` if only pydantic
        knows it.
        """
        inner: Any = schema.get(_INNER.get(schema["type"], ""))
        if schema["type"] == "chain":
            inner = schema["steps"][0]
        if inner is None:
            return None
        if inner["type"] in _UNREADABLE and schema["type"] in {"function-before", "function-wrap"}:
            return None  # the function makes the object
        return self.shape(inner)

    def _part(self, schema: Any, step: str) -> Shape:
        try:
            return self.shape(schema)
        except Unfit as unfit:
            unfit.steps.append(step)
            raise

    def _nullable(self, schema: Any) -> Shape:
        inner = self.shape(schema["schema"])
        types = inner.types
        resolved = self.resolved(schema["schema"])
        if resolved["type"] in {"enum", "literal"} and any(
            getattr(member, "value", member) is None
            for member in resolved.get("members") or resolved.get("expected")
        ):
            self.verify = True

        def write(value: Any) -> Any:
            return None if value is None else inner.write(value)

        def read(written: Any) -> Any:
            return None if written is None else inner.read(written)

        def typed(written: Any) -> Any:
            return None if written is None else inner.part()(written)

        return Shape(write, read, None if types is None else types | {type(None)}, typed)

    def _sequence(self, kind: str, schema: Any) -> Shape:
        item = self._part(schema.get("items_schema") or {"type": "any"}, "[]")
        plain = self.note_constraints(schema)
        if kind == "deque":
            self.verify = True
        return (
            sequence_shape(kind, self.node(schema), item, plain=plain)
            if kind in SEQUENCES
            else custom(self.node(schema))
        )

    def _mapping(self, kind: str, schema: Any) -> Shape:
        try:
            key = key_of(self, schema.get("keys_schema") or {"type": "any"})
        except Unfit as unfit:
            unfit.steps.append("[key]")
            raise
        item = self._part(
            schema.get("values_schema") or {"type": "int" if kind == "counter" else "any"}, "[]"
        )
        plain = self.note_constraints(schema)
        return mapping_shape(kind, self.node(schema), key, item, plain=plain)


def _unfinished(_: Any) -> Any:
    raise AssertionError("a shape is used before it is made")


def _classes(schema: Any) -> frozenset[type] | None:
    cls = schema.get("cls")
    if schema["type"] in {"dataclass", "model", "enum", "named-tuple"} and isinstance(cls, type):
        return frozenset({cls})
    return frozenset({dict}) if schema["type"] == "typed-dict" else None
