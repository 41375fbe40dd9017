"""Background children: their ends go to a life of their parent's instance, whichever execution it
has then, and stay there until code awaits them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from orchestra.codec import Payload
from orchestra.events import OnParentClose
from orchestra.levels import Levels
from orchestra.store.changes import ChildStart, Claim, Write
from orchestra.store.executions import Closing, ExecutionDelta
from orchestra.store.instances import InstanceRow
from orchestra.store.kinds import THIS_LIBRARY, ExecutionEnd, MessageKind, Status
from orchestra.store.messages import InboxPage, MessageRow
from orchestra.store.outcomes import Appended, AppendRefused, Claimed, Granted, Started
from orchestra.store.port import Provider
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.children import a_boundary, a_child, arrivals, link_to
from tests.support.contract.shorthand import (
    KIND,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    begin,
    changed,
    claim,
    expect,
    one,
    read,
)

_ENDS: Final = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TERMINATED)


def a_background_child(row: InstanceRow, child_id: str = "c", event_id: int = 2) -> ChildStart:
    return replace(a_child(row, child_id, event_id, OnParentClose.KEEP), keeps=True)


def an_end_with(row: InstanceRow, status: Status) -> Write:
    completed = status is Status.COMPLETED
    output, error = (Payload(b'"done"', 2), None) if completed else (None, b"error")
    delta = ExecutionDelta(1, closed=Closing(9, ExecutionEnd(status.value), output, error))
    return a_write(row, a_state(row, status=status, owner=None), executions=(delta,))


class BackgroundChildTests(ContractBase):
    """What the store does with the ends of background children."""

    @pytest.fixture
    def raised(self, connect: Open) -> Provider:
        """Return a provider whose store is written at the level of background children."""
        provider = connect()
        provider.store.raise_level(Levels(THIS_LIBRARY.level))
        return provider

    @staticmethod
    def family(raised: Provider) -> tuple[InstanceRow, InstanceRow]:
        """Return a parent and its background child, of one owner."""
        parent = begin(raised)
        write = a_write(parent, starts=(a_background_child(parent),))
        expect(one(raised, write), Granted)
        (snapshot,) = claim(raised)
        return read(raised).row, snapshot.row

    def message(self, raised: Provider, parent: InstanceRow, status: Status) -> MessageRow:
        completed = status is Status.COMPLETED
        return MessageRow(
            1,
            str(link_to(parent)),
            "c",
            Payload(b'"done"', 2) if completed else Payload(b"error"),
            self._now(raised),
            MessageKind.BACKGROUND_CHILD_ENDED,
            status.value,
            sender="c",
        )

    # --- told ---

    @pytest.mark.parametrize("status", _ENDS)
    @pytest.mark.parametrize("crosses", [False, True])
    def test_the_end_goes_to_the_instance_also_in_a_later_lap_and_wakes_it(
        self, raised: Provider, status: Status, crosses: bool
    ) -> None:
        parent, child = self.family(raised)
        expect(one(raised, a_boundary(parent) if crosses else a_park(parent)), Granted)
        group = [an_end_with(child, status), Claim("n2", (KIND,), 9)]
        written, claimed = raised.store.commit(group).outcomes
        message = self.message(raised, parent, status)
        told = Appended(1, None, fresh=True, message=message)
        assert written == Granted(0, arrivals=(("i", told),))
        (snapshot,) = expect(claimed, Claimed).snapshots
        assert (snapshot.row.instance_id, snapshot.messages) == ("i", (message,))
        assert snapshot.row.execution == (2 if crosses else 1)
        record = read(raised)
        assert (record.reports, record.unread_messages, record.unread_by_name) == ((), 0, {})
        assert raised.directory.messages("i") == [message]

    def test_it_reaches_an_owner_that_has_the_instance_in_memory(self, raised: Provider) -> None:
        _, child = self.family(raised)
        end = replace(an_end_with(child, Status.TERMINATED), owner=None)
        ((instance_id, appended),) = arrivals(one(raised, end))
        assert (instance_id, appended.owner) == ("i", "n1")
        (news,) = raised.store.news("n1")
        assert [message.source for message in news.messages] == [Status.TERMINATED.value]

    def test_it_crosses_every_boundary_until_it_is_received(self, raised: Provider) -> None:
        parent, child = self.family(raised)
        expect(one(raised, an_end_with(child, Status.COMPLETED)), Granted)
        for _ in range(2):
            row = read(raised).row
            expect(one(raised, replace(a_boundary(row), owner=None)), Granted)
            message = self.message(raised, parent, Status.COMPLETED)
            (kept,) = raised.directory.messages("i")
            assert kept == replace(message, sent_at=kept.sent_at)
            claim(raised)
        row = read(raised).row
        expect(one(raised, a_write(row, consumed=(1,))), Granted)
        assert raised.directory.messages("i") == []

    def test_all_ends_are_loaded_whatever_the_page(self, raised: Provider) -> None:
        parent = begin(raised)
        starts = tuple(a_background_child(parent, f"c{number}", number) for number in (2, 3, 4))
        expect(one(raised, a_write(parent, starts=starts)), Granted)
        for number in (1, 2):
            expect(one(raised, an_append("i", f"m{number}")), Appended)
        for snapshot in claim(raised):
            expect(one(raised, an_end_with(snapshot.row, Status.FAILED)), Granted)
        expect(one(raised, a_park(read(raised).row, seen_seq=0)), Granted)
        page = InboxPage(messages=1)
        (snapshot,) = expect(one(raised, Claim("n1", (KIND,), 9, page=page)), Claimed).snapshots
        assert [message.sequence for message in snapshot.messages] == [1, 3, 4, 5]
        assert snapshot.whole_to == 1

    # --- not told ---

    @pytest.mark.parametrize("status", _ENDS)
    def test_a_parent_that_has_ended_gets_none_and_its_child_goes_on(
        self, raised: Provider, status: Status
    ) -> None:
        parent, child = self.family(raised)
        end = an_end(parent, status)
        deltas = tuple(replace(delta, children=True) for delta in end.executions)
        assert one(raised, replace(end, executions=deltas)) == Granted(0)
        assert read(raised, "c").row.cancel is None
        assert one(raised, an_end_with(child, Status.COMPLETED)) == Granted(0)
        assert (read(raised).row.inbox_seq, raised.directory.messages("i")) == (0, [])

    def test_another_life_of_the_parent_gets_none(self, raised: Provider) -> None:
        parent, child = self.family(raised)
        again = replace(a_start("i", "another life", "again"), follows=None)
        write = changed(an_end(parent), restart=again)
        expect(one(raised, write), Granted)
        assert read(raised).row.incarnation == "another life"
        assert one(raised, an_end_with(child, Status.COMPLETED)) == Granted(0)
        assert raised.directory.messages("i") == []

    def test_the_end_of_the_parent_forgets_what_it_has_not_received(self, raised: Provider) -> None:
        _, child = self.family(raised)
        expect(one(raised, an_end_with(child, Status.COMPLETED)), Granted)
        expect(one(raised, an_end(read(raised).row)), Granted)
        record = read(raised)
        assert (raised.directory.messages("i"), record.unread_at_end) == ([], {})

    # --- refused starts ---

    @pytest.mark.parametrize("taken", [False, True])
    @pytest.mark.parametrize("crosses", [False, True])
    def test_a_start_that_is_refused_tells_the_instance_as_an_end_does(
        self, raised: Provider, taken: bool, crosses: bool
    ) -> None:
        row = begin(raised)
        if taken:
            expect(one(raised, a_start("c", "other", "other")), Started)
        child = a_background_child(row)
        child = child if taken else replace(child, start=None)
        write = a_boundary(row) if crosses else a_write(row)
        outcome = expect(one(raised, changed(write, starts=(child,))), Granted)
        (message,) = raised.directory.messages("i")
        assert outcome.arrivals[0][1].message == message
        assert (message.message_id, message.name, message.source) == (
            str(link_to(row)),
            "c",
            Status.FAILED.value,
        )
        assert message.payload == Payload(child.refusal or b"")
        assert message.kind is MessageKind.BACKGROUND_CHILD_ENDED

    # --- the inbox ---

    def test_ends_do_not_count_against_the_limits_of_the_inbox(self, raised: Provider) -> None:
        _, child = self.family(raised)
        full = an_append("i", "m1", limit=1)
        expect(one(raised, full), Appended)
        expect(one(raised, an_end_with(child, Status.COMPLETED)), Granted)
        assert len(raised.directory.messages("i")) == 2
        expect(one(raised, replace(full, message_id="m2")), AppendRefused)
        row = read(raised).row
        group = [a_write(row, consumed=(1,)), replace(full, message_id="m3")]
        assert isinstance(raised.store.commit(group).outcomes[1], Appended)

    def test_a_rewind_puts_an_end_back_and_it_does_not_count_either(self, raised: Provider) -> None:
        parent, child = self.family(raised)
        expect(one(raised, an_end_with(child, Status.CANCELLED)), Granted)
        expect(one(raised, a_write(read(raised).row, consumed=(1,))), Granted)
        row = read(raised).row
        back = self.message(raised, parent, Status.CANCELLED)
        write = a_write(row, a_state(row, owner=None, wake_at=0), owner=None, restored=(back,))
        group = [write, an_append("i", "m1", limit=1)]
        granted, appended = raised.store.commit(group).outcomes
        expect(granted, Granted)
        expect(appended, Appended)
        (snapshot,) = claim(raised)
        assert [message.sequence for message in snapshot.messages] == [1, 2]
        assert snapshot.messages[0] == back
        assert read(raised).unread_messages == 1
