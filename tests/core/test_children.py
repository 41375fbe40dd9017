"""Children and detached starts in the pure core: asked for, answered, given up, and held against
history.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from orchestra.codec import EMPTY, encode, plain
from orchestra.context import Limits
from orchestra.errors import (
    ChildFailed,
    DecodeError,
    HistoryCorrupt,
    InvalidArgument,
    InvalidFunction,
    InvalidVersion,
    NewerLibraryNeeded,
    NondeterminismError,
    PayloadTooLarge,
    UnknownOrchestration,
)
from orchestra.events import (
    ChildCompleted,
    ChildFailedEvent,
    ChildStarted,
    CommandCancelled,
    ContinuedAsNew,
    DetachedStarted,
    EventReceived,
    ExecutionCancelled,
    ExecutionCompleted,
    OnParentClose,
    TimerFired,
    from_record,
    to_record,
)
from orchestra.registry import OrchestrationRegistry
from orchestra.replay import Execution
from orchestra.store.kinds import MessageKind
from orchestra.store.messages import MessageRow
from orchestra.summary import read_summary, write_summary
from tests.support.driver import SUBJECT, Drive, fresh, prefixes
from tests.support.driver import replay as replayed

MINUTE = timedelta(minutes=1)


async def one_child(ctx, _):
    return await ctx.start_child("kid", {"n": 1})


async def one_failure(ctx, _):
    try:
        await ctx.start_child("kid", 1)
    except ChildFailed as error:
        return [
            error.orchestration,
            error.child_id,
            error.status,
            error.cause.type,
            error.cause.message,
        ]


async def one_detached(ctx, _):
    made = ctx.start_detached("kid", 1)
    named = ctx.start_detached("kid", 2, instance_id="mine", version="2.0.0")
    return [made, named, await ctx.schedule_activity("a")]


async def one_given_up(ctx, _):
    future = ctx.start_child("kid", 1)
    await ctx.schedule_activity("a")
    future.cancel()
    return "gave up"


KINDS = {
    "completes": (one_child, lambda drive: drive.ended("kid", 5), ["child kid"], 5),
    "fails": (
        one_failure,
        lambda drive: drive.ended("kid", "boom", MessageKind.CHILD_FAILED),
        ["child kid"],
        ["kid", "subject-1.incarnat.1.2", "failed", "ValueError", "boom"],
    ),
    "is cancelled": (
        one_failure,
        lambda drive: drive.ended("kid", "enough", MessageKind.CHILD_CANCELLED),
        ["child kid"],
        ["kid", "subject-1.incarnat.1.2", "cancelled", "ValueError", "enough"],
    ),
    "is terminated": (
        one_failure,
        lambda drive: drive.ended("kid", "at once", MessageKind.CHILD_TERMINATED),
        ["child kid"],
        ["kid", "subject-1.incarnat.1.2", "terminated", "ValueError", "at once"],
    ),
    "detached": (
        one_detached,
        lambda drive: drive.done("a", 5),
        ["activity a"],
        ["subject-1.incarnat.1.2", "mine", 5],
    ),
    "given up": (
        one_given_up,
        lambda drive: drive.done("a"),
        ["child kid", "activity a"],
        "gave up",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_is_asked_for_awaited_and_answered(kind):
    subject, answer, pending, output = KINDS[kind]
    drive = Drive(subject)
    assert drive.pending == pending
    answer(drive)
    assert drive.output == output


@pytest.mark.parametrize("kind", KINDS)
def test_a_partial_history_goes_on_where_it_stood(kind):
    subject, answer, _, _ = KINDS[kind]
    warm, cold = Drive(subject), Drive(subject, cold=True)
    answer(warm)
    answer(cold)
    assert warm.history == cold.history


@pytest.mark.parametrize("kind", KINDS)
def test_every_beginning_of_a_history_replays_and_a_complete_one_takes_nothing_more(kind):
    subject, answer, _, _ = KINDS[kind]
    drive = Drive(subject)
    answer(drive)
    for history in prefixes(drive.history):
        execution = replayed(subject, history)
        assert execution.journal.count == len(history)
        assert (execution.commands.children > 0) == (kind != "detached")
        execution.evict()
    again = replayed(subject, drive.history)
    assert again.ending == drive.ending
    assert again.turn(10**12, cancel="late").events == ()


def test_every_event_of_children_survives_the_store():
    events = [
        ChildStarted(
            2, 7, "kid", "1.1.0", "id", OnParentClose.TERMINATE, encode([1], subject="input")
        ),
        ChildStarted(2, 7, "kid", None, "id", OnParentClose.ABANDON, EMPTY),
        ChildCompleted(3, 8, 2, encode("done", subject="result")),
        DetachedStarted(4, 8, "kid", None, "id", EMPTY),
    ]
    drive = Drive(one_failure)
    drive.ended("kid", "boom", MessageKind.CHILD_FAILED)
    events.append(next(event for event in drive.events if isinstance(event, ChildFailedEvent)))
    for event in events:
        assert from_record(to_record(event)) == event


# --- code that does not fit ---


async def recorded(ctx, _):
    await ctx.start_child("kid", 1, instance_id="mine", version="1.0.0", on_parent_close="cancel")
    ctx.start_detached("other", 2)
    return await ctx.start_child("kid", 3)


def other(first=None, second=None, third=None):
    """Return the recorded code with other arguments in one of its three starts."""

    async def subject(ctx, _):
        one = {
            "name": "kid",
            "input": 1,
            "instance_id": "mine",
            "version": "1.0.0",
            "on_parent_close": "cancel",
        }
        one.update(first or {})
        await ctx.start_child(one.pop("name"), one.pop("input"), **one)
        two = {"name": "other", "input": 2, **(second or {})}
        ctx.start_detached(two.pop("name"), two.pop("input"), **two)
        three = {"name": "kid", "input": 3, **(third or {})}
        return await ctx.start_child(three.pop("name"), three.pop("input"), **three)

    return subject


async def turned_round(ctx, _):
    ctx.start_detached("other", 2)
    await ctx.start_child("kid", 1, instance_id="mine", version="1.0.0", on_parent_close="cancel")
    return await ctx.start_child("kid", 3)


async def an_activity_instead(ctx, _):
    await ctx.schedule_activity("kid", 1)


async def one_too_few(ctx, _):
    await ctx.start_child("kid", 1, instance_id="mine", version="1.0.0", on_parent_close="cancel")
    return await ctx.start_child("kid", 3)


async def one_too_many(ctx, _):
    await ctx.start_child("kid", 1, instance_id="mine", version="1.0.0", on_parent_close="cancel")
    ctx.start_detached("other", 2)
    ctx.start_detached("other", 4)
    return await ctx.start_child("kid", 3)


# Ids: 1 started, 2 child kid "mine", 3 completed, 4 detached other, 5 child kid, 6 completed, 7 the
# end
RECORDED = Drive(recorded)
RECORDED.ended("kid", 1)
RECORDED.ended("kid", 2)

MISMATCHES = {
    "another name": (other({"name": "other"}), 2, "another orchestration"),
    "another detached name": (other(second={"name": "else"}), 4, "another orchestration"),
    "another order": (turned_round, 2, "another kind of event"),
    "another kind": (an_activity_instead, 2, "another kind of event"),
    "one too few": (one_too_few, 4, "another kind of event"),
    "one too many": (one_too_many, 5, "another kind of event"),
}

DRIFTS = {
    "another id": (other({"instance_id": "yours"}), 2, "instance id 'yours' instead of 'mine'"),
    "another version": (other({"version": "1.0.1"}), 2, "version 1.0.1 instead of 1.0.0"),
    "no version": (other({"version": None}), 2, "version None instead of 1.0.0"),
    "another input": (other({"input": 9}), 2, "another input"),
    "another on_parent_close": (
        other({"on_parent_close": "terminate"}),
        2,
        "on_parent_close terminate instead of cancel",
    ),
    "another detached id": (other(second={"instance_id": "x"}), 4, "instance id 'x' instead of "),
    "another detached version": (
        other(second={"version": "1.0.0"}),
        4,
        "version 1.0.0 instead of None",
    ),
    "another detached input": (other(second={"input": 3}), 4, "another input"),
    "an id instead of a made one": (
        other(third={"instance_id": "x"}),
        5,
        "instance id 'x' instead of ",
    ),
}


@pytest.mark.parametrize("case", DRIFTS)
def test_code_that_starts_with_other_values_goes_on_with_what_was_recorded(case):
    """Scenario 45."""
    subject, event_id, difference = DRIFTS[case]
    execution = replayed(subject, RECORDED.history)
    (drift,) = execution.drifts
    assert drift.event_id == event_id
    assert drift.difference.startswith(difference)
    assert "test_children.py" in drift.line
    assert execution.ending == RECORDED.ending


def test_a_detached_start_is_known_by_its_recorded_id():
    def starts(instance_id):
        async def subject(ctx, _):
            started = ctx.start_detached("other", instance_id=instance_id)
            await ctx.wait_for_event("x")
            return started

        return subject

    drive = Drive(starts("old"))
    drive.execution.evict()
    drive.function = starts("new")
    drive.execution = replayed(drive.function, drive.history)
    drive.send("x")
    assert drive.output == "old"


@pytest.mark.parametrize("case", MISMATCHES)
def test_code_that_starts_otherwise_is_found_out_and_told_which_event_and_line(case):
    subject, event_id, difference = MISMATCHES[case]
    with pytest.raises(NondeterminismError, match=difference) as raised:
        replayed(subject, RECORDED.history)
    assert raised.value.event_id == event_id
    assert "test_children.py" in raised.value.line


def test_the_same_code_repeats_what_was_recorded():
    assert replayed(recorded, RECORDED.history).ending == RECORDED.ending
    assert replayed(other(), RECORDED.history).ending == RECORDED.ending


def swap(history, number, **changes):
    return [
        to_record(replace(from_record(entry), **changes)) if entry.id == number else entry
        for entry in history
    ]


CORRUPT = {
    "the end of a child that nobody asked for": (
        swap(RECORDED.history, 3, source=9),
        NondeterminismError,
    ),
    "the end of a detached start": (swap(RECORDED.history, 6, source=4), NondeterminismError),
    "a child that ended twice": (swap(RECORDED.history, 6, source=2), NondeterminismError),
    "a damaged envelope": (
        [
            replace(entry, envelope=b'{"name":"kid"}') if entry.id == 2 else entry
            for entry in RECORDED.history
        ],
        HistoryCorrupt,
    ),
    "an unknown on_parent_close": (
        [
            replace(
                entry,
                envelope=entry.envelope.replace(b'"on_parent_close":1', b'"on_parent_close":7'),
            )
            if entry.id == 2
            else entry
            for entry in RECORDED.history
        ],
        NewerLibraryNeeded,
    ),
    "a lost payload": (
        [replace(entry, payload=None) if entry.id == 3 else entry for entry in RECORDED.history],
        HistoryCorrupt,
    ),
}


@pytest.mark.parametrize("case", CORRUPT)
def test_a_history_that_cannot_be_is_a_typed_error(case):
    history, error = CORRUPT[case]
    with pytest.raises(error):
        replayed(recorded, history)


# --- order, late ends, and what is given up ---


def test_ends_of_children_and_other_inputs_come_in_the_order_of_their_arrival():
    async def subject(ctx, _):
        order = []

        async def note(future, what):
            await future
            order.append(what)

        await ctx.gather(
            note(ctx.wait_for_event("x"), "event"),
            note(ctx.start_child("late"), "late"),
            note(ctx.start_child("early"), "early"),
            note(ctx.schedule_timer(timedelta(seconds=2)), "timer"),
        )
        return order

    drive = Drive(subject)
    drive.now += 1_000_000
    drive.put_end(drive.child("early"))
    drive.put("x")
    drive.now += 2_000_000
    drive.put_end(drive.child("late"))
    drive.turn()
    assert drive.output == ["early", "event", "timer", "late"]


def test_the_end_of_a_child_is_no_event_and_an_event_no_end_of_a_child():
    async def subject(ctx, _):
        return await ctx.gather(ctx.wait_for_event("child"), ctx.start_child("kid"))

    drive = Drive(subject)
    drive.ended("kid", "from the child")
    assert drive.pending == ["event child"]
    drive.send("child", "from a sender")
    assert drive.output == ["from a sender", "from the child"]
    assert [
        type(event) for event in drive.events if isinstance(event, (EventReceived, ChildCompleted))
    ] == [
        ChildCompleted,
        EventReceived,
    ]


def test_the_late_end_of_a_child_that_was_given_up_is_consumed_and_dropped():
    async def subject(ctx, _):
        winner = await ctx.race(ctx.start_child("slow"), ctx.schedule_timer(MINUTE))
        await ctx.wait_for_event("x")
        return winner.index

    drive = Drive(subject)
    source = drive.child("slow")
    turn = drive.advance(60)
    assert [child.id for child in turn.extras.recalled] == [source]
    assert any(
        isinstance(event, CommandCancelled) and event.source == source for event in drive.events
    )
    drive.put_end(source, "late")
    turn = drive.turn()
    assert (turn.events, turn.consumed) == ((), (1,))
    assert drive.inbox == []
    drive.send("x")
    assert drive.output == 1


def test_an_end_that_arrives_together_with_what_gives_the_child_up_counts_where_it_came_first():
    async def subject(ctx, _):
        return (await ctx.race(ctx.start_child("kid"), ctx.wait_for_event("x"))).index

    for first, index in (("child", 0), ("event", 1)):
        drive = Drive(subject)
        source = drive.child("kid")
        for what in (first, "event" if first == "child" else "child"):
            drive.put_end(source) if what == "child" else drive.put("x")
        turn = drive.turn()
        assert drive.output == index
        assert turn.extras.recalled == () or index == 1


def test_a_child_that_is_given_up_in_the_turn_that_asked_is_never_started():
    async def subject(ctx, _):
        ready = ctx.start_child("kid")
        ready.cancel()
        await ctx.wait_for_event("x")

    drive = Drive(subject)
    assert (drive.turns[0].extras.started, drive.turns[0].extras.recalled) == ((), ())
    assert drive.commands == ["child kid", "cancel 2", "event x"]


def test_a_cancelled_parent_gives_up_the_child_that_it_awaits():
    async def subject(ctx, _):
        await ctx.start_child("kid")

    drive = Drive(subject)
    turn = drive.cancel()
    assert isinstance(drive.ending, ExecutionCancelled)
    assert [child.name for child in turn.extras.recalled] == ["kid"]


def test_12_what_is_started_in_the_turn_that_continues_as_new_is_started():
    """Scenario 12."""

    async def subject(ctx, _):
        ctx.start_child("kid", 1, on_parent_close="terminate")
        ctx.start_detached("other", 2)
        ctx.schedule_activity("never")
        ctx.continue_as_new(1)

    drive = Drive(subject)
    assert isinstance(drive.ending, ContinuedAsNew)
    assert [(type(event), event.name) for event in drive.turns[0].extras.started] == [
        (ChildStarted, "kid"),
        (DetachedStarted, "other"),
    ]
    assert drive.turns[0].scheduled == ()


def test_17_a_parent_gets_fresh_child_ids_in_each_execution_and_life():
    """Scenario 17."""
    made = {
        Drive(one_child, identity=identity).turns[0].extras.started[0].child_id
        for identity in (
            SUBJECT,
            replace(SUBJECT, execution=2),
            replace(SUBJECT, incarnation="another life"),
            replace(SUBJECT, instance_id="subject-2"),
        )
    }
    assert len(made) == 4
    again = Drive(one_child)
    assert again.turns[0].extras.started[0].child_id in made


def test_a_made_id_that_would_be_too_long_is_a_digest():
    long = replace(SUBJECT, instance_id="x" * 1020)
    (started,) = Drive(one_child, identity=long).turns[0].extras.started
    assert len(started.child_id) == 32
    (other_one,) = Drive(one_child, identity=replace(long, execution=2)).turns[0].extras.started
    assert other_one.child_id != started.child_id


def test_a_thousand_children_are_ordinary():
    async def subject(ctx, _):
        return sum(await ctx.gather(*(ctx.start_child("kid", number) for number in range(1024))))

    drive = Drive(subject)
    assert len(drive.turns[0].extras.started) == 1024
    for number in reversed(range(1024)):
        drive.put_end(2 + number, number)
    drive.turn()
    assert drive.output == sum(range(1024))


def test_a_timer_goes_on_beside_a_child_that_never_ends():
    async def subject(ctx, _):
        ctx.start_child("kid")
        await ctx.schedule_timer(MINUTE)
        return "on time"

    drive = Drive(subject)
    drive.advance(60)
    assert drive.output == "on time"
    assert any(isinstance(event, TimerFired) for event in drive.events)


# --- names, types, arguments ---


@dataclass
class Order:
    number: int


@dataclass
class Receipt:
    price: int


async def sell(ctx, order: Order) -> Receipt:
    return Receipt(order.number)


async def sell_twice(ctx, order: Order) -> Receipt:
    return Receipt(2 * order.number)


def run(function, *registered, limits=None):
    """Return an execution of a function that is registered as ``subject`` beside others, after its
    first turn.
    """
    builder = OrchestrationRegistry.builder().register("subject", function)
    for name, version, entry in registered:
        builder.register(name, entry, version=version)
    execution = Execution(builder.build().get("subject", "1.0.0"), SUBJECT, limits or Limits())
    execution.start(EMPTY, 0)
    return execution, execution.turn(0)


def test_a_function_goes_by_the_name_that_it_has_in_the_registry_and_its_result_has_its_type():
    async def subject(ctx, _):
        receipt = await ctx.start_child(sell, Order(3))
        return receipt.price + 1

    execution, turn = run(subject, ("shop", "1.0.0", sell), ("shop", "2.0.0", sell_twice))
    (started,) = turn.extras.started
    assert (started.name, started.version, plain(started.input)) == ("shop", None, {"number": 3})
    output = encode({"price": 4}, subject="output")
    execution.turn(
        1, inbox=[MessageRow(1, "m1", "child", output, 1, MessageKind.CHILD_COMPLETED, started.id)]
    )
    assert plain(execution.ending.output) == 5


def test_a_result_that_does_not_fit_is_raised_where_it_is_awaited():
    async def subject(ctx, _):
        try:
            await ctx.start_child("kid", returns=Receipt)
        except DecodeError as error:
            return error.subject

    drive = Drive(subject)
    drive.ended("kid", "no receipt")
    assert drive.output == "result of child 'subject-1.incarnat.1.2' in 'subject'"


def test_the_result_of_a_name_is_plain_json_or_what_the_call_says():
    async def subject(ctx, _):
        first = await ctx.start_child("kid")
        second = await ctx.start_child("kid", returns=Receipt)
        return [first["price"], second.price]

    drive = Drive(subject)
    drive.ended("kid", {"price": 1})
    drive.ended("kid", {"price": 2})
    assert drive.output == [1, 2]


async def a_stranger(ctx, _):
    return None


REFUSED = {
    "what is no function": (
        lambda ctx: ctx.start_child([sell]),
        UnknownOrchestration,
        "register it",
    ),
    "a function that is not registered": (
        lambda ctx: ctx.start_child(a_stranger),
        UnknownOrchestration,
        "register it",
    ),
    "a function of two names": (
        lambda ctx: ctx.start_child(sell, Order(1)),
        InvalidFunction,
        "'shop' and as 'stall'",
    ),
    "a version that is none": (
        lambda ctx: ctx.start_child("shop", version="one"),
        InvalidVersion,
        "one",
    ),
    "an empty id": (
        lambda ctx: ctx.start_child("shop", instance_id=""),
        InvalidArgument,
        "must not be empty",
    ),
    "a long id": (
        lambda ctx: ctx.start_child("shop", instance_id="x" * 1025),
        InvalidArgument,
        "1024",
    ),
    "a name with NUL": (
        lambda ctx: ctx.start_child("a\0b"),
        InvalidArgument,
        "an orchestration's name must not hold NUL",
    ),
    "an id with half a pair": (
        lambda ctx: ctx.start_child("shop", instance_id="\ud83d"),
        InvalidArgument,
        "surrogate pair",
    ),
    "a queue that is no text": (
        lambda ctx: ctx.start_child("shop", queue=5),
        InvalidArgument,
        "a queue must be text, not int",
    ),
    "a detached name with NUL": (
        lambda ctx: ctx.start_detached("a\0b"),
        InvalidArgument,
        "name must not hold NUL",
    ),
    "a detached id with NUL": (
        lambda ctx: ctx.start_detached("shop", instance_id="\0"),
        InvalidArgument,
        "must not hold NUL",
    ),
    "an empty name": (lambda ctx: ctx.start_child(""), InvalidArgument, "must not be empty"),
    "an unknown on_parent_close": (
        lambda ctx: ctx.start_child("shop", on_parent_close="die"),
        InvalidArgument,
        "terminate",
    ),
    "a large input": (
        lambda ctx: ctx.start_child("shop", "x" * 2000),
        PayloadTooLarge,
        "input of child 'shop' in 'subject'",
    ),
    "a large detached input": (
        lambda ctx: ctx.start_detached("shop", "x" * 2000),
        PayloadTooLarge,
        "input of child 'shop'",
    ),
    "a detached stranger": (
        lambda ctx: ctx.start_detached(a_stranger),
        UnknownOrchestration,
        "register it",
    ),
    "a detached long id": (
        lambda ctx: ctx.start_detached("shop", instance_id="x" * 1025),
        InvalidArgument,
        "1024",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_started_is_a_typed_error_at_once_and_asks_for_nothing(case):
    call, error, words = REFUSED[case]

    async def subject(ctx, _):
        try:
            call(ctx)
        except error as caught:
            return str(caught)

    execution, turn = run(
        subject, ("shop", "1.0.0", sell), ("stall", "1.0.0", sell), limits=Limits(max_payload=1000)
    )
    assert turn.extras.started == ()
    assert isinstance(execution.ending, ExecutionCompleted), execution.ending
    assert words in plain(execution.ending.output)


def test_a_context_that_is_used_elsewhere_starts_nothing():
    kept = []

    async def subject(ctx, _):
        kept.append(ctx)
        await ctx.wait_for_event("x")

    execution = fresh(subject)
    execution.start(EMPTY, 0)
    with pytest.raises(Exception, match="outside its orchestration's code"):
        kept[0].start_child("kid")
    with pytest.raises(Exception, match="outside its orchestration's code"):
        kept[0].start_detached("kid")
    execution.evict()


def test_the_summary_names_children_with_their_ids():
    async def subject(ctx, _):
        await ctx.gather(
            ctx.start_child("kid", version="1.0.0", instance_id="mine"), ctx.wait_for_event("x")
        )

    drive = Drive(subject)
    summary = read_summary(
        write_summary(drive.execution.pending, drive.execution.commands.counts, lambda _: None)
    )
    assert summary.counts == {"child": 1, "event": 1}
    assert [(entry.kind, entry.name, entry.child) for entry in summary.entries] == [
        ("child", "kid", ("mine", "1.0.0")),
        ("event", "x", None),
    ]
