"""Shapes of objects with fields: dataclasses, pydantic models, TypedDicts and named tuples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from orchestra.codec.leaves import write_json
from orchestra.codec.shapes import (
    READING_ERRORS,
    Shape,
    ShapeBuilder,
    Unfit,
    custom,
    is_of_pydantic,
    mismatch,
)
from orchestra.codec.wire import TYPE, VALUE, Misfit, Refused

__all__ = ["dataclass_shape", "model_shape", "named_tuple_shape", "typed_dict_shape"]

_FUNCTIONS = frozenset({"function-before", "function-wrap", "function-after", "function-plain"})


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    key: str
    shape: Shape
    is_late: bool = False
    """Whether ``__init__`` lacks it, so that it is set afterwards."""


def _key(field: Any, name: str) -> str:
    """Return the names under which a field can be read."""
    alias: Any = field.get("validation_alias")
    if alias is None or isinstance(alias, str):
        return alias or name
    paths: list[Any] = alias
    for path in paths:
        if isinstance(path, str):
            if len(paths) == 1:
                return path
        elif isinstance(path, list) and len(cast("list[Any]", path)) == 1:
            return str(cast("list[Any]", path)[0])
    return name


def _core(schema: Any, wanted: str) -> tuple[Any, set[str]]:
    """Return the node with the fields of an object, and the kinds of users' functions around it."""
    functions: set[str] = set()
    while schema["type"] != wanted:
        if schema["type"] in _FUNCTIONS and not is_of_pydantic(schema["function"]["function"]):
            functions.add(schema["type"])
        if "schema" not in schema:
            return None, functions
        schema = schema["schema"]
    return schema, functions


def _write_fields(fields: list[_Field], value: Any, written: dict[str, Any]) -> dict[str, Any]:
    for field in fields:
        try:
            written[field.key] = field.shape.write(getattr(value, field.name))
        except Refused as refused:
            refused.steps.append(f".{field.name}")
            raise
        except AttributeError as error:
            raise Refused(f"it has no value: {error}", f".{field.name}") from error
    return written


def _read_fields(
    by_key: dict[str, _Field],
    written: dict[str, Any],
    *,
    lenient: bool,
    extra: Callable[[Any], Any] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parts of an object, and those that are set afterwards."""
    parts: dict[str, Any] = {}
    late: dict[str, Any] = {}
    for key, item in written.items():
        field = by_key.get(key)
        if key == TYPE:
            continue
        if field is None:
            parts[key] = item if extra is None else extra(item)
            continue
        try:
            if field.is_late:
                late[field.name] = field.shape.read(item)
            else:
                parts[key] = field.shape.part()(item)
        except READING_ERRORS as error:
            if not lenient:
                raise Misfit.of(error, f".{field.name}") from error
            parts[key] = item  # a function of the user may accept it
    return parts, late


def _by_key(fields: list[_Field]) -> dict[str, _Field]:
    return {field.name: field for field in fields} | {field.key: field for field in fields}


def dataclass_shape(builder: ShapeBuilder, schema: Any) -> Shape:
    """Return the shape of a dataclass."""
    cls: Any = schema["cls"]
    core, functions = _core(schema["schema"], "dataclass-args")
    node = builder.node(schema)
    if core is None:
        builder.verify = True
        return custom(node)
    fields: list[_Field] = []
    for field in core["fields"]:
        name = field["name"]
        if field.get("init_only"):
            if builder.resolved(field["schema"])["type"] != "default":
                raise Unfit(
                    (
                        f"{name!r} of {cls.__qualname__} is an InitVar, which is not kept; make "
                        "it a field"
                    ),
                    f".{name}",
                )
            builder.verify = True
            continue
        is_late = field.get("init") is False
        if is_late:
            builder.native = False
        try:
            fields.append(_Field(name, _key(field, name), builder.shape(field["schema"]), is_late))
        except Unfit as unfit:
            unfit.steps.append(f".{name}")
            raise
    known = {field.name for field in fields}
    if any(field.name not in known for field in dataclasses.fields(cls)):
        builder.verify = True
    _note_functions(builder, functions)
    by_key = _by_key(fields)
    lenient = bool(functions - {"function-after"})

    def write(value: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, cls)
        return _write_fields(fields, value, {})

    def read(written: Any) -> Any:
        if type(written) is not dict or VALUE in written:
            return node.read_json(written)
        parts, late = _read_fields(by_key, cast("dict[str, Any]", written), lenient=lenient)
        value = node.read_parts(parts)
        for name, item in late.items():
            object.__setattr__(value, name, item)  # also where it is frozen
        return value

    return Shape(write, read, frozenset({cls}))


def _note_functions(builder: ShapeBuilder, functions: set[str]) -> None:
    if functions:
        builder.verify = True
    if functions - {"function-after"}:
        # After them pydantic's strict reading accepts no text for a datetime, a Decimal, bytes or a
        # tuple.
        builder.native = False


def model_shape(builder: ShapeBuilder, schema: Any) -> Shape:
    """Return the shape of a pydantic model."""
    cls: Any = schema["cls"]
    node = builder.node(schema)
    if schema.get("root_model"):
        return _root_model_shape(builder, schema)
    core, functions = _core(schema["schema"], "model-fields")
    config: Any = schema.get("config") or {}
    if (
        core is None
        or _has_serializers(cls)
        or any(config.get(key) for key in ("ser_json_bytes", "val_json_bytes"))
    ):
        builder.verify = True
        return custom(node)
    fields: list[_Field] = []
    left_out = False
    for name, field in core["fields"].items():
        if field.get("serialization_exclude") or field.get("serialization_exclude_if"):
            left_out = True
            continue
        try:
            fields.append(_Field(name, _key(field, name), builder.shape(field["schema"])))
        except Unfit as unfit:
            unfit.steps.append(f".{name}")
            raise
    _note_functions(builder, functions)
    if (
        left_out
        or cls.__private_attributes__
        or schema.get("custom_init")
        or config.get("str_strip_whitespace")
    ):
        builder.verify = True
    if any(
        config.get(key)
        for key in (
            "str_to_lower",
            "str_to_upper",
            "str_max_length",
            "str_min_length",
            "use_enum_values",
        )
    ):
        builder.verify = True
    extra: Shape | None = None
    if (core.get("extra_behavior") or config.get("extra_fields_behavior")) == "allow":
        extra = (
            builder.shape(core["extras_schema"])
            if core.get("extras_schema")
            else builder.shape({"type": "any"})
        )
    by_key = _by_key(fields)
    # Functions before pydantic's own checks may convert anything to anything.
    lenient = bool(functions - {"function-after"})

    def write(value: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, cls)
        written = _write_fields(fields, value, {})
        if extra is not None:
            more: dict[str, Any] = value.__pydantic_extra__ or {}
            for name, item in more.items():
                try:
                    written[name] = extra.write(item)
                except Refused as refused:
                    refused.steps.append(f".{name}")
                    raise
        return written

    def read(written: Any) -> Any:
        if type(written) is not dict or VALUE in written:
            return node.read_json(written)
        content = cast("dict[str, Any]", written)
        if not lenient:
            return node.read_parts(
                _read_fields(by_key, content, lenient=False, extra=extra and extra.read)[0]
            )
        try:
            return node.read_parts(
                _read_fields(by_key, content, lenient=True, extra=extra and extra.read)[0]
            )
        except READING_ERRORS as error:
            try:
                return node.read_parts({key: item for key, item in content.items() if key != TYPE})
            except READING_ERRORS:
                raise Misfit.of(error) from error

    return Shape(write, read, frozenset({cls}))


def _root_model_shape(builder: ShapeBuilder, schema: Any) -> Shape:
    cls: Any = schema["cls"]
    node = builder.node(schema)
    if _has_serializers(cls):
        builder.verify = True
        return custom(node)
    root = builder.shape(schema["schema"])

    def write(value: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, cls)
        return root.write(value.root)

    return Shape(write, lambda written: node.read_parts(root.part()(written)), frozenset({cls}))


def _has_serializers(cls: Any) -> bool:
    decorators = getattr(cls, "__pydantic_decorators__", None)
    return bool(decorators and (decorators.field_serializers or decorators.model_serializers))


def typed_dict_shape(builder: ShapeBuilder, schema: Any) -> Shape:
    """Return the shape of a TypedDict."""
    node = builder.node(schema)
    cls: Any = schema.get("cls")
    title = cls.__qualname__ if isinstance(cls, type) else schema.get("cls_name") or "the TypedDict"
    total = schema.get("total", True)
    fields: list[_Field] = []
    required: set[str] = set()
    for name, field in schema["fields"].items():
        if field.get("required", total):
            required.add(name)
        try:
            fields.append(_Field(name, _key(field, name), builder.shape(field["schema"])))
        except Unfit as unfit:
            unfit.steps.append(f".{name}")
            raise
    by_name = {field.name: field for field in fields}
    by_key = _by_key(fields)
    config: Any = schema.get("config") or {}
    takes_more = "allow" in {schema.get("extra_behavior"), config.get("extra_fields_behavior")}

    def write(value: Any) -> Any:
        if type(value) is not dict:
            raise mismatch(value, dict)
        given = cast("dict[str, Any]", value)
        missing = next((name for name in required if name not in given), None)
        if missing is not None:
            raise Refused(f"{title} requires the key {missing!r}")
        written: dict[str, Any] = {}
        # In the order of the declaration, as it is read.
        for name in [
            *(name for name in by_name if name in given),
            *(name for name in given if name not in by_name),
        ]:
            field, item = by_name.get(name), given[name]
            try:
                if field is not None:
                    written[field.key] = field.shape.write(item)
                elif takes_more and name != TYPE:
                    written[name] = write_json(item)
                else:
                    raise Refused(
                        f"{title} has no key {name!r}, which would be left out; declare it"
                    )
            except Refused as refused:
                refused.steps.append(f"[{name!r}]")
                raise
        return written

    def read(written: Any) -> Any:
        if type(written) is not dict or VALUE in written:
            return node.read_json(written)
        return node.read_parts(
            _read_fields(by_key, cast("dict[str, Any]", written), lenient=False)[0]
        )

    return Shape(write, read, frozenset({dict}))


def named_tuple_shape(builder: ShapeBuilder, cls: Any, schema: Any, arguments: list[Any]) -> Shape:
    """Return the shape of a named tuple."""
    node = builder.node(schema)
    shapes: list[Shape] = []
    for argument in arguments:
        try:
            shapes.append(builder.shape(argument["schema"]))
        except Unfit as unfit:
            unfit.steps.append(f".{argument['name']}")
            raise

    def write(value: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, cls)
        written: list[Any] = []
        for name, shape, item in zip(cls._fields, shapes, value, strict=True):
            try:
                written.append(shape.write(item))
            except Refused as refused:
                refused.steps.append(f".{name}")
                raise
        return written

    def read(written: Any) -> Any:
        if type(written) is not list or len(cast("list[Any]", written)) != len(shapes):
            return node.read_json(written)
        parts: list[Any] = []
        for name, shape, item in zip(cls._fields, shapes, cast("list[Any]", written), strict=True):
            try:
                parts.append(shape.read(item))
            except READING_ERRORS as error:
                raise Misfit.of(error, f".{name}") from error
        return cls(*parts)

    return Shape(write, read, frozenset({cls}))
