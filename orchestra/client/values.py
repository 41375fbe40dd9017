"""Stored values for people: plain JSON values, or a placeholder for an unreadable one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestra.codec import Payload, plain
from orchestra.errors import DecodeError

__all__ = ["Unreadable", "shown"]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Replaces a stored value that cannot be read: it is damaged, or a newer library wrote it.

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
