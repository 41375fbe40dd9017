"""Families: parents that wait, children that lap, and what the info shows of them. Most are on virtual
time; those with several nodes, or about polling, have a runtime.
"""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from orchestra import (
    Cancelled,
    ChildFailed,
    ChildInfo,
    Exact,
    InstanceStatus,
    Latest,
    ParentInfo,
    activity,
)
from orchestra.errors import Failure, InstanceFailed, UnknownOrchestration
from orchestra.testing.checker import check_store
from tests.support.kit import alone, bounded, echo, idle, info_when, runtime, until, virtual

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
NEVER = {"poll": HOUR}
"""Nothing may depend on polling where one node does it all."""


@dataclass(frozen=True)
class Receipt:
    laps: int
    version: str


async def errand(ctx, laps: int) -> Receipt:
    """A child that laps as often as it is told."""
    if ctx.execution_id < laps:
        ctx.continue_as_new(laps)
    return Receipt(ctx.execution_id, ctx.version)


async def stage(ctx, left: int) -> list[int]:
    """A parent that laps, with a child that laps in each of its laps."""
    receipt = await ctx.start_child(errand, left + 1)
    ctx.set_custom_status(receipt.laps)
    if left:
        ctx.continue_as_new(left - 1)
    return [ctx.execution_id, receipt.laps]


async def outcome_of(ctx, name, **options):
    """Return how a child ends, for orchestrations that only tell."""
    try:
        return await ctx.start_child(name, **options)
    except ChildFailed as error:
        return [error.child_id, error.status, error.cause.type]


async def opened(node, *instance_ids):
    """Return once instances wait for something."""
    for instance_id in instance_ids:

        async def look(instance_id=instance_id):
            listed = await node.client.list_instances(id_prefix=instance_id)
            return any(info.instance_id == instance_id and info.waiting_on for info in listed.items)

        await until(look)


@bounded
async def test_17_parents_and_children_lap_and_every_child_reports(database):
    """Scenario 17."""
    async with virtual(database, errand, stage) as node:
        handle = await node.client.start("stage", 3, instance_id="p")
        assert await handle.result() == [4, 1]
        children = (await node.client.list_instances(parent="p")).items
        assert sorted(child.execution_id for child in children) == [1, 2, 3, 4]
        assert len({child.instance_id for child in children}) == 4
        assert {child.parent.execution_id for child in children} == {1, 2, 3, 4}
        assert {child.root_id for child in children} == {"p"}
        (last,) = (await handle.info()).children
        assert last.status is InstanceStatus.COMPLETED
    check_store(node.client._provider).raise_if_violated()


@bounded
async def test_a_child_that_laps_a_hundred_times_reports_once_over_restarts(database):
    async def patient(ctx, _: None) -> int:
        return (await ctx.start_child(errand, 100)).laps

    async with virtual(database, errand, patient) as node:
        await node.client.start("patient", instance_id="p")
    async with virtual(database, errand, patient) as node:
        assert await node.client.handle("p").result() == 100


@bounded
async def test_two_hundred_children_need_no_polling(path):
    async def fan(ctx, width: int) -> int:
        return sum(await ctx.gather(*(ctx.start_child(echo, number) for number in range(width))))

    async with runtime(path, echo, fan, **NEVER) as node:
        handle = await node.client.start("fan", 200)
        assert await handle.result(int) == sum(range(200))
        info = await handle.info()
        assert len(info.children) == 200
        assert {child.status for child in info.children} == {InstanceStatus.COMPLETED}


@bounded
async def test_the_info_shows_a_family(database):
    async def middle(ctx, _: None):
        return await ctx.start_child("idle", instance_id="bottom", version="1.0.0")

    async def top(ctx, _: None):
        return await ctx.gather(
            ctx.start_child(middle, instance_id="middle"), ctx.wait_for_event("go")
        )

    async with virtual(database, idle, middle, top) as node:
        handle = await node.client.start("top", instance_id="top")
        await opened(node, "top", "middle", "bottom")
        info = await handle.info()
        assert (info.parent, info.root_id) == (None, "top")
        assert info.children == (ChildInfo("middle", "middle", "1.0.0", InstanceStatus.RUNNING),)
        assert [(wait.kind, wait.name, wait.instance_id) for wait in info.waiting_on] == [
            ("child", "middle", "middle"),
            ("event", "go", None),
        ]
        assert info.waiting_counts == {"child": 1, "event": 1}
        bottom = await node.client.get_instance_info("bottom")
        assert (bottom.parent, bottom.root_id, bottom.children) == (
            ParentInfo("middle", 1),
            "top",
            (),
        )
        (listed,) = (await node.client.list_instances(parent="top")).items
        assert listed.instance_id == "middle"
        assert listed.children == (ChildInfo("bottom", "idle", "1.0.0", None),), (
            "a list looks nowhere else"
        )
        await node.client.raise_event("bottom", "go", "up")
        await until(lambda: _ended(node, "middle"))
        info = await handle.info()
        assert (info.unread_messages, info.children[0].status) == (0, InstanceStatus.COMPLETED)
        await handle.raise_event("go", "too")
        assert await handle.result() == ["up", "too"]


async def _ended(node, instance_id):
    return (await node.client.get_instance_info(instance_id)).status.is_final


@bounded
async def test_a_child_whose_name_only_other_nodes_have_is_run_by_them(path):
    async def asks(ctx, _: None):
        return await ctx.start_child("echo", "over there", returns=str)

    quick = {"poll": timedelta(milliseconds=50)}
    async with runtime(path, echo, **quick), runtime(path, asks, **quick) as node:
        assert await (await node.client.start("asks")).result() == "over there"


@bounded
async def test_a_taken_id_an_unknown_name_and_a_failure_are_told_apart(database):
    async def breaks(ctx, _: None):
        raise Failure("on purpose")

    async def asks(ctx, _: None):
        return [
            await outcome_of(ctx, "idle", instance_id="taken"),
            await outcome_of(ctx, "nobody", instance_id="new"),
            await outcome_of(ctx, "breaks", instance_id="broken"),
        ]

    async with virtual(database, idle, breaks, asks) as node:
        await node.client.start("idle", instance_id="taken")
        assert await (await node.client.start("asks")).result() == [
            ["taken", "failed", "orchestra.errors.InstanceExists"],
            ["new", "failed", "orchestra.errors.UnknownOrchestration"],
            ["broken", "failed", "orchestra.errors.Failure"],
        ]
        assert not (await node.client.get_instance_info("taken")).status.is_final


@bounded
async def test_an_uncaught_child_failure_fails_the_parent_with_its_story(database):
    async def asks(ctx, _: None):
        await ctx.start_child("nobody", instance_id="new")

    async with virtual(database, asks) as node:
        with pytest.raises(InstanceFailed, match="child 'new'") as raised:
            await (await node.client.start("asks")).result()
        assert raised.value.error.type == "orchestra.errors.ChildFailed"


@bounded
async def test_06_children_take_their_versions_by_policy_or_as_told(database):
    """Scenario 6."""

    async def asks(ctx, version: str | None):
        return (await ctx.start_child("errand", 1, version=version, returns=Receipt)).version

    versions = [("errand", version, errand) for version in ("1.0.0", "1.1.0")]
    async with virtual(database, *versions, asks, policies={"errand": Exact("1.0.0")}) as node:
        assert await (await node.client.start("asks")).result() == "1.0.0"
        assert await (await node.client.start("asks", "1.1.0")).result() == "1.1.0"
        await node.client.set_version_policy("errand", Latest())

        async def latest():
            return await (await node.client.start("asks")).result() == "1.1.0"

        await until(latest)
        held = await node.client.start("asks", "2.0.0")
        info = await info_when(held, lambda info: info.children)
        (child,) = info.children
        assert (child.version, child.status) == ("2.0.0", InstanceStatus.HELD)
    async with virtual(database, ("errand", "2.0.0", errand), asks) as node:
        assert await node.client.handle(held.instance_id).result() == "2.0.0"


@bounded
async def test_06_parent_and_child_move_to_new_versions_each_at_its_own_boundary(database):
    """Scenario 6."""

    async def walker(ctx, lap: int):
        ctx.set_custom_status(ctx.version)
        if await ctx.wait_for_event("go") == "end":
            return ctx.version
        ctx.continue_as_new(lap + 1)

    async def leader(ctx, _: None):
        return [ctx.version, await ctx.start_child("walker", 0, instance_id="walker")]

    async with virtual(database, walker, leader) as node:
        await node.client.start("leader", instance_id="leader")
        await opened(node, "walker")
    new = [
        (name, version, code)
        for name, code in (("walker", walker), ("leader", leader))
        for version in ("1.0.0", "2.0.0")
    ]
    async with virtual(database, *new) as node:
        walker_handle = node.client.handle("walker")
        await walker_handle.raise_event("go")
        await info_when(walker_handle, lambda info: info.custom_status == "2.0.0")
        assert (await node.client.get_instance_info("leader")).version == "1.0.0"
        await walker_handle.raise_event("go", "end")
        assert await node.client.handle("leader").result() == ["1.0.0", "2.0.0"]


@pytest.mark.parametrize(
    ("close", "expected"),
    [
        ("abandon", InstanceStatus.RUNNING),
        ("cancel", InstanceStatus.CANCELLED),
        ("terminate", InstanceStatus.TERMINATED),
    ],
)
@bounded
async def test_a_child_does_what_its_start_says_when_its_parent_closes(database, close, expected):
    async def leaves(ctx, _: None):
        ctx.start_child(idle, None, instance_id="child", on_parent_close=close)
        await ctx.wait_for_event("go")

    async with virtual(database, idle, leaves) as node:
        handle = await node.client.start("leaves")
        await opened(node, "child")
        await handle.raise_event("go")
        await handle.result()
        child = node.client.handle("child")
        info = await info_when(child, lambda info: info.status is expected)
        if close == "abandon":
            assert not info.cancel_requested
            await child.raise_event("go", "alone")
            assert await child.result() == "alone"


@bounded
async def test_an_operator_who_terminates_the_parent_closes_it_for_its_children(path):
    async def leaves(ctx, _: None):
        for close in ("abandon", "cancel", "terminate"):
            ctx.start_child(idle, None, instance_id=close, on_parent_close=close)
        await ctx.wait_for_event("go")

    async with runtime(path, idle, leaves, poll=timedelta(milliseconds=50)) as node:
        handle = await node.client.start("leaves")
        await opened(node, "abandon", "cancel", "terminate")
        async with alone(path) as client:
            await client.terminate(handle.instance_id, "enough")
        for name, status in (
            ("cancel", InstanceStatus.CANCELLED),
            ("terminate", InstanceStatus.TERMINATED),
        ):
            await info_when(
                node.client.handle(name), lambda info, status=status: info.status is status
            )
        assert not await _ended(node, "abandon")


@bounded
async def test_a_cancel_goes_down_a_line_and_compensation_runs(database):
    undone = []

    @activity
    async def undo(what: str) -> None:
        undone.append(what)

    async def bottom(ctx, _: None):
        try:
            await ctx.wait_for_event("never")
        except Cancelled:
            await ctx.schedule_activity(undo, "bottom")
            raise

    async def top(ctx, _: None):
        await ctx.start_child(bottom, instance_id="bottom")

    async with virtual(database, bottom, top, activities=[undo]) as node:
        handle = await node.client.start("top")
        await opened(node, "bottom")
        await handle.cancel("enough")
        assert (await node.client.wait_for_completion("bottom")).status is InstanceStatus.CANCELLED
        assert (await handle.info()).status is InstanceStatus.CANCELLED
        assert undone == ["bottom"]


@bounded
async def test_a_child_that_somebody_terminates_or_cancels_is_told_to_its_parent(database):
    async def asks(ctx, _: None):
        return await ctx.gather(
            outcome_of(ctx, "idle", instance_id="one"), outcome_of(ctx, "idle", instance_id="two")
        )

    async with virtual(database, idle, asks) as node:
        handle = await node.client.start("asks")
        await opened(node, "one", "two")
        await node.client.terminate("one")
        await node.client.cancel("two")
        assert await handle.result() == [
            ["one", "terminated", "orchestra.Terminated"],
            ["two", "cancelled", "orchestra.Cancelled"],
        ]


@bounded
async def test_a_detached_start_outlives_its_starter_and_its_boundary(database):
    async def sows(ctx, lap: int):
        ctx.start_detached(idle, None, instance_id=f"seed-{lap}")
        if lap < 2:
            ctx.continue_as_new(lap + 1)
        return ctx.start_detached("idle", instance_id="seed-0")

    async with virtual(database, idle, sows) as node:
        assert await (await node.client.start("sows", 0)).result() == "seed-0"
        for lap in range(3):
            info = await node.client.get_instance_info(f"seed-{lap}")
            assert (info.parent, info.root_id, info.status.is_final) == (None, f"seed-{lap}", False)


@bounded
async def test_a_misspelt_detached_start_makes_no_later_start_of_that_name_succeed(database):
    """It waits for the name, which may come; whoever starts and is there to be told is told."""

    async def sows(ctx, _: None):
        waiting = ctx.start_detached("tpyo")
        return [waiting, await outcome_of(ctx, "tpyo", instance_id="kid")]

    async with virtual(database, sows) as node:
        waiting, child = await (await node.client.start("sows")).result()
        with pytest.raises(UnknownOrchestration, match="tpyo"):
            await node.client.start("tpyo")
        assert (await node.client.get_instance_info(waiting)).status is InstanceStatus.HELD
        again, other = await (await node.client.start("sows", instance_id="again")).result()
    assert child == other == ["kid", "failed", "orchestra.errors.UnknownOrchestration"]

    async def tpyo(ctx, _: None):
        return ctx.version

    async with virtual(database, tpyo) as node:
        for instance_id in (waiting, again):
            assert await node.client.handle(instance_id).result() == "1.0.0"


@bounded
async def test_deleting_a_parent_leaves_its_children_and_the_id_is_free_for_another_life(database):
    async def leaves(ctx, _: None):
        ctx.start_child(idle, None, instance_id="child")

    async with virtual(database, idle, leaves) as node:
        handle = await node.client.start("leaves", instance_id="p")
        await handle.result()
        await handle.client.delete("p")
        await node.client.start("idle", instance_id="p")
        assert (await node.client.get_instance_info("p")).children == (), "they are of another life"
        await node.client.raise_event("child", "go", "done")
        assert await node.client.handle("child").result() == "done"
        info = await node.client.get_instance_info("p")
        assert (info.waiting_counts, info.unread_messages) == ({"event": 1}, 0)
