"""Stored values as people are shown them: plain JSON values, or, where one cannot be read, what is
known of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestra.codec import Payload, plain
from orchestra.errors import DecodeError

__all__ = ["Unreadable", "shown"]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where a stored value cannot be read: it is damaged, or written by a library that knows
    more than this one.

    ``size`` is its length in bytes.
    """

    reason: str
    size: int

    def __str__(self) -> str:
        return f"unreadable ({self.size:,} bytes): {self.reason}"


def shown(payload: Payload | None) -> Any:
    """Return a payload as plain JSON values, or as :class:`Unreadable`. Never fails."""
    try:
        return plain(payload)
    except DecodeError as error:
        return Unreadable(str(error), 0 if payload is None else len(payload.data))
