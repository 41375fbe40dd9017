"""Background children in the pure core: started, awaited in this lap or a later one, repeated."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Generic, TypeVar

import pytest

from orchestra import OrchestrationContext, OrchestrationRegistry
from orchestra.children import ChildHandle, Link, handle_of, result_of
from orchestra.codec import Payload, decoder, encode
from orchestra.errors import (
    ChildFailed,
    DecodeError,
    EventTimeout,
    InvalidArgument,
    LevelTooLow,
    NondeterminismError,
    OperationCancelled,
    RegistrationError,
    StaleChildHandle,
)
from orchestra.events import (
    EVENTS,
    ChildAwaited,
    ChildEnded,
    ChildStarted,
    CommandCancelled,
    ContinuedAsNew,
    OnParentClose,
    from_record,
    to_record,
)
from orchestra.replay import Execution, Identity
from orchestra.replay.inbox import Inbox
from orchestra.store.kinds import MessageKind, Status
from orchestra.store.messages import EndName, InboxPage, MessageRow
from orchestra.summary import read_summary, write_summary
from tests.support.driver import SUBJECT, Drive, define, fresh, prefixes, replay

BOTH = pytest.mark.parametrize("cold", [False, True])
LINK = "subject-1/incarnation-1/1/2"
"""The command of :func:`starts_and_waits` that starts its child."""
FORMER = "subject-1/incarnation-1/7/4"
"""A command of an earlier lap."""

T = TypeVar("T")


@dataclass
class Report:
    lines: int


@dataclass
class Loop:
    child: ChildHandle[Report] | None = None
    others: tuple[ChildHandle[int], ...] = ()


async def starts_and_waits(ctx, _):
    handle = ctx.start_background_child("kid", {"n": 1}, returns=int, instance_id="kid-1")
    return await ctx.wait_for_child(handle)


async def hands_over(ctx, _):
    handle = ctx.start_background_child("kid", instance_id="kid-1")
    ctx.continue_as_new({"handle": [handle.instance_id, handle.orchestration, handle.link]})


async def goes_on(ctx, link):
    try:
        return await ctx.wait_for_child(ChildHandle("kid-1", "kid", link))
    except (ChildFailed, StaleChildHandle) as error:
        return [type(error).__name__, error.orchestration, error.child_id, str(error)]


async def waits_again_and_again(ctx, link):
    handle = ChildHandle("kid-1", "kid", link)
    first = await ctx.gather(ctx.wait_for_child(handle), ctx.wait_for_child(handle))
    return [*first, await ctx.wait_for_child(handle)]


async def races_a_timer(ctx, link):
    handle = ChildHandle("kid-1", "kid", link)
    got = await ctx.race(ctx.wait_for_child(handle), ctx.schedule_timer(timedelta(seconds=5)))
    if got.index == 0:
        return ["in time", got.value]
    return ["late", await ctx.wait_for_child(handle)]


async def waits_in_time(ctx, link):
    handle = ChildHandle("kid-1", "kid", link)
    try:
        return await ctx.wait_for_child(handle, timeout=timedelta(seconds=5))
    except EventTimeout as error:
        await ctx.schedule_activity("a")
        return [error.event, str(error), await ctx.wait_for_child(handle)]


async def waits_after_an_activity(ctx, link):
    await ctx.schedule_activity("a")
    return await ctx.wait_for_child(ChildHandle("kid-1", "kid", link))


# --- starting and awaiting ---


@BOTH
def test_a_background_child_is_started_at_once_and_its_end_is_given_to_who_awaits_it(cold):
    drive = Drive(starts_and_waits, cold=cold)
    (started,) = drive.turns[-1].extras.started
    assert isinstance(started, ChildStarted)
    assert (started.on_parent_close, started.child_id) == (OnParentClose.KEEP, "kid-1")
    assert drive.pending == ["end of kid-1"], "the start itself is nothing to wait for"
    turn = drive.background_ended(LINK, 7)
    assert turn.consumed == (1,)
    assert drive.output == 7
    end = next(event for event in drive.events if isinstance(event, ChildEnded))
    assert (end.child_id, end.link, end.status, end.sequence) == ("kid-1", LINK, "completed", 1)


def test_a_start_in_the_last_turn_of_a_lap_happens_and_the_state_has_its_handle():
    drive = Drive(hands_over)
    assert isinstance(drive.ending, ContinuedAsNew)
    assert [event.child_id for event in drive.turns[-1].extras.started] == ["kid-1"]
    assert drive.ending.state == Payload(b'{"handle":["kid-1","kid","' + LINK.encode() + b'"]}')


@BOTH
def test_a_later_lap_awaits_the_end_that_has_come_before_or_comes_later(cold):
    drive = Drive(goes_on, FORMER, cold=cold)
    drive.background_ended(FORMER, "made")
    assert drive.output == "made"
    early = Drive(waits_after_an_activity, FORMER, cold=cold)
    early.background_ended(FORMER, "made")
    assert [message.sequence for message in early.inbox] == [1], "it waits until code asks"
    early.done("a")
    assert early.output == "made"


@BOTH
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.FAILED, "failed: ValueError: boom"),
        (Status.CANCELLED, "was cancelled: ValueError: boom"),
        (Status.TERMINATED, "was terminated: ValueError: boom"),
    ],
)
def test_a_child_that_does_not_complete_raises_as_an_ordinary_one_does(cold, status, words):
    drive = Drive(goes_on, FORMER, cold=cold)
    drive.background_ended(FORMER, "boom", status)
    assert drive.output == ["ChildFailed", "kid", "kid-1", f"child 'kid-1' (kid) {words}"]


def test_an_end_without_an_error_names_how_the_child_has_ended():
    drive = Drive(goes_on, FORMER)
    drive.inbox.append(
        MessageRow(1, FORMER, "kid-1", Payload(b""), 0, MessageKind.BACKGROUND_CHILD_ENDED, 3)
    )
    drive.turn()
    assert drive.output[3] == "child 'kid-1' (kid) was cancelled: orchestra.cancelled"


@BOTH
def test_the_lap_that_has_received_an_end_may_await_it_as_often_as_it_likes(cold):
    drive = Drive(waits_again_and_again, FORMER, cold=cold)
    turn = drive.background_ended(FORMER, 5)
    assert turn.consumed == (1,)
    assert drive.output == [5, 5, 5]
    ends = [event for event in drive.events if isinstance(event, ChildEnded)]
    assert [(end.source, end.sequence) for end in ends] == [(2, 1), (3, 1), (6, 1)]
    for history in prefixes(drive.history):
        replay(waits_again_and_again, history)


@BOTH
def test_a_wait_that_loses_a_race_leaves_the_end_for_the_next_wait(cold):
    drive = Drive(races_a_timer, FORMER, cold=cold)
    drive.advance(5)
    assert any(isinstance(event, CommandCancelled) for event in drive.events)
    drive.background_ended(FORMER, 1)
    assert drive.output == ["late", 1]
    quick = Drive(races_a_timer, FORMER, cold=cold)
    quick.background_ended(FORMER, 2)
    assert quick.output == ["in time", 2]


@BOTH
def test_a_wait_ends_with_its_timeout_and_takes_no_later_end(cold):
    drive = Drive(waits_in_time, FORMER, cold=cold)
    drive.advance(5)
    drive.background_ended(FORMER, 3)
    assert [message.sequence for message in drive.inbox] == [1]
    drive.done("a")
    assert drive.output == [
        "kid-1",
        "no end of child 'kid-1' has come within 5 s",
        3,
    ]


@BOTH
def test_a_cancel_of_the_parent_gives_up_the_wait_and_leaves_the_child_alone(cold):
    drive = Drive(starts_and_waits, cold=cold)
    turn = drive.cancel()
    assert turn.extras.recalled == ()
    assert drive.ending is not None


def test_an_end_of_another_child_is_left_in_the_inbox():
    drive = Drive(goes_on, FORMER)
    drive.background_ended("subject-1/incarnation-1/7/9", "other")
    assert drive.pending == ["end of kid-1"]
    assert [message.sequence for message in drive.inbox] == [1]


# --- handles of other lives ---


@BOTH
@pytest.mark.parametrize(
    "link", ["subject-1/incarnation-0/1/2", "subject-2/incarnation-1/1/2", "nonsense"]
)
def test_a_handle_of_another_life_raises_at_once(cold, link):
    drive = Drive(goes_on, link, cold=cold)
    assert drive.output == [
        "StaleChildHandle",
        "kid",
        "kid-1",
        f"the end of child 'kid-1' (kid) does not come here: another life of an instance has "
        f"started it ({link}). Await a handle in the life that has started its child; to stop the "
        "child, use ctx.cancel(handle.instance_id)",
    ]
    end = next(event for event in drive.events if isinstance(event, ChildEnded))
    assert (end.status, end.sequence) == ("lost", 0)


@BOTH
def test_an_end_that_a_rewind_has_put_back_counts_for_a_handle_of_the_former_life(cold):
    former = "subject-1/incarnation-0/1/2"
    drive = Drive(waits_after_an_activity, former, cold=cold)
    drive.put_background_end(former, "kept")
    drive.done("a")
    assert drive.output == "kept"


# --- what the code must not do ---


@pytest.mark.parametrize("handle", [None, "kid-1", 7])
def test_what_is_no_handle_is_refused(handle):
    async def waits(ctx, _):
        await ctx.wait_for_child(handle)

    drive = Drive(waits)
    assert drive.error.type.endswith("InvalidArgument")
    assert "start_background_child returns one" in drive.error.message


def test_keep_is_no_option_of_an_ordinary_child():
    async def starts(ctx, _):
        ctx.start_child("kid", on_parent_close="keep")

    drive = Drive(starts)
    assert drive.error.message == (
        "on_parent_close is 'keep'; give one of abandon, cancel, terminate"
    )


def test_a_result_that_does_not_fit_raises_at_the_await():
    async def waits(ctx, _):
        handle = ctx.start_background_child("kid", returns=int)
        try:
            await ctx.wait_for_child(handle)
        except DecodeError as error:
            return error.subject

    drive = Drive(waits)
    drive.background_ended(LINK, "text")
    assert drive.output.startswith("result of child 'subject-1.")


@pytest.mark.parametrize("code", [starts_and_waits, goes_on])
def test_code_waits_until_the_stores_write_level_has_risen(code):
    execution = Execution(
        define(code), SUBJECT, fresh(code).commands.limits, writer=EVENTS.writer(level=2)
    )
    with pytest.raises(LevelTooLow, match="write level has risen"):
        execution.start(encode(FORMER, subject="state"), 0)


def test_other_code_does_not_repeat_a_history_with_a_background_child():
    async def ordinary(ctx, _):
        return await ctx.start_child("kid", {"n": 1}, instance_id="kid-1")

    async def another(ctx, _):
        handle = ctx.start_background_child("lad", {"n": 1}, instance_id="kid-1")
        return await ctx.wait_for_child(handle)

    async def waits_elsewhere(ctx, _):
        ctx.start_background_child("kid", {"n": 1}, instance_id="kid-1")
        return await ctx.wait_for_child(ChildHandle("kid-1", "lad", LINK))

    drive = Drive(starts_and_waits)
    for code, words in (
        (ordinary, "background child 'kid' 'kid-1', but the code asks for child 'kid' 'kid-1'"),
        (another, "another orchestration"),
        (waits_elsewhere, "a wait for child 'kid' 'kid-1', but the code asks for a wait for"),
    ):
        with pytest.raises(NondeterminismError, match=words):
            replay(code, drive.history)


def test_another_handle_of_the_same_orchestration_is_a_drift_and_history_counts():
    async def waits_elsewhere(ctx, _):
        ctx.start_background_child("kid", {"n": 1}, instance_id="kid-1")
        return await ctx.wait_for_child(ChildHandle("kid-2", "kid", FORMER))

    drive = Drive(starts_and_waits)
    twin = replay(waits_elsewhere, drive.history)
    assert [drift.difference for drift in twin.drifts] == ["child 'kid-2' instead of 'kid-1'"]
    drive.put_background_end(LINK, 4)
    turn = twin.turn(0, (), list(drive.inbox))
    assert turn.ending is not None


# --- forms ---


@pytest.mark.parametrize(
    "event",
    [
        ChildStarted(2, 5, "kid", None, "kid-1", OnParentClose.KEEP, Payload(b"1")),
        ChildAwaited(2, 5, "kid", "kid-1", LINK),
        ChildEnded(2, 5, 1, "kid-1", LINK, "completed", 3, Payload(b"null")),
        ChildEnded(2, 5, 1, "kid-1", LINK, "lost", 0),
    ],
)
def test_the_events_come_back_from_their_stored_form(event):
    record = to_record(event, EVENTS.writer(level=3))
    assert from_record(record) == event
    if not isinstance(event, ChildStarted):
        assert EVENTS.level([record]) == 3


def test_what_an_instance_waits_for_names_the_child():
    drive = Drive(starts_and_waits)
    execution = drive.execution
    data = write_summary(execution.pending, execution.commands.counts, lambda _: None, (), None)
    summary = read_summary(data)
    assert dict(summary.counts) == {"child": 1}
    (entry,) = summary.entries
    assert (entry.kind, entry.name, entry.child) == ("child", "kid", ("kid-1", None))


def test_ordinary_and_background_children_are_counted_together():
    async def both(ctx, _):
        handle = ctx.start_background_child("kid", instance_id="kid-1")
        await ctx.gather(ctx.start_child("kid"), ctx.wait_for_child(handle))

    execution = Drive(both).execution
    data = write_summary(execution.pending, execution.commands.counts, lambda _: None)
    assert dict(read_summary(data).counts) == {"child": 2}


def test_all_ends_are_in_memory_whatever_the_room_and_events_are_not_hidden_by_them():
    end = MessageRow(2, LINK, "kid-1", Payload(b"1" * 50), 0, MessageKind.BACKGROUND_CHILD_ENDED, 1)
    inbox = Inbox(room=InboxPage(1, 10), up_to=0)
    event = MessageRow(1, "m", "go", Payload(b"1"), 0)
    inbox.arrive([event, end, replace(end, sequence=3, message_id=FORMER)], 3, 3)
    assert (inbox.head(EndName(LINK)), inbox.is_open(EndName("none"))) == (end, False)
    inbox.drop_reports()
    assert inbox.take(EndName(FORMER)).sequence == 3
    assert (len(inbox), inbox.head("go"), inbox.head(EndName(FORMER))) == (1, event, None)


# --- handles as values ---


def test_a_handle_in_the_state_knows_by_its_annotation_how_the_result_is_read():
    reads = decoder(Loop)
    made = handle_of("kid-1", "kid", LINK, decoder(Report))
    stored = reads.encode(Loop(made, (replace(made, instance_id="kid-2"),)), subject="state")
    assert stored.data == (
        b'{"child":{"instance_id":"kid-1","orchestration":"kid","link":"' + LINK.encode() + b'"},'
        b'"others":[{"instance_id":"kid-2","orchestration":"kid","link":"' + LINK.encode() + b'"}]}'
    )
    read = reads.decode(stored, subject="state")
    assert read.child == made
    assert hash(read.child) == hash(made)
    assert result_of(read.child).decode(Payload(b'{"lines":2}'), subject="r") == Report(2)
    assert result_of(read.others[0]).decode(Payload(b"7"), subject="r") == 7
    with pytest.raises(DecodeError):
        result_of(read.others[0]).decode(Payload(b'"7"'), subject="r")


def test_copies_of_a_handle_know_it_too():
    made = handle_of("kid-1", "kid", LINK, decoder(Report))
    for other in (copy.copy(made), copy.deepcopy(Loop(made)).child, replace(made)):
        assert other == made
        assert result_of(other).decode(Payload(b'{"lines":2}'), subject="r") == Report(2)
    stored = pickle.loads(pickle.dumps(made))
    assert (stored, type(stored.link)) == (made, Link)


@dataclass
class Box(Generic[T]):
    child: ChildHandle[T]
    plain: ChildHandle[Any]


def test_a_handle_inside_a_generic_class_and_one_of_any():
    reads = decoder(Box[Report])
    made = handle_of("kid-1", "kid", LINK, decoder(Report))
    read = reads.decode(reads.encode(Box(made, made), subject="s"), subject="s")
    assert result_of(read.child).decode(Payload(b'{"lines":2}'), subject="r") == Report(2)
    assert result_of(read.plain).decode(Payload(b'{"lines":2}'), subject="r") == {"lines": 2}


def test_a_handle_of_what_has_no_json_form_is_refused_at_registration():
    async def loop(ctx: OrchestrationContext, state: ChildHandle[threading_lock]) -> None: ...

    with pytest.raises(RegistrationError):
        OrchestrationRegistry.builder().register("loop", loop).build()


class threading_lock:
    """A class without a JSON form."""

    def __init__(self) -> None:
        self.held = False


def test_a_handle_without_an_annotation_is_plain_json():
    made = handle_of("kid-1", "kid", LINK, decoder(Report))
    assert encode({"h": made}, subject="value").data.startswith(
        b'{"h":{"orchestra:type":"ChildHandle","instance_id":"kid-1"'
    )
    assert result_of(ChildHandle("a", "b", "c")).decode(Payload(b"[1]"), subject="r") == [1]


def test_a_wait_needs_an_open_execution_and_the_identity_of_the_lap_is_no_part_of_it():
    later = Identity("subject-1", "incarnation-1", 9, "subject", "1.0.0")
    drive = Drive(goes_on, FORMER, identity=later)
    drive.background_ended(FORMER, "made")
    assert drive.output == "made"


def test_a_wait_that_was_given_up_raises_where_it_is_awaited():
    async def gives_up(ctx, link):
        wait = ctx.wait_for_child(ChildHandle("kid-1", "kid", link))
        wait.cancel()
        try:
            await wait
        except OperationCancelled:
            return await ctx.wait_for_child(ChildHandle("kid-1", "kid", link))

    drive = Drive(gives_up, FORMER)
    drive.background_ended(FORMER, 6)
    assert drive.output == 6


def test_a_timeout_must_be_a_duration():
    async def waits(ctx, link):
        await ctx.wait_for_child(ChildHandle("kid-1", "kid", link), timeout=5)

    assert Drive(waits, FORMER).error.type.endswith(InvalidArgument.__name__)
