"""The request to cancel an instance (rule 18)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestra.store.changes import Cancel
from orchestra.store.executions import Closing, ExecutionDelta
from orchestra.store.instances import CancelMark
from orchestra.store.kinds import ExecutionEnd
from orchestra.store.outcomes import Appended, AppendRefused, Granted, Refusal
from orchestra.store.port import Provider
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    a_park,
    a_state,
    a_write,
    an_end,
    an_execution,
    begin,
    claim,
    expect,
    one,
    read,
)


class CancelTests(ContractBase):
    """A mark that is set once, and that wakes."""

    def test_a_cancel_wakes_and_a_second_one_changes_nothing(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        expect(one(provider, a_park(begin(provider))), Granted)
        first = expect(one(provider, Cancel("i", "enough", "me")), Appended)
        assert (first.fresh, first.sequence, first.message) == (True, 1, None)
        assert first.cancel is not None
        assert (first.cancel.reason, first.cancel.by, first.cancel.at) == (
            "enough",
            "me",
            clock.now(),
        )
        (snapshot,) = claim(provider)
        assert snapshot.row.cancel == first.cancel
        before = read(provider)
        second = expect(one(provider, Cancel("i", "really", "you")), Appended)
        assert second == replace(first, fresh=False, owner="n1")
        assert read(provider) == before

    def test_a_cancel_crosses_the_boundary(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, Cancel("i", "enough")), Appended)
        deltas = (
            ExecutionDelta(1, closed=Closing(1, ExecutionEnd.CONTINUED_AS_NEW, None, None)),
            ExecutionDelta(2, create=an_execution(2)),
        )
        write = a_write(
            row,
            a_state(row, owner=None, seen_seq=1, wake_at=0, execution=2, opened=False),
            executions=deltas,
        )
        expect(one(provider, write), Granted)
        (snapshot,) = claim(provider)
        assert snapshot.row.cancel is not None

    def test_a_cancel_before_the_end_is_taken_and_one_after_it_is_refused(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        assert expect(one(provider, Cancel("i", "enough")), Appended).fresh
        assert one(provider, an_end(row)) == Granted(inbox_seq=1)
        assert one(provider, Cancel("i", "enough")) == AppendRefused(Refusal.CLOSED)
        assert one(provider, Cancel("nobody", "enough")) == AppendRefused(Refusal.NOT_FOUND)

    def test_a_mark_to_terminate_beats_a_cancel_and_a_cancel_after_it_changes_nothing(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        expect(one(provider, a_park(row)), Granted)
        expect(one(provider, Cancel("i", "enough", "me")), Appended)
        clock.advance(timedelta(seconds=5))
        first = expect(
            one(provider, Cancel("i", "now", "you", terminate=True, incarnation=row.incarnation)),
            Appended,
        )
        assert (first.fresh, first.sequence, first.cancel) == (
            True,
            2,
            CancelMark(clock.now(), "now", "you", terminate=True),
        )
        (snapshot,) = claim(provider)
        assert snapshot.row.cancel == first.cancel
        before = read(provider)
        for change in (Cancel("i", "again", "me", terminate=True), Cancel("i", "enough", "me")):
            assert one(provider, change) == replace(first, fresh=False, owner="n1")
        assert read(provider) == before

    def test_a_mark_to_terminate_asks_for_nothing_but_the_life_and_that_it_is_open(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        other = Cancel("i", "now", terminate=True, incarnation=f"not {row.incarnation}")
        assert one(provider, other) == AppendRefused(Refusal.NOT_FOUND)
        assert read(provider).row.cancel is None
        expect(
            one(provider, Cancel("i", "now", terminate=True, incarnation=row.incarnation)), Appended
        )
        assert one(provider, an_end(row)) == Granted(inbox_seq=1)
        assert one(provider, other) == AppendRefused(Refusal.NOT_FOUND)
        assert one(provider, replace(other, incarnation=row.incarnation)) == AppendRefused(
            Refusal.CLOSED
        )
