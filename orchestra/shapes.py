"""Shapes of states: the JSON Schema of each version's input, compared with a committed baseline.

A baseline is one JSON object in the user's repository::

    {"orchestra_shapes": 1, "names": {"watch": {"1.0.0": {...schema...}}}}

Live state was written with the shape of a released version, so that shape never changes. A new
version may have another one; then it needs a migration, unless what changed is a new field with a
default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from orchestra.codec import pack_lines, unpack
from orchestra.errors import InvalidArgument
from orchestra.registry import OrchestrationRegistry
from orchestra.versions import version_key

__all__ = ["ShapeFinding", "baseline_of", "compare_shapes", "differences", "read_baseline"]

_VERSION: Final = 1

Shapes = Mapping[str, Mapping[str, Any]]
"""Schemas by name and version."""


@dataclass(frozen=True, slots=True)
class ShapeFinding:
    """A shape that would break live state. ``field`` is the path of what changed."""

    name: str
    version: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}: {self.message}"


def baseline_of(registry: OrchestrationRegistry, earlier: Shapes | None = None) -> bytes:
    """Return the baseline of a registry as JSON, indented and sorted. Versions of an earlier
    baseline that the registry lacks are kept: states of theirs may live.
    """
    names = {name: dict(versions) for name, versions in (earlier or {}).items()}
    for name, versions in _shapes_of(registry).items():
        names[name] = {**versions, **names.get(name, {}), **versions}
    ordered = {
        name: dict(sorted(versions.items(), key=lambda one: version_key(one[0])))
        for name, versions in sorted(names.items())
    }
    return pack_lines({"orchestra_shapes": _VERSION, "names": ordered})


def read_baseline(data: bytes) -> Shapes:
    """Return the schemas of a baseline.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        baseline = unpack(data)
        if baseline["orchestra_shapes"] != _VERSION:
            raise InvalidArgument(
                f"the baseline has version {baseline['orchestra_shapes']!r}, and this library "
                f"reads {_VERSION}; write it anew: orchestra shapes app:registry --write FILE"
            )
        return cast("Shapes", baseline["names"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(
            f"this is no baseline of shapes: {error!r}; write one: "
            "orchestra shapes app:registry --write FILE"
        ) from error


def compare_shapes(registry: OrchestrationRegistry, baseline: Shapes) -> tuple[ShapeFinding, ...]:
    """Return what of a registry would break state that versions of a baseline have written."""
    found: list[ShapeFinding] = []
    for name, versions in _shapes_of(registry).items():
        released = baseline.get(name, {})
        for version, schema in versions.items():
            if version in released:
                found += _changed(name, version, released[version], schema)
            else:
                found += _unmigrated(registry, name, version, schema, {**released, **versions})
    return tuple(found)


def _shapes_of(registry: OrchestrationRegistry) -> dict[str, dict[str, Any]]:
    return {
        name: {
            version: registry.get(name, version).state.json_schema()
            for version in registry.versions(name)
        }
        for name in registry.names
    }


def _changed(name: str, version: str, before: Any, now: Any) -> Iterator[ShapeFinding]:
    for field, what in differences(before, now):
        yield ShapeFinding(
            name,
            version,
            field,
            f"{field} {what} since {version} was released, and live state was written with it; "
            "register the new shape under a new version",
        )


def _unmigrated(
    registry: OrchestrationRegistry, name: str, version: str, schema: Any, known: dict[str, Any]
) -> Iterator[ShapeFinding]:
    """Yield what of a new version does not fit the state of the version before, where no migration
    stands between them.
    """
    lower = [one for one in known if version_key(one) < version_key(version)]
    if not lower:
        return
    before = max(lower, key=version_key)
    migrations = registry._migrations_of(name)
    if any(
        version_key(before) < version_key(step) <= version_key(version)
        for step in migrations.by_version
    ):
        return
    for field, what in differences(known[before], schema):
        if what == _OPTIONAL:
            continue
        old, new = _title(known[before]), _title(schema)
        yield ShapeFinding(
            name,
            version,
            field,
            f"{field} {what} since {before}, and no migration leads there; add\n"
            f"    def up(state: {old}) -> {new}: ...\n"
            f"    builder.migrate({name!r}, {version!r}, up)",
        )


def _title(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "Any"
    parts = cast("dict[str, Any]", schema)
    named = str(parts.get("$ref", "")).rpartition("/")[2] or str(parts.get("title", ""))
    return named if named.isidentifier() else "dict"


# --- schemas ----------------------------------------------------------------------------------

_OPTIONAL: Final = "is new, with a default"
"""The one difference that needs no migration on the way up."""

_WORDS: Final = frozenset({"title", "description", "examples", "default", "$defs"})


def differences(before: Any, now: Any) -> tuple[tuple[str, str], ...]:
    """Return what differs between two JSON Schemas: the path of each field, and how."""
    return tuple(_differences(before, now, _defs(before), _defs(now), "", 0))


def _defs(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict):
        return {}
    parts = cast("dict[str, Any]", schema)
    return cast("dict[str, Any]", parts.get("$defs", {}))


def _resolved(schema: Any, definitions: dict[str, Any]) -> Any:
    found: Any = schema
    while isinstance(found, dict) and "$ref" in found:
        found = definitions[str(cast("dict[str, Any]", found)["$ref"]).rpartition("/")[2]]
    return cast("Any", found)


def _differences(
    before: Any, now: Any, old: dict[str, Any], new: dict[str, Any], path: str, depth: int
) -> Iterator[tuple[str, str]]:
    before, now = _resolved(before, old), _resolved(now, new)
    here = path or "the whole state"
    if depth > 50 or not (isinstance(before, dict) and isinstance(now, dict)):
        if before != now:
            yield here, "has another type"
        return
    was, is_now = cast("dict[str, Any]", before), cast("dict[str, Any]", now)
    if "properties" in was and "properties" in is_now:
        yield from _fields(was, is_now, old, new, path, depth)
        return
    keys = sorted((set(was) | set(is_now)) - _WORDS)
    for key in keys:
        inner = f"{path}[]" if key in {"items", "prefixItems"} else path
        if key in {"items", "additionalProperties"} and key in was and key in is_now:
            yield from _differences(was[key], is_now[key], old, new, inner, depth + 1)
        elif _plain(was.get(key), old) != _plain(is_now.get(key), new):
            yield here, "has another type"
            return


def _fields(
    was: dict[str, Any],
    now: dict[str, Any],
    old: dict[str, Any],
    new: dict[str, Any],
    path: str,
    depth: int,
) -> Iterator[tuple[str, str]]:
    before, after = was["properties"], now["properties"]
    for name in before:
        if name not in after:
            yield f"{path}.{name}", "is gone"
        else:
            inner = f"{path}.{name}"
            yield from _differences(before[name], after[name], old, new, inner, depth + 1)
    for name in after:
        if name not in before:
            required = name in now.get("required", ())
            yield f"{path}.{name}", "is new, without a default" if required else _OPTIONAL


def _plain(schema: Any, definitions: dict[str, Any], depth: int = 0) -> Any:
    """Return a schema without references and without what is for people."""
    if depth > 20:
        return None
    if isinstance(schema, list):
        return [_plain(part, definitions, depth + 1) for part in cast("list[Any]", schema)]
    schema = _resolved(schema, definitions)
    if not isinstance(schema, dict):
        return schema
    return {
        key: _plain(part, definitions, depth + 1)
        for key, part in cast("dict[str, Any]", schema).items()
        if key not in _WORDS
    }
