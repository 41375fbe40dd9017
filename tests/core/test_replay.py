"""Code against history: what repeats, what does not, and what no execution can have written."""

import contextlib
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestra.activities import Activity
from orchestra.clock import from_micros
from orchestra.codec import EMPTY, Payload, encode, pack, unpack
from orchestra.errors import (
    ActivityFailed,
    Attempt,
    DecodeError,
    ErrorInfo,
    HistoryCorrupt,
    NewerLibraryNeeded,
    NondeterminismError,
)
from orchestra.events import (
    ActivityCompleted,
    CancelRequested,
    EventReceived,
    ExecutionCompleted,
    ExecutionTerminated,
    TimerFired,
    from_record,
    to_record,
)
from orchestra.replay import ActivityDied, ActivityDone, Identity
from tests.support.driver import SECOND, SUBJECT, Drive, fresh, prefixes
from tests.support.driver import replay as replayed

MINUTE = timedelta(minutes=1)

# --- each kind of command: fresh, partial, complete ---


async def one_activity(ctx, _):
    return await ctx.schedule_activity("a", 1)


async def one_failure(ctx, _):
    try:
        await ctx.schedule_activity("a", 1)
    except Exception as error:
        return error.cause.message


async def one_timer(ctx, _):
    await ctx.schedule_timer(MINUTE)
    return "fired"


async def one_event(ctx, _):
    return await ctx.wait_for_event("x")


async def one_cancel(ctx, _):
    future = ctx.wait_for_event("x")
    await ctx.schedule_activity("a")
    future.cancel()
    return "gave up"


async def one_boundary(ctx, state):
    await ctx.schedule_timer(MINUTE)
    ctx.continue_as_new((state or 0) + 1, version="2.0.0")


KINDS = {
    "activity": (
        one_activity,
        lambda drive: drive.done("a", 5),
        ["activity a"],
        "EXECUTION_COMPLETED",
    ),
    "failed activity": (
        one_failure,
        lambda drive: drive.died("a"),
        ["activity a"],
        "EXECUTION_COMPLETED",
    ),
    "timer": (one_timer, lambda drive: drive.advance(60), ["timer"], "EXECUTION_COMPLETED"),
    "event": (one_event, lambda drive: drive.send("x", 5), ["event x"], "EXECUTION_COMPLETED"),
    "cancel": (
        one_cancel,
        lambda drive: drive.done("a"),
        ["event x", "activity a"],
        "EXECUTION_COMPLETED",
    ),
    "boundary": (one_boundary, lambda drive: drive.advance(60), ["timer"], "CONTINUED_AS_NEW"),
    "instance cancel": (
        one_event,
        lambda drive: drive.cancel(),
        ["event x"],
        "EXECUTION_CANCELLED",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_is_asked_for_awaited_and_answered(kind):
    """Scenario 44."""
    subject, answer, pending, ending = KINDS[kind]
    drive = Drive(subject)
    assert drive.pending == pending
    answer(drive)
    assert drive.ending.kind.name == ending


@pytest.mark.parametrize("kind", KINDS)
def test_a_partial_history_goes_on_where_it_stood(kind):
    """Scenario 44."""
    subject, answer, _, _ = KINDS[kind]
    warm, cold = Drive(subject), Drive(subject, cold=True)
    answer(warm)
    answer(cold)
    assert warm.history == cold.history


@pytest.mark.parametrize("kind", KINDS)
def test_a_complete_history_replays_to_its_end_and_takes_nothing_more(kind):
    """Scenario 44."""
    subject, answer, _, _ = KINDS[kind]
    drive = Drive(subject)
    answer(drive)
    again = replayed(subject, drive.history)
    assert again.ending == drive.ending
    assert again.turn(10**12, cancel="late").events == ()


def test_a_long_sequence_replays_from_every_point():
    """Scenario 44."""

    async def subject(ctx, laps):
        total = 0
        for number in range(laps):
            total += await ctx.schedule_activity("a", number)
            await ctx.schedule_timer(MINUTE)
            total += await ctx.wait_for_event("x")
        return total

    drive = Drive(subject, 20)
    for _ in range(20):
        drive.done("a", 1)
        drive.advance(60)
        drive.send("x", 1)
    assert drive.output == 40
    for history in prefixes(drive.history):
        execution = replayed(subject, history)
        assert execution.journal.count == len(history)
        execution.evict()


# --- code that does not fit ---


async def recorded(ctx, _):
    first = await ctx.schedule_activity("a", 1)
    await ctx.schedule_timer(MINUTE)
    await ctx.wait_for_event("x")
    return first


# Ids: 1 started, 2 activity a, 3 completed, 4 timer, 5 fired, 6 wait x, 7 received, 8 the end
ENDED = Drive(recorded)
ENDED.done("a", 5)
ENDED.advance(60)
ENDED.send("x")


async def another_kind(ctx, _):
    await ctx.schedule_timer(MINUTE)  # HERE


async def another_activity(ctx, _):
    await ctx.schedule_activity("b", 1)  # HERE


async def other_arguments(ctx, _):
    first = await ctx.schedule_activity("a", 2)  # HERE
    await ctx.schedule_timer(MINUTE)
    await ctx.wait_for_event("x")
    return first


async def another_due(ctx, _):
    first = await ctx.schedule_activity("a", 1)
    await ctx.schedule_timer(2 * MINUTE)  # HERE
    await ctx.wait_for_event("x")
    return first


async def another_order(ctx, _):
    await ctx.schedule_activity("a", 1)
    await ctx.wait_for_event("x")  # HERE
    await ctx.schedule_timer(MINUTE)


async def more_at_once(ctx, _):
    future = ctx.schedule_activity("a", 1)
    ctx.schedule_activity("b")  # HERE
    await future


async def fewer(ctx, _):
    await ctx.schedule_activity("a", 1)
    await ctx.wait_for_event("x")  # HERE


async def another_event_name(ctx, _):
    await ctx.schedule_activity("a", 1)
    await ctx.schedule_timer(MINUTE)
    await ctx.wait_for_event("y")  # HERE


async def more_at_the_end(ctx, _):
    first = await recorded(ctx, None)
    await ctx.schedule_activity("b")  # HERE
    return first


async def another_output(ctx, _):  # HERE
    await recorded(ctx, None)
    return "other"


async def another_end(ctx, _):
    await recorded(ctx, None)
    raise ValueError("other")  # HERE


async def a_boundary_instead(ctx, _):
    await recorded(ctx, None)
    ctx.continue_as_new()  # HERE


async def ends_early(ctx, _):  # HERE
    return await ctx.schedule_activity("a", 1)


async def a_cancel_too_many(ctx, _):
    await ctx.schedule_activity("a", 1)
    ctx.schedule_timer(MINUTE).cancel()  # HERE


async def gives_up_by_losing_a_race(ctx, _):
    await ctx.schedule_activity("a", 1)
    await ctx.race(ctx.schedule_timer(MINUTE), settled(5))  # HERE


async def settled(value):
    return value


MISMATCHES = {
    another_kind: (2, "a timer", "activity 'a'"),
    another_activity: (2, "activity 'b'", "activity 'a'"),
    another_order: (4, "a wait for event 'x'", "a timer"),
    more_at_once: (3, "activity 'b'", "activity_completed"),
    fewer: (4, "a wait for event 'x'", "a timer"),
    another_event_name: (6, "'y'", "'x'"),
    more_at_the_end: (8, "activity 'b'", "the end of the execution (execution_completed)"),
    another_end: (8, "execution_failed", "execution_completed"),
    a_boundary_instead: (8, "continued_as_new", "execution_completed"),
    ends_early: (4, "execution_completed", "a timer"),
    a_cancel_too_many: (5, "cancelling event 4", "timer_fired"),
    gives_up_by_losing_a_race: (5, "cancelling event 4", "timer_fired"),
}


DRIFTS = {
    other_arguments: (2, "activity 'a'", "other arguments"),
    another_due: (4, "a timer", "due +60 s from the recorded time"),
    another_output: (8, "the end of the execution (execution_completed)", "another output"),
}


def line_marked(function):
    """Return ``file:line`` of the line of a function that is marked HERE."""
    lines = Path(__file__).read_text().splitlines()
    start = function.__code__.co_firstlineno
    number = next(at for at in range(start, len(lines) + 1) if "# HERE" in lines[at - 1])
    return f"{__file__}:{number} in "


@pytest.mark.parametrize("subject", MISMATCHES, ids=lambda subject: subject.__name__)
def test_code_that_does_not_fit_is_named_with_event_wish_and_line(subject):
    """Scenario 45."""
    event_id, wish, other = MISMATCHES[subject]
    with pytest.raises(NondeterminismError) as caught:
        replayed(subject, ENDED.history)
    assert caught.value.event_id == event_id
    assert wish in str(caught.value)
    assert other in str(caught.value)
    assert caught.value.line.startswith(line_marked(subject))
    assert caught.value.line in str(caught.value)


@pytest.mark.parametrize("subject", DRIFTS, ids=lambda subject: subject.__name__)
def test_a_value_that_differs_is_noted_and_what_was_recorded_counts(subject):
    """Scenarios 45 and 53."""
    execution = replayed(subject, ENDED.history)
    (drift,) = execution.drifts
    assert (drift.event_id, drift.event, drift.difference) == DRIFTS[subject]
    assert drift.line.startswith(line_marked(subject))
    assert execution.ending == ENDED.ending


def test_code_whose_values_have_not_changed_drifts_in_nothing():
    assert replayed(recorded, ENDED.history).drifts == ()


def test_a_changed_duration_counts_from_the_next_timer_on():
    def sleeps(minutes):
        async def subject(ctx, _):
            await ctx.schedule_timer(minutes * MINUTE)
            await ctx.schedule_timer(minutes * MINUTE)
            return "slept"

        return subject

    drive = Drive(sleeps(60))
    drive.execution.evict()
    drive.function = sleeps(30)
    drive.execution = replayed(drive.function, drive.history)
    assert drive.execution.time.next_due == 3_600 * SECOND, (
        "the timer that runs is due when it was recorded to be"
    )
    drive.advance(3_600)
    assert drive.execution.time.next_due == 5_400 * SECOND
    drive.advance(1_800)
    assert drive.output == "slept"


@pytest.mark.parametrize("swallow", [Exception, BaseException])
@pytest.mark.parametrize("subject", MISMATCHES, ids=lambda subject: subject.__name__)
def test_code_that_does_not_fit_is_named_also_through_broad_handlers(subject, swallow):
    async def broad(ctx, state):
        try:
            return await subject(ctx, state)
        except swallow:
            if subject is another_end:
                raise
            with contextlib.suppress(swallow):
                await ctx.schedule_activity("going on")

    with pytest.raises(NondeterminismError) as caught:
        replayed(broad, ENDED.history)
    if (
        subject is not a_boundary_instead
    ):  # swallowed: the code goes on, and asks for the next thing
        event_id, wish, _ = MISMATCHES[subject]
        assert caught.value.event_id == event_id
        assert wish in str(
            caught.value
        )  # the first wish that did not fit, not what the handlers asked for


async def asks_nothing(ctx, _):
    await ctx.wait_for_event("x")


def test_code_that_waits_where_history_goes_on_is_named_by_the_line_where_it_waits():
    async def subject(ctx, _):
        pending = ctx.schedule_activity("a", 1)
        await pending  # the completion does not come first

    async def wrote(ctx, _):
        ctx.schedule_activity("a", 1)
        await ctx.wait_for_event("x")

    with pytest.raises(
        NondeterminismError, match=r"event 3 of history is a wait for event 'x', but .*in .*subject"
    ) as caught:
        replayed(subject, Drive(wrote).history)
    assert caught.value.event_id == 3


def test_code_that_waits_where_history_ended_is_named():
    async def subject(ctx, _):
        await recorded(ctx, None)
        await ctx.wait_for_event("x")

    short = ENDED.history[:7]
    waiting = Drive(asks_nothing).history
    ended = to_record(ExecutionCompleted(3, 0, EMPTY))
    with pytest.raises(
        NondeterminismError, match=r"the code asks for a wait for event 'x'.*had nothing more"
    ):
        replayed(subject, short)
    with pytest.raises(
        NondeterminismError, match=r"the code has not ended; it waits at .*asks_nothing"
    ):
        replayed(asks_nothing, [*waiting, ended])


@pytest.mark.parametrize(
    ("state", "version"),
    [("other", "2.0.0"), (1, None), (1, "2.0.1")],
    ids=["state", "no version", "version"],
)
def test_another_boundary_is_noted_and_the_recorded_one_counts(state, version):
    async def subject(ctx, _):
        await ctx.schedule_timer(MINUTE)
        ctx.continue_as_new(state, version=version)  # the line

    drive = Drive(one_boundary)
    drive.advance(60)
    execution = replayed(subject, drive.history)
    (drift,) = execution.drifts
    assert drift.event_id == 4
    assert (
        "in test_another_boundary_is_noted_and_the_recorded_one_counts.<locals>.subject"
        in drift.line
    )
    assert execution.ending == drive.ending


def test_a_cancel_that_gives_up_what_history_did_not_is_named():
    """No line of user code asks for it then; it once escaped as Evicted."""

    async def subject(ctx, _):
        await ctx.schedule_timer(timedelta(seconds=5))

    history = [
        *Drive(subject).history,
        to_record(CancelRequested(3, 0, "why")),
        to_record(ExecutionTerminated(4, 0, "")),
    ]
    with pytest.raises(NondeterminismError, match="cancelling event 2") as caught:
        replayed(subject, history)
    assert caught.value.event_id == 4
    assert "subject" in caught.value.line


def test_a_group_that_gives_up_what_history_did_not_is_named():
    """A branch's end cancels its siblings outside of any user code; that once escaped as
    Evicted.
    """

    def make(sibling_waits):
        async def fails(ctx):
            await ctx.schedule_activity("a")

        async def waits(ctx):
            future = ctx.wait_for_event("never")
            if sibling_waits:
                await future
            await ctx.schedule_activity("b")

        async def subject(ctx, _):
            async with ctx.task_group() as group:
                group.create_task(fails(ctx))
                group.create_task(waits(ctx))

        return subject

    drive = Drive(make(sibling_waits=False))
    drive.died("a")
    history = [
        record for record in drive.history if getattr(from_record(record), "name", "") != "b"
    ]
    history = [replace(record, id=number) for number, record in enumerate(history[:4], start=1)]
    history.append(replace(to_record(ExecutionTerminated(5, 0, "")), id=5))
    with pytest.raises(NondeterminismError, match="cancelling event 3"):
        replayed(make(sibling_waits=True), history)


# --- histories that do not fit themselves ---


def at(number, event):
    return to_record(replace(event, id=number, at=ENDED.now))


UNASKED = {
    "a completion without its schedule": ActivityCompleted(0, 0, 5, 1, EMPTY),
    "a second completion": ActivityCompleted(0, 0, 2, 1, EMPTY),
    "a completion of a timer": ActivityCompleted(0, 0, 4, 1, EMPTY),
    "a firing without its timer": TimerFired(0, 0, 2),
    "an event without its wait": EventReceived(0, 0, 4, "x", 1, EMPTY),
    "an event of another name": EventReceived(0, 0, 6, "y", 1, EMPTY),
}


@pytest.mark.parametrize("case", UNASKED)
def test_an_answer_to_nothing_is_refused(case):
    """Scenario 45."""
    # Up to the wait for "x": the activity is done, the timer has fired, the wait is pending.
    with pytest.raises(NondeterminismError, match="not pending") as caught:
        replayed(recorded, [*ENDED.history[:6], at(7, UNASKED[case])])
    assert caught.value.event_id == 7


def damaged(index, **changes):
    history = list(ENDED.history)
    history[index] = replace(history[index], **changes)
    return history


def other(**changes):
    started = replace(from_record(ENDED.history[0]), **changes)
    return [to_record(started), *ENDED.history[1:]]


CORRUPTIONS = {
    "empty": ([], None),
    "not started first": ([replace(ENDED.history[1], id=1)], 1),
    "started twice": ([*ENDED.history[:2], replace(ENDED.history[0], id=3)], 3),
    "a gap": (ENDED.history[:3] + ENDED.history[4:], 5),
    "does not begin at 1": (ENDED.history[1:], 2),
    "an id twice": (ENDED.history[:3] + ENDED.history[2:], 3),
    "out of order": ([*ENDED.history[:2], ENDED.history[3], ENDED.history[2]], 4),
    "events after the end": ([*ENDED.history, at(9, TimerFired(0, 0, 4))], 9),
    "time goes back": (damaged(6, at=1), 7),
    "another instance": (other(instance_id="subject-2"), 1),
    "another incarnation": (other(incarnation="incarnation-2"), 1),
    "another execution": (other(execution=2), 1),
    "another orchestration": (other(name="object"), 1),
    "another version": (other(version="1.0.1"), 1),
    "an envelope that is not JSON": (damaged(3, envelope=b"{"), 4),
    "an envelope that is no object": (damaged(3, envelope=b"[]"), 4),
    "an envelope that lacks a field": (damaged(3, envelope=b"{}"), 4),
    "a due time that is no number": (damaged(3, envelope=b'{"due":"soon"}'), 4),
    "a source that is no number": (damaged(4, envelope=b'{"source":[4]}'), 5),
    "a name that is no text": (damaged(5, envelope=b'{"name":null}'), 6),
    "a retry policy out of bounds": (
        damaged(1, envelope=ENDED.history[1].envelope.replace(b'"n":3', b'"n":0')),
        2,
    ),
    "a lost payload": (damaged(2, payload=None), 3),
}


@pytest.mark.parametrize("case", CORRUPTIONS)
def test_a_history_that_no_execution_can_have_written_is_refused(case):
    """Scenario 46."""
    history, event_id = CORRUPTIONS[case]
    with pytest.raises(HistoryCorrupt) as caught:
        replayed(recorded, history)
    assert caught.value.event_id == event_id


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"kind": 99}, "unknown event 99"), ({"format": 2}, "unknown event format 2")],
    ids=["kind", "format"],
)
def test_a_history_that_a_newer_library_has_written_is_not_taken_for_a_damaged_one(changes, what):
    """Scenario 10."""
    with pytest.raises(NewerLibraryNeeded, match=f"event 4 has an {what}") as caught:
        replayed(recorded, damaged(3, **changes))
    assert caught.value.instance_id == "subject-1"


def test_a_terminated_history_replays_without_its_code_having_ended():
    drive = Drive(asks_nothing)
    end = to_record(ExecutionTerminated(3, drive.now, "by hand"))
    assert replayed(asks_nothing, [*drive.history, end]).ending.reason == "by hand"


def test_events_read_back_as_they_were_written():
    for record in ENDED.history:
        assert to_record(from_record(record)) == record


# --- what repeats without being repeated ---


def test_is_replaying_is_true_exactly_for_what_happened_before():
    """Scenario 48."""
    seen = []

    async def subject(ctx, _):
        seen.append(("begin", ctx.is_replaying))
        await ctx.schedule_activity("a")
        seen.append(("middle", ctx.is_replaying))
        await ctx.schedule_activity("b")
        seen.append(("end", ctx.is_replaying))

    drive = Drive(subject)
    drive.done("a")
    seen.clear()
    execution = replayed(subject, drive.history)
    assert seen == [("begin", True), ("middle", True)]
    execution.turn(drive.now, [ActivityDone(4, drive.now, 1, EMPTY)])
    assert seen[2:] == [("end", False)]


def test_logs_and_status_are_given_once_and_not_by_replay():
    """Scenario 48."""

    async def subject(ctx, _):
        ctx.trace_info("begun", message="a field may have any name")
        ctx.set_custom_status("begun")
        await ctx.schedule_activity("a")
        ctx.trace_warning("done")
        ctx.set_custom_status({"done": True})
        await ctx.wait_for_event("x")

    drive = Drive(subject)  # which asserts that no replay logs or sets anything
    turn = drive.done("a")
    assert [(entry.level, entry.message, entry.fields) for entry in drive.turns[0].extras.logs] == [
        (20, "begun", {"message": "a field may have any name"})
    ]
    assert drive.turns[0].extras.custom_status == Payload(b'"begun"')
    assert [entry.message for entry in turn.extras.logs] == ["done"]
    assert turn.extras.custom_status == Payload(b'{"done":true}')


@pytest.mark.parametrize("cold", [False, True])
def test_random_ids_and_numbers_are_the_same_on_replay(cold):
    async def subject(ctx, _):
        drawn = [str(ctx.uuid4()), ctx.random()]
        await ctx.schedule_activity("a", *drawn)
        drawn += [str(ctx.uuid4()), ctx.random()]
        return drawn

    drive = Drive(subject, cold=cold)
    drive.done("a")
    assert len(set(drive.output)) == 4
    again = Drive(subject, cold=not cold)
    again.done("a")
    assert again.output == drive.output


def test_random_ids_differ_between_executions_and_incarnations():
    async def subject(ctx, _):
        return [str(ctx.uuid4()), ctx.random()]

    identities = [
        SUBJECT,
        replace(SUBJECT, execution=2),
        replace(SUBJECT, incarnation="incarnation-2"),
        Identity("subject-1", "incarnation-1", 12, "subject", "1.0.0"),
    ]
    ids = {str(Drive(subject, identity=identity).output) for identity in identities}
    assert len(ids) == len(identities)


def test_now_is_the_time_of_the_event_that_woke_the_code_and_never_goes_back():
    async def subject(ctx, _):
        times = [ctx.now()]
        await ctx.schedule_activity("a")
        times.append(ctx.now())
        await ctx.schedule_activity("b")
        times.append(ctx.now())
        return [time.timestamp() for time in times]

    drive = Drive(subject, now=10 * SECOND)
    drive.now = 20 * SECOND
    drive.done("a")
    drive.now = 5 * SECOND  # another node, whose clock is behind
    drive.done("b")
    assert drive.output == [10, 20, 20]


def test_now_is_aware_and_in_utc():
    async def subject(ctx, _):
        return ctx.now() == datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC) and ctx.now().tzinfo is UTC

    assert Drive(subject, now=7 * SECOND).output is True


@dataclass
class Tags:
    names: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)


HASHING = """
import sys
from dataclasses import dataclass, field
import pydantic
from tests.support.driver import Drive

class Model(pydantic.BaseModel):
    tags: set[str]
    inner: list[frozenset[str]]

@dataclass
class State:
    names: set[str]
    counts: dict[str, int]
    model: Model

async def subject(ctx, state: State):
    async def branch(name):
        await ctx.schedule_activity("branch", name)
        await ctx.wait_for_event(name)
    await ctx.schedule_activity("a", state.names, {"x": state.names}, frozenset(state.names))
    await ctx.gather(*(branch(name) for name in sorted(state.names)))
    ctx.continue_as_new(state)

words = [f"word{number}" for number in range(12)]
drive = Drive(subject, State(set(words), {word: 1 for word in words}, Model(tags=words, inner=[words, words[:5]])))
drive.done("a")
for word in words:
    drive.send(word)
    drive.done("branch")
assert drive.ending is not None
for record in drive.history:
    print(record)
"""


@pytest.mark.slow
def test_commands_do_not_depend_on_the_hash_seed():
    """Scenario 47."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(HASHING)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0].count(b"EventRecord") > 40
    assert outputs[0] == outputs[1]


# --- errors of user code ---


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("plain"),
        ValueError("lone surrogate \ud800"),
        Unspeakable(),
        SystemExit(3),
        RecursionError("deep"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_user_code_raises_is_recorded_as_its_failure(error):
    async def subject(ctx, _):
        raise error

    drive = Drive(subject)
    assert drive.error.type.endswith(type(error).__name__)
    assert isinstance(drive.error, ErrorInfo)


def test_stopping_the_process_is_not_a_failure_of_the_code():
    async def subject(ctx, _):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fresh(subject).start(EMPTY, 0)


def test_a_failure_keeps_the_traceback_of_user_code_only():
    async def subject(ctx, _):
        await ctx.schedule_activity("a")

    drive = Drive(subject)
    drive.died("a")
    assert "in subject" in drive.error.traceback
    assert "scheduler.py" not in drive.error.traceback


def test_an_activity_that_failed_carries_its_cause_and_every_attempt():
    async def subject(ctx, _):
        try:
            await ctx.schedule_activity("a")
        except Exception as error:
            return [
                error.activity,
                error.cause.type,
                len(error.attempts),
                error.attempts[0].number,
                error.reason,
            ]

    drive = Drive(subject)
    drive.died("a")
    assert drive.output == ["a", "ValueError", 1, 1, "attempts exhausted"]


def test_a_result_that_does_not_fit_its_annotation_is_raised_at_the_await():
    async def subject(ctx, _):
        try:
            await ctx.schedule_activity(Activity.named("a", returns=Tags))
        except DecodeError as error:
            return [error.field, "activity 'a'" in str(error)]

    drive = Drive(subject)
    drive.done("a", {"names": "text", "counts": {}})
    assert drive.output == [".names", True]


@pytest.mark.parametrize(("said", "told"), [({}, 20), ({"tries": 30}, 30)])
def test_a_history_that_does_not_say_how_many_tries_there_were_tells_what_it_told_before(
    said, told
):
    async def tells(ctx, _):
        try:
            await ctx.schedule_activity("work")
        except ActivityFailed as failed:
            return [failed.tries, str(failed)]

    drive = Drive(tells)
    error = ErrorInfo("ValueError", "boom")
    attempts = tuple(Attempt(number, from_micros(drive.now), error) for number in range(11, 31))
    drive.turn([ActivityDied(2, drive.now, error, attempts, "attempts exhausted")])
    assert drive.output == [
        30,
        "activity 'work' failed after 30 attempts (attempts exhausted): ValueError: boom",
    ]
    started, scheduled, failed, ended = drive.history
    envelope = unpack(failed.envelope)
    assert envelope.pop("tries") == 30
    output = [
        told,
        f"activity 'work' failed after {told} attempts (attempts exhausted): ValueError: boom",
    ]
    failed = replace(failed, envelope=pack(envelope | said))
    replayed(
        tells,
        [started, scheduled, failed, replace(ended, payload=encode(output, subject="output"))],
    )


def test_a_result_that_cannot_be_stored_fails_the_execution():
    async def subject(ctx, _):
        return {"value": float("nan")}

    assert Drive(subject).error.type == "orchestra.errors.EncodeError"


def test_a_late_or_second_completion_is_dropped():
    async def subject(ctx, _):
        await ctx.gather(ctx.schedule_activity("a"), ctx.schedule_activity("b"))

    drive = Drive(subject)
    turn = drive.turn(
        [ActivityDone(2, 0, 1, EMPTY), ActivityDone(2, 0, 2, EMPTY), ActivityDone(77, 0, 1, EMPTY)]
    )
    assert len(turn.events) == 1
    error = ErrorInfo("x", "")
    assert drive.turn([ActivityDied(2, 0, error, (), "late")]).events == ()


def test_state_is_decoded_by_its_annotation_and_a_bad_one_names_the_field():
    async def subject(ctx, state: Tags):
        return sorted(state.names)

    assert Drive(subject, Tags({"b", "a"})).output == ["a", "b"]
    with pytest.raises(
        DecodeError, match=r"state of 'subject-1' \(subject 1.0.0, execution 1\) at .counts"
    ):
        fresh(subject).start(encode({"names": [], "counts": 3}, subject="state"), 0)
