"""Code that does not return: the engine goes on without it, and takes up its result whenever it comes (scenario 30, I12).

What the code of a step does here is what another thread would do while the first one is stuck in it: it has the step left
behind. The harness then goes on as that other thread would, and hands the result in when the test says so.
"""

from datetime import timedelta

import pytest
from harness import HOLD, SECOND, check_rest, registry, several

from orchestra.engine.absences import LeftBehind
from orchestra.errors import Evicted, StoreUnavailable
from orchestra.providers.rows import Pin, Status


class Stuck:
    """Turns of one instance that are left behind while ``node`` makes them, as often as ``times`` says."""

    def __init__(self, times=1):
        self.node = None
        self.times = times
        self.late = []

    def __call__(self):
        if self.times:
            self.times -= 1
            assert self.node.engine.leave_behind(self.node.engine.stepping)

    def settle(self):
        """Let the node work until it rests; each thread that is left behind keeps its result."""
        for _ in range(1_000):
            if not self.node.is_busy:
                return
            try:
                self.node.cycle_once()
            except LeftBehind as late:
                self.late.append(late.returned)
        raise AssertionError("the node does not come to rest")

    def hand_in(self):
        self.node.engine.come_back(self.late.pop(0))
        self.settle()


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
    stuck.node = node = world.node(several(job=blocking(stuck), other=other), {"probe": lambda effect: 1})
    before = world.start("other", instance_id="a")
    blocked = world.start("job", instance_id="b")
    behind = world.start("other", instance_id="c")
    stuck.settle()
    assert len(stuck.late) == 1
    assert [world.status(i) for i in (before, blocked, behind)] == [Status.COMPLETED, Status.OPEN, Status.COMPLETED]
    assert world.record(blocked).row.owner == node.node_id, "it is away, and still this node's"
    later = node.start("other")
    stuck.settle()
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

    stuck.node = node = world.node(registry(job), {"slow": lambda effect: ends.append(effect) or HOLD})
    instance_id = world.start()
    stuck.settle()
    stuck.times = 1
    world.send(instance_id, "first", 1)
    world.clock.skip(1)
    stuck.settle()
    assert len(stuck.late) == 1
    node.beat("half")
    node.finish(ends[0], "done")
    world.send(instance_id, "second", 2)
    stuck.settle()
    assert world.kinds(instance_id).count("ACTIVITY_COMPLETED") == 0
    stuck.hand_in()
    world.run(2)
    assert world.output(instance_id) == ["done", 2]
    check_rest(world, [node.registry])


def test_it_is_not_taken_for_a_forgotten_instance_and_keeps_its_lease(world):
    stuck = Stuck()
    stuck.node = node = world.node(registry(blocking(stuck)), {"probe": lambda effect: 1}, lease=1.0)
    rival = world.node(registry(blocking(Stuck(0))), {"probe": lambda effect: 1}, lease=1.0)
    instance_id = world.start()
    stuck.settle()
    for _ in range(50):
        world.clock.skip(0.1)
        stuck.settle()
        rival.settle()
    assert world.record(instance_id).row.owner == node.node_id
    assert node.store.recoveries == []
    stuck.hand_in()
    assert "ACTIVITY_COMPLETED" in world.kinds(instance_id)


@pytest.mark.parametrize("noticed", [True, False], ids=["after the inventory", "before the inventory"])
def test_what_it_did_is_refused_once_an_operator_has_ended_it(world, noticed):
    stuck = Stuck()
    stuck.node = node = world.node(registry(blocking(stuck)), {"probe": lambda effect: 1}, lease=1.0)
    instance_id = world.start()
    stuck.settle()
    world.terminate(instance_id)
    if noticed:
        for _ in range(20):
            world.clock.skip(0.1)
            stuck.settle()
    stuck.hand_in()
    assert world.status(instance_id) is Status.TERMINATED
    assert node.attempts == [], "nothing of the late step has happened (I6)"
    assert node.engine.owned == 0
    check_rest(world, [node.registry])


def test_an_instance_that_is_claimed_anew_meanwhile_is_run_once(world):
    stuck = Stuck()
    stuck.node = node = world.node(registry(blocking(stuck)), {"probe": lambda effect: 1})
    instance_id = world.start()
    stuck.settle()
    # A pin takes ownership away (rule 6), and this very node claims the instance again.
    world.admin.set_pin(instance_id, Pin("1.0.0", world.clock.now(), "somebody", "to see"))
    world.clock.skip(2)
    stuck.settle()
    assert [effect.attempt for effect in node.attempts] == [1]
    stuck.hand_in()
    world.send(instance_id, "go", 2)
    world.run(2)
    assert world.output(instance_id) == [1, 2]
    assert len(node.attempts) == 1
    check_rest(world, [node.registry])


def test_a_node_that_was_buried_wants_it_no_more(world):
    stuck = Stuck()
    stuck.node = node = world.node(registry(blocking(stuck)), {"probe": lambda effect: 1}, lease=1.0)
    rival = world.node(registry(blocking(Stuck(0))), {"probe": lambda effect: 2}, lease=1.0)
    instance_id = world.start()
    stuck.settle()
    for _ in range(40):  # the first node's process is stopped
        world.clock.skip(0.1)
        rival.settle()
    world.send(instance_id, "go", 3)
    stuck.settle()
    stuck.hand_in()
    world.run(5)
    assert world.output(instance_id) == [2, 3]
    assert node.attempts == []
    check_rest(world, [node.registry, rival.registry])


def test_a_node_stops_without_it_and_another_one_begins_it_anew(world):
    stuck = Stuck()
    stuck.node = node = world.node(registry(blocking(stuck)), {"probe": lambda effect: 1})
    instance_id = world.start()
    stuck.settle()
    node.stop()
    assert world.record(instance_id).row.owner is None
    successor = world.node(registry(blocking(Stuck(0))), {"probe": lambda effect: 2})
    world.send(instance_id, "go", 3)
    world.run(2)
    assert world.output(instance_id) == [2, 3]
    check_rest(world, [successor.registry])


def test_the_effects_of_a_group_that_was_committed_late_are_not_lost(world):
    """The store was away, and the group is committed in the cycle in which another instance's code gets stuck."""
    stuck = Stuck(0)
    stuck.node = node = world.node(several(job=blocking(stuck), other=other), {"probe": lambda effect: HOLD})
    first = world.start("other", instance_id="a")
    node.store.before_commit = lambda: setattr(node.store, "down", StoreUnavailable("away"))
    world.clock.skip(2)
    node.cycle_once()
    node.store.down = None
    stuck.times = 1
    world.clock.skip(1)
    second = node.start("job")
    stuck.settle()
    world.clock.skip(1)
    stuck.settle()
    assert len(stuck.late) == 1
    assert {effect.key.instance_id for effect in node.running.values()} == {first}
    stuck.hand_in()
    assert {effect.key.instance_id for effect in node.running.values()} == {first, second}


def test_time_that_has_passed_while_it_was_away_makes_no_timer_early(world):
    stuck = Stuck()

    async def job(ctx, state):
        stuck()
        await ctx.schedule_timer(timedelta(seconds=3))
        return "woken"

    stuck.node = node = world.node(registry(job))
    instance_id = world.start()
    stuck.settle()
    world.clock.skip(2)
    stuck.hand_in()
    world.run(2)
    assert world.output(instance_id) == "woken"
    fired = next(event for event in world.events(instance_id) if event.kind.name == "TIMER_FIRED")
    due = next(event for event in world.events(instance_id) if event.kind.name == "TIMER_CREATED").due
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
    stuck.settle()
    node.engine.come_back(stuck.late.pop())
    node.engine.close()
    assert met == [Evicted]
