"""Decoders: write values exactly by their annotation, and read them back."""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Callable, Collection, Mapping, MutableSequence, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import orjson
import pydantic
import pydantic_core

from orchestra.codec.building import Builder
from orchestra.codec.leaves import write_json
from orchestra.codec.payloads import DEFAULT_PAYLOAD_LIMIT, JSON, Payload, compact
from orchestra.codec.sealed import unreadable
from orchestra.codec.shapes import Shape, Unfit
from orchestra.codec.values import check_back, encode, find_fault, finished, refusal, write_value
from orchestra.codec.wire import (
    MARK,
    MAX_DEPTH,
    SECRET_MARK,
    ZONE_MARK,
    Misfit,
    Refused,
    masked,
    stripped,
)
from orchestra.errors import DecodeError, EncodeError, UnresolvableAnnotation

__all__ = [
    "PLAIN",
    "ArgumentsReader",
    "Decoder",
    "arguments_decoder",
    "decoder",
    "encode_arguments",
    "plain",
    "raw",
    "repacked",
    "without_secrets",
]

T = TypeVar("T")

_LISTS: Final[frozenset[Any]] = frozenset({list, Sequence, MutableSequence, Collection})
"""The type that reads an array as a list."""

_TUPLE: Final[Any] = (
    tuple  # for type checkers, which would infer a tuple of unknown items for a value
)


class Decoder(Generic[T]):
    """Writes and reads values of one type.

    Raises:
        UnresolvableAnnotation: the annotation names no type that can be read from JSON, or one
            whose values could not come back as what they are.
    """

    __slots__ = (
        "_adapter",
        "_digest",
        "_is_native",
        "_is_verified",
        "_is_zoned",
        "_plain",
        "_shape",
        "_validate",
        "annotation",
    )

    def __init__(self, annotation: Any) -> None:
        self.annotation: Any = annotation
        self._adapter: pydantic.TypeAdapter[T] | None = None
        self._validate: Callable[..., T]
        self._shape: Shape | None = None
        self._digest: str | None = None
        self._is_native = self._is_zoned = self._is_verified = False
        self._plain: frozenset[type] = frozenset()
        """Values of these types are JSON already."""
        if annotation is Any or annotation is object:
            return
        try:
            self._adapter = pydantic.TypeAdapter(annotation)
            self._adapter.rebuild(
                raise_errors=True
            )  # otherwise an unknown name shows at the first use only
            builder = Builder(self._adapter.core_schema, write_json)
            self._shape = shape = builder.build()
            self._validate = self._adapter.validator.validate_json
        except (
            pydantic.PydanticUserError,
            pydantic_core.SchemaError,
            NameError,
            TypeError,
        ) as error:
            message = str(error).splitlines()[0]
            raise UnresolvableAnnotation(
                f"{annotation!r} cannot be read from JSON: {message}"
            ) from error
        except Unfit as unfit:
            raise UnresolvableAnnotation(
                f"values of {_type_text(annotation)} would not come back as they are: {unfit}"
            ) from unfit
        self._is_native, self._is_zoned, self._is_verified = (
            builder.native,
            builder.is_zoned,
            builder.verify,
        )
        if shape.is_plain and shape.types is not None and not builder.verify:
            self._plain = shape.types

    def encode(
        self, value: Any, *, subject: str, limit: int = DEFAULT_PAYLOAD_LIMIT, exact: bool = True
    ) -> Payload:
        """Return the wire form of a value. :meth:`decode` returns an equal value of the same
        types.

        Without an annotation it is written by its own type, and read as plain JSON.

        Args:
            subject: the name of the value, for errors.
            limit: bytes that it may have.
            exact: whether an inexact value is refused. Histories of older libraries hold such
                values, and their code must go on.

        Raises:
            EncodeError: it would come back as another value. Names the field and the remedy.
            PayloadTooLarge: it has more than ``limit`` bytes.
        """
        if self._shape is None:
            return encode(value, subject=subject, limit=limit)
        try:
            written = value if type(value) in self._plain else self._shape.write(value)
            data = orjson.dumps(written)
            if self._is_verified:
                check_back(value, written, self._shape)
        except (Refused, RecursionError, TypeError) as error:
            if not exact:
                return encode(value, subject=subject, limit=limit)
            raise _refusal(error, value, subject) from error.__cause__
        return (
            Payload(compact(data))
            if len(data) <= MAX_DEPTH and len(data) <= limit
            else finished(data, subject, limit)
        )

    def encode_input(
        self, value: Any, *, subject: str, limit: int = DEFAULT_PAYLOAD_LIMIT
    ) -> Payload:
        """Return the wire form of a value from outside: a value like any other, or the plain JSON
        of one.

        Raises:
            EncodeError: it would not come back as what it is.
            DecodeError: it is plain JSON that does not fit.
            PayloadTooLarge: it has more than ``limit`` bytes.
        """
        try:
            return self.encode(
                self.handed(value) if type(value) is _TUPLE else value, subject=subject, limit=limit
            )
        except EncodeError:
            try:
                write_json(value)
            except Refused:
                pass
            else:
                payload = encode(value, subject=subject, limit=limit)
                self.decode(payload, subject=subject)
                return payload
            raise

    def encode_output(
        self, value: Any, *, subject: str, limit: int = DEFAULT_PAYLOAD_LIMIT, exact: bool = True
    ) -> Payload:
        """Return the wire form of an orchestration's result, for readers in other programs.

        Like :meth:`encode`, but a tuple may be given for a list, as in ``return await
        ctx.gather(...)``.
        """
        handed = self.handed(value) if type(value) is _TUPLE else value
        return self.encode(handed, subject=subject, limit=limit, exact=exact)

    def handed(self, value: tuple[Any, ...]) -> Any:
        """Return a tuple as a list if the annotation is a list: ``ctx.gather`` returns tuples."""
        return (
            list(value)
            if (typing.get_origin(self.annotation) or self.annotation) in _LISTS
            else value
        )

    def part(self, value: Any) -> Any:
        """Return a passed-on value as JSON values, as :meth:`encode` writes them.

        Raises:
            Refused: it would not come back as what it is.
        """
        return self.write(self.handed(value) if type(value) is _TUPLE else value)

    def write(self, value: Any) -> Any:
        """Return a value as JSON values, as :meth:`encode` writes them.

        Raises:
            Refused: it would not come back as what it is.
        """
        if self._shape is None:
            return write_value(value)
        written = self._shape.write(value)
        if self._is_verified:
            check_back(value, written, self._shape)
        return written

    def decode(self, payload: Payload, *, subject: str) -> T:
        """Return the value.

        Raises:
            DecodeError: the bytes do not fit the annotation; names the field.
        """
        if payload.encoding != JSON:
            raise unreadable(payload, subject)
        data = payload.data
        try:
            if self._adapter is None or self._shape is None:
                return stripped(orjson.loads(data)) if MARK in data else orjson.loads(data)
            if self._is_native and MARK not in data and not (self._is_zoned and ZONE_MARK in data):
                return self._validate(data, strict=True)
            return self._shape.read(orjson.loads(data))
        except orjson.JSONDecodeError as error:
            raise DecodeError(f"{subject} is not JSON: {error}", subject=subject) from error
        except (pydantic.ValidationError, Misfit) as error:
            misfit = Misfit.of(error)
            where = f" at {misfit.path}" if misfit.path else ""
            raise DecodeError(
                f"{subject}{where} does not fit {_type_text(self.annotation)}: {misfit.reason}",
                subject=subject,
                field=misfit.path,
            ) from error
        except (
            Exception
        ) as error:  # validators and __post_init__ are user code; they may raise anything
            raise DecodeError(
                f"{subject} does not fit {_type_text(self.annotation)}: {error!r}", subject=subject
            ) from error

    @property
    def shape(self) -> str:
        """Return 16 hexadecimal digits of the readable values: a hash of the type's JSON Schema,
        without titles and descriptions. ``Any`` has the shape of all values.
        """
        if self._digest is None:
            self._digest = _digest_of(self.schema())
        return self._digest

    def json_schema(self) -> Any:
        """Return the JSON Schema of the type; of one that has none, its name; of ``Any``,
        ``True``.
        """
        if self._adapter is None:
            return True
        try:
            return orjson.loads(self.schema())
        except orjson.JSONDecodeError:
            return {"python": _type_text(self.annotation)}

    def schema(self) -> bytes:
        """Return a text that changes whenever the readable values change."""
        if self._adapter is None:
            return b"any"
        try:
            return orjson.dumps(self._adapter.json_schema(), option=orjson.OPT_SORT_KEYS)
        except (pydantic.errors.PydanticInvalidForJsonSchema, pydantic.PydanticUserError):
            return _type_text(self.annotation).encode()


def _digest_of(schema: bytes) -> str:
    try:
        told = orjson.dumps(_without_words(orjson.loads(schema)), option=orjson.OPT_SORT_KEYS)
    except orjson.JSONDecodeError:
        told = schema  # the name of a type that has no JSON Schema
    return hashlib.sha256(told).hexdigest()[:16]


def _without_words(schema: Any, *, names: bool = False) -> Any:
    """Return a JSON Schema without texts for people. ``names``: the keys are names of fields."""
    if isinstance(schema, list):
        return [_without_words(part) for part in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    parts = cast("dict[str, Any]", schema)
    return {
        key: _without_words(part, names=key in {"properties", "$defs"} and not names)
        for key, part in parts.items()
        if names or key not in {"title", "description", "examples"}
    }


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
        # `int | str == str | int`, and `Literal[1] == Literal[True]`-like look-alikes exist:
        # equality is not identity.
        if found is not None and repr(found.annotation) == repr(annotation):
            return found
    except TypeError:  # unhashable: an Annotated with a mutable in it
        return Decoder(annotation)
    made: Decoder[Any] = Decoder(annotation)
    if len(_decoders) < 10_000:
        _decoders[annotation] = made
    return made


PLAIN: Final[Decoder[Any]] = Decoder(Any)


def encode_arguments(
    positional: Sequence[tuple[Decoder[Any], Any]],
    keywords: Mapping[str, tuple[Decoder[Any], Any]],
    *,
    subject: str,
    limit: int = DEFAULT_PAYLOAD_LIMIT,
) -> Payload:
    """Return the wire form of arguments: an array, or ``{"args": [...], "kwargs": {...}}`` where
    there are keywords.

    A tuple may be given for a list, as in ``ctx.schedule_activity(publish, await
    ctx.gather(...))``.

    Raises:
        EncodeError: one of them would not come back as what it is.
        PayloadTooLarge: they have more than ``limit`` bytes.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    step, value = "", None
    try:
        for index, (one, value) in enumerate(positional):
            step = f"[{index}]"
            args.append(value if type(value) in one._plain else one.part(value))
        for name, (one, value) in keywords.items():
            step = f".{name}"
            kwargs[name] = one.part(value)
        step, value = "", {"args": args, "kwargs": kwargs} if kwargs else args
        data = orjson.dumps(value)
    except (Refused, RecursionError, TypeError) as error:
        raise _refusal(error, value, subject, step) from error.__cause__
    return (
        Payload(compact(data))
        if len(data) <= MAX_DEPTH and len(data) <= limit
        else finished(data, subject, limit)
    )


def repacked(value: Any) -> Payload:
    """Return a part of the result of :func:`raw` as a payload."""
    return Payload(compact(orjson.dumps(value)))


def _refusal(error: Exception, value: Any, subject: str, step: str = "") -> EncodeError:
    if isinstance(error, Refused):
        return refusal(subject, step + error.path, error.reason)
    if isinstance(error, RecursionError):
        return refusal(subject, step, "it is nested too deep, or contains itself")
    path, reason = find_fault(value) or ("", str(error))
    return refusal(subject, step + path, reason)


def raw(payload: Payload, *, subject: str) -> Any:
    """Return a payload's stored JSON values, with the names of types.

    Raises:
        DecodeError: it is no JSON, or its encoding is unknown.
    """
    if payload.encoding == JSON and MARK in payload.data:
        return orjson.loads(payload.data)
    return PLAIN.decode(payload, subject=subject)


def plain(payload: Payload | None) -> Any:
    """Return a payload as plain JSON values, for dashboards: secrets are masked. Never fails on
    well-formed JSON.
    """
    if payload is None:
        return None
    if payload.encoding == JSON and SECRET_MARK in payload.data:
        return stripped(orjson.loads(payload.data), masks=True)
    return PLAIN.decode(payload, subject="payload")


def without_secrets(payload: Payload) -> Payload:
    """Return a payload whose secrets hold masks of the same JSON types, for exports."""
    if payload.encoding != JSON or SECRET_MARK not in payload.data:
        return payload
    return Payload(orjson.dumps(masked(orjson.loads(payload.data))))


class ArgumentsReader(Protocol):
    """Reads a JSON array of positional arguments."""

    def __call__(self, payload: Payload, *, subject: str) -> tuple[Any, ...]:
        """Return the arguments.

        Raises:
            DecodeError: they do not fit.
        """
        ...


def arguments_decoder(annotations: Sequence[Any]) -> ArgumentsReader:
    """Return a function that reads a JSON array of positional arguments, one annotation each."""
    if all(annotation is Any for annotation in annotations):
        return _read_plain_arguments
    whole: Decoder[tuple[Any, ...]] = decoder(tuple.__class_getitem__(tuple(annotations)))
    return whole.decode


def _read_plain_arguments(payload: Payload, *, subject: str) -> tuple[Any, ...]:
    return tuple(PLAIN.decode(payload, subject=subject))


def _type_text(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
