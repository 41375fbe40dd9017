"""Nodes of libraries of different ages on one store (protocol rules 37 and 38).

``NEXT_LIBRARY`` is this one with a kind more of each sort and an event format more; what it writes
at its level, this one does not know. Scenario 69.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestra.activities import Activity
from orchestra.errors import LevelTooLow, LibraryTooOld, StoreError
from orchestra.events import EVENTS
from orchestra.levels import Levels, Unknown
from orchestra.registry import OrchestrationRegistry
from orchestra.resolution import policy_of, stored_policy, why_unreadable
from orchestra.store.kinds import THIS_LIBRARY, Status
from orchestra.testing.checker import check_store
from orchestra.versions import Exact, Range, UnknownPolicy, policy_to_text
from tests.support.ages import (
    FIRST_LIBRARY,
    FORMAT_LIBRARY,
    NEXT_FORMAT,
    NEXT_LEVEL,
    NEXT_LIBRARY,
    STERN_LIBRARY,
)
from tests.support.harness import HOLD, registry, several

KINDS_ONLY = replace(NEXT_LIBRARY, events=type(EVENTS)(EVENTS.formats, NEXT_LIBRARY.events.kinds))
"""The next library without its event format."""


async def work(ctx, state):
    return await ctx.schedule_activity("work", state)


async def lap(ctx, state):
    await ctx.schedule_activity("work", state)
    if state < 9:
        ctx.continue_as_new(state + 1)
    return state


async def nap(ctx, state):
    await ctx.schedule_timer(timedelta(minutes=1))
    await ctx.wait_for_event("go")
    return await ctx.schedule_activity("work", state)


async def typed(ctx, state: int):
    return state


async def parent(ctx, state):
    return await ctx.gather(
        ctx.start_child("child", state, queue="children"), ctx.wait_for_event("go")
    )


async def child(ctx, state):
    return state


FAMILY = several(parent=parent, child=child)
DONE = {"work": lambda run: "done"}


def raised(world, library=NEXT_LIBRARY):
    """Have the store written at the next level."""
    assert (
        world.provider_of(library).store.raise_level(library.target(NEXT_LEVEL)).write == NEXT_LEVEL
    )


def sound(world, orchestrations, library=NEXT_LIBRARY):
    """Hold what is stored against the invariants, as the newer library reads it."""
    report = check_store(world.provider_of(library), orchestrations, quiescent=False)
    report.raise_if_violated()
    assert report.unknown == ()


def writes_of(node, instance_id):
    return [write for write in node.store.writes if write.instance_id == instance_id]


def formats(world, instance_id):
    return [row.format for row in world.executions(instance_id)]


# --- levels ---------------------------------------------------------------------------------------


def test_the_level_rises_when_the_last_older_node_has_gone_and_one_node_raises_it(
    any_world, caplog
):
    caplog.set_level(logging.INFO)
    old = any_world.node(registry(work), {"work": HOLD})
    news = [any_world.node(registry(work), {"work": HOLD}, library=NEXT_LIBRARY) for _ in range(2)]
    any_world.run(30)
    assert any_world.store.catalogue().levels == THIS_LIBRARY.target(THIS_LIBRARY.level), (
        "an old node could not read it"
    )
    old.stop()
    any_world.run(10)
    assert any_world.store.catalogue().levels == Levels(NEXT_LEVEL, THIS_LIBRARY.level)
    assert sum(node.store.calls["raise_level"] for node in news) <= 2
    assert caplog.text.count(f"the store is written at level {NEXT_LEVEL} from now on") >= 1


def test_a_node_that_crashed_holds_the_level_back_until_it_is_buried(any_world):
    any_world.node(registry(work), {"work": HOLD}).crash()
    any_world.node(registry(work), {"work": HOLD}, library=NEXT_LIBRARY)
    any_world.run(5)
    assert any_world.store.catalogue().levels.write == THIS_LIBRARY.level
    any_world.run(30)
    assert any_world.store.catalogue().levels.write == NEXT_LEVEL


def test_a_library_that_only_learns_to_read_does_not_raise_the_level(world):
    world.node(
        registry(work), {"work": HOLD}, library=replace(NEXT_LIBRARY, writes=THIS_LIBRARY.level)
    )
    world.run(30)
    assert world.store.catalogue().levels.write == THIS_LIBRARY.level


def test_the_store_is_not_asked_for_a_level_that_stands_or_cannot_rise(world):
    older = world.node(registry(work), {"work": HOLD})
    node = world.node(registry(work), {"work": HOLD}, library=NEXT_LIBRARY)
    world.run(60)
    assert node.store.calls["raise_level"] == 0
    older.stop()
    world.run(60)
    assert node.store.calls["raise_level"] == 1


def test_a_role_that_may_not_raise_the_level_leaves_it_to_others_and_works_on(world, caplog):
    def refuse(levels):
        raise StoreError("permission denied for table meta")

    world.provider_of(NEXT_LIBRARY).store.raise_level = refuse
    world.node(registry(work), DONE, library=NEXT_LIBRARY)
    instance_id = world.start(state=1)
    world.run(30)
    assert world.status(instance_id) is Status.COMPLETED
    assert caplog.text.count("could not be raised") == 1


def test_a_node_that_newer_ones_have_ruled_out_releases_what_it_owns_and_stops_with_the_remedy(
    any_world,
):
    node = any_world.node(registry(work), {"work": HOLD})
    instance_id = any_world.start(state=1)
    any_world.run(1)
    assert any_world.record(instance_id).row.owner == node.node_id
    # By a migration that contracts: the level itself does not rise while such a node lives.
    levels = Levels(NEXT_LEVEL, NEXT_LEVEL)
    node.store.catalogue = lambda: replace(any_world.provider.store.catalogue(), levels=levels)
    with pytest.raises(LibraryTooOld, match="Upgrade the library") as caught:
        any_world.run(10)
    assert (caught.value.level, caught.value.lowest_reader) == (THIS_LIBRARY.level, NEXT_LEVEL)
    node.leave()
    row = any_world.record(instance_id).row
    assert (row.owner, row.wake_at, row.takeovers) == (None, 0, 0), (
        "it was released; that is no crash"
    )


def test_a_node_that_stood_still_while_the_level_rose_does_not_come_back(any_world):
    old = any_world.node(registry(work), {"work": HOLD})
    new = any_world.node(registry(work), DONE, library=STERN_LIBRARY)
    any_world.nodes.remove(old)
    instance_id = any_world.start(state=1)
    any_world.run(40)
    assert any_world.store.catalogue().levels == Levels(NEXT_LEVEL, NEXT_LEVEL)
    with pytest.raises(LibraryTooOld):
        old.run_until_idle()
    assert any_world.status(instance_id) is Status.COMPLETED
    assert [row.record.node_id for row in any_world.store.catalogue().nodes] == [new.node_id]


# --- what is not known is left alone --------------------------------------------------------------


def test_a_hold_of_an_unknown_kind_neither_ends_an_old_node_nor_is_released_by_it(any_world):
    """[M] It ended every old node at its ownership check."""
    raised(any_world)
    new = any_world.node(registry(typed), library=NEXT_LIBRARY)
    held = any_world.start(state="text")
    any_world.run(1)
    new.stop()
    unknown = Unknown("hold", "shape")
    assert any_world.record(held).row.hold.kind == unknown
    # Its code differs, so that it would try what it knows (rule 5).
    old = any_world.node(registry(work), DONE)
    other = any_world.start(state=1)
    any_world.run(60)
    assert any_world.status(other) is Status.COMPLETED
    assert any_world.record(held).held
    assert any_world.record(held).row.hold.kind == unknown
    assert writes_of(old, held) == []
    old.stop()
    any_world.node(registry(work), DONE, library=NEXT_LIBRARY)
    any_world.run(30)
    assert any_world.status(held) is Status.COMPLETED, "the newer library knows it, and goes on"


def with_an_unknown_message(world):
    """Return a parent in whose inbox an end of a child waits that an old library does not know."""
    raised(world, KINDS_ONLY)
    first = world.node(FAMILY, library=KINDS_ONLY)
    instance_id = world.start("parent", state=7)
    world.run(1)
    first.stop()
    second = world.node(FAMILY, library=KINDS_ONLY, queues=("children",))
    world.run(2)
    second.stop()
    (source,) = world.record(instance_id).reports
    return instance_id, source


def test_an_instance_with_an_unknown_message_is_handed_on_once_and_everything_else_goes_on(
    any_world,
):
    """[M] One unknown message kind failed all claims."""
    instance_id, source = with_an_unknown_message(any_world)
    old = any_world.node(FAMILY)
    others = [any_world.start("child", state=number) for number in range(20)]
    any_world.run(60)
    assert {any_world.status(other) for other in others} == {Status.COMPLETED}
    any_world.send(instance_id, "go", 1)
    any_world.run(60)
    record = any_world.record(instance_id)
    assert (record.status, record.row.owner, record.row.kind.level) == (
        Status.OPEN,
        None,
        NEXT_LEVEL,
    )
    assert (record.reports, record.row.takeovers, record.held) == ((source,), 0, False)
    (write,) = writes_of(old, instance_id)
    assert (write.executions, write.consumed, write.hold) == ((), (), None)
    assert record.summary != b"", "what it waits for is shown still"
    any_world.node(FAMILY, library=KINDS_ONLY)
    any_world.run(10)
    assert any_world.output(instance_id) == [7, 1]
    sound(any_world, FAMILY, KINDS_ONLY)


def test_an_instance_that_gets_an_unknown_message_while_an_old_node_works_on_it_is_handed_on_with_what_runs(
    any_world,
):
    """Its activities go on, and their ends wait for a newer node."""

    async def busy(ctx, state):
        return await ctx.gather(
            ctx.start_child("child", state, queue="children"), ctx.schedule_activity("work", state)
        )

    family = several(parent=busy, child=child)
    raised(any_world, KINDS_ONLY)
    old = any_world.node(family, {"work": HOLD})
    instance_id = any_world.start("parent", state=7)
    any_world.run(1)
    running = old.the_running("work")
    children = any_world.node(family, library=KINDS_ONLY, queues=("children",))
    any_world.run(5)
    assert any_world.record(instance_id).row.owner is None
    assert any_world.record(instance_id).row.kind.level == NEXT_LEVEL
    assert old.the_running("work") is running, "it was not cut off"
    old.finish(running, "done")
    any_world.run(5)
    any_world.node(family, {"work": HOLD}, library=KINDS_ONLY)
    any_world.run(10)
    assert any_world.output(instance_id) == [7, "done"]
    assert len(old.attempts) == 1, "it did not run again"
    children.stop()
    sound(any_world, family, KINDS_ONLY)


def test_an_execution_with_an_unknown_event_is_not_claimed_by_old_nodes_and_goes_on_with_a_newer_one(
    any_world,
):
    raised(any_world, KINDS_ONLY)
    new = any_world.node(registry(nap), DONE, library=KINDS_ONLY)
    instance_id = any_world.start(state=1)
    any_world.run(70)
    assert any_world.record(instance_id).row.kind.level == NEXT_LEVEL, "its own writes route it"
    new.stop()
    old = any_world.node(registry(nap), DONE)
    any_world.send(instance_id)
    any_world.run(30)
    assert writes_of(old, instance_id) == []
    assert any_world.record(instance_id).row.owner is None
    reason = why_unreadable(any_world.store.catalogue(), any_world.record(instance_id).row.kind)
    assert f"level {NEXT_LEVEL}, and living nodes read up to {THIS_LIBRARY.level}" in reason
    any_world.node(registry(nap), DONE, library=KINDS_ONLY)
    any_world.run(10)
    assert any_world.output(instance_id) == "done"
    sound(any_world, registry(nap), KINDS_ONLY)


def test_an_unknown_event_that_was_not_routed_is_no_damage_and_holds_nothing(any_world):
    """A row from before it was known, or a claim in the same moment: handed on, once."""
    node = any_world.node(registry(nap), DONE)
    instance_id = any_world.start(state=1)
    any_world.run(70)
    node.crash()
    any_world.run(0)
    store = any_world.node(registry(nap), DONE).store
    history = store.inner.history
    store.inner = Proxy(
        store.inner, history=lambda *key: [replace(one, kind=99) for one in history(*key)]
    )
    any_world.send(instance_id)
    any_world.run(60)
    record = any_world.record(instance_id)
    assert (record.held, record.row.owner, record.row.kind.level) == (False, None, NEXT_LEVEL)


class Proxy:
    """An object with some of its methods replaced."""

    def __init__(self, inner, **replaced):
        self._inner = inner
        self.__dict__.update(replaced)

    def __getattr__(self, name):
        return getattr(self._inner, name)


def test_a_version_that_was_chosen_in_an_unknown_way_is_left_to_who_knows_it(any_world):
    """[M] One unknown resolved_how failed all claims."""
    provider = any_world.provider_of(KINDS_ONLY)
    raised(any_world, KINDS_ONLY)
    old = any_world.node(registry(work), DONE)
    instance_id = any_world.id("chosen")
    provider.store.commit(
        [any_world.start_change(state=1, instance_id=instance_id, version="1.0.0")]
    )
    other = any_world.start(state=2)
    any_world.run(30)
    assert any_world.status(other) is Status.COMPLETED
    record = any_world.record(instance_id)
    assert record.execution.resolution.how == Unknown("resolution", "choice")
    assert (record.row.opened, record.row.owner, record.row.kind.level) == (False, None, NEXT_LEVEL)
    assert len(writes_of(old, instance_id)) == 1
    any_world.node(registry(work), DONE, library=KINDS_ONLY)
    any_world.run(10)
    assert any_world.status(instance_id) is Status.COMPLETED


# --- policies -------------------------------------------------------------------------------------


def set_unknown_policy(world, name="job", version="1.0.0"):
    text = policy_to_text(Exact(version), NEXT_LIBRARY.policies, NEXT_LEVEL)
    assert text == f"only:{version}"
    world.admin.set_policy(name, text, by="somebody", reason="a test")


def test_an_unknown_policy_takes_only_what_floats_by_it_from_the_claims(any_world):
    """[M] It was read as Latest."""
    both = registry(v1_0_0=lap, v2_0_0=work)
    old = any_world.node(several(job=lap, other=work), {"work": HOLD})
    running = any_world.start(state=1)
    any_world.run(1)
    set_unknown_policy(any_world)
    any_world.run(2)
    assert policy_of(any_world.store.catalogue(), "job")[0] == UnknownPolicy("only:1.0.0")
    waiting = any_world.start(state=1)
    explicit = any_world.start(state=9, version="1.0.0")
    other = any_world.start("other", state=1)
    any_world.run(5)
    assert any_world.record(waiting).row.owner is None
    assert not any_world.record(waiting).row.opened
    assert {run.key.instance_id for run in old.running.values()} == {running, explicit, other}
    for run in list(old.running.values()):
        old.finish(run, "done")
    any_world.run(5)
    assert any_world.status(other) is any_world.status(explicit) is Status.COMPLETED
    # What has lapped stays on its version, and waits for a node that can choose.
    record = any_world.record(running)
    assert (record.row.execution, record.row.opened, record.row.kind.version) == (2, False, "1.0.0")
    any_world.node(both, DONE, library=NEXT_LIBRARY)
    any_world.run(20)
    assert any_world.versions(running) == ["1.0.0"] * 9, "and not 2.0.0, as by Latest"
    assert any_world.versions(waiting) == ["1.0.0"] * 9


def test_a_child_of_a_name_whose_policy_is_unknown_waits_for_a_node_that_can_choose(any_world):
    async def family(ctx, state):
        return await ctx.start_child("child", state)

    builder = OrchestrationRegistry.builder().register("job", family)
    registered = builder.register("child", child).register("child", typed, version="2.0.0").build()
    any_world.node(registered)
    set_unknown_policy(any_world, "child")
    any_world.run(2)
    instance_id = any_world.start(state="text")
    any_world.run(10)
    assert any_world.status(instance_id) is Status.OPEN
    any_world.node(registered, library=NEXT_LIBRARY)
    any_world.run(10)
    assert any_world.output(instance_id) == "text", "on 1.0.0, as the policy says"


def test_a_library_of_level_one_never_reads_a_range_as_latest(any_world):
    """A range is of level 2: an older node leaves what floats by it to a node that can choose."""
    both = registry(v1_0_0=lap, v2_0_0=work)
    first = any_world.node(both, {"work": HOLD}, library=FIRST_LIBRARY)
    running = any_world.start(state=1, version="1.0.0")
    any_world.run(1)
    any_world.set_policy(Range("^1"))
    any_world.run(2)
    old = any_world.provider_of(FIRST_LIBRARY).store.catalogue()
    assert policy_of(old, "job")[0] == UnknownPolicy("range:^1")
    waiting = any_world.start(state=1)
    any_world.run(5)
    assert any_world.record(waiting).row.owner is None
    for effect in list(first.running.values()):
        first.finish(effect, "done")
    any_world.run(5)
    record = any_world.record(running)
    assert (record.row.execution, record.row.opened, record.row.kind.version) == (2, False, "1.0.0")
    any_world.node(both, DONE)
    any_world.run(20)
    assert any_world.versions(running) == ["1.0.0"] * 9, "and not 2.0.0, as by Latest"
    assert any_world.versions(waiting) == ["1.0.0"] * 9


def test_a_range_is_stored_once_the_last_node_of_level_one_has_gone(any_world):
    first = any_world.node(registry(work), {"work": HOLD}, library=FIRST_LIBRARY)
    any_world.node(registry(work), {"work": HOLD})
    any_world.run(5)
    with pytest.raises(LevelTooLow):
        stored_policy(any_world.store.catalogue(), Range("^1"))
    first.stop()
    any_world.run(10)
    assert stored_policy(any_world.store.catalogue(), Range("^1")) == "range:^1"


# --- formats --------------------------------------------------------------------------------------


def test_new_executions_take_the_highest_format_that_all_living_nodes_read(any_world):
    old = any_world.node(registry(lap), {"work": HOLD})
    new = any_world.node(registry(lap), {"work": HOLD}, library=NEXT_LIBRARY)
    instance_id = any_world.start(state=1)
    any_world.run(1)

    def finish():
        for node in (old, new):
            for run in list(node.running.values()):
                node.finish(run)
        any_world.run(3)

    finish()
    assert formats(any_world, instance_id) == [1, 1]
    old.stop()
    any_world.run(3)
    finish()
    assert formats(any_world, instance_id) == [1, 1, NEXT_FORMAT], (
        "who goes on with an execution writes in its format"
    )
    third = any_world.node(registry(lap), {"work": HOLD})
    any_world.run(3)
    finish()
    assert formats(any_world, instance_id)[-1] == 1, (
        "an old node has come back: it can go on with it"
    )
    assert not third.running, "new ones have their work still"
    for number, wanted in enumerate(formats(any_world, instance_id), 1):
        assert {record.format for record in any_world.directory.history(instance_id, number)} <= {
            wanted
        }
    sound(any_world, registry(lap))


def test_an_old_node_does_not_claim_what_is_written_in_a_newer_format_and_a_newer_one_goes_on(
    any_world,
):
    """Scenario 10. [M] Rolling the library back stranded every instance that had lapped."""
    new = any_world.node(registry(lap), {"work": HOLD}, library=FORMAT_LIBRARY)
    newer_format = any_world.start(state=8)
    any_world.run(1)
    new.stop()
    old = any_world.node(registry(lap), DONE)
    other = any_world.start(state=8)
    any_world.run(30)
    assert any_world.status(other) is Status.COMPLETED
    assert writes_of(old, newer_format) == []
    record = any_world.record(newer_format)
    assert (record.held, record.row.owner, record.row.kind.format) == (False, None, NEXT_FORMAT)
    reason = why_unreadable(any_world.store.catalogue(), record.row.kind)
    assert reason == (
        "its history is in format 2, which no living node reads; start a node with the newer "
        "library"
    )
    again = any_world.node(registry(lap), DONE, library=FORMAT_LIBRARY)
    any_world.run(10)
    assert any_world.status(newer_format) is Status.COMPLETED
    assert formats(any_world, newer_format) == [NEXT_FORMAT, 1], (
        "the old node lives: the lap after it is for both"
    )
    again.stop()
    sound(any_world, registry(lap), FORMAT_LIBRARY)


def test_activities_of_a_newer_format_are_handed_out_only_to_nodes_that_read_it(any_world):
    on_gpu = Activity.named("work", queue="gpu")

    async def remote(ctx, state):
        return await ctx.schedule_activity(on_gpu, state)

    new = any_world.node(registry(remote), library=FORMAT_LIBRARY)
    any_world.node(registry(remote), library=FORMAT_LIBRARY)
    instance_id = any_world.start(state=1)
    any_world.run(1)
    old = any_world.node(several(nothing=work), {"work": HOLD}, queues=("gpu",))
    any_world.run(30)
    assert old.attempts == []
    assert any_world.status(instance_id) is Status.OPEN
    reads_it = any_world.node(
        several(nothing=work), {"work": HOLD}, queues=("gpu",), library=FORMAT_LIBRARY
    )
    any_world.run(5)
    reads_it.finish(value="done")
    any_world.run(5)
    assert any_world.output(instance_id) == "done"
    # And of an execution in the first format, the old one has its share.
    other = any_world.start(state=2)
    any_world.run(2)
    for node in (old, reads_it):
        for run in list(node.running.values()):
            node.finish(run, "done")
    any_world.run(5)
    assert formats(any_world, other) == [1]
    assert any_world.output(other) == "done"
    new.stop()


def test_an_operator_of_a_newer_library_ends_what_is_written_in_its_format(any_world):
    any_world.node(registry(work), {"work": HOLD}, library=FORMAT_LIBRARY)
    instance_id = any_world.start(state=1)
    any_world.run(1)
    any_world.cancel(instance_id)
    any_world.run(20)
    provider = any_world.provider_of(FORMAT_LIBRARY)
    assert provider.directory.get(instance_id).status is Status.CANCELLED
    assert {record.format for record in provider.directory.history(instance_id, 1)} == {NEXT_FORMAT}
    sound(any_world, registry(work), FORMAT_LIBRARY)
