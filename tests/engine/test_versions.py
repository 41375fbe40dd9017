"""When a version is chosen, and by whom an execution is run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from orchestra.engine.messages import PolicyChanged
from orchestra.operations.holds import hold_reason
from orchestra.operations.retarget import following, retargeting
from orchestra.resolution import boundary_version, opening_version, policy_of
from orchestra.store.kinds import HoldKind, ResolvedBy, Status
from orchestra.store.outcomes import Granted, Refused
from orchestra.versions import Exact, Latest, Range
from tests.support.harness import HOLD, YEAR, check_rest, registry


async def old(ctx, left):
    await ctx.schedule_activity("work", "old")
    ctx.continue_as_new(left - 1)


async def new(ctx, left):
    await ctx.schedule_activity("work", "new")
    if left > 0:
        ctx.continue_as_new(left - 1)
    return "new"


def lap(world, node, times=1):
    for _ in range(times):
        node.finish()
        node.run_until_idle()
        world.run(1.1)


OLD = registry(v1_0_0=old)
BOTH = registry(v1_0_0=old, v1_1_0=new)


def test_a_start_takes_the_highest_release_by_rank(world):
    """Scenario 8."""
    world.node(registry(v1_9_0=old, v1_10_0=new, v1_2_0=old), {"work": HOLD})
    assert world.record(world.start(state=1)).row.kind.version == "1.10.0"


def test_a_pre_release_counts_only_where_nothing_else_exists(world):
    """Scenario 8."""
    builder = (
        registry(old)
        .builder()
        .register("job", old, version="2.0.0-rc.1")
        .register("job", new, version="2.0.0-rc.2")
    )
    world.node(builder.build(), {"work": HOLD})
    assert world.record(world.start(state=1)).row.kind.version == "2.0.0-rc.2"


def test_an_exact_start_stays_until_its_boundary(any_world):
    node = any_world.node(BOTH, {"work": HOLD})
    instance_id = any_world.start(state=2, version="1.0.0")
    any_world.run(1)
    assert node.the_running().version == "1.0.0"
    lap(any_world, node)
    assert any_world.versions(instance_id) == ["1.0.0", "1.1.0"]
    assert [row.resolution.how for row in any_world.executions(instance_id)] == [
        ResolvedBy.EXPLICIT,
        ResolvedBy.POLICY,
    ]


def test_a_policy_acts_only_at_starts_and_boundaries(any_world):
    node = any_world.node(BOTH, {"work": HOLD})
    any_world.set_policy(Exact("1.0.0"))
    first = any_world.start(state=9)
    any_world.run(1)
    lap(any_world, node)
    assert any_world.versions(first) == ["1.0.0", "1.0.0"]
    any_world.set_policy(Latest())
    any_world.run(5)
    assert any_world.versions(first) == ["1.0.0", "1.0.0"], "a policy touched a running execution"
    lap(any_world, node)
    assert any_world.versions(first) == ["1.0.0", "1.0.0", "1.1.0"]
    any_world.set_policy(Exact("1.0.0"))  # Exact may go down; Latest never does
    any_world.run(2)
    lap(any_world, node)
    any_world.set_policy(Latest())
    any_world.run(2)
    lap(any_world, node)
    assert any_world.versions(first) == ["1.0.0", "1.0.0", "1.1.0", "1.0.0", "1.1.0"]
    check_rest(any_world, [BOTH])


def test_a_policy_set_just_before_a_start_counts_for_it(any_world):
    """The node's catalogue is up to a poll old; the client's resolution names the later revision of
    the policy.
    """
    node = any_world.node(BOTH, {"work": HOLD})
    any_world.set_policy(Exact("1.0.0"))
    instance_id = node.start(state=1)
    node.run_until_idle()
    assert any_world.versions(instance_id) == ["1.0.0"]


def test_latest_never_goes_down_at_a_boundary(world):
    """The only node with 1.1.0 leaves while it runs; its next lap waits for 1.1.0 and is not given
    to 1.0.0.
    """
    modern = world.node(BOTH, {"work": HOLD})
    instance_id = world.start(state=5)
    world.run(1)
    assert modern.the_running().version == "1.1.0"
    lap(world, modern)
    modern.stop()
    ancient = world.node(OLD, {"work": HOLD})
    world.run(30)
    assert ancient.attempts == []
    row = world.record(instance_id).row
    assert (row.kind.version, row.owner) == ("1.1.0", None)
    again = world.node(BOTH, {"work": HOLD})
    world.run(2)
    assert again.the_running().version == "1.1.0"
    check_rest(world, [BOTH])


def test_new_code_goes_on_with_the_recorded_version_and_moves_at_the_boundary(any_world):
    node = any_world.node(OLD, {"work": HOLD})
    instance_id = any_world.start(state=9)
    any_world.run(1)
    lap(any_world, node, 3)
    node.stop()
    deployed = any_world.node(BOTH, {"work": HOLD})
    any_world.run(3)
    run = deployed.the_running()
    assert (run.version, run.key.execution) == ("1.0.0", 4)
    assert run.attempt == 1, "an orderly stop was counted as a crash"
    lap(any_world, deployed)
    assert any_world.versions(instance_id) == ["1.0.0"] * 4 + ["1.1.0"]
    assert deployed.the_running().arguments.data == b'["new"]'
    check_rest(any_world, [BOTH])


def test_a_wake_up_by_a_message_alone_after_a_restart_runs_the_version_recorded_for_execution_5(
    any_world,
):
    async def one(ctx, number):
        await ctx.wait_for_event("go")
        ctx.trace_info(f"one {number}")
        if number < 6:
            ctx.continue_as_new(number + 1)
        return number

    async def two(ctx, number):
        await ctx.wait_for_event("go")
        ctx.trace_info(f"two {number}")
        return number

    before = any_world.node(registry(v1_0_0=one))
    instance_id = any_world.start(state=1)
    for _ in range(4):
        any_world.run(1.1)
        any_world.send(instance_id)
    any_world.run(1.1)
    assert any_world.record(instance_id).row.execution == 5
    before.crash()
    after = any_world.node(registry(v1_0_0=one, v2_0_0=two))
    any_world.run(1)
    any_world.send(instance_id)
    any_world.run(1.1)
    assert after.logs == ["one 5"]
    assert any_world.versions(instance_id) == ["1.0.0"] * 5 + ["2.0.0"]
    any_world.send(instance_id)
    any_world.run(1.1)
    assert after.logs == ["one 5", "two 6"]
    check_rest(any_world, [after.registry])


@pytest.mark.parametrize("target", ["1.0.0", "1.1.0", "2.0.0"])
def test_continue_as_new_goes_exactly_where_it_is_told(any_world, target):
    async def jumps(ctx, where):
        if where:
            ctx.continue_as_new(None, version=where)
        return ctx.version

    any_world.node(registry(v1_0_0=jumps, v1_1_0=jumps, v2_0_0=jumps))
    instance_id = any_world.start(state=target, version="1.1.0")
    any_world.run(1)
    assert any_world.versions(instance_id) == ["1.1.0", target]
    assert any_world.executions(instance_id)[1].resolution.how is ResolvedBy.EXPLICIT
    assert any_world.output(instance_id) == target


def test_a_version_that_nobody_has_yet_waits_a_year_at_no_cost_and_goes_on_when_it_is_deployed(
    any_world,
):
    async def jumps(ctx, where):
        if where:
            ctx.continue_as_new(None, version=where)
        return "there"

    code = registry(v1_0_0=jumps)
    node = any_world.node(code)
    instance_id = any_world.start(state="3.0.0")
    any_world.run(1)
    record = any_world.record(instance_id)
    assert (record.row.owner, record.row.opened, record.row.execution, record.held) == (
        None,
        False,
        2,
        False,
    )
    assert any_world.executions(instance_id)[1].opened_at is None
    node.store.forget()
    any_world.run(20)
    assert node.store.writes == []
    assert any_world.record(instance_id).row.revision == record.row.revision, (
        "it was claimed by a node that cannot run it"
    )
    any_world.clock.skip(YEAR)
    any_world.run(20)
    assert any_world.record(instance_id).row.revision == record.row.revision
    any_world.node(registry(v3_0_0=jumps))
    any_world.run(1)
    assert any_world.output(instance_id) == "there"
    check_rest(any_world, [code])


def test_a_floating_start_that_waits_is_opened_on_the_highest_version_then(world):
    """It was resolved when only 1.0.0 lived; by the time that a node has room, 1.1.0 does."""
    first = world.node(OLD, {"work": HOLD})
    instance_id = world.start(state=1)
    first.crash()
    assert world.record(instance_id).row.kind.version == "1.0.0"
    second = world.node(BOTH, {"work": HOLD})
    world.run(1)
    assert second.the_running().version == "1.1.0"
    (row,) = world.executions(instance_id)
    assert (row.version, row.resolution.how, row.resolution.by) == (
        "1.1.0",
        ResolvedBy.POLICY,
        second.node_id,
    )
    check_rest(world, [BOTH])


@dataclass
class Moved:
    address: str


async def never_opens(ctx, state: Moved):
    raise AssertionError("its state does not decode")


@pytest.mark.parametrize("way", ["back", "on"])
def test_a_policy_releases_at_once_what_another_version_could_not_open(any_world, way):
    """What waits on a version stays on it if the policy's version does not open it: a policy that
    goes back, or on to a version that opens it, is all that is wanted (rules 5 and 16).
    """
    versions = {"v1_0_0": old, "v1_1_0": never_opens, "v1_2_0": new}
    code = registry(**versions)
    first = any_world.node(OLD, {"work": HOLD})
    instance_id = any_world.start(state=1)
    first.crash()
    any_world.set_policy(Exact("1.1.0"))
    node = any_world.node(code, {"work": HOLD})
    any_world.run(1)
    record = any_world.record(instance_id)
    assert (record.row.hold.kind, record.row.kind.version) == (HoldKind.STATE, "1.0.0")
    any_world.run(1.5)  # between two looks at what the node owns
    any_world.set_policy(Exact("1.0.0") if way == "back" else Latest())
    any_world.run(1.1)  # a poll
    assert node.the_running().version == ("1.0.0" if way == "back" else "1.2.0")
    assert not any_world.record(instance_id).held
    check_rest(any_world, [code])


def test_an_explicit_start_that_waits_is_not_resolved_again(world):
    first = world.node(OLD, {"work": HOLD})
    instance_id = world.start(state=1, version="1.0.0")
    first.crash()
    second = world.node(BOTH, {"work": HOLD})
    world.run(1)
    assert second.the_running().version == "1.0.0"
    assert world.versions(instance_id) == ["1.0.0"]


def test_what_waits_is_never_resolved_downwards(world):
    node = world.node(BOTH, {"work": HOLD})
    world.set_policy(Exact("1.1.0"))
    node.crash()
    instance_id = world.start(state=0)
    world.set_policy(Exact("1.0.0"))
    world.node(BOTH, {"work": HOLD})
    world.run(1)
    assert world.versions(instance_id) == ["1.1.0"]


def test_a_pin_beats_the_policy_and_the_code_beats_the_pin(world):
    async def jumps(ctx, where):
        await ctx.schedule_activity("work")
        ctx.continue_as_new(None, version=where)

    code = registry(v1_0_0=jumps, v1_1_0=jumps, v1_2_0=jumps)
    node = world.node(code, {"work": HOLD})
    pinned, told = world.start(state=None), world.start(state="1.1.0")
    for instance_id in (pinned, told):
        world.admin.set_pin(instance_id, "1.0.0", by="operator", reason="trouble")
    world.run(1)
    for run in list(node.running.values()):
        node.finish(run)
    world.run(1)
    assert world.versions(pinned) == ["1.2.0", "1.0.0"]
    assert world.executions(pinned)[1].resolution.how is ResolvedBy.PIN
    assert world.versions(told) == ["1.2.0", "1.1.0"]


# --- pins and executions that have not begun ------------------------------------------------------


def pin(world, instance_id, version):
    """Pin or unpin as a client does. Return what became of the write that has an execution follow
    which has not begun.
    """
    assert world.admin.set_pin(instance_id, version, by="operator", reason="trouble")
    change = retargeting(world.record(instance_id), world.store.catalogue(), "operator")
    return None if change is None else world.store.commit([change]).outcomes[0]


async def reads_numbers(ctx, left: int):
    return left


async def reads_anything(ctx, left):
    return "anything"


def test_a_pin_has_a_start_that_is_held_begin_on_the_pinned_version_at_once(any_world):
    node = any_world.node(registry(v1_0_0=reads_anything, v1_1_0=reads_numbers))
    instance_id = any_world.start(state="no number")
    any_world.run(1)
    assert any_world.record(instance_id).row.hold.kind is HoldKind.STATE
    assert isinstance(pin(any_world, instance_id, "1.0.0"), Granted)
    any_world.run(1.1)
    assert any_world.output(instance_id) == "anything"
    (row,) = any_world.executions(instance_id)
    assert (row.version, row.resolution.how, row.fingerprint) == (
        "1.0.0",
        ResolvedBy.PIN,
        node.registry.fingerprint("job", "1.0.0"),
    )
    check_rest(any_world, [node.registry])


def waiting_for_nobody(world):
    """Return an instance whose next execution waits for a version that nobody has, because of a
    pin.
    """
    node = world.node(BOTH, {"work": HOLD})
    instance_id = world.start(state=2, version="1.0.0")
    world.run(1)
    assert pin(world, instance_id, "7.0.0") is None, "it has begun"
    world.run(1.1)
    lap(world, node)
    record = world.record(instance_id)
    assert (record.row.execution, record.row.opened, record.execution.version) == (
        2,
        False,
        "7.0.0",
    )
    return instance_id, node


def test_what_waits_for_a_pinned_version_that_nobody_has_goes_on_once_the_pin_is_taken_away(
    any_world,
):
    instance_id, node = waiting_for_nobody(any_world)
    assert isinstance(pin(any_world, instance_id, None), Granted)
    any_world.run(1.1)
    assert node.the_running().version == "1.1.0"
    lap(any_world, node, 2)
    assert any_world.output(instance_id) == "new"
    rows = any_world.executions(instance_id)
    assert [row.version for row in rows][:3] == ["1.0.0", "1.1.0", "1.1.0"]
    assert [row.resolution.how for row in rows][1:3] == [ResolvedBy.POLICY, ResolvedBy.POLICY]
    check_rest(any_world, [node.registry])


def test_another_pin_replaces_the_one_that_nobody_can_serve(any_world):
    instance_id, node = waiting_for_nobody(any_world)
    assert isinstance(pin(any_world, instance_id, "1.0.0"), Granted)
    any_world.run(1.1)
    assert node.the_running().version == "1.0.0"
    assert any_world.executions(instance_id)[1].resolution.how is ResolvedBy.PIN


def test_after_a_pin_latest_does_not_go_below_the_version_that_wrote_the_state(any_world):
    node = any_world.node(BOTH, {"work": HOLD})
    instance_id = any_world.start(state=2)
    any_world.run(1)
    pin(any_world, instance_id, "7.0.0")
    any_world.run(1.1)
    lap(any_world, node)
    node.crash()
    any_world.node(OLD, {"work": HOLD})
    any_world.run(60)
    assert isinstance(pin(any_world, instance_id, None), Granted)
    kind = any_world.record(instance_id).row.kind
    assert (kind.version, kind.floating) == ("1.1.0", True), (
        "what 1.1.0 wrote waits for 1.1.0 or higher"
    )


def test_a_version_that_was_named_is_no_operators_to_change(any_world):
    instance_id = any_world.start(state=2, version="3.0.0")
    before = any_world.record(instance_id)
    assert pin(any_world, instance_id, "1.0.0") is None
    after = any_world.record(instance_id)
    assert (after.row.kind, after.execution) == (before.row.kind, before.execution)
    assert pin(any_world, instance_id, None) is None


def test_a_pin_that_comes_between_the_opening_and_its_commit_has_its_way(any_world):
    """Rule 6: ownership is taken away, and what the owner has begun meanwhile is refused."""
    node = any_world.node(BOTH, {"work": HOLD})
    instance_id = any_world.start(state=2)
    outcomes = []
    while any_world.record(instance_id).row.owner is None:
        any_world.clock.skip(1.1)
        node.cycle_once()
    node.store.before_commit = lambda: outcomes.append(pin(any_world, instance_id, "1.0.0"))
    node.cycle_once()
    assert any(
        isinstance(outcome, Refused) for group in node.store.groups for _, outcome in group
    ), "it had begun already"
    any_world.run(2)
    assert [type(outcome) for outcome in outcomes] == [Granted]
    assert node.the_running().version == "1.0.0"
    (row,) = any_world.executions(instance_id)
    assert (row.version, row.resolution.how) == ("1.0.0", ResolvedBy.PIN)


def test_a_write_that_follows_a_pin_is_refused_where_the_execution_has_begun_since_it_was_read(
    any_world,
):
    node = any_world.node(BOTH, {"work": HOLD})
    instance_id = any_world.start(state=2)
    any_world.admin.set_pin(instance_id, "1.0.0", by="operator", reason="")
    change = retargeting(any_world.record(instance_id), any_world.store.catalogue(), "operator")
    any_world.run(1.1)
    assert node.the_running().version == "1.1.0"
    assert any_world.store.commit([change]).outcomes == (Refused(),)
    assert (
        retargeting(any_world.record(instance_id), any_world.store.catalogue(), "operator") is None
    )
    lap(any_world, node)
    assert any_world.versions(instance_id) == ["1.1.0", "1.0.0"]


def test_a_node_that_writes_for_an_operator_drops_what_it_has_in_memory(any_world):
    instance_id, node = waiting_for_nobody(any_world)
    any_world.admin.set_pin(instance_id, None, by="operator", reason="")
    node.submit(retargeting(any_world.record(instance_id), any_world.store.catalogue(), "operator"))
    any_world.run_until_idle()
    assert node.the_running().version == "1.1.0", "what became ready is claimed at once"


def test_a_detached_start_of_a_name_that_nobody_has_waits_for_it_again_after_a_pin(any_world):
    async def starts(ctx, _):
        ctx.start_detached("later", None, instance_id="d")

    node = any_world.node(registry(starts))
    any_world.start()
    any_world.run(1)
    before = any_world.record("d").row.kind
    assert isinstance(pin(any_world, "d", "1.0.0"), Granted)
    assert isinstance(pin(any_world, "d", None), Granted)
    assert any_world.record("d").row.kind == before
    any_world.node(registry("later", v0_1_0=reads_anything))
    any_world.run(2.2)
    assert any_world.output("d") == "anything"
    check_rest(any_world, [node.registry])


def test_two_nodes_with_different_code_share_without_downgrading_or_claiming_what_they_cannot_run(
    any_world,
):
    ancient, modern = any_world.node(OLD, {"work": HOLD}), any_world.node(BOTH, {"work": HOLD})
    any_world.run(1.1)
    ids = [any_world.start(state=4, version="1.0.0" if number % 2 else None) for number in range(8)]
    ancient.engine.look()
    ancient.run_until_idle()
    for _ in range(8):
        any_world.run(1.1)
        for node in (ancient, modern):
            for run in list(node.running.values()):
                assert node.registry.find("job", run.version) is not None
                node.finish(run)
    any_world.run(2)
    assert {run.version for run in ancient.attempts} == {"1.0.0"}
    for instance_id in ids:
        assert any_world.output(instance_id) == "new"
        versions = any_world.versions(instance_id)
        assert versions == sorted(versions), "a downgrade"
    for write in ancient.store.writes:
        assert write.state.owner is None or write.state.kind.version == "1.0.0"
    check_rest(any_world, [BOTH])


def test_a_boundary_to_a_version_of_another_node_leaves_the_next_execution_unopened_for_it(world):
    ancient = world.node(OLD, {"work": HOLD})
    instance_id = world.start(state=1)
    ancient.run_until_idle()
    modern = world.node(BOTH, {"work": HOLD})
    world.run(1.5)
    ancient.store.forget()
    ancient.finish()
    ancient.run_until_idle()
    (write,) = ancient.store.writes
    assert (write.state.owner, write.state.opened, write.state.wake_at) == (None, False, 0)
    assert write.executions[-1].create.version == "1.1.0"
    world.run(1.1)
    assert modern.the_running().version == "1.1.0"
    assert world.versions(instance_id) == ["1.0.0", "1.1.0"]


def test_a_new_build_goes_on_with_what_another_build_of_the_same_version_left(world):
    """Build metadata does not rank; else 1.0.0+<commit> would leave every loop waiting for a build
    that is gone.
    """
    before = world.node(
        OLD.builder().register("job", old, version="1.0.0+a").build(), {"work": HOLD}
    )
    instance_id = world.start(state=3)
    world.run(1)
    lap(world, before)
    before.stop()
    world.node(OLD.builder().register("job", new, version="1.0.0+b").build(), {"work": HOLD})
    finishing = world.node(before.registry, {"work": HOLD})
    world.run(1)
    assert finishing.the_running().version == "1.0.0+a", (
        "the running execution was given other code"
    )
    lap(world, finishing)
    assert world.versions(instance_id) == ["1.0.0+a", "1.0.0+a", "1.0.0+b"]


def test_resolution_prefers_the_build_that_exists(world):
    world.node(OLD.builder().register("job", old, version="1.0.0+b").build())
    catalogue = world.store.catalogue()
    instance_kind = world.start_change().kind
    assert (
        boundary_version(catalogue, instance_kind, "1.0.0+a", explicit=None, pin=None, node="n")[0]
        == "1.0.0+b"
    )
    assert (
        opening_version(
            catalogue, type(instance_kind)("default", "job", "1.0.0+a", 1, floating=True)
        )
        == "1.0.0+b"
    )
    assert (
        opening_version(catalogue, type(instance_kind)("default", "job", "1.0.1", 1, floating=True))
        == "1.0.1"
    )


def test_a_timer_alone_wakes_the_recorded_version_on_a_node_that_has_it(world):
    async def sleeper(ctx, _):
        await ctx.schedule_timer(timedelta(hours=1))
        return ctx.version

    first = world.node(registry(v1_0_0=sleeper))
    instance_id = world.start()
    world.run(1)
    first.crash()
    world.node(registry(v1_1_0=sleeper))
    world.run(4000)
    assert world.status(instance_id) is Status.OPEN
    world.node(registry(v1_0_0=sleeper))
    world.run(1)
    assert world.output(instance_id) == "1.0.0"


def test_latest_does_not_lead_from_a_pre_release_down_to_an_older_release(any_world):
    """Pre-releases are not chosen where releases exist; what runs on one stays there until its
    release comes.
    """
    code = (
        OLD.builder()
        .register("job", old, version="1.0.0")
        .register("job", new, version="2.0.0-rc.1")
        .build()
    )
    node = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start(state=5, version="2.0.0-rc.1")
    any_world.run(1)
    lap(any_world, node)
    assert any_world.versions(instance_id) == ["2.0.0-rc.1", "2.0.0-rc.1"]
    any_world.node(registry(v2_0_0=new), {"work": HOLD})
    any_world.run(2)
    lap(any_world, node)
    assert any_world.versions(instance_id)[-1] == "2.0.0"


# --- a policy that was a mistake ------------------------------------------------------------------


def policy(world, value, instance_id):
    """Set a policy as a client does. Return what became of the write that has a held execution
    follow, if there was one.
    """
    world.set_policy(value)
    change = following(world.record(instance_id), world.store.catalogue(), "operator")
    return None if change is None else world.store.commit([change]).outcomes[0]


def waiting_by_mistake(world, *, code=BOTH, state=3):
    """Return an instance whose second execution waits for 9.0.0, which nobody has, because the
    policy says so.
    """
    node = world.node(code, {"work": HOLD})
    instance_id = world.start(state=state)
    world.run(1)
    world.set_policy(Exact("9.0.0"))
    world.run(1.1)
    lap(world, node)
    row = world.record(instance_id).row
    assert (row.execution, row.opened, row.owner, row.kind.version) == (2, False, None, "9.0.0")
    world.run(30)
    assert world.record(instance_id).row.execution == 2
    return instance_id, node


def test_a_policy_that_is_mended_by_latest_lets_go_on_what_waits_for_the_mistaken_version(
    any_world,
):
    instance_id, node = waiting_by_mistake(any_world)
    assert isinstance(policy(any_world, Latest(), instance_id), Granted)
    any_world.run(1.1)
    assert node.the_running().version == "1.1.0"
    row = any_world.executions(instance_id)[1]
    assert (row.version, row.resolution.how, row.resolution.by) == (
        "1.1.0",
        ResolvedBy.POLICY,
        "operator",
    )
    assert row.resolution.policy_revision == policy_of(any_world.store.catalogue(), "job")[1]
    lap(any_world, node, 3)
    assert any_world.output(instance_id) == "new"
    check_rest(any_world, [node.registry])


def test_a_policy_that_is_mended_by_exact_leads_exactly_there_also_below_what_wrote_the_state(
    any_world,
):
    instance_id, node = waiting_by_mistake(any_world)
    assert isinstance(policy(any_world, Exact("1.0.0"), instance_id), Granted)
    any_world.run(1.1)
    assert node.the_running().version == "1.0.0"
    assert any_world.versions(instance_id) == ["1.1.0", "1.0.0"]


def test_a_policy_that_is_mended_by_latest_leads_to_nothing_below_the_version_that_wrote_the_state(
    any_world,
):
    instance_id, node = waiting_by_mistake(any_world)
    node.crash()
    any_world.node(OLD, {"work": HOLD})
    any_world.run(60)
    assert isinstance(policy(any_world, Latest(), instance_id), Granted)
    kind = any_world.record(instance_id).row.kind
    assert (kind.version, kind.floating) == ("1.1.0", True)
    any_world.run(30)
    assert not any_world.record(instance_id).row.opened, "1.0.0 was given what 1.1.0 wrote"
    back = any_world.node(BOTH, {"work": HOLD})
    any_world.run(2)
    assert back.the_running().version == "1.1.0"


def test_what_waits_by_mistake_goes_on_with_whoever_comes_first_where_nobody_was_there_as_the_policy_was_mended(
    any_world,
):
    instance_id, node = waiting_by_mistake(any_world)
    started = any_world.start_change(version="9.0.0")
    start = replace(started, kind=started.kind._replace(floating=True))
    resolution = replace(start.execution.resolution, how=ResolvedBy.POLICY)
    any_world.store.commit(
        [replace(start, execution=replace(start.execution, resolution=resolution))]
    )
    node.stop()
    for waiting in (instance_id, start.instance_id):
        assert isinstance(policy(any_world, Latest(), waiting), Granted)
    assert any_world.record(instance_id).row.kind.version == "1.1.0"
    node = any_world.node(BOTH, {"work": HOLD})
    any_world.run(2)
    assert sorted(run.key.instance_id for run in node.running.values()) == sorted(
        (instance_id, start.instance_id)
    )


def test_a_held_state_follows_a_policy_down_to_the_version_that_reads_it(any_world):
    node = any_world.node(registry(v1_0_0=reads_anything, v1_1_0=reads_numbers))
    instance_id = any_world.start(state="no number")
    any_world.run(1)
    assert any_world.record(instance_id).row.hold.kind is HoldKind.STATE
    assert isinstance(policy(any_world, Exact("1.0.0"), instance_id), Granted)
    any_world.run(1.1)
    assert any_world.output(instance_id) == "anything"
    check_rest(any_world, [node.registry])


def test_a_policy_that_leads_upwards_leaves_it_to_the_nodes_which_try_by_themselves(any_world):
    any_world.node(registry(v1_0_0=reads_anything, v1_1_0=reads_numbers, v1_2_0=reads_anything))
    any_world.set_policy(Exact("1.1.0"))
    any_world.run(1.1)
    instance_id = any_world.start(state="no number")
    any_world.run(1)
    assert any_world.record(instance_id).held
    revision = any_world.record(instance_id).row.revision
    assert policy(any_world, Latest(), instance_id) is None
    assert any_world.record(instance_id).row.revision == revision
    any_world.run(12)
    assert any_world.output(instance_id) == "anything"
    assert any_world.versions(instance_id) == ["1.2.0"]


def test_no_policy_touches_what_was_pinned_or_named_or_has_begun(any_world):
    pinned, _ = waiting_by_mistake(any_world)
    pin(any_world, pinned, "7.0.0")
    named = any_world.start(state=2, version="8.0.0")
    any_world.set_policy(Latest())
    any_world.run(1.1)
    begun = any_world.start(state=2)
    any_world.run(1.1)
    assert any_world.record(begun).row.opened
    before = [any_world.record(instance_id).row.kind for instance_id in (pinned, named, begun)]
    for value in (Latest(), Exact("1.0.0")):
        assert [
            policy(any_world, value, instance_id) for instance_id in (pinned, named, begun)
        ] == [None] * 3
    assert [
        any_world.record(instance_id).row.kind for instance_id in (pinned, named, begun)
    ] == before


def test_the_same_policy_again_releases_nothing_that_is_held(any_world):
    any_world.node(registry(v1_0_0=reads_anything, v1_1_0=reads_numbers))
    instance_id = any_world.start(state="no number")
    any_world.run(1)
    assert policy(any_world, Latest(), instance_id) is None
    assert policy(any_world, Exact("1.1.0"), instance_id) is None
    assert any_world.record(instance_id).held


def test_what_follows_a_policy_is_refused_where_somebody_has_written_since_it_was_read(any_world):
    instance_id, node = waiting_by_mistake(any_world)
    any_world.set_policy(Latest())
    changes = [
        following(any_world.record(instance_id), any_world.store.catalogue(), by)
        for by in ("one", "another")
    ]
    outcomes = [any_world.store.commit([change]).outcomes[0] for change in changes]
    assert [type(outcome) for outcome in outcomes] == [Granted, Refused]
    any_world.run(1.1)
    assert node.the_running().version == "1.1.0"
    assert following(any_world.record(instance_id), any_world.store.catalogue(), "a third") is None


def test_whoever_has_read_an_older_policy_changes_nothing_that_a_later_one_has_chosen(any_world):
    instance_id, _ = waiting_by_mistake(any_world)
    stale = any_world.store.catalogue()
    assert isinstance(policy(any_world, Exact("1.0.0"), instance_id), Granted)
    assert following(any_world.record(instance_id), stale, "a slow operator") is None


def test_a_node_that_knows_of_the_old_policy_only_opens_what_has_followed_on_the_version_that_it_was_given(
    any_world,
):
    instance_id, node = waiting_by_mistake(any_world)
    node.engine.refresh(replace(node.engine.catalogue, policies={}))  # it goes by Latest()
    before = node.engine.catalogue
    assert isinstance(policy(any_world, Exact("1.0.0"), instance_id), Granted)
    node.engine.look()
    node.cycle_once()
    node.cycle_once()
    assert node.engine.catalogue is before
    any_world.run(2)
    assert node.the_running().version == "1.0.0"


def test_a_node_says_once_that_it_goes_by_a_new_policy_and_not_of_those_that_it_began_with(
    any_world,
):
    any_world.set_policy(Latest())
    node = any_world.node(BOTH)
    said = []
    node.take = lambda messages: said.extend(
        message for message in messages if isinstance(message, PolicyChanged)
    )
    any_world.run(3)
    assert said == []
    any_world.set_policy(Exact("1.0.0"))
    any_world.run(3)
    any_world.set_policy(Latest(), "other")
    any_world.run(3)
    assert said == [PolicyChanged("job"), PolicyChanged("other")]


# --- ranges ---------------------------------------------------------------------------------------


THREE = registry(v1_0_0=old, v1_1_0=old, v2_0_0=new)


def test_a_range_takes_its_highest_living_version_at_starts_and_boundaries(any_world):
    node = any_world.node(THREE, {"work": HOLD})
    any_world.set_policy(Range("^1"))
    by_policy = any_world.start(state=9)
    named = any_world.start(state=9, version="1.0.0")
    any_world.run(2)
    for effect in list(node.running.values()):
        node.finish(effect)
    any_world.run(2)
    assert any_world.versions(by_policy) == ["1.1.0", "1.1.0"]
    assert any_world.versions(named) == ["1.0.0", "1.1.0"]
    check_rest(any_world, [THREE])


def test_what_floats_up_while_it_waits_records_the_policy_that_has_chosen(any_world):
    """Each execution's recorded revision explains its version."""
    any_world.set_policy(Exact("1.0.0"))
    first = any_world.node(registry(v1_0_0=old), {"work": HOLD})
    any_world.run(2)
    instance_id = any_world.start(state=1)
    first.stop()
    any_world.set_policy(Latest())
    any_world.node(registry(v1_1_0=new), {"work": HOLD})
    any_world.run(2)
    row = any_world.record(instance_id).execution
    assert row.version == "1.1.0"
    assert (row.resolution.how, row.resolution.policy_revision) == (ResolvedBy.POLICY, 2)


def test_a_range_never_goes_down_at_a_boundary(any_world):
    node = any_world.node(THREE, {"work": HOLD})
    instance_id = any_world.start(state=9)
    any_world.run(1)
    assert node.the_running().version == "2.0.0"
    any_world.set_policy(Range("^1"))
    any_world.run(2)
    lap(any_world, node)
    assert any_world.versions(instance_id) == ["2.0.0", "2.0.0"]
    check_rest(any_world, [THREE])


def test_a_boundary_stays_on_its_version_while_none_lives_in_the_range(any_world):
    node = any_world.node(THREE, {"work": HOLD})
    instance_id = any_world.start(state=9, version="1.0.0")
    any_world.set_policy(Range("^3"))
    any_world.run(2)
    lap(any_world, node)
    assert any_world.versions(instance_id) == ["1.0.0", "1.0.0"]
    assert any_world.record(instance_id).execution.resolution.policy_revision == 1
    later = any_world.node(registry(v3_0_0=new), {"work": HOLD})
    any_world.run(2)
    lap(any_world, node)
    any_world.run(5)
    assert any_world.versions(instance_id) == ["1.0.0", "1.0.0", "3.0.0"]
    assert later.the_running().version == "3.0.0"


def test_a_pre_release_counts_only_for_a_range_that_names_one(any_world):
    builder = registry(old).builder().register("job", old, version="1.0.0")
    code = builder.register("job", old, version="1.1.0-rc.1").build()
    node = any_world.node(code, {"work": HOLD})
    any_world.set_policy(Range("^1"))
    instance_id = any_world.start(state=9)
    any_world.run(2)
    lap(any_world, node)
    any_world.set_policy(Range(">=1.1.0-rc.1,<2"))
    any_world.run(2)
    lap(any_world, node)
    assert any_world.versions(instance_id) == ["1.0.0", "1.0.0", "1.1.0-rc.1"]


def test_a_start_by_code_waits_until_a_version_in_the_range_lives(any_world):
    any_world.node(registry(v1_0_0=old), {"work": HOLD})
    any_world.set_policy(Range("^2"))
    instance_id = any_world.start(state=0)
    any_world.run(5)
    record = any_world.record(instance_id)
    assert (record.row.opened, record.row.owner) == (False, None)
    assert "in the range '^2' of its policy (registered: 1.0.0)" in hold_reason(
        record, any_world.store.catalogue()
    )
    any_world.node(registry(v2_0_0=new), {"work": HOLD})
    any_world.run(5)
    assert any_world.versions(instance_id) == ["2.0.0"]


def test_an_instance_that_is_unpinned_takes_the_version_of_the_range(any_world):
    instance_id, _ = waiting_for_nobody(any_world)
    any_world.set_policy(Range("^1"))
    assert isinstance(pin(any_world, instance_id, None), Granted)
    any_world.run(2)
    assert any_world.versions(instance_id)[-1] == "1.1.0"
