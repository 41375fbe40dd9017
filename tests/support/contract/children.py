"""Parents and children: starts inside a write, ends that reach who waits, and what a closed parent
leaves (rule 20).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from orchestra.codec import Payload
from orchestra.errors import StoreError
from orchestra.events import OnParentClose
from orchestra.store.changes import Cancel, ChildCancel, ChildStart, Claim, Write
from orchestra.store.executions import Closing, ExecutionDelta, Opening
from orchestra.store.inbox_limits import Full
from orchestra.store.instances import PARENT_CLOSED, CancelMark, InstanceRow, ParentLink
from orchestra.store.kinds import ExecutionEnd, MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import (
    Appended,
    AppendRefused,
    Claimed,
    Granted,
    Outcome,
    Refusal,
    Refused,
    Started,
)
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    KIND,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_event,
    an_execution,
    begin,
    changed,
    claim,
    expect,
    ids,
    one,
    read,
)

_TAKEN: Final = b'{"error":["taken","",null]}'

_HOW: Final = pytest.mark.parametrize("how", ["its boundary", "its end", "an operator"])
"""How the parent's execution closes."""


def link_to(row: InstanceRow, event_id: int = 2) -> ParentLink:
    return ParentLink(row.instance_id, row.incarnation, row.execution, event_id)


def a_child(
    row: InstanceRow,
    child_id: str,
    event_id: int = 2,
    close: OnParentClose = OnParentClose.ABANDON,
    **fields: Any,
) -> ChildStart:
    link = link_to(row, event_id)
    start = replace(
        a_start(child_id, f"life of {link}", str(link)),
        parent=link,
        root_id="i",
        on_parent_close=close,
    )
    return ChildStart(child_id, link, start, fields.get("refusal", _TAKEN))


def a_detached(row: InstanceRow, child_id: str, event_id: int = 2) -> ChildStart:
    link = link_to(row, event_id)
    return ChildStart(child_id, link, a_start(child_id, f"life of {link}", str(link)), None)


def closing(write: Write) -> Write:
    """Return a write that ends an instance, saying that it may have children."""
    return replace(
        write, executions=tuple(replace(delta, children=True) for delta in write.executions)
    )


def a_boundary(row: InstanceRow, **fields: Any) -> Write:
    number = row.execution
    return a_write(
        row,
        a_state(row, execution=number + 1, opened=False, owner=None, wake_at=10**17),
        executions=(
            ExecutionDelta(
                number, closed=Closing(5, ExecutionEnd.CONTINUED_AS_NEW, None, None), children=True
            ),
            ExecutionDelta(number + 1, create=an_execution(number + 1)),
        ),
        **fields,
    )


def a_close(row: InstanceRow, how: str) -> Write:
    match how:
        case "its boundary":
            return a_boundary(row)
        case "its end":
            return closing(an_end(row))
        case _:
            return replace(an_end(row, Status.TERMINATED), owner=None)


def with_children(
    provider: Provider, *children: str, close: OnParentClose = OnParentClose.ABANDON
) -> list[InstanceRow]:
    """Return a parent of these children, whose events are 2, 3, ..., and the children; one node
    owns them all.
    """
    parent = begin(provider)
    starts = tuple(
        a_child(parent, child_id, event_id, close)
        for event_id, child_id in enumerate(children, start=2)
    )
    expect(one(provider, a_write(parent, starts=starts)), Granted)
    claimed = {snapshot.row.instance_id: snapshot.row for snapshot in claim(provider)}
    return [read(provider).row, *(claimed[child_id] for child_id in children)]


def arrivals(outcome: Outcome) -> Sequence[tuple[str, Appended]]:
    return expect(outcome, Granted).arrivals


class ChildTests(ContractBase):
    """What a write does to the parents and children of its instance."""

    # --- starting ---

    def test_a_child_is_started_by_the_write_that_asks_for_it_and_claimed_in_its_transaction(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        child = a_child(row, "c", close=OnParentClose.CANCEL)
        written, claimed = provider.store.commit(
            [a_write(row, starts=(child,)), Claim("n1", (KIND,), 9)]
        ).outcomes
        assert written == Granted(0)
        (snapshot,) = expect(claimed, Claimed).snapshots
        assert (snapshot.row.instance_id, snapshot.row.parent, snapshot.row.root_id) == (
            "c",
            link_to(row),
            "i",
        )
        record = read(provider, "c")
        assert (record.row.parent, record.row.root_id, record.row.owner) == (
            link_to(row),
            "i",
            "n1",
        )
        assert (read(provider).row.parent, read(provider).row.root_id) == (None, None)

    def test_a_refused_write_starts_and_cancels_nothing(self, provider: Provider) -> None:
        parent, _ = with_children(provider, "c")
        stale = replace(parent, revision=parent.revision - 1)
        cancel = ChildCancel("c", link_to(parent), "given up")
        assert (
            one(provider, a_write(stale, starts=(a_child(parent, "d", 3),), cancels=(cancel,)))
            == Refused()
        )
        assert provider.directory.get("d") is None
        assert read(provider, "c").row.cancel is None

    def test_a_child_start_that_fails_takes_the_write_with_it(self, provider: Provider) -> None:
        row = begin(provider)
        poison = ExecutionDelta(5, closed=Closing(1, ExecutionEnd.FAILED, None, b"e"))
        with pytest.raises(StoreError):
            provider.store.commit([a_write(row, starts=(a_child(row, "c"),), executions=(poison,))])
        assert provider.directory.get("c") is None

    def test_17_a_start_that_is_delivered_again_is_known_as_its_own_and_fails_nobody(
        self, provider: Provider
    ) -> None:
        """Scenario 17."""
        parent, child = with_children(provider, "c")
        assert one(provider, a_write(parent, starts=(a_child(parent, "c"),))) == Granted(0)
        assert read(provider).reports == ()
        assert read(provider, "c").row == child

    def test_a_child_whose_id_is_taken_fails_for_its_parent_in_the_same_transaction(
        self, provider: Provider
    ) -> None:
        """Rule 20."""
        row = begin(provider)
        expect(one(provider, a_start("c", request_id="somebody else")), Started)
        before = read(provider, "c")
        written = one(provider, a_write(row, starts=(a_child(row, "c"),)))
        message = MessageRow(
            1,
            str(link_to(row)),
            "c",
            Payload(_TAKEN),
            self._now(provider),
            MessageKind.CHILD_FAILED,
            link_to(row).event_id,
            sender="c",
        )
        assert written == Granted(
            0, arrivals=(("i", Appended(1, "n1", fresh=True, message=message)),)
        )
        record = read(provider)
        assert (record.reports, record.unread_messages, record.row.inbox_seq) == ((2,), 0, 1)
        assert read(provider, "c") == before

    def test_a_child_that_cannot_be_started_at_all_is_a_failure_too(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        hopeless = replace(a_child(row, "c"), start=None)
        ((instance_id, appended),) = arrivals(one(provider, a_write(row, starts=(hopeless,))))
        assert (instance_id, appended.sequence) == ("i", 1)
        assert provider.directory.get("c") is None

    def test_a_conflict_in_the_write_that_leaves_the_execution_is_told_to_nobody(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        expect(one(provider, a_start("c", request_id="somebody else")), Started)
        assert one(provider, a_boundary(row, starts=(a_child(row, "c"),))) == Granted(0)
        assert read(provider).reports == ()

    def test_a_detached_start_has_no_parent_and_leaves_a_taken_id_alone(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        assert one(provider, a_write(row, starts=(a_detached(row, "d"),))) == Granted(0)
        assert (read(provider, "d").row.parent, read(provider, "d").row.root_id) == (None, None)
        before = read(provider, "d")
        row = read(provider).row
        written = one(
            provider, a_write(row, starts=(a_detached(row, "d", 3), a_detached(row, "d", 2)))
        )
        assert written == Granted(0, taken=("d",)), "the second is the first start again"
        assert read(provider, "d") == before
        assert read(provider).reports == ()

    # --- ending ---

    @pytest.mark.parametrize(
        "status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TERMINATED]
    )
    def test_the_end_of_a_child_goes_into_its_parents_inbox_and_wakes_it(
        self, provider: Provider, status: Status
    ) -> None:
        parent, child = with_children(provider, "c")
        expect(one(provider, a_park(parent)), Granted)
        output, error = (
            (Payload(b'"done"', 2), None) if status is Status.COMPLETED else (None, b"error")
        )
        delta = ExecutionDelta(1, closed=Closing(9, ExecutionEnd(status.value), output, error))
        end = a_write(child, a_state(child, status=status, owner=None), executions=(delta,))
        written, claimed = provider.store.commit([end, Claim("n2", (KIND,), 9)]).outcomes
        payload = output or Payload(b"error")
        message = MessageRow(
            1,
            str(link_to(parent)),
            "c",
            payload,
            self._now(provider),
            MessageKind(status.value),
            source=2,
            sender="c",
        )
        assert written == Granted(
            0, arrivals=(("i", Appended(1, None, fresh=True, message=message)),)
        )
        (snapshot,) = expect(claimed, Claimed).snapshots
        assert (snapshot.row.instance_id, snapshot.messages) == ("i", (message,))
        record = read(provider)
        assert (record.reports, record.unread_messages) == ((2,), 0)

    def test_an_operators_end_of_a_child_tells_its_parent_too(self, provider: Provider) -> None:
        _, child = with_children(provider, "c")
        ((instance_id, appended),) = arrivals(
            one(provider, replace(an_end(child, Status.TERMINATED), owner=None))
        )
        assert (instance_id, appended.owner, appended.sequence) == ("i", "n1", 1)
        (news,) = provider.store.news("n1")
        assert [message.kind for message in news.messages] == [MessageKind.CHILD_TERMINATED]

    def test_two_children_that_end_in_one_group_with_a_write_of_their_parent_all_count(
        self, provider: Provider
    ) -> None:
        """Rule 7: owners' writes first, then messages as later statements."""
        parent, first, second = with_children(provider, "c", "d")
        group = (an_end(second), a_write(parent, a_state(parent, history_events=7)), an_end(first))
        later, granted, sooner = provider.store.commit(group).outcomes
        assert granted == Granted(0)
        assert [appended.sequence for _, appended in (*arrivals(later), *arrivals(sooner))] == [
            1,
            2,
        ]
        record = read(provider)
        assert (record.row.history_events, record.row.inbox_seq, record.reports) == (7, 2, (2, 3))

    def test_a_park_that_meets_the_end_of_a_child_in_its_group_is_no_park(
        self, provider: Provider
    ) -> None:
        parent, child = with_children(provider, "c")
        group = (an_end(child), a_park(parent, wake_at=10**17), Claim("n1", (KIND,), 9))
        ended, _, claimed = provider.store.commit(group).outcomes
        assert [appended.owner for _, appended in arrivals(ended)] == [None]
        (snapshot,) = expect(claimed, Claimed).snapshots
        assert [message.source for message in snapshot.messages] == [2]

    @_HOW
    def test_a_child_that_ends_when_its_parents_execution_has_closed_is_told_to_nobody(
        self, provider: Provider, how: str
    ) -> None:
        parent, child = with_children(provider, "c")
        expect(one(provider, a_close(parent, how)), Granted)
        assert one(provider, an_end(child)) == Granted(0)
        record = read(provider)
        assert (record.reports, record.row.inbox_seq) == ((), 0)

    @_HOW
    @pytest.mark.parametrize("first", ["parent", "child"])
    def test_a_child_that_ends_in_the_group_in_which_its_parent_closes_is_told_to_nobody(
        self, provider: Provider, how: str, first: str
    ) -> None:
        parent, child = with_children(provider, "c")
        group = [a_close(parent, how), an_end(child)]
        outcomes = provider.store.commit(group if first == "parent" else group[::-1]).outcomes
        assert outcomes == (Granted(0), Granted(0))
        assert read(provider).reports == ()

    @_HOW
    def test_unread_ends_of_children_go_with_the_execution_and_events_stay(
        self, provider: Provider, how: str
    ) -> None:
        """I9, and I8 for the events."""
        parent, child, _ = with_children(provider, "c", "d")
        expect(one(provider, an_end(child)), Granted)
        expect(one(provider, an_append("i")), Appended)
        assert (read(provider).reports, read(provider).unread_messages) == ((2,), 1)
        closed = one(provider, a_close(parent, how))
        assert closed == Granted(2)
        record = read(provider)
        assert record.reports == ()
        if how == "its boundary":
            assert record.unread_messages == 1
            (snapshot,) = claim(provider)
            assert [message.name for message in snapshot.messages] == ["go"]
        else:
            assert record.unread_at_end == {"go": 1}

    def test_the_end_of_a_child_is_consumed_like_a_message(self, provider: Provider) -> None:
        parent, child = with_children(provider, "c")
        expect(one(provider, an_end(child)), Granted)
        expect(one(provider, a_write(parent, a_state(parent, seen_seq=1), consumed=(1,))), Granted)
        assert read(provider).reports == ()
        before = read(provider)
        with pytest.raises(StoreError):
            provider.store.commit([a_write(before.row, consumed=(1,))])
        assert read(provider) == before

    def test_a_parent_of_another_life_is_told_nothing(self, provider: Provider) -> None:
        """Rule 2."""
        parent, child = with_children(provider, "c")
        expect(one(provider, an_end(parent)), Granted)
        assert provider.admin.delete("i", parent.incarnation, by="me", reason="")
        expect(one(provider, a_start("i", incarnation="another life")), Started)
        assert one(provider, an_end(child)) == Granted(0)
        assert (read(provider).reports, read(provider).row.inbox_seq) == ((), 0)

    def test_a_deleted_parent_leaves_its_children_alone_and_a_deleted_child_tells_nobody(
        self, provider: Provider
    ) -> None:
        parent, first, second = with_children(provider, "c", "d")
        expect(one(provider, an_end(first)), Granted)
        assert provider.admin.delete("c", first.incarnation, by="me", reason="")
        assert (read(provider).reports, read(provider).row.inbox_seq) == ((2,), 1)
        expect(one(provider, closing(an_end(parent))), Granted)
        assert provider.admin.delete("i", parent.incarnation, by="me", reason="")
        assert one(provider, an_end(second)) == Granted(0)
        assert read(provider, "d").status is Status.COMPLETED

    def test_a_full_inbox_takes_the_ends_of_children_and_they_do_not_fill_it(
        self, provider: Provider
    ) -> None:
        _, first, second = with_children(provider, "c", "d")
        expect(one(provider, an_append("i", "m1", limit=1)), Appended)
        assert one(provider, an_append("i", "m2", limit=1)) == AppendRefused(
            Refusal.FULL, Full("messages", 1, 1, of_name=False)
        )
        for child in (first, second):
            assert len(arrivals(one(provider, an_end(child)))) == 1
        assert expect(one(provider, an_append("i", "m2", limit=2)), Appended).sequence == 4
        assert read(provider).reports == (2, 3)

    def test_no_sender_can_take_the_place_of_a_childs_end(self, provider: Provider) -> None:
        parent, child = with_children(provider, "c")
        expect(one(provider, an_append("i", str(link_to(parent)))), Appended)
        ((_, appended),) = arrivals(one(provider, an_end(child)))
        assert (appended.sequence, appended.fresh) == (2, True)
        assert expect(one(provider, an_append("i", str(link_to(parent)))), Appended).sequence == 1
        row = read(provider).row
        expect(one(provider, a_write(row, a_state(row, seen_seq=2), consumed=(1, 2))), Granted)
        assert not expect(one(provider, an_append("i", str(link_to(parent)))), Appended).fresh

    # --- giving up ---

    def test_a_child_is_cancelled_by_the_write_that_gives_it_up(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        parent, child = with_children(provider, "c")
        expect(one(provider, a_park(child)), Granted)
        cancel = ChildCancel("c", link_to(parent), "given up")
        mark = CancelMark(clock.now(), "given up", "i")
        assert one(provider, a_write(parent, cancels=(cancel,))) == Granted(
            0, arrivals=(("c", Appended(1, None, fresh=True, cancel=mark)),)
        )
        (snapshot,) = claim(provider)
        assert (snapshot.row.instance_id, snapshot.row.cancel) == ("c", mark)
        again = replace(cancel, reason="again")
        assert one(provider, a_write(read(provider).row, cancels=(again,))) == Granted(0)
        assert read(provider, "c").row.cancel == mark

    @pytest.mark.parametrize("field", ["instance_id", "incarnation", "execution", "event_id"])
    def test_only_ones_own_child_can_be_given_up(self, provider: Provider, field: str) -> None:
        parent, _ = with_children(provider, "c")
        link = link_to(parent)
        other = replace(link, **{field: 99 if isinstance(getattr(link, field), int) else "other"})
        assert one(
            provider,
            a_write(parent, cancels=(ChildCancel("c", other, ""), ChildCancel("none", link, ""))),
        ) == Granted(0)
        assert read(provider, "c").row.cancel is None

    def test_a_child_that_has_ended_takes_no_mark(self, provider: Provider) -> None:
        parent, child = with_children(provider, "c", close=OnParentClose.TERMINATE)
        expect(one(provider, an_end(child)), Granted)
        parent = read(provider).row
        write = changed(a_boundary(parent), cancels=(ChildCancel("c", link_to(parent), ""),))
        assert arrivals(one(provider, write)) == ()
        assert read(provider, "c").row.cancel is None

    # --- closing ---

    @_HOW
    @pytest.mark.parametrize("close", OnParentClose)
    def test_open_children_are_marked_as_they_were_started_when_the_execution_closes(
        self, provider: Provider, clock: ManualClock, how: str, close: OnParentClose
    ) -> None:
        parent, child = with_children(provider, "c", close=close)
        expect(one(provider, a_park(child)), Granted)
        told = arrivals(one(provider, a_close(parent, how)))
        if close in (OnParentClose.ABANDON, OnParentClose.KEEP):
            assert (told, read(provider, "c").row.cancel) == ((), None)
            assert "c" not in ids(claim(provider))
            return
        mark = CancelMark(
            clock.now(), PARENT_CLOSED, "i", terminate=close is OnParentClose.TERMINATE
        )
        assert told == (("c", Appended(1, None, fresh=True, cancel=mark)),)
        assert read(provider, "c").row.cancel == mark
        assert "c" in ids(claim(provider))

    def test_a_write_that_says_that_there_are_no_children_looks_for_none(
        self, provider: Provider
    ) -> None:
        parent, _ = with_children(provider, "c", close=OnParentClose.CANCEL)
        assert one(provider, an_end(parent)) == Granted(0)
        assert read(provider, "c").row.cancel is None

    def test_12_children_of_the_write_that_closes_are_started_first_and_marked_then(
        self, provider: Provider
    ) -> None:
        """Scenario 12."""
        row = begin(provider)
        starts = (
            a_child(row, "c", 2),
            a_child(row, "d", 3, OnParentClose.CANCEL),
            a_detached(row, "e", 4),
        )
        told = arrivals(one(provider, a_boundary(row, starts=starts)))
        assert [instance_id for instance_id, _ in told] == ["d"]
        assert [read(provider, child_id).row.cancel is not None for child_id in "cde"] == [
            False,
            True,
            False,
        ]
        assert ids(claim(provider)) == ["c", "d", "e"]

    def test_only_the_children_of_the_execution_that_closes_are_marked(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        expect(
            one(provider, a_write(row, starts=(a_child(row, "c", 2, OnParentClose.CANCEL),))),
            Granted,
        )
        row = read(provider).row
        write = a_boundary(row)
        expect(one(provider, replace(write, state=replace(write.state, owner=row.owner))), Granted)
        following = read(provider).row
        expect(
            one(
                provider,
                a_write(following, starts=(a_child(following, "d", 2, OnParentClose.CANCEL),)),
            ),
            Granted,
        )
        assert read(provider, "c").row.cancel is not None
        assert read(provider, "d").row.cancel is None

    def test_terminate_beats_cancel_whichever_comes_first(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        """Rule 18."""
        parent, _ = with_children(provider, "c", close=OnParentClose.TERMINATE)
        expect(one(provider, Cancel("c", "enough", "me")), Appended)
        told = arrivals(one(provider, a_boundary(parent)))
        mark = CancelMark(clock.now(), PARENT_CLOSED, "i", terminate=True)
        assert told == (("c", Appended(2, "n1", fresh=True, cancel=mark)),)
        again = expect(one(provider, Cancel("c", "once more", "me")), Appended)
        assert (again.fresh, again.sequence, again.cancel) == (False, 2, mark)
        (news,) = [news for news in provider.store.news("n1") if news.instance_id == "c"]
        assert news.cancel == mark

    def test_several_laps_in_one_write_close_with_their_own_children(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        second = replace(row, execution=2)
        laps = (
            ExecutionDelta(
                1, closed=Closing(5, ExecutionEnd.CONTINUED_AS_NEW, None, None), children=True
            ),
            ExecutionDelta(
                2,
                create=an_execution(2),
                opened=Opening(5, "1.0.0", "f1", 1, an_execution().resolution),
                events=(an_event(1),),
                closed=Closing(6, ExecutionEnd.CONTINUED_AS_NEW, None, None),
                children=True,
            ),
            ExecutionDelta(3, create=an_execution(3)),
        )
        starts = (
            a_child(row, "c", 2, OnParentClose.CANCEL),
            a_child(second, "d", 2, OnParentClose.TERMINATE),
        )
        written = one(
            provider, a_write(row, a_state(row, execution=3), executions=laps, starts=starts)
        )
        assert [instance_id for instance_id, _ in arrivals(written)] == ["c", "d"]
        marks = [read(provider, child_id).row.cancel for child_id in "cd"]
        assert [mark is not None and mark.terminate for mark in marks] == [False, True]

    # --- looking ---

    def test_children_are_listed_by_their_parent_and_its_execution(
        self, provider: Provider
    ) -> None:
        with_children(provider, "c", "d")
        parent = read(provider).row
        expect(one(provider, a_boundary(parent)), Granted)
        expect(one(provider, an_append("i")), Appended)
        (snapshot,) = claim(provider)
        expect(one(provider, a_write(snapshot.row, starts=(a_child(snapshot.row, "e"),))), Granted)

        def listed(**conditions: Any) -> list[str]:
            return sorted(
                record.row.instance_id
                for record in provider.directory.list(InstanceQuery(**conditions))
            )

        assert listed(parent="i") == ["c", "d", "e"]
        assert listed(parent="i", parent_execution=1) == ["c", "d"]
        assert listed(parent="i", parent_execution=2) == ["e"]
        assert listed(parent="c") == []
        assert listed(parent="i", name="other") == []

    def test_what_was_started_and_told_is_seen_by_every_connection(self, connect: Open) -> None:
        first, second = connect(), connect()
        parent, child = with_children(first, "c")
        expect(one(second, an_end(child)), Granted)
        (news,) = first.store.news("n1")
        assert (news.instance_id, [message.source for message in news.messages]) == ("i", [2])
        expect(one(first, a_write(parent, a_state(parent, seen_seq=1), consumed=(1,))), Granted)
        assert read(second).reports == ()

    @staticmethod
    def _now(provider: Provider) -> int:
        return provider.store.commit([]).now
