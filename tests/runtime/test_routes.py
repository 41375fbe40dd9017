"""Activities and instances that run where they are told to, or where there is room: several nodes
on one store.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from types import SimpleNamespace

import anyio
import pytest

from orchestra import (
    Activity,
    ActivityFailed,
    Client,
    Exact,
    InstanceStatus,
    InvalidArgument,
    Latest,
    RetryPolicy,
    Runtime,
    SqliteProvider,
    UnknownOrchestration,
    UnknownVersion,
    activity,
    activity_context,
)
from orchestra.errors import InvalidFunction
from orchestra.retry import NO_RETRY
from tests.support.kit import QUICK, bounded, info_when, registry, until, when_set

pytestmark = pytest.mark.anyio


@activity
async def work(value: int) -> int:
    return value + 1


async def asks(ctx, value: int) -> int:
    return await ctx.schedule_activity(work, value)


@bounded
async def test_a_node_that_only_decides_and_one_that_only_works(store):
    async with Runtime(store(), registry(asks)) as front, Runtime(store(), registry(), [work]):
        assert [
            await (await front.client.start("asks", number)).result() for number in range(5)
        ] == [1, 2, 3, 4, 5]


@bounded
async def test_who_runs_it_is_shown(store):
    gate, started = threading.Event(), threading.Event()

    @activity(name="work")
    def slow(value: int) -> int:
        started.set()
        gate.wait(10)
        return value * 2

    async with Runtime(store(), registry(asks)) as front:
        handle = await front.client.start("asks", 21)
        lonely = await info_when(handle, lambda info: info.pending_activities)
        assert (lonely.status, lonely.queue) == (InstanceStatus.HELD, "default")
        (pending,) = (await handle.info()).pending_activities
        assert (pending.name, pending.queue, pending.node) == ("work", "default", None)
        async with Runtime(store(), registry(), [slow], max_concurrent_activities=3) as back:
            await when_set(started)
            (pending,) = (await handle.info()).pending_activities
            assert (pending.queue, pending.node) == ("default", back.node_id)
            nodes = {node.node_id: node for node in await front.client.list_nodes()}
            assert (nodes[back.node_id].slots, nodes[back.node_id].queues) == (3, ("default",))
            gate.set()
            assert await handle.result() == 42


@bounded
async def test_the_load_of_a_node_is_shown(store):
    gate = anyio.Event()

    @activity(name="work")
    async def slow(value: int) -> int:
        await gate.wait()
        return value

    async with Runtime(store(), registry(asks), [slow], lease=timedelta(milliseconds=300)) as node:
        handles = [await node.client.start("asks", number) for number in range(3)]

        async def is_told():
            (seen,) = await node.client.list_nodes()
            return seen.load == 3

        await until(is_told)
        gate.set()
        assert [await handle.result() for handle in handles] == [0, 1, 2]


@bounded
async def test_a_full_node_gives_work_to_a_free_one(store):
    gate = anyio.Event()
    ran = {"first": 0, "second": 0}

    def worker(name):
        @activity(name="work")
        async def run(value: int) -> int:
            ran[name] += 1
            await gate.wait()
            return value

        return run

    async def fans(ctx, count: int) -> list[int]:
        return await ctx.gather(*(ctx.schedule_activity(work, number) for number in range(count)))

    full = Runtime(store(), registry(fans), [worker("first")], max_concurrent_activities=2)
    free = Runtime(store(), registry(), [worker("second")], max_concurrent_activities=4)
    async with free, full:
        handle = await full.client.start("fans", 6)
        await until(lambda: sum(ran.values()) == 6)
        assert ran == {"first": 2, "second": 4}
        gate.set()
        assert await handle.result() == list(range(6))


@bounded
async def test_a_call_by_name_takes_the_options_of_the_activity_that_its_node_has(store):
    @activity(name="work", retry=NO_RETRY, timeout=timedelta(milliseconds=100))
    async def endless() -> None:
        await anyio.sleep_forever()

    async def by_name(ctx, _: None) -> str:
        try:
            return await ctx.schedule_activity("work")
        except ActivityFailed as failed:
            return f"{failed.tries} {failed.cause}"

    async with Runtime(store(), registry(by_name), [endless]) as node:
        said = await (await node.client.start("by_name")).result()
    assert said == "1 TimeoutError: activity 'work' did not end within 0.1 s"


@bounded
async def test_a_call_by_name_of_what_only_others_have_says_in_which_queue_they_have_it(store):
    @activity(name="work", queue="gpu")
    async def renders() -> str:
        return "done"

    async def by_name(ctx, _: None) -> str:
        return await ctx.schedule_activity("work")

    async with (
        Runtime(store(), registry(by_name)) as front,
        Runtime(store(), registry(), [renders], queues=["gpu"]),
    ):
        handle = await front.client.start("by_name")
        (pending,) = (
            await info_when(handle, lambda info: info.pending_activities and info.owner is None)
        ).pending_activities
        assert pending.held_reason == (
            "no living node has activity 'work' and serves queue 'default'; some have it and "
            "serve 'gpu': let one of them serve 'default' too (Runtime(queues=...)), or name a "
            "queue of theirs where it is scheduled"
        )
    async with Runtime(store(), registry(by_name), [renders], queues=["default", "gpu"]) as both:
        assert await both.client.handle(handle.instance_id).result() == "done"
        again = await both.client.start("by_name")
        assert await again.result() == "done"
        told = [
            (await both.client.get_history(one.instance_id))[1].details["queue"]
            for one in (handle, again)
        ]
        assert told == [None, "gpu"], "each as it was when it was asked for"


@bounded
async def test_whatever_was_tried_or_handed_out_is_shown_of_many_that_are_pending(store):
    gate = anyio.Event()
    rarely = Activity.named("rare", queue="gpu")
    again = RetryPolicy(max_attempts=None, initial_interval=timedelta(hours=1))

    @activity(retry=again)
    async def fails_at_18(number: int) -> int:
        if number == 18:
            raise ValueError("the eighteenth")
        await gate.wait()
        return number

    async def fans(ctx, count: int) -> int:
        numbers = (ctx.schedule_activity(fails_at_18, number) for number in range(count))
        return len(
            await ctx.gather(*numbers, ctx.schedule_activity(rarely), ctx.wait_for_event("go"))
        )

    async with Runtime(store(), registry(fans), [fails_at_18]) as node:
        handle = await node.client.start("fans", 20)
        info = await info_when(handle, lambda info: len(info.pending_activities) == 18)
        assert info.waiting_counts == {"activity": 21, "event": 1}
        assert len(info.waiting_on) == 16
        assert {
            (one.name, one.attempt, one.last_error) for one in info.pending_activities[:16]
        } == {("fails_at_18", 1, None)}
        failed, rare = info.pending_activities[16:]
        assert (failed.name, failed.attempt, failed.last_error) == (
            "fails_at_18",
            2,
            "ValueError: the eighteenth",
        )
        assert failed.next_attempt_at is not None
        assert failed.next_attempt_at > failed.since + timedelta(seconds=40)
        assert (rare.name, rare.attempt, rare.last_error, rare.queue) == ("rare", 1, None, "gpu")
        assert rare.held_reason == "no living node has activity 'rare' and serves queue 'gpu'"
        (listed,) = (await node.client.list_instances()).items
        assert len(listed.pending_activities) == 16
        await handle.terminate("seen")


@bounded
async def test_an_activity_goes_to_its_queue(store):
    ran_on = []

    def renderer(place):
        @activity(queue="gpu")
        async def render(frame: int) -> str:
            ran_on.append(place)
            return f"frame {frame}"

        return render

    async def film(ctx, frames: int) -> list[str]:
        return [
            await ctx.schedule_activity(renderer("nowhere"), number) for number in range(frames)
        ]

    ordinary = Runtime(store(), registry(film), [renderer("ordinary")])
    graphic = Runtime(store(), registry(), [renderer("graphic")], queues=("gpu",))
    async with ordinary, graphic:
        handle = await ordinary.client.start("film", 3)
        assert await handle.result() == ["frame 0", "frame 1", "frame 2"]
    assert ran_on == ["graphic"] * 3


@bounded
async def test_a_call_names_a_queue_of_its_own(store):
    async def asks_there(ctx, value: int) -> int:
        return await ctx.schedule_activity(work.options(queue="there"), value)

    async with Runtime(store(), registry(asks_there), [work]) as here:
        handle = await here.client.start("asks_there", 1)
        (pending,) = (
            await info_when(handle, lambda info: info.pending_activities)
        ).pending_activities
        assert (pending.queue, pending.node) == ("there", None)
        async with Runtime(store(), registry(), [work], queues=["there"]):
            assert await handle.result() == 2


@pytest.mark.slow
@bounded
async def test_an_instance_keeps_to_its_queue(store):
    async def laps(ctx, left: int) -> str:
        if left:
            ctx.continue_as_new(left - 1)
        return "home"

    async with Runtime(store(), registry(laps), queues=("eu",)) as there:
        assert await (await there.client.start("laps", 0, queue="eu")).result() == "home"
    async with Runtime(store(), registry(laps)) as here:
        handle = await here.client.start("laps", 3, queue="eu")  # its nodes are away for a restart
        held = await info_when(handle, lambda info: info.status is InstanceStatus.HELD)
        assert held.queue == "eu"
        listed = (await here.client.list_instances(queue="eu", status=InstanceStatus.HELD)).items
        assert [one.instance_id for one in listed] == [handle.instance_id]
        assert (await here.client.list_instances(queue="default")).items == ()
        assert (
            held.held_reason == "no living node has registered 'laps' 1.0.0 and serves queue 'eu'"
        )
        async with Runtime(store(), registry(laps), queues=("eu", "default")):
            assert await handle.result() == "home"


@bounded
async def test_a_failure_elsewhere_comes_back_as_it_was_raised(store):
    @activity(name="work", retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0)))
    def broken(value: int) -> int:
        raise KeyError(f"attempt {activity_context().attempt}")

    async def tells(ctx, value: int) -> list[str]:
        try:
            return [await ctx.schedule_activity(broken, value)]
        except ActivityFailed as failed:
            return [
                failed.reason,
                failed.cause.type,
                *(attempt.error.message for attempt in failed.attempts),
            ]

    async with Runtime(store(), registry(tells)) as front, Runtime(store(), registry(), [broken]):
        handle = await front.client.start("tells", 1)
        assert await handle.result() == [
            "attempts exhausted",
            "KeyError",
            "'attempt 1'",
            "'attempt 2'",
        ]


@pytest.mark.slow
@bounded
async def test_a_heartbeat_elsewhere_reaches_the_next_try(store):
    seen = SimpleNamespace(beats=[])

    @activity(name="work", retry=QUICK)
    async def counts(value: int) -> int:
        context = activity_context()
        seen.beats.append(context.last_heartbeat)
        context.heartbeat({"at": context.attempt})
        if context.attempt < 3:
            raise RuntimeError("again")
        return value

    async with Runtime(store(), registry(asks)) as front, Runtime(store(), registry(), [counts]):
        handle = await front.client.start("asks", 9)
        assert await handle.result() == 9
    assert seen.beats == [None, {"at": 1}, {"at": 2}]


@bounded
async def test_what_a_worker_hands_back_when_it_stops_is_done_by_the_next(store):
    started = anyio.Event()

    @activity(name="work", retry=RetryPolicy(max_attempts=1))
    async def endless(value: int) -> int:
        started.set()
        await anyio.sleep_forever()
        return 0

    async with Runtime(store(), registry(asks)) as front:
        async with Runtime(store(), registry(), [endless], grace=timedelta(0)):
            handle = await front.client.start("asks", 1)
            await started.wait()
        async with Runtime(store(), registry(), [work]):
            assert await handle.result() == 2


@bounded
async def test_giving_an_activity_up_cancels_it_where_it_runs(store):
    started, cancelled = anyio.Event(), anyio.Event()

    @activity(name="work")
    async def endless(value: int) -> int:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        return 0

    async def races(ctx, value: int) -> int:
        first = await ctx.race(ctx.schedule_activity(work, value), ctx.wait_for_event("enough"))
        await ctx.wait_for_event("end")
        return first.index

    poll = timedelta(milliseconds=100)
    async with (
        Runtime(store(), registry(races)) as front,
        Runtime(store(), registry(), [endless], poll=poll),
    ):
        handle = await front.client.start("races", 1)
        await started.wait()
        await handle.raise_event("enough")
        await cancelled.wait()
        await handle.raise_event("end")
        assert await handle.result() == 1


@bounded
async def test_a_start_in_a_queue_that_nobody_serves_is_refused_at_the_caller_with_the_queues_that_there_are(
    store,
):
    """Scenario 7."""
    async with (
        Runtime(store(), registry(asks), [work], queues=("default", "eu")),
        Client(store()) as client,
    ):
        for version in (None, "1.0.0"):
            with pytest.raises(
                UnknownOrchestration, match=r"'asks' and serves queue 'deafult' .*'default', 'eu'\)"
            ) as unknown:
                await client.start("asks", 1, queue="deafult", version=version)
            assert not isinstance(unknown.value, UnknownVersion)
        assert (await client.list_instances()).items == ()
        with pytest.raises(
            UnknownOrchestration, match=r"orchestration 'nobody' \(registered: 'asks'\)"
        ):
            await client.start("nobody", queue="eu")


@bounded
async def test_a_start_takes_the_versions_of_its_queue_alone_and_another_one_is_refused(store):
    """Scenario 7."""

    async def loop(ctx, _):
        return ctx.version

    old, new = (
        registry(("loop", "1.0.0", loop)),
        registry(("loop", "1.0.0", loop), ("loop", "1.1.0", loop)),
    )
    async with (
        Runtime(store(), old, queues=("eu",)),
        Runtime(store(), new),
        Client(store()) as client,
    ):
        with pytest.raises(
            UnknownVersion, match=r"'loop' 1\.1\.0 and serves queue 'eu' \(registered: 1\.0\.0\)"
        ) as unknown:
            await client.start("loop", queue="eu", version="1.1.0")
        assert (unknown.value.name, unknown.value.version) == ("loop", "1.1.0")
        await client.set_version_policy("loop", Exact("1.1.0"))
        with pytest.raises(UnknownVersion, match="serves queue 'eu'"):
            await client.start("loop", queue="eu")
        assert await (await client.start("loop")).result() == "1.1.0"
        await client.set_version_policy("loop", Latest())
        assert await (await client.start("loop", queue="eu")).result() == "1.0.0"


@bounded
async def test_where_no_node_lives_a_name_that_was_started_before_will_do_in_any_queue(store):
    async with Runtime(store(), registry(asks), [work]) as node:
        assert await (await node.client.start("asks", 1)).result() is not None
    async with Client(store()) as client:
        handle = await client.start("asks", 1, queue="later")
        assert (await handle.info()).queue == "later"
        with pytest.raises(UnknownOrchestration, match=r"'nobody' \(registered: nothing\)"):
            await client.start("nobody", queue="later")


@pytest.mark.parametrize("queues", [(), "gpu", ("",), (7,)])
def test_queues_that_cannot_be_are_refused(tmp_path, queues):
    with pytest.raises(InvalidArgument):
        Runtime(SqliteProvider(tmp_path / "store.db"), registry(), queues=queues)


async def test_a_queue_without_a_name_is_refused(tmp_path):
    with pytest.raises((InvalidArgument, InvalidFunction)):
        activity(queue="")(lambda: None)
    with pytest.raises(InvalidArgument):
        work.options(queue="")
    async with Client(SqliteProvider(tmp_path / "store.db")) as client:
        with pytest.raises(InvalidArgument):
            await client.start("asks", 1, queue="")
