"""The embedded store: SQLite in write-ahead mode, one file."""

from __future__ import annotations

from orchestra.providers.sqlite.backup import Backup, back_up
from orchestra.providers.sqlite.provider import SqliteProvider

__all__ = ["Backup", "SqliteProvider", "back_up"]
