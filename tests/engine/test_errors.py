"""Code that raises: declared failures end its instance, all else holds it, and no end is lost (rule
39, scenario 55).
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestra.activities import Activity
from orchestra.context import Limits
from orchestra.engine.engine import EngineOptions
from orchestra.errors import ActivityFailed, Cancelled, Failure
from orchestra.events import ActivityFailedEvent, TimerFired
from orchestra.fingerprint import limited_fingerprint
from orchestra.registry import OrchestrationRegistry
from orchestra.retry import NO_RETRY, RetryPolicy
from orchestra.store.changes import Release, Write
from orchestra.store.kinds import HoldKind, Status
from tests.support.harness import HOLD, SECOND, check_instance, check_rest, registry, several


class PaymentRefused(Exception):
    pass


class Expected(Failure):
    pass


def hold_of(world, instance_id):
    record = world.record(instance_id)
    assert record.held, record.status
    return record.row.hold


def release(world, instance_id):
    row = world.record(instance_id).row
    world.store.commit([Release(instance_id, row.incarnation, row.revision)])


def names_of(node):
    return [run.name for run in node.attempts]


TWICE = Activity.named(
    "work", retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(seconds=1), jitter=0.0)
)


async def charges(ctx, _):
    receipt = await ctx.schedule_activity("charge")
    return {}[receipt]


async def charges_well(ctx, _):
    return await ctx.schedule_activity("charge")


# --- what holds, and what fails ---


def test_an_undeclared_error_holds_the_instance_and_names_type_message_line_and_version(any_world):
    node = any_world.node(registry(charges), {"charge": lambda run: "receipt-1"})
    instance_id = any_world.start()
    any_world.run(1)
    hold = hold_of(any_world, instance_id)
    line = charges.__code__.co_firstlineno + 2
    assert hold.kind is HoldKind.ERROR
    assert hold.detail == f"KeyError: 'receipt-1' (at {__file__}:{line} in charges, version 1.0.0)"
    assert hold.tried == hold.at_fault == (node.registry.fingerprint("job", "1.0.0"),)
    assert any_world.kinds(instance_id) == ["EXECUTION_STARTED", "ACTIVITY_SCHEDULED"]
    assert any_world.record(instance_id).row.owner is None


def test_an_instance_that_is_held_for_an_error_costs_nothing(any_world):
    node = any_world.node(registry(charges), {"charge": lambda run: 1})
    instance_id = any_world.start()
    any_world.run(1)
    revision = any_world.record(instance_id).row.revision
    node.store.forget()
    for _ in range(3):
        any_world.send(instance_id)
        any_world.run(15)
    assert any_world.record(instance_id).row.revision == revision
    assert node.store.writes == []
    assert len(node.attempts) == 1


@pytest.mark.parametrize(
    "error",
    [
        KeyError("price"),
        RuntimeError(),
        SystemExit(3),
        ExceptionGroup("two", [Failure(), KeyError(1)]),
    ],
)
def test_an_error_in_the_first_turn_holds_what_has_not_begun(world, error):
    async def job(ctx, _):
        raise error

    world.node(registry(job))
    instance_id = world.start()
    world.run(1)
    assert hold_of(world, instance_id).kind is HoldKind.ERROR
    assert not world.record(instance_id).row.opened
    fixed = world.node(registry(v1_0_0=job, v1_0_1=charges_well), {"charge": lambda run: 1})
    world.run(2)
    assert world.output(instance_id) == 1, (
        "a higher version is chosen again for what has not begun (rule 16)"
    )
    check_rest(world, [fixed.registry])


@pytest.mark.parametrize(
    "error",
    [
        Failure("no"),
        Expected("no"),
        Cancelled("no"),
        PaymentRefused("no"),
        ExceptionGroup("two", [Failure("no"), ExceptionGroup("in it", [PaymentRefused("no")])]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_declared_failure_ends_the_instance(any_world, error):
    async def job(ctx, _):
        await ctx.schedule_activity("charge")
        raise error

    declared = (
        OrchestrationRegistry.builder().register("job", job, failures=(PaymentRefused,)).build()
    )
    any_world.node(declared, {"charge": lambda run: 1})
    instance_id = any_world.start()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.FAILED
    check_rest(any_world, [declared])


def test_a_failed_activity_that_is_not_caught_fails_the_instance(any_world):
    async def job(ctx, _):
        async with ctx.task_group() as group:
            group.create_task(work(ctx))

    async def work(ctx):
        await ctx.schedule_activity(Activity.named("work", retry=NO_RETRY))

    node = any_world.node(registry(job), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node.fail()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.FAILED


def test_everything_is_a_failure_where_the_registration_says_so(any_world):
    declared = (
        OrchestrationRegistry.builder().register("job", charges, failures=(Exception,)).build()
    )
    any_world.node(declared, {"charge": lambda run: 1})
    instance_id = any_world.start()
    any_world.run(1)
    assert any_world.status(instance_id) is Status.FAILED


def test_naming_the_error_in_the_registration_releases_what_it_has_held(any_world):
    node = any_world.node(registry(charges), {"charge": lambda run: 1})
    instance_id = any_world.start()
    any_world.run(1)
    node.crash()
    declared = (
        OrchestrationRegistry.builder().register("job", charges, failures=(KeyError,)).build()
    )
    any_world.node(declared, {"charge": HOLD})
    any_world.run(2)
    assert any_world.status(instance_id) is Status.FAILED


def test_an_execution_over_its_limits_is_held_until_they_are_raised(any_world):
    async def grows(ctx, _):
        for _ in range(10):
            await ctx.schedule_activity("grow")
        return "grown"

    limits = Limits(max_events=6)
    node = any_world.node(registry(grows), {"grow": lambda run: 1}, limits=limits)
    instance_id = any_world.start()
    any_world.run(1)
    hold = hold_of(any_world, instance_id)
    code = node.registry.fingerprint("job", "1.0.0")
    assert hold.kind is HoldKind.LIMIT
    assert "continue_as_new_suggested" in hold.detail
    assert hold.tried == (limited_fingerprint(code, 6, limits.max_bytes),)
    done = len(node.attempts)
    node.crash()
    any_world.node(registry(grows), {"grow": HOLD}, limits=limits)
    any_world.run(15)
    assert hold_of(any_world, instance_id) == hold, (
        "the same code was tried again under the same limits"
    )
    raised = any_world.node(registry(grows), {"grow": lambda run: 1})
    any_world.run(2)
    assert any_world.output(instance_id) == "grown"
    assert done + len(raised.attempts) == 10


# --- what had ended never runs again ---


@pytest.mark.parametrize("attempts", [1, 3])
def test_what_had_ended_in_the_turn_that_held_is_not_run_again_by_the_same_node(
    any_world, attempts
):
    node = any_world.node(registry(charges), {"charge": lambda run: "receipt-1"})
    instance_id = any_world.start()
    any_world.run(1)
    for _ in range(attempts):
        before = hold_of(any_world, instance_id).since
        release(any_world, instance_id)
        any_world.run(2)
        assert hold_of(any_world, instance_id).since > before, (
            "it was not tried again, or this test says nothing"
        )
    assert names_of(node) == ["charge"]
    check_instance(any_world, instance_id, [node.registry])


@pytest.mark.parametrize("ends", ["stops", "crashes"])
def test_what_had_ended_is_not_run_again_by_other_code_on_another_node(any_world, ends):
    node = any_world.node(registry(charges), {"charge": lambda run: "receipt-1"})
    instance_id = any_world.start()
    any_world.run(1)
    node.crash() if ends == "crashes" else node.stop()
    fixed = any_world.node(registry(charges_well), {"charge": HOLD})
    any_world.run(2)
    assert any_world.output(instance_id) == "receipt-1"
    assert fixed.attempts == []
    check_rest(any_world, [fixed.registry])


def test_all_ends_of_one_turn_are_kept_in_their_order(any_world):
    async def job(ctx, _):
        order = []

        async def one(name):
            order.append(await ctx.schedule_activity(name))

        await ctx.gather(*(one(name) for name in ("a", "b", "c")))
        raise LookupError(str(order))

    async def mended(ctx, _):
        order = []

        async def one(name):
            order.append(await ctx.schedule_activity(name))

        await ctx.gather(*(one(name) for name in ("a", "b", "c")))
        return order

    node = any_world.node(registry(job), {"a": HOLD, "b": HOLD, "c": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    for name in ("c", "a", "b"):
        node.finish(node.the_running(name), name)
    any_world.run(1)
    assert "['c', 'a', 'b']" in hold_of(any_world, instance_id).detail
    node.crash()
    fixed = any_world.node(registry(mended), {"a": HOLD, "b": HOLD, "c": HOLD})
    any_world.run(2)
    assert any_world.output(instance_id) == ["c", "a", "b"]
    assert fixed.attempts == []
    check_rest(any_world, [fixed.registry])


def test_an_end_that_came_before_a_timer_still_comes_before_it_after_a_long_hold(any_world):
    async def job(ctx, _):
        won = await ctx.race(
            ctx.schedule_activity("work"), ctx.schedule_timer(timedelta(minutes=1))
        )
        return {}[won.index]

    async def mended(ctx, _):
        won = await ctx.race(
            ctx.schedule_activity("work"), ctx.schedule_timer(timedelta(minutes=1))
        )
        return won.index

    node = any_world.node(registry(job), {"work": lambda run: 1})
    instance_id = any_world.start()
    any_world.run(600)
    node.crash()
    any_world.node(registry(mended), {"work": HOLD})
    any_world.run(2)
    assert any_world.output(instance_id) == 0


def test_a_final_failure_is_kept_with_its_attempts(any_world):
    async def job(ctx, _):
        try:
            await ctx.schedule_activity(TWICE)
        except ActivityFailed as error:
            return {}[error.reason]

    async def mended(ctx, _):
        try:
            await ctx.schedule_activity(TWICE)
        except ActivityFailed as error:
            return [
                error.reason,
                error.tries,
                [attempt.ended_at.isoformat() for attempt in error.attempts],
            ]

    node = any_world.node(registry(job), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(0.1)
    node.fail()
    any_world.run(1.5)
    node.fail()
    any_world.run(0.5)
    assert hold_of(any_world, instance_id).kind is HoldKind.ERROR
    any_world.run(100)
    node.crash()
    fixed = any_world.node(registry(mended), {"work": HOLD})
    any_world.run(2)
    reason, attempts, ended = any_world.output(instance_id)
    assert (reason, attempts) == ("attempts exhausted", 2)
    assert ended[0] < ended[1]
    (failed,) = [
        event for event in any_world.events(instance_id) if isinstance(event, ActivityFailedEvent)
    ]
    assert failed.at - round(failed.attempts[1].ended_at.timestamp() * 1e6) > 90 * SECOND, (
        "the last attempt ended later"
    )
    assert fixed.attempts == []


def test_a_childs_end_is_kept(any_world):
    async def parent(ctx, _):
        return {}[await ctx.start_child("kid", instance_id="kid")]

    async def mended(ctx, _):
        return await ctx.start_child("kid", instance_id="kid")

    async def kid(ctx, _):
        return await ctx.schedule_activity("work")

    node = any_world.node(several(parent=parent, kid=kid), {"work": lambda run: "done"})
    instance_id = any_world.start("parent")
    any_world.run(1)
    for _ in range(2):
        assert hold_of(any_world, instance_id).kind is HoldKind.ERROR
        release(any_world, instance_id)
        any_world.run(2)
    node.crash()
    fixed = any_world.node(several(parent=mended, kid=kid), {"work": HOLD})
    any_world.run(2)
    assert any_world.output(instance_id) == "done"
    assert fixed.attempts == []
    assert any_world.executions("kid")[-1].number == 1
    check_rest(any_world, [fixed.registry])


def test_messages_stay_unread_and_are_delivered_in_their_order(any_world):
    async def job(ctx, _):
        first = await ctx.wait_for_event("go")
        second = await ctx.wait_for_event("go")
        return {}[first, second]

    async def mended(ctx, _):
        return [
            await ctx.wait_for_event("go"),
            await ctx.wait_for_event("go"),
            await ctx.wait_for_event("go"),
        ]

    node = any_world.node(registry(job))
    instance_id = any_world.start()
    any_world.run(1)
    any_world.store.commit(
        [
            any_world.append_change(instance_id, value=1),
            any_world.append_change(instance_id, value=2),
        ]
    )
    any_world.run(1)
    assert hold_of(any_world, instance_id).kind is HoldKind.ERROR
    assert any_world.record(instance_id).unread_messages == 2
    any_world.send(instance_id, value=3)
    node.crash()
    any_world.node(registry(mended))
    any_world.run(2)
    assert any_world.output(instance_id) == [1, 2, 3]


# --- what runs while the instance is held ---


async def two_branches(ctx, _):
    async def first():
        raise LookupError(await ctx.schedule_activity("first"))

    return await ctx.gather(first(), ctx.schedule_activity("second"))


async def two_branches_mended(ctx, _):
    async def first():
        return await ctx.schedule_activity("first")

    return await ctx.gather(first(), ctx.schedule_activity("second"))


def held_with_one_running(world, **options):
    node = world.node(registry(two_branches), {"first": HOLD, "second": HOLD}, **options)
    instance_id = world.start()
    world.run(1)
    node.finish(node.the_running("first"), 1)
    world.run(1)
    assert hold_of(world, instance_id).kind is HoldKind.ERROR
    return instance_id, node


def test_what_runs_when_the_instance_is_held_runs_on_and_its_end_is_kept(any_world):
    instance_id, node = held_with_one_running(any_world)
    assert node.aborted == []
    node.beat("half")
    any_world.run(1)
    assert {
        activity.event_id: activity.owner for activity in any_world.record(instance_id).activities
    }[2] == node.node_id
    node.finish(node.the_running("second"), 2)
    any_world.run(1)
    assert hold_of(any_world, instance_id).kind is HoldKind.ERROR
    node.stop()
    fixed = any_world.node(registry(two_branches_mended), {"first": HOLD, "second": HOLD})
    any_world.run(2)
    assert any_world.output(instance_id) == [1, 2]
    assert fixed.attempts == []
    check_rest(any_world, [fixed.registry])


def test_what_runs_on_is_not_begun_again_by_code_that_goes_on_meanwhile(any_world):
    instance_id, node = held_with_one_running(any_world)
    node.engine.stop_claiming()
    fixed = any_world.node(registry(two_branches_mended), {"first": HOLD, "second": HOLD})
    any_world.run(12)
    assert not any_world.record(instance_id).held
    assert any_world.status(instance_id) is Status.OPEN
    node.finish(node.the_running("second"), 2)
    any_world.run(3)
    assert any_world.output(instance_id) == [1, 2]
    assert (sorted(names_of(node)), names_of(fixed)) == (["first", "second"], [])
    check_rest(any_world, [fixed.registry])


def test_what_runs_on_and_fails_is_tried_again_once_the_instance_goes_on(any_world):
    instance_id, node = held_with_one_running(any_world)
    node.fail(node.the_running("second"))
    any_world.run(5)
    assert node.running == {}
    node.stop()
    any_world.node(
        registry(two_branches_mended), {"first": HOLD, "second": lambda run: run.attempt}
    )
    any_world.run(60)
    assert any_world.output(instance_id) == [1, 2]


def test_what_runs_on_is_lost_with_its_node_and_tried_again(any_world):
    instance_id, node = held_with_one_running(any_world)
    node.crash()
    fixed = any_world.node(
        registry(two_branches_mended), {"first": HOLD, "second": lambda run: run.attempt}
    )
    any_world.run(60)
    assert any_world.output(instance_id) == [1, 2]
    assert names_of(fixed) == ["second"]
    check_rest(any_world, [fixed.registry])


def test_the_end_of_the_instance_aborts_what_runs_on(any_world):
    instance_id, node = held_with_one_running(any_world)
    any_world.terminate(instance_id)
    any_world.run(3)
    assert any_world.status(instance_id) is Status.TERMINATED
    assert node.running == {}
    assert node.engine.running == 0
    check_rest(any_world)


def test_an_end_on_another_node_is_kept_whether_it_came_before_the_hold_or_after(any_world):
    async def job(ctx, _):
        async def first():
            raise LookupError(await ctx.schedule_activity(Activity.named("first", queue="far")))

        return await ctx.gather(
            first(), ctx.schedule_activity(Activity.named("second", queue="far"))
        )

    async def mended(ctx, _):
        async def first():
            return await ctx.schedule_activity(Activity.named("first", queue="far"))

        return await ctx.gather(
            first(), ctx.schedule_activity(Activity.named("second", queue="far"))
        )

    worker = any_world.node(several(), {"first": HOLD, "second": HOLD}, queues=("far",))
    node = any_world.node(registry(job))
    instance_id = any_world.start()
    any_world.run(2)
    worker.finish(worker.the_running("first"), 1)
    any_world.run(2)
    assert hold_of(any_world, instance_id).kind is HoldKind.ERROR
    release(any_world, instance_id)
    any_world.run(2)
    assert hold_of(any_world, instance_id).kind is HoldKind.ERROR
    worker.finish(worker.the_running("second"), 2)
    any_world.run(2)
    node.crash()
    any_world.node(registry(mended))
    any_world.run(2)
    assert any_world.output(instance_id) == [1, 2]
    assert sorted(names_of(worker)) == ["first", "second"]


# --- the same for other holds, and for replies that are lost ---


@pytest.mark.parametrize("fate", ["lost before", "lost after", "odd"])
def test_what_had_ended_is_kept_whatever_becomes_of_the_write_that_holds(any_world, fate):
    node = any_world.node(registry(two_branches), {"first": HOLD, "second": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node.finish(node.the_running("first"), 1)
    node.store.replies.append(fate)
    any_world.run(3)
    assert hold_of(any_world, instance_id).kind is HoldKind.ERROR
    node.finish(node.the_running("second"), 2)
    any_world.run(3)
    node.stop()
    fixed = any_world.node(registry(two_branches_mended), {"first": HOLD, "second": HOLD})
    any_world.run(2)
    assert any_world.output(instance_id) == [1, 2]
    assert names_of(node).count("first") == 1
    assert fixed.attempts == []


def test_what_had_ended_is_kept_where_the_store_refuses_the_turn(any_world):
    async def job(ctx, _):
        await ctx.schedule_activity("charge")
        return await ctx.schedule_activity("rest")

    node = any_world.node(registry(job), {"charge": HOLD, "rest": lambda run: "rested"})
    instance_id = any_world.start()
    any_world.run(1)
    node.store.poisonous = lambda change: isinstance(change, Write) and bool(change.executions)
    node.finish(value=1)
    any_world.run(1)
    assert hold_of(any_world, instance_id).kind is HoldKind.STORE
    node.store.poisonous = lambda change: False
    release(any_world, instance_id)
    any_world.run(2)
    assert any_world.output(instance_id) == "rested"
    assert names_of(node) == ["charge", "rest"]
    check_rest(any_world, [node.registry])


def test_an_end_that_the_store_will_not_keep_does_not_keep_the_instance_from_being_held(any_world):
    async def job(ctx, _):
        return await ctx.schedule_activity("charge")

    node = any_world.node(registry(job), {"charge": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node.store.poisonous = lambda change: (
        isinstance(change, Write)
        and bool(
            change.executions or any(activity.result is not None for activity in change.activities)
        )
    )
    node.finish(value=1)
    any_world.run(2)
    assert hold_of(any_world, instance_id).kind is HoldKind.STORE


def test_what_had_ended_is_kept_where_the_engine_failed(any_world, monkeypatch):
    from orchestra.engine.steps.stepper import Stepper

    node = any_world.node(registry(charges_well), {"charge": HOLD})
    instance_id = any_world.start()
    any_world.run(1)

    def fails(*_):
        raise ZeroDivisionError("a fault of the engine")

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "_complete_activities", fails)
        node.finish(value="receipt-1")
        any_world.run(1)
    assert hold_of(any_world, instance_id).kind is HoldKind.INTERNAL
    release(any_world, instance_id)
    any_world.run(2)
    assert any_world.output(instance_id) == "receipt-1"
    assert names_of(node) == ["charge"]


def test_kept_ends_outlive_code_that_cannot_replay(any_world):
    async def other(ctx, _):
        await ctx.schedule_activity("other")

    node = any_world.node(registry(charges), {"charge": lambda run: "receipt-1"})
    instance_id = any_world.start()
    any_world.run(1)
    node.crash()
    worse = any_world.node(registry(other), {"charge": HOLD, "other": HOLD})
    any_world.run(2)
    assert hold_of(any_world, instance_id).kind is HoldKind.NONDETERMINISM
    worse.crash()
    fixed = any_world.node(registry(charges_well), {"charge": HOLD})
    any_world.run(2)
    assert any_world.output(instance_id) == "receipt-1"
    assert fixed.attempts == []


def test_a_hold_in_a_later_lap_of_the_same_write_keeps_the_laps_before_it(any_world):
    async def job(ctx, lap):
        if lap == 3:
            raise LookupError(lap)
        await ctx.schedule_activity("work") if lap == 0 else None
        ctx.continue_as_new(lap + 1)

    async def mended(ctx, lap):
        return lap

    node = any_world.node(registry(job), {"work": lambda run: 1})
    instance_id = any_world.start(state=0)
    any_world.run(1)
    assert hold_of(any_world, instance_id).kind is HoldKind.ERROR
    assert len(any_world.executions(instance_id)) == 4
    node.crash()
    fixed = any_world.node(registry(mended))
    any_world.run(2)
    assert any_world.output(instance_id) == 3
    check_rest(any_world, [fixed.registry])


# --- values that code gives otherwise now ---


def waits_for(minutes, argument):
    async def job(ctx, _):
        done = await ctx.schedule_activity("work", argument)
        await ctx.schedule_timer(timedelta(minutes=minutes))
        return done

    return job


@pytest.mark.slow
def test_changed_values_hold_nothing_and_are_said_once_for_each_line(any_world, caplog):
    """Scenario 45."""
    node = any_world.node(registry(waits_for(60, "old")), {"work": lambda run: "done"})
    first, second = any_world.start(), any_world.start()
    any_world.run(30)
    node.crash()
    for _ in range(3):
        changed = any_world.node(
            registry(waits_for(30, "new")), {"work": HOLD}, options=EngineOptions(cached=0)
        )
        any_world.send(first)
        any_world.send(second)
        any_world.run(60)
        changed.stop()
    told = [
        record.getMessage()
        for record in caplog.records
        if "gives another value" in record.getMessage()
    ]
    assert len(told) == 6, "two lines of code, and three nodes"
    assert sum("activity 'work': other arguments" in line for line in told) == 3
    assert sum("due -1800 s from the recorded time" in line for line in told) == 3
    any_world.node(registry(waits_for(30, "new")), {"work": HOLD})
    any_world.run(3_600)
    for instance_id in (first, second):
        assert any_world.output(instance_id) == "done"
        (timer,) = [
            event for event in any_world.events(instance_id) if isinstance(event, TimerFired)
        ]
        assert timer.at >= any_world.record(instance_id).created_at + 3_600 * SECOND, (
            "the recorded time counts"
        )
