"""How large one execution may grow."""

from datetime import timedelta

import pytest

from orchestra.codec import encode
from orchestra.context import Limits
from orchestra.registry import OrchestrationRegistry
from orchestra.replay import Execution, Identity
from tests.support.driver import Drive, replay

EXCEEDED = "orchestra.errors.ExecutionLimitExceeded"


async def grows(ctx, size):
    while True:
        await ctx.schedule_activity("a", "x" * size)


@pytest.mark.parametrize(
    ("limits", "size"),
    [(Limits(max_events=10), 0), (Limits(max_bytes=5_000), 1_000)],
    ids=["events", "bytes"],
)
def test_an_execution_over_its_limit_fails_and_its_history_replays(limits, size):
    drive = Drive(grows, size, limits=limits)
    while drive.ending is None:
        drive.done("a")
    assert drive.error.type == EXCEEDED
    assert "continue_as_new_suggested" in drive.error.message
    assert len(drive.history) <= 13
    assert replay(grows, drive.history, limits=limits).ending == drive.ending


def test_code_that_never_waits_for_the_world_meets_the_limit_too():
    """Its turn did not end before: each timer was due at once, and the limit was looked at after
    the turn only.
    """

    async def spins(ctx, _):
        while True:
            await ctx.schedule_timer(timedelta(0))

    drive = Drive(spins, limits=Limits(max_events=100))
    assert drive.error.type == EXCEEDED
    assert len(drive.history) < 110


@pytest.mark.parametrize(
    "limits", [Limits(suggest_events=6), Limits(suggest_bytes=560)], ids=["events", "bytes"]
)
@pytest.mark.parametrize("cold", [False, True])
def test_a_boundary_is_suggested_from_a_size_on(limits, cold):
    async def subject(ctx, _):
        laps = 0
        while not ctx.continue_as_new_suggested:
            await ctx.schedule_activity("a")
            laps += 1
        return laps

    drive = Drive(subject, limits=limits, cold=cold)
    while drive.ending is None:
        drive.done("a", "result")
    assert drive.output == 3


def test_each_value_is_bounded_and_the_code_may_catch_it():
    async def subject(ctx, _):
        refused = []
        for use in (
            lambda: ctx.schedule_activity("a", "x" * 100),
            lambda: ctx.set_custom_status("x" * 100),
            lambda: ctx.continue_as_new("x" * 100),
        ):
            try:
                use()
            except Exception as error:
                refused.append([type(error).__name__, error.limit])
        return refused

    assert Drive(subject, limits=Limits(max_payload=90)).output == [["PayloadTooLarge", 90]] * 3


def test_a_deploy_with_another_suggestion_changes_no_answer_that_the_code_has_had():
    async def loop(ctx, state):
        while not ctx.continue_as_new_suggested:
            await ctx.schedule_timer(timedelta(seconds=1))
        ctx.continue_as_new(state)

    registry = OrchestrationRegistry.builder().register("loop", loop).build()
    identity = Identity("i", "incarnation", 1, "loop", "1.0.0")
    before = Execution(registry.get("loop", "1.0.0"), identity, Limits(suggest_events=8))
    before.start(encode(None, subject="state"), 1)
    records = [*before.turn(1).events, *before.turn(2_000_000).events]

    after = Execution(registry.get("loop", "1.0.0"), identity, Limits(suggest_events=3))
    after.replay(records)

    assert [event.id for event in after.pending] == [event.id for event in before.pending]
