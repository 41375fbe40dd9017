"""Encrypted work survives kills: at each commit in memory, and as a process on files and servers,
while the key rotates.
"""

import base64
import json
import subprocess
import sys
from random import Random

import anyio
import pytest

from orchestra import Client, Encrypt, Keys, Pipeline, SqliteProvider
from orchestra.clock import new_id
from orchestra.providers.postgres import PostgresProvider
from orchestra.testing import TestRuntime, check_store, crash_everywhere
from tests.payloads.killed import EXPECTED, REGISTRY, double, pipeline

pytestmark = pytest.mark.anyio


async def test_killed_at_each_commit_in_memory_nothing_is_lost():
    async def scenario():
        keys = Keys({"k1": b"1" * 32, "k2": b"2" * 32}, "k1")
        payloads = Pipeline(Encrypt(keys, plain="refuse"))
        async with TestRuntime(REGISTRY, [double], payloads=payloads) as env:
            await env.client.start("ear", EXPECTED[:10], instance_id="ear")
            handle = await env.client.start("loop", EXPECTED[:10], instance_id="loop")
            keys.use("k2")
            assert await handle.result() == EXPECTED
            assert await env.client.handle("ear").result() == EXPECTED
            return 1

    await crash_everywhere(scenario)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    """Return the URL of a store, its schema, and a function that makes a provider of it."""
    if request.param == "sqlite":
        path = tmp_path / "store.db"
        return str(path), "", lambda: SqliteProvider(path)
    dsn, schema = request.getfixturevalue("dsn"), f"test_{new_id()}"
    return dsn, schema, lambda: PostgresProvider(dsn, schema)


def write_keys(path, current):
    keys = {f"k{number}": base64.b64encode(bytes([number]) * 32).decode() for number in range(10)}
    path.write_text(json.dumps({"current": f"k{current}", "keys": keys}))


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_process_that_is_killed_again_and_again_under_new_keys_finishes(
    place, tmp_path, seed
):
    url, schema, make = place
    keys, drawn = tmp_path / "keys.json", Random(seed)
    write_keys(keys, 0)
    provider = make()
    provider.open()  # makes the store
    try:
        async with Client(make(), payloads=pipeline(keys)) as client:
            for name in ("ear", "loop"):
                await client.start(name, [], instance_id=name, allow_unregistered=True)
    finally:
        provider.close()
    command = [sys.executable, "-m", "tests.payloads.killed", url, schema, str(keys)]
    for number in range(1, 4):
        process = subprocess.Popen(command)
        try:
            await anyio.to_thread.run_sync(process.wait, 0.8 + drawn.random())
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        write_keys(keys, number)
    done = await anyio.to_thread.run_sync(lambda: subprocess.run(command, timeout=90, check=False))
    assert done.returncode == 0
    async with Client(make(), payloads=pipeline(keys)) as client:
        for name in ("ear", "loop"):
            assert await client.handle(name).result() == EXPECTED
        words = [item.value async for item in client.read_stream("loop", "words", follow=False)]
        assert words == EXPECTED
    check_store(make(), REGISTRY, payloads=pipeline(keys)).raise_if_violated()
