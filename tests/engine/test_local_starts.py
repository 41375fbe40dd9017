"""What a node's own clients start begins there at once: the first turn is in the group of the start
(rule 15).
"""

from __future__ import annotations

import pytest

from orchestra.engine.blocked_turns import TurnAbandoned
from orchestra.engine.engine import EngineOptions
from orchestra.errors import StoreError, StoreUnavailable
from orchestra.store.changes import Claim, Start, Write
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Started, StartExists
from tests.support.harness import HOLD, check_rest, registry

LOST = pytest.mark.parametrize("lost", ["lost before", "lost after"])


async def steps(ctx, count):
    total = 0
    for number in range(count):
        total += await ctx.schedule_activity("add", number)
    return total


async def sets(ctx, state):
    ctx.set_custom_status("begun")
    ctx.set_labels({"team": "blue"})
    return await ctx.wait_for_event("go")


def ready(world, *arguments, **options):
    """Return a node that has looked at the store, and knows that its code is quick."""
    node = world.node(*arguments, **options)
    node.run_until_idle()
    for kind in node.engine._claims.kinds:
        node.engine._local_starts.first_turn_took(kind, 0.0)
    node.store.forget()
    return node


def groups(node):
    return [[type(change) for change, _ in group] for group in node.store.groups]


def test_a_start_and_its_first_turn_are_one_commit(any_world):
    node = ready(any_world, registry(steps), {"add": HOLD})
    instance_id = node.start(state=1)
    node.run_until_idle()
    assert groups(node) == [[Start, Write]]
    assert len(node.running) == 1
    node.finish(value=5)
    node.run_until_idle()
    assert groups(node) == [[Start, Write], [Write]]
    assert any_world.output(instance_id) == 5
    check_rest(any_world, [node.registry])


def test_a_start_waits_only_for_code_that_was_quick(world):
    seconds = [0.0, 0.0, 1.0, 0.0, 0.0]

    async def job(ctx, state):
        world.clock.skip(seconds[state])

    node = world.node(registry(job))
    node.run_until_idle()
    begun_at_once = []
    for state in range(len(seconds)):
        node.store.forget()
        node.start(state=state)
        node.run_until_idle()
        begun_at_once.append(groups(node)[0] == [Start, Write])
    assert begun_at_once == [False, True, True, False, True]


def test_what_needs_no_activity_ends_in_the_commit_that_starts_it(any_world):
    node = ready(any_world, registry(steps), {"add": HOLD})
    token = node.submit(any_world.start_change(state=0))
    node.run_until_idle()
    assert groups(node) == [[Start, Write]]
    assert node.replies[token] == Started()
    check_rest(any_world, [node.registry])


def test_what_the_first_turn_says_of_its_instance_is_there(any_world):
    node = ready(any_world, registry(sets))
    instance_id = node.start()
    node.run_until_idle()
    record = any_world.record(instance_id)
    assert record.labels == {"team": "blue"}
    assert record.custom_status is not None


def test_the_starts_of_a_burst_come_in_groups_with_their_turns(world):
    node = ready(world, registry(steps), {"add": HOLD}, options=EngineOptions(group=4))
    for _ in range(10):
        node.start(state=1)
    node.run_until_idle()
    assert groups(node) == [[Start] * 4 + [Write] * 4] * 2 + [[Start] * 2 + [Write] * 2]
    assert len(node.running) == 10


def test_a_refused_start_runs_nothing(any_world):
    """Also if the instance that has the id stands where the turn would be written."""
    node = ready(any_world, registry(steps), {"add": HOLD})
    standing = any_world.start(state=1)
    token = node.submit(any_world.start_change(state=1, instance_id=standing))
    node.run_until_idle()
    assert node.replies[token] == StartExists(same=False)
    any_world.run(2)
    assert len(node.attempts) == 1, "the activity of the one that stands"
    node.finish(value=1)
    any_world.run(1)
    assert any_world.output(standing) == 1
    check_rest(any_world, [node.registry])


def test_a_start_under_the_id_of_one_that_runs_here_leaves_that_alone(any_world):
    node = ready(any_world, registry(steps), {"add": HOLD})
    standing = node.start(state=1)
    node.run_until_idle()
    token = node.submit(any_world.start_change(state=1, instance_id=standing))
    node.run_until_idle()
    assert node.replies[token] == StartExists(same=False)
    assert len(node.running) == 1
    node.finish(value=1)
    node.run_until_idle()
    assert any_world.output(standing) == 1
    assert len(node.attempts) == 1
    check_rest(any_world, [node.registry])


@LOST
def test_the_reply_to_both_may_be_lost(any_world, lost):
    node = ready(any_world, registry(steps), {"add": HOLD})
    node.store.replies.append(lost)
    change = any_world.start_change(state=1)
    token = node.submit(change)
    any_world.run(2)
    assert isinstance(node.replies[token], (Started, StartExists))
    assert len(node.attempts) == 1, "the turn was made once"
    node.finish(value=1)
    any_world.run(1)
    assert any_world.output(change.instance_id) == 1
    check_rest(any_world, [node.registry])


def test_a_start_that_the_store_cannot_take_now_leaves_nothing(any_world):
    node = ready(any_world, registry(steps), {"add": HOLD})
    node.store.replies.append(StoreUnavailable("away"))
    token = node.submit(any_world.start_change(state=1, instance_id="i"))
    any_world.run(10)
    assert isinstance(node.replies[token], StoreUnavailable)
    assert node.engine.owned == 0
    assert not node.attempts
    again = node.start(state=0, instance_id="i")
    any_world.run(1)
    assert any_world.output(again) == 0
    check_rest(any_world, [node.registry])


def test_a_start_that_the_store_never_takes_leaves_nothing(any_world):
    node = ready(any_world, registry(steps), {"add": HOLD})
    node.store.poisonous = lambda change: isinstance(change, Start)
    token = node.submit(any_world.start_change(state=1))
    any_world.run(5)
    assert isinstance(node.replies[token], StoreError)
    assert node.engine.owned == 0
    assert not node.attempts


def test_a_first_turn_that_the_store_never_takes_holds_its_instance(any_world):
    node = ready(any_world, registry(steps), {"add": HOLD})
    node.store.poisonous = lambda change: isinstance(change, Write) and bool(change.executions)
    instance_id = node.start(state=1)
    any_world.run(5)
    assert any_world.record(instance_id).held
    assert not node.attempts


def test_a_node_leaves_what_is_over_its_share_to_others(world):
    first = ready(world, registry(steps), {"add": HOLD}, options=EngineOptions(max_owned=4))
    for _ in range(3):
        first.start(state=1)
    first.run_until_idle()
    assert groups(first)[0] == [Start] * 3 + [Write] * 2 + [Claim]


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("taken", [True, False])
def test_code_that_does_not_return_blocks_its_own_instance(world, *, returns, taken):
    late = []

    async def job(ctx, state):
        if state:
            assert node.engine.abandon(node.engine.running_code)
        return await ctx.schedule_activity("add", state)

    node = ready(world, registry(job), {"add": HOLD})
    if taken:
        world.start(state=0, instance_id="i")
    blocked = world.start_change(state=1, instance_id="i")
    tokens = [node.submit(blocked), node.submit(world.start_change(state=0))]
    for _ in range(100):
        try:
            node.run_until_idle()
        except TurnAbandoned as abandoned:
            late.append(abandoned.late)
        else:
            break
    assert len(late) == 1
    world.run(2)
    assert node.replies[tokens[0]] == (StartExists(same=False) if taken else Started())
    assert node.replies[tokens[1]] == Started()
    if returns:
        node.engine.add_late_result(late.pop())
        node.run_until_idle()
    world.run(30)
    assert len(node.running) == (2 if taken or returns else 1)
    for run in list(node.running.values()):
        node.finish(run, 1)
    node.run_until_idle()
    ended = world.status("i") is Status.COMPLETED
    assert ended == (taken or returns)
