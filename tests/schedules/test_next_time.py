"""A loop that is its own schedule."""

from __future__ import annotations

from datetime import UTC, datetime, time

from orchestra import At, Cron, Daily, InvalidArgument
from tests.support.driver import SECOND, Drive, replay

NINE = 9 * 3600


def test_a_loop_sleeps_until_the_next_slot_after_now():
    async def subject(ctx, _):
        slots = []
        for _ in range(2):
            slot = ctx.next_time(Cron("0 9 * * *"))
            await ctx.schedule_timer(slot)
            slots.append(slot == ctx.now())
        return [*slots, ctx.next_time(At(datetime(1970, 1, 1, tzinfo=UTC)))]

    drive = Drive(subject, cold=True)
    drive.advance(NINE - 1)
    assert drive.pending == ["timer"]
    drive.advance(1)
    drive.advance(24 * 3600)
    assert drive.output == [True, True, None]
    assert len(drive.commands) == 2, "a slot is no event"


def test_other_rules_of_a_zone_change_no_timer_that_was_scheduled():
    spec = [Daily(time(9))]

    async def subject(ctx, _):
        await ctx.schedule_timer(ctx.next_time(spec[0]))
        await ctx.schedule_activity("digest")

    drive = Drive(subject)
    spec[0] = Daily(time(9, 30))  # the node that goes on has another zone database
    again = replay(subject, drive.history)
    assert list(again.pending) == list(drive.execution.pending)
    assert not again.turn(NINE * SECOND - 1, [], []).events
    assert again.turn(NINE * SECOND, [], []).events


def test_next_time_takes_a_spec():
    async def subject(ctx, _):
        return ctx.next_time("0 9 * * *")

    error = Drive(subject).error
    assert InvalidArgument.__name__ in error.type
    assert "write Cron" in error.message
