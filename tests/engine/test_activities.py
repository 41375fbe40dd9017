"""Attempts: what counts as one, over failures, crashes and restarts (rule 14)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestra.activities import Activity
from orchestra.errors import ActivityFailed
from orchestra.retry import NonRetryable, RetryPolicy
from orchestra.store.kinds import ExecutionEnd, Status
from orchestra.store.routes import Route
from tests.support.harness import HOLD, SECOND, check_rest, registry


def asking(retry):
    work = Activity.named("work", retry=retry)

    async def asks(ctx, _):
        try:
            return await ctx.schedule_activity(work)
        except ActivityFailed as failed:
            return [
                failed.reason,
                [attempt.number for attempt in failed.attempts],
                failed.cause.message,
            ]

    return registry(asks)


QUICK = RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=1), jitter=0)
SLOW = RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=20), factor=1, jitter=0)
ENDLESS = RetryPolicy(max_attempts=None, initial_interval=timedelta(seconds=1), jitter=0)


def takeover(world, node, code, **options):
    """Let a node die, and another one find that out and take over."""
    node.crash()
    heir = world.node(code, node.activities, **options)
    world.run(13)
    return heir


def test_a_failed_activity_is_tried_again_after_its_interval_and_not_before(any_world):
    node = any_world.node(asking(QUICK), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node.fail()
    any_world.run(0.99)
    assert not node.running
    any_world.run(0.02)
    assert node.the_running().attempt == 2
    node.fail()
    any_world.run(1.99)
    assert not node.running
    any_world.run(0.02)
    node.finish(value="third time")
    any_world.run(1)
    assert any_world.output(instance_id) == "third time"
    check_rest(any_world, [node.registry])


def test_attempts_are_exhausted_with_every_one_named(any_world):
    node = any_world.node(asking(QUICK), {"work": HOLD})
    instance_id = any_world.start()
    for number in range(3):
        any_world.run(3)
        node.fail(error=RuntimeError(f"failure {number}"))
    any_world.run(1)
    assert any_world.output(instance_id) == ["attempts exhausted", [1, 2, 3], "failure 2"]


def test_the_error_counts_all_tries_and_keeps_the_last_twenty(any_world):
    often = RetryPolicy(max_attempts=23, initial_interval=timedelta(seconds=1), factor=1, jitter=0)

    async def asks(ctx, _):
        try:
            return await ctx.schedule_activity(Activity.named("work", retry=often))
        except ActivityFailed as failed:
            return [str(failed), failed.tries, [attempt.number for attempt in failed.attempts]]

    code = registry(asks)
    node = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node = takeover(any_world, node, code)  # one
    for _ in range(22):
        node.fail(error=RuntimeError("boom"))
        any_world.run(1.1)
    text = "activity 'work' failed after 23 attempts (attempts exhausted): RuntimeError: boom"
    assert any_world.output(instance_id) == [text, 23, list(range(4, 24))]
    check_rest(any_world, [code])


@pytest.mark.parametrize("how", ["class", "policy", "base class"])
def test_an_error_that_is_not_retryable_ends_it_at_once(world, how):
    names = {"class": (), "policy": (KeyError,), "base class": ("LookupError",)}[how]
    error = NonRetryable("useless") if how == "class" else KeyError("useless")
    policy = RetryPolicy(max_attempts=9, non_retryable=names)
    node = world.node(asking(policy), {"work": HOLD})
    instance_id = world.start()
    world.run(1)
    node.fail(error=error)
    world.run(60)
    assert world.output(instance_id)[:2] == ["not retryable", [1]]
    assert len(node.attempts) == 1


def test_no_try_begins_behind_the_deadline(world):
    policy = RetryPolicy(
        max_attempts=None,
        initial_interval=timedelta(seconds=4),
        factor=1,
        jitter=0,
        deadline=timedelta(seconds=10),
    )
    node = world.node(asking(policy), {"work": HOLD})
    instance_id = world.start()
    world.run_until_idle()
    for _ in range(3):
        node.fail()
        world.run(4.001)
    assert [run.attempt for run in node.attempts] == [1, 2, 3]
    assert world.output(instance_id)[0] == "deadline reached"


def test_no_try_begins_behind_the_deadline_after_a_crash_either(any_world):
    code = asking(RetryPolicy(max_attempts=None, deadline=timedelta(seconds=5)))
    node = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    heir = takeover(any_world, node, code)
    assert heir.attempts == []
    assert any_world.output(instance_id)[:2] == ["deadline reached", [1]]


def test_attempts_survive_an_orderly_restart_and_the_wait_goes_on(any_world):
    code = asking(SLOW)
    node = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node.fail()
    any_world.run(5)
    node.stop()
    heir = any_world.node(code, {"work": HOLD})
    any_world.run(14.9)
    assert heir.attempts == []
    any_world.run(1)
    assert heir.the_running().attempt == 2
    heir.stop()
    third = any_world.node(code, {"work": HOLD})
    any_world.run(1)
    assert third.the_running().attempt == 2, "an orderly stop counted as a crash"
    third.finish(value="x")
    any_world.run(1)
    assert any_world.output(instance_id) == "x"
    check_rest(any_world, [code])


def test_a_crash_counts_as_an_attempt_of_what_ran(any_world):
    code = asking(QUICK)
    node = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    assert node.the_running().attempt == 1
    second = takeover(any_world, node, code)
    assert second.the_running().attempt == 2
    assert any_world.record(instance_id).row.takeovers == 1
    third = takeover(any_world, second, code)
    assert third.the_running().attempt == 3
    fourth = takeover(any_world, third, code)
    any_world.run(20)
    assert fourth.attempts == []
    reason, numbers, cause = any_world.output(instance_id)
    assert (reason, numbers) == ("attempts exhausted", [1, 2, 3])
    assert "lost" in cause
    check_rest(any_world, [code])


def test_failures_crashes_and_restarts_count_together(any_world):
    code = asking(RetryPolicy(max_attempts=6, initial_interval=timedelta(seconds=1), jitter=0))
    node = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node.fail(error=RuntimeError("one"))
    any_world.run(1.1)
    node = takeover(any_world, node, code)  # two
    assert node.the_running().attempt == 3
    node.stop()  # counts nothing
    node = any_world.node(code, {"work": HOLD})
    any_world.run(2)
    assert node.the_running().attempt == 3
    node.fail(error=RuntimeError("three"))
    any_world.run(4.1)
    node = takeover(any_world, node, code)  # four
    node.fail(error=RuntimeError("five"))
    any_world.run(20)
    assert node.the_running().attempt == 6
    node.fail(error=RuntimeError("six"))
    any_world.run(1)
    assert any_world.output(instance_id) == ["attempts exhausted", [1, 2, 3, 4, 5, 6], "six"]
    check_rest(any_world, [code])


def test_a_crash_while_the_next_try_waits_counts_nothing(any_world):
    async def both(ctx, _):
        return await ctx.gather(
            ctx.schedule_activity(
                Activity.named(
                    "work",
                    retry=RetryPolicy(
                        max_attempts=3, initial_interval=timedelta(minutes=1), jitter=0
                    ),
                )
            ),
            ctx.schedule_activity("steady"),
        )

    code = registry(both)
    node = any_world.node(code, {"work": HOLD, "steady": HOLD})
    any_world.start()
    any_world.run(1)
    node.fail(node.the_running("work"))
    any_world.run(1)
    heir = takeover(any_world, node, code)
    assert heir.the_running().name == "steady"
    assert heir.the_running().attempt == 2
    any_world.run(60)
    assert heir.the_running("work").attempt == 2


def test_a_turn_resets_the_takeovers_and_the_attempts_stay(any_world):
    async def both(ctx, _):
        waits = ctx.wait_for_event("go")
        value = await ctx.schedule_activity(Activity.named("work", retry=ENDLESS))
        return [value, await waits]

    code = registry(both)
    node = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node = takeover(any_world, node, code)
    assert any_world.record(instance_id).row.takeovers == 1
    any_world.send(instance_id, value="hello")
    any_world.run(1.1)
    assert any_world.record(instance_id).row.takeovers == 0
    assert node.the_running().attempt == 2
    node = takeover(any_world, node, code)
    assert any_world.record(instance_id).row.takeovers == 1
    assert node.the_running().attempt == 3, "an attempt was counted twice, or not at all"
    node.finish(value=1)
    any_world.run(1)
    assert any_world.output(instance_id) == [1, "hello"]
    check_rest(any_world, [code])


def test_from_the_third_crash_on_the_instance_waits_longer_each_time(any_world):
    code = asking(ENDLESS)
    node = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    for _ in range(2):
        node = takeover(any_world, node, code)
        assert len(node.running) == 1
    node.crash()
    node = any_world.node(code, {"work": HOLD})
    while any_world.record(instance_id).row.takeovers < 3:
        any_world.run(0.5)
    assert any_world.record(instance_id).row.wake_at - any_world.clock.now() > 7 * SECOND
    any_world.run(6)
    assert node.attempts == []
    any_world.run(4)
    assert node.the_running().attempt == 4


def test_a_heartbeat_is_given_to_the_next_try_after_a_failure_and_after_a_crash(any_world):
    code = asking(ENDLESS)
    node = any_world.node(code, {"work": HOLD})
    any_world.start()
    any_world.run(1)
    node.beat({"page": 1})
    any_world.run(1)
    node.beat({"page": 2})
    any_world.run(1)
    node = takeover(any_world, node, code)
    assert node.the_running().last_heartbeat.data == b'{"page":2}'
    node.fail(heartbeat={"page": 3})
    any_world.run(10)
    assert node.the_running().last_heartbeat.data == b'{"page":3}'
    assert node.the_running().attempt == 3


def test_a_heartbeat_of_an_attempt_that_is_over_is_ignored(world):
    code = asking(ENDLESS)
    node = world.node(code, {"work": HOLD})
    world.start()
    world.run(1)
    old = node.the_running()
    node.fail()
    world.run(1.1)
    node.beat("late", old)
    world.run(1)
    node.fail()
    world.run(10)
    assert node.the_running().last_heartbeat is None


def test_a_node_without_the_activity_consumes_no_attempts_and_another_one_runs_it(any_world):
    code = asking(RetryPolicy(max_attempts=1))
    lacking = any_world.node(code)
    instance_id = any_world.start()
    any_world.run(70)
    assert any_world.status(instance_id) is Status.OPEN
    assert lacking.attempts == []
    (row,) = any_world.record(instance_id).activities
    assert (row.route, row.owner, row.attempt) == (Route("default", "work"), None, 1)
    lacking.stop()
    able = any_world.node(code, {"work": HOLD})
    any_world.run(2)
    able.finish(value="done")
    any_world.run(1)
    assert any_world.output(instance_id) == "done"
    check_rest(any_world, [code])


def test_rows_of_settled_activities_are_gone(any_world):
    code = asking(QUICK)
    node = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node.fail(heartbeat=1)
    any_world.run(0.5)
    assert len(any_world.record(instance_id).activities) == 1
    any_world.run(1)
    node.finish()
    any_world.run(1)
    assert any_world.record(instance_id).activities == ()


def test_the_row_of_a_race_s_loser_is_gone(any_world):
    async def races(ctx, _):
        await ctx.race(
            ctx.schedule_activity(Activity.named("work", retry=SLOW)), ctx.wait_for_event("go")
        )
        await ctx.wait_for_event("end")

    node = any_world.node(registry(races), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    node.fail()
    any_world.run(1)
    assert len(any_world.record(instance_id).activities) == 1
    any_world.send(instance_id)
    any_world.run(1.1)
    assert any_world.record(instance_id).activities == ()
    any_world.run(60)
    assert len(node.attempts) == 1
    check_rest(any_world, [node.registry])


def test_a_retry_does_not_begin_before_its_attempt_is_stored(world):
    """Else a crash loop would go on for ever: each start of the node would begin the same attempt."""
    code = asking(QUICK)
    node = world.node(code, {"work": HOLD})
    world.start()
    world.run(1)
    node.fail()
    world.run(0.5)
    (write,) = [write for write in node.store.writes if write.activities]
    assert write.activities[0].attempt == 2
    assert len(node.attempts) == 1


def test_a_try_that_ends_in_order_after_crashes_ends_the_crash_loop(any_world):
    patient = RetryPolicy(
        max_attempts=None,
        initial_interval=timedelta(hours=1),
        max_interval=timedelta(hours=1),
        jitter=0,
    )

    async def both(ctx, _):
        work = ctx.schedule_activity(Activity.named("work", retry=patient))
        return await ctx.race(work, ctx.wait_for_event("go"))

    code = registry(both)
    node = any_world.node(code, {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    for _ in range(2):
        node = takeover(any_world, node, code)
    node.crash()
    node = any_world.node(code, {"work": HOLD})
    while any_world.record(instance_id).row.takeovers < 3:
        any_world.run(0.5)
    any_world.run(10)
    # the fourth attempt survives, and fails in the ordinary way; the next one is due in an hour
    node.fail()
    any_world.run(1)
    assert any_world.record(instance_id).row.takeovers == 0
    any_world.send(instance_id)
    any_world.run(2)
    assert any_world.status(instance_id) is Status.COMPLETED, (
        "a message waits for a delay that is over"
    )
    check_rest(any_world, [code])


def test_a_crash_between_the_boundary_and_the_first_turn_is_charged_to_the_new_execution(any_world):
    """Scenario 16: the closed execution keeps its end; the new one simply starts, and counts its
    own crashes.
    """

    async def first(ctx, _):
        ctx.continue_as_new("state", version="2.0.0")

    async def second(ctx, state):
        return [state, await ctx.schedule_activity("work")]

    node = any_world.node(registry(v1_0_0=first))
    instance_id = any_world.start(version="1.0.0")
    any_world.run(1)
    closed, unopened = any_world.executions(instance_id)
    assert (closed.end, unopened.opened_at) == (ExecutionEnd.CONTINUED_AS_NEW, None)
    node.crash()

    code = registry(v2_0_0=second)
    node = any_world.node(code, {"work": HOLD})
    any_world.run(15)
    row = any_world.record(instance_id).row
    assert (row.execution, row.opened, row.takeovers) == (2, True, 0)
    node = takeover(any_world, node, code)
    row = any_world.record(instance_id).row
    assert (row.execution, row.takeovers) == (2, 1)
    assert any_world.executions(instance_id)[0] == closed
    node.finish(value="done")
    any_world.run(1)
    assert any_world.output(instance_id) == ["state", "done"]
    check_rest(any_world, [registry(v1_0_0=first, v2_0_0=second)])


def logged_attempts(caplog):
    return [
        record
        for record in caplog.records
        if "attempt" in record.getMessage() and record.levelname == "WARNING"
    ]


def test_each_failed_try_is_logged_with_its_number_its_error_and_when_the_next_one_begins(
    any_world, caplog
):
    node = any_world.node(asking(QUICK), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1)
    for number in range(3):
        node.fail(error=ValueError(f"line {number} is busy\nand forged"))
        any_world.run(5)
    records = logged_attempts(caplog)
    assert [record.instance_id for record in records] == [instance_id] * 3
    texts = [record.getMessage() for record in records]
    assert (
        "activity 'work', attempt 1 failed, next attempt in 1.0 s: ValueError: line 0 is busy "
        "and forged"
    ) in texts[0]
    assert "attempt 2 failed, next attempt in 2.0 s: ValueError: line 1" in texts[1]
    assert (
        "attempt 3 failed, has failed for good (attempts exhausted): ValueError: line 2" in texts[2]
    )


def test_a_try_that_is_lost_with_its_node_is_logged_too(world, caplog):
    code = asking(SLOW)
    node = world.node(code, {"work": HOLD})
    world.start()
    world.run(1)
    takeover(world, node, code)
    (record,) = logged_attempts(caplog)
    assert "attempt 1 failed, next attempt in 0.0 s: orchestra.NodeLost" in record.getMessage()


def test_an_activity_that_fails_all_the_time_does_not_flood_the_log(world, caplog):
    node = world.node(
        asking(RetryPolicy(max_attempts=None, initial_interval=timedelta(0))), {"work": HOLD}
    )
    world.start()
    world.run(1)
    for _ in range(200):
        node.fail()
        world.run(0.01)
    assert len(logged_attempts(caplog)) <= 2 * 20  # a new minute may have begun
    world.run(70)
    node.fail()
    world.run(1)
    assert (
        "180 more failed attempts of it were not logged" in logged_attempts(caplog)[-1].getMessage()
    )


def test_the_size_of_errors_ends_no_instance(any_world):
    node = any_world.node(
        asking(RetryPolicy(max_attempts=20, initial_interval=timedelta(0))), {"work": HOLD}
    )
    instance_id = any_world.start()
    any_world.run(1)
    for _ in range(20):
        node.fail(error=RuntimeError("x" * 1_000_000))
        any_world.run(1)
    reason, tries, message = any_world.output(instance_id)
    assert (reason, tries[-1], len(message)) == ("attempts exhausted", 20, 4_000)
