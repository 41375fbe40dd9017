"""Activities whose arguments some code cannot read: handed back untried, and run where the code can
(scenario 54).
"""

from __future__ import annotations

from datetime import timedelta

from orchestra.activities import Activity
from orchestra.errors import ActivityFailed
from orchestra.retry import NO_RETRY, RetryPolicy
from orchestra.store.kinds import Status
from orchestra.summary import read_tried
from tests.support.harness import HOLD, check_rest, registry, several


async def other(ctx, _): ...


def asking(retry=NO_RETRY):
    async def asks(ctx, _):
        try:
            return await ctx.schedule_activity(Activity.named("work", retry=retry), 7)
        except ActivityFailed as failed:
            return [failed.reason, failed.cause.type]

    return registry(asks)


def worker(world, code, **options):
    return world.node(
        several(other=other), {"work": HOLD}, fingerprints=[("work", code)], **options
    )


def test_it_is_handed_back_untried_and_run_by_other_code(any_world):
    world = any_world
    boss = world.node(asking())
    old = worker(world, "old")
    instance_id = world.start()
    world.run(2)
    old.hand_back(unread="old")
    world.run(3)
    assert len(old.attempts) == 1, "the same node takes the same attempt again"
    (row,) = world.record(instance_id).activities
    assert read_tried(row)[::2] == (
        1,
        "orchestra.ArgumentsUnread: old could not read the arguments",
    )
    new = worker(world, "new")
    world.run(8)
    assert new.the_running().attempt == 1, "what was not tried counts as no attempt"
    assert not old.running
    new.finish(value="done")
    world.run(3)
    assert world.output(instance_id) == "done"
    assert len(old.attempts) == 1
    check_rest(world, [boss.registry])


def test_where_both_are_there_it_goes_to_the_other_at_once(any_world):
    world = any_world
    world.node(asking())
    workers = {code: worker(world, code) for code in ("old", "new")}
    instance_id = world.start()
    world.run(2)
    code = next(code for code, node in workers.items() if node.running)
    workers[code].hand_back(unread=code)
    world.run(2.5)
    assert not workers.pop(code).running
    (able,) = workers.values()
    able.finish(value="done")
    world.run(2)
    assert world.output(instance_id) == "done"


def test_nobody_who_can_read_them_is_no_storm_and_no_failure(any_world):
    world = any_world
    boss = world.node(asking())
    old = worker(world, "old")
    instance_id = world.start()
    world.run(2)
    old.hand_back(unread="old")
    world.run(2)
    writes, cycles = len(boss.store.writes), boss.store.calls["commit"] + old.store.calls["commit"]
    world.run(600)
    assert world.status(instance_id) is Status.OPEN
    assert len(old.attempts) == 1
    assert len(boss.store.writes) - writes <= 2
    assert boss.store.calls["commit"] + old.store.calls["commit"] - cycles <= 20


def test_the_owner_that_cannot_read_them_itself_gives_them_to_another(any_world):
    world = any_world
    owner = world.node(asking(), {"work": HOLD}, fingerprints=[("work", "old")])
    instance_id = world.start()
    world.run(2)
    owner.hand_back(unread="old")
    world.run(12)
    assert len(owner.attempts) == 1
    new = worker(world, "new")
    world.run(8)
    new.finish(value="done")
    world.run(3)
    assert world.output(instance_id) == "done"
    assert len(owner.attempts) == 1


def test_the_next_owner_knows_who_could_not_read_them(any_world):
    world = any_world
    first = world.node(asking(), {"work": HOLD}, fingerprints=[("work", "old")])
    instance_id = world.start()
    world.run(2)
    first.hand_back(unread="old")
    world.run(3)
    first.stop()
    second = world.node(asking(), {"work": HOLD}, fingerprints=[("work", "old")])
    world.run(10)
    assert not second.attempts
    third = world.node(asking(), {"work": HOLD}, fingerprints=[("work", "new")])
    second.stop()
    world.run(10)
    assert third.the_running().attempt == 1
    third.finish(value="done")
    world.run(1)
    assert world.output(instance_id) == "done"


def test_a_reader_that_goes_before_it_begins_is_replaced(any_world):
    world = any_world
    world.node(asking())
    old = worker(world, "old")
    full = worker(world, "new", slots=0)
    instance_id = world.start()
    world.run(2)
    old.hand_back(unread="old")
    world.run(3)
    assert not full.running
    full.stop()
    newer = worker(world, "newer")
    world.run(15)
    newer.finish(value="done")
    world.run(2)
    assert world.output(instance_id) == "done"
    assert len(old.attempts) == 1


def test_its_deadline_counts_although_nobody_has_tried_it(any_world):
    world = any_world
    world.node(asking(RetryPolicy(max_attempts=3, deadline=timedelta(seconds=20))))
    old = worker(world, "old")
    instance_id = world.start()
    world.run(2)
    old.hand_back(unread="old")
    world.run(60)
    assert world.output(instance_id) == ["deadline reached", "orchestra.ArgumentsUnread"]
