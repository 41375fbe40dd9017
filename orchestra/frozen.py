"""Values that do not change after they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

__all__ = ["frozen", "replaced"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class a dataclass with slots, whose fields type checkers keep from being changed.

    At run time they are not frozen: ``@dataclass(frozen=True)`` sets each field by a call, which
    takes 2.0 us for five fields instead of 0.6. An instance of one activity makes some sixty rows,
    events and messages; freezing took 15 % of its instructions. Values for users are frozen at run
    time too.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


def replaced(value: T, **changes: Any) -> T:
    """Return a copy of a :func:`frozen` value of several fields, some of them changed.

    It takes a fifth of the time of :func:`dataclasses.replace`: 1.9 us for 25 fields, not 9.4.
    """
    cls = type(value)
    copy = cls(*_values_of(cls)(value))
    for name, changed in changes.items():
        setattr(copy, name, changed)
    return copy


@cache
def _values_of(cls: Any) -> Callable[[Any], tuple[Any, ...]]:
    return attrgetter(*[one.name for one in fields(cls)])
