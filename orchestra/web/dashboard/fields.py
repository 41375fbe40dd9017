"""Forms made from JSON Schema: which inputs a value has, and the value of what was filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from orchestra.codec import Payload, decoder
from orchestra.errors import DecodeError, InvalidArgument

__all__ = ["PREFIX", "WHOLE", "Field", "fields_of", "json_of", "value_of"]

PREFIX: Final = "field."
"""Precedes the name of a field in a form."""
WHOLE: Final = "payload"
"""The field of a form that has a whole value as JSON."""
_ONLY: Final = "value"
"""The one field of a value that is no object."""
_MOST: Final = 40
"""A schema with more fields is filled in as JSON."""

Kind = Literal["text", "integer", "number", "flag", "choice", "json", "moment"]

_ANY: Final = decoder(Any)


@dataclass(frozen=True, slots=True)
class Field:
    """An input of a form. ``default`` is how it stands in the form; ``choices`` are JSON texts."""

    name: str
    label: str
    kind: Kind
    required: bool
    default: str = ""
    choices: tuple[str, ...] = ()
    help: str = ""


def fields_of(schema: Any) -> tuple[Field, ...] | None:
    """Return the inputs of a schema; ``None``: it is filled in as JSON."""
    if not isinstance(schema, dict):
        return None
    known = cast("dict[str, Any]", schema)
    whole = _resolved(known, known)
    properties: Any = whole.get("properties")
    if whole.get("type") == "object" and isinstance(properties, dict):
        named = cast("dict[str, Any]", properties)
        required: list[str] = whole.get("required", [])
        if not 0 < len(named) <= _MOST:
            return None
        return tuple(
            _field(name, _resolved(part, known), name in required) for name, part in named.items()
        )
    only = _field(_ONLY, whole, required=True)
    return None if only.kind == "json" else (only,)


def _resolved(schema: Any, root: Mapping[str, Any]) -> dict[str, Any]:
    """Follow a reference within the schema."""
    found = _mapping(schema)
    for _ in range(8):
        reference = found.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        target = dict(root)
        for part in reference[2:].split("/"):
            target = _mapping(target.get(part))
        found = {**target, **{key: value for key, value in found.items() if key != "$ref"}}
    return found


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


_KINDS: Final[dict[str, Kind]] = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "flag",
}


def _field(name: str, schema: dict[str, Any], required: bool) -> Field:  # noqa: FBT001
    schema = _present(schema)
    kind: Kind = "json"
    choices: tuple[str, ...] = ()
    if "enum" in schema:
        kind, choices = "choice", tuple(json_of(one) for one in schema["enum"])
    elif isinstance(schema.get("type"), str):
        kind = _KINDS.get(schema["type"], "json")
        if schema.get("format") == "date-time":
            kind = "moment"
    default = "default" in schema
    shown = ""
    if default and schema["default"] is not None:
        is_json = kind in {"json", "choice", "flag"}
        shown = json_of(schema["default"]) if is_json else str(schema["default"])
    label = str(schema.get("title") or name)
    return Field(name, label, kind, required, shown, choices, str(schema.get("description", "")))


def _present(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value that may be ``null``, without that: it is then left out."""
    ways: Any = schema.get("anyOf")
    if not isinstance(ways, list):
        return schema
    named = [_mapping(one) for one in cast("list[Any]", ways)]
    others = [one for one in named if one.get("type") != "null"]
    if len(others) != 1 or len(others) == len(named):
        return schema
    return {**others[0], **{key: value for key, value in schema.items() if key != "anyOf"}}


def value_of(form: Mapping[str, str], fields: Sequence[Field] | None) -> Any:
    """Return the value of a form. What is left empty and not required is left out. A whole value as
    JSON, where one is given, counts instead.

    Raises:
        InvalidArgument: an input does not have its type.
    """
    whole = form.get(WHOLE, "").strip()
    if whole:
        return _read(whole, "the payload")
    if fields is None:
        return None
    values = {
        one.name: _value(one, form.get(PREFIX + one.name, ""))
        for one in fields
        if one.required or one.kind == "flag" or form.get(PREFIX + one.name, "") != ""
    }
    return values[_ONLY] if [one.name for one in fields] == [_ONLY] else values


def _value(field: Field, words: str) -> Any:
    match field.kind:
        case "text" | "moment":
            return words
        case "flag":
            return words == "true"
        case "integer" | "number":
            found = _read(words.strip() or "null", field.name)
            if isinstance(found, bool) or not isinstance(found, (int, float)):
                raise InvalidArgument(f"{field.name} takes a number, not {words!r}")
            return found
        case "choice" | "json":
            return _read(words.strip() or "null", field.name)


def _read(words: str, what: str) -> Any:
    try:
        return _ANY.decode(Payload(words.encode()), subject=what)
    except DecodeError as error:
        raise InvalidArgument(f"{what} is no JSON: {error}; text stands in quotes") from error


def json_of(value: Any) -> str:
    """Return a value as JSON."""
    return json.dumps(value, ensure_ascii=False)
