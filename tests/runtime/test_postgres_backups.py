"""What the guide's ``postgres.md`` says of backups: a dump that is taken while nodes run is whole, and goes
on where it is restored.
"""

from __future__ import annotations

import subprocess
from datetime import timedelta

import anyio
import anyio.to_thread
import psycopg
import pytest
from psycopg import conninfo
from psycopg import sql as compose

from orchestra import Runtime, activity
from orchestra.cli.checks import Verdict
from orchestra.cli.server_doctor import examine_server
from orchestra.clock import SystemClock, new_id
from orchestra.providers.postgres import PostgresProvider
from orchestra.testing import check_store
from tests.support.kit import bounded, info_when, registry

pytestmark = pytest.mark.anyio

LEASE = timedelta(seconds=2)
LOOPS = [f"loop-{number}" for number in range(6)]


@activity
async def work(number: int) -> int:
    await anyio.sleep(0.001)
    return number + 1


async def loop(ctx, lap: int) -> int:
    """Laps until it is told to stop; counts them."""
    stop = ctx.wait_for_event("stop")
    if (await ctx.race(stop, ctx.schedule_activity(work, lap))).index == 0:
        return lap
    ctx.continue_as_new(lap + 1)


async def parked(ctx, _: None) -> str:
    return await ctx.wait_for_event("stop", str)


KNOWN = registry(loop, parked)


@pytest.fixture
def tools(postgres):
    """Return a function that runs one of the server's own tools."""
    if not postgres.is_own:
        pytest.skip("databases are not made on somebody else's server")

    def run(name, *arguments):
        subprocess.run(
            [postgres._binaries / name, *arguments], check=True, capture_output=True, timeout=60
        )

    return run


@pytest.fixture
def restored(postgres, dsn):
    """A fresh database. Returns its DSN."""
    if not postgres.is_own:
        pytest.skip("databases are not made on somebody else's server")
    name = f"restored_{new_id()[-12:]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(compose.SQL("CREATE DATABASE {}").format(compose.Identifier(name)))
        yield conninfo.make_conninfo(dsn, dbname=name)
        connection.execute(
            compose.SQL("DROP DATABASE {} WITH (FORCE)").format(compose.Identifier(name))
        )


def node_of(dsn, schema):
    return Runtime(PostgresProvider(dsn, schema), KNOWN, [work], lease=LEASE)


async def begin(node):
    for name in LOOPS:
        await node.client.start("loop", 0, instance_id=name, labels={"group": "loops"})
    await node.client.start("parked", instance_id="parked")
    for name in LOOPS:
        await info_when(node.client.handle(name), lambda info: info.execution_id > 3)


async def goes_on(node):
    """See every loop pass a boundary."""
    for name in LOOPS:
        handle = node.client.handle(name)
        now = await handle.info()
        await info_when(handle, lambda info, now=now: info.execution_id > now.execution_id)


async def end(node):
    for name in LOOPS:
        await node.client.raise_event(name, "stop")
        assert await node.client.handle(name).result(int) >= 3
    await node.client.raise_event("parked", "stop", "told")
    assert await node.client.handle("parked").result(str) == "told"


def findings(dsn, schema):
    return {check.name: check for check in examine_server(dsn, schema, SystemClock()).checks}


@bounded
async def test_a_dump_of_a_running_store_goes_on_in_another_database_while_the_original_runs(
    dsn, restored, tools, tmp_path
):
    schema, file = f"test_{new_id()}", tmp_path / "store.dump"
    async with node_of(dsn, schema) as node:
        await begin(node)
        dump = ["--format=custom", f"--schema={schema}", f"--file={file}", f"--dbname={dsn}"]
        await anyio.to_thread.run_sync(tools, "pg_dump", *dump)
        await goes_on(node)
        await anyio.to_thread.run_sync(tools, "pg_restore", f"--dbname={restored}", str(file))
        found = await anyio.to_thread.run_sync(findings, restored, schema)
        assert found["schema"].verdict is Verdict.OK, found["schema"]
        assert found["held"].text.startswith("none of 7 open instances")
        # The copy still names the original's node as living, and as the owner of the loops.
        async with node_of(restored, schema) as other:
            await goes_on(other)
            await end(other)
        await goes_on(node)
        await end(node)
    for where in (restored, dsn):
        check_store(PostgresProvider(where, schema), KNOWN).raise_if_violated()


@bounded
async def test_a_dump_comes_back_in_place_of_its_store_and_goes_on_from_its_moment(
    dsn, tools, tmp_path
):
    schema, file = f"test_{new_id()}", tmp_path / "store.dump"
    async with node_of(dsn, schema) as node:
        await begin(node)
        dump = ["--format=custom", f"--schema={schema}", f"--file={file}", f"--dbname={dsn}"]
        await anyio.to_thread.run_sync(tools, "pg_dump", *dump)
        await node.client.start("parked", instance_id="later")
        await end(node)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(compose.SQL("DROP SCHEMA {} CASCADE").format(compose.Identifier(schema)))
    await anyio.to_thread.run_sync(tools, "pg_restore", f"--dbname={dsn}", str(file))
    async with node_of(dsn, schema) as node:
        await goes_on(node)
        assert [
            info.instance_id for info in (await node.client.list_instances(name="parked")).items
        ] == ["parked"]
        await end(node)
    check_store(PostgresProvider(dsn, schema), KNOWN).raise_if_violated()
