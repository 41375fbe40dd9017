"""The roles of a store on PostgreSQL: the owner migrates, a worker runs loops, a reader looks; none
can do more.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from orchestra import Client, Encrypt, InstanceStatus, Keys, Latest, Pipeline, Runtime
from orchestra.clock import new_id
from orchestra.errors import SchemaMismatch, StoreReadOnly
from orchestra.providers.postgres import PostgresProvider, grants, schema
from orchestra.store.keys import SOURCES
from orchestra.testing import check_store
from tests.support.kit import bounded, echo, idle, info_when, registry

pytestmark = pytest.mark.anyio

NAME = 'it\'s "a" name; --'
"""What every name of a test begins with: where one is not quoted, nothing works."""


@dataclass
class Roles:
    """A schema that nobody has made yet, and its roles."""

    dsn: str
    schema: str
    owner: str
    worker: str
    reader: str

    def provider(self, role: str, **options) -> PostgresProvider:
        """Return an unopened provider that one of the roles uses."""
        return PostgresProvider(self.dsn_of(role), self.schema, **options)

    def dsn_of(self, role: str) -> str:
        return psycopg.conninfo.make_conninfo(self.dsn, user=role)

    def grant(self) -> None:
        """Run the statements, as a superuser does."""
        with psycopg.connect(self.dsn) as connection:
            for statement in grants(
                self.schema, owner=self.owner, workers=[self.worker], readers=[self.reader]
            ):
                connection.execute(statement)

    def make(self) -> None:
        """Make the store, as its owner."""
        provider = self.provider(self.owner)
        provider.open()
        provider.close()


@pytest.fixture
def roles(postgres, dsn):
    """Roles of this test's own, which may do nothing yet."""
    if not postgres.is_own:
        pytest.skip("roles are not made on somebody else's server")
    ending = new_id()[-16:]
    names = [f"{NAME} {kind} {ending}" for kind in ("owner", "worker", "reader")]
    found = Roles(dsn, f"{NAME} {ending}", *names)
    with psycopg.connect(dsn, autocommit=True) as connection, ExitStack() as stack:
        for name in names:
            role = sql.Identifier(name)
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
            stack.callback(connection.execute, sql.SQL("DROP ROLE {}").format(role))
            stack.callback(connection.execute, sql.SQL("DROP OWNED BY {} CASCADE").format(role))
        yield found


@pytest.fixture(params=["before", "after"])
def store(request, roles):
    """A store whose roles got their privileges before it was made, or afterwards."""
    if request.param == "before":
        roles.grant()
        roles.make()
    else:
        with psycopg.connect(roles.dsn) as connection:
            connection.execute(
                sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(
                    sql.Identifier(roles.schema), sql.Identifier(roles.owner)
                )
            )
        roles.make()
        roles.grant()
    roles.grant()  # once more changes nothing
    yield roles
    check_store(roles.provider(roles.reader, migrate=False)).raise_if_violated()


async def loop(ctx, lap: int):
    if await ctx.wait_for_event("on", bool):
        ctx.continue_as_new(lap + 1)
    return lap


@bounded
async def test_a_worker_runs_loops_and_makes_no_tables(store):
    async with Runtime(store.provider(store.worker, migrate=False), registry(loop)) as runtime:
        handle = await runtime.client.start("loop", 1, instance_id="loop", labels={"team": "blue"})
        for on in (True, True, False):
            await handle.raise_event("on", on)
        assert await handle.result() == 3
        await runtime.client.set_version_policy("loop", Latest())
        await runtime.client.delete("loop")
    with psycopg.connect(store.dsn_of(store.worker), autocommit=True) as connection:
        for statement in (
            "CREATE TABLE {}.own (a int)",
            "ALTER TABLE {}.instance ADD own int",
            "DROP TABLE {}.instance",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL(statement).format(sql.Identifier(store.schema)))


@bounded
async def test_a_reader_looks_and_waits_and_every_write_is_refused_with_its_remedy(store):
    async with (
        Runtime(store.provider(store.worker, migrate=False), registry(loop, idle, echo)) as runtime,
        Client(store.provider(store.reader)) as client,
    ):
        await runtime.client.start("loop", 1, instance_id="loop")
        await runtime.client.raise_event("loop", "on", True)
        info = await info_when(
            client.handle("loop"), lambda info: info.execution_id == 2 and info.waiting_on
        )
        assert (info.status, info.input) == (InstanceStatus.RUNNING, 2)
        assert [one.instance_id for one in (await client.list_instances(name="loop")).items] == [
            "loop"
        ]
        assert [lap.execution_id for lap in await client.list_executions("loop")] == [1, 2]
        assert await client.get_history("loop", 1)
        assert [node.node_id for node in await client.list_nodes()] == [runtime.node_id]
        assert (await client.get_version_policy("loop")).policy == Latest()
        for write in (
            client.start("loop", 1),
            client.raise_event("loop", "on", False),
            client.cancel("loop"),
            client.terminate("loop"),
            client.set_version_policy("loop", Latest()),
            client.pin("loop", "1.0.0"),
        ):
            with pytest.raises(StoreReadOnly, match=r"orchestra grants --worker ROLE"):
                await write
        await runtime.client.raise_event("loop", "on", False)
        ended = await client.wait_for_completion("loop", timedelta(seconds=15))
        assert (ended.output, ended.pinned_version) == (2, None)
        with pytest.raises(StoreReadOnly, match=r"orchestra grants"):
            await client.delete("loop")


@bounded
async def test_tables_of_a_later_migration_are_covered(store, monkeypatch):
    known = schema.migrations()
    later = schema.Migration(len(known) + 1, 1, "CREATE TABLE @later (a int)")
    monkeypatch.setattr(schema, "migrations", lambda *_: (*known, later))
    with pytest.raises(SchemaMismatch):
        store.provider(store.worker, migrate=False).open()
    with pytest.raises(StoreReadOnly, match="migrate=False"):
        store.provider(store.worker).open()
    store.make()
    for role, statement in (
        (store.worker, "INSERT INTO {}.later VALUES (1)"),
        (store.reader, "SELECT a FROM {}.later"),
    ):
        with psycopg.connect(store.dsn_of(role)) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(store.schema)))


def test_who_was_granted_nothing_is_told_what_is_missing(roles):
    with psycopg.connect(roles.dsn) as connection:
        for statement in grants(roles.schema, owner=roles.owner):
            connection.execute(statement)
    roles.make()
    with pytest.raises(StoreReadOnly, match="orchestra grants"):
        roles.provider(roles.worker, migrate=False).open()


@pytest.mark.parametrize("name", ["", "public", "none", "a\0b", "ü" * 32])
def test_a_name_that_the_server_would_take_for_another_is_refused(name):
    for names in (
        {"owner": name},
        {"owner": "o", "workers": [name]},
        {"owner": "o", "readers": [name]},
    ):
        with pytest.raises(ValueError, match="name"):
            grants(**names)


@bounded
async def test_a_worker_seals_values_and_leaves_their_indexes_to_the_owner(store):
    pipeline = Pipeline(Encrypt(Keys({"k1": Keys.generate()})))
    indexes = (
        "SELECT count(*) FROM pg_indexes WHERE schemaname = %s AND starts_with(indexname, 'key_')"
    )
    with psycopg.connect(store.dsn, autocommit=True) as connection:
        for role, number in ((store.worker, 0), (store.reader, 0), (store.owner, len(SOURCES))):
            async with Client(store.provider(role), payloads=pipeline) as client:
                if role == store.worker:
                    await client.start("loop", 1, allow_unregistered=True)
                (used,) = await client.list_keys()
                assert (used.key_id, used.needed) == ("k1", 1)
            assert connection.execute(indexes, (store.schema,)).fetchone() == (number,)
