"""Shapes of lists, tuples, sets and mappings."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from orchestra.codec.shapes import READING_ERRORS, Node, Shape, mismatch
from orchestra.codec.wire import TYPE, Misfit, Refused, unwrapped

__all__ = ["MAPPINGS", "SEQUENCES", "Key", "mapping_shape", "sequence_shape", "tuple_shape"]

SEQUENCES: Final[dict[str, type]] = {
    "list": list,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
}
MAPPINGS: Final[dict[str, type]] = {"dict": dict, "ordered-dict": OrderedDict, "counter": Counter}


@dataclass(frozen=True, slots=True)
class Key:
    """The conversion of a mapping's keys to text, and back."""

    write: Callable[[Any], str]
    read: Callable[[str], Any]
    types: frozenset[type] | None = None


def write_items(write: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    """Return the written members of a value."""
    try:
        return [write(item) for item in values]
    except Refused:
        for index, item in enumerate(values):
            try:
                write(item)
            except Refused as refused:
                refused.steps.append(f"[{index}]")
                raise
        raise


def read_items(read: Callable[[Any], Any], written: list[Any]) -> list[Any]:
    """Return the members of a value."""
    values: list[Any] = []
    for index, item in enumerate(written):
        try:
            values.append(read(item))
        except READING_ERRORS as error:
            raise Misfit.of(error, f"[{index}]") from error
    return values


def sequence_shape(kind: str, node: Node, item: Shape, *, plain: bool) -> Shape:
    """Return the shape of a list, a set or the like. ``plain``: only its members need a check."""
    cls: Any = SEQUENCES[kind]
    is_set = kind in {"set", "frozenset"}

    def write(value: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, cls)
        members = write_items(item.write, value)
        # The order of a set differs from process to process; recorded bytes must not (I10).
        return sorted(members, key=orjson.dumps) if is_set else members

    def read(written: Any) -> Any:
        written = unwrapped(written)
        if type(written) is not list:
            return node.read_json(written)
        values = read_items(item.read, cast("list[Any]", written))
        if plain and cls is list:
            return values
        return cls(values) if plain else node.read_parts(cls(values))

    return Shape(write, read, frozenset({cls}))


def tuple_shape(node: Node, items: Sequence[Shape], variadic: int | None, *, plain: bool) -> Shape:
    """Return the shape of a tuple; the item at ``variadic`` may occur any number of times."""

    def shapes(count: int) -> Sequence[Shape] | None:
        if variadic is None:
            return items if count == len(items) else None
        more = count - len(items) + 1
        return (
            None
            if more < 0
            else [*items[:variadic], *[items[variadic]] * more, *items[variadic + 1 :]]
        )

    def write(value: Any) -> Any:
        if type(value) is not tuple:
            raise mismatch(value, tuple)
        parts = cast("tuple[Any, ...]", value)
        found = shapes(len(parts))
        if found is None:
            raise Refused(
                f"it has {len(parts)} items, and not the number that is annotated, {len(items)}"
            )
        written: list[Any] = []
        for index, (part, shape) in enumerate(zip(parts, found, strict=True)):
            try:
                written.append(shape.write(part))
            except Refused as refused:
                refused.steps.append(f"[{index}]")
                raise
        return written

    def read(written: Any) -> Any:
        written = unwrapped(written)
        found = shapes(len(cast("list[Any]", written))) if type(written) is list else None
        if found is None:
            return node.read_json(written)
        values: list[Any] = []
        for index, (part, shape) in enumerate(zip(cast("list[Any]", written), found, strict=True)):
            try:
                values.append(shape.read(part))
            except READING_ERRORS as error:
                raise Misfit.of(error, f"[{index}]") from error
        return tuple(values) if plain else node.read_parts(tuple(values))

    return Shape(write, read, frozenset({tuple}))


def mapping_shape(kind: str, node: Node, key: Key, item: Shape, *, plain: bool) -> Shape:
    """Return the shape of a dict or the like."""
    cls: Any = MAPPINGS[kind]

    def write(value: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, cls)
        written: dict[str, Any] = {}
        for name, part in cast("dict[Any, Any]", value).items():
            try:
                text = key.write(name)
                if text == TYPE:
                    raise Refused(f"{TYPE!r} is the library's own key; give it another name")
                written[text] = item.write(part)
            except Refused as refused:
                refused.steps.append(f"[{name!r}]")
                raise
        return written

    def read(written: Any) -> Any:
        written = unwrapped(written)
        if type(written) is not dict:
            return node.read_json(written)
        values: dict[Any, Any] = {}
        for text, part in cast("dict[str, Any]", written).items():
            if text == TYPE:
                continue
            try:
                values[key.read(text)] = item.read(part)
            except READING_ERRORS as error:
                raise Misfit.of(error, f".{text}") from error
        if plain and cls is dict:
            return values
        return cls(values) if plain else node.read_parts(cls(values))

    return Shape(write, read, frozenset({cls}))
