"""SQLite keeps the contract of a provider."""

from __future__ import annotations

from pathlib import Path

from orchestra.clock import Clock
from orchestra.providers.interfaces import Provider
from orchestra.providers.sqlite import SqliteProvider
from orchestra.testing.contract import ProviderContract


class TestSqlite(ProviderContract):
    def make_provider(self, location: Path, clock: Clock) -> Provider:
        return SqliteProvider(location / "store.db", clock=clock)
