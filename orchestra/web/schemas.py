"""JSON Schemas of what the API returns, made from the dataclasses that the client returns.

They describe what :func:`orchestra.client.jsonable.jsonable` writes.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from orchestra.client.values import Unreadable
from orchestra.levels import Unknown
from orchestra.schedules import Spec
from orchestra.store.routes import Kind
from orchestra.versions import Exact, Latest, Range, UnknownPolicy

__all__ = ["Schemas"]

Schema = dict[str, Any]

_PLAIN: Final[dict[Any, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    datetime: {"type": "string", "format": "date-time"},
    timedelta: {"type": "number", "description": "seconds"},
    Unknown: {"type": "string"},
    Latest: {"type": "string"},
    Exact: {"type": "string"},
    Range: {"type": "string"},
    UnknownPolicy: {"type": "string"},
    Kind: {"type": "string"},
    Spec: {"type": "object", "description": "when a schedule has slots"},
    Any: {},
    object: {},
    Unreadable: {
        "type": "object",
        "properties": {"unreadable": {"type": "string"}, "size": {"type": "integer"}},
        "required": ["unreadable", "size"],
    },
}
_ERROR: Final[Schema] = {
    "type": "object",
    "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
    "required": ["type", "message"],
}


class Schemas:
    """Makes schemas, and keeps those of dataclasses as components."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def of(self, annotation: Any) -> Schema:
        """Return the schema of an annotation; a dataclass is a reference to its component."""
        if annotation in _PLAIN:
            return _PLAIN[annotation]
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (Union, types.UnionType):
            return self._any_of(arguments)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if origin is tuple and arguments[-1:] != (...,):
            return {"type": "array", "prefixItems": [self.of(one) for one in arguments]}
        if isinstance(origin, type) and arguments:
            unique = {"uniqueItems": True} if issubclass(origin, AbstractSet) else {}
            return {"type": "array", "items": self.of(arguments[0]), **unique}
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            return {"enum": [member.value for member in annotation]}
        if isinstance(annotation, type) and issubclass(annotation, BaseException):
            return _ERROR
        if isinstance(annotation, type) and is_dataclass(annotation):
            return self._reference(annotation)
        raise TypeError(f"{annotation!r} has no JSON form")

    def _any_of(self, annotations: tuple[Any, ...]) -> Schema:
        found: list[Schema] = []
        for annotation in annotations:
            schema = self.of(annotation)
            if not schema:
                return {}  # anything
            if schema not in found:
                found.append(schema)
        return found[0] if len(found) == 1 else {"anyOf": found}

    def _reference(self, known: type) -> Schema:
        name = known.__name__
        if name not in self.components:
            self.components[name] = {}  # it may hold itself
            hints = get_type_hints(known)
            public = [field for field in fields(known) if not field.name.startswith("_")]
            self.components[name] = {
                "type": "object",
                "properties": {field.name: self.of(hints[field.name]) for field in public},
                "required": [field.name for field in public],
                "description": (known.__doc__ or "").split("\n\n")[0],
            }
        return {"$ref": f"#/components/schemas/{name}"}
