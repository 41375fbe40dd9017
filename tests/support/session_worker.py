"""A node with the activities of a session, for tests that kill it: ``session_worker.py STORE...``.

It says which activity has begun, and never ends ``build``.
"""

import sys
from datetime import timedelta

import anyio

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider, activity
from orchestra.providers.postgres import PostgresProvider

LEASE = timedelta(minutes=1)
"""The tests are over long before: the death of a process is noticed by its lock."""


@activity
async def fetch(url: str) -> str:
    print("fetch", flush=True)
    return f"file of {url}"


@activity
async def build(path: str) -> str:
    print("build", flush=True)
    await anyio.sleep_forever()
    return path


async def main():
    kind, *where = sys.argv[1:]
    provider = (
        PostgresProvider(*where)
        if kind == "postgres"
        else SqliteProvider(*where, durability="relaxed")
    )
    empty = OrchestrationRegistry.builder().build()
    async with Runtime(provider, empty, [fetch, build], lease=LEASE) as runtime:
        print(runtime.node_id, flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main)
