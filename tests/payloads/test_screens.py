"""The dashboard and the HTTP API over sealed values and over secrets."""

import pytest

from orchestra import Client, Encrypt, Keys, OrchestrationRegistry, Pipeline, Runtime, Secret
from orchestra.providers.memory import Database, MemoryProvider
from orchestra.web import create_app
from tests.payloads.workload import ACTIVITIES, REGISTRY, SECRET, live, soon
from tests.support.web import reach

pytestmark = pytest.mark.anyio

PAGES = [
    "/",
    "/instances",
    "/held",
    "/boundaries",
    "/audit",
    "/schedules",
    "/versions",
    "/nodes",
    "/counts",
]


async def seen_by(client):
    """Return every page and every answer that an operator may look at."""
    told = {}
    async with reach(create_app(client)) as http:
        ids = [one.instance_id for one in (await client.list_instances()).items]
        api = ["", "/history", "/executions", "/messages", "/streams"]
        paths = [*PAGES, "/api/v1/instances", "/api/v1/schedules", "/api/v1/operations"]
        paths += [f"/instances/{one}" for one in ids]
        paths += [f"/api/v1/instances/{one}{tail}" for one in ids for tail in api]
        for path in paths:
            answer = await http.get(path)
            told[path] = answer
    return told


async def test_without_the_key_every_page_works_and_shows_no_value():
    database = Database()
    payloads = Pipeline(Encrypt(Keys({"k1": Keys.generate()})))
    async with Runtime(
        MemoryProvider(database), REGISTRY, ACTIVITIES, payloads=payloads
    ) as runtime:
        await live(runtime.client)
        with_key = await seen_by(runtime.client)
    for without in (None, Pipeline(Encrypt(Keys({"k2": Keys.generate()})))):
        async with Client(MemoryProvider(database), payloads=without) as client:
            told = await seen_by(client)
        assert told.keys() == with_key.keys()
        for path, answer in told.items():
            assert answer.status_code == with_key[path].status_code < 500, (
                path,
                answer.text[-800:],
            )
            assert SECRET not in answer.text, path
        assert "k1" in told["/instances/kept"].text
    assert sum(SECRET in answer.text for answer in with_key.values()) > 10
    assert sum(answer.status_code == 200 for answer in with_key.values()) > len(with_key) * 0.7


async def waits(ctx, token: Secret[str]):
    ctx.set_custom_status({"token": token})
    await ctx.wait_for_event("never")


async def test_a_secret_is_masked_on_every_page():
    registry = OrchestrationRegistry.builder().register("waits", waits).build()
    async with Runtime(MemoryProvider(Database()), registry) as runtime:
        client = runtime.client
        await client.start("waits", Secret(SECRET), instance_id="s")
        await client.raise_event("s", "later", Secret(SECRET))

        async def is_waiting():
            return (await client.get_instance_info("s")).waiting_on

        await soon(is_waiting)
        told = await seen_by(client)
        assert "**********" in told["/instances/s"].text
        assert "**********" in told["/api/v1/instances/s"].text
        assert not [path for path, answer in told.items() if SECRET in answer.text]
