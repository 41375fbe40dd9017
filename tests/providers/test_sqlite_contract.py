"""SQLite keeps the contract of a provider."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestra.clock import Clock
from orchestra.codec import unpack
from orchestra.providers.sqlite import SqliteProvider
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.port import Provider
from tests.support.contract import ProviderContract


class TestSqlite(ProviderContract):
    def make_provider(
        self, location: Path, clock: Clock, library: Library = THIS_LIBRARY
    ) -> Provider:
        return SqliteProvider(location / "store.db", clock=clock, library=library)

    def read_audit(self, provider):
        rows = provider._writer._session.connection.execute(
            "SELECT actor, action, subject, detail FROM operation ORDER BY operation_id"
        )
        return [(actor, action, subject, unpack(detail)) for actor, action, subject, detail in rows]


@pytest.mark.slow
class TestSqliteThatReadsFirst(TestSqlite):
    """The same, without the statements that write plain groups on trust."""

    def make_provider(
        self, location: Path, clock: Clock, library: Library = THIS_LIBRARY
    ) -> Provider:
        file = location / "store.db"
        provider = SqliteProvider(file, clock=clock, library=library, durability="relaxed")
        provider.store._settings = replace(provider.store._settings, trusting=False)
        return provider
