"""Branches in place: ``ctx.patched`` answers by the mark that the history has, or has not."""

from datetime import timedelta

import pytest

from orchestra.codec import encode
from orchestra.errors import InvalidArgument, NewerLibraryNeeded, NondeterminismError
from orchestra.events import EVENTS, EventForms, EventKind, Patched, from_record, to_record
from orchestra.levels import BASE_LEVEL, Kinds
from orchestra.replay import ActivityDone, Execution, Inbox
from tests.support.driver import SECOND, SUBJECT, Drive, define, fresh, prefixes, replay

MINUTE = timedelta(minutes=1)


async def old(ctx, _):
    await ctx.schedule_activity("first")
    await ctx.schedule_activity("charge")
    await ctx.schedule_activity("last")


async def new(ctx, _):
    await ctx.schedule_activity("first")
    if ctx.patched("tax"):
        await ctx.schedule_activity("charge with tax")
    else:
        await ctx.schedule_activity("charge")
    await ctx.schedule_activity("last")


async def removed(ctx, _):
    await ctx.schedule_activity("first")
    await ctx.schedule_activity("charge with tax")
    await ctx.schedule_activity("last")


def test_an_execution_that_comes_there_first_takes_the_new_way_and_records_a_mark():
    drive = Drive(new)
    turn = drive.done("first")
    assert (drive.pending, turn.extras.patches) == (["activity charge with tax"], ("tax",))
    assert drive.commands == ["activity first", "patch tax", "activity charge with tax"]


def test_a_history_of_the_old_code_goes_on_the_old_way():
    drive = Drive(old)
    drive.done("first")
    drive.function = new
    drive.check_replay()
    execution = replay(new, drive.history)
    assert [event.name for event in execution.pending] == ["charge"]


def test_an_execution_of_the_old_code_that_has_not_come_there_yet_takes_the_new_way():
    drive = Drive(old, cold=True)
    drive.function = new
    drive.execution = replay(new, drive.history)
    drive.done("first")
    assert drive.pending == ["activity charge with tax"]


@pytest.mark.parametrize("cold", [False, True])
def test_every_history_with_marks_replays_from_every_point(cold):
    async def subject(ctx, _):
        for lap in range(3):
            if ctx.patched("loop"):
                await ctx.schedule_activity("a", lap)
            if ctx.patched(f"lap-{lap}") and ctx.patched("loop"):
                await ctx.schedule_timer(MINUTE)
        return ctx.patched("at the end".replace(" ", "-"))

    drive = Drive(subject, cold=cold)
    for _ in range(3):
        drive.done("a")
        drive.advance(60)
    assert drive.output is True
    marks = [event.patch for event in drive.events if isinstance(event, Patched)]
    assert marks == ["loop", "lap-0", "lap-1", "lap-2", "at-the-end"]
    for prefix in prefixes(drive.history):
        replay(subject, prefix).evict()


def test_the_answer_stays_the_same_in_an_execution_that_began_without_the_mark():
    """It was False on replay, so it is False for ever: also where the code comes there again."""

    async def before(ctx, _):
        for _ in range(3):
            await ctx.schedule_activity("old")

    async def after(ctx, _):
        for _ in range(3):
            await ctx.schedule_activity("new" if ctx.patched("p") else "old")

    drive = Drive(before, cold=True)
    drive.function = after
    drive.execution = replay(after, drive.history)
    for _ in range(3):
        assert drive.done("old").extras.patches == ()
    assert drive.ending


def test_the_answer_stays_the_same_in_an_execution_with_the_mark():
    async def subject(ctx, _):
        for _ in range(3):
            await ctx.schedule_activity("new" if ctx.patched("p") else "old")

    drive = Drive(subject, cold=True)
    for _ in range(3):
        drive.done("new")
    assert [turn.extras.patches for turn in drive.turns] == [("p",), (), (), ()]


def test_code_that_no_longer_asks_repeats_a_history_with_the_mark():
    drive = Drive(new)
    drive.done("first")
    drive.function = removed
    drive.check_replay()
    drive.execution = replay(removed, drive.history)
    drive.done("charge with tax")
    drive.done("last")
    assert drive.ending


def test_a_mark_that_is_no_longer_asked_for_leaves_the_ids_of_children_as_they_are():
    async def asks(ctx, _):
        ctx.patched("p")
        ctx.start_child("child", None)
        ctx.patched("q")
        return await ctx.schedule_activity("a")

    async def asks_no_more(ctx, _):
        ctx.start_child("child", None)
        return await ctx.schedule_activity("a")

    drive = Drive(asks)
    execution = replay(asks_no_more, drive.history)
    assert execution.drifts == ()
    assert [event.id for event in execution.pending] == [
        event.id for event in drive.execution.pending
    ]


def test_marks_are_answered_by_id_and_not_by_order():
    def both(first, second):
        async def subject(ctx, _):
            answers = {first: ctx.patched(first), second: ctx.patched(second)}
            await ctx.schedule_activity("a")
            return answers["x"], answers["y"]

        return subject

    drive = Drive(both("x", "y"))
    execution = replay(both("y", "x"), drive.history)
    assert execution.journal.count == drive.execution.journal.count
    drive.execution, drive.function = execution, both("y", "x")
    drive.done("a")
    assert drive.output == [True, True]


def test_a_mark_before_a_command_that_was_given_up_repeats():
    async def subject(ctx, _):
        first = ctx.wait_for_event("x")
        await ctx.schedule_activity("a")
        ctx.patched("p")
        first.cancel()
        ctx.patched("q")
        await ctx.schedule_activity("b")

    async def asks_no_more(ctx, _):
        first = ctx.wait_for_event("x")
        await ctx.schedule_activity("a")
        first.cancel()
        await ctx.schedule_activity("b")

    drive = Drive(subject)
    drive.done("a")
    replay(asks_no_more, drive.history).evict()


def test_a_cancelled_activity_whose_end_is_waited_for_is_asked_again_behind_a_mark():
    async def subject(ctx, _):
        running = ctx.schedule_activity("slow")
        await ctx.schedule_activity("a")
        ctx.patched("p")
        running.cancel()
        await ctx.schedule_activity("b")

    drive = Drive(subject)
    drive.done("a")
    assert "cancel 2" in drive.commands
    drive.check_replay()


def test_the_mark_counts_at_the_place_where_it_was_recorded():
    async def subject(ctx, _):
        await ctx.schedule_activity("a")
        before = ctx.history_length
        ctx.patched("p")
        after = ctx.history_length
        await ctx.schedule_activity("b", before, after)
        return before, after

    drive = Drive(subject, cold=True)
    drive.done("a")
    assert not drive.execution.drifts
    drive.done("b")
    assert drive.output == [3, 4]


def test_a_mark_is_no_excuse_for_code_that_asks_for_something_else():
    async def other(ctx, _):
        await ctx.schedule_activity("first")
        await ctx.schedule_activity("another")

    drive = Drive(new)
    drive.done("first")
    with pytest.raises(NondeterminismError, match="another"):
        replay(other, drive.history)


def test_a_history_that_asks_for_more_than_its_marks_is_refused():
    async def asks_on(ctx, _):
        ctx.patched("p")
        ctx.schedule_activity("a")
        await ctx.schedule_activity("b")

    async def subject(ctx, _):
        wait = ctx.schedule_activity("a")
        ctx.patched("p")
        await wait

    drive = Drive(subject)
    with pytest.raises(NondeterminismError, match="activity 'b'"):
        replay(asks_on, drive.history)


@pytest.mark.parametrize("patch", ["", " ", "a b", "a\n", 7, None, "x" * 201, "a\0b", "\ud800"])
def test_the_id_of_a_patch_is_text_without_spaces(patch):
    async def subject(ctx, _):
        ctx.patched(patch)

    drive = Drive(subject)
    assert drive.error.type.endswith("InvalidArgument")
    assert "the id of a patch" in drive.error.message


def test_the_context_of_another_execution_answers_no_patch():
    stolen = []

    async def subject(ctx, _):
        stolen.append(ctx)
        await ctx.schedule_activity("a")

    Drive(subject)
    with pytest.raises(InvalidArgument.__mro__[1], match="outside its orchestration"):
        stolen[0].patched("p")


def at_level(function, level):
    execution = Execution(
        define(function),
        SUBJECT,
        fresh(function).commands.limits,
        writer=EVENTS.writer(level=level),
    )
    execution.start(encode(None, subject="state"), 0)
    return execution


def test_a_store_with_older_nodes_takes_no_mark_and_the_old_way():
    execution = at_level(new, BASE_LEVEL)
    history = list(execution.turn(0).events)
    turn = execution.turn(SECOND, [ActivityDone(2, SECOND, 1, encode(None, subject="r"))])
    assert (turn.extras.patches, [event.name for event in turn.scheduled]) == ((), ["charge"])
    history += turn.events
    # A node that may write marks repeats it, and goes on the same way.
    again = replay(new, history)
    assert [event.name for event in again.pending] == ["charge"]
    assert again.level == BASE_LEVEL


def test_a_history_with_a_mark_needs_a_library_that_knows_it():
    drive = Drive(new)
    drive.done("first")
    assert drive.execution.level == 2
    known = {kind.value: kind for kind in EventKind if kind is not EventKind.PATCHED}
    older = Execution(
        define(new),
        SUBJECT,
        drive.execution.commands.limits,
        {},
        EventForms(kinds=Kinds("event", known)),
    )
    with pytest.raises(NewerLibraryNeeded):
        older.replay(drive.history)


def test_the_mark_is_stored_and_read():
    event = Patched(7, 8, "tax")
    assert from_record(to_record(event, EVENTS.writer(level=2))) == event


def test_a_mark_in_a_turn_that_is_not_stored_is_asked_for_again():
    """The turn was held, or its write was refused. Code that replays the stored history comes there
    first once more.
    """
    drive = Drive(new)
    stored = list(drive.history)
    drive.done("first")
    again = replay(new, stored)
    turn = again.turn(0, [ActivityDone(2, 0, 1, encode(None, subject="r"))], Inbox())
    assert turn.extras.patches == ("tax",)
