"""Parents and children over engines and stores: started with the parent's write, told once, and
only to who waits (rule 20).
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestra.engine.engine import EngineOptions
from orchestra.errors import ChildFailed, Failure, StoreBusy
from orchestra.events import ChildCompleted, ChildFailedEvent, ChildStarted
from orchestra.registry import OrchestrationRegistry
from orchestra.store.changes import Write
from orchestra.store.instances import PARENT_CLOSED
from orchestra.store.kinds import ExecutionEnd, MessageKind, ResolvedBy, Status
from orchestra.store.outcomes import Granted
from orchestra.store.queries import InstanceQuery
from orchestra.testing.checker import check_store
from orchestra.versions import Exact, Range
from tests.support.harness import HOLD, SECOND, YEAR, check_rest, several

LOST = pytest.mark.parametrize("lost", ["lost before", "lost after"])


async def kid(ctx, number):
    return await ctx.schedule_activity("work", number)


async def quick(ctx, number):
    return number


async def lapping(ctx, left):
    if left:
        ctx.continue_as_new(left - 1)
    return [ctx.execution_id, await ctx.schedule_activity("work", left)]


async def fails(ctx, _):
    raise Failure("on purpose")


async def waits(ctx, _):
    await ctx.wait_for_event("never")


async def parent(ctx, name):
    try:
        return await ctx.start_child(name, 1, instance_id="kid")
    except ChildFailed as error:
        return [error.status, error.cause.type, error.cause.message]


async def laps_with_children(ctx, left):
    value = await ctx.start_child("kid", left)
    if left:
        ctx.continue_as_new(left - 1)
    return value


async def grandparent(ctx, _):
    return await ctx.start_child("parent", "kid", instance_id="middle")


FAMILY = several(
    kid=kid,
    quick=quick,
    lapping=lapping,
    fails=fails,
    waits=waits,
    parent=parent,
    laps=laps_with_children,
    grandparent=grandparent,
)
BUSY = {"work": HOLD}


def check(world, *registries):
    """Hold the store, where nothing is owned, against all invariants."""
    check_rest(world, registries or [FAMILY])
    check_store(world.provider, (registries or [FAMILY])[0]).raise_if_violated()


def children_of(world, parent_id):
    return sorted(
        record.row.instance_id
        for record in world.directory.list(InstanceQuery(parent=parent_id, limit=10_000))
    )


def lone(**functions):
    """Return the registry of the family and a few more."""
    builder = OrchestrationRegistry.builder()
    for key, function in {"kid": kid, "quick": quick, "waits": waits, **functions}.items():
        builder.register(key, function)
    return builder.build()


# --- the way of a child -----------------------------------------------------------------------


def test_a_family_of_one_node_needs_no_polling(any_world):
    """Starts are claimed with the write that makes them, and the child's end wakes its parent in
    the same transaction.
    """
    node = any_world.node(FAMILY, BUSY, poll=YEAR, lease=YEAR)
    node.submit(any_world.start_change("parent", "kid", instance_id="p"))
    node.run_until_idle()
    node.finish(value="done")
    node.run_until_idle()
    assert any_world.output("p") == "done"
    assert [type(event) for event in any_world.events("p")][1:3] == [ChildStarted, ChildCompleted]
    assert node.store.calls["news"] == 0
    check(any_world)


@pytest.mark.slow
def test_a_fan_out_of_many_children_needs_no_polling_and_few_commits(any_world):
    async def fan(ctx, width):
        return sum(await ctx.gather(*(ctx.start_child("quick", number) for number in range(width))))

    registry = lone(fan=fan)
    node = any_world.node(registry, {}, poll=YEAR, lease=YEAR, options=EngineOptions(group=64))
    node.submit(any_world.start_change("fan", 200, instance_id="p"))
    node.run_until_idle()
    assert any_world.output("p") == sum(range(200))
    assert len(node.store.groups) < 30
    assert len(children_of(any_world, "p")) == 200
    check(any_world, registry)


def test_a_child_that_laps_many_times_still_reports(any_world):
    """Scenario 17."""
    node = any_world.node(FAMILY, BUSY)
    any_world.start("parent", "lapping", instance_id="p")
    any_world.run(1)
    node.finish(value="done")
    any_world.run(1)
    assert any_world.output("p") == [2, "done"]
    assert len(any_world.executions("kid")) == 2
    check(any_world)


def test_a_parent_that_laps_gets_fresh_child_ids(any_world):
    """Scenario 17."""
    node = any_world.node(FAMILY, BUSY)
    any_world.start("laps", 3, instance_id="p")
    for _ in range(4):
        any_world.run(1)
        node.finish(value="done")
    any_world.run(1)
    assert any_world.output("p") == "done"
    assert len(any_world.executions("p")) == 4
    assert len(children_of(any_world, "p")) == 4
    check(any_world)


def test_grandchildren_know_the_first_of_their_line(any_world):
    node = any_world.node(FAMILY, BUSY)
    any_world.start("grandparent", instance_id="first")
    any_world.run(1)
    assert [any_world.record(name).row.root_id for name in ("first", "middle", "kid")] == [
        None,
        "first",
        "first",
    ]
    assert [any_world.record(name).row.parent.instance_id for name in ("middle", "kid")] == [
        "first",
        "middle",
    ]
    node.finish(value=7)
    any_world.run(1)
    assert any_world.output("first") == 7
    check(any_world)


def test_a_child_of_another_node_reports_over_the_store(any_world):
    first = any_world.node(several(parent=parent))
    second = any_world.node(several(kid=kid), BUSY)
    any_world.start("parent", "kid", instance_id="p")
    any_world.run(3)
    assert first.running == {}
    second.finish(value="from elsewhere")
    any_world.run(3)
    assert any_world.output("p") == "from elsewhere"
    check(any_world)


# --- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fails", ["failed", "orchestra.errors.Failure", "on purpose"]),
        (
            "nobody",
            [
                "failed",
                "orchestra.errors.UnknownOrchestration",
                "no living node has registered orchestration 'nobody'",
            ],
        ),
    ],
)
def test_a_child_that_fails_or_is_unknown_fails_at_the_await(any_world, name, expected):
    node = any_world.node(FAMILY, BUSY, poll=YEAR, lease=YEAR)
    node.submit(any_world.start_change("parent", name, instance_id="p"))
    node.run_until_idle()
    status, kind, message = any_world.output("p")
    assert [status, kind] == expected[:2]
    assert message.startswith(expected[2])
    assert any(isinstance(event, ChildFailedEvent) for event in any_world.events("p"))
    check(any_world)


def test_a_name_that_was_registered_within_the_last_poll_is_known(any_world):
    node = any_world.node(several(parent=parent), poll=YEAR, lease=YEAR)
    other = any_world.node(several(kid=kid), {"work": lambda run: "done"})
    node.submit(any_world.start_change("parent", "kid", instance_id="p"))
    node.run_until_idle()
    other.engine.look()
    other.run_until_idle()
    node.engine.look()
    node.run_until_idle()
    assert any_world.output("p") == "done"


@pytest.mark.parametrize("how", ["cancelled", "terminated"])
def test_a_child_that_is_ended_from_outside_fails_at_the_await(any_world, how):
    any_world.node(FAMILY, BUSY)
    any_world.start("parent", "waits", instance_id="p")
    any_world.run(1)
    any_world.cancel("kid", "why not") if how == "cancelled" else any_world.store.commit(
        [any_world.termination("kid")]
    )
    any_world.run(3)
    assert any_world.output("p")[0] == how
    check(any_world)


def test_an_operator_of_this_node_ends_a_child_and_its_parent_goes_on_without_polling(any_world):
    node = any_world.node(FAMILY, BUSY, poll=YEAR, lease=YEAR)
    node.submit(any_world.start_change("parent", "waits", instance_id="p"))
    node.run_until_idle()
    node.submit(any_world.termination("kid"))
    node.run_until_idle()
    assert any_world.output("p")[0] == "terminated"


def test_a_child_whose_id_is_taken_fails_and_the_other_goes_on(any_world):
    """Rule 20."""
    node = any_world.node(FAMILY, BUSY)
    any_world.start("kid", 5, instance_id="kid")
    any_world.start("parent", "kid", instance_id="p")
    any_world.run(1)
    status, kind, message = any_world.output("p")
    assert (status, kind) == ("failed", "orchestra.errors.InstanceExists")
    assert "'kid' exists" in message
    node.finish(value="undisturbed")
    any_world.run(1)
    assert any_world.output("kid") == "undisturbed"
    check(any_world)


def test_a_detached_start_lives_by_itself_and_leaves_a_taken_id_alone(any_world, caplog):
    async def starts(ctx, _):
        return [ctx.start_detached("kid", 1, instance_id="one"), ctx.start_detached("kid", 2)]

    registry = lone(starts=starts)
    node = any_world.node(registry, BUSY)
    any_world.start("starts", instance_id="p")
    any_world.run(1)
    one, other = any_world.output("p")
    assert (one, caplog.text) == ("one", "")
    assert [any_world.record(name).row.parent for name in (one, other)] == [None, None]
    any_world.start("starts", instance_id="q")
    any_world.run(1)
    assert "a detached start of 'one' was left out" in caplog.text
    assert len(node.running) == 3
    for run in list(node.running.values()):
        node.finish(run)
    any_world.run(1)
    check(any_world, registry)


def test_a_detached_start_of_a_name_that_nobody_has_waits_for_it(any_world):
    async def starts(ctx, _):
        return ctx.start_detached("later", 1)

    any_world.node(lone(starts=starts))
    any_world.start("starts", instance_id="p")
    any_world.run(1)
    instance_id = any_world.output("p")
    assert any_world.status(instance_id) is Status.OPEN
    any_world.node(several(later=quick))
    any_world.run(3)
    assert (any_world.output(instance_id), any_world.versions(instance_id)) == (1, ["1.0.0"])


# --- versions ---------------------------------------------------------------------------------


def test_06_a_child_takes_the_version_of_the_policy_or_the_one_that_is_named(any_world):
    """Scenario 6."""

    async def chooses(ctx, _):
        await ctx.gather(
            ctx.start_child("kid", instance_id="by policy"),
            ctx.start_child("kid", instance_id="named", version="1.0.0"),
            ctx.start_child("kid", instance_id="to come", version="3.0.0"),
        )

    builder = OrchestrationRegistry.builder().register("chooses", chooses)
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        builder.register("kid", quick, version=version)
    any_world.node(builder.build())
    any_world.set_policy(Exact("1.1.0"), "kid")
    any_world.run(2)
    any_world.start("chooses", instance_id="p")
    any_world.run(2)
    assert any_world.versions("by policy") == ["1.1.0"]
    assert any_world.versions("named") == ["1.0.0"]
    resolutions = {
        name: any_world.executions(name)[0].resolution.how for name in ("by policy", "named")
    }
    assert resolutions == {"by policy": ResolvedBy.POLICY, "named": ResolvedBy.EXPLICIT}
    assert (any_world.status("to come"), any_world.status("p")) == (Status.OPEN, Status.OPEN), (
        "it is held until it is deployed"
    )
    any_world.node(OrchestrationRegistry.builder().register("kid", quick, version="3.0.0").build())
    any_world.run(3)
    assert any_world.status("p") is Status.COMPLETED


def test_06_parent_and_child_upgrade_independently(any_world):
    """Scenario 6."""

    async def old(ctx, left):
        return await step(ctx, left)

    async def new(ctx, left):
        return await step(ctx, left)

    async def step(ctx, left):
        await ctx.schedule_activity("work")
        if left:
            ctx.continue_as_new(left - 1)
        return ctx.version

    async def watches(ctx, left):
        version = await ctx.start_child("steps", 1)
        if left:
            ctx.continue_as_new(left - 1)
        return [ctx.version, version]

    def code(**of_steps):
        builder = OrchestrationRegistry.builder().register("watches", watches)
        for version, function in of_steps.items():
            builder.register("steps", function, version=version.removeprefix("v").replace("_", "."))
        return builder.build()

    before = any_world.node(code(v1_0_0=old), BUSY)
    any_world.start("watches", 1, instance_id="p")
    any_world.run(1)
    before.stop()
    after = any_world.node(code(v1_0_0=old, v1_1_0=new), BUSY)
    for _ in range(4):
        any_world.run(2)
        after.finish()
    any_world.run(2)
    assert any_world.output("p") == ["1.0.0", "1.1.0"]
    lives = sorted(any_world.versions(child) for child in children_of(any_world, "p"))
    assert lives == [["1.0.0", "1.1.0"], ["1.1.0", "1.1.0"]]
    check(any_world, code(v1_0_0=old, v1_1_0=new))


# --- giving up --------------------------------------------------------------------------------


def test_the_loser_of_a_race_is_cancelled_and_its_late_end_dropped(any_world):
    async def races(ctx, _):
        winner = await ctx.race(
            ctx.start_child("waits", instance_id="slow"), ctx.schedule_activity("work")
        )
        await ctx.wait_for_event("go")
        return winner.index

    registry = lone(races=races)
    node = any_world.node(registry, BUSY, poll=YEAR, lease=YEAR)
    node.submit(any_world.start_change("races", instance_id="p"))
    node.run_until_idle()
    node.finish()
    node.run_until_idle()
    assert any_world.status("slow") is Status.CANCELLED
    record = any_world.record("p")
    assert (record.reports, record.status) == ((), Status.OPEN), (
        "the late end was dropped, and its row with it"
    )
    check(any_world, registry)
    node.submit(any_world.append_change("p"))
    node.run_until_idle()
    assert any_world.output("p") == 1


def test_cancelling_a_parent_cancels_the_child_that_it_awaits_and_so_on_down(any_world):
    node = any_world.node(FAMILY, BUSY)
    any_world.start("grandparent", instance_id="first")
    any_world.run(1)
    any_world.cancel("first")
    any_world.run(3)
    assert [any_world.status(name) for name in ("first", "middle", "kid")] == [Status.CANCELLED] * 3
    assert len(node.asked) == 1
    check(any_world)


def test_a_child_that_ends_while_it_is_given_up_is_told_to_nobody(any_world):
    """Both in one group: the parent gives it up, and it completes."""

    async def races(ctx, _):
        await ctx.race(
            ctx.start_child("kid", instance_id="slow"), ctx.schedule_activity("work", "parent")
        )
        await ctx.wait_for_event("go")

    registry = lone(races=races)
    node = any_world.node(registry, BUSY)
    any_world.start("races", instance_id="p")
    any_world.run(1)
    for run in list(node.running.values()):
        node.finish(run)
    any_world.run(1)
    assert (any_world.status("slow"), any_world.record("p").reports) == (Status.COMPLETED, ())
    check(any_world, registry)


def test_the_late_end_of_a_child_leaves_no_row_while_its_parent_stays_in_memory(any_world):
    """I9: dropping it is worth a write, also where nothing else has happened."""

    async def races(ctx, _):
        await ctx.race(
            ctx.start_child("waits", instance_id="slow"), ctx.schedule_activity("work", 1)
        )
        return await ctx.schedule_activity("work", 2)

    registry = lone(races=races)
    node = any_world.node(registry, BUSY, poll=YEAR, lease=YEAR)
    node.submit(any_world.start_change("races", instance_id="p"))
    node.run_until_idle()
    node.finish()
    node.run_until_idle()
    record = any_world.record("p")
    assert (any_world.status("slow"), record.row.owner, record.reports) == (
        Status.CANCELLED,
        node.node_id,
        (),
    )
    node.finish(value="done")
    node.run_until_idle()
    assert any_world.output("p") == "done"
    check(any_world, registry)


# --- the parent's execution closes -------------------------------------------------------------


def closing_parent(close):
    async def subject(ctx, lap):
        if lap == 0:
            ctx.start_child("waits", instance_id="kid", on_parent_close=close)
        said = await ctx.wait_for_event("go")
        if said == "lap":
            ctx.continue_as_new(lap + 1)
        if said == "fail":
            raise Failure(said)
        return said

    return subject


@pytest.mark.parametrize("how", ["end", "fail", "lap", "terminate", "cancel"])
@pytest.mark.parametrize("close", ["abandon", "cancel", "terminate"])
def test_what_a_child_does_when_its_parents_execution_closes(any_world, close, how):
    registry = lone(subject=closing_parent(close))
    any_world.node(registry, BUSY)
    any_world.start("subject", 0, instance_id="p")
    any_world.run(1)
    if how == "terminate":
        any_world.terminate("p")
    elif how == "cancel":
        any_world.cancel("p")
    else:
        any_world.send("p", value=how)
    any_world.run(3)
    expected = {"abandon": Status.OPEN, "cancel": Status.CANCELLED, "terminate": Status.TERMINATED}[
        close
    ]
    assert any_world.status("kid") is expected
    if close == "abandon":
        assert any_world.record("kid").row.cancel is None
    else:
        assert PARENT_CLOSED.encode() in any_world.record("kid").execution.error
    if close == "terminate":
        assert any_world.kinds("kid")[-1] == "EXECUTION_TERMINATED"
    check(any_world, registry)


def test_terminating_for_the_parent_runs_no_code_and_aborts_what_runs(any_world):
    async def subject(ctx, _):
        ctx.start_child("stubborn", instance_id="kid", on_parent_close="terminate")
        await ctx.wait_for_event("go")

    async def stubborn(ctx, _):
        try:
            await ctx.schedule_activity("work")
        finally:
            await ctx.schedule_activity("work")

    registry = lone(subject=subject, stubborn=stubborn)
    node = any_world.node(registry, BUSY, poll=YEAR, lease=YEAR)
    node.submit(any_world.start_change("subject", instance_id="p"))
    node.run_until_idle()
    (key,) = node.running
    node.submit(any_world.append_change("p"))
    node.run_until_idle()
    assert any_world.status("kid") is Status.TERMINATED
    assert (node.aborted, len(node.attempts)) == ([key], 1)
    assert node.ended == ["p", "kid"]
    check(any_world, registry)


def test_a_cold_child_is_terminated_without_reading_its_history(any_world):
    registry = lone(subject=closing_parent("terminate"))
    first = any_world.node(registry)
    any_world.start("subject", 0, instance_id="p")
    any_world.run(1)
    first.stop()
    second = any_world.node(registry)
    any_world.send("p", value="end")
    any_world.run(2)
    assert any_world.status("kid") is Status.TERMINATED
    assert ("kid", 1) not in second.store.histories
    check(any_world, registry)


def test_12_what_is_started_in_the_turn_that_continues_as_new_happens(any_world):
    """Scenario 12: children and detached starts first, then what becomes of them when the execution
    closes.
    """

    async def subject(ctx, lap):
        if lap == 0:
            for close in ("abandon", "cancel", "terminate"):
                ctx.start_child("waits", instance_id=close, on_parent_close=close)
            ctx.start_detached("waits", instance_id="detached")
            ctx.continue_as_new(1)
        await ctx.wait_for_event("go")

    registry = lone(subject=subject)
    node = any_world.node(registry)
    any_world.start("subject", 0, instance_id="p")
    any_world.run(1)
    assert [any_world.status(name) for name in ("abandon", "cancel", "terminate", "detached")] == [
        Status.OPEN,
        Status.CANCELLED,
        Status.TERMINATED,
        Status.OPEN,
    ]
    assert [any_world.record(name).row.opened for name in ("cancel", "terminate")] == [False, False]
    assert len([write for write in node.store.writes if write.instance_id == "p"]) == 1
    check(any_world, registry)


@pytest.mark.parametrize("first", ["end", "boundary"])
def test_the_end_of_a_child_races_with_its_parents_boundary(any_world, first):
    """In either order it reaches only the execution that asked, or nobody; no row is left (I9)."""

    async def subject(ctx, lap):
        if lap == 0:
            ctx.start_child("kid", 1, instance_id="kid")
            await ctx.wait_for_event("lap")
            ctx.continue_as_new(1)
        await ctx.wait_for_event("go")
        return "never mind"

    registry = several(subject=subject)
    parents, children = (
        any_world.node(registry, poll=YEAR),
        any_world.node(several(kid=kid), BUSY, poll=YEAR),
    )
    any_world.start("subject", 0, instance_id="p")
    for node in (parents, children):
        node.engine.look()
        node.run_until_idle()

    def end_the_child():
        children.finish(value="late")
        children.run_until_idle()

    def leave_the_lap():
        any_world.send("p", "lap")
        parents.engine.look()
        parents.run_until_idle()

    if first == "end":
        # The first commit is the claim; the second one is the boundary, of a step that does not
        # know of the end.
        parents.store.before_commit = lambda: setattr(parents.store, "before_commit", end_the_child)
        leave_the_lap()
    else:
        children.store.before_commit = leave_the_lap
        end_the_child()
    any_world.run(3)
    record = any_world.record("p")
    assert (record.row.execution, record.reports, any_world.status("kid")) == (
        2,
        (),
        Status.COMPLETED,
    )
    any_world.send("p", "go")
    parents.engine.look()
    parents.run_until_idle()
    assert any_world.output("p") == "never mind"
    check(any_world, registry)


def test_an_end_that_the_lap_did_not_read_answers_no_child_of_the_next_lap(any_world):
    """I5: the next lap's child stands under the same event number."""

    async def subject(ctx, lap):
        child = ctx.start_child("kid" if lap == 0 else "waits", 1, instance_id=f"child-{lap}")
        if lap == 0:
            await ctx.wait_for_event("lap")
            ctx.continue_as_new(1)
        return await child

    registry = several(subject=subject)
    parents = any_world.node(registry, poll=YEAR)
    children = any_world.node(several(kid=kid, waits=waits), BUSY, poll=YEAR)
    any_world.start("subject", 0, instance_id="p")
    for node in (parents, children):
        node.engine.look()
        node.run_until_idle()
    any_world.send("p", "lap")
    children.finish(value="of the first lap")
    children.run_until_idle()
    assert any_world.record("p").reports == (2,)
    parents.engine.look()
    parents.run_until_idle()
    record = any_world.record("p")
    assert (record.row.execution, record.status, record.reports) == (2, Status.OPEN, ())
    assert any_world.record("child-1").row.parent.event_id == 2
    any_world.run(3)
    check(any_world, registry)


# --- crashes and lost replies -----------------------------------------------------------------


@LOST
def test_17_a_lost_reply_to_the_write_that_starts_a_child_fails_nobody(any_world, lost):
    """Scenario 17: the start is made once, under a name that is the same however often it is asked
    for.
    """
    node = any_world.node(FAMILY, BUSY)
    any_world.start("parent", "kid", instance_id="p")
    node.engine.look()
    node.cycle_once()
    node.store.replies.append(lost)
    any_world.run(1)
    node.finish(value="done")
    any_world.run(1)
    assert any_world.output("p") == "done"
    assert len(node.attempts) == 1
    (start,) = {
        child.start.request_id for write in node.store.writes for child in write.extras.starts
    }
    assert start == str(any_world.record("kid").row.parent)
    check(any_world)


@LOST
def test_a_lost_reply_to_the_write_that_ends_a_child_tells_its_parent_once(any_world, lost):
    node = any_world.node(FAMILY, BUSY)
    any_world.start("parent", "kid", instance_id="p")
    any_world.run(1)
    node.store.replies.append(lost)
    node.finish(value="done")
    any_world.run(12)
    assert any_world.output("p") == "done"
    assert sum(isinstance(event, ChildCompleted) for event in any_world.events("p")) == 1
    check(any_world)


@LOST
def test_a_lost_reply_to_the_write_that_takes_a_childs_end_takes_it_once(any_world, lost):
    async def twice(ctx, _):
        first = await ctx.start_child("kid", 1)
        return [first, await ctx.wait_for_event("go")]

    registry = lone(twice=twice)
    node = any_world.node(registry, BUSY)
    any_world.start("twice", instance_id="p")
    any_world.run(1)
    node.finish(value="done")
    node.cycle_once()
    node.store.replies.append(lost)
    any_world.run(12)
    any_world.send("p", value="x")
    any_world.run(2)
    assert any_world.output("p") == ["done", "x"]
    check(any_world, registry)


def test_a_busy_store_neither_loses_nor_doubles_a_child(any_world):
    node = any_world.node(FAMILY, BUSY)
    any_world.start("parent", "kid", instance_id="p")
    node.store.replies.extend([None, StoreBusy("busy"), None, StoreBusy("busy")])
    any_world.run(5)
    node.store.replies.append(StoreBusy("busy"))
    node.finish(value="done")
    any_world.run(5)
    assert any_world.output("p") == "done"
    check(any_world)


def test_the_crash_of_the_node_that_owns_both_loses_nothing(any_world):
    first = any_world.node(FAMILY, BUSY, lease=3.0)
    any_world.start("parent", "kid", instance_id="p")
    any_world.run(1)
    first.crash()
    second = any_world.node(FAMILY, BUSY, lease=3.0)
    any_world.run(10)
    second.finish(value="from the second")
    any_world.run(2)
    assert any_world.output("p") == "from the second"
    check(any_world)


def test_a_parent_whose_code_is_gone_is_told_and_goes_on_when_it_is_back(any_world):
    first = any_world.node(FAMILY, BUSY)
    any_world.start("parent", "kid", instance_id="p")
    any_world.run(1)
    children = any_world.node(several(kid=kid), BUSY)
    first.stop()
    any_world.run(3)
    children.finish(value="done")
    any_world.run(2)
    record = any_world.record("p")
    assert (record.status, record.reports) == (Status.OPEN, (2,))
    assert any_world.provider.store.news("nobody") == []
    check(any_world)
    any_world.node(FAMILY)
    any_world.run(2)
    assert any_world.output("p") == "done"
    check(any_world)


def test_a_parent_that_is_warm_elsewhere_takes_the_end_from_the_claim(any_world):
    first = any_world.node(FAMILY, BUSY)
    any_world.start("parent", "kid", instance_id="p")
    any_world.run(1)
    histories = len(first.store.histories)
    first.finish(value="done")
    any_world.run(1)
    assert any_world.output("p") == "done"
    assert len(first.store.histories) == histories, "the parked parent was still in memory"


def test_a_refused_write_of_the_parent_starts_no_child(any_world):
    node = any_world.node(FAMILY, BUSY)
    any_world.start("parent", "kid", instance_id="p")
    node.engine.look()
    node.cycle_once()
    node.store.before_commit = lambda: any_world.terminate("p")
    any_world.run(2)
    assert any_world.directory.get("kid") is None
    assert any_world.status("p") is Status.TERMINATED
    check(any_world)


def test_a_write_without_children_carries_none_and_costs_nothing_more(world):
    node = world.node(FAMILY, BUSY)
    world.start("kid", 1, instance_id="alone")
    world.run(1)
    node.finish()
    world.run(1)
    granted = [
        outcome
        for group in node.store.groups
        for change, outcome in group
        if isinstance(change, Write)
    ]
    assert granted == [Granted(0)] * len(granted)
    for write in node.store.writes:
        assert (write.extras.starts, write.extras.cancels, write.closed_with_children) == (
            (),
            (),
            (),
        )
    closed = [delta for write in node.store.writes for delta in write.executions if delta.closed]
    assert [(delta.closed.end, delta.children) for delta in closed] == [
        (ExecutionEnd.COMPLETED, False)
    ]


def test_the_ends_of_children_are_no_events_for_anybody(any_world):
    async def subject(ctx, _):
        child = ctx.start_child("quick", 5, instance_id="kid")
        got = await ctx.race(ctx.wait_for_event("kid"), ctx.schedule_timer(timedelta(seconds=30)))
        return [got.index, await child]

    registry = lone(subject=subject)
    any_world.node(registry)
    any_world.start("subject", instance_id="p")
    any_world.run(40)
    assert any_world.output("p") == [1, 5]
    assert MessageKind.CHILD_COMPLETED.value == Status.COMPLETED.value
    check(any_world, registry)


# --- where things meet ------------------------------------------------------------------------


def test_ids_that_are_taken_within_the_family_are_refused_like_any_other(any_world, caplog):
    """Its own id, a sibling's of the same write, and itself as a detached start."""

    async def knots(ctx, _):
        ctx.start_detached("quick", 9, instance_id=ctx.instance_id)
        outcomes = []
        for child in [
            ctx.start_child("quick", number, instance_id=name)
            for number, name in enumerate(["p", "twin", "twin"])
        ]:
            try:
                outcomes.append(await child)
            except ChildFailed as error:
                outcomes.append(error.cause.type)
        return outcomes

    registry = lone(knots=knots)
    node = any_world.node(registry, poll=YEAR, lease=YEAR)
    node.submit(any_world.start_change("knots", instance_id="p"))
    node.run_until_idle()
    taken = "orchestra.errors.InstanceExists"
    assert any_world.output("p") == [taken, 1, taken]
    assert "a detached start of 'p' was left out" in caplog.text
    assert children_of(any_world, "p") == ["twin"]
    check(any_world, registry)


def test_a_parent_and_its_children_that_end_in_one_group_are_told_apart(any_world):
    """The parent ends in the group in which one child completes and another one is given up with
    it.
    """

    async def subject(ctx, _):
        ctx.start_child("kid", 1, instance_id="completes", on_parent_close="terminate")
        ctx.start_child("kid", 2, instance_id="goes", on_parent_close="terminate")
        return await ctx.schedule_activity("work", "parent")

    registry = lone(subject=subject)
    node = any_world.node(registry, BUSY, poll=YEAR, lease=YEAR)
    node.submit(any_world.start_change("subject", instance_id="p"))
    node.run_until_idle()
    running = {run.key.instance_id: run for run in node.running.values()}
    node.store.forget()
    for name in ("p", "completes"):
        node.finish(running[name], name)
    node.run_until_idle()
    assert len([change for change, _ in node.store.groups[0] if isinstance(change, Write)]) == 2
    assert {name: any_world.status(name) for name in ("p", "completes", "goes")} == {
        "p": Status.COMPLETED,
        "completes": Status.COMPLETED,
        "goes": Status.TERMINATED,
    }
    assert (node.engine.owned, node.engine.running, node.running) == (0, 0, {})
    check(any_world, registry)


def test_an_end_that_arrives_in_the_group_of_its_parents_boundary_answers_nobody(any_world):
    async def subject(ctx, lap):
        if lap == 0:
            ctx.start_child("kid", 1, instance_id="kid")
            await ctx.schedule_activity("work", "parent")
            ctx.continue_as_new(1)
        child = ctx.start_child("waits", instance_id="other")
        won = await ctx.race(child, ctx.wait_for_event("go"))
        return won.index

    registry = lone(subject=subject)
    node = any_world.node(registry, BUSY, poll=YEAR, lease=YEAR)
    node.submit(any_world.start_change("subject", 0, instance_id="p"))
    node.run_until_idle()
    node.store.forget()
    for run in list(node.running.values()):
        node.finish(run, "late")
    node.run_until_idle()
    assert len([change for change, _ in node.store.groups[0] if isinstance(change, Write)]) == 2
    record = any_world.record("p")
    assert (record.row.execution, record.status, record.reports, any_world.status("kid")) == (
        2,
        Status.OPEN,
        (),
        Status.COMPLETED,
    )
    node.submit(any_world.append_change("p"))
    node.run_until_idle()
    assert any_world.output("p") == 1
    check(any_world, registry)


def test_the_children_of_a_deleted_parent_are_no_children_of_its_namesake(any_world):
    """Rule 2: neither is the end told to it, nor does its own end reach them."""
    registry = lone(subject=closing_parent("terminate"), asks=parent)
    node = any_world.node(registry, BUSY)
    any_world.start("asks", "kid", instance_id="p")
    any_world.run(1)
    first = any_world.record("p").row.incarnation
    any_world.terminate("p")
    assert any_world.admin.delete("p", first, by="me", reason="")
    any_world.start("asks", "waits", instance_id="p")
    any_world.run(1)
    assert any_world.output("p")[:2] == ["failed", "orchestra.errors.InstanceExists"]
    second = any_world.record("p").row.incarnation
    assert any_world.admin.delete("p", second, by="me", reason="")

    async def waits_for_it(ctx, _):
        ctx.start_child("waits", instance_id="another")
        await ctx.wait_for_event("go")

    again = lone(again=waits_for_it)
    any_world.node(again)
    any_world.start("again", instance_id="p")
    any_world.run(2)
    node.finish(value="of the first life")
    any_world.run(2)
    assert (any_world.status("kid"), any_world.record("p").reports) == (Status.COMPLETED, ())
    any_world.terminate("p")
    assert any_world.status("another") is Status.OPEN
    any_world.run(1)
    check_rest(any_world, [registry, again])


@LOST
def test_a_mark_of_the_closing_parent_survives_whatever_becomes_of_a_write_of_the_child(
    any_world, lost
):
    """The child's memory is void after a lost reply; the row tells of the mark, also where a cancel
    stood there before.
    """

    async def stubborn(ctx, _):
        try:
            await ctx.wait_for_event("never")
        finally:
            await ctx.schedule_activity("work")
            await ctx.schedule_activity("work")

    async def subject(ctx, _):
        ctx.start_child("stubborn", instance_id="kid", on_parent_close="terminate")
        await ctx.wait_for_event("go")

    registry = lone(subject=subject, stubborn=stubborn)
    node = any_world.node(registry, BUSY, lease=3.0)
    any_world.start("subject", instance_id="p")
    any_world.run(1)
    any_world.cancel("kid")
    any_world.run(2)
    node.finish()
    node.submit(any_world.append_change("p"))
    node.store.replies.append(lost)
    any_world.run(15)
    assert any_world.status("kid") is Status.TERMINATED
    assert (node.engine.owned, node.engine.running, node.running) == (0, 0, {})
    check(any_world, registry)


def test_a_child_that_has_expired_still_answers_its_parent(any_world):
    """Its end lies in the parent's inbox; the row that it came from is not needed any more."""
    only_parents = several(asks=parent)
    first = any_world.node(only_parents, poll=YEAR)
    children = any_world.node(several(quick=quick), poll=YEAR)
    any_world.admin.set_expiry({"quick": SECOND})
    any_world.start("asks", "quick", instance_id="p")
    first.engine.look()
    first.run_until_idle()
    first.stop()
    children.engine.look()
    children.run_until_idle()
    any_world.clock.skip(2)
    while any_world.store.expire():
        pass
    assert any_world.directory.get("kid") is None
    assert any_world.record("p").reports == (2,)
    any_world.node(only_parents)
    any_world.run(2)
    assert any_world.output("p") == 1


def test_more_children_than_are_listed_at_a_time_fit_the_default_limits(world):
    async def fan(ctx, width):
        return sum(await ctx.gather(*(ctx.start_child("quick", number) for number in range(width))))

    registry = lone(fan=fan)
    node = world.node(registry, poll=YEAR, lease=YEAR)
    node.submit(world.start_change("fan", 1_024, instance_id="p"))
    node.run_until_idle()
    assert world.output("p") == sum(range(1_024))
    assert len(children_of(world, "p")) == 1_024
    assert (node.engine.owned, node.engine.has_work) == (0, False)


def test_a_child_takes_a_version_in_the_range_or_waits_for_one(any_world):
    async def asks(ctx, _):
        return await ctx.start_child("kid", instance_id="kid")

    builder = OrchestrationRegistry.builder().register("asks", asks)
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        builder.register("kid", quick, version=version)
    registered = builder.build()
    any_world.node(registered)
    any_world.set_policy(Range("~1"), "kid")
    any_world.run(2)
    any_world.start("asks", instance_id="p")
    any_world.run(2)
    assert any_world.versions("kid") == ["1.1.0"]
    assert any_world.status("p") is Status.COMPLETED


def test_a_child_waits_for_a_version_in_the_range_and_fails_no_parent(any_world):
    async def asks(ctx, _):
        return await ctx.start_child("kid", instance_id="kid")

    def code(*versions):
        builder = OrchestrationRegistry.builder().register("asks", asks)
        for version in versions:
            builder.register("kid", quick, version=version)
        return builder.build()

    any_world.node(code("1.0.0"))
    any_world.set_policy(Range("^2"), "kid")
    any_world.run(2)
    any_world.start("asks", instance_id="p")
    any_world.run(5)
    assert (any_world.status("kid"), any_world.status("p")) == (Status.OPEN, Status.OPEN)
    any_world.node(code("1.0.0", "2.0.0"))
    any_world.run(5)
    assert any_world.versions("kid") == ["2.0.0"]
    assert any_world.status("p") is Status.COMPLETED
