"""Keys that go away and come back, rotation while loops run, and values that were moved or changed
in the store.
"""

from contextlib import suppress
from datetime import timedelta

import pytest

from orchestra import (
    Client,
    Compress,
    DirectoryStorage,
    Encrypt,
    External,
    HoldKind,
    InstanceStatus,
    KeyMissing,
    Keys,
    OrchestrationRegistry,
    PayloadUnreadable,
    Pipeline,
    Runtime,
    SqliteProvider,
    StorageUnavailable,
    activity,
)
from orchestra.client.values import Unreadable
from orchestra.providers.memory import Database, MemoryProvider
from tests.payloads.workload import ACTIVITIES, SECRET, live, soon
from tests.payloads.workload import REGISTRY as WHOLE_LIFE

pytestmark = pytest.mark.anyio

K1, K2 = Keys.generate(), Keys.generate()
POLL = timedelta(milliseconds=20)


async def loop(ctx, laps: list[str]):
    """Takes an event a lap; each is a word, and "end" ends it."""
    ctx.set_custom_status(laps)
    word = await ctx.wait_for_event("word", str)
    if word == "end":
        return laps
    ctx.continue_as_new([*laps, word])


async def other(ctx, word: str):
    return word


@activity
async def echo(word):
    return word


async def works(ctx, word: str):
    try:
        first = await ctx.schedule_activity(echo, word)
        await ctx.wait_for_event("go")
        return [first, await ctx.schedule_activity(echo, word)]
    except Exception:  # code never learns that a value is sealed
        return "swallowed"


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("loop", loop)
    .register("other", other)
    .register("works", works)
    .build()
)


@pytest.fixture
def store():
    database = Database()
    return lambda: MemoryProvider(database)


def encrypting(**keys):
    """Return a pipeline that writes with the last key."""
    return Pipeline(Encrypt(Keys(keys, current=list(keys)[-1])))


def node(provider, payloads, **options):
    return Runtime(provider, REGISTRY, [echo], payloads=payloads, poll=POLL, **options)


async def info_when(client, instance_id, condition):
    async def look():
        info = await client.get_instance_info(instance_id)
        return info if condition(info) else None

    return await soon(look)


def held(info):
    return info.hold is not None


async def in_lap(client, number):
    return await info_when(
        client, "l", lambda info: info.execution_id == number and info.waiting_on
    )


async def begun(client):
    await client.start("loop", [], instance_id="l")
    await client.raise_event("l", "word", "one")
    await in_lap(client, 2)


# --- a key goes away and comes back ---


@pytest.mark.parametrize("without", [None, encrypting(k2=K2)], ids=["no pipeline", "another key"])
async def test_without_its_key_an_instance_is_held_and_goes_on_once_the_key_is_back(store, without):
    async with node(store(), encrypting(k1=K1)) as runtime:
        await begun(runtime.client)
        await runtime.client.start("works", "w", instance_id="w")
        await info_when(runtime.client, "w", lambda info: len(info.waiting_on) == 1)
    async with node(store(), without) as runtime:
        client = runtime.client
        assert await (await client.start("other", "x")).result() == "x"
        await client.raise_event("w", "go")
        await client.raise_event("l", "word", "two")
        for instance_id in ("l", "w"):
            info = await info_when(client, instance_id, held)
            assert (info.status, info.hold.kind) == (InstanceStatus.HELD, HoldKind.PAYLOAD)
            assert "key 'k1'" in info.hold.detail
            assert "once a node has the key" in info.hold.releases_when
            assert isinstance(info.input, Unreadable)
            assert "k1" in info.input.reason
        assert len((await client.list_instances()).items) == 3
        assert next(event.kind for event in await client.get_history("w")) == "execution_started"
        page = await client.list_instances(held=HoldKind.PAYLOAD)
        assert {one.instance_id for one in page.items} == {"l", "w"}
        with pytest.raises((KeyMissing, PayloadUnreadable), match="k1"):
            await client.rerun("l")
    async with node(store(), encrypting(k1=K1, k2=K2)) as runtime:
        client = runtime.client
        assert (await in_lap(client, 3)).input == ["one", "two"]
        await client.raise_event("l", "word", "end")
        assert await client.handle("l").result() == ["one", "two"]
        assert await client.handle("w").result() == ["w", "w"]


async def test_a_running_node_takes_a_key_that_is_added_and_needs_no_restart(store):
    async with node(store(), encrypting(k1=K1)) as runtime:
        await begun(runtime.client)
    keys = Keys({"k2": K2})
    async with node(store(), Pipeline(Encrypt(keys))) as runtime:
        client = runtime.client
        await client.raise_event("l", "word", "end")
        await info_when(client, "l", held)
        keys.add("k1", K1)
        assert await client.handle("l").result() == ["one"]


async def test_another_key_under_the_same_id_is_no_key_for_it(store):
    async with node(store(), encrypting(k1=K1)) as runtime:
        await begun(runtime.client)
    async with node(store(), encrypting(k1=K2)) as runtime:
        await runtime.client.raise_event("l", "word", "two")
        info = await info_when(runtime.client, "l", held)
        assert "another key has this id" in info.hold.detail
    async with node(store(), encrypting(k1=K1)) as runtime:
        # What the wrong key has written meanwhile does not open either: the event of its client.
        info = await info_when(
            runtime.client, "l", lambda info: held(info) and "message" in info.hold.detail
        )
        await runtime.client.drop_messages("l", name="word")
        await runtime.client.release("l")
        await runtime.client.raise_event("l", "word", "end")
        assert await runtime.client.handle("l").result() == ["one"]


async def test_an_unread_message_under_a_missing_key_holds_only_what_must_read_it(store):
    async with node(store(), encrypting(k1=K1)) as runtime:
        await begun(runtime.client)
        async with Client(store(), payloads=encrypting(k2=K2)) as client:
            await client.raise_event("l", "later", "x")
            (message,) = await runtime.client.list_messages("l")
            assert isinstance(message.payload, Unreadable)
            await runtime.client.raise_event("l", "word", "two")
            await in_lap(runtime.client, 3)
            await client.raise_event("l", "word", "three")
            info = await info_when(runtime.client, "l", held)
            assert info.hold.kind is HoldKind.PAYLOAD
            assert info.unread_by_name == {"later": 1, "word": 1}


# --- rotation ---


async def test_a_new_key_is_in_use_everywhere_once_a_loop_has_crossed_a_boundary(store):
    keys = Keys({"k1": K1})
    async with node(store(), Pipeline(Encrypt(keys))) as runtime:
        client = runtime.client
        await begun(client)
        keys.add("k2", K2)
        keys.use("k2")
        await client.raise_event("l", "word", "two")
        await in_lap(client, 3)
        keys.remove("k1")
        await client.raise_event("l", "word", "three")
        info = await in_lap(client, 4)
        assert info.input == ["one", "two", "three"]
        assert info.custom_status == ["one", "two", "three"]
        old, *_, new = await client.list_executions("l")
        assert isinstance(old.input, Unreadable)
        assert new.input == ["one", "two", "three"]
    async with node(store(), encrypting(k2=K2)) as runtime:
        await runtime.client.raise_event("l", "word", "end")
        assert await runtime.client.handle("l").result() == ["one", "two", "three"]


# --- moved and changed values ---


async def test_swapped_values_are_refused_and_touch_no_other_instance(tmp_path):
    import sqlite3

    path = tmp_path / "store.db"

    def provider():
        return SqliteProvider(path, durability="relaxed")

    payloads = encrypting(k1=K1)
    async with node(provider(), payloads) as runtime:
        for name in ("a", "b", "c"):
            await runtime.client.start("loop", [name], instance_id=name)
            await runtime.client.raise_event(name, "other", name)
            await info_when(runtime.client, name, lambda info: info.waiting_on)
    with sqlite3.connect(path) as connection:
        swap = """
            UPDATE event SET payload = (SELECT payload FROM event e WHERE e.instance_id = 'b'
            AND e.event_id = 1) WHERE instance_id = 'a' AND event_id = 1
        """
        assert connection.execute(swap).rowcount == 1
    connection.close()
    async with node(provider(), payloads) as runtime:
        client = runtime.client
        for name in ("a", "b", "c"):
            await client.raise_event(name, "word", "end")
        assert await client.handle("b").result() == ["b"]
        assert await client.handle("c").result() == ["c"]
        info = await info_when(client, "a", held)
        assert info.hold.kind is HoldKind.PAYLOAD
        assert "moved here from another place" in info.hold.detail
        (event, *_) = await client.get_history("a")
        assert isinstance(event.details["input"], Unreadable)


async def test_values_that_are_swapped_within_one_instance_do_not_open_either(tmp_path):
    import sqlite3

    path, payloads = tmp_path / "store.db", encrypting(k1=K1)
    async with node(SqliteProvider(path, durability="relaxed"), payloads) as runtime:
        await runtime.client.start("loop", ["input"], instance_id="l")
        await runtime.client.raise_event("l", "later", "one")
        await runtime.client.raise_event("l", "later", "two")
        await in_lap(runtime.client, 1)
    with sqlite3.connect(path) as connection:
        move = """
            UPDATE message SET payload = (SELECT o.payload FROM message o WHERE o.sequence = 2)
            WHERE sequence = 1
        """
        assert connection.execute(move).rowcount == 1
    connection.close()
    async with Client(SqliteProvider(path), payloads=payloads) as client:
        first, second = await client.list_messages("l")
        assert "moved here from another place" in first.payload.reason
        assert second.payload == "two"


async def test_plain_values_are_read_unless_they_are_refused(store):
    async with node(store(), None) as runtime:
        await begun(runtime.client)
    keys = Keys({"k1": K1})
    strict = Pipeline(Encrypt(keys, plain="refuse"))
    async with node(store(), Pipeline(Encrypt(keys))) as runtime:
        await runtime.client.raise_event("l", "word", "two")
        assert (await in_lap(runtime.client, 3)).input == ["one", "two"]
    async with node(store(), strict) as runtime:
        await runtime.client.raise_event("l", "word", "three")
        assert (await in_lap(runtime.client, 4)).input == ["one", "two", "three"]
        first, *_ = await runtime.client.list_executions("l")
        assert "is not encrypted" in first.input.reason
    async with Client(store()) as client:
        await client.raise_event("l", "word", "planted")
    async with node(store(), strict) as runtime:
        info = await info_when(runtime.client, "l", held)
        assert "is not encrypted" in info.hold.detail


async def test_a_strict_pipeline_lives_a_whole_life(store):
    payloads = Pipeline(Encrypt(Keys({"k1": K1}), plain="refuse"))
    async with Runtime(store(), WHOLE_LIFE, ACTIVITIES, payloads=payloads) as runtime:
        await live(runtime.client)


async def test_people_without_the_key_see_everything_but_the_values(store):
    payloads = encrypting(k1=K1)
    async with Runtime(store(), WHOLE_LIFE, ACTIVITIES, payloads=payloads) as runtime:
        await live(runtime.client)
    for without in (None, encrypting(k2=K2)):
        async with Client(store(), payloads=without) as client:
            page = await client.list_instances()
            assert len(page.items) > 8
            for one in page.items:
                info = await client.get_instance_info(one.instance_id)
                assert SECRET not in repr(info)
                for number in range(1, info.execution_id + 1):
                    assert SECRET not in repr(await client.get_history(one.instance_id, number))
                assert SECRET not in repr(await client.list_messages(one.instance_id))
                with suppress(PayloadUnreadable):
                    assert not (await client.export_history(one.instance_id)).count('"payload')
                await client.list_executions(one.instance_id)
            schedules = await client.schedules.list()
            assert set(schedules.unreadable) == {"s", "e"}
            assert "k1" in schedules.unreadable["s"]
            assert SECRET not in repr(await client.list_operations())
            with pytest.raises(PayloadUnreadable):
                await client.rewind("loop", 1)
            await client.preflight(WHOLE_LIFE, replay=True)
            await client.summarize_store()
            await client.version_report()


# --- external storage ---


class Flaky:
    """A storage in memory that can fail."""

    def __init__(self):
        self.objects = {}
        self.fails = False

    def put(self, key, data):
        if self.fails:
            raise ConnectionError("no way")
        self.objects[key] = data

    def get(self, key):
        if self.fails:
            raise ConnectionError("no way")
        return self.objects[key]


async def test_large_values_go_outside_and_come_back(store, tmp_path):
    storage = DirectoryStorage(tmp_path / "values")
    payloads = Pipeline(Compress(), Encrypt(Keys({"k1": K1})), External(storage, over=100))
    async with Runtime(store(), WHOLE_LIFE, ACTIVITIES, payloads=payloads) as runtime:
        await live(runtime.client)
    stored = b"".join(storage.get(key) for key, _ in storage.objects())
    assert stored
    assert SECRET.encode() not in stored


async def test_a_storage_that_does_not_answer_refuses_senders_and_holds_nothing_for_good(store):
    storage = Flaky()
    payloads = Pipeline(External(storage, over=100))
    large = "x" * 200
    async with node(store(), payloads) as runtime:
        await runtime.client.start("loop", [large], instance_id="l")
        await in_lap(runtime.client, 1)
        storage.fails = True
        async with Client(store(), payloads=payloads) as client:
            with pytest.raises(StorageUnavailable, match="no way"):
                await client.raise_event("l", "word", large)
        assert await (await runtime.client.start("other", "x")).result() == "x"
    async with node(store(), payloads) as runtime:
        await runtime.client.raise_event("l", "word", "end")
        info = await info_when(runtime.client, "l", held)
        assert "did not return" in info.hold.detail
        storage.fails = False
        await runtime.client.release("l")
        assert await runtime.client.handle("l").result() == [large]
