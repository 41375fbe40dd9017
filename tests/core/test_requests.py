"""Requests in code: received in order, answered once, muted on replay, and received again where no
answer was given (rule 33, scenario 75).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from orchestra.codec import Payload
from orchestra.context import Limits
from orchestra.errors import (
    EncodeError,
    EventTimeout,
    Evicted,
    InvalidArgument,
    LevelTooLow,
    NondeterminismError,
    OrchestrationError,
)
from orchestra.events import EVENTS, RequestAwaited, RequestReceived
from orchestra.replay import Execution, Inbox
from orchestra.store.kinds import MessageKind
from orchestra.store.messages import MessageRow, RequestName, Unread
from tests.support.driver import SUBJECT, Drive, define, replay


@dataclass
class Item:
    name: str
    count: int = 1


both = pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])


async def two_items(ctx, _):
    first = await ctx.wait_for_request("add", Item, returns=int)
    first.reply(first.value.count)
    second = await ctx.wait_for_request("add", Item, returns=int)
    second.reject("sold out")
    return [first.value.name, second.request_id]


@both
def test_requests_are_answered_in_the_order_of_their_arrival(cold):
    drive = Drive(two_items, cold=cold)
    assert drive.pending == ["request add"]
    drive.ask("add", {"name": "x", "count": 2})
    drive.ask("add", {"name": "y"})
    assert drive.output == ["x", "r2"]
    assert drive.answers == {"r1": 2, "r2": "no: sold out"}
    assert drive.inbox == []


@both
def test_a_request_that_came_before_the_wait_is_received(cold):
    async def code(ctx, _):
        await ctx.schedule_timer(timedelta(seconds=1))
        request = await ctx.wait_for_request("add")
        request.reply(request.value)

    drive = Drive(code, cold=cold)
    turn = drive.ask("add", 7)
    assert (turn.events, turn.extras.answers) == ((), ())
    drive.advance(1)
    assert drive.answers == {"r1": 7}


@both
def test_events_and_requests_of_a_name_are_two_queues(cold):
    async def code(ctx, _):
        event = await ctx.wait_for_event("add")
        request = await ctx.wait_for_request("add")
        request.reply(event)

    drive = Drive(code, cold=cold)
    drive.put_request("add", "asked")
    drive.put("add", "sent")
    drive.turn()
    assert drive.answers == {"r1": "sent"}


@both
def test_a_request_is_answered_in_a_later_turn_and_not_received_twice(cold):
    async def code(ctx, _):
        first = await ctx.wait_for_request("add")
        second = await ctx.wait_for_request("add")
        await ctx.schedule_timer(timedelta(seconds=1))
        second.reply("second")
        await ctx.schedule_timer(timedelta(seconds=1))
        first.reply("first")

    drive = Drive(code, cold=cold)
    drive.ask("add", 1)
    assert drive.pending == ["request add"], "the one in hand stays in the inbox and is passed over"
    drive.ask("add", 2)
    assert [one.sequence for one in drive.inbox] == [1, 2]
    drive.advance(1)
    assert (drive.answers, [one.sequence for one in drive.inbox]) == ({"r2": "second"}, [1])
    drive.advance(1)
    assert drive.answers == {"r2": "second", "r1": "first"}


@both
def test_several_waits_of_a_name_get_requests_in_the_order_of_the_waits(cold):
    async def serve(ctx, mark):
        request = await ctx.wait_for_request("add", int, returns=str)
        request.reply(f"{mark}{request.value}")

    async def code(ctx, _):
        await ctx.gather(serve(ctx, "a"), serve(ctx, "b"))

    drive = Drive(code, cold=cold)
    drive.put_request("add", 1)
    drive.put_request("add", 2)
    drive.turn()
    assert drive.answers == {"r1": "a1", "r2": "b2"}


@both
def test_a_wait_that_lost_its_race_takes_no_request(cold):
    async def code(ctx, _):
        await ctx.race(ctx.wait_for_request("add"), ctx.schedule_timer(timedelta(seconds=1)))
        await ctx.schedule_timer(timedelta(seconds=1))
        request = await ctx.wait_for_request("add")
        request.reply("late")

    drive = Drive(code, cold=cold)
    drive.advance(1)
    turn = drive.ask("add")
    assert turn.events == ()
    drive.advance(1)
    assert drive.answers == {"r1": "late"}


@both
def test_a_wait_with_a_timeout_ends_in_time(cold):
    async def code(ctx, _):
        try:
            await ctx.wait_for_request("add", timeout=timedelta(seconds=2))
        except EventTimeout as error:
            return str(error)

    drive = Drive(code, cold=cold)
    drive.advance(2)
    assert drive.output == "no request 'add' has come within 2 s"


@both
def test_a_request_that_does_not_fit_is_rejected_without_the_code(cold):
    drive = Drive(two_items, cold=cold)
    turn = drive.ask("add", {"count": 2})
    assert turn.events == (), "history knows nothing of it"
    assert (turn.extras.set_aside, turn.consumed) == ((), ())
    assert "request 'add' for 'subject-1'" in drive.answers["r1"]
    assert "name" in drive.answers["r1"]
    assert [entry.level for entry in turn.extras.logs] == [logging.WARNING]
    drive.ask("add", {"name": "x"})
    assert drive.answers["r2"] == 1


@both
def test_a_validator_that_refuses_rejects_with_its_words(cold):
    @dataclass
    class Positive:
        count: int

        def __post_init__(self):
            if self.count < 1:
                raise ValueError(f"{self.count} is not positive")

    async def code(ctx, _):
        (await ctx.wait_for_request("add", Positive)).reply(None)

    drive = Drive(code, cold=cold)
    drive.ask("add", {"count": 0})
    assert "0 is not positive" in drive.answers["r1"]
    assert drive.ending is None
    drive.ask("add", {"count": 1})
    assert drive.answers["r2"] is None


@both
def test_the_first_answer_wins_and_later_ones_are_logged(cold):
    async def code(ctx, _):
        request = await ctx.wait_for_request("add", returns=int)
        assert not request.answered
        request.reply(1)
        assert request.answered
        request.reply(2)
        await ctx.schedule_timer(timedelta(seconds=1))
        request.reject("no")

    drive = Drive(code, cold=cold)
    turn = drive.ask("add")
    assert [entry.message[:38] for entry in turn.extras.logs] == [
        "request 'add' 'r1' is answered already"
    ]
    turn = drive.advance(1)
    assert len(turn.extras.logs) == 1
    assert drive.answers == {"r1": 1}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda request: request.reply("seven"), EncodeError),
        (lambda request: request.reply(object()), EncodeError),
        (lambda request: request.reject(""), InvalidArgument),
        (lambda request: request.reject(7), InvalidArgument),
    ],
)
def test_an_answer_that_cannot_travel_is_an_error_in_the_code_and_leaves_the_request_open(
    answer, error
):
    async def code(ctx, _):
        request = await ctx.wait_for_request("add", returns=int)
        with pytest.raises(error):
            answer(request)
        request.reply(7)

    drive = Drive(code)
    drive.ask("add")
    assert drive.answers == {"r1": 7}


def test_a_request_is_answered_by_its_own_code_alone():
    found = []

    async def code(ctx, _):
        found.append(await ctx.wait_for_request("add"))
        await ctx.wait_for_event("never")

    drive = Drive(code)
    drive.ask("add")
    with pytest.raises(OrchestrationError, match="outside its orchestration's code"):
        found[0].reply(1)
    drive.execution.evict()
    with pytest.raises(Evicted):
        found[0].reply(1)


@both
def test_an_answer_and_the_end_are_one_turn(cold):
    async def code(ctx, _):
        request = await ctx.wait_for_request("stop")
        request.reply("stopped")
        raise ValueError("enough")

    drive = Drive(code, cold=cold)
    turn = drive.ask("stop")
    assert (drive.answers, turn.ending) == ({"r1": "stopped"}, drive.ending)
    assert drive.error.message == "enough"


@both
def test_a_cancelled_branch_leaves_what_it_has_not_received(cold):
    async def code(ctx, _):
        wait = ctx.wait_for_request("add")
        await ctx.wait_for_event("go")
        wait.cancel()
        await ctx.wait_for_event("go")
        (await ctx.wait_for_request("add")).reply("now")

    drive = Drive(code, cold=cold)
    drive.send("go")
    turn = drive.ask("add", request_id="mine")
    assert turn.events == ()
    drive.send("go")
    assert drive.answers == {"mine": "now"}


def test_what_the_next_lap_has_not_answered_is_received_again():
    async def code(ctx, _):
        await ctx.wait_for_request("add")
        await ctx.wait_for_event("boundary")
        ctx.continue_as_new(None)

    drive = Drive(code)
    drive.ask("add", 1)
    drive.send("boundary")
    inbox = [one for one in drive.inbox if one.kind is MessageKind.REQUEST]
    assert len(inbox) == 1
    following = Execution(define(two_any), SUBJECT, Limits(), {}, writer=EVENTS.writer(level=3))
    following.start(Payload(b"null"), 0)
    turn = following.turn(0, (), inbox)
    assert [answer.request_id for answer in turn.extras.answers] == ["r1"]


async def two_any(ctx, _):
    (await ctx.wait_for_request("add")).reply(1)
    (await ctx.wait_for_request("add")).reply(2)


def test_replay_gives_no_answer_again():
    drive = Drive(two_any)
    drive.ask("add")
    twin = replay(two_any, drive.history)
    turn = twin.turn(drive.now, (), [])
    assert (turn.events, turn.extras.answers) == ((), ())
    assert dict(twin.commands.in_hand) == {}
    drive.ask("add")
    assert drive.answers == {"r1": 1, "r2": 2}


def test_code_that_waits_for_another_request_than_history_says_is_nondeterministic():
    async def other(ctx, _):
        await ctx.wait_for_request("remove")

    drive = Drive(two_any)
    with pytest.raises(NondeterminismError, match="another request name"):
        replay(other, drive.history)


def test_history_tells_of_the_wait_and_the_request_and_not_of_the_answer():
    drive = Drive(two_any)
    drive.ask("add", 7, "mine")
    awaited, received, again = drive.events[1:]
    assert awaited == RequestAwaited(2, 0, "add")
    assert received == RequestReceived(3, 0, 2, "add", 1, "mine", Payload(b"7"))
    assert isinstance(again, RequestAwaited)


def test_code_waits_where_the_write_level_is_too_low():
    execution = Execution(define(two_any), SUBJECT, Limits(), {}, writer=EVENTS.writer(level=2))
    with pytest.raises(LevelTooLow, match="request 'add'"):
        execution.start(Payload(b"null"), 0)


# --- the part of the inbox that is in memory ---


def a_message(sequence: int, **changes: Any) -> MessageRow:
    fields: dict[str, Any] = {"payload": Payload(b"1"), "sent_at": 0, "kind": MessageKind.REQUEST}
    return MessageRow(sequence, f"r{sequence}", "add", **{**fields, **changes})


def test_what_is_given_back_is_read_again_with_all_behind_it():
    name = RequestName("add")
    inbox = Inbox([a_message(number) for number in (1, 2, 3)], up_to=3)
    assert [inbox.take(name).sequence for _ in range(2)] == [1, 2]
    inbox.end_lap({1: name}, {1: name})
    assert inbox.head(name) is None
    assert inbox.is_open(name)
    assert len(inbox) == 0
    assert inbox.read_from([name]) == {name: 0}
    inbox.read({name: Unread((a_message(1), a_message(3)), 3)}, [name])
    assert [inbox.take(name).sequence for _ in range(2)] == [1, 3]
    assert not inbox.is_open(name)


def test_what_is_given_back_of_an_emptied_queue_is_read_again():
    name = RequestName("add")
    inbox = Inbox([a_message(1), a_message(2)], up_to=2)
    assert [inbox.take(name).sequence for _ in range(2)] == [1, 2]
    inbox.end_lap({1: name, 2: name}, {1: name, 2: name})
    assert inbox.is_open(name)
    assert inbox.read_from([name]) == {name: 0}
    inbox.arrive([a_message(3)], 3, 3)
    inbox.read({name: Unread((a_message(1), a_message(2), a_message(3)), 3)}, [name])
    assert [inbox.take(name).sequence for _ in range(3)] == [1, 2, 3]


def test_what_a_lap_has_answered_does_not_reach_the_next_one_although_it_is_in_memory():
    """A node that has loaded the lap from its history has the message in memory, and no wait has
    passed over it.
    """
    name = RequestName("add")
    inbox = Inbox([a_message(1), a_message(2)], up_to=2)
    inbox.end_lap({1: name}, {})
    assert [inbox.take(name).sequence] == [2]
    assert (inbox.head(name), inbox.is_open(name), len(inbox), inbox.size) == (None, False, 0, 0)


@both
def test_a_request_that_was_answered_in_this_turn_is_not_received_by_the_next_wait(cold):
    async def code(ctx, _):
        request = await ctx.wait_for_request("add")
        await ctx.wait_for_event("go")
        request.reply("first")
        (await ctx.wait_for_request("add")).reply("second")

    drive = Drive(code, cold=cold)
    drive.ask("add", request_id="r1")
    drive.send("go")
    assert drive.ending is None
    drive.ask("add", request_id="r2")
    assert drive.answers == {"r1": "first", "r2": "second"}
