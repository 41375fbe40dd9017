"""The client of a runtime: every call, and every error that it may answer with."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import anyio
import pytest

from orchestra import (
    NO_RETRY,
    ActivityFailed,
    AlreadyCompleted,
    Client,
    Exact,
    Failure,
    InstanceCompleted,
    InstanceExists,
    InstanceFailed,
    InstanceNotFound,
    InstanceStatus,
    Latest,
    Limits,
    Runtime,
    SqliteProvider,
    UnknownOrchestration,
    UnknownVersion,
    WaitTimeout,
    activity,
)
from orchestra.codec import unpack
from orchestra.errors import (
    DecodeError,
    EncodeError,
    InboxFull,
    InstanceCancelled,
    InstanceError,
    InstanceStillOpen,
    InstanceTerminated,
    InvalidArgument,
    InvalidVersion,
    PayloadTooLarge,
    StoreError,
    StoreUnavailable,
)
from orchestra.store.catalogue import Capability
from orchestra.store.kinds import ResolvedBy
from orchestra.testing import ManualClock
from tests.support.contract.shorthand import KIND, a_node, a_start, one
from tests.support.kit import alone, bounded, echo, idle, info_when, registry, runtime, until

pytestmark = pytest.mark.anyio


@dataclass
class State:
    url: str
    checks: int = 0


async def typed(ctx, state: State) -> Decimal:
    return Decimal(state.checks)


async def fails(ctx, value):
    raise Failure("on purpose")


async def laps(ctx, number: int):
    ctx.set_custom_status({"lap": number})
    if number < 3:
        ctx.continue_as_new(number + 1)
    await ctx.wait_for_event("go")
    return number


# --- starting -----------------------------------------------------------------------------------


@bounded
async def test_a_start_without_an_id_makes_one(path):
    async with runtime(path, idle) as node:
        first, second = await node.client.start("idle"), await node.client.start("idle")
        assert first.instance_id != second.instance_id
        assert len(first.instance_id) == 32


def count_catalogue_reads(client, monkeypatch, fail=None):
    """Return a list that grows with each catalogue the client reads; ``fail`` is raised instead of
    the first.
    """
    read, reads = client._provider.directory.catalogue, []

    def counted():
        reads.append(None)
        if fail is not None and len(reads) == 1:
            raise fail
        return read()

    monkeypatch.setattr(client._provider.directory, "catalogue", counted)
    return reads


@bounded
async def test_many_starts_at_once_read_the_catalogue_once(path, monkeypatch):
    async with runtime(path, idle) as node:
        reads = count_catalogue_reads(node.client, monkeypatch)
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(node.client.start, "idle")
        assert len(reads) == 1


@bounded
async def test_a_catalogue_that_cannot_be_read_fails_those_who_wait_for_it_and_nobody_after_them(
    path, monkeypatch
):
    errors = []
    async with runtime(path, idle) as node:
        reads = count_catalogue_reads(node.client, monkeypatch, StoreUnavailable("gone"))

        async def start():
            try:
                await node.client.start("idle")
            except StoreUnavailable as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(start)
        assert len(errors) == 5
        assert len(reads) == 1
        await node.client.start("idle")


@bounded
@pytest.mark.parametrize(
    "instance_id", ["a/b c", "ünï-🦉", "x" * 1000, "'; DROP TABLE instance; --", "new\nline"]
)
async def test_any_text_may_be_an_id(path, instance_id):
    async with runtime(path, echo) as node:
        handle = await node.client.start("echo", 1, instance_id=instance_id)
        assert await handle.result() == 1
        assert (await handle.info()).instance_id == instance_id
        assert [
            info.instance_id
            for info in (await node.client.list_instances(id_prefix=instance_id)).items
        ] == [instance_id]
        await node.client.delete(instance_id)
        with pytest.raises(InstanceNotFound):
            await handle.info()


@bounded
async def test_an_id_that_is_empty_or_no_text_is_refused_and_harms_nobody(path):
    async with runtime(path, echo) as node:
        with pytest.raises(InvalidArgument, match="empty"):
            await node.client.start("echo", instance_id="")
        for no_id in ("half a \ud83d pair", "a\0b", "x" * 1025):
            with pytest.raises(InvalidArgument):
                await node.client.start("echo", instance_id=no_id)
        for no_labels in ({"": "a"}, {"a": 1}, {"a": "\0"}):
            with pytest.raises(InvalidArgument, match="label"):
                await node.client.start("echo", labels=no_labels)
        assert await (await node.client.start("echo", 5)).result() == 5


@bounded
async def test_the_same_id_is_refused_and_the_first_instance_is_untouched(path):
    async with runtime(path, idle) as node:
        await node.client.start("idle", 1, instance_id="one")
        with pytest.raises(InstanceExists) as refused:
            await node.client.start("idle", 2, instance_id="one")
        assert refused.value.instance_id == "one"
        assert isinstance(refused.value, InstanceError)
        assert (await node.client.get_instance_info("one")).input == 1


@bounded
async def test_a_repeated_request_answers_with_the_handle(path):
    async with runtime(path, idle) as node:
        first = await node.client.start("idle", 1, instance_id="one", request_id="request")
        again = await node.client.start("idle", 1, instance_id="one", request_id="request")
        assert again == first
        assert len(await node.client.list_executions("one")) == 1


@bounded
async def test_a_repeated_request_without_an_id_makes_one_instance(path):
    async with runtime(path, idle) as node:
        first = await node.client.start("idle", 1, request_id="request")
        again = await node.client.start("idle", 1, request_id="request")
        assert again == first
        assert len((await node.client.list_instances()).items) == 1


@bounded
async def test_an_existing_instance_can_be_asked_for(path):
    async with runtime(path, idle) as node:
        await node.client.start("idle", 1, instance_id="one")
        handle = await node.client.start(
            "idle", 2, instance_id="one", if_running="return", if_ended="return"
        )
        assert (await handle.info()).input == 1


@bounded
async def test_of_many_concurrent_starts_of_one_id_one_wins(path):
    outcomes = []

    async def begin(client, number):
        try:
            await client.start("idle", number, instance_id="one")
        except InstanceExists:
            outcomes.append("exists")
        else:
            outcomes.append(number)

    async with runtime(path, idle) as node, runtime(path, idle) as other:
        async with anyio.create_task_group() as group:
            for number in range(40):
                group.start_soon(begin, (node, other)[number % 2].client, number)
        (winner,) = [one for one in outcomes if one != "exists"]
        assert (await node.client.get_instance_info("one")).input == winner
    assert len(outcomes) == 40


@bounded
async def test_an_unknown_name_is_refused_with_the_names_that_there_are(path):
    async with runtime(path, idle, echo) as node:
        with pytest.raises(UnknownOrchestration, match="'echo', 'idle'") as unknown:
            await node.client.start("nobody")
        assert unknown.value.name == "nobody"
        assert not isinstance(unknown.value, UnknownVersion)


@bounded
async def test_an_unknown_version_is_refused_with_the_versions_that_there_are(path):
    async with runtime(path, ("idle", "1.0.0", idle), ("idle", "1.2.0", idle)) as node:
        with pytest.raises(UnknownVersion, match=r"1\.0\.0, 1\.2\.0") as unknown:
            await node.client.start("idle", version="1.1.0")
        assert (unknown.value.name, unknown.value.version) == ("idle", "1.1.0")
        with pytest.raises(InvalidVersion):
            await node.client.start("idle", version="1.1")


@bounded
async def test_a_start_takes_the_highest_version_or_the_one_it_names(path):
    async with runtime(
        path, *(("idle", version, idle) for version in ("1.9.0", "1.10.0", "2.0.0-rc.1"))
    ) as node:
        latest = await (await node.client.start("idle")).info()
        exact = await (await node.client.start("idle", version="1.9.0")).info()
        assert (latest.version, exact.version) == ("1.10.0", "1.9.0")
        (first,) = await node.client.list_executions(latest.instance_id)
        (second,) = await node.client.list_executions(exact.instance_id)
        assert (first.resolved_by, second.resolved_by) == (ResolvedBy.POLICY, ResolvedBy.EXPLICIT)
        assert exact.target_version == "1.10.0"


@bounded
async def test_an_input_that_does_not_fit_is_refused_at_the_caller(path):
    """Scenario 29."""
    async with runtime(path, typed) as node:
        with pytest.raises(DecodeError, match="typed") as refused:
            await node.client.start("typed", {"url": "u", "checks": "many"}, instance_id="one")
        assert "checks" in refused.value.field
        with pytest.raises(InstanceNotFound):
            await node.client.get_instance_info("one")
        assert await (await node.client.start("typed", State("u", 3))).result(Decimal) == 3


@bounded
@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 2**70, object(), {"deep": [float("-inf")]}],
    ids=lambda value: repr(value).partition(" at ")[0],
)
async def test_a_value_without_a_form_is_refused_at_the_caller(path, value):
    async with runtime(path, idle) as node:
        with pytest.raises(EncodeError):
            await node.client.start("idle", value)
        handle = await node.client.start("idle")
        with pytest.raises(EncodeError):
            await handle.raise_event("go", value)
        assert (await handle.info()).unread_messages == 0


@bounded
async def test_a_value_over_the_limit_is_refused_at_the_caller(path):
    """Scenario 29."""
    async with runtime(path, idle, limits=Limits(max_payload=100)) as node:
        with pytest.raises(PayloadTooLarge) as refused:
            await node.client.start("idle", "x" * 100)
        assert (refused.value.size, refused.value.limit) == (102, 100)
        handle = await node.client.start("idle", "x" * 98)
        with pytest.raises(PayloadTooLarge, match="go"):
            await handle.raise_event("go", "x" * 99)


# --- listing ------------------------------------------------------------------------------------


async def ids(client, **conditions):
    return {info.instance_id for info in (await client.list_instances(**conditions)).items}


@bounded
async def test_instances_are_found_by_each_condition_and_by_all_together(path):
    async with runtime(path, ("idle", "1.0.0", idle), ("idle", "1.1.0", idle), echo, fails) as node:
        client = node.client
        await client.start("idle", instance_id="a-1", labels={"team": "x", "tier": "1"})
        await client.start("idle", instance_id="a-2", labels={"team": "x"}, version="1.0.0")
        for name in ("a-1", "a-2"):
            await info_when(client.handle(name), lambda info: info.waiting_on)
        await (await client.start("echo", instance_id="b-1", labels={"team": "y"})).result()
        with pytest.raises(InstanceFailed):
            await (await client.start("fails", instance_id="b-2")).result()
        await client.start("idle", instance_id="c_%")
        await client.cancel("c_%")
        await client.wait_for_completion("c_%")
        await client.start("idle", instance_id="d")
        await client.terminate("d")

        assert await ids(client) == {"a-1", "a-2", "b-1", "b-2", "c_%", "d"}
        assert await ids(client, name="idle") == {"a-1", "a-2", "c_%", "d"}
        assert await ids(client, name="idle", version="1.0.0") == {"a-2"}
        assert await ids(client, status=InstanceStatus.COMPLETED) == {"b-1"}
        assert await ids(client, status=InstanceStatus.FAILED) == {"b-2"}
        assert await ids(client, status=InstanceStatus.CANCELLED) == {"c_%"}
        assert await ids(client, status=InstanceStatus.TERMINATED) == {"d"}
        assert await ids(client, status=InstanceStatus.RUNNING) == {"a-1", "a-2"}
        assert await ids(client, status=[InstanceStatus.FAILED, InstanceStatus.RUNNING]) == {
            "a-1",
            "a-2",
            "b-2",
        }
        assert await ids(client, status=[InstanceStatus.FAILED, InstanceStatus.PENDING]) == {"b-2"}
        assert await ids(client, status=InstanceStatus.HELD) == set()
        assert await ids(client, held=False, name="idle", status=[InstanceStatus.RUNNING]) == {
            "a-1",
            "a-2",
        }
        assert await ids(client, id_prefix="b-") == {"b-1", "b-2"}
        assert await ids(client, id_prefix="c_") == {"c_%"}
        assert await ids(client, id_prefix="%") == set()
        assert await ids(client, labels={"team": "x"}) == {"a-1", "a-2"}
        assert await ids(client, labels={"team": "x", "tier": "1"}) == {"a-1"}
        assert await ids(client, labels={"team": "x", "tier": "2"}) == set()
        assert await ids(
            client, name="idle", version="1.1.0", labels={"team": "x"}, id_prefix="a", held=False
        ) == {"a-1"}
        middle = (await client.get_instance_info("b-1")).created_at
        assert await ids(client, created_until=middle) == {"a-1", "a-2"}
        assert await ids(client, created_from=middle) == {"b-1", "b-2", "c_%", "d"}
        with pytest.raises(ValueError, match="time zone"):
            await client.list_instances(created_from=datetime(2024, 1, 1))  # noqa: DTZ001


@bounded
async def test_held_instances_are_listed_with_their_reason_and_go_on_when_their_version_comes(path):
    async with runtime(path, ("idle", "1.0.0", idle), ("idle", "2.0.0", idle)) as node:
        await node.client.start("idle", instance_id="old", version="1.0.0")
        await node.client.start("idle", instance_id="new")
        await info_when(node.client.handle("new"), lambda info: info.waiting_on)
    async with runtime(path, ("idle", "1.0.0", idle)) as node:
        assert await ids(node.client, status=InstanceStatus.HELD) == {"new"}
        assert await ids(node.client, held=True) == {"new"}
        assert await ids(node.client, held=False) == {"old"}
        info = await node.client.get_instance_info("new")
        assert (info.status, info.version) == (InstanceStatus.HELD, "2.0.0")
        assert info.held_reason == "no living node has registered 'idle' 2.0.0"
        await node.client.raise_event("new", "go", "kept")
    async with runtime(path, ("idle", "2.0.0", idle)) as node:
        assert await node.client.handle("new").result() == "kept"


@pytest.mark.slow
@bounded
async def test_pages_hold_every_instance_once_also_where_many_were_made_in_one_commit(path):
    async with runtime(path, idle) as node:
        async with anyio.create_task_group() as group:
            for number in range(257):
                group.start_soon(
                    lambda number=number: node.client.start("idle", instance_id=f"i-{number:03}")
                )
        seen, page, pages = [], None, 0
        while True:
            found = await node.client.list_instances(limit=10, page=page)
            seen += found.items
            pages += 1
            page = found.next_page
            if page is None:
                break
        assert pages == 26
        assert len({info.instance_id for info in seen}) == len(seen) == 257
        moments = [(info.created_at, info.instance_id) for info in seen]
        assert moments == sorted(moments, reverse=True)
        assert len({info.created_at for info in seen}) < 257
        exact = await node.client.list_instances(limit=257)
        assert (len(exact.items), exact.next_page) == (257, None)


@bounded
async def test_a_status_may_be_its_text_and_no_other_text(path):
    async with runtime(path, idle, echo) as node:
        await info_when(
            await node.client.start("idle", instance_id="open"), lambda info: info.waiting_on
        )
        await (await node.client.start("echo", instance_id="ended")).result()
        assert [
            info.instance_id
            for info in (await node.client.list_instances(status="completed")).items
        ] == ["ended"]
        assert [
            info.instance_id
            for info in (await node.client.list_instances(status=["running"])).items
        ] == ["open"]
        for status in ("complete", ["completed", "complete"], 7):
            with pytest.raises(
                InvalidArgument, match="is no status; give one or several of pending, running"
            ):
                await node.client.list_instances(status=status)


@bounded
async def test_a_list_by_status_holds_just_those_that_have_it(store):
    """On every page, and several statuses at once."""
    provider = store()
    async with Runtime(provider, registry(idle, echo)) as node:
        client = node.client
        for number in range(3):
            await info_when(
                await client.start("idle", instance_id=f"running-{number}"),
                lambda info: info.waiting_on,
            )
            await (await client.start("echo", instance_id=f"completed-{number}")).result()
    async with Client(provider) as client:
        node = a_node()  # it could run them, and takes nothing
        provider.store.join(
            replace(node, capabilities=(*node.capabilities, Capability("idle", "1.0.0", "f")))
        )
        for number in range(3):
            one(provider, a_start(f"pending-{number}"))
            one(provider, a_start(f"held-{number}", kind=KIND._replace(version="2.0.0")))
        everything = (await client.list_instances()).items
        of_status = {
            status: {info.instance_id for info in everything if info.status is status}
            for status in InstanceStatus
        }
        for status in ("pending", "running", "held", "completed"):
            assert of_status[InstanceStatus(status)] == {
                f"{status}-{number}" for number in range(3)
            }

        async def listed(*statuses):
            found, page = [], None
            while True:
                part = await client.list_instances(status=statuses, limit=2, page=page)
                found += part.items
                page = part.next_page
                if page is None:
                    assert {info.status for info in found} <= set(statuses)
                    return {info.instance_id for info in found}

        statuses = list(InstanceStatus)
        for number in range(2 ** len(statuses)):
            chosen = [status for bit, status in enumerate(statuses) if number >> bit & 1]
            assert await listed(*chosen) == set().union(
                *(of_status[status] for status in chosen)
            ), chosen
        provider.store.leave("n1")


@bounded
async def test_a_history_that_cannot_be_is_refused(path):
    async with runtime(path, idle) as node:
        await node.client.start("idle", instance_id="x")
        with pytest.raises(InvalidArgument, match="execution_id"):
            await node.client.get_history("x", 2**70)
        assert await node.client.get_history("x", 2) == ()


@bounded
async def test_a_page_that_is_none_and_a_limit_that_is_none_are_refused(path):
    async with runtime(path, idle) as node:
        await node.client.start("idle")
        for page in ("", "nonsense", "12", ":x", "-1:x", "²:x", "9" * 30 + ":x"):
            with pytest.raises(InvalidArgument, match="is no page"):
                await node.client.list_instances(page=page)
        for limit in (0, -1, 2**63):
            with pytest.raises(InvalidArgument, match="limit"):
                await node.client.list_instances(limit=limit)
            with pytest.raises(InvalidArgument, match="limit"):
                await node.client.list_executions("any", limit=limit)
        with pytest.raises(InvalidArgument, match="after"):
            await node.client.list_executions("any", after=10**30)


# --- what an info says --------------------------------------------------------------------------


@bounded
async def test_an_instance_is_pending_until_its_first_turn(path):
    async with runtime(path, idle) as node:
        # Nobody claims any more, as in the moment before a claim.
        node._thread._engine.stop_claiming()
        handle = await node.client.start("idle", 1)
        info = await handle.info()
        assert (info.status, info.execution_id, info.execution_started_at) == (
            InstanceStatus.PENDING,
            1,
            None,
        )
        assert (info.waiting_on, info.history_events, info.owner) == ((), 0, None)
        (execution,) = await node.client.list_executions(handle.instance_id)
        assert (execution.status, execution.started_at) == ("pending", None)
        assert await node.client.get_history(handle.instance_id) == ()


@bounded
async def test_an_info_names_every_thing_that_is_waited_for(path):
    @activity
    async def work(number: int) -> None:
        await anyio.sleep_forever()

    async def several(ctx, value):
        ctx.set_custom_status({"phase": 1})
        await ctx.gather(
            ctx.schedule_activity(work, 1),
            ctx.schedule_timer(timedelta(hours=3)),
            ctx.wait_for_event("go"),
            *(ctx.wait_for_event(f"e{number}") for number in range(20)),
        )

    async with runtime(path, several, activities=[work], grace=timedelta(0)) as node:
        before = datetime.now(UTC)
        handle = await node.client.start("several", {"a": 1}, labels={"k": "v"}, instance_id="one")
        info = await info_when(handle, lambda info: info.waiting_on)
        assert info.waiting_counts == {"activity": 1, "timer": 1, "event": 21}
        assert len(info.waiting_on) == 16
        first, second, third = info.waiting_on[:3]
        assert (first.kind, first.name, first.until) == ("activity", "work", None)
        assert (second.kind, second.until - second.since) == ("timer", timedelta(hours=3))
        assert (third.kind, third.name, third.until) == ("event", "go", None)
        assert all(wait.since == info.execution_started_at for wait in info.waiting_on)
        assert [(one.name, one.attempt, one.last_error) for one in info.pending_activities] == [
            ("work", 1, None)
        ]
        assert info.next_wake_at == second.until
        assert (info.status, info.held_reason, info.owner) == (
            InstanceStatus.RUNNING,
            None,
            node.node_id,
        )
        assert (info.name, info.version, info.target_version, info.execution_id) == (
            "several",
            "1.0.0",
            "1.0.0",
            1,
        )
        assert (info.input, info.output, info.error, info.custom_status) == (
            {"a": 1},
            None,
            None,
            {"phase": 1},
        )
        assert info.labels == {"k": "v"}
        assert (
            before
            <= info.created_at
            <= info.execution_started_at
            <= info.updated_at
            <= datetime.now(UTC)
        )
        assert (info.completed_at, info.pinned_version, info.cancel_requested) == (
            None,
            None,
            False,
        )
        assert info.history_events == len(await node.client.get_history("one")) == 24
        assert info.history_bytes > 0
        assert len(info.incarnation) == 32


@bounded
async def test_a_parked_instance_is_nobodys_and_its_unread_messages_are_counted(path):
    async with runtime(path, idle) as node:
        handle = await node.client.start("idle")
        await info_when(handle, lambda info: info.waiting_on and info.owner is None)
        await handle.raise_event("other", 1)
        await handle.raise_event("other", 2)
        info = await info_when(handle, lambda info: info.owner is None)
        assert (info.unread_messages, info.next_wake_at) == (2, None)
        await handle.raise_event("go")
        done = await node.client.wait_for_completion(handle.instance_id)
        assert (done.status, done.unread_messages) == (InstanceStatus.COMPLETED, 2)


@bounded
async def test_an_ended_instance_shows_how(path):
    async with runtime(path, laps, fails) as node:
        handle = await node.client.start("laps", 1)
        await handle.raise_event("go")
        info = await node.client.wait_for_completion(handle.instance_id)
        assert (info.status, info.output, info.execution_id, info.input) == (
            InstanceStatus.COMPLETED,
            3,
            3,
            3,
        )
        assert info.status.is_final
        assert info.completed_at >= info.execution_started_at
        assert (info.owner, info.waiting_on, info.next_wake_at, info.error) == (
            None,
            (),
            None,
            None,
        )
        assert info.custom_status == {"lap": 3}
        assert info.history_events == len(await node.client.get_history(handle.instance_id))
        failed = await node.client.start("fails")
        info = await node.client.wait_for_completion(failed.instance_id)
        assert (info.status, info.error.type, info.error.message) == (
            InstanceStatus.FAILED,
            "orchestra.errors.Failure",
            "on purpose",
        )
        assert "on purpose" in info.error.traceback
        assert "fails" in info.error.traceback


@bounded
async def test_executions_are_listed_in_order_with_their_ends(path):
    async with runtime(path, laps) as node:
        handle = await node.client.start("laps", 1)
        await info_when(handle, lambda info: info.execution_id == 3 and info.waiting_on)
        executions = await node.client.list_executions(handle.instance_id)
        assert [(one.execution_id, one.input, one.status) for one in executions] == [
            (1, 1, "continued_as_new"),
            (2, 2, "continued_as_new"),
            (3, 3, "running"),
        ]
        assert all(one.started_at <= one.ended_at for one in executions[:2])
        assert executions[2].ended_at is None
        assert len({one.fingerprint for one in executions}) == 1
        assert [
            one.execution_id
            for one in await node.client.list_executions(handle.instance_id, after=1, limit=1)
        ] == [2]
        assert await node.client.list_executions(handle.instance_id, after=3) == ()
        with pytest.raises(InstanceNotFound):
            await node.client.list_executions("nobody")


@bounded
async def test_a_history_is_made_of_plain_values(path):
    async with runtime(path, laps) as node:
        handle = await node.client.start("laps", 1, instance_id="one")
        await handle.raise_event("go", "payload")
        await handle.result()
        started, awaited, received, completed = await node.client.get_history("one")
        kinds = [event.kind for event in (started, awaited, received, completed)]
        assert kinds == [
            "execution_started",
            "event_awaited",
            "event_received",
            "execution_completed",
        ]
        assert started.details == {
            "instance_id": "one",
            "incarnation": (await handle.info()).incarnation,
            "execution_id": 3,
            "name": "laps",
            "version": "1.0.0",
            "input": 3,
        }
        assert awaited.details == {"name": "go"}
        assert received.details == {
            "source": awaited.event_id,
            "name": "go",
            "sequence": 1,
            "payload": "payload",
        }
        assert completed.details == {"output": 3}
        assert [event.event_id for event in (started, awaited, received, completed)] == [1, 2, 3, 4]
        first = await node.client.get_history("one", 1)
        assert [event.kind for event in first] == ["execution_started", "continued_as_new"]
        assert (
            await node.client.get_history("one", 0) == await node.client.get_history("one", 9) == ()
        )
        with pytest.raises(InstanceNotFound):
            await node.client.get_history("nobody")


# --- waiting ------------------------------------------------------------------------------------


@bounded
async def test_a_wait_follows_the_instance_over_its_boundaries(path):
    async with runtime(path, laps) as node:
        handle = await node.client.start("laps", 1)
        results = []

        async def wait():
            results.append(await handle.result(int))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait)
            await info_when(handle, lambda info: info.execution_id == 3)
            await handle.raise_event("go")
        assert results == [3, 3, 3]
        assert node._ends._watches == {}


@bounded
async def test_a_wait_gives_up_in_time_and_changes_nothing(path):
    async with runtime(path, idle) as node:
        handle = await node.client.start("idle")
        for timeout in (timedelta(0), timedelta(milliseconds=30), timedelta(seconds=-1)):
            with pytest.raises(WaitTimeout):
                await handle.result(timeout=timeout)
            with pytest.raises(TimeoutError):
                await node.client.wait_for_completion(handle.instance_id, timeout)
        await handle.raise_event("go", 1)
        assert await handle.result(timeout=timedelta(seconds=10)) == 1
        assert await handle.result(timeout=timedelta(0)) == 1
        with pytest.raises(InstanceNotFound):
            await node.client.wait_for_completion("nobody", timedelta(seconds=10))
        assert node._ends._watches == {}


@bounded
async def test_a_wait_without_time_tells_what_has_happened_elsewhere(path):
    async with runtime(path, idle) as node, alone(path) as elsewhere:
        handle = await node.client.start("idle", instance_id="x")
        with pytest.raises(WaitTimeout):
            await handle.result(timeout=timedelta(0))
        await elsewhere.terminate("x")
        with pytest.raises(InstanceTerminated):
            await handle.result(timeout=timedelta(0))
        await elsewhere.delete("x")
        with pytest.raises(InstanceNotFound):
            await handle.result(timeout=timedelta(0))


@bounded
async def test_a_result_says_how_the_instance_ended_and_is_read_as_a_type(path):
    async with runtime(path, typed, idle, fails, echo) as node:
        client = node.client
        done = await client.start("typed", State("u", 2))
        assert (await done.result(), await done.result(Decimal), await done.result(str)) == (
            "2",
            Decimal(2),
            "2",
        )
        with pytest.raises(DecodeError, match=done.instance_id):
            await done.result(list[int])
        nothing = await client.start("echo")
        assert await nothing.result() is None
        assert await nothing.result(State | None) is None
        failed = await client.start("fails")
        with pytest.raises(InstanceFailed, match="on purpose") as caught:
            await failed.result()
        assert (caught.value.error.type, caught.value.instance_id) == (
            "orchestra.errors.Failure",
            failed.instance_id,
        )
        cancelled = await client.start("idle")
        await cancelled.cancel("no more")
        with pytest.raises(InstanceCancelled, match="no more"):
            await cancelled.result()
        ended = await client.start("idle")
        await ended.terminate("at once")
        with pytest.raises(InstanceTerminated, match="at once"):
            await ended.result()
        # The same from the store, where this node has not seen the end itself.
        node._ends._started.clear()
        for handle, error in (
            (failed, InstanceFailed),
            (cancelled, InstanceCancelled),
            (ended, InstanceTerminated),
        ):
            with pytest.raises(error):
                await client.handle(handle.instance_id).result()


# --- sending ------------------------------------------------------------------------------------


@bounded
async def test_an_event_is_kept_until_it_is_waited_for_and_delivered_in_order(path):
    async def three(ctx, value):
        await ctx.wait_for_event("start")
        return [await ctx.wait_for_event("go") for _ in range(3)]

    async with runtime(path, three) as node:
        handle = await node.client.start("three")
        for number in range(3):
            await handle.raise_event("go", number)
        await handle.raise_event("start")
        assert await handle.result() == [0, 1, 2]


@bounded
async def test_an_event_sent_twice_under_one_id_is_delivered_once(path):
    async def two(ctx, value):
        return [await ctx.wait_for_event("go") for _ in range(2)]

    async with runtime(path, two) as node:
        handle = await node.client.start("two")
        for payload, message_id in (("a", "m1"), ("a", "m1"), ("b", "m2")):
            await node.client.raise_event(handle.instance_id, "go", payload, message_id=message_id)
        assert await handle.result() == ["a", "b"]


@bounded
async def test_an_event_repeated_after_its_delivery_has_no_effect(path):
    async def two(ctx, value):
        first = await ctx.wait_for_event("go")
        ctx.set_custom_status("one")
        return [first, await ctx.wait_for_event("go")]

    async with runtime(path, two) as node:
        handle = await node.client.start("two")
        await node.client.raise_event(handle.instance_id, "go", "a", message_id="m1")
        await info_when(handle, lambda info: info.custom_status == "one")
        await node.client.raise_event(handle.instance_id, "go", "a", message_id="m1")
        await node.client.raise_event(handle.instance_id, "go", "b", message_id="m2")
        assert await handle.result() == ["a", "b"]


@bounded
async def test_an_event_for_nobody_or_for_one_that_has_ended_is_refused(path):
    async with runtime(path, echo) as node:
        with pytest.raises(InstanceNotFound):
            await node.client.raise_event("nobody", "go")
        handle = await node.client.start("echo")
        await handle.result()
        with pytest.raises(InstanceCompleted) as refused:
            await handle.raise_event("go")
        assert not isinstance(refused.value, AlreadyCompleted)


@bounded
async def test_a_full_inbox_refuses_the_sender_and_keeps_what_it_has(path):
    """Scenario 22."""

    async def drains(ctx, value):
        await ctx.wait_for_event("start")
        return [await ctx.wait_for_event("go") for _ in range(3)]

    async with runtime(path, drains, inbox_limit=3) as node:
        handle = await node.client.start("drains")
        for number in range(3):
            await handle.raise_event("go", number)
        with pytest.raises(
            InboxFull, match=r"3 unread messages, 3 may be \(inbox_limit\)"
        ) as refused:
            await handle.raise_event("go", 3)
        assert refused.value.instance_id == handle.instance_id
        assert (await handle.info()).unread_messages == 3
    async with runtime(path, drains) as node:
        await node.client.raise_event(handle.instance_id, "start")
        assert await node.client.handle(handle.instance_id).result() == [0, 1, 2]


# --- cancelling ---------------------------------------------------------------------------------


@bounded
async def test_a_cancel_runs_the_cleanup_which_may_take_its_time(path):
    undone = []

    @activity
    async def undo(what: str) -> str:
        undone.append(what)
        return what

    async def careful(ctx, value):
        try:
            await ctx.wait_for_event("never")
        finally:
            await ctx.schedule_activity(undo, "booking")
            await ctx.wait_for_event("confirmed")

    async with runtime(path, careful, activities=[undo]) as node:
        handle = await node.client.start("careful")
        await info_when(handle, lambda info: info.waiting_on)
        await handle.cancel("changed my mind")
        info = await info_when(
            handle, lambda info: [wait.name for wait in info.waiting_on] == ["confirmed"]
        )
        assert (info.cancel_requested, info.status) == (True, InstanceStatus.RUNNING)
        await handle.cancel("again")
        await handle.raise_event("confirmed")
        with pytest.raises(InstanceCancelled, match="changed my mind"):
            await handle.result()
        with pytest.raises(AlreadyCompleted):
            await handle.cancel()
        with pytest.raises(InstanceNotFound):
            await node.client.cancel("nobody")
    assert undone == ["booking"]


@bounded
async def test_a_cancel_before_the_first_turn_runs_no_code(path):
    ran = []

    async def once(ctx, value):
        ran.append(ctx.instance_id)
        await ctx.wait_for_event("never")

    async with runtime(path, once) as node:
        await node.client.start("once", instance_id="other")
    async with runtime(path, idle) as node:
        # Nobody here can run it: it waits for its first turn.
        node.client._instances._registry = None
        await (await node.client.start("once", instance_id="third")).cancel("not needed")
        assert (await node.client.get_instance_info("third")).status is InstanceStatus.HELD
    async with runtime(path, once) as node:
        await info_when(node.client.handle("other"), lambda info: info.waiting_on)
        with pytest.raises(InstanceCancelled, match="not needed"):
            await node.client.handle("third").result()
        node._thread._engine.stop_claiming()
        handle = await node.client.start("once", instance_id="one")
        await handle.cancel("not needed")
        assert (await handle.info()).cancel_requested
    async with runtime(path, once) as node:
        with pytest.raises(InstanceCancelled, match="not needed"):
            await node.client.handle("one").result()
        (execution,) = await node.client.list_executions("one")
        assert execution.status == "cancelled"
    assert ran == ["other"]


@bounded
async def test_a_cancel_that_code_catches_can_be_survived(path):
    from orchestra import Cancelled

    async def stubborn(ctx, value):
        try:
            await ctx.wait_for_event("never")
        except Cancelled as cancelled:
            return f"I heard: {cancelled.reason}"

    async with runtime(path, stubborn) as node:
        handle = await node.client.start("stubborn")
        await info_when(handle, lambda info: info.waiting_on)
        await handle.cancel("stop")
        assert await handle.result() == "I heard: stop"


# --- operating ----------------------------------------------------------------------------------


@bounded
async def test_terminate_ends_what_runs_what_waits_and_what_has_not_begun(path):
    begun, cancelled = anyio.Event(), anyio.Event()

    @activity
    async def work() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async def busy(ctx, value):
        try:
            await ctx.schedule_activity(work)
        finally:
            await ctx.wait_for_event("cleanup that never comes")

    async with runtime(path, busy, idle, activities=[work]) as node:
        client = node.client
        running = await client.start("busy", instance_id="running")
        await begun.wait()
        await running.terminate()
        await cancelled.wait()
        parked = await client.start("idle", instance_id="parked")
        await info_when(parked, lambda info: info.waiting_on and info.owner is None)
        await parked.terminate("why")
        node._thread._engine.stop_claiming()
        pending = await client.start("idle", instance_id="pending")
        await pending.terminate()
        for handle in (running, parked, pending):
            info = await handle.info()
            assert (info.status, info.owner, info.waiting_on) == (
                InstanceStatus.TERMINATED,
                None,
                (),
            )
            (execution,) = await client.list_executions(handle.instance_id)
            assert execution.status == "terminated"
            with pytest.raises(AlreadyCompleted):
                await handle.terminate()
            with pytest.raises(AlreadyCompleted):
                await handle.cancel()
        assert (await parked.info()).error.message == "why"
        with pytest.raises(InstanceNotFound):
            await client.terminate("nobody")
        assert await client.get_history("pending") == ()
        assert [event.kind for event in await client.get_history("parked")] == [
            "execution_started",
            "event_awaited",
            "execution_terminated",
        ]


@bounded
async def test_terminate_wins_against_a_loop_that_never_waits(path):
    async def spins(ctx, number: int):
        await ctx.schedule_timer(timedelta(0))
        ctx.continue_as_new(number + 1)

    async with runtime(path, spins) as node:
        handle = await node.client.start("spins", 0)
        await info_when(handle, lambda info: info.execution_id > 20)
        await handle.terminate()
        with pytest.raises(InstanceTerminated):
            await handle.result()


@bounded
async def test_of_terminate_and_completion_one_happens_and_everybody_is_told_the_same(path):
    async with runtime(path, idle) as node:
        for number in range(15):
            handle = await node.client.start("idle", instance_id=f"i{number}")
            outcomes = []

            async def finish(handle=handle):
                with suppress(InstanceCompleted):
                    await handle.raise_event("go", "finished")

            async def end(handle=handle, outcomes=outcomes):
                try:
                    await handle.terminate()
                    outcomes.append(InstanceStatus.TERMINATED)
                except AlreadyCompleted:
                    outcomes.append(InstanceStatus.COMPLETED)

            async with anyio.create_task_group() as group:
                group.start_soon(finish)
                group.start_soon(end)
            info = await node.client.wait_for_completion(handle.instance_id)
            assert [info.status] == outcomes


@bounded
async def test_delete_frees_the_id_for_a_new_life(path):
    async with runtime(path, echo, idle) as node:
        client = node.client
        first = await client.start("idle", instance_id="one", labels={"a": "b"})
        with pytest.raises(InstanceStillOpen):
            await client.delete("one")
        await first.raise_event("unread")
        await first.raise_event("go", 1)
        await first.result()
        incarnation = (await first.info()).incarnation
        with pytest.raises(InstanceExists):
            await client.start("echo", instance_id="one")
        await client.delete("one")
        for call in (
            first.info,
            lambda: client.delete("one"),
            lambda: client.get_history("one"),
            first.result,
            first.cancel,
        ):
            with pytest.raises(InstanceNotFound):
                await call()
        assert (await client.list_instances(labels={"a": "b"})).items == ()
        second = await client.start("echo", 2, instance_id="one")
        assert await second.result() == 2
        info = await second.info()
        assert info.incarnation != incarnation
        assert (info.labels, info.unread_messages, info.execution_id) == ({}, 0, 1)


@bounded
async def test_of_two_deletes_one_finds_nothing(path, monkeypatch):
    async with runtime(path, echo) as node:
        await (await node.client.start("echo", instance_id="one")).result()
        delete = node._provider.admin.delete
        monkeypatch.setattr(
            node._provider.admin,
            "delete",
            lambda *args, **said: delete(*args, **said) and delete(*args, **said),
        )
        with pytest.raises(InstanceNotFound):
            await node.client.delete("one")


async def reads_numbers(ctx, state: int):
    return state


@bounded
async def test_a_pin_has_what_has_not_begun_take_its_version_and_unpin_has_it_follow_the_policy_again(
    path,
):
    async with (
        runtime(path, ("job", "1.0.0", echo), ("job", "1.1.0", reads_numbers)) as node,
        alone(path) as elsewhere,
    ):
        handle = await elsewhere.start("job", "text")
        info = await info_when(handle, lambda info: info.status is InstanceStatus.HELD)
        assert (info.version, info.held_reason.split(":")[0]) == ("1.1.0", "state")
        await elsewhere.pin(handle.instance_id, "7.0.0", reason="a slip")
        info = await handle.info()
        assert (info.version, info.target_version, info.held_reason) == (
            "7.0.0",
            "7.0.0",
            "no living node has registered 'job' 7.0.0",
        )
        await node.client.unpin(handle.instance_id)
        info = await info_when(
            handle, lambda info: info.version == "1.1.0" and info.status is InstanceStatus.HELD
        )
        assert info.pinned_version is None
        await node.client.pin(handle.instance_id, "1.0.0")
        assert await handle.result() == "text"
        (execution,) = await elsewhere.list_executions(handle.instance_id)
        assert (execution.version, execution.resolved_by) == ("1.0.0", ResolvedBy.PIN)


@bounded
async def test_a_pin_leaves_a_version_alone_that_its_caller_has_named(path):
    async with (
        runtime(path, ("job", "1.0.0", echo), ("job", "1.1.0", idle)) as node,
        alone(path) as elsewhere,
    ):
        await elsewhere.start("job", instance_id="one", version="1.1.0")
    async with runtime(path, ("job", "1.0.0", echo)) as node:
        handle = node.client.handle("one")
        await node.client.pin("one", "1.0.0")
        info = await handle.info()
        assert (info.version, info.pinned_version) == ("1.1.0", "1.0.0")


@bounded
async def test_a_pin_goes_on_after_writes_that_came_in_between(path, monkeypatch):
    async with alone(path) as client, runtime(path, ("job", "1.1.0", reads_numbers)) as node:
        handle = await client.start("job", "text")
        await info_when(handle, lambda info: info.status is InstanceStatus.HELD)
        directory = client._provider.directory
        read = directory.get
        between = iter(range(2))

        def and_then_somebody_writes(instance_id):
            record = read(instance_id)
            if next(between, None) is not None:
                assert client._provider.admin.set_pin(
                    instance_id, "1.0.0", by="somebody else", reason=""
                )
            return record

        monkeypatch.setattr(directory, "get", and_then_somebody_writes)
        await client.pin(handle.instance_id, "1.0.0")
        monkeypatch.setattr(directory, "get", read)
        info = await handle.info()
        assert (info.version, info.status, next(between, None)) == (
            "1.0.0",
            InstanceStatus.HELD,
            None,
        )
        monkeypatch.setattr("orchestra.operations.retarget._ATTEMPTS", 0)
        with pytest.raises(StoreError, match="try again"):
            await client.unpin(handle.instance_id)
        assert node.client is not client


@bounded
async def test_what_operators_write_names_them_and_their_reason(path):
    async with runtime(path, echo, idle) as node:
        client = node.client
        await (await client.start("echo", instance_id="one")).result()
        await (await client.start("echo", instance_id="two")).result()
        waits = await client.start("idle", instance_id="three")
        await client.pin("three", "1.0.0", reason="p")
        await client.unpin("three", reason="q")
        await client.delete("one", reason="r")
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        await client.purge(completed_before=tomorrow, dry_run=False, reason="s")
        for call in (client.unpin, client.delete):
            with pytest.raises(InvalidArgument):
                await call("three", reason="x" * 2000)
        with pytest.raises(InvalidArgument):
            await client.purge(completed_before=tomorrow, reason="x" * 2000)
        await waits.terminate()
        rows = node._provider._writer._session.connection.execute(
            "SELECT action, subject, actor, detail FROM operation WHERE action <> 'set policy' "
            "ORDER BY operation_id"
        ).fetchall()
    assert [
        (action, subject, unpack(detail).get("reason", "")) for action, subject, _, detail in rows
    ] == [
        ("pin", "three", "p"),
        ("unpin", "three", "q"),
        ("delete", "one", "r"),
        ("purge", "", "s"),
        ("terminate", "three", ""),
    ]
    assert {actor for _, _, actor, _ in rows} == {node.node_id}


@bounded
async def test_a_pin_decides_at_the_next_boundary_until_it_is_taken_away(path):
    async def lap(ctx, number: int):
        await ctx.wait_for_event("go")
        ctx.continue_as_new(number + 1)

    async with runtime(
        path, *(("lap", version, lap) for version in ("1.0.0", "1.1.0", "1.2.0"))
    ) as node:
        client = node.client
        handle = await client.start("lap", 1)
        assert (await handle.info()).version == "1.2.0"
        before = await info_when(
            handle, lambda info: info.waiting_on
        )  # it has begun, so that the pin is for the next one
        assert before.pin is None
        await client.pin(handle.instance_id, "1.1.0", reason="trouble")
        info = await handle.info()
        assert before.updated_at < info.pin.at <= info.updated_at
        assert (info.pinned_version, info.version, info.target_version) == (
            "1.1.0",
            "1.2.0",
            "1.1.0",
        )
        for execution in (2, 3):
            await handle.raise_event("go")
            info = await info_when(
                handle, lambda info, execution=execution: info.execution_id == execution
            )
            assert (info.version, info.pinned_version) == ("1.1.0", "1.1.0")
        await client.unpin(handle.instance_id)
        await handle.raise_event("go")
        info = await info_when(handle, lambda info: info.execution_id == 4)
        assert (info.version, info.pinned_version) == ("1.2.0", None)
        assert [one.resolved_by for one in await client.list_executions(handle.instance_id)] == [
            ResolvedBy.POLICY,
            ResolvedBy.PIN,
            ResolvedBy.PIN,
            ResolvedBy.POLICY,
        ]
        with pytest.raises(InvalidVersion):
            await client.pin(handle.instance_id, "latest")
        for call in (lambda: client.pin("nobody", "1.0.0"), lambda: client.unpin("nobody")):
            with pytest.raises(InstanceNotFound):
                await call()
        await handle.terminate()
        for call in (
            lambda: client.pin(handle.instance_id, "1.0.0"),
            lambda: client.unpin(handle.instance_id),
        ):
            with pytest.raises(AlreadyCompleted):
                await call()


@bounded
async def test_a_pin_given_while_an_activity_runs_does_not_stop_the_instance(path):
    begun, go_on = anyio.Event(), anyio.Event()

    @activity
    async def work() -> str:
        begun.set()
        await go_on.wait()
        return "done"

    async def once(ctx, value):
        return await ctx.schedule_activity(work)

    async with runtime(
        path, once, activities=[work], poll=timedelta(hours=1), lease=timedelta(hours=1)
    ) as node:
        handle = await node.client.start("once")
        await begun.wait()
        await node.client.pin(handle.instance_id, "1.0.0")
        go_on.set()
        assert await handle.result() == "done"


@bounded
async def test_a_policy_decides_starts_and_boundaries_from_then_on(path):
    async def lap(ctx, number: int):
        await ctx.wait_for_event("go")
        ctx.continue_as_new(number + 1)

    versions = [("lap", version, lap) for version in ("1.0.0", "1.1.0")]
    async with runtime(path, *versions) as node:
        client = node.client
        assert (await client.get_version_policy("lap")).policy == Latest()
        handle = await client.start("lap", 1)
        await client.set_version_policy("lap", Exact("1.0.0"), reason="a bug")
        assert (await client.get_version_policy("lap")).policy == Exact("1.0.0")
        info = await handle.info()
        assert (info.version, info.target_version) == ("1.1.0", "1.0.0")
        assert (await (await client.start("lap", 1)).info()).version == "1.0.0"
    # The store's policy is what counts; a registry gives only the first one.
    async with runtime(path, *versions, policies={"lap": Latest()}) as node:
        client = node.client
        assert (await client.get_version_policy("lap")).policy == Exact("1.0.0")
        await client.raise_event(handle.instance_id, "go")
        info = await info_when(
            client.handle(handle.instance_id), lambda info: info.execution_id == 2
        )
        assert info.version == "1.0.0"
        await client.set_version_policy("lap", Latest())
        assert (await (await client.start("lap", 1)).info()).version == "1.1.0"


@bounded
async def test_what_is_no_policy_is_refused_and_changes_nothing(path):
    async with runtime(path, idle, policies={"idle": Exact("1.0.0")}) as node:
        for policy in ("1.0.0", "exact:1.0.0", None, Exact):
            with pytest.raises(InvalidArgument, match="is no version policy; give Latest"):
                await node.client.set_version_policy("idle", policy)
        assert (await node.client.get_version_policy("idle")).policy == Exact("1.0.0")


@bounded
async def test_a_reason_that_no_store_can_hold_is_refused_before_anything_happens(path):
    async with runtime(path, idle) as node:
        client = node.client
        await client.start("idle", instance_id="x")
        for reason in ("\ud800", "a\0b", "x" * 1025, 7):
            for call in (
                client.cancel("x", reason),
                client.terminate("x", reason),
                client.pin("x", "1.0.0", reason=reason),
                client.set_version_policy("idle", Latest(), reason=reason),
            ):
                with pytest.raises(InvalidArgument, match="a reason"):
                    await call
        info = await client.get_instance_info("x")
        assert (info.cancel_requested, info.pinned_version, info.status.is_final) == (
            False,
            None,
            False,
        )


@bounded
async def test_labels_stay_as_they_were_given(path):
    labels = {"team": "a=b, c", "emptyvalue": "", "ü": "\n"}
    async with runtime(path, idle) as node:
        handle = await node.client.start("idle", labels=labels)
        assert (await handle.info()).labels == labels
        assert await ids(node.client, labels=labels) == {handle.instance_id}


@bounded
async def test_an_instance_that_failed_by_an_activity_says_which(path):
    @activity(retry=NO_RETRY)
    async def work() -> None:
        raise ValueError("inner")

    async def once(ctx, value):
        try:
            await ctx.schedule_activity(work)
        except ActivityFailed as failed:
            raise Failure(f"gave up on {failed.activity}") from failed

    async with runtime(path, once, activities=[work]) as node:
        handle = await node.client.start("once")
        with pytest.raises(InstanceFailed, match="gave up on work") as failed:
            await handle.result()
        assert failed.value.error.type == "orchestra.errors.Failure"


@bounded
async def test_a_read_that_fails_is_raised_where_it_was_asked_for(path, monkeypatch):
    async with runtime(path, idle) as node:
        handle = await node.client.start("idle")

        def broken(*args):
            raise ZeroDivisionError("planned")

        monkeypatch.setattr(node._provider.directory, "get", broken)
        with pytest.raises(ZeroDivisionError, match="planned"):
            await handle.info()
        monkeypatch.undo()
        assert (await handle.info()).instance_id == handle.instance_id
        assert await until(lambda: not node._readers._waiting)


# --- nodes --------------------------------------------------------------------------------------


@bounded
async def test_nodes_are_listed_with_what_they_run_and_own(path):
    gate = anyio.Event()

    @activity
    async def work() -> None:
        await gate.wait()

    async def busy(ctx, value):
        await ctx.schedule_activity(work)

    versions = [("laps", version, laps) for version in ("1.10.0", "1.9.0", "1.10.0-rc.1")]
    async with (
        runtime(path, idle, busy, *versions, activities=[work]) as node,
        alone(path) as client,
    ):
        await info_when(await client.start("idle"), lambda info: info.waiting_on)
        handle = await client.start("busy")
        owner = (await info_when(handle, lambda info: info.waiting_on)).owner
        (seen,) = await client.list_nodes()
        assert (seen.node_id, seen.pid, seen.alive) == (owner, os.getpid(), True)
        assert seen.orchestrations == {
            "idle": ("1.0.0",),
            "busy": ("1.0.0",),
            "laps": ("1.9.0", "1.10.0-rc.1", "1.10.0"),
        }
        assert (seen.activities, seen.queues, seen.host != "", seen.library != "") == (
            ("work",),
            ("default",),
            True,
            True,
        )
        assert seen.started_at <= seen.renewed_at
        assert seen.owned == 1, "the one that only waits is nobody's"
        (same,) = await node.client.list_nodes()
        assert same.node_id == owner
        gate.set()
        await handle.result()
        (idling,) = await client.list_nodes()
        assert idling.owned == 0
    async with alone(path) as client:
        assert await client.list_nodes() == ()


@bounded
async def test_a_node_that_does_not_renew_is_shown_as_not_alive_until_it_is_buried(path):
    clock = ManualClock()
    provider = SqliteProvider(path, clock=clock, durability="relaxed")
    provider.open()
    provider.store.join(a_node("lost"))
    clock.advance(timedelta(microseconds=3 * a_node().lease))
    provider.store.join(a_node("late"))
    async with Client(provider) as client:
        assert [(node.node_id, node.alive) for node in await client.list_nodes()] == [
            ("lost", True),
            ("late", True),
        ]
        clock.advance(timedelta(microseconds=1))
        assert [(node.node_id, node.alive) for node in await client.list_nodes()] == [
            ("lost", False),
            ("late", True),
        ]
        provider.store.bury("lost", renewals=0)
        assert [node.node_id for node in await client.list_nodes()] == ["late"]
    provider.close()
