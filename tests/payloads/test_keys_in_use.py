"""Which keys stored values need, on each store; and what a sweep of the external storage leaves."""

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from orchestra import (
    Client,
    DirectoryStorage,
    Encrypt,
    External,
    InvalidArgument,
    Keys,
    Pipeline,
    Runtime,
    SqliteProvider,
)
from orchestra.cli import main
from orchestra.clock import new_id
from orchestra.payloads.provider import with_payloads
from orchestra.providers.memory import Database, MemoryProvider
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.keys import SOURCES
from tests.payloads.workload import ACTIVITIES, REGISTRY, live, soon

pytestmark = pytest.mark.anyio

PIPELINE = Pipeline(Encrypt(Keys({"k9": b"9" * 32})))


async def waits(runtime, instance_id):
    async def look():
        return (await runtime.client.get_instance_info(instance_id)).waiting_on

    return await soon(look)


async def test_each_kind_of_value_counts_for_its_key(any_store):
    keys = Keys({"k1": Keys.generate()})
    async with Runtime(
        any_store(), REGISTRY, ACTIVITIES, payloads=Pipeline(Encrypt(keys))
    ) as runtime:
        await live(runtime.client)
        (info,) = await runtime.client.list_keys()
        assert (info.key_id, info.known, info.current, info.more) == ("k1", True, True, False)
        counts = await runtime.client.count_instances()
        running = (
            await runtime.client.count_instances(status=["running", "held", "pending"])
        ).total
        assert info.needed == running + 2  # schedules
        assert info.needed + info.kept == counts.total + 2
        assert len(info.examples) == 5
        (few,) = await runtime.client.list_keys(limit=2)
        assert few.more
        assert few.needed < info.needed
        keys.add("k2", Keys.generate())
        keys.use("k2")
        await runtime.client.start("patient", "x", instance_id="young")
        await waits(runtime, "young")
        old, new = await runtime.client.list_keys()
        assert (old.needed, old.kept) == (info.needed, info.kept)
        assert (new.key_id, new.needed, new.kept, new.examples) == ("k2", 1, 0, ("young",))
    async with Client(any_store(), payloads=PIPELINE) as client:
        found = {one.key_id: (one.known, one.current) for one in await client.list_keys()}
        assert found == {"k1": (False, False), "k2": (False, False), "k9": (True, True)}
    async with Client(any_store()) as client:
        assert [one.key_id for one in await client.list_keys()] == ["k1", "k2"]
        with pytest.raises(InvalidArgument):
            await client.list_keys(limit=0)


async def test_without_sealed_values_no_key_is_needed(any_store):
    async with Runtime(any_store(), REGISTRY, ACTIVITIES) as runtime:
        await runtime.client.start("patient", "x")
        assert await runtime.client.list_keys() == ()


async def test_keys_are_the_same_where_the_provider_may_make_no_index(any_store, monkeypatch):
    keys = Keys({"k1": Keys.generate()})
    for kind in (SqliteProvider, PostgresProvider):
        monkeypatch.setattr(kind, "index_keys", lambda self: None)
    async with Runtime(
        any_store(), REGISTRY, ACTIVITIES, payloads=Pipeline(Encrypt(keys))
    ) as runtime:
        await live(runtime.client)
        read_all = await runtime.client.list_keys()
    monkeypatch.undo()
    async with Client(any_store(), payloads=PIPELINE) as client:
        indexed = await client.list_keys()
    async with Client(any_store()) as client:
        assert await client.list_keys() == tuple(
            replace(one, known=False, current=False) for one in indexed if one.key_id == "k1"
        )
    assert [(one.key_id, one.needed, one.kept) for one in read_all] == [
        (one.key_id, one.needed, one.kept) for one in indexed if one.key_id == "k1"
    ]


async def test_a_loop_that_crosses_a_boundary_needs_the_old_key_no_more(any_store):
    keys = Keys({"k1": Keys.generate()})
    async with Runtime(
        any_store(), REGISTRY, ACTIVITIES, payloads=Pipeline(Encrypt(keys))
    ) as runtime:
        client = runtime.client
        await client.start("moved", "raw", version="1.0.0", instance_id="m")
        await client.start("patient", "old", instance_id="p")
        await waits(runtime, "m")
        await waits(runtime, "p")
        keys.add("k2", Keys.generate())
        keys.use("k2")
        await client.raise_event("p", "later", "x")
        first, second = await client.list_keys()
        assert (first.needed, second.needed) == (2, 1)
        await client.rewind("p", 1)
        await waits(runtime, "p")
        first, second = await client.list_keys()
        assert (first.examples[:1], first.needed, second.examples) == (("m",), 1, ("p",))
        await client.terminate("m")
        await client.handle("m").wait()
        first, _ = await client.list_keys()
        assert (first.needed, set(first.examples)) == (0, {"m", "p"})


async def test_a_sweep_deletes_what_no_value_refers_to(any_store, tmp_path):
    storage = DirectoryStorage(tmp_path / "values")
    keys = Keys({"k1": Keys.generate()})
    payloads = Pipeline(Encrypt(keys), External(storage, over=100))
    async with Runtime(any_store(), REGISTRY, ACTIVITIES, payloads=payloads) as runtime:
        client = runtime.client
        await live(client)
        await client.start("patient", "p" * 500, instance_id="gone")
        await client.terminate("gone")
        await client.handle("gone").wait()
        (tmp_path / "values" / "ff").mkdir(exist_ok=True)
        storage.put("f" * 64, b"never committed")
        before = {key for key, _ in storage.objects()}
        young = await client.sweep_payloads()
        assert (young.young, young.deleted, young.dry_run) == (len(before), 0, True)
        for key in before:
            os.utime(tmp_path / "values" / key[:2] / key, (0, 0))
        await client.delete("gone")
        dry = await client.sweep_payloads()
        assert dry.deleted >= 2
        done = await client.sweep_payloads(dry_run=False)
        assert done.deleted == dry.deleted
        assert "f" * 64 not in {key for key, _ in storage.objects()}
        for one in (await client.list_instances()).items:
            number = (await client.get_instance_info(one.instance_id)).execution_id
            for event in await client.get_history(one.instance_id, number):
                assert event.is_readable
        with pytest.raises(InvalidArgument):
            await client.sweep_payloads(older_than=timedelta(minutes=1))
    async with Client(any_store(), payloads=PIPELINE) as client:
        with pytest.raises(InvalidArgument, match="no storage"):
            await client.sweep_payloads()


async def test_a_storage_of_two_methods_cannot_be_swept():
    class Two:
        def put(self, key, data): ...
        def get(self, key): ...

    async with Client(MemoryProvider(Database()), payloads=Pipeline(External(Two()))) as client:
        with pytest.raises(InvalidArgument, match="cannot be swept"):
            await client.sweep_payloads()


APP = """
from orchestra import DirectoryStorage, Encrypt, External, Keys, Pipeline

pipeline = Pipeline(Encrypt(Keys({"k1": b"1" * 32})), External(DirectoryStorage("values"), over=100))
"""


def test_the_command_line_opens_values_with_a_pipeline_and_lists_keys(
    tmp_path, monkeypatch, capsys
):
    import anyio

    monkeypatch.chdir(tmp_path)
    (tmp_path / "app_of_keys.py").write_text(APP)

    async def fill():
        payloads = Pipeline(
            Encrypt(Keys({"k1": b"1" * 32})), External(DirectoryStorage("values"), over=100)
        )
        provider = SqliteProvider("store.db", durability="relaxed")
        async with Runtime(provider, REGISTRY, ACTIVITIES, payloads=payloads) as runtime:
            await runtime.client.start("patient", "plain text", instance_id="p")
            await waits(runtime, "p")

    anyio.run(fill)
    on = ["--store", "store.db"]
    pipeline = ["--payloads", "app_of_keys:pipeline"]
    assert main(["show", "p", *on]) == 0
    assert "k1" in (shown := capsys.readouterr().out)
    assert "plain text" not in shown
    assert main(["ls", *on]) == 0
    assert main(["show", "p", *on, *pipeline]) == 0
    assert "plain text" in capsys.readouterr().out
    assert main(["keys", *on, *pipeline]) == 0
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line == ["k1", "writes", "1", "0", "p"]
    assert main(["keys", *on, "-o", "jsonl"]) == 0
    assert '"key_id":"k1"' in capsys.readouterr().out
    assert main(["doctor", *on]) in {0, 1}
    assert "plain text" not in capsys.readouterr().out
    assert main(["sweep", *on, *pipeline]) == 0
    assert "0 would be deleted" in capsys.readouterr().out
    assert main(["sweep", *on]) != 0
    assert "no storage" in capsys.readouterr().err
    assert main(["ls", *on, "--payloads", "app_of_keys:Keys"]) != 0
    assert "no pipeline" in capsys.readouterr().err


def test_on_sqlite_every_question_about_keys_reads_an_index_of_sealed_values(tmp_path):
    from orchestra.providers.sqlite.keys import _STATEMENTS

    provider = SqliteProvider(tmp_path / "store.db")
    provider.open()
    provider.index_keys()
    provider.close()
    connection = sqlite3.connect(tmp_path / "store.db")
    for source, next_key, ids in _STATEMENTS[True]:
        for statement, values in ((next_key, [b""]), (ids, [b"k", 10])):
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
            assert not [
                step for step in plan if step.startswith("SCAN") and source.table in step.split()
            ]
            searched = [step for step in plan if f"SEARCH {source.table} " in step]
            assert searched
            assert all(source.name in step for step in searched), (source.name, plan)
    connection.close()


def test_a_store_pays_for_the_indexes_of_keys_once_a_pipeline_has_opened_it(tmp_path):
    plain = SqliteProvider(tmp_path / "store.db")
    sealing = with_payloads(SqliteProvider(tmp_path / "store.db"), PIPELINE)
    strict = with_payloads(SqliteProvider(tmp_path / "store.db", migrate=False), PIPELINE)
    for provider, number in (
        (plain, 0),
        (strict, 0),
        (sealing, len(SOURCES)),
        (plain, len(SOURCES)),
    ):
        provider.open()
        provider.close()
        with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
            names = "SELECT name FROM sqlite_master WHERE type = 'index' AND name GLOB 'key_*'"
            assert len(connection.execute(names).fetchall()) == number


def test_on_postgres_the_owner_of_the_schema_makes_the_indexes_of_keys(dsn):
    schema = f"test_{new_id()}"
    names = (
        "SELECT indexname FROM pg_indexes WHERE schemaname = %s AND starts_with(indexname, 'key_')"
    )
    with psycopg.connect(dsn, autocommit=True) as connection:

        def opened(**options):
            provider = with_payloads(PostgresProvider(dsn, schema, **options), PIPELINE)
            provider.open()
            provider.close()
            return len(connection.execute(names, (schema,)).fetchall())

        plain = PostgresProvider(dsn, schema)
        plain.open()
        plain.close()
        assert opened(migrate=False) == 0
        assert opened() == len(SOURCES)
        assert opened() == len(SOURCES)
        connection.execute(f'DROP SCHEMA "{schema}" CASCADE')
