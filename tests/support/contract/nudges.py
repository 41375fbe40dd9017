"""Nudges: an operator asks one execution to reach its boundary soon (rules 6 and 40)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from orchestra.codec import UserText
from orchestra.store.changes import Cancel, Resume
from orchestra.store.executions import Closing, ExecutionDelta
from orchestra.store.instances import CancelMark, Nudge, OperatorHold
from orchestra.store.kinds import ExecutionEnd, HoldKind
from orchestra.store.nudges import Nudged
from orchestra.store.outcomes import Appended, Granted, Refused, Started
from orchestra.store.port import Provider
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    SECOND,
    a_hold,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_execution,
    begin,
    claim,
    expect,
    ids,
    one,
    read,
)

_YEAR = 365 * 24 * 3600 * SECOND


def nudge(
    provider: Provider,
    execution: int = 1,
    incarnation: str = "a",
    instance_id: str = "i",
    reason: str = "a deploy",
) -> Nudged:
    return provider.admin.nudge(instance_id, incarnation, execution, by="ops", reason=reason)


def boundary(provider: Provider) -> None:
    """Let the owner of ``i`` cross its boundary into execution 2, which has not begun."""
    row = read(provider).row
    closed = Closing(12, ExecutionEnd.CONTINUED_AS_NEW)
    state = a_state(row, owner=None, wake_at=0, execution=2, opened=False)
    deltas = (ExecutionDelta(1, closed=closed), ExecutionDelta(2, create=an_execution(2)))
    expect(one(provider, a_write(row, state, executions=deltas)), Granted)


class NudgeTests(ContractBase):
    """A nudge makes ready, takes ownership away, and means one execution."""

    def test_a_nudge_wakes_an_instance_that_sleeps_for_a_year(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = begin(provider)
        expect(one(provider, a_park(row, wake_at=clock.now() + _YEAR)), Granted)
        assert claim(provider) == ()
        revision = read(provider).row.revision
        assert nudge(provider) is Nudged.ASKED
        record = read(provider)
        assert (record.row.wake_at, record.row.revision) == (0, revision + 1)
        (snapshot,) = claim(provider)
        assert snapshot.row.nudge == Nudge(1, record.updated_at, "ops", "a deploy")
        assert snapshot.row.inbox_seq == row.inbox_seq, "it is no message"

    def test_a_nudge_reaches_an_owner_that_has_the_instance_in_memory(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        assert nudge(provider) is Nudged.ASKED
        assert one(provider, a_write(row)) == Refused()
        (snapshot,) = claim(provider, "n2")
        assert snapshot.row.nudge is not None

    def test_a_nudge_that_comes_after_the_boundary_does_not_hit_the_next_execution(
        self, provider: Provider
    ) -> None:
        begin(provider)
        boundary(provider)
        before = read(provider)
        assert nudge(provider, execution=1) is Nudged.PASSED
        assert read(provider) == before, "nothing has changed"
        (snapshot,) = claim(provider)
        assert snapshot.row.nudge is None

    def test_a_boundary_that_comes_after_a_nudge_is_refused_to_the_former_owner(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        assert nudge(provider) is Nudged.ASKED
        closed = Closing(12, ExecutionEnd.CONTINUED_AS_NEW)
        late = a_write(
            row,
            a_state(row, owner=None, wake_at=0, execution=2, opened=False),
            executions=(
                ExecutionDelta(1, closed=closed),
                ExecutionDelta(2, create=an_execution(2)),
            ),
        )
        assert one(provider, late) == Refused()

    def test_a_nudge_stays_in_the_row_and_names_its_execution_after_a_boundary(
        self, provider: Provider
    ) -> None:
        begin(provider)
        assert nudge(provider) is Nudged.ASKED
        expect(one(provider, a_write(claim(provider)[0].row)), Granted)
        boundary(provider)
        (snapshot,) = claim(provider)
        assert snapshot.row.nudge is not None
        assert (snapshot.row.nudge.execution, snapshot.row.execution) == (1, 2)
        assert nudge(provider, execution=2) is Nudged.ASKED
        assert expect_nudge(provider).execution == 2

    def test_an_execution_is_asked_once(self, provider: Provider) -> None:
        begin(provider)
        assert nudge(provider, reason="first") is Nudged.ASKED
        before = read(provider)
        assert nudge(provider, reason="second") is Nudged.STANDING
        assert read(provider) == before
        assert expect_nudge(provider).reason == "first"

    def test_a_nudge_of_another_life_is_dropped(self, provider: Provider) -> None:
        begin(provider)
        assert nudge(provider, incarnation="another") is Nudged.PASSED
        assert read(provider).row.nudge is None

    def test_there_is_nothing_to_nudge_where_an_instance_has_ended_or_never_was(
        self, provider: Provider
    ) -> None:
        assert nudge(provider) is Nudged.CLOSED
        expect(one(provider, an_end(begin(provider))), Granted)
        assert nudge(provider) is Nudged.CLOSED
        assert read(provider).row.nudge is None

    def test_a_held_instance_keeps_the_nudge_and_stays_held(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, a_write(row, a_state(row, owner=None), hold=a_hold())), Granted)
        assert nudge(provider) is Nudged.ASKED
        record = read(provider)
        assert (record.held, claim(provider)) == (True, ())
        assert expect_nudge(provider).execution == 1

    def test_a_start_that_has_not_begun_keeps_the_nudge(self, provider: Provider) -> None:
        expect(one(provider, a_start("i")), Started)
        assert nudge(provider) is Nudged.ASKED
        (snapshot,) = claim(provider)
        assert (snapshot.row.opened, snapshot.row.nudge) != (True, None)

    def test_a_nudge_does_not_begin_a_delayed_start_early(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        later = clock.now() + 3600 * SECOND
        expect(one(provider, replace(a_start("i"), wake_at=later, not_before=later)), Started)
        assert nudge(provider) is Nudged.ASKED
        assert claim(provider) == ()
        clock.advance(timedelta(hours=1))
        assert ids(claim(provider)) == ["i"]

    def test_a_nudge_does_not_cut_the_wait_of_an_instance_that_has_crashed_its_owners(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        begin(provider)  # its owner has no row: it is a ghost
        for _ in range(2):
            provider.store.sweep()
            claim(provider)
        provider.store.sweep()
        wake_at = read(provider).row.wake_at
        assert wake_at is not None
        assert wake_at > clock.now()
        assert nudge(provider) is Nudged.ASKED
        assert read(provider).row.wake_at == wake_at

    def test_messages_and_a_nudge_come_together(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, a_park(row, wake_at=_YEAR * 100)), Granted)
        one(provider, an_append("i", "m"))
        assert nudge(provider) is Nudged.ASKED
        (snapshot,) = claim(provider)
        assert (len(snapshot.messages), snapshot.row.nudge is None) == (1, False)

    def test_a_nudge_leaves_who_did_it_and_why(self, provider: Provider) -> None:
        begin(provider)
        nudge(provider)
        nudge(provider)
        nudge(provider, execution=7)
        assert self.read_audit(provider) == [
            ("ops", "nudge", "i", {"execution": 1, "reason": "a deploy"})
        ], "what changed nothing is no operation"


def expect_nudge(provider: Provider) -> Nudge:
    standing = read(provider).row.nudge
    assert standing is not None
    return standing


class DueTests(ContractBase):
    """When a boundary is due, and what the owner's write then does."""

    def test_when_the_boundary_is_due_stands_in_the_row_until_the_next_execution(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        expect(one(provider, a_write(row, a_state(row, boundary_due=77))), Granted)
        row = read(provider).row
        assert row.boundary_due == 77
        expect(one(provider, a_park(replace(row, boundary_due=None))), Granted)
        assert read(provider).row.boundary_due is None
        row = begin(provider, "j")
        expect(one(provider, a_write(row, a_state(row, boundary_due=78))), Granted)
        expect(one(provider, an_end(read(provider, "j").row)), Granted)
        assert read(provider, "j").row.boundary_due is None

    def test_overdue_instances_are_counted_by_name(self, provider: Provider) -> None:
        for number, due in enumerate((10, 20, 30, None)):
            row = begin(provider, f"i{number}")
            expect(one(provider, a_write(row, a_state(row, boundary_due=due))), Granted)
        count = provider.store.overdue
        assert count(["watch"], 9) == {}
        assert count(["watch"], 20) == {"watch": 2}
        assert count(["watch", "other"], 10**17) == {"watch": 3}
        assert count(["other"], 10**17) == {}
        expect(one(provider, an_end(read(provider, "i0").row)), Granted)
        assert count(["watch"], 20) == {"watch": 1}

    def test_the_owner_nudges_with_its_own_write(self, provider: Provider) -> None:
        row = begin(provider)
        act = Nudge(1, 5, "boundary due", UserText("it was due"))
        expect(one(provider, a_write(row, due=act)), Granted)
        record = read(provider)
        assert (record.row.nudge, record.row.owner) == (act, "n1"), "it goes on owning it"
        assert nudge(provider) is Nudged.STANDING

    def test_the_owner_cancels_with_its_own_write(self, provider: Provider) -> None:
        row = begin(provider)
        mark = CancelMark(5, UserText("it was due"), "boundary due")
        granted = expect(one(provider, a_write(row, due=mark)), Granted)
        record = read(provider)
        assert (record.row.cancel, record.row.owner) == (mark, "n1")
        assert record.row.inbox_seq == granted.inbox_seq == row.inbox_seq, "its owner knows it"
        again = expect(one(provider, Cancel("i", UserText("me too"), "me")), Appended)
        assert (again.fresh, again.cancel) == (False, mark)

    def test_a_cancel_that_stands_is_not_replaced(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, Cancel("i", UserText("first"), "me")), Appended)
        mark = CancelMark(5, UserText("it was due"), "boundary due")
        expect(one(provider, a_write(row, due=mark)), Granted)
        standing = read(provider).row.cancel
        assert standing is not None
        assert (standing.by, standing.reason) == ("me", "first")

    def test_the_owner_holds_with_its_own_write_until_an_operator_releases(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        act = OperatorHold(5, "boundary due", UserText("it was due"))
        expect(one(provider, a_write(row, a_state(row, owner=None, wake_at=0), due=act)), Granted)
        record = read(provider)
        assert (record.held, record.row.paused, record.row.operator_hold) == (True, True, act)
        assert claim(provider) == ()
        (held,) = provider.store.held(["watch"]).rows
        assert (held.hold.kind, held.hold.by) == (HoldKind.OPERATOR, "boundary due")
        expect(one(provider, Resume("i", "me")), Granted)
        (snapshot,) = claim(provider)
        assert snapshot.row.operator_hold == act, "so that its owner knows that it has acted"

    def test_a_write_that_ends_the_instance_leaves_no_trace_of_it(self, provider: Provider) -> None:
        row = begin(provider)
        act = OperatorHold(5, "boundary due", UserText("it was due"))
        expect(one(provider, an_end(row, due=act)), Granted)
        record = read(provider)
        assert (record.held, record.row.paused) == (False, False)
