"""The store in memory keeps the contract of a provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.clock import Clock
from orchestra.providers.memory import Database, MemoryProvider
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.port import Provider
from tests.support.contract import ProviderContract


class TestMemory(ProviderContract):
    @pytest.fixture(autouse=True)
    def _no_databases(self) -> None:
        self.databases: dict[Path, Database] = {}

    def make_provider(
        self, location: Path, clock: Clock, library: Library = THIS_LIBRARY
    ) -> Provider:
        return MemoryProvider(
            self.databases.setdefault(location, Database()), clock=clock, library=library
        )

    def read_audit(self, provider):
        return [
            (one.by, one.action, one.subject, one.detail) for one in provider.database.operations
        ]
