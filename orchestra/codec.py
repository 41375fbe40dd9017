"""Values to bytes and back.

The wire form is JSON, written by orjson and stored as bytes together with an encoding number. A value is read back by
its *annotation*, through pydantic in strict mode: dataclasses, TypedDicts, pydantic models, unions of them, enums,
datetimes, UUIDs, Decimals, tuples and sets come back as what they were. Without an annotation it is plain JSON.

Code always receives the decoded form, in the first run as on replay.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, cast

import orjson
import pydantic
import pydantic_core

from orchestra.errors import DecodeError, EncodeError, PayloadTooLarge, UnresolvableAnnotation

__all__ = [
    "DEFAULT_PAYLOAD_LIMIT",
    "EMPTY",
    "JSON",
    "Decoder",
    "Payload",
    "arguments_decoder",
    "decoder",
    "encode",
    "pack",
    "plain",
    "unpack",
]

T = TypeVar("T")

JSON: Final = 1
"""The encoding number of plain JSON. Others are reserved for compression, encryption and external storage."""

DEFAULT_PAYLOAD_LIMIT: Final = 2 * 1024 * 1024
"""Bytes that one payload may have."""


@dataclass(frozen=True, slots=True)
class Payload:
    """User data as it is stored."""

    data: bytes
    encoding: int = JSON


EMPTY: Final = Payload(b"null")


# --- encoding ---------------------------------------------------------------------------------

# Dataclasses pass through `_reduce`: orjson alone would silently leave out fields that begin with an underscore.
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATACLASS
_SLOW_OPTIONS: Final = _OPTIONS | orjson.OPT_NON_STR_KEYS

_DEPTH: Final = 256
"""Deeper than anything that orjson writes."""


def encode(value: object, *, subject: str, limit: int = DEFAULT_PAYLOAD_LIMIT) -> Payload:
    """Return the wire form of a value.

    Args:
        subject: whose value it is, for errors: ``"result of activity 'probe'"``.
        limit: bytes that it may have.

    Raises:
        EncodeError: the value holds NaN, an infinity, or something without a JSON form. Names the field.
        PayloadTooLarge: it has more than ``limit`` bytes.
    """
    try:
        try:
            data = orjson.dumps(value, default=_reduce, option=_OPTIONS)
        except TypeError:
            # Most often a mapping whose keys are no strings; a second failure is final.
            data = orjson.dumps(value, default=_reduce, option=_SLOW_OPTIONS)
    except (TypeError, RecursionError) as error:
        field, reason = _find_fault(value) or ("", str(error))
        raise EncodeError(f"{subject}{_at(field)} cannot be stored: {reason}", subject=subject, field=field) from (
            error.__cause__ or error
        )
    # orjson writes NaN and the infinities as null. Nulls are rare, so the search for one is nearly always enough.
    if b"null" in data:
        fault = _find_fault(value)
        if fault is not None:
            field, reason = fault
            raise EncodeError(f"{subject}{_at(field)} cannot be stored: {reason}", subject=subject, field=field)
    if len(data) > limit:
        raise PayloadTooLarge(
            f"{subject} has {len(data):,} bytes; the limit is {limit:,}. Store it elsewhere and pass a reference",
            subject=subject,
            size=len(data),
            limit=limit,
        )
    return Payload(data)


@lru_cache(maxsize=4096)
def _field_names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def _reduce(value: object) -> object:
    """Return something simpler that orjson can write."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in _field_names(type(value))}
    if isinstance(value, pydantic.BaseModel):
        return _sets_in_order(value, value.model_dump(mode="json", by_alias=True, round_trip=True))
    if isinstance(value, AbstractSet):
        # The order of a set differs from process to process; replay compares bytes (I10).
        members = [orjson.dumps(member, default=_reduce, option=_SLOW_OPTIONS) for member in cast("AbstractSet[object]", value)]
        return [orjson.Fragment(member) for member in sorted(members)]
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(cast("Sequence[object]", value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("bytes have no JSON form; encode them as base64 text")
    try:
        return pydantic_core.to_jsonable_python(value)
    except pydantic_core.PydanticSerializationError as error:
        raise TypeError(f"type {type(value).__qualname__} has no JSON form") from error


def _sets_in_order(value: object, dumped: Any) -> Any:
    """Return what pydantic wrote for a value, with the members of sets in an order that is the same in each process (I10)."""
    if isinstance(value, pydantic.RootModel):
        return _sets_in_order(cast("pydantic.RootModel[object]", value).root, dumped)
    if isinstance(dumped, dict):
        written = cast("dict[str, Any]", dumped)
        parts = _parts(value, written)
        return {key: _sets_in_order(parts.get(key), item) for key, item in written.items()}
    if isinstance(dumped, list) and isinstance(value, (AbstractSet, list, tuple)):
        parts = list(cast("Iterable[object]", value))
        members = cast("list[Any]", dumped)
        if len(parts) == len(members):  # else a serializer of the user's own wrote something else
            members = [_sets_in_order(part, member) for part, member in zip(parts, members, strict=True)]
        return sorted(members, key=orjson.dumps) if isinstance(value, AbstractSet) else members
    return cast("Any", dumped)


def _parts(value: object, written: Mapping[str, Any]) -> dict[str, object]:
    """Return the parts of a value by the keys under which pydantic wrote them."""
    if isinstance(value, pydantic.BaseModel):
        fields = type(value).model_fields.items()
        return {field.serialization_alias or name: getattr(value, name) for name, field in fields} | (value.model_extra or {})
    if dataclasses.is_dataclass(value):
        return {name: getattr(value, name) for name in _field_names(cast("type", type(value)))}
    if isinstance(value, Mapping) and len(cast("Mapping[object, object]", value)) == len(written):
        return dict(zip(written, cast("Mapping[object, object]", value).values(), strict=True))
    return {}


def _children(value: object) -> Iterable[tuple[str, object]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f".{name}", getattr(value, name)) for name in _field_names(type(value))]
    if isinstance(value, pydantic.BaseModel):
        parts = {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
        return [(f".{name}", item) for name, item in parts.items()]
    if isinstance(value, Mapping):
        items = list(cast("Mapping[object, object]", value).items())
        bad = [(f"[{key!r}]", key) for key, _ in items if isinstance(key, float) and not math.isfinite(key)]
        return bad or [(f"[{key!r}]", item) for key, item in items]
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, (str, bytes, bytearray, memoryview)):
        return [(f"[{index}]", item) for index, item in enumerate(cast("Sequence[object]", value))]
    return ()


def _find_fault(value: object) -> tuple[str, str] | None:
    """Return the path and the fault of the first part of a value that cannot be stored."""
    stack: list[tuple[str, object, int]] = [("", value, 0)]
    while stack:
        path, item, depth = stack.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return path, f"{item!r} has no JSON form; use None or a string"
        if depth > _DEPTH:
            return path, "it is nested too deep, or contains itself"
        children = list(_children(item))
        if children:
            stack.extend((path + name, child, depth + 1) for name, child in reversed(children))
            continue
        try:
            orjson.dumps(item, default=_reduce, option=_SLOW_OPTIONS)
        except (TypeError, RecursionError) as error:
            return path, str(error.__cause__ or error)
    return None


def _at(field: str) -> str:
    return f" at {field}" if field else ""


# --- decoding ---------------------------------------------------------------------------------


class Decoder(Generic[T]):
    """Reads payloads as one type."""

    __slots__ = ("_adapter", "annotation")

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self._adapter: pydantic.TypeAdapter[T] | None = None
        if annotation is not Any and annotation is not object:
            try:
                self._adapter = pydantic.TypeAdapter(annotation)
                self._adapter.rebuild(raise_errors=True)  # else a name that cannot be found shows at the first use only
            except (pydantic.PydanticUserError, pydantic_core.SchemaError, NameError, TypeError) as error:
                message = str(error).splitlines()[0]
                raise UnresolvableAnnotation(f"{annotation!r} cannot be read from JSON: {message}") from error

    def decode(self, payload: Payload, *, subject: str) -> T:
        """Return the value.

        Raises:
            DecodeError: the bytes do not fit the annotation; names the field.
        """
        if payload.encoding != JSON:
            raise DecodeError(
                f"{subject} is stored with encoding {payload.encoding}, which this version of orchestra cannot read",
                subject=subject,
            )
        try:
            if self._adapter is None:
                return orjson.loads(payload.data)
            return self._adapter.validate_json(payload.data, strict=True)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
            more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            raise DecodeError(
                f"{subject}{_at(field)} does not fit {_type_text(self.annotation)}: {first['msg']}{more}",
                subject=subject,
                field=field,
            ) from error
        except orjson.JSONDecodeError as error:
            raise DecodeError(f"{subject} is not JSON: {error}", subject=subject) from error
        except Exception as error:  # validators and __post_init__ are user code; they may raise anything
            raise DecodeError(f"{subject} does not fit {_type_text(self.annotation)}: {error!r}", subject=subject) from error

    def schema(self) -> bytes:
        """Return a text that changes whenever what can be read changes."""
        if self._adapter is None:
            return b"any"
        try:
            return orjson.dumps(self._adapter.json_schema(), option=orjson.OPT_SORT_KEYS)
        except (pydantic.errors.PydanticInvalidForJsonSchema, pydantic.PydanticUserError):
            return _type_text(self.annotation).encode()


_decoders: dict[Any, Decoder[Any]] = {}


def decoder(annotation: Any) -> Decoder[Any]:
    """Return the decoder of an annotation; equal annotations share one.

    Raises:
        UnresolvableAnnotation: it names no type that can be read from JSON.
    """
    if annotation is Any:
        return PLAIN
    try:
        found = _decoders.get(annotation)
        if found is not None and isinstance(annotation, type):
            return found
        # `int | str == str | int`, and `Literal[1] == Literal[True]`-like look-alikes exist: equality is not identity.
        if found is not None and repr(found.annotation) == repr(annotation):
            return found
    except TypeError:  # unhashable: an Annotated with a mutable in it
        return Decoder(annotation)
    made: Decoder[Any] = Decoder(annotation)
    if len(_decoders) < 10_000:
        _decoders[annotation] = made
    return made


PLAIN: Final[Decoder[Any]] = Decoder(Any)


def plain(payload: Payload | None) -> Any:
    """Return a payload as plain JSON values: what dashboards show. Never fails on well-formed JSON."""
    if payload is None:
        return None
    return PLAIN.decode(payload, subject="payload")


def arguments_decoder(annotations: Sequence[Any]) -> Callable[[Payload, str], tuple[Any, ...]]:
    """Return a function that reads a JSON array of positional arguments, one annotation each."""
    if all(annotation is Any for annotation in annotations):
        return lambda payload, subject: tuple(PLAIN.decode(payload, subject=subject))
    whole = decoder(tuple.__class_getitem__(tuple(annotations)))
    return lambda payload, subject: whole.decode(payload, subject=subject)


def _type_text(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


# --- envelopes --------------------------------------------------------------------------------


def pack(values: Mapping[str, Any]) -> bytes:
    """Return the library's own small facts as bytes."""
    return orjson.dumps(values)


def unpack(data: bytes) -> dict[str, Any]:
    """Return what :func:`pack` wrote."""
    return orjson.loads(data)
