"""User data as it is stored, and the library's own small facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

__all__ = ["DEFAULT_PAYLOAD_LIMIT", "EMPTY", "JSON", "Payload", "pack", "unpack"]

JSON: Final = 1
"""The encoding number of plain JSON. Others are reserved for compression, encryption and external storage."""

DEFAULT_PAYLOAD_LIMIT: Final = 2 * 1024 * 1024
"""Bytes that one payload may have."""


@dataclass(frozen=True, slots=True)
class Payload:
    """User data as it is stored."""

    data: bytes
    encoding: int = JSON


EMPTY: Final = Payload(b"null")


def pack(values: Mapping[str, Any]) -> bytes:
    """Return the library's own small facts as bytes."""
    return orjson.dumps(values)


def unpack(data: bytes) -> dict[str, Any]:
    """Return what :func:`pack` wrote."""
    return orjson.loads(data)
