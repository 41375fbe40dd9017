"""A store in memory: the same protocol as everywhere, without a file or a server."""

from __future__ import annotations

from orchestra.providers.memory.database import Database
from orchestra.providers.memory.provider import MemoryProvider

__all__ = ["Database", "MemoryProvider"]
