"""Messages: they wake, they are kept in order, and each counts once (rules 4, 10 and 21, scenario
36).
"""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestra.errors import StoreError
from orchestra.store.changes import Cancel, Claim
from orchestra.store.inbox_limits import Full
from orchestra.store.messages import InboxPage
from orchestra.store.outcomes import Appended, AppendRefused, Claimed, Granted, Refusal, Started
from orchestra.store.port import Provider
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    KIND,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    begin,
    claim,
    expect,
    ids,
    one,
    read,
)


class MessageTests(ContractBase):
    """What is sent to an instance, until it is consumed."""

    def test_a_message_that_came_before_the_park_wakes_the_instance(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        appended = expect(one(provider, an_append("i")), Appended)
        assert appended.owner == "n1"
        assert one(provider, a_park(row)) == Granted(inbox_seq=1)
        assert ids(claim(provider)) == ["i"]

    def test_a_message_that_came_after_the_park_wakes_the_instance(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        assert one(provider, a_park(row)) == Granted(inbox_seq=0)
        assert claim(provider) == ()
        assert expect(one(provider, an_append("i")), Appended).owner is None
        (snapshot,) = claim(provider)
        assert [message.name for message in snapshot.messages] == ["go"]

    def test_a_park_that_meets_a_message_in_its_group_is_no_park(self, provider: Provider) -> None:
        row = begin(provider)
        group = (a_park(row, wake_at=10**17), an_append("i"), Claim("n1", (KIND,), 1))
        granted, _, claimed = provider.store.commit(group).outcomes
        assert granted == Granted(inbox_seq=0)
        (snapshot,) = expect(claimed, Claimed).snapshots
        assert [message.sequence for message in snapshot.messages] == [1]

    def test_a_message_that_was_seen_and_that_nobody_awaits_lets_the_instance_rest(
        self, provider: Provider
    ) -> None:
        expect(one(provider, a_start("i")), Started)
        expect(one(provider, an_append("i")), Appended)
        (snapshot,) = claim(provider)
        expect(one(provider, a_park(snapshot.row)), Granted)
        assert claim(provider) == ()
        assert read(provider).unread_messages == 1

    def test_messages_are_numbered_in_the_order_of_their_arrival(self, connect: Open) -> None:
        first, second = connect(), connect()
        expect(one(first, a_start("i")), Started)
        for number in range(1, 6):
            provider = first if number % 2 else second
            assert expect(one(provider, an_append("i", f"m{number}")), Appended).sequence == number
        (snapshot,) = claim(second)
        assert [message.message_id for message in snapshot.messages] == [
            "m1",
            "m2",
            "m3",
            "m4",
            "m5",
        ]

    def test_news_tells_of_what_no_write_has_taken_note_of(self, provider: Provider) -> None:
        row = begin(provider)
        assert provider.store.news("n1") == []
        expect(one(provider, an_append("i", "m1")), Appended)
        expect(one(provider, a_write(row)), Granted)  # it has seen nothing yet: seen_seq is 0
        expect(one(provider, an_append("i", "m2")), Appended)
        (news,) = provider.store.news("n1")
        assert (news.instance_id, news.incarnation, news.inbox_seq, news.cancel) == (
            "i",
            "a",
            2,
            None,
        )
        assert [message.sequence for message in news.messages] == [1, 2]
        assert provider.store.news("n2") == []
        row = read(provider).row
        expect(one(provider, a_write(row, a_state(row, seen_seq=2))), Granted)
        assert provider.store.news("n1") == []
        expect(one(provider, Cancel("i", "enough", "me")), Appended)
        (news,) = provider.store.news("n1")
        assert news.messages == ()
        assert news.cancel is not None
        assert (news.inbox_seq, news.cancel.reason) == (3, "enough")

    def test_a_claim_brings_a_page_of_the_inbox_and_says_how_far_it_goes(
        self, provider: Provider
    ) -> None:
        expect(one(provider, a_start("i")), Started)
        provider.store.commit(
            [an_append("i", f"m{number}") for number in range(5)]
        )  # of seven bytes each
        for page, sequences, whole_to in (
            (InboxPage(10, 1_000), [1, 2, 3, 4, 5], 5),
            (InboxPage(5, 35), [1, 2, 3, 4, 5], 5),
            (InboxPage(2, 1_000), [1, 2], 2),
            (InboxPage(10, 34), [1, 2, 3, 4], 4),
            (InboxPage(10, 6), [], 0),
            (InboxPage(0, 1_000), [], 0),
        ):
            (snapshot,) = expect(
                one(provider, Claim("n1", (KIND,), 1, page=page)), Claimed
            ).snapshots
            assert ([message.sequence for message in snapshot.messages], snapshot.whole_to) == (
                sequences,
                whole_to,
            ), page
            expect(one(provider, a_park(snapshot.row, wake_at=0)), Granted)

    def test_news_bring_a_page_of_what_is_new(self, provider: Provider) -> None:
        row = begin(provider)
        provider.store.commit([an_append("i", f"m{number}") for number in range(5)])
        expect(one(provider, a_write(row, a_state(row, seen_seq=2))), Granted)
        (news,) = provider.store.news("n1", InboxPage(2, 1_000))
        assert ([message.sequence for message in news.messages], news.whole_to, news.inbox_seq) == (
            [3, 4],
            4,
            5,
        )
        (news,) = provider.store.news("n1", InboxPage(10, 6))
        assert (news.messages, news.whole_to, news.inbox_seq) == ((), 2, 5)
        (news,) = provider.store.news("n1")
        assert ([message.sequence for message in news.messages], news.whole_to) == ([3, 4, 5], 5)

    def test_events_are_read_by_name_however_many_others_wait(self, provider: Provider) -> None:
        expect(one(provider, a_start("i")), Started)
        provider.store.commit(
            [an_append("i", f"m{number}", "ab"[number % 2]) for number in range(10)]
        )
        unread = provider.store.unread("i", {"a": 0, "b": 2, "c": 0}, 9, InboxPage(6, 1_000))
        found = {
            name: ([message.sequence for message in page.messages], page.whole_to)
            for name, page in unread.items()
        }
        assert found == {"a": ([1, 3], 4), "b": ([4, 6], 7), "c": ([], 9)}, (
            "three names share the page"
        )
        assert unread["a"].messages[0].payload == an_append("i").payload
        unread = provider.store.unread("i", {"a": 3}, 10, InboxPage(1, 0))
        assert [message.sequence for message in unread["a"].messages] == [5], (
            "one comes in any case"
        )
        assert unread["a"].whole_to == 6
        assert provider.store.unread("nobody", {"a": 0}, 3)["a"].messages == ()

    def test_an_unread_message_is_stored_once(self, provider: Provider) -> None:
        expect(one(provider, a_start("i")), Started)
        first, second = (expect(one(provider, an_append("i")), Appended) for _ in range(2))
        assert (first.fresh, second) == (True, replace(first, fresh=False))
        assert read(provider).unread_messages == 1

    def test_a_message_that_was_read_is_remembered_for_a_window(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        expect(one(provider, an_append("i")), Appended)
        expect(one(provider, a_write(row, consumed=(1,))), Granted)
        clock.advance(timedelta(minutes=59))
        before = read(provider)
        assert one(provider, an_append("i")) == Appended(1, "n1", fresh=False)
        assert read(provider) == before
        clock.advance(timedelta(minutes=1))
        assert expect(one(provider, an_append("i")), Appended).sequence == 2
        row = read(provider).row
        expect(one(provider, a_write(row, consumed=(2,))), Granted)
        assert one(provider, an_append("i")) == Appended(2, "n1", fresh=False)

    def test_the_same_message_id_at_two_instances_is_two_messages(self, provider: Provider) -> None:
        outcomes = provider.store.commit(
            [a_start("i"), a_start("j"), an_append("i"), an_append("j")]
        ).outcomes
        assert [expect(outcome, Appended).fresh for outcome in outcomes[2:]] == [True, True]

    def test_a_message_cannot_be_consumed_twice(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, an_append("i")), Appended)
        expect(one(provider, a_write(row, consumed=(1,))), Granted)
        with pytest.raises(StoreError):
            one(provider, a_write(read(provider).row, consumed=(1,)))

    def test_a_full_inbox_refuses_and_takes_again_when_something_was_read(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        outcomes = provider.store.commit(
            [an_append("i", f"m{number}", limit=3) for number in range(4)]
        ).outcomes
        assert [type(outcome) for outcome in outcomes] == [
            Appended,
            Appended,
            Appended,
            AppendRefused,
        ]
        assert outcomes[3] == AppendRefused(Refusal.FULL, Full("messages", 3, 3, of_name=False))
        assert not expect(one(provider, an_append("i", "m0", limit=3)), Appended).fresh, (
            "it is there already"
        )
        expect(one(provider, a_write(row, consumed=(2,))), Granted)
        assert expect(one(provider, an_append("i", "m3", limit=3)), Appended).sequence == 4

    def test_a_name_that_is_full_leaves_room_for_others_until_the_whole_inbox_is(
        self, provider: Provider
    ) -> None:
        """Scenario 56."""
        row = begin(provider)
        chatty = [an_append("i", f"m{number}", "telemetry", limit=20) for number in range(19)]
        *taken, refused = provider.store.commit(chatty).outcomes
        assert {type(outcome) for outcome in taken} == {Appended}
        assert refused == AppendRefused(Refusal.FULL, Full("messages", 18, 18, of_name=True))
        assert one(provider, an_append("i", "m19", "telemetry", limit=20)) == refused
        assert (
            expect(one(provider, an_append("i", "s1", "stop", limit=20)), Appended).sequence == 19
        )
        outcomes = provider.store.commit(
            [an_append("i", f"s{number}", "stop", limit=20) for number in (2, 3)]
        ).outcomes
        assert outcomes[1] == AppendRefused(Refusal.FULL, Full("messages", 20, 20, of_name=False))
        expect(one(provider, a_write(row, consumed=(1, 2, 3))), Granted)
        expect(one(provider, an_append("i", "s3", "stop", limit=20)), Appended)
        outcomes = provider.store.commit(
            [an_append("i", f"n{number}", "telemetry", limit=20) for number in range(4)]
        ).outcomes
        assert [type(outcome) for outcome in outcomes] == [
            Appended,
            Appended,
            AppendRefused,
            AppendRefused,
        ]

    def test_an_inbox_is_bounded_in_bytes_and_so_is_each_name(self, provider: Provider) -> None:
        """Scenario 56. Each payload has seven bytes."""
        row = begin(provider)
        chatty = [an_append("i", f"m{number}", "telemetry", byte_limit=70) for number in range(10)]
        *taken, refused = provider.store.commit(chatty).outcomes
        assert {type(outcome) for outcome in taken} == {Appended}
        assert refused == AppendRefused(Refusal.FULL, Full("bytes", 63, 63, of_name=True))
        expect(one(provider, an_append("i", "s1", "stop", byte_limit=70)), Appended)
        full = Full("bytes", 70, 70, of_name=False)
        assert one(provider, an_append("i", "s2", "stop", byte_limit=70)) == AppendRefused(
            Refusal.FULL, full
        )
        written, appended = provider.store.commit(
            [a_write(row, consumed=(1,)), an_append("i", "m9", "telemetry", byte_limit=70)]
        ).outcomes
        expect(written, Granted)
        expect(appended, Appended)

    def test_an_empty_inbox_takes_a_message_of_any_size(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, an_append("i", "m1", byte_limit=3)), Appended)
        full = Full("bytes", 3, 7, of_name=False)
        assert one(provider, an_append("i", "m2", byte_limit=3)) == AppendRefused(
            Refusal.FULL, full
        )
        expect(one(provider, a_write(row, consumed=(1,))), Granted)
        expect(one(provider, an_append("i", "m2", byte_limit=3)), Appended)

    def test_each_sender_is_held_to_its_own_limits(self, provider: Provider) -> None:
        begin(provider)
        group = [
            an_append("i", f"m{number}", limit=limit)
            for number, limit in enumerate((2, 2, 2, 5, 2, 5, 5, 5))
        ]
        outcomes = [
            isinstance(outcome, Appended) for outcome in provider.store.commit(group).outcomes
        ]
        assert outcomes == [True, True, False, True, False, True, True, False]
        assert isinstance(one(provider, an_append("i", "m8", limit=2)), AppendRefused)
        assert isinstance(one(provider, an_append("i", "m8", limit=6)), Appended)

    def test_a_message_tells_who_has_sent_it(self, provider: Provider) -> None:
        expect(one(provider, a_start("i")), Started)
        appended = expect(one(provider, replace(an_append("i"), sender="billing")), Appended)
        assert appended.message is not None
        (snapshot,) = claim(provider)
        assert snapshot.messages == (appended.message,)
        assert appended.message.sender == "billing"
        assert expect(one(provider, an_append("i")), Appended).message == appended.message

    def test_concurrent_writers_all_get_their_turn(self, connect: Open) -> None:
        providers = [connect() for _ in range(4)]
        expect(one(providers[0], a_start("i")), Started)
        failures: list[Exception] = []

        def send(provider: Provider, sender: int) -> None:
            try:
                for number in range(25):
                    expect(one(provider, an_append("i", f"{sender}-{number}")), Appended)
            except Exception as error:
                failures.append(error)

        threads = [
            threading.Thread(target=send, args=(each, number))
            for number, each in enumerate(providers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert (read(providers[0]).unread_messages, read(providers[0]).row.inbox_seq) == (100, 100)
