"""Life and death of nodes (rules 11 to 14)."""

from __future__ import annotations

import pytest

from orchestra.errors import OutcomeUnknown, StoreUnavailable
from orchestra.store.changes import Claim, Write
from orchestra.store.kinds import Status
from tests.support.harness import HOLD, check_rest, registry


async def works(ctx, _):
    return await ctx.schedule_activity("work")


CODE = registry(works)


def living(world):
    return {row.record.node_id for row in world.store.catalogue().nodes}


def stand_still(world, nodes, seconds):
    """Let time pass in which only these nodes do anything."""
    others = [node for node in world.alive if node not in nodes]
    for node in others:
        node.alive = False
    world.run(seconds)
    for node in others:
        node.alive = True


def test_a_lapse_alone_changes_nothing(any_world):
    """Nobody watched: the node comes back after an hour and goes on with what it owns."""
    node = any_world.node(CODE, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    any_world.clock.skip(3600)
    other = any_world.node(CODE, {"work": HOLD})
    other.run_until_idle()
    assert any_world.record(instance_id).row.owner == node.node_id
    node.finish(value="late")
    any_world.run(1)
    assert any_world.output(instance_id) == "late"
    assert any_world.record(instance_id).row.takeovers == 0
    check_rest(any_world, [CODE])


def test_a_node_is_dead_after_a_full_lease_of_standing_still_and_not_before(any_world):
    silent = any_world.node(CODE, {"work": HOLD}, lease=10)
    instance_id = any_world.start()
    any_world.run(1)
    watcher = any_world.node(CODE, {"work": HOLD}, lease=10)
    any_world.run(3.5)  # the watcher sees the last renewal between 4 and 5 s
    silent.crash()
    any_world.run(9)
    assert silent.node_id in living(any_world)
    assert any_world.record(instance_id).row.owner == silent.node_id
    any_world.run(4)
    assert silent.node_id not in living(any_world)
    assert watcher.the_running().attempt == 2
    assert any_world.record(instance_id).row.owner == watcher.node_id


def test_a_watcher_counts_the_lease_from_its_own_first_look(world):
    """The row may be old; what counts is how long it has stood still before the watcher's own
    eyes.
    """
    silent = world.node(CODE, {"work": HOLD})
    world.start()
    world.run(1)
    silent.crash()
    world.clock.skip(1_000)
    world.node(CODE)
    world.run(8)
    assert silent.node_id in living(world)
    world.run(4)
    assert silent.node_id not in living(world)


@pytest.mark.parametrize("seconds", [4, 6, 8, 10, 12, 60])
def test_after_a_store_outage_nobody_is_buried(world, seconds):
    """All nodes renew as soon as they can; the first one back must not take all (rule 11)."""
    nodes = [world.node(CODE, {"work": HOLD}, lease=10) for _ in range(3)]
    for _ in range(6):
        world.start()
    world.run(7.7)
    ids = {node.node_id for node in nodes}
    assert sum(len(node.running) for node in nodes) == 6
    for node in nodes:
        node.store.down = StoreUnavailable("away")
    world.run(seconds)
    for number, node in enumerate(nodes):  # the store comes back for one after the other
        node.store.down = None
        world.run(0.7 * (number < 2))
    world.run(30)
    assert {node.node_id for node in nodes} == ids == living(world)
    assert all(not node.aborted for node in nodes)
    assert {run.attempt for node in nodes for run in node.attempts} == {1}


def test_a_node_that_dies_during_an_outage_is_found_after_it(world):
    silent, watcher = world.node(CODE, {"work": HOLD}), world.node(CODE, {"work": HOLD})
    instance_id = world.start()
    silent.engine.look()
    silent.run_until_idle()
    world.run(1)
    watcher.store.down = StoreUnavailable("away")
    silent.crash()
    world.run(60)
    watcher.store.down = None
    world.run(25)
    assert silent.node_id not in living(world)
    assert world.record(instance_id).row.owner == watcher.node_id


def test_a_buried_node_takes_a_new_id_aborts_what_runs_and_takes_new_work(any_world):
    node = any_world.node(CODE, {"work": HOLD}, lease=6)
    instance_id = any_world.start()
    any_world.run(1)
    old_id, key = node.node_id, node.the_running().key
    watcher = any_world.node(CODE, {"work": HOLD}, lease=6)
    stand_still(any_world, [watcher], 15)
    assert old_id not in living(any_world)
    any_world.run(1)
    assert node.node_id != old_id
    assert node.node_id in living(any_world)
    assert node.aborted == [key]
    assert node.engine.owned == node.engine.running == 0
    assert watcher.the_running().attempt == 2
    watcher.finish(value="of the heir")
    any_world.run(1)
    assert any_world.output(instance_id) == "of the heir"
    watcher.engine.stop_claiming()
    again = any_world.start()
    any_world.run(2)
    node.finish(value="alive")
    any_world.run(1)
    assert any_world.output(again) == "alive"
    check_rest(any_world, [CODE])


def test_what_a_buried_node_had_ready_is_refused_and_its_clients_are_served(any_world):
    """I6. A result and a start come in the moment before the node learns of its death."""
    node = any_world.node(CODE, {"work": HOLD}, lease=6)
    instance_id = any_world.start()
    any_world.run(1)
    watcher = any_world.node(CODE, {"work": HOLD}, lease=6)
    stand_still(any_world, [watcher], 15)
    node.finish(value="of the dead")
    started = any_world.start_change()
    token = node.submit(started)
    any_world.run(1)
    assert type(node.replies[token]).__name__ == "Started"
    assert any_world.status(instance_id) is Status.OPEN
    watcher.finish(
        watcher.running[next(key for key in watcher.running if key.instance_id == instance_id)],
        "of the heir",
    )
    any_world.run(1)
    assert any_world.output(instance_id) == "of the heir"


def test_a_write_of_a_dead_node_is_refused_before_it_knows_that_it_is_dead(any_world):
    node = any_world.node(CODE, {"work": HOLD}, lease=6)
    instance_id = any_world.start()
    any_world.run(1)
    heir = any_world.node(CODE, {"work": HOLD}, lease=6)
    node.finish(value="of the dead")

    def die_meanwhile():
        for row in any_world.store.catalogue().nodes:
            if row.record.node_id == node.node_id:
                assert any_world.store.bury(node.node_id, row.renewals)
        any_world.store.sweep()
        heir.engine.look()
        heir.run_until_idle()

    node.store.before_commit = die_meanwhile
    node.cycle_once()
    assert [
        type(outcome).__name__
        for change, outcome in node.store.groups[-1]
        if isinstance(change, Write)
    ] == ["Refused"]
    assert any_world.status(instance_id) is Status.OPEN
    assert any_world.record(instance_id).row.owner == heir.node_id
    assert node.engine.owned == 0


@pytest.mark.parametrize("call", ["renew", "join"])
def test_a_node_that_stood_still_as_the_store_said_that_it_lives_learns_of_its_death_at_once(
    any_world, call
):
    """Rule 11: a renewal is as old as the asking for it, however late its reply is looked at."""
    node = any_world.node(CODE, {"work": HOLD}, lease=6)
    watcher = any_world.node(CODE, lease=6)
    any_world.run(1)
    first_id = node.node_id
    if call == "join":  # anew, under another id
        stand_still(any_world, [watcher], 15)
    real = getattr(node.store.inner, call)
    lives = []

    def stopped_as_it_returns(*arguments):
        reply = real(*arguments)
        if not lives:
            lives.append(arguments[0] if call == "renew" else arguments[0].node_id)
            stand_still(any_world, [watcher], 15)
        return reply

    setattr(node.store, call, stopped_as_it_returns)
    while not lives:
        any_world.clock.skip(1)
        node.cycle_once()
    assert (lives[0] == first_id) == (call == "renew")
    assert lives[0] not in living(any_world)
    instance_id = any_world.start()
    node.engine.look()
    node.cycle_once()
    assert node.node_id != lives[0]
    assert node.node_id in living(any_world)
    node.run_until_idle()
    assert any_world.record(instance_id).row.owner == node.node_id


def test_aborts_reach_the_shell_even_if_the_store_fails_while_the_node_is_reborn(world):
    node = world.node(CODE, {"work": HOLD}, lease=6)
    world.start()
    world.run(1)
    key = node.the_running().key
    watcher = world.node(CODE, lease=6)
    stand_still(world, [watcher], 15)
    real = node.store.inner.catalogue
    calls = []

    def flaky():
        calls.append(1)
        if len(calls) == 1:
            raise StoreUnavailable("away")
        return real()

    node.store.catalogue = flaky
    world.run(5)
    assert node.aborted == [key]
    assert node.node_id in living(world)


def test_a_store_that_fails_while_the_node_joins_again_is_asked_again(world):
    node = world.node(CODE, {"work": HOLD}, lease=6)
    world.run(1)
    watcher = world.node(CODE, lease=6)
    stand_still(world, [watcher], 15)
    real, failures = node.store.inner.join, [1, 2]

    def flaky(record):
        if failures:
            failures.pop()
            raise StoreUnavailable("away")
        return real(record)

    node.store.join = flaky
    world.run(5)
    assert node.node_id in living(world)
    watcher.engine.stop_claiming()
    instance_id = world.start()
    world.run(2)
    node.finish(value=1)
    world.run(1)
    assert world.output(instance_id) == 1


def test_a_node_whose_reply_to_joining_again_was_lost_does_not_go_on_as_a_ghost(world):
    """It is a member under an id that its engine was not told of; whatever that writes under the
    old one is a ghost's.
    """
    node = world.node(CODE, {"work": HOLD}, lease=6)
    world.run(1)
    watcher = world.node(CODE, lease=6)
    stand_still(world, [watcher], 15)
    watcher.crash()
    real, failures = node.store.inner.join, [1]

    def lossy(record):
        now = real(record)
        if failures:
            failures.pop()
            raise OutcomeUnknown("the connection broke")
        return now

    node.store.join = lossy
    world.run(5)
    assert not failures
    assert node.node_id in living(world)
    instance_id = world.start()
    world.run(2)
    assert world.record(instance_id).row.owner in living(world)


def test_ghosts_are_swept_within_a_lease_even_where_nobody_saw_a_burial(any_world):
    """Rule 12: the claim of a node commits after its burial."""
    ghost = any_world.node(CODE, {"work": HOLD})
    other = any_world.node(CODE, {"work": HOLD})
    any_world.run(1)
    row = next(
        row for row in any_world.store.catalogue().nodes if row.record.node_id == ghost.node_id
    )
    assert any_world.store.bury(ghost.node_id, row.renewals)
    instance_id = any_world.start()
    ghost.engine.look()
    ghost.run_until_idle()
    assert any_world.record(instance_id).row.owner == ghost.node_id
    ghost.crash()
    any_world.run(12)
    assert any_world.record(instance_id).row.owner == other.node_id
    assert other.the_running().attempt == 2


def test_forgotten_ownership_is_adopted_within_a_lease(any_world):
    """Rule 13: the row says that this node owns it; the node does not know."""
    node = any_world.node(CODE, {"work": HOLD})
    node.run_until_idle()
    instance_id = any_world.start()
    any_world.store.commit([Claim(node.node_id, node.engine._claims.kinds, 10)])
    assert any_world.record(instance_id).row.owner == node.node_id
    any_world.run(11)
    node.finish(value="found")
    any_world.run(1)
    assert any_world.output(instance_id) == "found"


def test_a_new_node_goes_on_at_once_with_what_a_dead_owner_left_swept(world):
    dead = world.node(CODE, {"work": HOLD})
    instance_id = world.start()
    world.run(1)
    row = next(row for row in world.store.catalogue().nodes if row.record.node_id == dead.node_id)
    world.store.bury(dead.node_id, row.renewals)
    dead.crash()
    heir = world.node(CODE, {"work": HOLD})
    world.run(0.1)
    assert heir.the_running().key.instance_id == instance_id


def test_renewals_are_three_a_lease_and_no_more(world):
    node = world.node(CODE, lease=9)
    world.run(1)
    node.store.forget()
    world.run(90)
    assert 28 <= node.store.calls["renew"] <= 31


def test_an_outage_shorter_than_a_lease_buries_nobody_whose_renewal_it_only_delayed(world):
    """The one was about to renew when the store went away, the other had just done so, and is back
    first.
    """
    late = world.node(CODE, lease=10)
    world.run(3)
    early = world.node(CODE, lease=10)
    world.run(6.9)  # `late` has renewed at 6.7 s and would at 10 s; `early` did at 9.7 s
    for node in (late, early):
        node.store.down = StoreUnavailable("away")
    world.run(6)
    early.store.down = None
    world.run(3)
    assert early.membership.next_due() > world.clock.monotonic(), "it has not come back"
    assert late.node_id in living(world)
    late.store.down = None
    world.run(20)
    assert living(world) == {late.node_id, early.node_id}
