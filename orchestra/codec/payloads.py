"""User data as it is stored, and the library's own small facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from orchestra.frozen import frozen

__all__ = ["DEFAULT_PAYLOAD_LIMIT", "EMPTY", "JSON", "Payload", "pack", "unpack"]

JSON: Final = 1
"""The encoding number of plain JSON. Others are reserved for compression, encryption and external
storage.
"""

DEFAULT_PAYLOAD_LIMIT: Final = 2 * 1024 * 1024
"""Bytes that one payload may have."""


@frozen
class Payload:
    """User data as it is stored."""

    data: bytes
    encoding: int = JSON


EMPTY: Final = Payload(b"null")


# The functions themselves, and none around them: each event and each row has such facts.
pack: Final[Callable[[Mapping[str, Any]], bytes]] = orjson.dumps
"""Return the library's own small facts as bytes."""

unpack: Final[Callable[[bytes], dict[str, Any]]] = orjson.loads
"""Return what :func:`pack` wrote."""
