"""What an instance sends to others: stored with its own write, exactly once, and answered by a
receipt (rules 7, 18, 19 and 41).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestra.codec import Payload
from orchestra.events import OnParentClose
from orchestra.levels import Levels
from orchestra.store.changes import Append, Cancel, Claim, Send, Write
from orchestra.store.executions import Closing, ExecutionDelta
from orchestra.store.inbox_limits import Full, InboxLimits
from orchestra.store.instances import InstanceRow, ParentLink
from orchestra.store.kinds import THIS_LIBRARY, ExecutionEnd, MessageKind, Status
from orchestra.store.messages import InboxPage, MessageRow
from orchestra.store.outcomes import (
    Appended,
    AppendRefused,
    Claimed,
    Granted,
    Outcome,
    Refusal,
    Refused,
    RefusedSend,
    Started,
)
from orchestra.store.port import Provider
from orchestra.store.receipts import DELIVERED, read_refusal
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.children import a_child
from tests.support.contract.shorthand import (
    KIND,
    TRACEPARENT,
    a_hold,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_execution,
    begin,
    changed,
    claim,
    expect,
    ids,
    one,
    read,
)


def sender(row: InstanceRow, event_id: int = 2) -> ParentLink:
    return ParentLink(row.instance_id, row.incarnation, row.execution, event_id)


def an_event_to(
    row: InstanceRow, target: str, event_id: int = 2, limits: InboxLimits | None = None
) -> Send:
    link = sender(row, event_id)
    message = Append(
        target,
        str(link),
        "go",
        Payload(b'"sent"'),
        row.instance_id,
        limits or InboxLimits(),
        TRACEPARENT,
    )
    return Send(link, message)


def a_cancel_of(row: InstanceRow, target: str, event_id: int = 2) -> Send:
    return Send(sender(row, event_id), Cancel(target, "enough", row.instance_id))


def a_boundary(row: InstanceRow, **fields: Any) -> Write:
    closed = Closing(5, ExecutionEnd.CONTINUED_AS_NEW)
    number, receipts = row.execution, fields.pop("receipts", False)
    return a_write(
        row,
        a_state(row, execution=number + 1, opened=False, owner=None, wake_at=10**17),
        executions=(
            ExecutionDelta(number, closed=closed, receipts=receipts),
            ExecutionDelta(number + 1, create=an_execution(number + 1)),
        ),
        **fields,
    )


def arrivals(outcome: Outcome) -> Sequence[tuple[str, Appended]]:
    return expect(outcome, Granted).arrivals


def unread(provider: Provider, instance_id: str) -> list[tuple[str, bytes, str]]:
    return [
        (message.name, message.payload.data, message.sender)
        for message in provider.directory.messages(instance_id)
    ]


class SendTests(ContractBase):
    """What a write sends to other instances."""

    @pytest.fixture
    def raised(self, connect: Open) -> Provider:
        """Return a provider whose store is written at the level of what is sent."""
        provider = connect()
        provider.store.raise_level(Levels(THIS_LIBRARY.level))
        return provider

    @staticmethod
    def pair(raised: Provider) -> tuple[InstanceRow, InstanceRow]:
        """Return a sender and a target, of one owner."""
        row = begin(raised, "i")
        expect(one(raised, a_start("t", "b", "s")), Started)
        (snapshot,) = claim(raised)
        return row, snapshot.row

    # --- delivered ---

    def test_an_event_arrives_with_the_senders_write_and_the_sender_gets_a_receipt(
        self, raised: Provider
    ) -> None:
        row, _ = self.pair(raised)
        written = one(raised, a_write(row, sends=(an_event_to(row, "t"),)))
        (_, arrived), (_, receipt) = arrivals(written)
        now = read(raised).updated_at
        event = MessageRow(
            1,
            str(sender(row)),
            "go",
            Payload(b'"sent"'),
            now,
            traceparent=TRACEPARENT,
            sender="i",
        )
        told = MessageRow(
            1, str(sender(row)), "t", DELIVERED, now, MessageKind.SEND_DELIVERED, 2, sender="t"
        )
        assert written == Granted(
            0,
            arrivals=(
                ("t", Appended(1, "n1", fresh=True, message=event)),
                ("i", Appended(1, "n1", fresh=True, message=told)),
            ),
        )
        assert (arrived.message, receipt.message) == (event, told)
        assert unread(raised, "t") == [("go", b'"sent"', "i")]
        record = read(raised)
        assert (record.reports, record.unread_messages, record.row.inbox_seq) == ((2,), 0, 1)

    def test_a_receipt_wakes_a_sender_that_parks_in_the_same_write(self, raised: Provider) -> None:
        row, target = self.pair(raised)
        expect(one(raised, a_park(target)), Granted)
        park = changed(a_park(row, wake_at=10**17), sends=(an_event_to(row, "t"),))
        written, claimed = raised.store.commit([park, Claim("n2", (KIND,), 9)]).outcomes
        assert len(arrivals(written)) == 2
        snapshots = expect(claimed, Claimed).snapshots
        assert sorted(ids(snapshots)) == ["i", "t"]
        kinds = {
            snapshot.row.instance_id: [message.kind for message in snapshot.messages]
            for snapshot in snapshots
        }
        assert kinds == {"i": [MessageKind.SEND_DELIVERED], "t": [MessageKind.EVENT]}

    def test_receipts_are_read_whatever_the_page_holds(self, raised: Provider) -> None:
        row, _ = self.pair(raised)
        for number in range(3):
            expect(one(raised, an_append("i", f"m{number}")), Appended)
        expect(one(raised, a_write(row, sends=(an_event_to(row, "t"),))), Granted)
        expect(one(raised, a_park(read(raised).row, seen_seq=0)), Granted)
        outcome = one(raised, Claim("n1", (KIND,), 9, page=InboxPage(1, 1_000)))
        (snapshot,) = expect(outcome, Claimed).snapshots
        assert [message.kind for message in snapshot.messages] == [
            MessageKind.EVENT,
            MessageKind.SEND_DELIVERED,
        ]

    def test_a_cancel_sets_the_mark_and_names_its_sender(self, raised: Provider) -> None:
        row, _ = self.pair(raised)
        (target, marked), (_, receipt) = arrivals(
            one(raised, a_write(row, sends=(a_cancel_of(row, "t"),)))
        )
        assert (target, marked.fresh, marked.message) == ("t", True, None)
        mark = read(raised, "t").row.cancel
        assert mark is not None
        assert (mark.reason, mark.by, mark.terminate) == ("enough", "i", False)
        assert receipt.message is not None
        assert receipt.message.kind is MessageKind.SEND_DELIVERED

    def test_a_second_cancel_changes_nothing_and_counts_as_delivered(
        self, raised: Provider
    ) -> None:
        row, _ = self.pair(raised)
        expect(one(raised, Cancel("t", "first", "me")), Appended)
        outcome = one(raised, a_write(row, sends=(a_cancel_of(row, "t"),)))
        assert [instance_id for instance_id, _ in arrivals(outcome)] == ["i"]
        mark = read(raised, "t").row.cancel
        assert mark is not None
        assert mark.reason == "first"

    def test_several_sends_arrive_in_their_order(self, raised: Provider) -> None:
        row, _ = self.pair(raised)
        sends = tuple(an_event_to(row, "t", event_id) for event_id in (2, 3, 4))
        expect(one(raised, a_write(row, sends=sends)), Granted)
        found = raised.directory.messages("t")
        assert [message.message_id for message in found] == [
            str(sender(row, event_id)) for event_id in (2, 3, 4)
        ]
        assert read(raised).reports == (2, 3, 4)

    def test_an_instance_may_send_to_itself(self, raised: Provider) -> None:
        row = begin(raised)
        outcome = one(raised, a_write(row, sends=(an_event_to(row, "i"),)))
        assert [(to, arrival.sequence) for to, arrival in arrivals(outcome)] == [("i", 1), ("i", 2)]
        assert unread(raised, "i") == [("go", b'"sent"', "i")]
        assert read(raised).reports == (2,)

    def test_two_instances_may_send_to_each_other_in_one_group(self, raised: Provider) -> None:
        row, target = self.pair(raised)
        outcomes = raised.store.commit(
            [
                a_write(target, sends=(an_event_to(target, "i"),)),
                a_write(row, sends=(an_event_to(row, "t"),)),
            ]
        ).outcomes
        assert [len(arrivals(outcome)) for outcome in outcomes] == [2, 2]
        assert unread(raised, "i") == [("go", b'"sent"', "t")]
        assert unread(raised, "t") == [("go", b'"sent"', "i")]

    def test_an_event_for_a_child_of_the_same_write_reaches_it(self, raised: Provider) -> None:
        row = begin(raised)
        child = a_child(row, "c", 2, OnParentClose.ABANDON)
        written = a_write(row, starts=(child,), sends=(an_event_to(row, "c", 3),))
        assert [to for to, _ in arrivals(one(raised, written))] == ["c", "i"]
        assert unread(raised, "c") == [("go", b'"sent"', "i")]

    def test_an_event_for_a_held_instance_waits(self, raised: Provider) -> None:
        row, target = self.pair(raised)
        hold = a_write(target, a_state(target, owner=None), hold=a_hold())
        expect(one(raised, hold), Granted)
        expect(one(raised, a_write(row, sends=(an_event_to(row, "t"),))), Granted)
        assert read(raised, "t").held
        assert claim(raised) == ()

    # --- refused ---

    def test_what_is_sent_to_nobody_is_refused_and_the_write_stands(self, raised: Provider) -> None:
        row = begin(raised)
        sends = (an_event_to(row, "nobody"), a_cancel_of(row, "nobody", 3))
        written = one(raised, a_write(row, sends=sends))
        receipts = [arrival.message for _, arrival in arrivals(written)]
        assert [
            (message.kind, message.source, read_refusal(message.payload))
            for message in receipts
            if message is not None
        ] == [
            (MessageKind.SEND_REFUSED, 2, (Refusal.NOT_FOUND, None)),
            (MessageKind.SEND_REFUSED, 3, (Refusal.NOT_FOUND, None)),
        ]
        assert read(raised).reports == (2, 3)

    def test_what_is_sent_to_an_ended_instance_is_refused(self, raised: Provider) -> None:
        row, target = self.pair(raised)
        expect(one(raised, an_end(target)), Granted)
        outcome = one(raised, a_write(row, sends=(an_event_to(row, "t"), a_cancel_of(row, "t", 3))))
        refusals = [
            read_refusal(arrival.message.payload)
            for _, arrival in arrivals(outcome)
            if arrival.message is not None
        ]
        assert refusals == [(Refusal.CLOSED, None), (Refusal.CLOSED, None)]

    def test_an_end_of_the_same_group_comes_before_what_is_sent_to_the_instance(
        self, raised: Provider
    ) -> None:
        row, target = self.pair(raised)
        outcomes = raised.store.commit(
            [a_write(row, sends=(an_event_to(row, "t"),)), an_end(target)]
        ).outcomes
        ((_, receipt),) = arrivals(outcomes[0])
        assert receipt.message is not None
        assert read_refusal(receipt.message.payload) == (Refusal.CLOSED, None)
        assert unread(raised, "t") == []

    def test_a_full_inbox_refuses_the_event_and_takes_the_receipt(self, raised: Provider) -> None:
        row, _ = self.pair(raised)
        limits = InboxLimits(1, 1_000)
        sends = tuple(an_event_to(row, "t", event_id, limits) for event_id in (2, 3))
        written = one(raised, a_write(row, sends=sends))
        (_, refused) = arrivals(written)[-1]
        assert refused.message is not None
        reason, full = read_refusal(refused.message.payload)
        assert (reason, full) == (Refusal.FULL, Full("messages", 1, 1, of_name=False))
        expect(one(raised, an_append("i", limit=1)), Appended)
        assert isinstance(one(raised, an_append("i", "m2", limit=1)), AppendRefused)

    def test_a_refused_write_sends_nothing(self, raised: Provider) -> None:
        row, _ = self.pair(raised)
        stale = replace(row, revision=row.revision - 1)
        assert one(raised, a_write(stale, sends=(an_event_to(row, "t"),))) == Refused()
        assert unread(raised, "t") == []

    # --- ends of the sender's execution ---

    @pytest.mark.parametrize("how", ["its boundary", "its end"])
    def test_what_is_sent_with_the_last_write_of_an_execution_is_sent_without_a_receipt(
        self, raised: Provider, how: str
    ) -> None:
        row, _ = self.pair(raised)
        sends = (an_event_to(row, "t"), an_event_to(row, "nobody", 3), a_cancel_of(row, "x", 4))
        write = a_boundary(row) if how == "its boundary" else an_end(row)
        written = expect(one(raised, changed(write, sends=sends)), Granted)
        assert [to for to, _ in written.arrivals] == ["t"]
        assert written.refused == (
            RefusedSend("nobody", "go", "not found"),
            RefusedSend("x", None, "not found"),
        )
        assert unread(raised, "t") == [("go", b'"sent"', "i")]
        assert read(raised).reports == ()

    def test_an_instance_that_ends_cannot_send_to_itself(self, raised: Provider) -> None:
        row = begin(raised)
        written = one(raised, changed(an_end(row), sends=(an_event_to(row, "i"),)))
        assert expect(written, Granted).refused == (RefusedSend("i", "go", "closed"),)

    @pytest.mark.parametrize("how", ["its boundary", "its end", "an operator"])
    def test_unread_receipts_go_with_the_execution_that_has_sent(
        self, raised: Provider, how: str
    ) -> None:
        row, _ = self.pair(raised)
        expect(one(raised, a_write(row, sends=(an_event_to(row, "t"),))), Granted)
        expect(one(raised, an_append("i", "kept")), Appended)
        assert read(raised).reports == (2,)
        row = read(raised).row
        match how:
            case "its boundary":
                write = a_boundary(row, receipts=True)
            case "its end":
                write = an_end(row)
            case _:
                write = replace(an_end(row, Status.TERMINATED), owner=None)
        expect(one(raised, write), Granted)
        record = read(raised)
        assert record.reports == ()
        assert record.unread_messages == (1 if how == "its boundary" else 0)

    def test_a_consumed_receipt_leaves_no_tombstone(self, raised: Provider) -> None:
        row, _ = self.pair(raised)
        expect(one(raised, a_write(row, sends=(an_event_to(row, "t"),))), Granted)
        row = read(raised).row
        expect(one(raised, a_write(row, a_state(row, seen_seq=1), consumed=(1,))), Granted)
        assert read(raised).reports == ()
        again = an_append("i", str(sender(row)))
        assert expect(one(raised, again), Appended).fresh

    # --- repeated ---

    def test_the_same_send_again_has_no_effect(self, raised: Provider) -> None:
        """Rule 21."""
        row, target = self.pair(raised)
        expect(one(raised, a_write(row, sends=(an_event_to(row, "t"),))), Granted)
        (message,) = raised.directory.messages("t")
        again = one(raised, an_append("t", message.message_id))
        assert expect(again, Appended).fresh is False
        target = read(raised, "t").row
        expect(one(raised, a_write(target, a_state(target, seen_seq=1), consumed=(1,))), Granted)
        again = one(raised, an_append("t", message.message_id))
        assert expect(again, Appended).fresh is False
        assert unread(raised, "t") == []

    # --- the rows that are locked ---

    def test_the_order_of_the_targets_locks_nothing_out(self, connect: Open) -> None:
        """Two connections send to each other's instances, in opposite orders."""
        first, second = connect(), connect()
        first.store.raise_level(Levels(THIS_LIBRARY.level))
        second.store.raise_level(Levels(THIS_LIBRARY.level))
        row, target = self.pair(first)
        for _ in range(3):
            write = a_write(row, sends=(an_event_to(row, "t", row.revision),))
            assert len(arrivals(one(first, write))) == 2
            write = a_write(target, sends=(an_event_to(target, "i", target.revision),))
            assert len(arrivals(one(second, write))) == 2
            row, target = read(first).row, read(first, "t").row
