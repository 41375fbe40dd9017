"""PostgreSQL keeps the contract of a provider."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import pytest

from orchestra.clock import Clock
from orchestra.providers.interfaces import Provider
from orchestra.providers.postgres import PostgresProvider
from orchestra.testing.contract import ProviderContract


def schema_of(location: Path) -> str:
    return "test_" + blake2b(str(location).encode(), digest_size=12).hexdigest()


class TestPostgres(ProviderContract):
    @pytest.fixture(autouse=True)
    def _server(self, dsn: str) -> None:
        self.dsn = dsn

    def make_provider(self, location: Path, clock: Clock) -> Provider:
        return PostgresProvider(self.dsn, schema_of(location), clock=clock)
