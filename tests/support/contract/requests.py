"""Requests: each is stored once, answered once, and asked again gets the same answer (rule 33,
scenario 75).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestra.codec import Payload, UserText
from orchestra.errors import LevelTooLow
from orchestra.store.changes import Append, Claim, IfEnded
from orchestra.store.inbox_limits import Full
from orchestra.store.instances import InstanceRow
from orchestra.store.kinds import THIS_LIBRARY, MessageKind
from orchestra.store.messages import InboxPage, RequestName
from orchestra.store.outcomes import Appended, AppendRefused, Claimed, Granted, Refusal, Started
from orchestra.store.port import Provider
from orchestra.store.requests import RequestAnswer
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    KIND,
    a_park,
    a_start,
    a_write,
    an_append,
    an_end,
    begin,
    claim,
    expect,
    one,
    read,
)


def a_request(request_id: str = "r1", name: str = "add", **changes: Any) -> Append:
    return replace(an_append("i", request_id, name), asks=True, **changes)


def an_answer(
    clock: ManualClock, sequence: int = 1, request_id: str = "r1", **given: Any
) -> RequestAnswer:
    given = given or {"value": Payload(b"7")}
    return RequestAnswer(request_id, sequence, at=clock.now(), **given)


def began(provider: Provider) -> InstanceRow:
    provider.store.raise_level(THIS_LIBRARY.target(3))
    return begin(provider)


class RequestTests(ContractBase):
    """What is asked of an instance, until it is answered, and after."""

    def test_a_request_wakes_the_instance_and_is_read_in_its_own_queue(
        self, provider: Provider
    ) -> None:
        row = began(provider)
        expect(one(provider, a_park(row)), Granted)
        appended = expect(one(provider, a_request()), Appended)
        assert appended.message is not None
        assert (appended.fresh, appended.message.kind) == (True, MessageKind.REQUEST)
        expect(one(provider, an_append("i", "r1", "add")), Appended)
        (snapshot,) = claim(provider)
        assert [message.kind for message in snapshot.messages] == [
            MessageKind.REQUEST,
            MessageKind.EVENT,
        ], "an event of the same id and name is another message"
        names = RequestName("add"), "add"
        unread = provider.store.unread("i", dict.fromkeys(names, 0), 2)
        assert [[one.sequence for one in unread[name].messages] for name in names] == [[1], [2]]
        assert [one.sequence for one in provider.directory.messages("i")] == [1, 2]
        assert (read(provider).unread_messages, read(provider).reports) == (2, ())
        assert read(provider).unread_by_name == {"add": 2}

    def test_a_request_that_is_asked_again_while_it_is_open_is_the_same(
        self, provider: Provider
    ) -> None:
        began(provider)
        first = expect(one(provider, a_request()), Appended)
        again = expect(one(provider, a_request()), Appended)
        assert (again.fresh, again.sequence, again.answer) == (False, first.sequence, None)
        twice = provider.store.commit([a_request("r2"), a_request("r2")]).outcomes
        assert [(expect(each, Appended).fresh, each.sequence) for each in twice] == [
            (True, 2),
            (False, 2),
        ]
        assert len(provider.directory.messages("i")) == 2

    def test_the_answer_removes_the_message_and_is_what_the_same_request_gets(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = began(provider)
        expect(one(provider, a_request()), Appended)
        state = provider.directory.request("i", "r1")
        assert state is not None
        assert (state.is_going, state.row.answer) == (True, None)
        answer = an_answer(clock)
        expect(one(provider, a_write(row, answers=(answer,))), Granted)
        assert provider.directory.messages("i") == []
        state = provider.directory.request("i", "r1")
        assert state is not None
        assert state.row.answer == answer
        again = expect(one(provider, a_request()), Appended)
        assert (again.fresh, again.answer) == (False, answer)

    def test_a_request_that_is_asked_again_in_the_group_that_answers_it_gets_the_answer(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = began(provider)
        expect(one(provider, a_request()), Appended)
        answer = an_answer(clock, rejection=UserText("sold out"))
        group = a_write(row, answers=(answer,)), a_request()
        granted, again = provider.store.commit(group).outcomes
        assert isinstance(granted, Granted)
        assert expect(again, Appended).answer == answer

    def test_the_first_answer_wins(self, provider: Provider, clock: ManualClock) -> None:
        row = began(provider)
        expect(one(provider, a_request()), Appended)
        first = an_answer(clock)
        expect(one(provider, a_write(row, answers=(first,))), Granted)
        row = replace(row, revision=row.revision + 1)
        late = an_answer(clock, rejection=UserText("too late"))
        expect(one(provider, a_write(row, answers=(late,))), Granted)
        state = provider.directory.request("i", "r1")
        assert state is not None
        assert state.row.answer == first

    def test_an_answer_of_a_refused_write_is_none(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = began(provider)
        expect(one(provider, a_request()), Appended)
        stale = replace(row, revision=row.revision - 1)
        one(provider, a_write(stale, answers=(an_answer(clock),)))
        state = provider.directory.request("i", "r1")
        assert state is not None
        assert state.row.answer is None
        assert len(provider.directory.messages("i")) == 1, "it waits for the owner's answer"

    def test_an_answer_removes_no_message_but_its_request(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = began(provider)
        expect(one(provider, an_append("i")), Appended)
        expect(one(provider, a_write(row, answers=(an_answer(clock, 1, "unknown"),))), Granted)
        assert [message.kind for message in provider.directory.messages("i")] == [MessageKind.EVENT]
        assert provider.directory.request("i", "unknown") is None

    def test_a_request_is_as_new_once_its_answer_is_older_than_the_window(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = began(provider)
        expect(one(provider, a_request()), Appended)
        expect(one(provider, a_write(row, answers=(an_answer(clock),))), Granted)
        clock.advance(timedelta(minutes=59))
        assert not expect(one(provider, a_request()), Appended).fresh
        clock.advance(timedelta(minutes=2))
        again = expect(one(provider, a_request()), Appended)
        assert (again.fresh, again.sequence, again.answer) == (True, 2, None)
        state = provider.directory.request("i", "r1")
        assert state is not None
        assert (state.row.sequence, state.row.answer) == (2, None)

    def test_an_open_request_is_known_however_old_it_is(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        began(provider)
        expect(one(provider, a_request()), Appended)
        clock.advance(timedelta(days=30))
        assert not expect(one(provider, a_request()), Appended).fresh

    def test_answers_that_are_forgotten_are_deleted_by_later_answers(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = began(provider)
        for number in (1, 2, 3):
            expect(one(provider, a_request(f"r{number}")), Appended)
        old = tuple(an_answer(clock, number, f"r{number}") for number in (1, 2))
        expect(one(provider, a_write(row, answers=old)), Granted)
        clock.advance(timedelta(hours=2))
        row = replace(row, revision=row.revision + 1)
        expect(one(provider, a_write(row, answers=(an_answer(clock, 3, "r3"),))), Granted)
        found = [provider.directory.request("i", f"r{number}") for number in (1, 2, 3)]
        assert [state is not None for state in found] == [False, False, True]

    def test_the_end_answers_what_is_open_without_a_write_to_it(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = began(provider)
        expect(one(provider, a_request("r1")), Appended)
        expect(one(provider, a_request("r2")), Appended)
        expect(one(provider, an_end(row, answers=(an_answer(clock),))), Granted)
        assert provider.directory.messages("i") == []
        assert dict(read(provider).unread_at_end) == {"add": 1}
        assert expect(one(provider, a_request("r1")), Appended).answer == an_answer(clock)
        assert one(provider, a_request("r2")) == AppendRefused(Refusal.CLOSED)
        assert one(provider, a_request("r3")) == AppendRefused(Refusal.CLOSED)
        state = provider.directory.request("i", "r2")
        assert state is not None
        assert (state.is_going, state.row.answer) == (False, None)

    def test_a_new_life_knows_the_answers_of_the_former_one_and_answers_nothing_of_it(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = began(provider)
        expect(one(provider, a_request("r1")), Appended)
        expect(one(provider, a_request("r2")), Appended)
        expect(one(provider, an_end(row, answers=(an_answer(clock),))), Granted)
        again = replace(a_start("i", "second life", "again"), if_ended=IfEnded.RESTART)
        assert expect(one(provider, again), Started).restarted
        assert expect(one(provider, a_request("r1")), Appended).answer == an_answer(clock)
        closed = expect(one(provider, a_request("r2")), Appended).answer
        assert closed == RequestAnswer("r2", 2, at=clock.now()), "it has neither value nor reason"
        assert expect(one(provider, a_request("r3")), Appended).fresh

    def test_a_deleted_instance_leaves_no_request(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = began(provider)
        expect(one(provider, a_request()), Appended)
        expect(one(provider, an_end(row)), Granted)
        assert provider.admin.delete("i", row.incarnation, by="me", reason="")
        assert provider.directory.request("i", "r1") is None  # I9
        expect(one(provider, a_start("i", "another", "another")), Started)
        assert expect(one(provider, a_request()), Appended).fresh

    def test_open_requests_count_against_the_inbox(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = began(provider)
        small = an_append("i", limit=2).limits
        expect(one(provider, a_request("r1", "add", limits=small)), Appended)
        expect(one(provider, a_request("r2", "remove", limits=small)), Appended)
        refused = one(provider, a_request("r3", "add", limits=small))
        assert expect(refused, AppendRefused).reason is Refusal.FULL
        assert provider.directory.request("i", "r3") is None
        assert not expect(one(provider, a_request("r1", limits=small)), Appended).fresh
        event = replace(an_append("i", "m1", "else"), limits=small)
        assert expect(one(provider, event), AppendRefused).reason is Refusal.FULL
        expect(one(provider, a_write(row, answers=(an_answer(clock),))), Granted)
        expect(one(provider, event), Appended)

    def test_requests_and_events_of_a_name_share_its_part_of_the_inbox(
        self, provider: Provider
    ) -> None:
        began(provider)
        limits = an_append("i", limit=10).limits
        for number in range(9):
            append = replace(an_append("i", f"m{number}", "add"), limits=limits)
            expect(one(provider, replace(append, asks=number % 2 == 0)), Appended)
        refused = expect(one(provider, a_request("r", limits=limits)), AppendRefused)
        assert refused.full == Full("messages", 9, 9, of_name=True)
        expect(one(provider, a_request("r", "else", limits=limits)), Appended)

    def test_many_requests_are_read_a_page_at_a_time(self, provider: Provider) -> None:
        row = began(provider)
        expect(one(provider, a_park(row)), Granted)
        requests = [a_request(f"r{number}") for number in range(1, 8)]
        provider.store.commit(requests)
        asked = one(provider, Claim("n1", (KIND,), 1, page=InboxPage(3)))
        (snapshot,) = expect(asked, Claimed).snapshots
        assert [message.sequence for message in snapshot.messages] == [1, 2, 3]
        assert snapshot.whole_to == 3
        name = RequestName("add")
        unread = provider.store.unread("i", {name: 3}, 7, InboxPage(2))[name]
        assert [message.sequence for message in unread.messages] == [4, 5]
        assert unread.whole_to == 5

    def test_no_request_is_written_below_its_level(self, connect: Open) -> None:
        provider = connect()
        row = begin(provider)
        with pytest.raises(LevelTooLow):
            one(provider, a_request())
        assert provider.directory.request("i", "r1") is None
        expect(one(provider, a_write(row)), Granted)
