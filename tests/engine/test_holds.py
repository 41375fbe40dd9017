"""Instances that cannot go on: held alone, visibly, and released by code that has not been tried
yet (rules 5, 8, 16).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from orchestra.codec import pack
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.steps import stepper
from orchestra.engine.steps.stepper import Stepper
from orchestra.errors import Failure, StoreCorrupt, StoreError, StoreUnavailable
from orchestra.registry import OrchestrationRegistry
from orchestra.store.changes import Release, Write
from orchestra.store.decoding import hold_from_bytes
from orchestra.store.kinds import THIS_LIBRARY, Dialect, HoldKind, Status
from tests.support.harness import HOLD, check_instance, check_rest, registry, several


@dataclass
class Narrow:
    count: int


async def first(ctx, _):
    await ctx.wait_for_event("go")
    await ctx.schedule_activity("first")
    return "first"


async def other_order(ctx, _):
    await ctx.schedule_activity("other")
    return "other"


async def repaired(ctx, _):
    await ctx.wait_for_event("go")
    await ctx.schedule_activity("first")
    return "repaired"


async def writes_text(ctx, left):
    await ctx.wait_for_event("go")
    ctx.continue_as_new({"count": "three"})


async def reads_numbers(ctx, state: Narrow):
    return state.count


async def reads_anything(ctx, state):
    return state["count"]


async def works(ctx, _):
    return await ctx.schedule_activity("work")


def held_by_nondeterminism(world):
    node = world.node(registry(first))
    instance_id = world.start()
    world.run(1)
    node.crash()
    broken = world.node(registry(other_order))
    world.send(instance_id)
    world.run(1.1)
    return instance_id, broken


def test_nondeterminism_holds_the_instance_and_names_event_code_and_line(any_world):
    instance_id, broken = held_by_nondeterminism(any_world)
    record = any_world.record(instance_id)
    assert record.held
    hold = record.row.hold
    assert hold.kind is HoldKind.NONDETERMINISM
    assert "event 2" in hold.detail
    assert "activity 'other'" in hold.detail
    assert "test_holds.py" in hold.detail
    assert hold.tried == (broken.registry.fingerprint("job", "1.0.0"),)
    assert any_world.kinds(instance_id) == ["EXECUTION_STARTED", "EVENT_AWAITED"]
    assert record.row.owner is None
    assert broken.attempts == []
    check_rest(any_world)


def test_a_held_instance_is_not_claimed_by_messages_nor_polls(any_world):
    instance_id, broken = held_by_nondeterminism(any_world)
    revision = any_world.record(instance_id).row.revision
    broken.store.forget()
    for _ in range(3):
        any_world.send(instance_id)
        any_world.run(12)
    assert any_world.record(instance_id).row.revision == revision
    assert broken.store.writes == []


def test_new_code_releases_it_once_and_goes_on_where_it_stood(any_world):
    instance_id, broken = held_by_nondeterminism(any_world)
    broken.crash()
    fixed = any_world.node(registry(repaired), {"first": lambda run: 1})
    any_world.run(1.1)
    assert any_world.output(instance_id) == "repaired"
    assert len([change for change in fixed.store.changes if isinstance(change, Release)]) == 1
    check_rest(any_world, [fixed.registry])


def test_the_same_code_does_not_release_it(any_world):
    instance_id, broken = held_by_nondeterminism(any_world)
    broken.crash()
    again = any_world.node(registry(other_order))
    any_world.run(40)
    assert any_world.record(instance_id).held
    assert [change for change in again.store.changes if isinstance(change, Release)] == []


def test_a_node_that_was_there_all_the_time_releases_what_another_node_holds(any_world):
    """Nothing changes in the catalogue when a hold is written; the ownership check finds it (rule 5)."""
    fixed = any_world.node(registry(first), {"first": lambda run: 1})
    instance_id = any_world.start()
    any_world.run(1)
    broken = any_world.node(registry(other_order))
    any_world.run(2)
    any_world.send(instance_id)
    broken.engine.look()
    broken.run_until_idle()
    assert any_world.record(instance_id).held
    any_world.run(25)
    assert any_world.output(instance_id) == "first"
    check_rest(any_world, [fixed.registry])


def test_two_nodes_whose_code_both_fails_do_not_release_it_for_ever(any_world):
    async def third_order(ctx, _):
        await ctx.schedule_activity("third")

    instance_id, broken = held_by_nondeterminism(any_world)
    worse = any_world.node(registry(third_order))
    any_world.run(120)
    record = any_world.record(instance_id)
    assert record.held
    assert set(record.row.hold.tried) == {
        node.registry.fingerprint("job", "1.0.0") for node in (broken, worse)
    }
    releases = [
        change
        for node in (broken, worse)
        for change in node.store.changes
        if isinstance(change, Release)
    ]
    assert 1 <= len(releases) <= 3


def test_code_that_was_tried_before_is_tried_again_after_other_code_got_over_the_hold(world):
    """A rollback: the fingerprints of an old hold must not count for a new one."""

    async def one(ctx, state):
        heard = await ctx.wait_for_event("go")
        ctx.continue_as_new(heard)

    async def strict(ctx, state: Narrow):
        await ctx.wait_for_event("go")
        return "narrow"

    node = world.node(registry(strict))
    instance_id = world.start(state="no number")
    world.run(1)
    assert world.record(instance_id).row.hold.tried == (node.registry.fingerprint("job", "1.0.0"),)
    node.crash()
    node = world.node(registry(one))
    world.run(1.1)
    assert not world.record(instance_id).held
    node.crash()

    async def other_strict(ctx, state: Narrow):
        await ctx.wait_for_event("other")

    world.send(instance_id, value={"count": 1})
    world.run(1)
    node = world.node(registry(one))
    world.run(1.1)
    assert world.record(instance_id).row.execution == 2
    node.crash()
    node = world.node(registry(other_strict))
    world.send(instance_id, value={"count": 2})
    world.run(1.1)
    record = world.record(instance_id)
    assert record.held
    assert record.row.hold.tried == (node.registry.fingerprint("job", "1.0.0"),)


def releases_of(*nodes):
    return [
        change for node in nodes for change in node.store.changes if isinstance(change, Release)
    ]


def test_code_that_the_store_failed_is_tried_again_after_other_code_was_to_blame(any_world):
    """The store was full when the good code ran, then a bad deploy; taking it back must heal."""
    good = any_world.node(registry(first), {"first": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    any_world.send(instance_id)
    any_world.run(1)
    good.store.poisonous = lambda change: isinstance(change, Write) and bool(change.executions)
    good.finish(value=1)
    any_world.run(1.1)
    hold = any_world.record(instance_id).row.hold
    fingerprint = good.registry.fingerprint("job", "1.0.0")
    assert (hold.kind, hold.tried, hold.at_fault) == (HoldKind.STORE, (fingerprint,), ())
    good.crash()
    bad = any_world.node(registry(other_order))
    any_world.run(15)
    hold = any_world.record(instance_id).row.hold
    blamed = (bad.registry.fingerprint("job", "1.0.0"),)
    assert (hold.kind, hold.tried, hold.at_fault) == (HoldKind.NONDETERMINISM, blamed, blamed)
    bad.crash()
    back = any_world.node(registry(first), {"first": lambda run: 1})
    any_world.run(15)
    assert any_world.output(instance_id) == "first"
    assert len(releases_of(back)) == 1
    check_rest(any_world, [back.registry])


def test_code_that_the_store_fails_and_code_that_is_to_blame_do_not_release_one_another_for_ever(
    any_world,
):
    async def third_order(ctx, _):
        await ctx.schedule_activity("third")

    unlucky = any_world.node(registry(first), {"first": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    any_world.send(instance_id)
    any_world.run(1)
    unlucky.store.poisonous = lambda change: (
        isinstance(change, Write) and bool(change.executions or change.activities)
    )
    unlucky.store.unreadable[instance_id] = StoreError("a row does not fit")
    unlucky.finish(value=1)
    any_world.run(1)
    bad = [any_world.node(registry(other_order)), any_world.node(registry(third_order))]
    any_world.run(400)
    record = any_world.record(instance_id)
    assert record.held
    fingerprints = [node.registry.fingerprint("job", "1.0.0") for node in (unlucky, *bad)]
    assert set(record.row.hold.tried) == set(fingerprints)
    assert set(record.row.hold.at_fault) == set(fingerprints[1:])
    assert 2 <= len(releases_of(unlucky, *bad)) <= 6
    revision = record.row.revision
    any_world.run(100)
    assert any_world.record(instance_id).row.revision == revision, "it is tried for ever"


@pytest.mark.parametrize(("kind", "at_fault"), [("state", ("f1",)), ("store", ())])
def test_a_hold_that_was_stored_before_faults_were_is_judged_by_its_kind(kind, at_fault):
    hold = hold_from_bytes(
        pack({"kind": kind, "detail": "", "since": 1, "by": "n1", "tried": ["f1"]}),
        Dialect(THIS_LIBRARY),
    )
    assert (hold.tried, hold.at_fault) == (("f1",), at_fault)


def test_an_operators_release_has_the_same_code_try_again_and_keeps_what_was_tried(any_world):
    instance_id, broken = held_by_nondeterminism(any_world)
    before = any_world.record(instance_id).row.hold
    row = any_world.record(instance_id).row
    any_world.store.commit([Release(instance_id, row.incarnation, row.revision)])
    any_world.run(1.1)
    after = any_world.record(instance_id)
    assert (after.held, after.row.hold.tried, after.row.hold.at_fault) == (
        True,
        before.tried,
        before.tried,
    )
    assert after.row.hold.since > before.since
    any_world.run(40)
    assert releases_of(broken) == []


def test_what_was_tried_is_not_forgotten_by_an_opening_that_did_not_stand(any_world, monkeypatch):
    async def other(ctx, _):
        return "other"

    def fail(self, *args):
        raise ZeroDivisionError("a fault of the engine")

    monkeypatch.setattr(Stepper, "_turn", fail)
    one = any_world.node(registry(first))
    instance_id = any_world.start()
    any_world.run(1)
    two = any_world.node(registry(other))
    any_world.run(60)
    record = any_world.record(instance_id)
    assert (record.held, record.row.opened) == (True, False)
    assert set(record.row.hold.tried) == {
        node.registry.fingerprint("job", "1.0.0") for node in (one, two)
    }
    assert len(releases_of(one, two)) == 1


def test_a_state_that_does_not_fit_holds_the_next_execution_unopened_behind_a_closed_one(any_world):
    node = any_world.node(registry(v1_0_0=writes_text, v1_1_0=reads_numbers))
    instance_id = any_world.start(version="1.0.0")
    any_world.run(1)
    node.store.forget()
    any_world.send(instance_id)
    any_world.run(1.1)
    (write,) = node.store.writes
    assert [delta.number for delta in write.executions] == [1, 2], (
        "the boundary is one write, held or not"
    )
    record = any_world.record(instance_id)
    assert record.held
    assert record.row.hold.kind is HoldKind.MIGRATION
    assert "count" in record.row.hold.detail
    closed, waiting = any_world.executions(instance_id)
    assert (closed.end.name, waiting.opened_at, waiting.version) == (
        "CONTINUED_AS_NEW",
        None,
        "1.1.0",
    )
    check_rest(any_world, [node.registry])


def test_a_higher_fixed_version_releases_what_its_predecessor_could_not_read(any_world):
    node = any_world.node(registry(v1_0_0=writes_text, v1_1_0=reads_numbers))
    instance_id = any_world.start(version="1.0.0")
    any_world.run(1)
    any_world.send(instance_id)
    any_world.run(1.1)
    assert any_world.record(instance_id).held
    any_world.node(registry(v1_2_0=reads_anything))
    any_world.run(2.2)
    assert any_world.output(instance_id) == "three"
    assert any_world.versions(instance_id) == ["1.0.0", "1.2.0"]
    check_rest(any_world, [node.registry])


def test_a_state_that_does_not_fit_at_a_start_holds_it_before_any_code_ran(any_world):
    any_world.node(registry(reads_numbers))
    instance_id = any_world.start(state={"count": "x"})
    any_world.run(1)
    record = any_world.record(instance_id)
    assert (record.held, record.row.hold.kind, record.row.opened) == (True, HoldKind.STATE, False)
    assert any_world.events(instance_id) == []


def test_a_history_that_no_execution_can_have_written_holds_the_instance(world):
    node = world.node(registry(first))
    instance_id = world.start()
    world.run(1)
    node.crash()
    reader = world.node(registry(first), {"first": HOLD})
    inner = reader.store.history
    reader.store.history = lambda *args: inner(*args)[1:]
    world.send(instance_id)
    world.run(1.1)
    assert world.record(instance_id).row.hold.kind is HoldKind.HISTORY
    check_instance(world, instance_id, [node.registry])


@pytest.mark.parametrize(
    "error",
    [StoreCorrupt("a page is damaged"), StoreError("a row does not fit"), ValueError("odd bytes")],
)
def test_a_history_that_cannot_be_read_holds_that_instance_and_the_node_goes_on(world, error):
    node = world.node(registry(first), {"first": lambda run: 1})
    bad = world.start()
    world.run(1)
    node.crash()
    node = world.node(registry(first), {"first": lambda run: 1})
    node.store.unreadable[bad] = error
    world.send(bad)
    good = world.start()
    world.send(good)
    world.run(1.1)
    assert world.record(bad).held
    assert world.output(good) == "first"
    token = node.submit(world.append_change(bad))
    node.run_until_idle()
    assert not isinstance(node.replies[token], Exception), (
        "clients were refused for one instance's fault"
    )


def test_a_poisonous_write_holds_its_instance_and_the_others_of_the_group_commit(any_world):
    node = any_world.node(registry(works), {"work": HOLD})
    ids = [any_world.start() for _ in range(9)]
    any_world.run(1)
    bad = ids[4]
    node.store.poisonous = lambda change: (
        isinstance(change, Write) and change.instance_id == bad and bool(change.executions)
    )
    for run in list(node.running.values()):
        node.finish(run, run.key.instance_id)
    any_world.run(2)
    for instance_id in ids:
        record = any_world.record(instance_id)
        if instance_id == bad:
            assert record.held
            assert record.row.hold.kind is HoldKind.STORE
            assert "does not fit" in record.row.hold.detail
            assert record.status is Status.OPEN
        else:
            assert any_world.output(instance_id) == instance_id
    assert node.engine.owned == 0
    check_rest(any_world, [node.registry])


def test_an_instance_that_not_even_a_hold_can_be_written_for_is_left_alone_without_spinning(world):
    node = world.node(registry(works), {"work": HOLD})
    bad, good = world.start(), world.start()
    world.run(1)
    node.store.poisonous = lambda change: isinstance(change, Write) and change.instance_id == bad
    for run in list(node.running.values()):
        node.finish(run, "done")
    node.store.forget()
    world.run(3)
    assert node.store.calls["commit"] < 20
    assert world.output(good) == "done"
    world.run(60)
    node.store.poisonous = lambda change: False
    world.run(15)
    node.finish(value="in the end")
    world.run(1)
    assert world.output(bad) == "in the end"


def test_a_claim_that_the_store_will_never_take_does_not_make_the_node_spin(world):
    node = world.node(registry(works), {"work": HOLD})
    world.start()
    node.store.poisonous = lambda change: type(change).__name__ == "Claim"
    node.store.forget()
    node.engine.look()
    world.run(5)
    assert node.store.calls["commit"] < 20
    node.store.poisonous = lambda change: False
    world.run(2)
    assert len(node.running) == 1


@pytest.mark.parametrize(
    "where", ["_complete_activities", "_park", "write_of", "cross_boundary", "_turn"]
)
def test_a_fault_of_the_engine_over_one_instance_holds_it_and_not_the_others(
    world, monkeypatch, where
):
    async def laps(ctx, left):
        await ctx.schedule_activity("work")
        if left:
            ctx.continue_as_new(left - 1)
        return "done"

    node = world.node(registry(laps), {"work": HOLD})
    bad, good = world.start(state=1), world.start(state=1)
    world.run(1)
    owner = Stepper if hasattr(Stepper, where) else stepper
    original = getattr(owner, where)

    def broken(*args):
        instance = next(argument for argument in args if isinstance(argument, OwnedInstance))
        if instance.instance_id == bad and instance.poison is None:
            raise ZeroDivisionError("a fault of the engine")
        return original(*args)

    is_static = isinstance(owner.__dict__[where], staticmethod)
    monkeypatch.setattr(owner, where, staticmethod(broken) if is_static else broken)
    for _ in range(2):
        for run in list(node.running.values()):
            node.finish(run)
        world.run(1)
    record = world.record(bad)
    assert record.held
    assert record.row.hold.kind is HoldKind.INTERNAL
    assert "ZeroDivisionError" in record.row.hold.detail
    assert world.output(good) == "done"
    check_rest(world, [node.registry])


def test_a_hold_is_storable_whatever_its_error_says(any_world):
    async def plain(ctx, _):
        return "fine"

    node = any_world.node(several(plain=plain))
    node.engine._stepper._opener.open = lambda *args: (_ for _ in ()).throw(
        ValueError("\ud800" + "x" * 100_000)
    )
    instance_id = any_world.start("plain")
    any_world.run(1)
    record = any_world.record(instance_id)
    assert record.held
    assert "\\ud800" in record.row.hold.detail
    assert len(record.row.hold.detail) < 10_000


def test_a_policy_that_cannot_be_read_holds_what_needs_it(world):
    node = world.node(registry(writes_text))
    instance_id = world.start()
    world.run(1)
    good = world.start(version="1.0.0")
    world.run(1)
    catalogue = node.engine.catalogue
    broken = type(catalogue)(catalogue.now, catalogue.nodes, {"job": object()}, catalogue.kinds)
    node.engine.catalogue = broken
    world.send(instance_id)
    node.engine.look()
    node.run_until_idle()
    record = world.record(instance_id)
    assert record.held
    assert record.row.hold.kind is HoldKind.INTERNAL
    assert [row.number for row in world.executions(instance_id)] == [1], (
        "half a boundary was stored"
    )
    assert not world.record(good).held
    check_instance(world, instance_id, [node.registry])


def test_what_runs_beside_a_poisonous_write_is_aborted_when_its_instance_is_held(world):
    async def two(ctx, _):
        return await ctx.gather(ctx.schedule_activity("a"), ctx.schedule_activity("b"))

    node = world.node(registry(two), {"a": HOLD, "b": HOLD})
    instance_id = world.start()
    world.run(1)
    beside = node.the_running("b").key
    node.store.poisonous = lambda change: isinstance(change, Write) and bool(change.executions)
    node.finish(node.the_running("a"), 1)
    world.run(1)
    assert world.record(instance_id).held
    assert node.aborted == [beside]
    assert node.engine.running == 0


def test_a_fault_in_the_first_turn_of_the_next_execution_leaves_it_unopened_behind_a_whole_boundary(
    world, monkeypatch
):
    async def laps(ctx, left):
        await ctx.schedule_activity("work")
        ctx.continue_as_new(left - 1)

    node = world.node(registry(laps), {"work": HOLD})
    instance_id = world.start(state=5)
    world.run(1)
    original = Stepper._turn

    def broken(self, instance, *args):
        if instance.current.number == 2:
            raise ZeroDivisionError("a fault of the engine")
        return original(self, instance, *args)

    monkeypatch.setattr(Stepper, "_turn", broken)
    node.finish()
    world.run(1)
    record = check_instance(world, instance_id, [node.registry])
    assert (record.held, record.row.execution, record.row.opened) == (True, 2, False)
    monkeypatch.undo()
    node.crash()

    async def laps_again(ctx, left):
        await ctx.schedule_activity("work")
        return left

    after = world.node(registry(laps_again), {"work": HOLD})
    world.run(1)
    after.finish()
    world.run(1)
    assert world.output(instance_id) == 4
    check_rest(world, [after.registry])


# --- what is said of it ---------------------------------------------------------------------------


def said_of(caplog, instance_id, what):
    return [
        record
        for record in caplog.records
        if getattr(record, "instance_id", None) == instance_id
        and f"] {what}" in record.getMessage()
    ]


def terminates_before_the_commit(world, node, instance_id):
    """Have an operator end the instance between the node's next step of it and the commit. Return
    what will have happened.
    """
    ended = []

    def end():
        if world.record(instance_id).row.owner is not None:
            node.store.around = None
            ended.append(world.terminate(instance_id))

    node.store.around = end
    return ended


def test_a_hold_is_said_once_with_its_reason_and_what_ends_it_and_not_before_it_is_committed(
    any_world, caplog
):
    node = any_world.node(registry(reads_numbers))
    instance_id = any_world.start(state={"count": "x"})
    said = {}
    node.store.around = lambda: said.setdefault(
        any_world.record(instance_id).held, len(said_of(caplog, instance_id, "is held"))
    )
    any_world.run(30)
    (record,) = said_of(caplog, instance_id, "is held")
    detail = any_world.record(instance_id).row.hold.detail
    assert said[False] == said[True] == 0, "it was said before the commit had returned"
    assert record.levelname == "WARNING"
    assert (record.orchestration, record.version, record.execution_id) == ("job", "1.0.0", 1)
    assert record.getMessage().startswith(f"job 1.0.0 [{instance_id} #1] is held: state: ")
    assert detail.splitlines()[0] in record.getMessage()
    assert "code is deployed that reads the value" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_hold_whose_write_is_refused_is_not_said(any_world, caplog):
    node = any_world.node(registry(reads_numbers))
    instance_id = any_world.start(state={"count": "x"})
    ended = terminates_before_the_commit(any_world, node, instance_id)
    any_world.run(5)
    assert (len(ended), any_world.status(instance_id)) == (1, Status.TERMINATED)
    assert said_of(caplog, instance_id, "is held") == []


def test_the_same_hold_that_a_node_meets_again_is_not_said_again(any_world, caplog):
    instance_id, _ = held_by_nondeterminism(any_world)
    for _ in range(5):
        row = any_world.record(instance_id).row
        any_world.store.commit([Release(instance_id, row.incarnation, row.revision)])
        any_world.run(1.1)
        assert any_world.record(instance_id).row.hold.since > row.hold.since, (
            "it was not tried again, or this test says nothing"
        )
    (record,) = said_of(caplog, instance_id, "is held")
    assert "nondeterminism: " in record.getMessage()


def test_what_has_held_an_instance_is_news_again_once_the_instance_has_gone_on(world, caplog):
    node = world.node(registry(works), {"work": HOLD})
    instance_id = world.start()
    world.run(1)
    for _ in range(2):
        node.store.poisonous = lambda change: isinstance(change, Write) and bool(change.activities)
        node.fail(error=ValueError("not yet"))
        world.run(1)
        row = world.record(instance_id).row
        assert row.hold.kind is HoldKind.STORE
        node.store.poisonous = lambda change: False
        assert world.store.commit([Release(instance_id, row.incarnation, row.revision)])
        world.run(1.1)
        assert len(said_of(caplog, instance_id, "is held")) == 1
    node.finish(value="done")
    world.run(1)
    assert world.output(instance_id) == "done"
    assert node.engine._notices.is_news(instance_id, "store: StoreError: a value does not fit"), (
        "it is remembered for ever"
    )


def test_a_write_that_cannot_even_be_held_is_said_once_and_not_with_each_inventory(world, caplog):
    node = world.node(registry(works), {"work": HOLD})
    bad = world.start()
    world.run(1)
    node.store.poisonous = lambda change: isinstance(change, Write) and change.instance_id == bad
    node.finish(value="done")
    world.run(100)
    assert len(said_of(caplog, bad, "cannot be held")) == 1
    assert said_of(caplog, bad, "is held") == []


async def fails(ctx, _):
    await ctx.wait_for_event("go")
    raise Failure("no such\nthing")


def test_a_failure_is_said_once_with_type_message_and_line_and_never_on_replay(any_world, caplog):
    node = any_world.node(registry(fails))
    instance_id = any_world.start()
    any_world.run(1)
    node.crash()
    any_world.node(registry(fails))
    any_world.send(instance_id)
    any_world.run(30)
    assert any_world.status(instance_id) is Status.FAILED
    (record,) = said_of(caplog, instance_id, "has failed")
    line = fails.__code__.co_firstlineno + 2
    assert record.levelname == "ERROR"
    assert record.getMessage() == (
        f"job 1.0.0 [{instance_id} #1] has failed: orchestra.errors.Failure: no such thing (at "
        f"{__file__}:{line} in fails)"
    )


def test_a_failure_below_other_code_names_the_line_of_the_orchestrations_own_file(
    any_world, caplog
):
    async def job(ctx, _):
        json.loads("no json")

    any_world.node(
        OrchestrationRegistry.builder().register("job", job, failures=(ValueError,)).build()
    )
    instance_id = any_world.start()
    any_world.run(1)
    (record,) = said_of(caplog, instance_id, "has failed")
    assert f"(at {__file__}:{job.__code__.co_firstlineno + 1} in job)" in record.getMessage()


def test_a_failure_whose_write_is_refused_is_not_said(any_world, caplog):
    node = any_world.node(registry(fails))
    instance_id = any_world.start()
    any_world.run(1)
    any_world.send(instance_id)
    ended = terminates_before_the_commit(any_world, node, instance_id)
    any_world.run(5)
    assert (len(ended), any_world.status(instance_id)) == (1, Status.TERMINATED)
    assert said_of(caplog, instance_id, "has failed") == []


def test_nothing_is_said_of_instances_that_complete_are_cancelled_or_terminated(any_world, caplog):
    any_world.node(registry(first), {"first": lambda run: 1})
    done, cancelled, terminated = (any_world.start() for _ in range(3))
    any_world.run(1)
    any_world.send(done)
    any_world.cancel(cancelled)
    any_world.terminate(terminated)
    any_world.run(5)
    statuses = [any_world.status(instance_id) for instance_id in (done, cancelled, terminated)]
    assert statuses == [Status.COMPLETED, Status.CANCELLED, Status.TERMINATED]
    assert [
        record.getMessage() for record in caplog.records if hasattr(record, "instance_id")
    ] == []


# --- many holds -------------------------------------------------------------------------------


def many_held(world):
    """A bad deploy: five instances are held, and the node that follows reads two at a time."""
    node = world.node(registry(first))
    ids = [world.start() for _ in range(5)]
    world.run(1)
    node.crash()
    broken = world.node(registry(other_order))
    for instance_id in ids:
        world.send(instance_id)
    world.run(1.1)
    assert all(world.record(instance_id).held for instance_id in ids)
    broken.crash()
    fixed = world.node(registry(repaired), {"first": lambda run: 1}, begin=False)
    pages, read = [], fixed.store.held

    def held(names, after=None):
        pages.append(after)
        return read(names, after, 2)

    fixed.store.held = held
    return ids, fixed, pages


def test_new_code_releases_more_holds_than_a_page_has(any_world):
    ids, fixed, pages = many_held(any_world)
    fixed.cycle.begin()
    any_world.run(1.1)
    assert {any_world.output(instance_id) for instance_id in ids} == {"repaired"}
    assert len([change for change in fixed.store.changes if isinstance(change, Release)]) == 5
    assert pages[0] is None
    assert None not in pages[1:3], "one after the other, not the first one again"
    check_rest(any_world, [fixed.registry])


def test_an_outage_between_pages_of_holds_loses_none(any_world):
    ids, fixed, pages = many_held(any_world)
    held = fixed.store.held

    def held_with_an_outage(names, after=None):
        page = held(names, after)
        if len(pages) == 2:
            raise StoreUnavailable("the connection broke")
        return page

    fixed.store.held = held_with_an_outage
    fixed.cycle.begin()
    any_world.run(5)
    assert {any_world.output(instance_id) for instance_id in ids} == {"repaired"}
    assert pages[1] == pages[2], "it goes on where it was"
    check_rest(any_world, [fixed.registry])


def test_what_comes_due_while_holds_are_read_reads_all_of_them_again(world):
    _, fixed, pages = many_held(world)
    held = fixed.store.held

    def held_while_others_join(names, after=None):
        if len(pages) == 1:
            fixed.engine.check_ownership()
        return held(names, after)

    fixed.store.held = held_while_others_join
    fixed.cycle.begin()
    world.run(1.1)
    fixed.engine.refresh(world.store.catalogue())
    assert pages.count(None) >= 2
