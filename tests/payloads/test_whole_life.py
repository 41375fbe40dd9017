"""An encrypted workload that has touched every kind of value leaves no plain text in the store."""

from base64 import b64encode

import pytest

from orchestra import Compress, Encrypt, Keys, Pipeline, Runtime, SqliteProvider
from orchestra.clock import new_id
from orchestra.providers.postgres import PostgresProvider
from orchestra.testing import check_store
from tests.payloads.workload import ACTIVITIES, REGISTRY, SECRET, live

pytestmark = pytest.mark.anyio

PIPELINE = Pipeline(Compress(500), Encrypt(Keys({"k1": Keys.generate()})))


def planted_in(dump: bytes) -> list[bytes]:
    """Return where the planted text stands, also as base64 or hexadecimal digits."""
    forms = [SECRET.encode(), SECRET.encode().hex().encode()]
    forms += [b64encode(b"x" * pad + SECRET.encode())[4:-4] for pad in range(3)]
    found = []
    for form in forms:
        at = dump.find(form)
        while at >= 0:
            found.append(dump[max(0, at - 80) : at + 80])
            at = dump.find(form, at + 1)
    return found


def stored_in_file(path):
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())


async def run(provider, payloads):
    async with Runtime(provider, REGISTRY, ACTIVITIES, payloads=payloads) as runtime:
        await live(runtime.client)


async def test_in_a_file_of_sqlite_no_plain_text_is_left(tmp_path):
    path = tmp_path / "store.db"
    await run(SqliteProvider(path, durability="relaxed"), PIPELINE)
    assert planted_in(stored_in_file(path)) == []
    check_store(SqliteProvider(path), REGISTRY, payloads=PIPELINE).raise_if_violated()


async def test_without_a_pipeline_it_is_so_that_the_search_finds_what_it_looks_for(tmp_path):
    path = tmp_path / "store.db"
    await run(SqliteProvider(path, durability="relaxed"), None)
    assert len(planted_in(stored_in_file(path))) > 50


async def test_in_a_dump_of_postgresql_no_plain_text_is_left(dsn):
    schema = f"test_{new_id()}"
    await run(PostgresProvider(dsn, schema), PIPELINE)
    provider = PostgresProvider(dsn, schema)
    check_store(provider, REGISTRY, payloads=PIPELINE).raise_if_violated()
    assert planted_in(_rows(dsn, schema)) == []


def _rows(dsn, schema):
    """Return every row of a schema as text."""
    import psycopg

    parts = []
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", [schema]
        ).fetchall()
        for (table,) in tables:
            for (row,) in connection.execute(f'SELECT t::text FROM "{schema}"."{table}" t'):
                parts.append(row.encode())
    assert len(parts) > 100
    return b"\n".join(parts)
