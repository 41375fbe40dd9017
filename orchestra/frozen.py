"""Values that nothing changes once they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

__all__ = ["frozen"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class a dataclass with slots, whose fields type checkers keep from being changed.

    At run time nothing does: ``@dataclass(frozen=True)`` sets each field by a call, which takes 2.0
    us for five fields in place of 0.6. An instance of one activity makes some sixty rows, events
    and items, and this was 15 % of all its instructions. Values that are handed to users are frozen
    at run time, too.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
