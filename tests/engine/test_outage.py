"""The store is away, busy, full (scenarios 39 to 42)."""

from __future__ import annotations

import logging

import pytest

from orchestra.errors import (
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from orchestra.store.changes import Append
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Appended, Started
from tests.support.harness import HOLD, check_rest, registry

ERRORS = [
    StoreUnavailable("away"),
    StoreFull("full"),
    StoreReadOnly("read-only"),
    StoreBusy("busy"),
    StoreCorrupt("damaged"),
]


async def works(ctx, left):
    value = await ctx.schedule_activity("work")
    if left:
        ctx.continue_as_new(left - 1)
    return value


CODE = registry(works)


def lines(caplog, level=logging.WARNING):
    return [
        entry.getMessage()
        for entry in caplog.records
        if entry.name == "orchestra.engine" and entry.levelno >= level
    ]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_minute_without_the_store_costs_few_calls_one_line_and_no_result(
    any_world, error, caplog
):
    """Scenario 41."""
    caplog.set_level(logging.INFO)
    node = any_world.node(CODE, {"work": HOLD})
    ids = [any_world.start(state=0) for _ in range(3)]
    any_world.run(1)
    node.store.down = error
    for run in list(node.running.values()):
        node.finish(run, run.key.instance_id)
    node.store.forget()
    any_world.run(29)
    assert sum(node.store.calls.values()) < 40, "the store is hammered"
    assert len(lines(caplog)) == 1
    node.store.down = None
    any_world.run(6)
    assert [any_world.output(one) for one in ids] == ids
    assert len(node.attempts) == 3, "results that were there have been lost"
    assert len([line for line in lines(caplog, logging.INFO) if "again" in line]) == 1
    check_rest(any_world, [CODE])


def test_an_idle_node_does_not_take_a_cycle_without_work_for_the_store_s_return(world, caplog):
    """Only the poll fails; the cycles between two polls touch nothing and prove nothing."""
    caplog.set_level(logging.INFO)
    node = world.node(CODE, lease=1_000)
    world.run(5)
    caplog.clear()
    node.store.down = StoreUnavailable("away")
    node.store.forget()
    world.run(28)
    assert len(lines(caplog, logging.INFO)) == 1
    assert sum(node.store.calls.values()) < 20, "the pauses do not grow"
    node.store.down = None
    world.run(10)
    assert len(lines(caplog, logging.INFO)) == 2


def test_a_store_that_comes_and_goes_does_not_fill_the_log(world, caplog):
    """Scenario 41."""
    caplog.set_level(logging.INFO)
    node = world.node(CODE)
    for _ in range(50):
        node.store.down = StoreUnavailable("away")
        world.run(0.2)
        node.store.down = None
        world.run(0.4)
    assert len(lines(caplog, logging.INFO)) <= 4


def test_clients_are_told_at_once_and_their_changes_are_not_made_later(any_world):
    node = any_world.node(CODE, {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    node.store.down = StoreFull("no space")
    first = node.submit(any_world.append_change(instance_id))
    node.cycle_once()
    assert isinstance(node.replies[first], StoreFull)
    second = node.submit(any_world.append_change(instance_id))  # during the pause
    calls = node.store.calls["commit"]
    node.cycle_once()
    assert isinstance(node.replies[second], StoreFull)
    assert node.store.calls["commit"] == calls
    node.store.down = None
    any_world.run(10)
    assert any_world.record(instance_id).row.inbox_seq == 0
    third = node.submit(any_world.append_change(instance_id))
    node.run_until_idle()
    assert isinstance(node.replies[third], Appended)
    assert len([change for change in node.store.changes if isinstance(change, Append)]) == 1


def test_a_read_that_fails_while_a_group_is_put_together_loses_nothing_of_it(any_world):
    """Whether there is something to claim is asked last; by then turns have been taken and clients'
    changes are in hand.
    """
    node = any_world.node(CODE, {"work": HOLD})
    instance_id, other_id = any_world.start(state=0), any_world.start(state=0)
    any_world.run(1)
    run = next(run for run in node.running.values() if run.key.instance_id == instance_id)
    node.engine.look()
    node.finish(run, "kept")
    sent = node.submit(any_world.append_change(other_id))

    def fail(*_):
        raise StoreUnavailable("away")

    node.store.next_wake = fail
    node.cycle_once()
    assert isinstance(node.replies[sent], Appended)
    del node.store.next_wake
    any_world.run(1)
    assert any_world.output(instance_id) == "kept"
    assert any_world.record(other_id).row.inbox_seq == 1
    assert len(node.attempts) == 2


def test_results_that_come_during_the_pause_are_applied_as_soon_as_it_ends(world):
    node = world.node(CODE, {"work": HOLD}, poll=100.0)
    instance_id = world.start(state=0)
    node.engine.look()
    world.run(1)
    node.store.replies.append(StoreBusy("busy"))
    token = node.submit(world.append_change(instance_id))
    node.cycle_once()
    assert isinstance(node.replies[token], StoreBusy)
    node.finish(value="kept")
    node.cycle_once()
    world.run(0.1)
    assert world.output(instance_id) == "kept"


def test_a_device_that_fails_in_every_commit_is_not_asked_without_end(any_world, caplog):
    """What became of a commit is asked by writing, and there the device fails again: each answer
    led to the next question.
    """
    caplog.set_level(logging.INFO)
    node = any_world.node(CODE, {"work": HOLD})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    node.store.forget()
    node.store.replies.extend(["lost before"] * 1_000)
    node.finish(value="kept")
    any_world.run(1)
    sent = node.submit(any_world.append_change(instance_id))
    any_world.run(28)
    assert node.store.calls["commit"] < 40, "the store is hammered"
    assert len(lines(caplog)) == 1
    assert isinstance(node.replies[sent], StoreUnavailable), (
        "clients are told at once, and nothing of theirs was tried"
    )
    node.store.replies.clear()
    any_world.run(6)
    assert any_world.output(instance_id) == "kept"
    assert len(node.attempts) == 1
    assert len([line for line in lines(caplog, logging.INFO) if "again" in line]) == 1
    check_rest(any_world, [CODE])


def test_the_pauses_grow_and_are_bounded(world):
    node = world.node(CODE)
    world.run(1)
    node.store.down = StoreUnavailable("away")
    pauses = []
    while len(pauses) < 12:
        wait = node.cycle.idle_seconds()
        pauses.append(wait)
        world.clock.skip(wait + 1e-6)
        node.cycle_once()
    assert max(pauses) <= 5
    assert pauses[-1] == pytest.approx(5, abs=0.1)
    assert pauses[3] < 1


def test_listening_for_hints_leaves_a_store_alone_that_is_away_and_does_not_put_off_its_return(
    world,
):
    """The runtime listens every 50 ms; each failure would lengthen the pause."""
    node = world.node(CODE)
    world.run(1)
    node.store.down = StoreUnavailable("away")
    node.store.forget()
    for _ in range(200):
        world.clock.skip(0.05)
        node.cycle.listen()
        if node.cycle.idle_seconds() <= 0:
            node.cycle_once()
    assert sum(node.store.calls.values()) < 20, "a store that is away is hammered"
    node.store.down = None
    for _ in range(105):
        world.clock.skip(0.05)
        node.cycle.listen()
        if node.cycle.idle_seconds() <= 0:
            node.cycle_once()
    assert node.cycle._backoff == 0


@pytest.mark.parametrize("submits", [True, False])
def test_what_was_stepped_is_not_lost_if_the_store_fails_when_it_is_asked_for_the_next_claim(
    world, submits
):
    """The group is made when the earliest wake time is asked for: its writes, and what clients have
    handed in, stay in it. With a client's change the node claims without asking, and asks later.
    """
    node = world.node(CODE, {"work": HOLD})
    instance_id = world.start(state=0)
    world.run(1)
    node.finish(value=7)
    token = None
    if submits:
        token = node.submit(world.start_change(state=0, instance_id="another"))
    node.engine.look()
    real, failures = node.store.inner.next_wake, [1]

    def flaky(*wanted):
        if failures:
            failures.pop()
            raise StoreBusy("busy")
        return real(*wanted)

    node.store.next_wake = flaky
    world.run(1)
    assert not failures
    assert world.output(instance_id) == 7
    assert token is None or node.replies[token] == Started()


def test_an_instance_does_not_fail_because_of_the_store(any_world):
    """Scenario 40."""
    node = any_world.node(CODE, {"work": HOLD})
    instance_id = any_world.start(state=20)
    any_world.run(1)
    for number in range(21):
        node.store.replies.extend([ERRORS[number % 4]] * (number % 3))
        node.finish(value=number)
        any_world.run(2)
    assert any_world.output(instance_id) == 20
    assert len(node.attempts) == 21
    check_rest(any_world, [CODE])


def test_a_history_that_cannot_be_read_now_is_read_later(world):
    first = world.node(CODE, {"work": HOLD})
    instance_id = world.start(state=0)
    world.run(1)
    first.stop()
    node = world.node(CODE, {"work": HOLD})
    node.store.unreadable[instance_id] = StoreUnavailable("away")
    world.run(20)
    assert world.record(instance_id).row.hold is None
    node.store.unreadable.clear()
    world.run(6)
    node.finish(value=1)
    world.run(1)
    assert world.output(instance_id) == 1


def test_a_store_that_is_away_at_the_beginning_is_an_error_of_the_beginning(world):
    node = world.node(CODE, begin=False)
    node.store.down = SchemaMismatch("newer")
    with pytest.raises(SchemaMismatch):
        node.cycle.begin()


def test_leaving_a_store_that_is_away_ends_in_order(world, caplog):
    node = world.node(CODE, {"work": HOLD})
    instance_id = world.start(state=0)
    world.run(1)
    node.store.down = StoreUnavailable("away")
    node.stop()
    assert any("lease" in line for line in lines(caplog))
    assert world.status(instance_id) is Status.OPEN
    heir = world.node(CODE, {"work": HOLD})
    world.run(13)
    assert heir.the_running().attempt == 2
