"""Instances under an operator's control: hold and release, begin again (scenario 61), go back."""

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from orchestra import (
    AlreadyCompleted,
    ChildFailed,
    Client,
    Failure,
    HoldKind,
    InboxFull,
    InstanceExists,
    InstanceNotFound,
    InstanceNotHeld,
    InstanceStatus,
    InvalidArgument,
    Runtime,
    activity,
    activity_context,
)
from tests.support.kit import bounded, info_when, registry, until

pytestmark = pytest.mark.anyio


async def counts(ctx, laps: list[str]) -> list[str]:
    """Take an event a lap, and cross the boundary with all of them; "end" ends it."""
    name = await ctx.wait_for_event("next", str)
    if name == "end":
        return laps
    if name == "fail":
        raise Failure("told to")
    if name == "break":
        raise LookupError("a bug")
    return ctx.continue_as_new([*laps, name])


async def listens(ctx, _: None) -> list[str]:
    return [await ctx.wait_for_event("said", str) for _ in range(2)]


async def sleeps(ctx, seconds: float) -> str:
    await ctx.schedule_timer(timedelta(seconds=seconds))
    return "woke"


async def is_in(handle, number):
    return await info_when(handle, lambda info: info.execution_id == number and info.waiting_on)


# --- holding ---


@bounded
async def test_a_hold_stops_the_code_and_what_came_meanwhile_counts_after_the_release(store):
    async with Runtime(store(), registry(counts)) as node, Client(store()) as elsewhere:
        handle = await node.client.start("counts", [])
        await is_in(handle, 1)
        for client in (node.client, elsewhere):
            await client.hold(handle.instance_id, reason="look at it", by="anna")
            before = await handle.info()
            assert before.status is InstanceStatus.HELD
            hold = before.hold
            assert hold is not None
            assert (hold.kind, hold.detail, hold.by) == (HoldKind.OPERATOR, "look at it", "anna")
            assert hold.releases_when == "with client.release()"
            assert before.held_reason == "operator: look at it"
            await client.hold(handle.instance_id, reason="again")
            assert (await handle.info()).hold == hold, "a second one changes nothing"
            await handle.raise_event("next", "a")
            await anyio.wait_all_tasks_blocked()
            after = await handle.info()
            assert (after.execution_id, after.unread_messages) == (before.execution_id, 1)
            await client.release(handle.instance_id)
            await is_in(handle, before.execution_id + 1)
            with pytest.raises(InstanceNotHeld):
                await client.release(handle.instance_id)


@bounded
async def test_a_timer_that_came_due_under_a_hold_fires_once_after_the_release(store):
    async with Runtime(store(), registry(sleeps)) as node:
        for seconds in (0.05, 0.5, 5.0):  # it may have ended before a busy machine holds it
            handle = await node.client.start("sleeps", seconds)
            with suppress(AlreadyCompleted):
                await node.client.hold(handle.instance_id)
                break
        over = datetime.now(UTC) + timedelta(seconds=2 * seconds)
        await until(lambda: datetime.now(UTC) > over)
        assert (await handle.info()).status is InstanceStatus.HELD
        await node.client.release(handle.instance_id)
        assert await handle.result() == "woke"


@bounded
async def test_what_runs_under_a_hold_is_cancelled_and_its_attempt_does_not_count(store):
    attempts: list[int] = []
    go = anyio.Event()

    @activity(name="work")
    async def work() -> str:
        attempts.append(activity_context().attempt)
        await go.wait()
        return "done"

    async def works(ctx, _: None) -> str:
        return await ctx.schedule_activity(work)

    async with Runtime(store(), registry(works), activities=[work]) as node:
        handle = await node.client.start("works", None)
        await until(lambda: len(attempts) == 1)
        await node.client.hold(handle.instance_id)
        go.set()
        await anyio.wait_all_tasks_blocked()
        assert (await handle.info()).status is InstanceStatus.HELD
        await node.client.release(handle.instance_id)
        assert await handle.result() == "done"
        assert attempts == [1, 1]


@bounded
async def test_terminate_beats_a_hold_and_a_cancel_waits_for_the_release(store):
    async with Runtime(store(), registry(counts)) as node:
        client = node.client
        for instance_id in ("ended", "waits"):
            await is_in(await client.start("counts", [], instance_id=instance_id), 1)
            await client.hold(instance_id)
        await client.terminate("ended")
        assert (await client.get_instance_info("ended")).status is InstanceStatus.TERMINATED
        await client.cancel("waits")
        await anyio.wait_all_tasks_blocked()
        assert (await client.get_instance_info("waits")).status is InstanceStatus.HELD
        await client.release("waits")
        info = await client.wait_for_completion("waits")
        assert info.status is InstanceStatus.CANCELLED
        with pytest.raises(AlreadyCompleted):
            await client.hold("ended")
        with pytest.raises(InstanceNotFound):
            await client.hold("nobody")
        with pytest.raises(InvalidArgument):
            await client.hold("waits", reason=7)


# --- beginning again ---


@bounded
async def test_two_services_that_start_at_once_have_one_running_loop_again(store):
    """Case 13: see to it that it runs, whether it runs, has failed or was terminated."""
    async with Runtime(store(), registry(counts)) as node, Client(store()) as elsewhere:

        async def see_that_it_runs(client):
            await client.start(
                "counts", [], instance_id="loop", if_running="return", if_ended="restart"
            )

        async def by_both():
            async with anyio.create_task_group() as group:
                for client in (node.client, elsewhere):
                    group.start_soon(see_that_it_runs, client)
            return await is_in(handle, len(lives) + 1)

        lives: list[str] = []
        handle = node.client.handle("loop")
        for how in ("fail", "terminate", "end"):
            info = await by_both()
            assert info.status is InstanceStatus.RUNNING
            await by_both()
            assert (await handle.info()).incarnation == info.incarnation, "it runs already"
            lives.append(info.incarnation)
            if how == "terminate":
                await handle.terminate()
            else:
                await handle.raise_event("next", how)
                await handle.wait()
        info = await by_both()
        assert len({*lives, info.incarnation}) == 4
        ends = [row.status for row in await node.client.list_executions("loop")]
        assert ends == ["failed", "terminated", "completed", "running"]


@bounded
async def test_what_a_start_does_with_an_id_that_is_taken_is_chosen_apart_for_running_and_ended(
    store,
):
    async with Runtime(store(), registry(counts, listens)) as node:
        client = node.client
        running = await client.start("counts", [], instance_id="running")
        first = await is_in(running, 1)
        with pytest.raises(InstanceExists, match="if_running"):
            await client.start("counts", [], instance_id="running")
        with pytest.raises(InstanceExists, match="is running"):
            await client.start("counts", [], instance_id="running", if_ended="restart")
        await client.start("counts", ["new"], instance_id="running", if_running="terminate")
        second = await is_in(running, 2)
        assert (second.incarnation != first.incarnation, second.input) == (True, ["new"])

        ended = await client.start("counts", ["kept"], instance_id="ended")
        await ended.raise_event("next", "end")
        assert await ended.result() == ["kept"]
        with pytest.raises(InstanceExists, match="has ended"):
            await client.start("counts", [], instance_id="ended", if_running="return")
        with pytest.raises(InstanceExists, match="only failures begin again"):
            await client.start("counts", [], instance_id="ended", if_ended="restart_if_failed")
        await client.start("counts", [], instance_id="ended", if_ended="return")
        assert await ended.result() == ["kept"]
        with pytest.raises(InvalidArgument):
            await client.start("counts", [], instance_id="ended", if_ended="again")


@bounded
async def test_an_instance_of_another_orchestration_is_neither_handed_over_nor_touched(store):
    async with Runtime(store(), registry(counts, listens)) as node:
        client = node.client
        handle = await client.start("counts", [], instance_id="taken")
        before = await is_in(handle, 1)
        for choices in ({"if_running": "return"}, {"if_running": "terminate"}):
            with pytest.raises(InstanceExists, match="orchestration 'counts'"):
                await client.start(
                    "listens", instance_id="taken", events=[("next", "end")], **choices
                )
        info = await handle.info()
        assert (info.incarnation, info.unread_messages) == (before.incarnation, 0)
        await handle.terminate()
        for choice in ("return", "restart"):
            with pytest.raises(InstanceExists, match="orchestration 'counts'"):
                await client.start("listens", instance_id="taken", if_ended=choice)
        assert (await handle.info()).status is InstanceStatus.TERMINATED


@bounded
async def test_events_come_with_the_start_or_go_to_the_one_that_runs(store):
    async with Runtime(store(), registry(listens), inbox_limit=3) as node:
        client = node.client
        handle = await client.start("listens", instance_id="l", events=[("said", "one")])
        await info_when(handle, lambda info: info.unread_messages == 0 and info.waiting_on)
        again = await client.start(
            "listens", instance_id="l", request_id="r", events=[("said", "two")]
        )
        assert again.instance_id == "l"
        assert await handle.result() == ["one", "two"]
        # A start that is repeated begins no further life; another one does.
        for request in ("r", "r2"):
            await client.start(
                "listens",
                instance_id="l",
                request_id=request,
                events=[("said", "two")],
                if_ended="restart",
            )
            assert (await handle.info()).execution_id == (1 if request == "r" else 2)
        info = await info_when(handle, lambda info: info.execution_id == 2 and info.waiting_on)
        assert info.status is InstanceStatus.RUNNING
        with pytest.raises(InboxFull):
            await client.start("listens", instance_id="l", events=[("other", 1)] * 4)
        assert (await handle.info()).unread_messages == 0
        for wrong in ("said", [("said",)], [["said", 1]], [(7, 1)]):
            with pytest.raises(InvalidArgument):
                await client.start("listens", instance_id="l", events=wrong)


@bounded
async def test_a_lap_may_use_the_id_of_an_earlier_laps_child_again(store):
    """Case 19."""

    async def child(ctx, number: int) -> int:
        return number * 10

    async def parent(ctx, done: list[int]) -> list[int]:
        done = [*done, await ctx.start_child(child, len(done), instance_id="always")]
        return done if len(done) == 3 else ctx.continue_as_new(done)

    async with Runtime(store(), registry(child, parent)) as node:
        handle = await node.client.start("parent", [])
        assert await handle.result() == [0, 10, 20]
        rows = await node.client.list_executions("always")
        assert [row.output for row in rows] == [0, 10, 20]


# --- going back ---


@bounded
async def test_a_rewind_begins_a_former_lap_again_and_its_events_are_unread_again(store):
    async with Runtime(store(), registry(counts)) as node:
        client = node.client
        handle = await client.start("counts", [], instance_id="c")
        for number, name in enumerate(("a", "b", "c"), start=2):
            await handle.raise_event("next", name)
            await is_in(handle, number)
        await client.hold("c")
        done = await client.rewind("c", 2, reason="b was wrong", by="anna", request_id="one")
        assert (done.execution_id, done.version, done.events_restored) == (5, "1.0.0", 2)
        info = await handle.info()
        assert (info.input, info.unread_messages, info.pinned_version) == (["a"], 2, "1.0.0")
        again = await client.rewind("c", 2, reason="b was wrong", by="anna", request_id="one")
        assert (again.execution_id, (await handle.info()).execution_id) == (5, 5)
        dropped = await client.list_messages("c")
        assert [message.payload for message in dropped] == ["b", "c"]
        await client.drop_messages("c", message_ids=[dropped[0].message_id])
        await client.release("c")
        info = await is_in(handle, 6)
        assert info.input == ["a", "c"]
        rows = await client.list_executions("c")
        assert [row.status for row in rows] == [
            *["continued_as_new"] * 3,
            "rewound",
            "continued_as_new",
            "running",
        ]
        last = (await client.get_history("c", 4))[-1]
        assert (last.kind, dict(last.details)) == (
            "execution_rewound",
            {"to": 2, "by": "anna", "reason": "b was wrong"},
        )


@bounded
async def test_a_rewind_of_an_ended_or_faulty_instance_goes_on_under_the_same_id(store):
    async def mended(ctx, laps: list[str]) -> list[str]:
        ctx.continue_as_new([*laps, await ctx.wait_for_event("next", str)])

    both = registry(("counts", "1.0.0", counts), ("counts", "1.1.0", mended))
    async with Runtime(store(), both) as node:
        client = node.client
        for how, status in (("fail", InstanceStatus.FAILED), ("break", InstanceStatus.HELD)):
            handle = await client.start(
                "counts", [], instance_id=how, labels={"tier": "beta"}, version="1.0.0"
            )
            await handle.raise_event("next", how)
            before = await info_when(handle, lambda info, status=status: info.status is status)
            done = await client.rewind(how, 1, "1.1.0", reason="mended")
            read = 1 if status is InstanceStatus.FAILED else 0  # a hold reads nothing (rule 39)
            assert (done.execution_id, done.events_restored) == (2, read)
            info = await is_in(handle, 3)
            assert (info.version, info.input, info.labels) == ("1.1.0", [how], {"tier": "beta"})
            assert (info.status, info.pinned_version) == (InstanceStatus.RUNNING, "1.1.0")
            is_new_life = info.incarnation != before.incarnation
            assert is_new_life is (status is InstanceStatus.FAILED)


@bounded
async def test_a_second_rewind_leaves_unread_what_the_rewind_of_an_end_has_put_back(store):
    async with Runtime(store(), registry(counts)) as node:
        client = node.client
        handle = await client.start("counts", [], instance_id="c")
        for number, name in enumerate(("a", "b"), start=2):
            await handle.raise_event("next", name)
            await is_in(handle, number)
        await handle.terminate()
        held = await client.rewind("c", 3)
        await client.hold("c")
        first = await client.rewind("c", 2)
        second = await client.rewind("c", 1)
        assert held.events_restored == 0
        assert (first.events_restored, second.events_restored) == (1, 1)
        unread = await client.list_messages("c")
        assert [message.payload for message in unread] == ["a", "b"]


@bounded
async def test_a_second_rewind_leaves_unread_what_the_first_has_put_back(store):
    async with Runtime(store(), registry(counts)) as node:
        client = node.client
        handle = await client.start("counts", [], instance_id="c")
        for number, name in enumerate(("a", "b", "c"), start=2):
            await handle.raise_event("next", name)
            await is_in(handle, number)
        await client.hold("c")
        first = await client.rewind("c", 2)
        second = await client.rewind("c", 1)
        assert (first.events_restored, second.events_restored) == (2, 1)
        unread = await client.list_messages("c")
        assert [message.payload for message in unread] == ["a", "b", "c"]
        await client.release("c")
        info = await is_in(handle, second.execution_id + 3)
        assert info.input == ["a", "b", "c"]


@bounded
async def test_a_rewind_cancels_children_or_leaves_them(store):
    async def child(ctx, _: None):
        await ctx.wait_for_event("never")

    async def parent(ctx, lap: int):
        ctx.start_child(child, None, instance_id=f"{ctx.instance_id} {lap}")
        await ctx.wait_for_event("next")
        ctx.continue_as_new(lap + 1)

    async with Runtime(store(), registry(child, parent)) as node:
        client = node.client
        for children, expected in (
            ("cancel", InstanceStatus.CANCELLED),
            ("abandon", InstanceStatus.RUNNING),
        ):
            handle = await client.start("parent", 1, instance_id=children)
            await is_in(handle, 1)
            await is_in(client.handle(f"{children} 1"), 1)
            await client.hold(children)
            await client.rewind(children, 1, children=children)
            info = await info_when(
                client.handle(f"{children} 1"),
                lambda info, expected=expected: info.status is expected,
            )
            assert info.status is expected
            await handle.terminate()


@bounded
async def test_a_rewind_to_where_there_is_nothing_says_so_and_changes_nothing(store):
    async with Runtime(store(), registry(counts)) as node:
        client = node.client
        handle = await client.start("counts", [], instance_id="c")
        before = await is_in(handle, 1)
        for number in (0, 2, "1"):
            with pytest.raises(InvalidArgument):
                await client.rewind("c", number)
        with pytest.raises(InstanceNotFound):
            await client.rewind("nobody", 1)
        with pytest.raises(InvalidArgument):
            await client.rewind("c", 1, children="kill")
        after = await handle.info()
        assert (after.execution_id, after.incarnation) == (1, before.incarnation)


@bounded
async def test_a_loop_that_never_waits_is_rewound_and_held_as_well(store):
    async def spins(ctx, number: int):
        time.sleep(0.005)
        await ctx.schedule_timer(timedelta(0))
        ctx.continue_as_new(number + 1)

    async with Runtime(store(), registry(spins)) as node:
        client = node.client
        handle = await client.start("spins", 0)
        await info_when(handle, lambda info: info.execution_id > 3)
        done = await client.rewind(handle.instance_id, 2)
        await info_when(handle, lambda info: info.execution_id > done.execution_id)
        await client.hold(handle.instance_id)
        held = await handle.info()
        await anyio.wait_all_tasks_blocked()
        assert (await handle.info()).execution_id == held.execution_id
        row = (await client.list_executions(handle.instance_id, after=done.execution_id - 1))[0]
        assert row.input == 1
        await handle.terminate()


# --- pins ---


@bounded
async def test_a_pin_counts_up_to_its_time_and_shows_who_set_it(store):
    versions = registry(*(("counts", version, counts) for version in ("1.0.0", "1.1.0", "1.2.0")))
    async with Runtime(store(), versions) as node:
        client = node.client
        handle = await client.start("counts", [], version="1.0.0")
        await is_in(handle, 1)
        ahead = datetime.now(UTC) + timedelta(hours=1)
        await client.pin(handle.instance_id, "1.1.0", ahead, reason="beta", by="anna")
        info = await handle.info()
        assert (info.pinned_version, info.target_version) == ("1.1.0", "1.1.0")
        assert (info.pin.by, info.pin.reason, info.pin.until) == ("anna", "beta", ahead)
        await client.pin(handle.instance_id, "1.1.0", ahead - timedelta(hours=2))
        info = await handle.info()
        assert (info.pinned_version, info.target_version) == (None, "1.2.0")
        assert info.pin.has_expired
        await handle.raise_event("next", "a")
        assert (await is_in(handle, 2)).version == "1.2.0"
        with pytest.raises(InvalidArgument):
            await client.pin(handle.instance_id, "1.1.0", datetime(2026, 1, 1))  # noqa: DTZ001


@bounded
async def test_code_begins_an_ended_instance_again_where_it_says_so(store):
    async def child(ctx, number: int) -> int:
        return number

    async def parent(ctx, number: int) -> int:
        ctx.start_detached(child, number, instance_id="apart", if_ended="restart")
        return await ctx.start_child(child, number, instance_id="child", if_ended="restart")

    async def strict(ctx, number: int) -> str:
        try:
            await ctx.start_child(child, number, instance_id="child", if_ended="restart_if_failed")
        except ChildFailed as error:
            return error.cause.type
        return "began"

    async def wrong(ctx, number: int) -> str:
        try:
            ctx.start_detached(child, number, if_ended="again")
        except InvalidArgument:
            return "refused"
        return "accepted"

    async with Runtime(store(), registry(child, parent, strict, wrong)) as node:
        client = node.client
        for number in (1, 2):  # two parents: none is the other's child
            assert await (await client.start("parent", number)).result() == number
            info = await info_when(
                client.handle("apart"),
                lambda info, number=number: info.output == number,
            )
            assert info.execution_id == number
        assert await (await client.start("strict", 3)).result() == "orchestra.errors.InstanceExists"
        assert await (await client.start("wrong", 3)).result() == "refused"
