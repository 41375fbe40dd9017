"""Compare two values: equal values, and equal types in every part."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, time
from typing import Any, cast
from zoneinfo import ZoneInfo

import pydantic

__all__ = ["Difference", "difference"]

Difference = tuple[str, Any]
"""The path to a part of a value, and the part's value there."""


def difference(a: Any, b: Any) -> Difference | None:
    """Return the path to the first difference of two values, and the second one's part; or
    ``None``.
    """
    if a is b:
        return None
    if type(a) is not type(b):
        return "", b
    if isinstance(a, (str, bytes, int, float)):
        return None if a == b else ("", b)
    if dataclasses.is_dataclass(a):
        return _of_parts(a, b, [field.name for field in dataclasses.fields(cast("Any", a))])
    if isinstance(a, pydantic.BaseModel):
        return _of_models(a, b)
    if isinstance(a, (list, tuple, deque)):
        return _of_sequences(cast("Any", a), b)
    if isinstance(a, Mapping):
        return _of_mappings(cast("Any", a), b)
    if isinstance(a, AbstractSet):
        return _of_sets(cast("Any", a), b)
    return None if _is_same_leaf(a, b) else ("", b)


def _is_same_leaf(a: Any, b: Any) -> bool:
    if isinstance(a, (datetime, time)):
        return a == b and _zone(a) == _zone(b) and a.utcoffset() == b.utcoffset()
    if type(a).__eq__ is object.__eq__ and hasattr(a, "__dict__"):
        return difference(vars(a), vars(b)) is None
    try:
        return bool(a == b)
    except Exception:  # noqa: BLE001 - a user's comparison may raise anything; incomparable values are not proven equal
        return False


def _zone(moment: Any) -> str | None:
    return moment.tzinfo.key if isinstance(moment.tzinfo, ZoneInfo) else None


def _of_parts(a: Any, b: Any, names: list[str]) -> Difference | None:
    absent = object()
    for name in names:
        found = difference(getattr(a, name, absent), getattr(b, name, absent))
        if found is not None:
            return f".{name}{found[0]}", found[1]
    return None


def _of_models(a: Any, b: Any) -> Difference | None:
    found = _of_parts(a, b, list(cast("type[pydantic.BaseModel]", type(a)).model_fields))
    if found is not None:
        return found
    for extras in ("__pydantic_extra__", "__pydantic_private__"):
        left: dict[str, Any] = getattr(a, extras, None) or {}
        right: dict[str, Any] = getattr(b, extras, None) or {}
        absent = object()
        for name in [*left, *(name for name in right if name not in left)]:
            found = difference(left.get(name, absent), right.get(name, absent))
            if found is not None:
                return f".{name}{found[0]}", found[1]
    return None


def _of_sequences(a: Any, b: Any) -> Difference | None:
    if len(a) != len(b) or getattr(a, "maxlen", None) != getattr(b, "maxlen", None):
        return "", b
    for index, (left, right) in enumerate(zip(a, b, strict=True)):
        found = difference(left, right)
        if found is not None:
            return f"[{index}]{found[0]}", found[1]
    return None


def _of_mappings(a: Any, b: Any) -> Difference | None:
    if len(a) != len(b) or (isinstance(a, OrderedDict) and list(cast("Any", a)) != list(b)):
        return "", b
    if isinstance(a, defaultdict) and cast("Any", a).default_factory is not b.default_factory:
        return "", b
    keys = {key: key for key in b}
    parts: dict[Any, Any] = dict(cast("Any", a))
    for key, item in parts.items():
        if key not in keys or difference(key, keys[key]) is not None:
            return f"[{key!r}]", keys.get(key)
        found = difference(item, b[key])
        if found is not None:
            return f"[{key!r}]{found[0]}", found[1]
    return None


def _of_sets(a: Any, b: Any) -> Difference | None:
    members = {member: member for member in b}
    same = len(a) == len(b) and all(
        member in members and difference(member, members[member]) is None for member in a
    )
    return None if same else ("", b)
