"""Stories of versions, boundaries, races and restarts, on virtual time; those about threads and the
cache have a runtime. The numbers are those of the list of behaviours.
"""

import threading
from datetime import timedelta

import anyio
import pytest

from orchestra import Cancelled, Exact, InstanceStatus, Latest, activity
from orchestra.errors import (
    DuplicateVersion,
    ExecutionLimitExceeded,
    InstanceCancelled,
    InvalidVersion,
    UnknownVersion,
)
from orchestra.store.kinds import ResolvedBy
from tests.support.kit import Gate, bounded, info_when, registry, runtime, until, virtual, when_set

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


async def lap(ctx, number: int):
    """Continues when it is told to, and says on which version it ran."""
    ctx.set_custom_status(f"{ctx.version} lap {ctx.execution_id}")
    told = await ctx.wait_for_event("go")
    if told != "end":
        ctx.continue_as_new(number + 1, version=told)
    return number


def laps(*versions):
    return [("lap", version, lap) for version in versions]


async def step(handle, told=None):
    """Let an instance go one lap on; return its info in the next lap."""
    before = (await handle.info()).execution_id
    await handle.raise_event("go", told)
    return await info_when(
        handle,
        lambda info: info.execution_id == before + 1 and (info.waiting_on or info.held_reason),
    )


# --- versions -----------------------------------------------------------------------------------


@bounded
async def test_01_an_exact_start_stays_on_its_version_only_until_its_boundary_under_latest(
    database,
):
    async with virtual(database, *laps("1.0.0", "1.1.0")) as node:
        handle = await node.client.start("lap", 1, version="1.0.0")
        info = await handle.info()
        assert (info.version, info.target_version) == ("1.0.0", "1.1.0")
        assert (await step(handle)).version == "1.1.0"
        started = (await node.client.get_history(handle.instance_id, 1))[0]
        assert started.details["version"] == "1.0.0"


@bounded
async def test_02_exact_holds_starts_and_boundaries_and_latest_frees_only_later_ones(database):
    async with virtual(database, *laps("1.0.0", "1.1.0"), policies={"lap": Exact("1.0.0")}) as node:
        handle = await node.client.start("lap", 1)
        assert (await step(handle)).version == "1.0.0"
        await node.client.set_version_policy("lap", Latest())
        info = await handle.info()
        assert (info.version, info.target_version) == ("1.0.0", "1.1.0")
        assert (await step(handle)).version == "1.1.0"


@bounded
async def test_03_a_restart_with_new_code_does_not_touch_the_running_execution(database):
    async with virtual(database, *laps("1.0.0")) as node:
        handle = await node.client.start("lap", 1, instance_id="one")
        await info_when(handle, lambda info: info.waiting_on)
    async with virtual(database, *laps("1.0.0", "2.0.0")) as node:
        handle = node.client.handle("one")
        info = await handle.info()
        assert (info.version, info.target_version, info.status) == (
            "1.0.0",
            "2.0.0",
            InstanceStatus.RUNNING,
        )
        assert (await step(handle)).version == "2.0.0"


@bounded
async def test_04_a_completion_alone_after_a_restart_wakes_the_version_that_was_recorded(database):
    wanted = True

    @activity
    async def work() -> str:
        if wanted:
            await anyio.sleep_forever()
        return "done"

    async def five(ctx, number: int):
        if number < 5:
            ctx.continue_as_new(number + 1)
        return [ctx.execution_id, ctx.version, await ctx.schedule_activity(work), ctx.version]

    async with virtual(database, ("five", "1.0.0", five), activities=[work]) as node:
        await node.client.start("five", 1, instance_id="one")
        await info_when(node.client.handle("one"), lambda info: info.pending_activities)
    wanted = False
    async with virtual(
        database, ("five", "1.0.0", five), ("five", "9.0.0", five), activities=[work]
    ) as node:
        assert await node.client.handle("one").result() == [5, "1.0.0", "done", "1.0.0"]


@bounded
async def test_05_a_boundary_to_a_named_version_goes_exactly_there_also_down_and_waits_for_it(
    database,
):
    async with virtual(database, *laps("1.0.0", "1.1.0", "1.2.0")) as node:
        handle = await node.client.start("lap", 1, instance_id="one")
        assert (await step(handle, "1.1.0")).version == "1.1.0"
        assert (await step(handle, "1.0.0")).version == "1.0.0"
        info = await step(handle, "3.0.0")
        assert (info.version, info.status) == ("3.0.0", InstanceStatus.HELD)
        assert "3.0.0" in info.held_reason
        await handle.raise_event("go", "end")
    async with virtual(database, *laps("3.0.0")) as node:
        assert await node.client.handle("one").result() == 4
        last = (await node.client.list_executions("one"))[-1]
        assert (last.version, last.resolved_by) == ("3.0.0", ResolvedBy.EXPLICIT)


@bounded
async def test_05b_a_malformed_version_at_a_boundary_is_an_error_of_the_code(database):
    async def once(ctx, value):
        try:
            ctx.continue_as_new(1, version="newest")
        except InvalidVersion:
            return "refused"

    async with virtual(database, once) as node:
        assert await (await node.client.start("once")).result() == "refused"


@bounded
async def test_07_mistakes_of_registration_are_told_at_once(database):
    with pytest.raises(DuplicateVersion):
        registry(*laps("1.0.0", "1.0.0"))
    with pytest.raises(InvalidVersion):
        registry(*laps("one"))
    async with virtual(database, *laps("1.1.0", "1.0.0")) as node:
        assert (await (await node.client.start("lap", 1)).info()).version == "1.1.0"
        with pytest.raises(UnknownVersion):
            await node.client.start("lap", 1, version="2.0.0")
    assert registry(*laps("1.1.0", "1.0.0")).versions("lap") == ("1.0.0", "1.1.0")


# --- the boundary -------------------------------------------------------------------------------


@bounded
async def test_11_a_loop_of_n_laps_has_n_executions_each_closed_and_bounded(database):
    @activity
    async def double(number: int) -> int:
        return 2 * number

    async def loop(ctx, number: int):
        doubled = await ctx.schedule_activity(double, number)
        if number < 12:
            ctx.continue_as_new(number + 1)
        return doubled

    async with virtual(database, loop, activities=[double]) as node:
        handle = await node.client.start("loop", 1)
        assert await handle.result() == 24
        executions = await node.client.list_executions(handle.instance_id)
        assert [one.execution_id for one in executions] == list(range(1, 13))
        assert [one.status for one in executions] == ["continued_as_new"] * 11 + ["completed"]
        assert {one.history_events for one in executions} == {4}
        for number in (3, 12):
            history = await node.client.get_history(handle.instance_id, number)
            assert [event.event_id for event in history] == [1, 2, 3, 4]


@bounded
async def test_13_a_late_completion_of_an_older_execution_does_not_disturb_the_new_one(path):
    gate = Gate()
    done = threading.Event()

    @activity
    def slow(number: int) -> str:
        if number == 1:
            gate()
            done.set()
        return f"of lap {number}"

    async def loop(ctx, number: int):
        result = ctx.schedule_activity(slow, number)
        if number == 1:
            await ctx.wait_for_event("go")
            ctx.continue_as_new(2)
        await ctx.wait_for_event("go")
        return await result

    async with runtime(path, loop, activities=[slow]) as node:
        handle = await node.client.start("loop", 1)
        await when_set(gate.entered)
        await handle.raise_event("go")
        await info_when(
            handle, lambda info: info.execution_id == 2 and info.waiting_counts == {"event": 1}
        )
        gate.open()
        await when_set(done)
        await handle.raise_event("go")
        assert await handle.result() == "of lap 2"
        results = [
            one
            for one in await node.client.get_history(handle.instance_id)
            if one.kind == "activity_completed"
        ]
        assert len(results) == 1


@pytest.mark.slow
@bounded
async def test_14_signals_that_race_with_boundaries_are_each_delivered_once_and_in_order(path):
    count = 150

    async def collects(ctx, seen: list[int]):
        winner = await ctx.race(ctx.wait_for_event("go"), ctx.schedule_timer(timedelta(0)))
        if winner.index == 0:
            seen = [*seen, winner.value]
        if len(seen) < count:
            ctx.continue_as_new(seen)
        return seen

    async with runtime(path, collects) as node:
        handle = await node.client.start("collects", [])
        for number in range(count):
            await handle.raise_event("go", number)
        assert await handle.result() == list(range(count))


@bounded
async def test_15_a_cancel_at_any_moment_of_a_looping_instance_ends_it_once(path):
    cleaned = []

    @activity
    async def clean(number: int) -> None:
        cleaned.append(number)

    async def loops(ctx, number: int):
        try:
            await ctx.schedule_timer(timedelta(0))
        except Cancelled:
            await ctx.schedule_activity(clean, number)
            raise
        ctx.continue_as_new(number + 1)

    async with runtime(path, loops, activities=[clean]) as node:
        for moment in range(10):
            cleaned.clear()
            handle = await node.client.start("loops", 1)
            await info_when(handle, lambda info, moment=moment: info.execution_id > moment)
            await handle.cancel("now")
            with pytest.raises(InstanceCancelled, match="now"):
                await handle.result()
            executions = await node.client.list_executions(handle.instance_id)
            last = (await handle.info()).execution_id
            assert [one.status for one in executions if one.status != "continued_as_new"] == [
                "cancelled"
            ]
            assert executions[-1].execution_id == last
            # Before the first turn of an execution it ends without its code.
            assert cleaned in ([], [last])


@bounded
async def test_18_and_19_waits_status_labels_and_pins_cross_boundaries(database):
    async with virtual(database, *laps("1.0.0", "1.1.0")) as node:
        client = node.client
        handle = await client.start("lap", 1, labels={"a": "b"}, version="1.0.0")
        await client.pin(handle.instance_id, "1.0.0")
        results = []

        async def wait():
            results.append(await handle.result())

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            for execution in (2, 3):
                info = await step(handle)
                assert (info.labels, info.pinned_version, info.version) == (
                    {"a": "b"},
                    "1.0.0",
                    "1.0.0",
                )
                assert info.custom_status == f"1.0.0 lap {execution}"
            await handle.raise_event("go", "end")
        assert results == [3]
        info = await handle.info()
        assert (info.labels, info.custom_status) == ({"a": "b"}, "1.0.0 lap 3")


# --- waiting, racing, failing -------------------------------------------------------------------


@bounded
async def test_22_and_23_the_loser_of_a_race_steals_nothing_and_history_decides(database):
    async def racing(ctx, value):
        won = await ctx.race(ctx.wait_for_event("a"), ctx.wait_for_event("b"))
        return [won.index, won.value, await ctx.wait_for_event("a"), await ctx.wait_for_event("b")]

    for turn in range(2):
        async with virtual(database, racing) as node:
            handle = await node.client.start(
                "racing", instance_id="one", if_running="return", if_ended="return"
            )
            if turn == 0:
                await handle.raise_event("b", "b1")
                await info_when(
                    handle,
                    lambda info: info.waiting_counts == {"event": 1} and info.history_events > 4,
                )
            else:
                await handle.raise_event("b", "b2")
                await handle.raise_event("a", "a1")
                assert await handle.result() == [1, "b1", "a1", "b2"]
                history = await node.client.get_history("one")
                assert len([event for event in history if event.kind == "command_cancelled"]) == 1


@bounded
async def test_24_a_gather_of_coroutines_that_wait_often_and_a_race_of_ten(database):
    @activity
    async def add(a: int, b: int) -> int:
        return a + b

    async def many(ctx, value):
        async def chain(start):
            for _ in range(4):
                start = await ctx.schedule_activity(add, start, 1)
                await ctx.schedule_timer(timedelta(0))
            return start

        results = await ctx.gather(*(chain(number) for number in range(20)))
        won = await ctx.race(*(ctx.wait_for_event(f"e{number}") for number in range(10)))
        return [sum(results), won.index]

    async with virtual(database, many, activities=[add]) as node:
        handle = await node.client.start("many")
        await handle.raise_event("e7")
        assert await handle.result() == [sum(range(20)) + 80, 7]


@bounded
async def test_25_a_timer_after_a_timer_counts_from_its_firing_and_none_is_early(database):
    async def timers(ctx, value):
        first = ctx.now()
        await ctx.schedule_timer(timedelta(milliseconds=30))
        second = ctx.now()
        await ctx.schedule_timer(timedelta(milliseconds=20))
        await ctx.schedule_timer(second - timedelta(days=1))
        return [first, second]

    async with virtual(database, timers) as node:
        handle = await node.client.start("timers")
        await handle.result()
        history = await node.client.get_history(handle.instance_id)
    created = {
        event.event_id: event.details["due_at"]
        for event in history
        if event.kind == "timer_created"
    }
    fired = [event for event in history if event.kind == "timer_fired"]
    assert len(fired) == 3
    for event in fired:
        assert event.at >= created[event.details["source"]]
    first, second, _ = created.values()
    assert second == fired[0].at + timedelta(milliseconds=20)
    assert first == history[0].at + timedelta(milliseconds=30)


@bounded
async def test_25b_a_timer_that_became_due_while_nobody_ran_fires_at_the_restart(database):
    async def sleeps(ctx, value):
        await ctx.schedule_timer(timedelta(milliseconds=50))
        return "woken"

    async with virtual(database, sleeps) as node:
        await node.client.start("sleeps", instance_id="one")
    async with virtual(database, sleeps) as node:
        assert await node.client.handle("one").result() == "woken"


@bounded
async def test_29_an_output_that_cannot_travel_holds_its_instance_and_the_others_go_on(database):
    async def bad(ctx, value):
        return object()

    async def good(ctx, value):
        return value

    async def too_much(ctx, value):
        while True:
            await ctx.schedule_timer(timedelta(0))

    from orchestra import Limits

    async with virtual(database, bad, good, too_much, limits=Limits(max_events=60)) as node:
        failed = await info_when(await node.client.start("bad"), lambda info: info.held_reason)
        assert failed.held_reason.startswith(
            "error: orchestra.errors.EncodeError: output of orchestration 'bad'"
        )
        grown = await info_when(await node.client.start("too_much"), lambda info: info.held_reason)
        assert grown.held_reason.startswith(f"limit: {ExecutionLimitExceeded.__name__}: ")
        assert await (await node.client.start("good", 1)).result() == 1


@bounded
async def test_31_code_that_catches_everything_swallows_neither_boundary_nor_cancel(database):
    async def greedy(ctx, number: int):
        try:
            if number == 1:
                ctx.continue_as_new(2)
            await ctx.wait_for_event("never")
        except Exception:
            return "swallowed"

    async with virtual(database, greedy) as node:
        handle = await node.client.start("greedy", 1)
        await info_when(handle, lambda info: info.execution_id == 2 and info.waiting_on)
        await handle.cancel()
        with pytest.raises(InstanceCancelled):
            await handle.result()


@bounded
async def test_32_what_finally_decides_happens_once_over_restarts(database):
    undone = []

    @activity
    async def undo(what: str) -> None:
        undone.append(what)

    async def careful(ctx, value):
        try:
            await ctx.wait_for_event("go")
        finally:
            await ctx.schedule_activity(undo, "first")
            await ctx.wait_for_event("confirmed")
            await ctx.schedule_activity(undo, "second")

    for told in (None, "go", None, "confirmed"):
        async with virtual(database, careful, activities=[undo], cold=True) as node:
            handle = await node.client.start(
                "careful", instance_id="one", if_running="return", if_ended="return"
            )
            if told:
                await handle.raise_event(told)
            if told == "confirmed":
                await handle.result()
            else:
                await node.run_until_idle()
                awaited = "confirmed" if undone or told else "go"
                await info_when(
                    handle,
                    lambda info, name=awaited: [wait.name for wait in info.waiting_on] == [name],
                )
    assert undone == ["first", "second"]


@bounded
async def test_a_changed_orchestration_holds_its_instance_visibly_and_the_old_code_frees_it(
    database,
):
    async def before(ctx, value):
        await ctx.wait_for_event("go")
        return "before"

    async def after(ctx, value):
        await ctx.schedule_timer(timedelta(hours=1))
        return "after"

    async with virtual(database, ("job", "1.0.0", before)) as node:
        await node.client.start("job", instance_id="one")
        await info_when(node.client.handle("one"), lambda info: info.waiting_on)
    async with virtual(database, ("job", "1.0.0", after)) as node:
        await node.client.raise_event("one", "go")
        info = await info_when(node.client.handle("one"), lambda info: info.held_reason)
        assert info.status is InstanceStatus.HELD
        assert "nondeterminism" in info.held_reason
        assert await (await node.client.start("job", instance_id="two")).info()
    async with virtual(database, ("job", "1.0.0", before)) as node:
        assert await node.client.handle("one").result() == "before"


@bounded
async def test_a_small_memory_of_warm_executions_changes_nothing_but_speed(path):
    async def three(ctx, number: int):
        return [number, *[await ctx.wait_for_event("go") for _ in range(3)]]

    async with runtime(path, three, warm_executions=2, max_owned=4) as node:
        handles = [await node.client.start("three", number) for number in range(12)]
        for sent in range(3):
            for handle in handles:
                await handle.raise_event("go", sent)
        assert [await handle.result() for handle in handles] == [
            [number, 0, 1, 2] for number in range(12)
        ]
        assert await until(lambda: node._thread._engine.owned == 0)
