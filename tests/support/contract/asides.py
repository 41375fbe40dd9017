"""Messages that were set aside: kept apart with the reason, until an operator or the end takes them
away.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestra.codec import Payload, UserText
from orchestra.store.changes import Write
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.instances import InstanceRow
from orchestra.store.messages import KEPT_ASIDE, Aside
from orchestra.store.outcomes import Appended, Granted, Refused
from orchestra.store.port import Provider
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    a_park,
    an_append,
    an_end,
    begin,
    changed,
    claim,
    expect,
    one,
    read,
)


def _sent(provider: Provider, *sent: tuple[str, str]) -> None:
    for message_id, name in sent:
        expect(one(provider, an_append("i", message_id, name)), Appended)


def _aside(row: InstanceRow, *sequences: int) -> Write:
    return changed(
        a_park(row),
        consumed=sequences,
        set_aside=tuple(Aside(sequence, UserText(f"why {sequence}")) for sequence in sequences),
    )


class AsideTests(ContractBase):
    """What code could not decode."""

    def test_a_message_that_is_set_aside_is_listed_with_its_reason_in_its_place(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        _sent(provider, ("m1", "go"), ("m2", "go"), ("m3", "stop"))
        sent_at = clock.now()
        clock.advance(timedelta(seconds=1))
        expect(one(provider, _aside(row, 2)), Granted)
        listed = provider.directory.messages("i")
        assert [(message.sequence, message.aside) for message in listed] == [
            (1, None),
            (2, "why 2"),
            (3, None),
        ]
        aside = listed[1]
        assert (aside.message_id, aside.name, aside.sent_at) == ("m2", "go", sent_at)
        assert (aside.aside_at, aside.payload) == (clock.now(), listed[0].payload)
        assert [message.sequence for message in provider.directory.messages("i", 1, 1)] == [2]

    def test_it_has_left_the_inbox_and_its_sender_hears_that_it_was_read(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        _sent(provider, ("m1", "go"), ("m2", "go"))
        expect(one(provider, _aside(row, 1)), Granted)
        again = expect(one(provider, an_append("i", "m1", "go")), Appended)
        assert (again.fresh, again.sequence, again.message) == (False, 1, None)
        (snapshot,) = claim(provider)
        assert [message.sequence for message in snapshot.messages] == [2]
        record = read(provider)
        assert (record.unread_messages, record.set_aside) == (1, 1)
        assert dict(record.unread_by_name) == {"go": 2}

    def test_a_refused_write_sets_nothing_aside(self, provider: Provider) -> None:
        row = begin(provider)
        _sent(provider, ("m1", "go"))
        write = _aside(replace(row, revision=row.revision - 1), 1)
        expect(one(provider, write), Refused)
        assert (read(provider).unread_messages, read(provider).set_aside) == (1, 0)

    def test_the_newest_are_kept(self, provider: Provider) -> None:
        row = begin(provider)
        count = KEPT_ASIDE.messages + 3
        for start in range(1, count + 1, 100):
            numbers = range(start, min(start + 100, count + 1))
            provider.store.commit([an_append("i", f"m{number}") for number in numbers])
            expect(one(provider, _aside(row, *numbers)), Granted)
            row = replace(row, revision=row.revision + 1, owner=None)
            (snapshot,) = claim(provider)
            row = snapshot.row
        kept = provider.directory.messages("i", limit=2_000)
        assert [message.sequence for message in kept] == list(range(4, count + 1))
        assert read(provider).set_aside == KEPT_ASIDE.messages

    def test_their_bytes_are_bounded_but_the_last_one_is_kept(self, provider: Provider) -> None:
        row = begin(provider)
        sizes = (KEPT_ASIDE.bytes // 2, KEPT_ASIDE.bytes // 2 + 1, 5, KEPT_ASIDE.bytes + 1)
        for number, size in enumerate(sizes, 1):
            append = replace(
                an_append("i", f"m{number}"),
                payload=Payload(b"x" * size),
                limits=InboxLimits(100, 1_000_000_000),
            )
            expect(one(provider, append), Appended)
        expect(one(provider, _aside(row, 1, 2, 3)), Granted)
        assert [message.sequence for message in provider.directory.messages("i", 0, 3)] == [2, 3, 4]
        (snapshot,) = claim(provider)
        expect(one(provider, _aside(snapshot.row, 4)), Granted)
        assert [message.sequence for message in provider.directory.messages("i")] == [4]

    def test_an_operator_removes_some_of_them(self, provider: Provider) -> None:
        row = begin(provider)
        _sent(provider, ("m1", "go"), ("m2", "go"), ("m3", "go"))
        expect(one(provider, _aside(row, 1, 2)), Granted)
        standing = read(provider).row
        removal = changed(
            a_park(standing, seen_seq=standing.seen_seq), owner=None, unkept=(1, 77), consumed=(3,)
        )
        expect(one(provider, removal), Granted)
        assert [message.sequence for message in provider.directory.messages("i")] == [2]

    def test_the_end_deletes_them_and_counts_them_as_unread(self, provider: Provider) -> None:
        row = begin(provider)
        _sent(provider, ("m1", "go"), ("m2", "go"), ("m3", "stop"), ("m4", "stop"))
        expect(one(provider, _aside(row, 1, 3)), Granted)
        (snapshot,) = claim(provider)
        end = changed(
            an_end(snapshot.row), consumed=(4,), set_aside=(Aside(4, UserText("also this")),)
        )
        expect(one(provider, end), Granted)
        record = read(provider)
        assert dict(record.unread_at_end) == {"go": 2, "stop": 2}
        assert (record.set_aside, record.unread_messages) == (0, 0)
        assert provider.directory.messages("i") == []

    def test_they_go_with_the_instance(self, provider: Provider) -> None:
        row = begin(provider)
        _sent(provider, ("m1", "go"))
        expect(one(provider, _aside(row, 1)), Granted)
        (snapshot,) = claim(provider)
        expect(one(provider, an_end(snapshot.row)), Granted)
        assert provider.admin.delete("i", row.incarnation, by="me", reason="")
        begin(provider)
        assert (read(provider).set_aside, provider.directory.messages("i")) == (0, [])

    def test_of_many_names_those_with_the_most_messages_are_counted(
        self, provider: Provider
    ) -> None:
        begin(provider)
        sent = [
            an_append("i", f"{name}/{number}", f"n{name:02}")
            for name in range(20)
            for number in range(1 + name % 3)
        ]
        provider.store.commit(sent)
        names = dict(read(provider).unread_by_name)
        threes = [f"n{name:02}" for name in range(20) if name % 3 == 2]
        twos = [f"n{name:02}" for name in range(20) if name % 3 == 1]
        ones = [f"n{name:02}" for name in range(20) if name % 3 == 0]
        assert list(names) == [*threes, *twos, *ones][:16]
        assert list(names.values()) == [3] * 6 + [2] * 7 + [1] * 3
