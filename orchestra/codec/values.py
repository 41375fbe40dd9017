"""Values without an annotation: each is written by its own type.

A reader may have an annotation, so objects name their class. A reader without one gets plain JSON.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from typing import Any, Final, cast

import orjson
import pydantic
import pydantic_core

from orchestra.codec.building import Builder
from orchestra.codec.payloads import DEFAULT_PAYLOAD_LIMIT, Payload, compact
from orchestra.codec.sameness import difference
from orchestra.codec.secrets import SECRET, Secret
from orchestra.codec.shapes import Shape, Unfit, secret
from orchestra.codec.wire import (
    MARK,
    MAX_DEPTH,
    TYPE,
    VALUE,
    Misfit,
    Refused,
    depth_of,
    is_secret,
    tagged,
    time_text,
)
from orchestra.errors import EncodeError, PayloadTooLarge

__all__ = ["check_back", "encode", "find_fault", "finished", "refusal", "write_value"]

# Dataclasses pass through `_reduce`: orjson alone would silently leave out fields that begin with
# an underscore. Datetimes do for their zones.
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_SLOW_OPTIONS: Final = _OPTIONS | orjson.OPT_NON_STR_KEYS

_TAGGED: Final = b"{" + MARK
"""The beginning of a value that names its type."""


def encode(
    value: object, *, subject: str, limit: int = DEFAULT_PAYLOAD_LIMIT, names_types: bool = True
) -> Payload:
    """Return the wire form of a value by its own type, for readers that may be anything.

    Args:
        subject: the name of the value, for errors: ``"result of activity 'probe'"``.
        limit: bytes that it may have.
        names_types: whether objects name their classes; not needed if all readers get plain JSON.

    Raises:
        EncodeError: the value holds NaN, an infinity, or a part without a JSON form, or would come
            back as another value. Names the field.
        PayloadTooLarge: it has more than ``limit`` bytes.
    """
    reduce = _Reduction(names_types=names_types)
    try:
        try:
            data = orjson.dumps(value, default=reduce, option=_OPTIONS)
        except TypeError:
            # Most often a mapping whose keys are no strings; a second failure is final.
            reduce.marks = 0
            data = orjson.dumps(value, default=reduce, option=_SLOW_OPTIONS)
            _check_keys(value)
    except (TypeError, RecursionError, Refused) as error:
        field, reason = find_fault(value) or ("", str(error))
        raise refusal(subject, field, reason) from (error.__cause__ or error)
    # orjson writes NaN and the infinities as null. Nulls are rare, so the search for one is nearly
    # always enough.
    if b"null" in data or (MARK in data and data.count(MARK) != reduce.marks):
        fault = find_fault(value)
        if fault is not None:
            raise refusal(subject, *fault)
    return finished(data, subject, limit)


def finished(data: bytes, subject: str, limit: int) -> Payload:
    """Return a payload, unless it is too large or nested too deep."""
    if len(data) > limit:
        raise PayloadTooLarge(
            (
                f"{subject} has {len(data):,} bytes; the limit is {limit:,}. Store it elsewhere "
                "and pass a reference"
            ),
            subject=subject,
            size=len(data),
            limit=limit,
        )
    if len(data) > MAX_DEPTH and depth_of(data) > MAX_DEPTH:
        raise refusal(
            subject,
            "",
            f"it is nested more than {MAX_DEPTH} deep, which could not be read; make it flat",
        )
    return Payload(compact(data))


def refusal(subject: str, field: str, reason: str) -> EncodeError:
    """Return the error for a value that cannot be stored."""
    where = f" at {field}" if field else ""
    return EncodeError(f"{subject}{where} cannot be stored: {reason}", subject=subject, field=field)


def write_value(value: Any) -> Any:
    """Return a value as plain JSON values, by its own type.

    Raises:
        Refused: it has none.
    """
    if value is None or type(value) in {str, int, bool}:
        return value
    try:
        payload = encode(value, subject="value", limit=1 << 62)
    except EncodeError as error:
        raise Refused(
            str(error).partition(" cannot be stored: ")[2] or str(error), error.field or ""
        ) from error
    return orjson.loads(payload.data)


class _Reduction:
    """Returns a simpler value that orjson can write."""

    __slots__ = ("marks", "names_types")

    def __init__(self, *, names_types: bool) -> None:
        self.names_types = names_types
        self.marks = 0
        """How many types it has named."""

    def __call__(self, value: Any) -> Any:
        if (
            dataclasses.is_dataclass(value) or isinstance(value, pydantic.BaseModel)
        ) and not isinstance(value, type):
            return self._object(value)
        if isinstance(value, (datetime, date, time)):
            return time_text(value, exact=False)
        if isinstance(value, AbstractSet):
            # The order of a set differs from process to process; recorded bytes must not (I10).
            members = [
                orjson.dumps(member, default=self, option=_SLOW_OPTIONS)
                for member in cast("AbstractSet[object]", value)
            ]
            return [orjson.Fragment(member) for member in sorted(members)]
        if isinstance(value, Mapping):
            return dict(cast("Mapping[object, object]", value))
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
            return list(cast("Sequence[object]", value))
        return self._leaf(value)

    def _object(self, value: Any) -> Any:
        shape = own_shape(type(value))
        if shape is None:
            written = {
                field.name: getattr(value, field.name) for field in dataclasses.fields(value)
            }
            self.marks += self.names_types
            return tagged(type(value).__name__, written) if self.names_types else written
        data = orjson.dumps(shape.write(value))
        if self.names_types and data.startswith(b"{") and not data.startswith(_TAGGED):
            data = (
                _TAGGED
                + orjson.dumps(type(value).__name__)
                + (b"," if len(data) > 2 else b"")
                + data[1:]
            )
        self.marks += data.count(MARK)
        return orjson.Fragment(data)

    def _leaf(self, value: Any) -> Any:
        if isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError("bytes have no JSON form; encode them as base64 text")
        if isinstance(value, Secret):
            self.marks += 1
            return {TYPE: SECRET, VALUE: cast("Secret[Any]", value).reveal()}
        if is_secret(value):
            raise secret(value)
        if isinstance(value, Iterator):
            raise Refused(
                f"it is a {type(cast('object', value)).__qualname__}, which can be read only "
                "once; give list(value)"
            )
        try:
            return pydantic_core.to_jsonable_python(value)
        except pydantic_core.PydanticSerializationError as error:
            raise TypeError(f"type {type(value).__qualname__} has no JSON form") from error


_shapes: dict[type, Shape | None] = {}


def own_shape(cls: Any) -> Shape | None:
    """Return the writer for objects of a class by their annotations; ``None`` if these have no JSON
    form.
    """
    found = _shapes.get(cls, _shapes)
    if isinstance(found, dict):
        try:
            builder = Builder(pydantic.TypeAdapter(cls).core_schema, write_value)
            shape = builder.build()
        except Unfit as unfit:
            found = Shape(
                _refusing(f"values of {cls.__qualname__} would not come back as they are: {unfit}"),
                lambda it: it,
            )
        except (pydantic.PydanticUserError, pydantic_core.SchemaError, NameError, TypeError):
            found = None
        else:
            found = Shape(_verified(shape), shape.read, shape.types) if builder.verify else shape
        if len(_shapes) < 10_000:
            _shapes[cls] = found
    return found


def _refusing(reason: str) -> Callable[[Any], Any]:
    def write(_: Any) -> Any:
        raise Refused(reason)

    return write


def _verified(shape: Shape) -> Any:
    def write(value: Any) -> Any:
        written = shape.write(value)
        check_back(value, written, shape)
        return written

    return write


def check_back(value: Any, written: Any, shape: Shape) -> None:
    """Read a written value back.

    Raises:
        Refused: it is not the same.
    """
    try:
        back = shape.read(orjson.loads(orjson.dumps(written)))
    except Exception as error:
        misfit = Misfit.of(error)  # validators are user code; they may raise anything
        raise Refused(f"it could not be read back: {misfit.reason}", misfit.path) from error
    found = difference(value, back)
    if found is not None:
        path, part = found
        raise Refused(
            f"it would come back as {part!r:.200}; annotate it as what it is (what a "
            "serializer, a constraint, an excluded field or a private attribute changes or "
            "leaves out is lost)",
            path,
        )


# --- faults -----------------------------------------------------------------------------------


def _children(value: object) -> Iterable[tuple[str, object]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [
            (f".{field.name}", getattr(value, field.name, None))
            for field in dataclasses.fields(value)
        ]
    if isinstance(value, pydantic.BaseModel):
        parts = {name: getattr(value, name) for name in type(value).model_fields} | (
            value.model_extra or {}
        )
        return [(f".{name}", item) for name, item in parts.items()]
    if isinstance(value, Mapping):
        items = list(cast("Mapping[object, object]", value).items())
        bad = [
            (f"[{key!r}]", key)
            for key, _ in items
            if isinstance(key, float) and not math.isfinite(key)
        ]
        return bad or [(f"[{key!r}]", item) for key, item in items]
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(
        value, (str, bytes, bytearray, memoryview)
    ):
        return [(f"[{index}]", item) for index, item in enumerate(cast("Sequence[object]", value))]
    return ()


def _is_no_number(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _has_own_key(value: object) -> bool:
    return isinstance(value, Mapping) and TYPE in cast("Mapping[object, object]", value)


def find_fault(value: object) -> tuple[str, str] | None:
    """Return the path and the fault of the first part of a value that cannot be stored."""
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    objects: list[tuple[str, Any]] = []
    while stack:
        path, item, depth = stack.pop()
        if _is_no_number(item):
            return path, f"{item!r} has no JSON form; use None or a string"
        if depth > MAX_DEPTH:
            return path, "it is nested too deep, or contains itself"
        if _has_own_key(item):
            return path, f"{TYPE!r} is the library's own key; give it another name"
        children = list(_children(item))
        if dataclasses.is_dataclass(item) or isinstance(item, pydantic.BaseModel):
            objects.append((path, item))
        if children:
            stack.extend((path + name, child, depth + 1) for name, child in reversed(children))
            continue
        fault = _fault_of(item)
        if fault is not None:
            return path + fault[0], fault[1]
    # Each part can be written alone, but an object's annotation does not accept its part.
    for path, item in reversed(objects):
        fault = _fault_of(item)
        if fault is not None:
            return path + fault[0], fault[1]
    return None


def _fault_of(item: object) -> tuple[str, str] | None:
    try:
        orjson.dumps(item, default=_Reduction(names_types=True), option=_SLOW_OPTIONS)
    except (TypeError, RecursionError, Refused) as error:
        cause = error.__cause__ or error
        return (cause.path, cause.reason) if isinstance(cause, Refused) else ("", str(cause))
    return None


def _keys(value: object) -> list[Any]:
    return list(cast("Mapping[Any, object]", value)) if isinstance(value, Mapping) else []


def _check_keys(value: object) -> None:
    """Check that no two keys of one mapping are the same text.

    Raises:
        Refused: two are.
    """
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        keys = _keys(item)
        if keys:
            texts = orjson.loads(orjson.dumps(dict.fromkeys(keys), option=_SLOW_OPTIONS))
            if len(texts) != len(keys):
                raise Refused(
                    "two keys of a mapping are the same text in JSON; make all of them texts"
                )
        stack.extend(child for _, child in _children(item))
