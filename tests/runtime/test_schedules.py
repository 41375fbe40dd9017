"""Schedules on real stores: declared by runtimes, ticked by any node, kept by the store."""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from orchestra import (
    At,
    Client,
    Event,
    Every,
    InvalidArgument,
    LevelTooLow,
    Runtime,
    Schedule,
    SqliteProvider,
    Start,
    sync,
)
from orchestra.codec import pack, unpack
from orchestra.store.changes import ScheduleWrite
from tests.support.ages import FIRST_LIBRARY
from tests.support.kit import bounded, echo, idle, registry

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)
PAST = datetime(2026, 1, 1, tzinfo=UTC)


def soon(schedule_id="s", seconds=1, value="hello", **options):
    at = datetime.now(UTC) + seconds * SECOND
    return Schedule(schedule_id, At(at), Start("echo", value), **options)


async def has_fired(client, schedule_id="s", times=1):
    with anyio.fail_after(20):
        while (await client.schedules.get(schedule_id)).counters.fired < times:
            await anyio.sleep(0.02)
    return await client.schedules.get(schedule_id)


@bounded
async def test_a_declared_schedule_starts_its_run_on_a_real_store(store):
    async with Runtime(store(), registry(echo), schedules=[soon()]) as runtime:
        info = await has_fired(runtime.client)
        (slot,) = info.last_slots
        end = await runtime.client.wait_for_completion(slot.run)
        assert end.output == "hello"
        assert (info.verdict, info.next_at, info.declared) == ("healthy", None, True)


@bounded
async def test_a_schedule_of_a_client_elsewhere_is_ticked_by_the_runtime(store):
    async with (
        Runtime(store(), registry(echo)) as runtime,
        Client(store(), registry=registry(echo)) as client,
    ):
        await client.schedules.create(soon(seconds=0.3))
        info = await has_fired(client)
        await runtime.client.wait_for_completion(info.last_slots[0].run)


@bounded
async def test_of_two_nodes_one_starts_each_slot(store):
    begin = datetime.now(UTC) + SECOND
    spec = At(*(begin + number * SECOND / 5 for number in range(6)))
    each = Schedule("s", spec, Start("echo", "x"), overlap="allow_all", catch_up="all")
    code = registry(echo)
    async with Runtime(store(), code, schedules=[each]) as one, Runtime(store(), code):
        info = await has_fired(one.client, times=6)
        page = await one.client.list_instances(name="echo", limit=1000)
        started = sorted(slot.run for slot in info.last_slots)
        assert started == sorted(item.instance_id for item in page.items)
        assert (len(started), info.counters.fired) == (6, 6)


@bounded
async def test_a_schedule_goes_on_after_all_nodes_have_been_away(store):
    hourly = Schedule("s", Every(timedelta(hours=1), anchor=PAST), Start("echo", "x"))
    code = registry(echo)
    async with Runtime(store(), code, schedules=[hourly]) as runtime:
        assert (await runtime.client.schedules.get("s")).counters.fired == 0
    async with Runtime(store(), code, schedules=[hourly]) as runtime:
        info = await runtime.client.schedules.get("s")
        assert (info.revision, info.verdict) == (1, "never_ran")
        shown = await runtime.client.schedules.backfill(
            "s", PAST, PAST + timedelta(hours=2), dry_run=False, overlap="allow_all"
        )
        assert [one.outcome for one in shown.outcomes] == ["fired"] * 3
        await runtime.client.wait_for_completion(shown.outcomes[0].run)


@bounded
async def test_an_event_of_a_schedule_reaches_an_instance_that_a_node_owns(store):
    ticks = Schedule("s", At(datetime.now(UTC) + SECOND), Event("loop", "tick", {"a": 1}))
    async with Runtime(store(), registry(idle), schedules=[ticks]) as runtime:
        await runtime.client.start("idle", None, instance_id="loop", allow_unregistered=True)
        await has_fired(runtime.client)
        (message,) = await runtime.client.list_messages("loop")
        assert (message.name, message.payload, message.sender) == ("tick", {"a": 1}, "schedule s")


@bounded
async def test_a_store_that_older_nodes_use_has_no_schedules_yet_and_says_so(store, caplog):
    old, new = store(library=FIRST_LIBRARY), store()
    code = registry(echo)
    async with Runtime(old, code) as first, Runtime(new, code, schedules=[soon()]) as second:
        assert "the declared schedules are made then" in caplog.text
        with pytest.raises(LevelTooLow, match="schedules need write level 3"):
            await second.client.schedules.list()
        assert first.node_id
        with pytest.raises(LevelTooLow):
            await second.client.schedules.create(soon("t"))


@bounded
async def test_a_schedule_of_a_newer_library_is_left_alone_and_shown(store, caplog):
    code = registry(echo)
    provider = store()
    async with Runtime(provider, code) as runtime:
        await runtime.client.schedules.create(soon(seconds=3600))
        row = provider.directory.schedule("s").row
    other = store()
    other.open()
    try:
        newer = unpack(row.definition)
        newer["schedule"]["holidays"] = "Berlin"
        strange = replace(row, definition=pack(newer), next_at=0)
        other.store.commit([ScheduleWrite("s", row.incarnation, row.revision, strange)])
    finally:
        other.close()
    with caplog.at_level(logging.WARNING):
        often = Schedule("t", Every(SECOND), Start("echo", "hello"))
        declared = [often, soon(seconds=3600, revision=2)]
        async with Runtime(store(), code, schedules=declared) as runtime:
            await has_fired(runtime.client, "t")
            page = await runtime.client.schedules.list()
            assert [one.id for one in page.items] == ["t"]
            assert "holidays" in page.unreadable["s"]
            assert "schedule 's' is left to nodes that can read it" in caplog.text
            assert "a declared schedule is left as it is stored" in caplog.text


def test_schedules_that_cannot_be_are_refused_when_a_runtime_is_made(store):
    provider = store()
    with pytest.raises(InvalidArgument, match="takes a list of Schedule"):
        Runtime(provider, registry(echo), schedules=soon())
    provider.open()
    provider.close()


def test_a_program_without_an_event_loop_uses_schedules(tmp_path):
    provider = SqliteProvider(tmp_path / "store.db")
    runtime = Runtime(provider, registry(echo), schedules=[soon(seconds=3600)])
    with sync.connect(runtime) as host:
        assert host.call(host.client.schedules.get, "s").declared is True
        done = host.call(host.client.schedules.trigger, "s", reason="now")
        assert host.call(host.client.wait_for_completion, done.run).output == "hello"
