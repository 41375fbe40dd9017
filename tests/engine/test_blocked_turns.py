"""Code that does not return: the engine goes on without it, and takes up its result whenever it
comes (scenario 30, I12).

What the code of a step does here is what another thread would do while the first one is stuck in
it: it abandons the turn. The harness then goes on as that other thread would, and hands the result
in when the test says so.
"""

from datetime import timedelta

import pytest

from orchestra.activities import Activity
from orchestra.engine.blocked_turns import TurnAbandoned
from orchestra.engine.engine import EngineOptions
from orchestra.errors import Evicted, StoreUnavailable
from orchestra.retention import Retention
from orchestra.retry import RetryPolicy
from orchestra.store.kinds import Status
from tests.support.harness import HOLD, SECOND, YEAR, check_rest, registry, several


class Stuck:
    """Abandons turns of one instance while ``node`` makes them, as often as ``times`` says."""

    def __init__(self, times=1):
        self.node = None
        self.times = times
        self.late = []

    def __call__(self):
        if self.times:
            self.times -= 1
            assert self.node.engine.abandon(self.node.engine.running_code)

    def run_until_idle(self):
        """Let the node work until it rests; each abandoned thread keeps its result."""
        for _ in range(1_000):
            if not self.node.is_busy:
                return
            try:
                self.node.cycle_once()
            except TurnAbandoned as abandoned:
                self.late.append(abandoned.late)
        raise AssertionError("the node does not come to rest")

    def hand_in(self):
        self.node.engine.add_late_result(self.late.pop(0))
        self.run_until_idle()


def blocking(stuck):
    async def job(ctx, state):
        stuck()
        first = await ctx.schedule_activity("probe", state)
        second = await ctx.wait_for_event("go", int)
        return [first, second]

    return job


async def other(ctx, state):
    return await ctx.schedule_activity("probe", state)


def test_the_others_of_its_group_and_later_ones_go_on(world):
    stuck = Stuck()
    stuck.node = node = world.node(
        several(job=blocking(stuck), other=other), {"probe": lambda run: 1}
    )
    before = world.start("other", instance_id="a")
    blocked = world.start("job", instance_id="b")
    behind = world.start("other", instance_id="c")
    stuck.run_until_idle()
    assert len(stuck.late) == 1
    assert [world.status(i) for i in (before, blocked, behind)] == [
        Status.COMPLETED,
        Status.OPEN,
        Status.COMPLETED,
    ]
    assert world.record(blocked).row.owner == node.node_id, "it is away, and still this node's"
    later = node.start("other")
    stuck.run_until_idle()
    assert world.status(later) is Status.COMPLETED

    stuck.hand_in()
    world.send(blocked, "go", 2)
    world.run(2)
    assert world.output(blocked) == [1, 2]
    check_rest(world, [node.registry])


def test_what_comes_while_it_is_away_reaches_it_afterwards(world):
    stuck = Stuck(0)
    ends = []

    async def job(ctx, state):
        slow = ctx.schedule_activity("slow", 1)
        await ctx.wait_for_event("first", int)
        stuck()
        return [await slow, await ctx.wait_for_event("second", int)]

    stuck.node = node = world.node(registry(job), {"slow": lambda run: ends.append(run) or HOLD})
    instance_id = world.start()
    stuck.run_until_idle()
    stuck.times = 1
    world.send(instance_id, "first", 1)
    world.clock.skip(1)
    stuck.run_until_idle()
    assert len(stuck.late) == 1
    node.beat("half")
    node.finish(ends[0], "done")
    world.send(instance_id, "second", 2)
    stuck.run_until_idle()
    assert world.kinds(instance_id).count("ACTIVITY_COMPLETED") == 0
    stuck.hand_in()
    world.run(2)
    assert world.output(instance_id) == ["done", 2]
    check_rest(world, [node.registry])


def test_it_is_not_taken_for_a_forgotten_instance_and_keeps_its_lease(world):
    stuck = Stuck()
    stuck.node = node = world.node(registry(blocking(stuck)), {"probe": lambda run: 1}, lease=1.0)
    rival = world.node(registry(blocking(Stuck(0))), {"probe": lambda run: 1}, lease=1.0)
    instance_id = world.start()
    stuck.run_until_idle()
    for _ in range(50):
        world.clock.skip(0.1)
        stuck.run_until_idle()
        rival.run_until_idle()
    assert world.record(instance_id).row.owner == node.node_id
    assert node.store.recoveries == []
    stuck.hand_in()
    assert "ACTIVITY_COMPLETED" in world.kinds(instance_id)


@pytest.mark.parametrize("noticed", [True, False], ids=["after the check", "before the check"])
def test_what_it_did_is_refused_once_an_operator_has_ended_it(world, noticed):
    stuck = Stuck()
    stuck.node = node = world.node(registry(blocking(stuck)), {"probe": lambda run: 1}, lease=1.0)
    instance_id = world.start()
    stuck.run_until_idle()
    world.terminate(instance_id)
    if noticed:
        for _ in range(20):
            world.clock.skip(0.1)
            stuck.run_until_idle()
    stuck.hand_in()
    assert world.status(instance_id) is Status.TERMINATED
    assert node.attempts == [], "nothing of the late step has happened (I6)"
    assert node.engine.owned == 0
    check_rest(world, [node.registry])


def test_an_instance_that_is_claimed_anew_meanwhile_is_run_once(world):
    stuck = Stuck()
    stuck.node = node = world.node(registry(blocking(stuck)), {"probe": lambda run: 1})
    instance_id = world.start()
    stuck.run_until_idle()
    # A pin takes ownership away (rule 6), and this very node claims the instance again.
    world.admin.set_pin(instance_id, "1.0.0", by="somebody", reason="to see")
    world.clock.skip(2)
    stuck.run_until_idle()
    assert [run.attempt for run in node.attempts] == [1]
    stuck.hand_in()
    world.send(instance_id, "go", 2)
    world.run(2)
    assert world.output(instance_id) == [1, 2]
    assert len(node.attempts) == 1
    check_rest(world, [node.registry])


def test_a_node_that_was_buried_wants_it_no_more(world):
    stuck = Stuck()
    stuck.node = node = world.node(registry(blocking(stuck)), {"probe": lambda run: 1}, lease=1.0)
    rival = world.node(registry(blocking(Stuck(0))), {"probe": lambda run: 2}, lease=1.0)
    instance_id = world.start()
    stuck.run_until_idle()
    for _ in range(40):  # the first node's process is stopped
        world.clock.skip(0.1)
        rival.run_until_idle()
    world.send(instance_id, "go", 3)
    stuck.run_until_idle()
    stuck.hand_in()
    world.run(5)
    assert world.output(instance_id) == [2, 3]
    assert node.attempts == []
    check_rest(world, [node.registry, rival.registry])


def test_a_node_stops_without_it_and_another_one_begins_it_anew(world):
    stuck = Stuck()
    stuck.node = node = world.node(registry(blocking(stuck)), {"probe": lambda run: 1})
    instance_id = world.start()
    stuck.run_until_idle()
    node.stop()
    assert world.record(instance_id).row.owner is None
    successor = world.node(registry(blocking(Stuck(0))), {"probe": lambda run: 2})
    world.send(instance_id, "go", 3)
    world.run(2)
    assert world.output(instance_id) == [2, 3]
    check_rest(world, [successor.registry])


def test_the_effects_of_a_group_that_was_committed_late_are_not_lost(world):
    """The store was away, and the group is committed in the cycle in which another instance's code
    gets stuck.
    """
    stuck = Stuck(0)
    stuck.node = node = world.node(
        several(job=blocking(stuck), other=other), {"probe": lambda run: HOLD}
    )
    first = world.start("other", instance_id="a")
    node.store.before_commit = lambda: setattr(node.store, "down", StoreUnavailable("away"))
    world.clock.skip(2)
    node.cycle_once()
    node.store.down = None
    stuck.times = 1
    world.clock.skip(1)
    second = node.start("job")
    stuck.run_until_idle()
    world.clock.skip(1)
    stuck.run_until_idle()
    assert len(stuck.late) == 1
    assert {run.key.instance_id for run in node.running.values()} == {first}
    stuck.hand_in()
    assert {run.key.instance_id for run in node.running.values()} == {first, second}


def test_time_that_has_passed_while_it_was_away_makes_no_timer_early(world):
    stuck = Stuck()

    async def job(ctx, state):
        stuck()
        await ctx.schedule_timer(timedelta(seconds=3))
        return "woken"

    stuck.node = node = world.node(registry(job))
    instance_id = world.start()
    stuck.run_until_idle()
    world.clock.skip(2)
    stuck.hand_in()
    world.run(2)
    assert world.output(instance_id) == "woken"
    fired = next(event for event in world.events(instance_id) if event.kind.name == "TIMER_FIRED")
    due = next(
        event for event in world.events(instance_id) if event.kind.name == "TIMER_CREATED"
    ).due
    assert due <= fired.at < due + SECOND
    check_rest(world, [node.registry])


def test_code_that_returns_to_an_engine_that_closes_is_dropped_like_all_other_code(world):
    """Rule 22: nothing is decided by it any more. Found by the simulation."""
    stuck = Stuck()
    met = []

    async def job(ctx, state):
        stuck()
        try:
            await ctx.wait_for_event("go")
        finally:
            try:
                ctx.set_custom_status("leaving")
            except BaseException as error:
                met.append(type(error))
                raise

    stuck.node = node = world.node(registry(job))
    world.start()
    stuck.run_until_idle()
    node.engine.add_late_result(stuck.late.pop())
    node.engine.close()
    assert met == [Evicted]


# --- where it meets other things --------------------------------------------------------------


def with_a_slow_activity(stuck, ends):
    """Return code that is stuck, if at all, in its second turn, while an activity runs."""

    async def job(ctx, state):
        slow = ctx.schedule_activity("slow", 1)
        await ctx.wait_for_event("first", int)
        stuck()
        return [await slow, await ctx.wait_for_event("second", int)]

    return registry(job), {"slow": lambda run: ends.append(run) or HOLD}


def leave_behind_in_its_second_turn(world, stuck):
    instance_id = world.start()
    stuck.run_until_idle()
    stuck.times = 1
    world.send(instance_id, "first", 1)
    world.clock.skip(1)
    stuck.run_until_idle()
    assert len(stuck.late) == 1
    return instance_id


@pytest.mark.parametrize(
    "away", [True, False], ids=["while it is away", "in the step that is stuck"]
)
def test_what_an_activity_has_reported_is_not_lost_when_the_instance_is_claimed_anew_meanwhile(
    world, away
):
    """The claim finds the activity running here; that it has ended meanwhile must not be forgotten
    with the old state.
    """
    stuck, ends = Stuck(0), []
    orchestrations, activities = with_a_slow_activity(stuck, ends)
    stuck.node = node = world.node(orchestrations, activities)
    if away:
        instance_id = leave_behind_in_its_second_turn(world, stuck)
        node.finish(ends[0], "done")  # while it is away
        stuck.run_until_idle()
    else:
        instance_id = world.start()
        stuck.run_until_idle()
        stuck.times = 1
        world.send(instance_id, "first", 1)
        node.finish(ends[0], "done")  # taken in by the very step that does not return
        world.clock.skip(1)
        stuck.run_until_idle()
        assert len(stuck.late) == 1
    world.admin.set_pin(instance_id, "1.0.0", by="somebody", reason="to see")
    world.clock.skip(2)
    stuck.run_until_idle()
    stuck.hand_in()
    world.send(instance_id, "second", 2)
    world.run(2)
    assert world.output(instance_id) == ["done", 2]
    assert len(node.attempts) == 1
    check_rest(world, [node.registry])


def test_one_that_returns_after_the_stop_was_asked_for_does_not_keep_its_node(world):
    """Its step had decided to stay before; it is released all the same."""
    stuck = Stuck()
    stuck.node = node = world.node(
        registry(blocking(stuck)), {"probe": HOLD}, lease=YEAR, poll=YEAR
    )
    node.start(instance_id="a")
    stuck.run_until_idle()
    node.engine.stop_claiming()
    node.engine.release_all()
    node.engine.add_late_result(stuck.late.pop())
    stuck.run_until_idle()
    assert (node.engine.owned, node.engine.has_work) == (0, False)
    assert (world.record("a").row.owner, node.running) == (None, {})
    node.leave()
    successor = world.node(registry(blocking(Stuck(0))), {"probe": lambda run: 2})
    world.send("a", "go", 3)
    world.run(2)
    assert world.output("a") == [2, 3]
    check_rest(world, [successor.registry])


def test_an_operator_of_this_node_who_ends_it_has_its_activities_aborted_at_once(world):
    stuck, ends = Stuck(0), []
    orchestrations, activities = with_a_slow_activity(stuck, ends)
    stuck.node = node = world.node(orchestrations, activities, lease=YEAR)
    instance_id = leave_behind_in_its_second_turn(world, stuck)
    node.submit(world.termination(instance_id))
    stuck.run_until_idle()
    assert (node.aborted, node.running) == ([ends[0].key], {})
    stuck.hand_in()
    assert (world.status(instance_id), node.engine.owned, node.engine.running) == (
        Status.TERMINATED,
        0,
        0,
    )
    check_rest(world, [node.registry])


def family(stuck):
    async def parent(ctx, _):
        child = ctx.start_child("kid", 1, instance_id="kid")
        stuck()
        said = await ctx.race(child, ctx.wait_for_event("leave"))
        return said.index

    async def kid(ctx, number):
        return await ctx.schedule_activity("probe", number)

    return several(parent=parent, kid=kid)


def test_the_children_of_a_late_step_are_started_with_its_write_and_need_no_polling(any_world):
    stuck = Stuck()
    stuck.node = node = any_world.node(
        family(stuck), {"probe": lambda run: 1}, poll=YEAR, lease=YEAR
    )
    node.start("parent", instance_id="p")
    stuck.run_until_idle()
    assert any_world.directory.get("kid") is None
    stuck.hand_in()
    assert (any_world.output("p"), any_world.status("kid")) == (0, Status.COMPLETED)
    check_rest(any_world, [node.registry])


def test_a_late_step_that_is_refused_starts_no_child(any_world):
    stuck = Stuck()
    stuck.node = node = any_world.node(
        family(stuck), {"probe": lambda run: 1}, poll=YEAR, lease=YEAR
    )
    node.start("parent", instance_id="p")
    stuck.run_until_idle()
    any_world.terminate("p")
    stuck.hand_in()
    assert any_world.directory.get("kid") is None
    check_rest(any_world, [node.registry])


def stuck_kid(stuck):
    async def parent(ctx, _):
        child = ctx.start_child("kid", 1, instance_id="kid")
        said = await ctx.race(child, ctx.wait_for_event("leave"))
        return said.index

    async def kid(ctx, number):
        await ctx.schedule_activity("probe", number)
        stuck()
        return number

    return several(parent=parent, kid=kid)


def test_the_end_of_a_late_child_reaches_its_parent_on_the_same_node_without_polling(any_world):
    stuck = Stuck()
    stuck.node = node = any_world.node(
        stuck_kid(stuck), {"probe": lambda run: 1}, poll=YEAR, lease=YEAR
    )
    node.start("parent", instance_id="p")
    stuck.run_until_idle()
    assert any_world.status("p") is Status.OPEN
    stuck.hand_in()
    assert (any_world.output("p"), any_world.status("kid"), node.ended) == (
        0,
        Status.COMPLETED,
        ["kid", "p"],
    )
    check_rest(any_world, [node.registry])


@pytest.mark.parametrize("lost", ["lost before", "lost after"])
def test_a_lost_reply_to_the_write_of_a_late_child_tells_its_parent_once(any_world, lost):
    stuck = Stuck()
    stuck.node = node = any_world.node(stuck_kid(stuck), {"probe": lambda run: 1})
    node.start("parent", instance_id="p")
    stuck.run_until_idle()
    node.store.replies.append(lost)
    stuck.hand_in()
    any_world.run(12)
    assert (any_world.output("p"), any_world.status("kid")) == (0, Status.COMPLETED)
    check_rest(any_world, [node.registry])


@pytest.mark.parametrize("close", ["cancel", "terminate"])
def test_a_parent_that_closes_while_its_child_is_away_closes_it_once_it_returns(any_world, close):
    """The late step stands, for nobody else has written; the mark is found by the look behind
    it.
    """
    stuck = Stuck()

    async def kid(ctx, number):
        stuck()
        return await ctx.schedule_activity("probe", number)

    async def parent(ctx, _):
        ctx.start_child("kid", 1, instance_id="kid", on_parent_close=close)
        await ctx.wait_for_event("leave")

    stuck.node = node = any_world.node(
        several(parent=parent, kid=kid), {"probe": HOLD}, poll=YEAR, lease=YEAR
    )
    node.start("parent", instance_id="p")
    stuck.run_until_idle()
    node.submit(any_world.termination("p"))
    stuck.run_until_idle()
    assert any_world.status("kid") is Status.OPEN
    stuck.hand_in()
    assert (
        any_world.status("kid")
        is {"cancel": Status.CANCELLED, "terminate": Status.TERMINATED}[close]
    )
    assert (node.engine.owned, node.engine.running, node.running) == (0, 0, {})
    check_rest(any_world, [node.registry])


def test_a_late_boundary_lets_go_of_old_laps_and_drops_what_came_for_the_old_one(any_world):
    stuck, ends = Stuck(0), []

    async def job(ctx, lap):
        ctx.schedule_activity("slow", lap)
        await ctx.wait_for_event("lap")
        stuck()
        ctx.continue_as_new(lap + 1)

    retention = Retention(histories=1, executions=1)
    stuck.node = node = any_world.node(
        registry(job),
        {"slow": lambda run: ends.append(run) or HOLD},
        retention=retention,
        poll=YEAR,
        lease=YEAR,
    )
    node.start(state=0, instance_id="a")
    stuck.run_until_idle()
    for lap in range(4):
        stuck.times = 1
        node.submit(any_world.append_change("a", "lap"))
        stuck.run_until_idle()
        assert len(stuck.late) == 1
        node.finish(ends[lap], "late")  # nobody waits for it behind the boundary
        stuck.hand_in()
    assert [row.number for row in any_world.executions("a")] == [4, 5]
    assert node.engine.running == 1
    assert len(node.running) == 1


def test_marks_and_events_that_come_while_it_is_away_are_delivered_in_their_order(any_world):
    stuck = Stuck()
    seen = []

    async def job(ctx, _):
        stuck()
        try:
            while len(seen) < 3:
                seen.append(await ctx.wait_for_event("go", int))
            await ctx.wait_for_event("never")
        finally:
            seen.append("cancelled")

    stuck.node = node = any_world.node(registry(job), poll=YEAR, lease=YEAR)
    node.start(instance_id="a")
    stuck.run_until_idle()
    for number in range(2):
        node.submit(any_world.append_change("a", "go", number))
    stuck.run_until_idle()
    any_world.send("a", "go", 2)  # past this node
    node.submit(any_world.append_change("a", "go", 3))
    stuck.run_until_idle()
    stuck.hand_in()
    assert seen == [0, 1, 2]
    assert any_world.record("a").unread_messages == 1
    any_world.cancel("a")
    node.engine.look()
    stuck.run_until_idle()
    assert (seen, any_world.status("a")) == ([0, 1, 2, "cancelled"], Status.CANCELLED)
    check_rest(any_world)


def test_what_was_to_begin_in_an_abandoned_group_does_not_begin_after_the_node_was_buried(
    world,
):
    """Its next attempt was due in the same group, and nobody was told of it before the node had to
    forget everything.
    """
    stuck = Stuck(0)

    async def blocks(ctx, state):
        await ctx.schedule_timer(timedelta(seconds=4))
        stuck()

    async def retries(ctx, state):
        again = RetryPolicy(max_attempts=9, initial_interval=timedelta(seconds=2), jitter=0)
        return await ctx.schedule_activity(Activity.named("flaky", retry=again))

    stuck.node = node = world.node(several(a_retries=retries, blocks=blocks), {"flaky": HOLD})
    retried, _ = world.start("a_retries"), world.start("blocks")
    world.run(1)
    node.fail()
    node.run_until_idle()
    stuck.times = 1
    world.clock.skip(4)
    with pytest.raises(TurnAbandoned):
        node.cycle_once()
    assert node.running == {}
    assert node.engine.running == 1, "its second attempt was to begin, or this test says nothing"
    (row,) = world.store.catalogue().nodes
    assert world.store.bury(node.node_id, row.renewals)
    world.clock.skip(5)
    node.cycle_once()
    assert node.running == {}
    assert node.engine.running == 0
    world.run(30)
    node.finish(value="done")
    world.run(1)
    assert world.output(retried) == "done"


# --- what leaves memory ---------------------------------------------------------------------------


def tidying(stuck):
    async def job(ctx, state):
        try:
            await ctx.wait_for_event("go")
        finally:
            stuck()
        return "done"

    return job


def test_what_is_closed_when_it_leaves_memory_keeps_nobody_of_its_group_and_nothing_comes_back(
    any_world,
):
    stuck = Stuck(times=3)
    code = several(job=tidying(stuck), other=other)
    stuck.node = node = any_world.node(
        code, {"probe": lambda run: 1}, options=EngineOptions(cached=0)
    )
    parked = [any_world.start("job") for _ in range(3)]
    behind = [any_world.start("other") for _ in range(3)]
    stuck.run_until_idle()
    later = node.start("other")
    stuck.run_until_idle()
    assert stuck.late == [None, None, None], "each was abandoned once"
    assert [any_world.output(instance_id) for instance_id in (*behind, later)] == [1] * 4
    for instance_id in parked:
        assert any_world.record(instance_id).row.owner is None
        any_world.send(instance_id)
    any_world.run(1.1)
    assert [any_world.output(instance_id) for instance_id in parked] == ["done"] * 3
    check_rest(any_world, [code])


def test_an_engine_that_is_abandoned_while_it_ends_ends_in_another_thread_and_leaves_the_store_once(
    world,
):
    stuck = Stuck(times=2)
    stuck.node = node = world.node(several(job=tidying(stuck)))
    for _ in range(3):
        world.start("job")
    stuck.run_until_idle()
    node.store.forget()
    for _ in range(2):
        with pytest.raises(TurnAbandoned) as late:
            node.cycle.end()
        assert late.value.late is None
    assert node.cycle.end() == []
    assert node.store.calls["leave"] == 1
    node.alive = False


# --- code that took too long and was not seen -----------------------------------------------------


def slow_warnings(caplog):
    return [record for record in caplog.records if "has blocked its node" in record.getMessage()]


@pytest.mark.parametrize(("seconds", "count"), [(0.99, 0), (1.05, 1), (1.2, 1), (30, 1)])
def test_a_turn_that_took_too_long_and_that_no_watcher_has_seen_is_named_once_when_it_returns(
    any_world, caplog, seconds, count
):
    async def job(ctx, state):
        any_world.clock.skip(seconds)
        return await ctx.schedule_activity("probe", state)

    any_world.node(registry("job", v1_2_0=job), {"probe": lambda run: 1})
    instance_id = any_world.start("job")
    any_world.run(1)
    assert any_world.output(instance_id) == 1
    found = slow_warnings(caplog)
    assert len(found) == count
    for warning in found:
        named = warning.orchestration, warning.version, warning.instance_id, warning.execution_id
        assert named == ("job", "1.2.0", instance_id, 1)
        said = (
            f"job 1.2.0 [{instance_id} #1] has blocked its node for {seconds:.1f} s and has "
            "returned, "
        )
        assert warning.getMessage().startswith(said)
        code = job.__code__
        assert (
            f"{code.co_filename}:{code.co_firstlineno} in {code.co_qualname}, or what it calls"
            in warning.getMessage()
        )


def test_a_slow_turn_is_named_by_the_lap_in_which_it_was_made_though_the_next_one_has_begun(
    any_world, caplog
):
    async def job(ctx, lap: int):
        if lap == 1:
            any_world.clock.skip(1.5)
            ctx.continue_as_new(2)
        return await ctx.wait_for_event("go")

    any_world.node(registry(job))
    instance_id = any_world.start(state=1)
    any_world.run(1)
    assert any_world.record(instance_id).row.execution == 2
    (warning,) = slow_warnings(caplog)
    assert warning.execution_id == 1
    assert f"[{instance_id} #1]" in warning.getMessage()


def test_a_finally_block_that_took_too_long_is_named_when_its_execution_has_left_memory(
    any_world, caplog
):
    code = several(job=tidying(lambda: any_world.clock.skip(1.1)), other=other)
    any_world.node(code, options=EngineOptions(cached=0))
    instance_id = any_world.start("job")
    any_world.run(1)
    (warning,) = slow_warnings(caplog)
    assert (warning.orchestration, warning.instance_id, warning.execution_id) == (
        "job",
        instance_id,
        1,
    )


def test_a_slow_turn_that_the_watcher_has_named_is_not_named_again_by_the_engine(world, caplog):
    node = None

    async def job(ctx, state):
        world.clock.skip(1.5)
        assert node.engine.running_code.naming.take(), (
            "the watcher's part, where no thread can be abandoned"
        )
        return state

    node = world.node(registry(job))
    instance_id = world.start(state=1)
    world.run(1)
    assert world.output(instance_id) == 1
    assert slow_warnings(caplog) == []
