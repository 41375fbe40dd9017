"""Events that do not decode are set aside, and history knows nothing of them (scenario 56)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from orchestra.codec import Payload
from orchestra.events import EventReceived
from orchestra.replay import Execution
from orchestra.store.kinds import MessageKind
from orchestra.store.messages import MessageRow
from tests.support.driver import SECOND, Drive, fresh


@dataclass
class Reading:
    value: int


async def two_readings(ctx, _):
    first = await ctx.wait_for_event("reading", Reading)
    second = await ctx.wait_for_event("reading", Reading)
    return [first.value, second.value]


def aside_of(drive):
    return [one for turn in drive.turns for one in turn.extras.set_aside]


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_the_wait_goes_on_with_the_next_one(cold):
    drive = Drive(
        two_readings,
        inbox=[
            ("reading", {"value": "many"}),
            ("reading", {"value": 1}),
            ("reading", 7),
            ("reading", {"value": 2}),
        ],
        cold=cold,
    )
    assert drive.output == [1, 2]
    assert [one.message.sequence for one in aside_of(drive)] == [1, 3]
    assert "event 'reading' for 'subject-1'" in aside_of(drive)[0].reason
    assert "value" in aside_of(drive)[0].reason
    consumed = [sequence for turn in drive.turns for sequence in turn.consumed]
    assert consumed == [1, 2, 3, 4]
    received = [event.sequence for event in drive.events if isinstance(event, EventReceived)]
    assert received == [2, 4]


def test_a_turn_that_only_sets_aside_writes_no_event():
    drive = Drive(two_readings)
    drive.put("reading", "bad")
    turn = drive.turn()
    assert (turn.events, turn.consumed, turn.received) == ((), (1,), ())
    drive.put("reading", {"value": 1})
    drive.put("reading", {"value": 2})
    drive.turn()
    assert drive.output == [1, 2]


def test_what_is_not_awaited_is_not_looked_at():
    async def subject(ctx, _):
        return await ctx.wait_for_event("go", str)

    drive = Drive(subject, inbox=[("reading", "bad"), ("go", "now")])
    assert drive.output == "now"
    assert aside_of(drive) == []


def test_a_wait_that_has_timed_out_leaves_the_message_unread():
    """The timer was first: the code no longer awaits what comes after."""

    async def subject(ctx, _):
        try:
            await ctx.wait_for_event("reading", Reading, timeout=timedelta(seconds=5))
        except TimeoutError:
            return await ctx.wait_for_event("reading", str)

    drive = Drive(subject)
    drive.now = 7 * SECOND
    drive.put("reading", "late")
    drive.turn()
    assert drive.output == "late"
    assert aside_of(drive) == []


def test_each_wait_reads_with_its_own_type():
    """The second wait of a name takes what the first could not: it is the first's to refuse."""

    async def subject(ctx, _):
        return await ctx.gather(ctx.wait_for_event("x", int), ctx.wait_for_event("x", str))

    drive = Drive(subject, inbox=[("x", 1), ("x", 2), ("x", "text")])
    assert drive.output == [1, "text"]
    assert [one.message.sequence for one in aside_of(drive)] == [2]


def test_a_wait_without_a_type_takes_everything():
    async def subject(ctx, _):
        return await ctx.wait_for_event("x")

    drive = Drive(subject, inbox=[("x", {"value": "many"})])
    assert drive.output == {"value": "many"}


def test_a_payload_in_an_unknown_encoding_is_no_fault_of_the_message():
    """The reader lacks something: a key, or a newer library."""
    execution: Execution = fresh(two_readings)
    execution.start(Payload(b"null"), 0)
    message = MessageRow(
        1, "m", "reading", Payload(b"?", encoding=7), 0, MessageKind.EVENT, sender="me"
    )
    turn = execution.turn(1, inbox=[message])
    assert turn.extras.set_aside == ()
    assert "encoding 7" in str(turn.ending)


def test_it_may_hold_instead_where_other_code_may_read_it():
    asked = []

    def may_hold():
        asked.append(True)
        return True

    execution = fresh(two_readings)
    execution.start(Payload(b"null"), 0)
    good, bad = (
        MessageRow(number, f"m{number}", "reading", Payload(data), 0, sender="me")
        for number, data in ((1, b'{"value":1}'), (2, b'"bad"'))
    )
    assert execution.turn(1, inbox=[good], may_hold=may_hold).extras.set_aside == ()
    assert asked == []
    turn = execution.turn(1, inbox=[bad], may_hold=may_hold)
    assert (turn.extras.set_aside, asked) == ((), [True])
    assert "event 'reading'" in str(turn.ending)


def test_a_reason_is_bounded_and_a_text_that_every_store_takes():
    async def subject(ctx, _):
        return await ctx.wait_for_event("x", _Picky)

    drive = Drive(subject, inbox=[("x", {"text": "\0" * 2_000}), ("x", {"text": "fine"})])
    (aside,) = aside_of(drive)
    assert len(aside.reason) < 2_000
    assert "\0" not in aside.reason
    aside.reason.encode()


@dataclass
class _Picky:
    text: str

    def __post_init__(self):
        if self.text != "fine":
            raise ValueError(f"{self.text}\ud800")
