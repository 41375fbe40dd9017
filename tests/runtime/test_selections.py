"""Instances are found by why they do not move, and counted by group."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestra import (
    Failure,
    HoldKind,
    InstanceStatus,
    InvalidArgument,
    OrderBy,
    Runtime,
    Selection,
    SqliteProvider,
    WaitingFor,
    activity,
)
from tests.support.kit import bounded, info_when, registry, until

pytestmark = pytest.mark.anyio

TEXT = "naïve ☃ 'quoted\" \\ %_ \U0001f600 </script> ; DROP TABLE instance; --"


@activity(name="nobody has it")
async def absent() -> None: ...


async def waits(ctx, kind: str) -> None:
    if kind == "event":
        await ctx.wait_for_event(TEXT)
    if kind == "timer":
        await ctx.schedule_timer(timedelta(days=1))
    if kind == "activity":
        await ctx.schedule_activity(absent)
    if kind == "error":
        raise KeyError(kind)
    if kind == "failure":
        raise Failure(kind)


KINDS = ("event", "timer", "activity", "error", "failure", "end")
NEWER = registry(("waits", "1.0.0", waits), ("waits", "1.1.0", waits))
STATUSES = {
    "event": InstanceStatus.RUNNING,
    "timer": InstanceStatus.RUNNING,
    "activity": InstanceStatus.HELD,
    "error": InstanceStatus.HELD,
    "failure": InstanceStatus.FAILED,
    "end": InstanceStatus.COMPLETED,
}


async def start_all(client):
    for kind in KINDS:
        labels = {"kind": kind, TEXT: TEXT} if kind == "event" else {"kind": kind}
        handle = await client.start("waits", kind, instance_id=kind, labels=labels)
        await info_when(handle, lambda info, kind=kind: is_there(info, kind))


def is_there(info, kind):
    status = STATUSES[kind]
    return info.status is status and (info.waiting_on or status is not InstanceStatus.RUNNING)


async def ids(client, selection=None, **options):
    page = await client.list_instances(selection, **options)
    return {info.instance_id for info in page.items}


@bounded
async def test_a_selection_says_why_instances_do_not_move(store):
    async with Runtime(store(), registry(waits)) as runtime:
        client = runtime.client
        await start_all(client)
        assert await ids(client) == set(KINDS)
        assert await ids(client, Selection(held=True)) == {"activity", "error"}
        assert await ids(client, Selection(status=InstanceStatus.HELD)) == {"activity", "error"}
        assert await ids(client, held=False) == set(KINDS) - {"activity", "error"}
        assert await ids(client, held=HoldKind.ERROR) == {"error"}
        assert await ids(client, held="activity_missing") == {"activity"}
        assert await ids(client, held=HoldKind.STATE) == set()
        (found,) = (await client.list_instances(held=HoldKind.ACTIVITY_MISSING)).items
        info = await client.get_instance_info("activity")
        assert found.status is info.status is InstanceStatus.HELD
        assert found.held_reason == info.held_reason
        assert "no living node has activity 'nobody has it'" in info.held_reason

        def on(**condition):
            return ids(client, Selection(waiting_on=WaitingFor(**condition)))

        assert await on(kind="activity") == {"activity"}
        assert await on(kind="activity", name="nobody has it") == {"activity"}
        assert await on(kind="event", name=TEXT) == await on(name=TEXT) == {"event"}
        assert await on(name="' OR 1=1 --") == set()

        async def has_waited():
            return await on(kind="timer", longer_than=timedelta(milliseconds=60)) == {"timer"}

        await until(has_waited)
        assert await on(longer_than=timedelta(hours=1)) == set()
        assert await ids(client, labels={TEXT: TEXT}) == {"event"}
        assert await ids(client, overdue=True) == set()
        assert await ids(client, updated_until=datetime(2020, 1, 1, tzinfo=UTC)) == set()
        assert await ids(client, updated_from=datetime(2020, 1, 1, tzinfo=UTC)) == set(KINDS)


@bounded
async def test_a_selection_says_where_instances_lead(store):
    async with Runtime(store(), registry(waits)) as runtime:
        for number in range(3):
            await runtime.client.start("waits", "event", instance_id=f"i{number}")
        await runtime.client.pin("i0", "1.0.0")
        async with Runtime(store(), NEWER) as newer:
            client = newer.client
            await client.pin("i2", "3.0.0")
            assert await ids(client, drifting=True) == {"i1", "i2"}
            assert await ids(client, drifting=False) == {"i0"}
            assert await ids(client, target_version="1.1.0") == {"i1"}
            assert await ids(client, target_version="3.0.0") == {"i2"}
            assert await ids(client, target_version="1.0.0") == {"i0"}
            for info in (await client.list_instances()).items:
                assert info.instance_id in await ids(client, target_version=info.target_version)
            assert await ids(client, pinned=True) == {"i0", "i2"}
            assert await ids(client, pinned=False, drifting=True) == {"i1"}


@bounded
async def test_instances_are_counted_in_the_store(store):
    async with Runtime(store(), registry(waits)) as runtime:
        client = runtime.client
        counts = await client.count_instances(group_by=("status",))
        assert (counts.total, counts.groups) == (0, ())
        await start_all(client)
        counts = await client.count_instances(group_by=("name", "version", "status", "held"))
        assert counts.total == len(KINDS)
        assert {
            (group.values["status"], group.values["held"]): group.count for group in counts.groups
        } == {
            ("running", None): 2,
            ("held", "error"): 1,
            ("held", "activity_missing"): 1,
            ("failed", None): 1,
            ("completed", None): 1,
        }
        assert {group.values["name"] for group in counts.groups} == {"waits"}
        assert counts.groups[0].count == 2, "the largest group comes first"
        by_label = await client.count_instances(held=True, group_by=(f"label:{TEXT}", "label:kind"))
        assert [tuple(group.values.values()) for group in by_label.groups] == [
            (None, "activity"),
            (None, "error"),
        ]
        everything = await client.count_instances(Selection(name="waits"))
        assert (everything.total, everything.groups[0].values) == (6, {})
        assert (await client.count_instances(name="other")).total == 0
        # Without a condition but a kind's, and with one that all fulfil: both ways count alike.
        for group_by in ((), ("name",), ("version", "queue")):
            for name in (None, "waits", "other"):
                ways = [
                    await client.count_instances(name=name, id_prefix=prefix, group_by=group_by)
                    for prefix in (None, "")
                ]
                assert ways[0] == ways[1]


@bounded
async def test_a_list_is_read_page_by_page_in_each_order(store):
    async with Runtime(store(), registry(waits)) as runtime:
        client = runtime.client
        for number in (3, 1, 4, 2, 5):
            await client.start("waits", "event", instance_id=f"5:i{number}")
        for order in OrderBy:
            whole = [one.instance_id for one in (await client.list_instances(order_by=order)).items]
            seen, page = [], None
            while True:
                found = await client.list_instances(order_by=order, limit=2, page=page)
                seen += [info.instance_id for info in found.items]
                page = found.next_page
                if page is None:
                    break
                for other in set(OrderBy) - {order}:
                    with pytest.raises(InvalidArgument, match="is no page"):
                        await client.list_instances(order_by=other, limit=2, page=page)
            assert seen == whole
            if order is OrderBy.ID:
                assert whole == sorted(whole)


BAD = [
    ({"selection": "watch"}, "a selection"),
    ({"selection": Selection(), "name": "watch"}, "name besides"),
    ({"held": "sometimes"}, "one of error, limit"),
    ({"held": 1}, "one of error, limit"),
    ({"waiting_on": "timer"}, "waiting_on"),
    ({"waiting_on": WaitingFor("rain")}, "'rain'"),
    ({"waiting_on": WaitingFor(name="\0")}, "NUL"),
    ({"waiting_on": WaitingFor(longer_than=5)}, "longer_than"),
    ({"waiting_on": WaitingFor(longer_than=timedelta(-1))}, "longer_than"),
    ({"drifting": "yes"}, "drifting"),
    ({"overdue": 1}, "overdue"),
    ({"pinned": "x"}, "pinned"),
    ({"target_version": ""}, "a version"),
    ({"updated_from": datetime(2024, 1, 1)}, "updated_from"),  # noqa: DTZ001
    ({"labels": {"a\0": "b"}}, "NUL"),
    ({"labels": ["a"]}, "mapping"),
    ({"colour": "red"}, "colour"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD)
@bounded
async def test_a_condition_that_cannot_hold_is_refused(tmp_path, arguments, said):
    async with Runtime(SqliteProvider(tmp_path / "store.db"), registry(waits)) as runtime:
        for call in (runtime.client.list_instances, runtime.client.count_instances):
            with pytest.raises(InvalidArgument, match=said):
                await call(**arguments)


@pytest.mark.parametrize("group_by", ["colour", ("name", "name"), ("label:",), (5,), ("label:\0",)])
@bounded
async def test_a_group_that_there_is_not_is_refused(tmp_path, group_by):
    async with Runtime(SqliteProvider(tmp_path / "store.db"), registry(waits)) as runtime:
        with pytest.raises(InvalidArgument):
            await runtime.client.count_instances(group_by=group_by)
        with pytest.raises(InvalidArgument, match="order_by"):
            await runtime.client.list_instances(order_by="colour")
