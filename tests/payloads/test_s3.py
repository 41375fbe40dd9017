"""Values in S3: a server of moto's on this machine speaks its API."""

from datetime import timedelta

import boto3
import pytest
from moto.server import ThreadedMotoServer

from orchestra import (
    Client,
    Encrypt,
    External,
    InvalidArgument,
    Keys,
    Pipeline,
    Runtime,
    S3Storage,
    StorageUnavailable,
)
from orchestra.providers.memory import Database, MemoryProvider
from tests.payloads.workload import ACTIVITIES, REGISTRY, SECRET, live

pytestmark = pytest.mark.anyio


@pytest.fixture
def s3(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    client = boto3.client("s3")
    client.create_bucket(Bucket="values")
    yield client
    client.close()
    server.stop()


async def test_large_values_live_in_a_bucket_and_are_swept(s3):
    storage = S3Storage("values", "app/")
    s3.put_object(Bucket="values", Key="other/" + "a" * 64, Body=b"of another program")
    payloads = Pipeline(Encrypt(Keys({"k1": Keys.generate()})), External(storage, over=100))
    async with Runtime(
        MemoryProvider(Database()), REGISTRY, ACTIVITIES, payloads=payloads
    ) as runtime:
        await live(runtime.client)
        storage.put("f" * 64, b"never committed")
        stored = [storage.get(key) for key, _ in storage.objects()]
        assert len(stored) > 20
        assert not any(SECRET.encode() in data for data in stored)
        report = await runtime.client.sweep_payloads()
        assert (report.young, report.objects) == (len(stored), len(stored))
        before = report.objects
        runtime.client._access.clock = Later(runtime.client._access.clock)
        report = await runtime.client.sweep_payloads(dry_run=False)
        assert report.deleted >= 1
        assert report.referred + report.deleted == before
        assert (await runtime.client.get_history("kept"))[0].is_readable
    with pytest.raises(KeyError):
        storage.get("f" * 64)
    assert s3.get_object(Bucket="values", Key="other/" + "a" * 64)["Body"].read()


class Later:
    def __init__(self, clock):
        self._clock = clock

    def now(self):
        return self._clock.now() + timedelta(days=30) // timedelta(microseconds=1)

    def monotonic(self):
        return self._clock.monotonic()


async def test_a_bucket_that_is_not_there_refuses_senders(s3):
    with pytest.raises(InvalidArgument):
        S3Storage("")
    payloads = Pipeline(External(S3Storage("missing"), over=100))
    database = Database()
    provider = MemoryProvider(database)
    async with Runtime(provider, REGISTRY, ACTIVITIES, payloads=payloads) as runtime:
        await runtime.client.start("patient", "x", instance_id="p")
        async with Client(MemoryProvider(database), payloads=payloads) as client:
            with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
                await client.raise_event("p", "large", "x" * 200)
