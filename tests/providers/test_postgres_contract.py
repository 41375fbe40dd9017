"""PostgreSQL keeps the contract of a provider."""

from __future__ import annotations

from dataclasses import replace
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
from tests.support.contract.audit import AuditTests
from tests.support.contract.claims import ClaimTests
from tests.support.contract.families import FamilyTests
from tests.support.contract.messages import MessageTests
from tests.support.contract.nodes import NodeTests
from tests.support.contract.requests import RequestTests
from tests.support.contract.retention import RetentionTests
from tests.support.contract.streams import StreamTests
from tests.support.contract.tallies import TallyTests
from tests.support.contract.tasks import TaskTests
from tests.support.schemas import Lease


class OnPostgres:
    """How a provider on the server of the tests is made."""

    @pytest.fixture(autouse=True)
    def _server(self, dsn: str, lease: Lease) -> None:
        self.dsn = dsn
        self.lease = lease

    def make_provider(
        self, location: Path, clock: Clock, library: Library = THIS_LIBRARY
    ) -> Provider:
        self.schema = self.lease.name_of(location, library)
        return PostgresProvider(self.dsn, self.schema, clock=clock, library=library)

    def give_back(self, location: Path) -> None:
        self.lease.give_back(location)

    def read_audit(self, provider):
        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute(
                sql.SQL(
                    "SELECT actor, action, subject, detail FROM {}.operation ORDER BY at, "
                    "operation_id"
                ).format(sql.Identifier(self.schema))
            ).fetchall()
        return [(actor, action, subject, unpack(detail)) for actor, action, subject, detail in rows]


class TestPostgres(OnPostgres, ProviderContract):
    """The whole contract."""


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


@pytest.mark.campaign
class TestPostgresWithEmptyStatistics(
    OnPostgres,
    AuditTests,
    ClaimTests,
    FamilyTests,
    MessageTests,
    NodeTests,
    RequestTests,
    RetentionTests,
    StreamTests,
    TallyTests,
    TaskTests,
):
    """What chooses rows up to a limit, with the plans that a server makes for tables that were empty
    when it looked: it joins row by row, and computes the inner side of a join once for each row of
    the outer side.
    """

    test_of_a_long_backlog_a_part_goes_at_a_time_the_oldest_first = None
    """Such plans are quadratic: on a busy machine this many rows take longer than a statement may."""

    def make_provider(
        self, location: Path, clock: Clock, library: Library = THIS_LIBRARY
    ) -> Provider:
        provider = super().make_provider(location, clock, library)
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "UPDATE pg_class SET relpages = 1, reltuples = 0 "
                "WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r'",
                (self.schema,),
            )
        return provider
