"""PostgreSQL keeps the contract of a provider."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from orchestra.clock import Clock
from orchestra.codec import unpack
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.kinds import THIS_LIBRARY, Library
from orchestra.store.port import Provider
from tests.support.contract import ProviderContract


def schema_of(location: Path) -> str:
    return "test_" + blake2b(str(location).encode(), digest_size=12).hexdigest()


class TestPostgres(ProviderContract):
    @pytest.fixture(autouse=True)
    def _server(self, dsn: str) -> None:
        self.dsn = dsn

    def make_provider(
        self, location: Path, clock: Clock, library: Library = THIS_LIBRARY
    ) -> Provider:
        self.schema = schema_of(location)
        return PostgresProvider(self.dsn, self.schema, clock=clock, library=library)

    def read_audit(self, provider):
        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute(
                sql.SQL(
                    "SELECT actor, action, subject, detail FROM {}.operation ORDER BY at, "
                    "operation_id"
                ).format(sql.Identifier(self.schema))
            ).fetchall()
        return [(actor, action, subject, unpack(detail)) for actor, action, subject, detail in rows]


@pytest.mark.campaign
class TestPostgresThatReadsFirst(TestPostgres):
    """The same, without the statements that write plain groups on trust."""

    def make_provider(
        self, location: Path, clock: Clock, library: Library = THIS_LIBRARY
    ) -> Provider:
        provider = super().make_provider(location, clock, library)
        assert isinstance(provider, PostgresProvider)
        provider.store._settings = replace(provider.store._settings, trusting=False)
        return provider
